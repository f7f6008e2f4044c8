//! Numbers and names in words.

/// A number with commas between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// A number of things.
pub(crate) fn counted(number: u64, thing: &str) -> String {
    let thing = match (number, thing) {
        (1, thing) => thing.to_owned(),
        (_, "process") => "processes".to_owned(),
        (_, "connection or datagram") => "connections or datagrams".to_owned(),
        (_, "denial or flow") => "denials or flows".to_owned(),
        (_, thing) => format!("{thing}s"),
    };
    format!("{} {thing}", grouped(number))
}

/// How often, behind what it is about: nothing for once.
pub(crate) fn times(count: u64) -> String {
    if count > 1 { format!(" ×{}", grouped(count)) } else { String::new() }
}

/// An amount of bytes, in three or four digits.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    // In tenths, so that nothing is rounded up into the next unit by a float.
    let (mut tenths, mut unit) = (count / 100, 0);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// How many characters of a command line are shown as its name.
const COMMAND: usize = 100;

/// A command line that is short enough for a heading.
pub(crate) fn short_command(command: &[String]) -> String {
    short(&command.join(" "), COMMAND)
}

/// The beginning of a text, of so many characters at the most.
pub(crate) fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        let table = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (20_318, "20.3 kB"),
            (999_999, "999.9 kB"),
            (1_000_000, "1.0 MB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (count, text) in table {
            assert_eq!(bytes(count), text);
        }
        assert_eq!((grouped(0), grouped(1_234_567)), ("0".to_owned(), "1,234,567".to_owned()));
    }
}
