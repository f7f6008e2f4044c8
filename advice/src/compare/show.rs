//! Sets of requests as they are listed, and a comparison as text for people.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

use common::net::{Address, Op};
use policy::{Prefix, display_address};
use report::text::OneLine;

use super::{
    Comparison, Difference, Extent, Network,
    steps::{Range, last_of, union},
};

/// How many hosts or ports are in a line for people.
const SHOWN: usize = 6;

/// Peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hosts {
    /// Addresses.
    pub ranges: Vec<Range>,
    /// Addresses at which there are sockets of the sandbox's own: those sockets alone.
    pub own: Vec<Range>,
    /// Such addresses: all but those sockets.
    pub others: Vec<Range>,
    /// Host names, each with one that is meant.
    pub names: Vec<(String, String)>,
}

/// Requests to the network, by the numbers of operations and protocols.
pub struct Rows<'a> {
    pub ops: &'a [usize],
    pub protocols: &'a BTreeSet<usize>,
    pub hosts: &'a Hosts,
    pub ports: &'a [Range],
    pub local: &'a [Range],
}

/// The names of protocols by their numbers, as policies have them, and of all others.
const PROTOCOLS: [&str; 4] = ["other", "tcp", "udp", "icmp"];

/// All ports.
pub const ALL_PORTS: [Range; 1] = [(0, 65535)];

impl Rows<'_> {
    /// As lists.
    pub fn extent(&self) -> Network {
        let own = match &self.hosts.own[..] {
            [] => vec![],
            own if own == super::net::LOOPBACK => vec!["sandbox".to_owned()],
            own => networks(own).into_iter().map(|network| format!("sandbox at {network}")).collect(),
        };
        let others = networks(&self.hosts.others).into_iter().map(|network| format!("{network} but for sandbox"));
        let names = self.hosts.names.iter().map(|(name, _)| name.clone());
        Network {
            ops: self.ops.iter().map(|op| Op::ALL[*op].name()).collect(),
            protocols: self.protocols.iter().rev().map(|protocol| PROTOCOLS[*protocol]).collect(),
            hosts: networks(&self.hosts.ranges).into_iter().chain(others).chain(own).chain(names).collect(),
            ports: ports(self.ports),
            local_ports: ports(self.local),
        }
    }

    /// A request that is in it.
    pub fn example(&self) -> String {
        let op = Op::ALL[self.ops[0]];
        let protocol = [1, 2, 3, 0].into_iter().find(|protocol| self.protocols.contains(protocol)).unwrap_or(0);
        let has = |ports: &[Range], port: u128| ports.iter().any(|(first, last)| (*first..=*last).contains(&port));
        let first =
            |ports: &[Range]| ports.first().map_or(0, |(first, last)| if first < last { first + 1 } else { *first });
        let usual = [443, 80, 8080, 53].into_iter().find(|port| has(self.ports, *port));
        let port = usual.unwrap_or_else(|| first(self.ports));
        let Hosts { ranges, own, others, .. } = self.hosts;
        let (flag, address) = match (&ranges[..], &others[..], &own[..]) {
            ([], [], []) => ("", None),
            ([], [], own) => (" --sandbox", Some(own)),
            ([], others, _) => ("", Some(others)),
            (ranges, ..) => ("", Some(ranges)),
        };
        let host = match address {
            Some(ranges) => {
                let (first, last) = example_of(ranges);
                let address = display_address(Address::from_bits(if first < last { first + 1 } else { first }));
                if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
            }
            None => self.hosts.names[0].1.clone(),
        };
        let mut example = format!("{}{flag} {} {host}:{port}", op.name(), PROTOCOLS[protocol]);
        if !self.local.is_empty() {
            let _ = write!(example, " --local-port {}", first(self.local));
        }
        example
    }
}

/// Addresses of which one is a good example: many, rather than one that stands for none, and of IPv4, which is easier to read.
fn example_of(ranges: &[Range]) -> Range {
    let (v4_first, v4_last) = (Prefix::ALL_V4.bits(), END_V4 - 1);
    let v4 = ranges.iter().filter(|(first, last)| *last >= v4_first && *first <= v4_last);
    let v4 = v4.map(|(first, last)| (*first.max(&v4_first), *last.min(&v4_last)));
    let longest = |(first, last): &Range| last - first;
    let best = v4.filter(|range| *range != (v4_first, v4_first)).max_by_key(longest);
    best.or_else(|| ranges.iter().copied().max_by_key(longest)).unwrap_or_default()
}

/// Behind the last address of IPv4.
const END_V4: u128 = 0x1_0000_0000_0000;

/// Ranges of addresses as networks and, where that is as much, `any`. IPv4's addresses are none of IPv6's.
fn networks(ranges: &[Range]) -> Vec<String> {
    let (v4_first, v4_last) = (Prefix::ALL_V4.bits(), END_V4 - 1);
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (first, last) in ranges {
        if *first < v4_first {
            v6.push((*first, *last.min(&(v4_first - 1))));
        }
        if *last > v4_last {
            v6.push((*first.max(&END_V4), *last));
        }
        if *first <= v4_last && *last >= v4_first {
            v4.push((*first.max(&v4_first), *last.min(&v4_last)));
        }
    }
    // What is on both sides of IPv4's addresses is one.
    if v6.iter().any(|(_, last)| *last == v4_first - 1) && v6.iter().any(|(first, _)| *first == END_V4) {
        v6.push((v4_first, v4_last));
        v6 = union(v6);
    }
    if v4 == [(v4_first, v4_last)] && v6 == [(0, u128::MAX)] {
        return vec!["any".to_owned()];
    }
    v4.into_iter().chain(v6).flat_map(prefixes).map(|network| network.to_string()).collect()
}

/// The fewest networks that make up a range.
fn prefixes((mut first, last): Range) -> Vec<Prefix> {
    let mut networks = Vec::new();
    loop {
        let fits = |length: &u8| {
            let network = Prefix::around(first, *length);
            network.bits() == first && last_of(network) <= last
        };
        let network = Prefix::around(first, (0..=128).find(fits).expect("one address fits"));
        networks.push(network);
        match last_of(network).checked_add(1) {
            Some(next) if next <= last => first = next,
            _ => return networks,
        }
    }
}

/// Ports as policies have them; nothing for all.
fn ports(ranges: &[Range]) -> Vec<String> {
    if ranges == ALL_PORTS {
        return Vec::new();
    }
    let one = |(first, last): &Range| match (first, last) {
        (0, 0) => "ephemeral".to_owned(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    ranges.iter().map(one).collect()
}

/// Some of a list, and how many more there are.
fn some(all: &[String], what: &str) -> String {
    let mut text = all[..all.len().min(SHOWN)].join(", ");
    if all.len() > SHOWN {
        let _ = write!(text, " and {} more {what}", all.len() - SHOWN);
    }
    text
}

/// Ports with their noun.
fn numbered(ports: &[String]) -> String {
    let several = ports.len() > 1 || ports.iter().any(|port| port.contains('-'));
    format!("{} {}", if several { "ports" } else { "port" }, some(ports, "ports"))
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.ops.join(", "))?;
        if self.protocols.len() == PROTOCOLS.len() {
            f.write_str(" by any protocol")?;
        } else if !self.protocols.is_empty() {
            write!(f, " {}", self.protocols.join(", "))?;
        }
        write!(f, " {}", some(&self.hosts, "hosts"))?;
        match &self.ports[..] {
            [] => {}
            ports => write!(f, ", {}", numbered(ports))?,
        }
        if !self.local_ports.is_empty() {
            write!(f, ", at {}", numbered(&self.local_ports))?;
        }
        Ok(())
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: &Option<u32>| number.map_or_else(|| "other".to_owned(), |number| number.to_string());
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Unix { names } => write!(f, "unix sockets: {names}"),
            Self::Devices { kind, major, minor, access } => {
                write!(f, "device {kind} {}:{} {access}", number(major), number(minor))
            }
            Self::Sysctls { access } => write!(f, "sysctls {access}"),
            Self::Sockets { family, kind, protocol } => write!(f, "socket {family} {kind} {protocol}"),
            Self::Sockopts { access, level, option } => write!(f, "sockopt {access} {level} {option}"),
            Self::Process { key, value } => write!(f, "process {key}: {value}"),
            Self::Mode(_) => f.write_str("everything: audit mode denies nothing"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { extent, allowed_by, denied_by, example } = self;
        write!(f, "{}", OneLine(extent))?;
        match extent {
            Extent::Process { .. } | Extent::Mode(_) => Ok(()),
            _ => write!(f, "\n    allowed by {allowed_by}, denied by {denied_by}; e.g. {}", OneLine(example)),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wider.is_empty() && self.narrower.is_empty() {
            return f.write_str("A and B allow the same.\n");
        }
        for (who, other, all) in [("B", "A", &self.wider), ("A", "B", &self.narrower)] {
            if all.is_empty() {
                writeln!(f, "{who} allows nothing that {other} does not.")?;
                continue;
            }
            writeln!(f, "{who} allows what {other} does not:")?;
            all.iter().try_for_each(|difference| writeln!(f, "  {difference}"))?;
        }
        Ok(())
    }
}
