//! Unix socket denials.

use std::fmt::{self, Write as _};

use common::{
    record::UnixSubject,
    unix::{Kind, Op},
};
use serde::{Deserialize, Serialize};

use crate::{Names, Recorded, Subject, Word};

/// A peer.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Unix {
    /// The socket's path (by hooks that see no more: as it was spelled), `@` and its abstract name, or `unnamed`. Bytes that are
    /// no text are escaped, as is the backslash.
    pub path: String,
    /// `connect` or `send`.
    pub operation: Word,
}

impl fmt::Display for Unix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.path)
    }
}

impl Recorded for UnixSubject {
    const SECTION: &'static str = "unix";

    fn op(&self) -> &'static str {
        "unix"
    }

    fn describe(&self, _: &impl Names) -> Subject {
        let name = self.name.get(..usize::from(self.length)).unwrap_or(&self.name);
        let path = match Kind::from_number(self.kind.into()) {
            Kind::UNNAMED => "unnamed".to_owned(),
            // A relative path, of which `@` is no more than a letter.
            Kind::PATH if name.starts_with(b"@") => format!("./{}", escaped(name)),
            _ => escaped(name),
        };
        let operation = if self.op == Op::Connect as u32 { "connect" } else { "send" };
        Subject::Unix(Unix { path, operation: operation.into() })
    }
}

/// Bytes as text, from which they can be told.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' || c == '\u{7f}' || c < ' ' {
                let _ = write!(text, "{}", u8::try_from(c).unwrap_or(b'?').escape_ascii());
            } else {
                text.push(c);
            }
        }
        let _ = write!(text, "{}", chunk.invalid().escape_ascii());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_bytes_can_be_told_from_others() {
        let table: [(&[u8], &str); 7] = [
            (b"/run/x", "/run/x"),
            (b"@a\0b", "@a\\x00b"),
            (b"/\xff\xfe", "/\\xff\\xfe"),
            (b"/a\\x00", "/a\\\\x00"),
            (b"/a\nb\x1b", "/a\\nb\\x1b"),
            ("/ö".as_bytes(), "/ö"),
            (b"", ""),
        ];
        for (bytes, text) in table {
            assert_eq!(escaped(bytes), text);
        }
    }
}
