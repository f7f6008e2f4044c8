//! Refused queries.

use std::fmt;

use common::{name::Text, record::NameSubject};
use serde::{Deserialize, Serialize};

use crate::{Names, Recorded, Subject};

/// What a nameserver was to be asked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Name {
    /// The name, in small letters.
    pub name: String,
    /// The type of the records: `A`, `AAAA` and the like, or `TYPE` and its number (RFC 3597).
    #[serde(rename = "type")]
    pub kind: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind } = self;
        write!(f, "{name} {kind}")
    }
}

impl Recorded for NameSubject {
    const SECTION: &'static str = "network";

    fn op(&self) -> &'static str {
        "resolve"
    }

    fn describe(&self, _: &impl Names) -> Subject {
        Subject::Name(Name { name: forwards(&self.text), kind: kind(self.kind) })
    }
}

/// A name as people write it.
fn forwards(text: &Text) -> String {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    text[..end].iter().rev().map(|byte| char::from(*byte)).collect()
}

/// The name of a type of records.
fn kind(number: u16) -> String {
    let name = match number {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        64 => "SVCB",
        65 => "HTTPS",
        255 => "ANY",
        number => return format!("TYPE{number}"),
    };
    name.to_owned()
}
