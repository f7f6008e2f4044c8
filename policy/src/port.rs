//! Ports and ranges of ports.

use std::{fmt, str::FromStr};

use common::net::EPHEMERAL;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The word for port 0, which bind(2) takes for "any that is free".
const ANY_FREE: &str = "ephemeral";

/// A range of ports, both ends included: `80`, `"80"`, `"8000-8999"`, or `"ephemeral"` for port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Port 0: any that is free.
    pub(super) const EPHEMERAL: Self = Self { first: EPHEMERAL, last: EPHEMERAL };

    /// The first port of the range.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The last port of the range, never lower than the first.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }
}

fn port(text: &str) -> Result<u16, String> {
    // u16::from_str would take a sign.
    if text == "*" {
        return Err("\"*\" is no port; leave \"ports\" out to mean all".to_owned());
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) || text.is_empty() {
        return Err(format!("\"{text}\" is no port; write a number, a range such as \"8000-8999\", or \"ephemeral\""));
    }
    text.parse().map_err(|_| format!("port {text} is out of range (0 to 65535)"))
}

/// What to write instead of a host that has ports behind it, if `text` is one.
pub(super) fn misplaced_port(text: &str) -> Option<String> {
    let (host, ports) = text.rsplit_once(':')?;
    let ports: PortRange = ports.parse().ok()?;
    // The last part of an IPv6 address is no port.
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(host) => host,
        None if host.contains(':') || host.is_empty() => return None,
        None if host.eq_ignore_ascii_case("localhost") => "loopback",
        None => host,
    };
    let ports = if ports.first == ports.last { ports.to_string() } else { format!("\"{ports}\"") };
    Some(format!("\"{text}\" has ports; write \"{host}\" here, and \"ports\": [{ports}] beside \"hosts\""))
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == ANY_FREE {
            return Ok(Self { first: EPHEMERAL, last: EPHEMERAL });
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(format!("the range \"{text}\" is empty; did you mean \"{last}-{first}\"?"));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if (self.first, self.last) == (EPHEMERAL, EPHEMERAL) {
            f.write_str(ANY_FREE)
        } else if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = PortRange;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port number, a range such as \"8000-8999\", or \"ephemeral\"")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<PortRange, E> {
                number.to_string().parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<PortRange, E> {
                Err(E::custom(format!("port {number} is out of range (0 to 65535)")))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PortRange, E> {
                text.parse().map_err(E::custom)
            }
        }

        json.deserialize_any(Visitor)
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        if self.first == self.last && self.first != EPHEMERAL {
            json.serialize_u16(self.first)
        } else {
            json.collect_str(self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, first, last) in
            [("80", 80, 80), ("0", 0, 0), ("8000-8999", 8000, 8999), ("1-65535", 1, 65535), ("ephemeral", 0, 0)]
        {
            assert_eq!(text.parse(), Ok(PortRange { first, last }), "{text}");
        }
        for text in ["", "-", "80-", "-80", "80-20", "65536", "99999", "http", "+80", " 80", "80 - 90", "1-2-3"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }
}
