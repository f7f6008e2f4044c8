//! What was refused because of a name: queries, and TLS connections to other servers.

use std::{fmt, net::IpAddr};

use common::{name::Text, net::Op, record::NameSubject, socket::protocol};
use policy::display_address;
use serde::{Deserialize, Serialize};

use crate::{Names, Network, Recorded, Subject};

/// What a nameserver was to be asked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Name {
    /// The name, in small letters.
    pub name: String,
    /// The type of the records: `A`, `AAAA` and the like, or `TYPE` and its number (RFC 3597).
    #[serde(rename = "type")]
    pub kind: String,
    /// The nameserver.
    pub nameserver: IpAddr,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, .. } = self;
        write!(f, "{name} {kind}")
    }
}

impl Recorded for NameSubject {
    const SECTION: &'static str = "network";

    fn op(&self) -> &'static str {
        if self.connects == 0 { "resolve" } else { Op::CONNECT.name() }
    }

    fn describe(&self, names: &impl Names) -> Subject {
        let name = forwards(&self.text);
        if self.connects == 0 {
            let nameserver = display_address(self.address);
            return Subject::Name(Name { name, kind: kind(self.kind), nameserver });
        }
        let host = (!name.is_empty()).then_some(name);
        Subject::Network(Network { host, ..Network::new(self.address, self.port, protocol::TCP, names) })
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
