//! Text that others have made (commands, file names, policies), as it may reach a terminal: nothing in it moves the cursor,
//! changes the order of letters, or is there without being seen.

use std::{
    fmt::{self, Display, Write as _},
    io,
};

use serde::Serialize;
use serde_json::{
    Serializer,
    ser::{CompactFormatter, Formatter, PrettyFormatter},
};

/// Characters that a terminal or a reader does not take for what they are: those of the general categories Cc (control), Cf
/// (format), Zl and Zp (line and paragraph separator), and those that have the property `Default_Ignorable_Code_Point`. By
/// Unicode 16 (DerivedGeneralCategory.txt, DerivedCoreProperties.txt), in order. And U+FFFE and U+FFFF, which XML can't have.
const ESCAPED: [(char, char); 28] = [
    ('\0', '\u{1f}'),
    ('\u{7f}', '\u{9f}'),
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{fffe}', '\u{ffff}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Whether a character must not reach a terminal as it is.
#[must_use]
pub fn is_escaped(character: char) -> bool {
    let after = ESCAPED.partition_point(|(first, _)| *first <= character);
    after.checked_sub(1).is_some_and(|index| character <= ESCAPED[index].1)
}

/// A piece of a text.
enum Piece<'a> {
    /// What may be shown.
    Shown(&'a str),
    /// A character that may not.
    Escaped(char),
}

/// A text in pieces.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        if is_escaped(first) {
            rest = &rest[first.len_utf8()..];
            return Some(Piece::Escaped(first));
        }
        let (shown, after) = rest.split_at(rest.find(is_escaped).unwrap_or(rest.len()));
        rest = after;
        Some(Piece::Shown(shown))
    })
}

/// Something as it may be shown on one line of a terminal: characters that may not are written as Rust writes them, `\n` or
/// `\u{9b}`.
pub struct OneLine<T>(pub T);

impl<T: Display> Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

        impl fmt::Write for Escaping<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                pieces(text).try_for_each(|piece| match piece {
                    Piece::Shown(text) => self.0.write_str(text),
                    Piece::Escaped(character) => write!(self.0, "{}", character.escape_default()),
                })
            }
        }

        write!(Escaping(f), "{}", self.0)
    }
}

/// A text of several lines as it may be shown on a terminal.
#[must_use]
pub fn lines(text: &str) -> String {
    text.split('\n').map(|line| OneLine(line).to_string()).collect::<Vec<_>>().join("\n")
}

/// The most bytes of a line that is said to the user, but for the program's name.
pub const LONGEST: usize = 980;

/// What stands where the middle of a text is left out.
const LEFT_OUT: &str = " […] ";

/// A text as it may be shown on one line of a terminal, with the middle left out where it is longer than [`LONGEST`]: what it is
/// about stands at the beginning, and what is the matter at the end.
#[must_use]
pub fn short_line(text: &str) -> String {
    // What is left out need not be escaped first, however long it is.
    let (start, end) = (cut(text, LONGEST), cut_end(text, LONGEST));
    if start.len() == text.len() {
        let whole = OneLine(text).to_string();
        if whole.len() <= LONGEST {
            return whole;
        }
    }
    let half = (LONGEST - LEFT_OUT.len()) / 2;
    let (start, end) = (OneLine(start).to_string(), OneLine(end).to_string());
    format!("{}{LEFT_OUT}{}", cut(&start, half), cut_end(&end, half))
}

/// What clap says of a wrong command line, without the usage that follows and without line breaks of clap's own: these are followed by another
/// one, or by spaces.
#[must_use]
pub fn misuse(said: &str) -> String {
    let is_said = |part: &&str| !part.starts_with("Usage:") && !part.starts_with("For more information");
    let parts = said.trim_end().split("\n\n").take_while(is_said);
    let parts: Vec<String> =
        parts.map(|part| part.trim_start().replace("\n  tip: ", "; tip: ").replace("\n  ", " ")).collect();
    parts.join("; ").trim_start_matches("error: ").to_owned()
}

/// The beginning of a text, of so many bytes at the most.
#[must_use]
pub fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// The end of a text, of so many bytes at the most.
#[must_use]
pub fn cut_end(text: &str, most: usize) -> &str {
    let start = (text.len().saturating_sub(most)..=text.len()).find(|start| text.is_char_boundary(*start));
    &text[start.unwrap_or(text.len())..]
}

/// A value as JSON on one line, in which what may not be shown is written `\uXXXX`: the value is the same.
///
/// # Errors
///
/// When the value can't be serialized.
pub fn json(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    write(value, CompactFormatter)
}

/// Like [`json`], on several lines and indented.
///
/// # Errors
///
/// When the value can't be serialized.
pub fn pretty_json(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    write(value, PrettyFormatter::new())
}

fn write(value: &impl Serialize, formatter: impl Formatter) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut text, Escaped(formatter)))?;
    Ok(text)
}

/// Writes JSON as another formatter does, but for what is in strings.
struct Escaped<F>(F);

/// Passes methods on to the other formatter.
macro_rules! passed_on {
    ($($name:ident($($argument:ident: $type:ty),*);)+) => {
        $(fn $name<W: ?Sized + io::Write>(&mut self, writer: &mut W $(, $argument: $type)*) -> io::Result<()> {
            self.0.$name(writer $(, $argument)*)
        })+
    };
}

impl<F: Formatter> Formatter for Escaped<F> {
    passed_on! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
    }

    /// A piece of a string in which nothing needs to be escaped by JSON's own rules.
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        pieces(fragment).try_for_each(|piece| match piece {
            Piece::Shown(text) => writer.write_all(text.as_bytes()),
            Piece::Escaped(character) => {
                let mut units = [0; 2];
                let mut units = character.encode_utf16(&mut units).iter();
                units.try_for_each(|unit| write!(writer, "\\u{unit:04x}"))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Texts of which half the characters are ones that must not be shown.
    fn hostile() -> impl Strategy<Value = String> {
        let chosen =
            proptest::sample::select(&ESCAPED[..]).prop_flat_map(|(first, last)| proptest::char::range(first, last));
        proptest::collection::vec(prop_oneof![chosen, any::<char>()], 0..40)
            .prop_map(|characters| characters.into_iter().collect())
    }

    /// What a terminal acts on, or a reader is misled by, asked in another way than by the table.
    fn does_harm(text: &str) -> bool {
        let known = "\u{61c}\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\
                     \u{2060}\u{2066}\u{2067}\u{2068}\u{2069}\u{feff}\u{ad}\u{180e}\u{fff9}\u{e0001}\u{e0041}";
        text.chars().any(|character| character.is_control() || known.contains(character))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn one_line_is_one_line_and_harmless(text in hostile()) {
            let shown = OneLine(&text).to_string();
            prop_assert!(!shown.contains(is_escaped) && !does_harm(&shown) && shown.lines().count() <= 1, "{shown:?}");
            // Anybody who is not hostile is shown as they are.
            prop_assert!(text.contains(is_escaped) || shown == text);
        }

        #[test]
        fn several_lines_stay_as_many(text in hostile()) {
            let shown = lines(&text);
            prop_assert!(!does_harm(&shown.replace('\n', "")));
            prop_assert_eq!(shown.matches('\n').count(), text.matches('\n').count());
        }

        #[test]
        fn json_is_harmless_and_the_same_value(key in hostile(), text in hostile()) {
            let value = json!({ key: [text, {"b": null}, []] });
            for (written, usual, breaks) in [
                (json(&value).unwrap(), serde_json::to_string(&value).unwrap(), false),
                (pretty_json(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap(), true),
            ] {
                let written = String::from_utf8(written).unwrap();
                let shown = if breaks { written.replace('\n', "") } else { written.clone() };
                prop_assert!(!shown.contains(is_escaped) && !does_harm(&shown), "{written:?}");
                prop_assert_eq!(&serde_json::from_str::<Value>(&written).unwrap(), &value);
                prop_assert!(usual.contains(|c| c != '\n' && is_escaped(c)) || usual == written);
            }
        }
    }

    #[test]
    fn the_table_is_in_order_and_has_what_does_harm() {
        assert!(
            ESCAPED.is_sorted_by(|one, other| one.1 < other.0) && ESCAPED.iter().all(|(first, last)| first <= last)
        );
        for character in '\0'..=char::MAX {
            assert!(is_escaped(character) || !does_harm(&character.to_string()), "{character:?}");
            // Rust's own list of what can't be printed has more (what is not assigned, other spaces), but what it has not is
            // text: but for characters that are there and not seen, as fillers.
            let by_itself = character.escape_debug().count() == 1;
            let unseen = matches!(character, '\u{115f}'..='\u{1160}' | '\u{3164}' | '\u{ffa0}');
            assert!(!by_itself || unseen || !is_escaped(character), "{character:?} is text");
        }
    }

    #[test]
    fn long_lines_keep_their_ends() {
        for text in ["short", &"x".repeat(LONGEST), "a\nb"] {
            assert_eq!(short_line(text), OneLine(text).to_string());
        }
        for middle in ["x".repeat(LONGEST), "ö".repeat(5_000_000), "\u{1b}".repeat(300), "€".repeat(LONGEST / 3)] {
            let line = short_line(&format!("begin{middle}end"));
            assert!(line.len() <= LONGEST && line.len() > LONGEST - 20, "{}", line.len());
            assert!(line.starts_with("begin") && line.ends_with("end") && line.contains(" […] "), "{line}");
            assert!(!line.contains(is_escaped));
        }
    }

    #[test]
    fn what_is_wrong_with_a_command_line_is_said_without_line_breaks() {
        let usage = "\n\nUsage: program [OPTIONS]\n\nFor more information, try '--help'.\n";
        for (said, expected) in [
            ("error: unexpected argument '--x' found", "unexpected argument '--x' found"),
            ("error: these are missing:\n  <A>\n  <B>", "these are missing: <A> <B>"),
            ("error: no 'x'\n  [possible values: y]", "no 'x' [possible values: y]"),
            ("error: no 'x'\n\n  tip: try 'y'\n  tip: try 'z'", "no 'x'; tip: try 'y'; tip: try 'z'"),
            ("error: no 'a\nb'", "no 'a\nb'"),
        ] {
            assert_eq!(misuse(&format!("{said}{usage}")), expected);
        }
    }

    #[test]
    fn what_is_escaped_can_be_read() {
        let text = "a\u{9b}2J\u{2028}\u{202e}b\n\u{1b}[0m\u{e0041}ö€😀";
        assert_eq!(OneLine(text).to_string(), "a\\u{9b}2J\\u{2028}\\u{202e}b\\n\\u{1b}[0m\\u{e0041}ö€😀");
        let written = String::from_utf8(json(&text).unwrap()).unwrap();
        assert_eq!(written, r#""a\u009b2J\u2028\u202eb\n\u001b[0m\udb40\udc41ö€😀""#);
    }
}
