//! The pictures of the page: who reached what, and when.

use std::collections::HashMap;

use maud::{Markup, PreEscaped, html};
use report::text::OneLine;
use svg::{
    Document,
    node::element::{Description, Group, Path, Rectangle, Text, Title, path::Data},
};

use crate::{
    Summary, Timeline,
    words::{bytes, counted, grouped, short},
};

/// The width of a picture, in the units of its view box.
const WIDTH: f32 = 1000.0;

/// Where the two columns of names are, and how wide these columns' bars are.
const LEFT: f32 = 250.0;
const RIGHT: f32 = 650.0;
const BAR: f32 = 8.0;

/// How many programs and destinations are shown by name.
const PROGRAMS: usize = 12;
const DESTINATIONS: usize = 24;

/// How high all that was transferred is, how thin a line may be, and how high a name is.
const FLOW: f32 = 240.0;
const THIN: f32 = 2.0;
const REFUSED: f32 = 5.0;
const LINE: f32 = 20.0;

/// How many characters of a name are shown.
const NAME: usize = 36;

/// A stripe from a program to a destination.
struct Stripe {
    program: usize,
    destination: usize,
    width: f32,
    refused: bool,
    title: String,
}

/// A column of names.
#[derive(Default)]
struct Column {
    names: Vec<String>,
    places: HashMap<String, usize>,
    refused: Vec<bool>,
}

impl Column {
    /// The place of a name: its own, or the last one, which is for all others.
    fn place(&mut self, name: &str, most: usize, refused: bool) -> usize {
        let place = match self.places.get(name) {
            Some(place) => *place,
            None if self.names.len() < most => self.add(name),
            None if self.names.len() == most => self.add("others"),
            None => most,
        };
        self.refused[place] |= refused;
        place
    }

    fn add(&mut self, name: &str) -> usize {
        self.places.insert(name.to_owned(), self.names.len());
        self.names.push(name.to_owned());
        self.refused.push(false);
        self.names.len() - 1
    }

    /// Where each name's bar begins and how high it is, and where all end.
    fn bars(&self, widths: impl Fn(usize) -> f32) -> (Vec<(f32, f32)>, f32) {
        let mut y = 8.0;
        let bars = (0..self.names.len()).map(|place| {
            let height = widths(place);
            let top = y + (LINE - height).max(0.0) / 2.0;
            y += height.max(LINE) + 4.0;
            (top, height)
        });
        (bars.collect(), y + 4.0)
    }
}

/// A number of whole units, as pictures take it. Nothing in a picture is as large as what a float can't tell apart.
#[expect(clippy::cast_precision_loss, reason = "a picture is not that exact")]
fn float(number: u64) -> f32 {
    number as f32
}

/// Programs on the left, destinations on the right: how much was transferred, and what was denied.
pub(super) fn who_reached_what(summary: &Summary) -> Markup {
    let (mut programs, mut destinations) = (Column::default(), Column::default());
    let mut stripes: Vec<Stripe> = Vec::new();
    for refusal in &summary.refusals {
        let program = programs.place(&refusal.program, PROGRAMS, true);
        let destination = destinations.place(&refusal.destination, DESTINATIONS, true);
        let title =
            format!("{} was denied {}: {}", refusal.program, refusal.destination, counted(refusal.count, "time"));
        stripes.push(Stripe { program, destination, width: REFUSED, refused: true, title });
    }
    let most = summary.flows.iter().map(|flow| flow.sent.saturating_add(flow.received)).fold(0, u64::saturating_add);
    for flow in &summary.flows {
        let program = programs.place(&flow.program, PROGRAMS, false);
        let destination = destinations.place(&flow.destination, DESTINATIONS, false);
        let all = flow.sent.saturating_add(flow.received);
        let width = (float(all) / float(most.max(1)) * FLOW).max(THIN);
        let verb = if flow.outgoing { "reached" } else { "was reached by or at" };
        let title = format!("{} {verb} {}: {}, {}", flow.program, flow.destination, flow.extent(), bytes(all));
        stripes.push(Stripe { program, destination, width, refused: false, title });
    }
    if stripes.is_empty() {
        return html! {};
    }
    let stripes = united(stripes);
    let drawing = draw(&programs, &destinations, &stripes);
    html! {
        figure {
            div class="scroll" role="region" tabindex="0" aria-label="Picture of who reached what" { (PreEscaped(drawing.to_string())) }
            figcaption {
                "Programs on the left, what they reached or were denied on the right. "
                span class="key reached" { "Blue: reached, as wide as the bytes are many. " }
                span class="key refused" { "Red, with a cross: denied. " }
                "The tables below have all of it."
            }
        }
    }
}

/// Stripes between the same two names as one, those that were denied apart from the others.
fn united(stripes: Vec<Stripe>) -> Vec<Stripe> {
    let mut united: Vec<(Stripe, u64)> = Vec::new();
    let mut places: HashMap<(usize, usize, bool), usize> = HashMap::new();
    for stripe in stripes {
        let key = (stripe.program, stripe.destination, stripe.refused);
        if let Some(place) = places.get(&key) {
            let (known, count) = &mut united[*place];
            // What is denied is as wide for one as for several.
            known.width = if known.refused { known.width } else { known.width + stripe.width };
            *count += 1;
            if *count <= 4 {
                known.title = format!("{}\n{}", known.title, stripe.title);
            }
        } else {
            places.insert(key, united.len());
            united.push((stripe, 1));
        }
    }
    united.into_iter().map(|(stripe, _)| stripe).collect()
}

fn draw(programs: &Column, destinations: &Column, stripes: &[Stripe]) -> Document {
    let sum =
        |at: &dyn Fn(&Stripe) -> bool| stripes.iter().filter(|stripe| at(stripe)).map(|stripe| stripe.width).sum();
    let (left, left_end) = programs.bars(|place| sum(&|stripe| stripe.program == place));
    let (right, right_end) = destinations.bars(|place| sum(&|stripe| stripe.destination == place));
    let height = left_end.max(right_end);
    let mut drawing = Document::new()
        .set("viewBox", (0, 0, WIDTH, height))
        .set("role", "img")
        .set("aria-labelledby", "picture-title picture-text")
        .set("class", "picture")
        .add(Title::new("Who reached what").set("id", "picture-title"))
        .add(Description::new().set("id", "picture-text").add(svg::node::Text::new(in_words(stripes))));
    let (mut from, mut to): (Vec<f32>, Vec<f32>) =
        (left.iter().map(|(top, _)| *top).collect(), right.iter().map(|(top, _)| *top).collect());
    // Denials last, so that nothing hides them.
    let mut ordered: Vec<(&Stripe, f32, f32)> = Vec::new();
    for stripe in stripes {
        let (one, other) = (from[stripe.program], to[stripe.destination]);
        from[stripe.program] += stripe.width;
        to[stripe.destination] += stripe.width;
        ordered.push((stripe, one, other));
    }
    ordered.sort_by_key(|(stripe, ..)| stripe.refused);
    for (stripe, one, other) in ordered {
        let (start, end, middle) = (LEFT + BAR, RIGHT, f32::midpoint(LEFT + BAR, RIGHT));
        let data = Data::new()
            .move_to((start, one))
            .cubic_curve_to((middle, one, middle, other, end, other))
            .line_to((end, other + stripe.width))
            .cubic_curve_to((middle, other + stripe.width, middle, one + stripe.width, start, one + stripe.width))
            .close();
        let class = if stripe.refused { "refused" } else { "reached" };
        let title = OneLine(stripe.title.replace('\n', "; ")).to_string();
        drawing = drawing.add(Path::new().set("class", class).set("d", data).add(Title::new(title)));
    }
    for (column, bars, x, at, anchor) in
        [(programs, &left, LEFT, LEFT - 8.0, "end"), (destinations, &right, RIGHT, RIGHT + BAR + 8.0, "start")]
    {
        for (place, (top, height)) in bars.iter().enumerate() {
            let refused = column.refused[place] && anchor == "start";
            drawing = drawing.add(named(&column.names[place], refused, (x, at, *top, *height), anchor));
        }
    }
    drawing
}

/// A bar with its name.
fn named(name: &str, refused: bool, (x, at, top, height): (f32, f32, f32, f32), anchor: &str) -> Group {
    let name = OneLine(name).to_string();
    let text = format!("{}{}", if refused { "✗ " } else { "" }, short(&name, NAME));
    let bar = Rectangle::new().set("class", "bar").set("x", x).set("y", top).set("width", BAR).set("height", height);
    let text = Text::new(text)
        .set("x", at)
        .set("y", top + height / 2.0 + 4.5)
        .set("text-anchor", anchor)
        .set("class", if refused { "denied" } else { "name" });
    Group::new().add(Title::new(name)).add(bar).add(text)
}

/// The picture in words, the first stripes of many.
fn in_words(stripes: &[Stripe]) -> String {
    const WORDS: usize = 12;
    let words = stripes.iter().take(WORDS).map(|stripe| OneLine(stripe.title.replace('\n', "; ")).to_string());
    let words = words.collect::<Vec<_>>().join(". ");
    match stripes.len().saturating_sub(WORDS) {
        0 => format!("{words}."),
        more => format!("{words}. And {more} more, which the tables have."),
    }
}

/// The height of a half of the time line.
const HALF: f32 = 46.0;

/// When something was denied (upwards) and reached (downwards).
pub(super) fn when(summary: &Summary) -> Markup {
    let Some(line) = &summary.timeline else { return html! {} };
    let most = |numbers: &[u64]| numbers.iter().copied().max().unwrap_or(0);
    let (denials, flows) = (most(&line.denials), most(&line.flows));
    let text = format!(
        "In {}: at most {} and {} at a time.",
        line.length(),
        counted(denials, "denial"),
        counted(flows, "flow")
    );
    let middle = HALF + 14.0;
    let mut drawing = Document::new()
        .set("viewBox", (0, 0, WIDTH, 2.0 * HALF + 48.0))
        .set("role", "img")
        .set("aria-labelledby", "time-title time-text")
        .set("class", "picture")
        .add(Title::new("Time line").set("id", "time-title"))
        .add(Description::new().set("id", "time-text").add(svg::node::Text::new(text.as_str())));
    for (numbers, most, class) in [(&line.denials, denials, "refused"), (&line.flows, flows, "reached")] {
        drawing = bars(drawing, line, numbers, (most, middle), class);
    }
    let axis = Rectangle::new().set("class", "axis").set("x", 0).set("y", middle).set("width", WIDTH).set("height", 1);
    let label = |x: f32, anchor: &str, text: String| {
        Text::new(text).set("class", "name").set("x", x).set("y", 2.0 * HALF + 42.0).set("text-anchor", anchor)
    };
    let drawing = drawing.add(axis).add(label(0.0, "start", format!("{:.3}", line.first))).add(label(
        WIDTH,
        "end",
        format!("+ {}", line.length()),
    ));
    html! {
        figure {
            div class="scroll" role="region" tabindex="0" aria-label="Time line" { (PreEscaped(drawing.to_string())) }
            figcaption {
                "Time line. "
                span class="key refused" { "Red, upwards: denials (at most " (grouped(denials)) " at a time). " }
                span class="key reached" { "Blue, downwards: flows (at most " (grouped(flows)) ")." }
            }
        }
    }
}

fn bars(mut drawing: Document, line: &Timeline, numbers: &[u64], (most, middle): (u64, f32), class: &str) -> Document {
    let slot = WIDTH / float(line.denials.len() as u64);
    for (place, number) in numbers.iter().enumerate().filter(|(_, number)| **number > 0) {
        let height = (float(*number) / float(most.max(1)) * HALF).max(3.0);
        let y = if class == "refused" { middle - height } else { middle + 1.0 };
        let what = if class == "refused" { "denial" } else { "flow" };
        let bar = Rectangle::new()
            .set("class", class)
            .set("x", float(place as u64) * slot + 1.0)
            .set("y", y)
            .set("width", slot - 2.0)
            .set("height", height)
            .add(Title::new(counted(*number, what)));
        drawing = drawing.add(bar);
    }
    drawing
}
