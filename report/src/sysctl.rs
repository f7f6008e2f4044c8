//! Sysctl denials.

use std::fmt;

use common::{
    record::SysctlSubject,
    sysctl::{Access, VALUE_WORDS},
};
use serde::{Deserialize, Serialize};

use crate::{Names, Recorded, Subject, Word};

/// A tunable.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Sysctl {
    /// The tunable's name below /proc/sys; empty where it was too long to be judged.
    pub name: String,
    /// `r` or `w`.
    pub access: Word,
    /// What a write tried to set, without a newline at its end; cut after 64 bytes. What is no UTF-8 is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, access, value } = self;
        write!(f, "{name} {access}")?;
        match value {
            // Escaped: it could be anything, and this may go to a terminal.
            Some(value) => write!(f, " {value:?}"),
            None => Ok(()),
        }
    }
}

impl Recorded for SysctlSubject {
    const SECTION: &'static str = "sysctls";

    fn op(&self) -> &'static str {
        "sysctl"
    }

    fn describe(&self, _: &impl Names) -> Subject {
        let name = self.name.split(|byte| *byte == 0).next().unwrap_or_default();
        let write = self.access as usize == Access::WRITE.index();
        Subject::Sysctl(Sysctl {
            name: String::from_utf8_lossy(name).into_owned(),
            access: if write { "w" } else { "r" }.into(),
            value: write.then(|| shown(&self.value, self.length)),
        })
    }
}

/// How many bytes of a value are in the log.
const SHOWN: usize = 64;

/// A value that a write tried to set, as it is in the log.
fn shown(value: &[u64; VALUE_WORDS], length: i32) -> String {
    let bytes: Vec<u8> = value.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let length = match length {
        // Longer than the buffer.
        length if length == -libc::E2BIG => bytes.len(),
        // No value at all: an empty write.
        length => usize::try_from(length).unwrap_or(0),
    };
    let whole = bytes.get(..length).unwrap_or(&bytes);
    let whole = whole.strip_suffix(b"\n").unwrap_or(whole);
    match whole.get(..SHOWN) {
        Some(start) if whole.len() > SHOWN => String::from_utf8_lossy(start).into_owned() + "…",
        _ => String::from_utf8_lossy(whole).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &[u8]) -> [u64; VALUE_WORDS] {
        let mut bytes = [0; 8 * VALUE_WORDS];
        bytes[..text.len()].copy_from_slice(text);
        std::array::from_fn(|word| u64::from_ne_bytes(bytes[8 * word..][..8].try_into().unwrap()))
    }

    #[test]
    fn values_are_cut_after_64_bytes() {
        let long = "a".repeat(71);
        let cut = "a".repeat(64) + "…";
        let table: [(&str, String); 9] = [
            ("", String::new()),
            ("\n", String::new()),
            ("1\n", "1".into()),
            ("1\n\n", "1\n".into()),
            ("1\0", "1\0".into()),
            (&long[..64], long[..64].into()),
            (&(long[..64].to_owned() + "\n"), long[..64].into()),
            (&long[..65], cut.clone()),
            (&long, cut.clone()),
        ];
        for (text, expected) in table {
            assert_eq!(shown(&value(text.as_bytes()), i32::try_from(text.len()).unwrap()), expected, "{text:?}");
        }
        assert_eq!(shown(&value(long.as_bytes()), -libc::E2BIG), cut);
        assert_eq!(shown(&value(b""), -libc::EINVAL), "");
    }
}
