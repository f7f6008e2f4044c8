//! Sockopt denials.

use std::fmt;

use common::{record::SockoptSubject, sockopt::access};
use policy::{Level, LevelOption};
use serde::{Deserialize, Serialize};

use crate::{Names, Recorded, Subject, Word};

/// A socket option.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Sockopt {
    /// The option's level, by name if it has one.
    pub level: NameOrNumber,
    /// The option, by name if it has one.
    pub option: NameOrNumber,
    /// `get` or `set`.
    pub access: Word,
    /// The value that was to be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// How many bytes the value has: that one, or the one that the kernel had already found. Negative if the caller says
    /// so.
    pub length: i32,
    /// Always: there are ways round these hooks.
    pub advisory: bool,
}

/// A name, or the number of what has none.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum NameOrNumber {
    /// The number.
    Number(i32),
    /// The name.
    Name(String),
}

impl NameOrNumber {
    /// What is shown as its name if it has one, and otherwise as its number. No name is a number.
    fn of(shown: impl fmt::Display) -> Self {
        let text = shown.to_string();
        text.parse().map_or(Self::Name(text), Self::Number)
    }
}

impl fmt::Display for NameOrNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// A value that was to be set.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A value of 1 or 4 bytes, which nearly all options have.
    Number(i32),
    /// Any other, in hexadecimal; cut after 16 bytes.
    Bytes(String),
}

impl Value {
    fn new(first_bytes: [u64; 2], length: i32) -> Self {
        let bytes: Vec<u8> = first_bytes.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let length = usize::try_from(length).unwrap_or(0);
        match (length, &bytes[..]) {
            (1, [byte, ..]) => Self::Number((*byte).into()),
            (4, [a, b, c, d, ..]) => Self::Number(i32::from_ne_bytes([*a, *b, *c, *d])),
            _ => {
                let cut = if length > bytes.len() { "…" } else { "" };
                let bytes = bytes.iter().take(length);
                let hexadecimal = bytes.fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
                Self::Bytes(hexadecimal + cut)
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Bytes(hexadecimal) if hexadecimal.is_empty() => f.write_str("nothing"),
            Self::Bytes(hexadecimal) => write!(f, "0x{hexadecimal}"),
        }
    }
}

impl fmt::Display for Sockopt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, option, access, value, .. } = self;
        write!(f, "{access} {level} {option}")?;
        match value {
            Some(value) => write!(f, " = {value} (advisory)"),
            None => f.write_str(" (advisory)"),
        }
    }
}

impl Recorded for SockoptSubject {
    const SECTION: &'static str = "sockopts";

    fn op(&self) -> &'static str {
        "sockopt"
    }

    fn describe(&self, _: &impl Names) -> Subject {
        let Self { level, option, access, length, value } = *self;
        let set = access == access::SET;
        Subject::Sockopt(Sockopt {
            level: NameOrNumber::of(Level(level)),
            option: NameOrNumber::of(LevelOption { level, number: option }),
            access: if set { "set" } else { "get" }.into(),
            value: set.then(|| Value::new(value, length)),
            length,
            advisory: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_by_their_length() {
        let words = |text: &[u8; 16]| {
            let (first, second) = text.split_at(8);
            [first, second].map(|half| u64::from_ne_bytes(half.try_into().unwrap()))
        };
        let text = words(b"cubic\0\xff789abcdef");
        let minus_one = words(&[0xff; 16]);
        let table = [
            (minus_one, 4, Value::Number(-1)),
            (minus_one, 1, Value::Number(255)),
            (minus_one, 2, Value::Bytes("ffff".into())),
            (text, 0, Value::Bytes(String::new())),
            (text, -5, Value::Bytes(String::new())),
            (text, 7, Value::Bytes("637562696300ff".into())),
            (text, 16, Value::Bytes("637562696300ff373839616263646566".into())),
            (text, 17, Value::Bytes("637562696300ff373839616263646566…".into())),
        ];
        for (bytes, length, expected) in table {
            assert_eq!(Value::new(bytes, length), expected, "{length}");
        }
    }
}
