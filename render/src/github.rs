//! Annotations for GitHub Actions, as workflow commands on standard output.

use std::fmt::Write as _;

use report::text::OneLine;

use crate::{
    Guarding, Summary,
    place::Root,
    words::{counted, times},
};

/// How many annotations of one kind GitHub shows of a step.
const SHOWN: usize = 10;

/// The annotations: of runs that were not guarded, and of denials at the policy's line, the rarest first.
#[must_use]
pub fn annotations(summary: &Summary, root: Root) -> String {
    let mut commands = String::new();
    let unguarded = summary.runs.iter().filter(|run| matches!(run.guarding, Guarding::Unknown | Guarding::Nothing));
    for run in unguarded {
        let _ = writeln!(commands, "::error title=guard-run::{}", data(&format!("{}: {}", run.name(), run.guard())));
    }
    for denial in summary.denials.iter().take(SHOWN) {
        let kind = if denial.refused { "error" } else { "warning" };
        let title = format!("guard-run {} {}{}", denial.verdict(), denial.what(), times(denial.why.count));
        let mut message = format!("by {}", denial.rule());
        for (head, text) in [("reason", denial.why.reason.clone()), ("test", Some(summary.tests_of(denial)))] {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                let _ = write!(message, "\n{head}: {}", OneLine(text));
            }
        }
        if let Some(way) = denial.why.ways.first() {
            let lines: Vec<String> = way.lines().iter().map(|line| OneLine(line).to_string()).collect();
            let _ = write!(message, "\nallow by {}", lines.join("\n"));
        }
        let place = summary.place(denial, root);
        let place = place.map(|(file, line)| format!("file={},line={line},", property(&file))).unwrap_or_default();
        let _ = writeln!(commands, "::{kind} {place}title={}::{}", property(&title), data(&message));
    }
    if let Some(more @ 1..) = summary.denials.len().checked_sub(SHOWN) {
        let more = counted(more as u64, "kind");
        let _ = writeln!(commands, "::notice title=guard-run::{more} of denials more are in the summary");
    }
    commands
}

/// A command's message. Line breaks of ours are kept, and nothing in it ends the line.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// The value of a command's property.
fn property(text: &str) -> String {
    data(&OneLine(text).to_string()).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_a_command() {
        assert_eq!(data("100%\r\n::error::x"), "100%25%0D%0A::error::x");
        assert_eq!(property("a,b:c\n%"), "a%2Cb%3Ac\\n%25");
    }
}
