//! Hosts of network rules: networks, addresses and named sets of them.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use common::net::Address;
use serde::{Deserialize, Serializer};

use super::{error::did_you_mean, name::HostName, port::misplaced_port};

/// A network in the one address space of IPv4 and IPv6: the leading `length` bits of `bits`, the others being zero.
/// IPv4 networks are below `::ffff:0:0/96`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    bits: u128,
    length: u8,
}

impl Prefix {
    /// All of IPv6 (and nothing of IPv4: see [`crate::compile`]).
    pub const ALL_V6: Self = Self { bits: 0, length: 0 };
    /// All of IPv4.
    pub const ALL_V4: Self = Self { bits: 0xffff_0000_0000, length: 96 };
    /// 127.0.0.0/8.
    pub const LOOPBACK_V4: Self = Self { bits: 0xffff_7f00_0000, length: 104 };

    /// The network of `length` bits around an address.
    #[must_use]
    pub const fn around(bits: u128, length: u8) -> Self {
        Self { bits: bits & Self::mask(length), length }
    }

    const fn mask(length: u8) -> u128 {
        match length {
            0 => 0,
            length => u128::MAX << (128 - length),
        }
    }

    /// The network's first address.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.bits
    }

    /// The number of leading bits that the network fixes, 0 to 128.
    #[must_use]
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Whether all of `other` is in this network.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.length <= other.length && other.bits & Self::mask(self.length) == self.bits
    }

    /// The network whose only member is an address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self { bits: shared_space(address).to_bits(), length: 128 }
    }
}

/// An address of either family in the shared address space.
#[must_use]
pub fn shared_space(address: IpAddr) -> Address {
    let v6 = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    Address::from_bits(v6.to_bits())
}

/// An address of the shared space as people write it: IPv4 as IPv4.
#[must_use]
pub fn display_address(address: Address) -> IpAddr {
    Ipv6Addr::from_bits(address.to_bits()).to_canonical()
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address_text, length_text) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address_text.parse().map_err(|_| not_an_address(text, address_text))?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let length = match length_text {
            None => width,
            Some(length) => length
                .parse::<u8>()
                .ok()
                .filter(|number| *number <= width && *length == number.to_string())
                .ok_or_else(|| {
                    let is_port = length.parse().is_ok_and(|number: u16| number > 128);
                    let hint =
                        if is_port { format!("; a port is written as \"ports\": [{length}]") } else { String::new() };
                    format!("\"{text}\": the prefix length must be a number from 0 to {width}{hint}")
                })?,
        };
        let given = shared_space(address).to_bits();
        let prefix = Self::around(given, 128 - width + length);
        if prefix.bits != given {
            return Err(format!("\"{text}\" has host bits set; did you mean \"{prefix}\"?"));
        }
        Ok(prefix)
    }
}

fn not_an_address(text: &str, address: &str) -> String {
    let hint = hint(text);
    if text.eq_ignore_ascii_case("localhost") {
        format!("\"{text}\" is no address, network or named set; did you mean \"loopback\"?")
    } else if address.contains('%') {
        format!("\"{text}\": zone identifiers can't be matched; write the address without \"%…\"")
    } else {
        format!("\"{text}\" is no address, network, host name or named set{hint} (sets: {})", words().join(", "))
    }
}

/// The words that are no names of hosts.
fn words() -> Vec<&'static str> {
    Set::ALL.iter().map(|set| set.name()).chain([SANDBOX]).collect()
}

/// Which of the words may have been meant, if one may.
fn hint(text: &str) -> String {
    did_you_mean(text, &words())
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v4 = Self::ALL_V4.covers(*self);
        let (width, length) = if v4 { (32, self.length - 96) } else { (128, self.length) };
        let address = if v4 {
            display_address(Address::from_bits(self.bits))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(self.bits))
        };
        if length == width { write!(f, "{address}") } else { write!(f, "{address}/{length}") }
    }
}

/// Named sets of networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// Every address.
    Any,
    /// This host, by its loopback addresses.
    Loopback,
    /// Networks for private use (RFC 1918, RFC 4193).
    Private,
    /// Link-local networks (RFC 3927, RFC 4291).
    LinkLocal,
    /// Groups (RFC 5771, RFC 4291).
    Multicast,
    /// The addresses at which clouds serve instances their metadata and credentials.
    Metadata,
}

impl Set {
    const ALL: [Self; 6] = [Self::Any, Self::Loopback, Self::Private, Self::LinkLocal, Self::Multicast, Self::Metadata];

    const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::Multicast => "multicast",
            Self::Metadata => "metadata",
        }
    }

    const fn networks(self) -> &'static [&'static str] {
        match self {
            Self::Any => &["0.0.0.0/0", "::/0"],
            Self::Loopback => &["127.0.0.0/8", "::1"],
            Self::Private => &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"],
            Self::LinkLocal => &["169.254.0.0/16", "fe80::/10"],
            Self::Multicast => &["224.0.0.0/4", "ff00::/8"],
            Self::Metadata => &[
                "169.254.169.254", // AWS, Azure, Google, Oracle, DigitalOcean, OpenStack …
                "fd00:ec2::254",   // AWS
                "169.254.170.2",   // AWS, credentials of a task
                "169.254.170.23",  // AWS, identity of a pod
                "fd00:ec2::23",
                "fd20:ce::254",    // Google
                "168.63.129.16",   // Azure, host agent
                "100.100.100.200", // Alibaba
                "169.254.42.42",   // Scaleway
                "fd00:42::42",
            ],
        }
    }
}

/// The word for the sandbox's own sockets.
const SANDBOX: &str = "sandbox";

/// What the names of the policy's own sets have before them in rules.
pub(super) const SET: char = '@';

/// The name of a set, if it is one.
pub(super) fn set_name(name: &str) -> Result<&str, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > LONGEST_SET || !name.chars().all(is_plain) {
        return Err(format!(
            "\"{name}\" is no name of a set: that is up to {LONGEST_SET} letters of a to z, digits, hyphens and underscores"
        ));
    }
    Ok(name)
}

/// The longest name of a set.
const LONGEST_SET: usize = 64;

/// A host of a network rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub enum Host {
    /// Addresses, resolved to networks.
    Networks(Vec<Prefix>),
    /// Sockets that processes of this same sandbox have made, reached by a loopback address.
    Sandbox,
    /// The addresses that a nameserver says this name has, or a name below it.
    Name(HostName),
    /// What the policy's set of this name has. There is none in a policy that has been parsed.
    Set(String),
}

impl Host {
    /// A host by its name.
    fn named(text: &str) -> Result<Self, String> {
        let network = text.split_once('/').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok());
        let hint = hint(text);
        if network || !text.contains('.') && !hint.is_empty() {
            // A network with a strange length, or a word that is misspelt rather than a host's name of one label.
            return Err(if network {
                text.parse::<Prefix>().expect_err("it is none")
            } else {
                not_an_address(text, text)
            });
        }
        HostName::parse(text).map(Self::Name)
    }

    /// The networks that are meant.
    #[must_use]
    pub fn networks(&self) -> &[Prefix] {
        match self {
            Self::Networks(networks) => networks,
            Self::Sandbox | Self::Name(_) | Self::Set(_) => &[],
        }
    }
}

impl TryFrom<String> for Host {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == SANDBOX {
            return Ok(Self::Sandbox);
        }
        if let Some(name) = text.strip_prefix(SET) {
            return set_name(name).map(|name| Self::Set(name.to_owned()));
        }
        if let Some(set) = Set::ALL.iter().find(|set| set.name() == text) {
            return Ok(Self::Networks(set.networks().iter().map(|network| network.parse()).collect::<Result<_, _>>()?));
        }
        let address: Result<Prefix, String> = text.parse();
        match address {
            Ok(network) => Ok(Self::Networks(vec![network])),
            Err(error) => match misplaced_port(&text) {
                Some(misplaced) => Err(misplaced),
                // This host is meant, and not the one that a nameserver says.
                None if text.eq_ignore_ascii_case("localhost") => Err(error),
                None if HostName::is_meant(&text) => Self::named(&text),
                None => Err(error),
            },
        }
    }
}

/// Writes the networks of all hosts of a rule as one list, which means the same.
#[allow(clippy::ref_option)] // serde hands over a reference to the field
pub(super) fn serialize_hosts<S: Serializer>(hosts: &Option<Vec<Host>>, json: S) -> Result<S::Ok, S::Error> {
    json.collect_seq(hosts.iter().flatten().flat_map(|host| match host {
        Host::Networks(networks) => networks.iter().map(ToString::to_string).collect(),
        Host::Sandbox => vec![SANDBOX.to_owned()],
        Host::Name(name) => vec![name.to_string()],
        Host::Set(name) => vec![format!("{SET}{name}")],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_written() {
        let table = [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1/32", "127.0.0.1"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1"),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Prefix>().map(|prefix| prefix.to_string()), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_hint() {
        let table = [
            ("10.0.0.1/8", "did you mean \"10.0.0.0/8\"?"),
            ("10.0.0.0/33", "from 0 to 32"),
            ("::/129", "from 0 to 128"),
            ("10.0.0.0/+8", "from 0 to 32"),
            ("10.0.0.0/08", "from 0 to 32"),
            ("10.0.0.0/", "from 0 to 32"),
            ("010.0.0.1", "no address"),
            ("10.0.0", "no address"),
            ("lopback", "did you mean \"loopback\"?"),
            ("Any", "did you mean \"any\"?"),
            ("fe80::1%eth0", "zone"),
            ("", "no address"),
            ("localhost", "did you mean \"loopback\"?"),
            ("127.0.0.1:8080", "write \"127.0.0.1\" here, and \"ports\": [8080]"),
            ("[::1]:80", "write \"::1\" here, and \"ports\": [80]"),
            ("localhost:80", "write \"loopback\" here, and \"ports\": [80]"),
            ("any:80", "write \"any\" here, and \"ports\": [80]"),
            ("10.0.0.0/8:8000-8999", "write \"10.0.0.0/8\" here, and \"ports\": [\"8000-8999\"]"),
        ];
        for (text, expected) in table {
            let error = Host::try_from(text.to_owned()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn named_sets_are_networks() {
        for set in Set::ALL {
            let host = Host::try_from(set.name().to_owned()).unwrap();
            assert_eq!(host.networks().len(), set.networks().len(), "{}", set.name());
        }
    }
}
