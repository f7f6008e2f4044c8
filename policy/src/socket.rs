//! Rules of the sockets section.

use std::fmt;

use common::socket::{self, kind, protocol};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    Action, Rule,
    error::did_you_mean,
    section::{is_reported, present, reason, reported, words},
};

/// A rule on making sockets. What is `None` holds for all.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SocketRule {
    /// What happens to the requests that match.
    pub action: Action,
    /// Whether what it denies is reported.
    #[serde(default = "reported", skip_serializing_if = "is_reported")]
    pub report: bool,
    /// Address family.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// Type.
    #[serde(rename = "type", default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub kind: Option<SocketType>,
    /// Protocol.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub protocol: Option<SocketProtocol>,
    /// Why it is there, for anybody who meets it.
    #[serde(default, deserialize_with = "reason", skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl SocketRule {
    /// Whether the rule says what kind of socket it is about, beyond its family.
    #[must_use]
    pub const fn names_a_kind(&self) -> bool {
        self.kind.is_some() || self.protocol.is_some()
    }
}

impl Rule for SocketRule {
    fn action(&self) -> Action {
        self.action
    }

    fn reports(&self) -> bool {
        self.report
    }

    fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

/// Address families. The kernel asks a guard about no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

impl Family {
    /// The `AF_*` number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Inet => socket::INET,
            Self::Inet6 => socket::INET6,
        }
    }
}

impl TryFrom<String> for Family {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "inet" => Ok(Self::Inet),
            "inet6" => Ok(Self::Inet6),
            other => Err(format!(
                "\"{other}\"{}: the kernel's sock_create hook sees families inet and inet6 only",
                did_you_mean(other, &["inet", "inet6"])
            )),
        }
    }
}

impl From<Family> for &'static str {
    fn from(family: Family) -> Self {
        match family {
            Family::Inet => "inet",
            Family::Inet6 => "inet6",
        }
    }
}

words! {
    /// Types of sockets.
    pub enum SocketType {
        /// A stream of bytes.
        Stream = "stream",
        /// Datagrams.
        Dgram = "dgram",
        /// Packets with the protocol's own header.
        Raw = "raw",
        /// Messages in sequence.
        Seqpacket = "seqpacket",
    }
}

impl SocketType {
    /// The `SOCK_*` number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Stream => kind::STREAM,
            Self::Dgram => kind::DGRAM,
            Self::Raw => kind::RAW,
            Self::Seqpacket => kind::SEQPACKET,
        }
    }
}

/// A socket's protocol, by its `IPPROTO_*` number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketProtocol(u32);

/// Protocols that can be called by name.
const PROTOCOLS: [(&str, u32); 8] = [
    ("tcp", protocol::TCP),
    ("udp", protocol::UDP),
    ("mptcp", protocol::MPTCP),
    ("icmp", protocol::ICMP),
    ("icmpv6", protocol::ICMPV6),
    ("udplite", protocol::UDPLITE),
    ("sctp", protocol::SCTP),
    ("dccp", protocol::DCCP),
];

/// The largest number of a protocol that the kernel takes, `IPPROTO_MAX - 1` at the time of writing being 262.
const MAX_PROTOCOL: u64 = 0xffff;

impl SocketProtocol {
    /// The `IPPROTO_*` number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// A protocol's name, or else its number.
#[must_use]
pub fn protocol_name(number: u32) -> String {
    let known = PROTOCOLS.iter().find(|(_, known)| *known == number);
    known.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

impl std::str::FromStr for SocketProtocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
        let known = PROTOCOLS.iter().find(|(name, _)| *name == text).map(|(_, number)| Self(*number));
        known.ok_or_else(|| {
            let hint = did_you_mean(text, &names);
            format!("unknown protocol \"{text}\"{hint} (known: {}, and numbers)", names.join(", "))
        })
    }
}

impl<'de> Deserialize<'de> for SocketProtocol {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = SocketProtocol;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a protocol's name or number")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<SocketProtocol, E> {
                let fits = u32::try_from(number).ok().filter(|_| number <= MAX_PROTOCOL);
                let wrong = || E::custom(format!("protocol {number} is out of range (0 to {MAX_PROTOCOL})"));
                fits.map(SocketProtocol).ok_or_else(wrong)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SocketProtocol, E> {
                text.parse().map_err(E::custom)
            }
        }

        json.deserialize_any(Visitor)
    }
}

impl Serialize for SocketProtocol {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        match PROTOCOLS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => json.serialize_str(name),
            None => json.serialize_u32(self.0),
        }
    }
}
