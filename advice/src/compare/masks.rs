//! Comparing devices, sockets and socket options: what they are named by are numbers, of which each is either named in one of the policies,
//! or like every other one.

use std::collections::BTreeSet;

use common::{
    device::{self, MAX_MAJOR, MAX_MINOR},
    socket::{self, kind, protocol},
    sockopt,
};
use policy::{Family, Level, LevelOption, SocketProtocol, SockoptRule, access_letters, protocol_name};

use super::{Extent, Found, Side, Ways};

/// Numbers of which each is judged by itself, and one more that stands for all others up to `max`.
struct Numbers {
    named: BTreeSet<i64>,
    other: Option<i64>,
}

impl Numbers {
    fn new(named: impl IntoIterator<Item = i64>, min: i64, max: i64) -> Self {
        let named: BTreeSet<i64> = named.into_iter().collect();
        let other = (min..=max).find(|number| !named.contains(number));
        Self { named, other }
    }

    /// Each number, and whether it stands for others.
    fn all(&self) -> impl Iterator<Item = (i64, bool)> + '_ {
        self.named.iter().map(|number| (*number, false)).chain(self.other.map(|number| (number, true)))
    }
}

fn number(number: i64) -> u32 {
    u32::try_from(number).expect("it came from one")
}

/// Compares the devices sections.
pub fn devices(a: Side, b: Side, found: &mut Found) {
    let rules =
        || [a, b].into_iter().filter_map(|side| side.policy.devices.as_ref()).flat_map(|section| &section.rules);
    let majors = Numbers::new(rules().filter_map(|rule| rule.major).map(i64::from), 0, MAX_MAJOR.into());
    for (kind, letter) in [(device::Type::Block, "b"), (device::Type::Char, "c")] {
        for (major, any_major) in majors.all() {
            // The minor numbers of rules on this major number, or on any.
            let of_major = rules().filter(|rule| rule.major.is_none_or(|named| i64::from(named) == major));
            let minors = Numbers::new(of_major.filter_map(|rule| rule.minor).map(i64::from), 0, MAX_MINOR.into());
            for (minor, any_minor) in minors.all() {
                let mut by_ways: Vec<(Ways, u32)> = Vec::new();
                for access in [device::access::READ, device::access::WRITE, device::access::MKNOD] {
                    let request =
                        device::Request { kind: kind as u32, access, major: number(major), minor: number(minor) };
                    let decide = |side: Side| side.tables.devices.as_ref().map(|devices| devices.decide(&request));
                    let Some(ways) = found.judge("devices", [a, b].map(decide)) else { continue };
                    match by_ways.iter_mut().find(|(known, _)| *known == ways) {
                        Some((_, accesses)) => *accesses |= access,
                        None => by_ways.push((ways, access)),
                    }
                }
                for (ways, accesses) in by_ways {
                    let access = access_letters(accesses);
                    let example = format!("device {letter} {major}:{minor} {access}");
                    let named = |value: i64, any: bool| (!any).then(|| number(value));
                    let (major, minor) = (named(major, any_major), named(minor, any_minor));
                    found.add("devices", ways, Extent::Devices { kind: letter, major, minor, access }, example);
                }
            }
        }
    }
}

/// Types of sockets, and one that stands for all others (`SOCK_PACKET`).
const TYPES: [(u32, &str); 5] = [
    (kind::STREAM, "stream"),
    (kind::DGRAM, "dgram"),
    (kind::RAW, "raw"),
    (kind::SEQPACKET, "seqpacket"),
    (10, "other"),
];

/// The protocols of which the network section makes a difference, and [`protocol::RAW`].
const PROTOCOLS: [u32; 7] =
    [protocol::ICMP, protocol::TCP, protocol::UDP, protocol::ICMPV6, protocol::UDPLITE, protocol::RAW, protocol::MPTCP];

/// The largest protocol's number that a rule can name.
const MAX_PROTOCOL: i64 = 0xffff;

/// Compares the sockets sections, with what the network sections add to them.
pub fn sockets(a: Side, b: Side, found: &mut Found) {
    let rules =
        || [a, b].into_iter().filter_map(|side| side.policy.sockets.as_ref()).flat_map(|section| &section.rules);
    let named = rules().filter_map(|rule| rule.protocol).map(SocketProtocol::number).chain(PROTOCOLS);
    let protocols = Numbers::new(named.map(i64::from), 0, MAX_PROTOCOL);
    for family in [Family::Inet, Family::Inet6] {
        for (kind, kind_name) in TYPES {
            for (protocol, any) in protocols.all() {
                let protocol = number(protocol);
                let request = socket::Request { family: family.number(), kind, protocol, padding: 0 };
                let decide = |side: Side| side.tables.sockets.as_ref().map(|sockets| sockets.decide(&request));
                let Some(ways) = found.judge("sockets", [a, b].map(decide)) else { continue };
                let family: &str = family.into();
                let name = protocol_name(protocol);
                let example = format!("socket {family} {kind_name} {name}");
                let protocol = if any { "other".to_owned() } else { name };
                found.add("sockets", ways, Extent::Sockets { family, kind: kind_name, protocol }, example);
            }
        }
    }
}

/// The options of which the network section makes a difference, as levels and numbers.
const OPTIONS: [(i32, i32); 5] = [(0, 51), (1, 51), (1, 52), (0, 3), (41, 36)];

/// Compares the sockopts sections, with what the network sections add to them.
pub fn sockopts(a: Side, b: Side, found: &mut Found) {
    let rules =
        || [a, b].into_iter().filter_map(|side| side.policy.sockopts.as_ref()).flat_map(|section| &section.rules);
    let levels = rules().filter_map(SockoptRule::level).chain(OPTIONS.map(|(level, _)| level)).map(i64::from);
    let levels = Numbers::new(levels, 0, i32::MAX.into());
    for (level, any_level) in levels.all() {
        let level = i32::try_from(level).expect("it came from one");
        let of_level = rules().filter(|rule| rule.level().is_none_or(|named| named == level));
        let special = OPTIONS.into_iter().filter(|(of, _)| *of == level).map(|(_, option)| option);
        let options = of_level.filter_map(SockoptRule::option).chain(special).map(i64::from);
        for (option, any_option) in Numbers::new(options, 0, i32::MAX.into()).all() {
            let option = i32::try_from(option).expect("it came from one");
            for (access, word) in [(sockopt::access::GET, "get"), (sockopt::access::SET, "set")] {
                let request = sockopt::Request { level, option, access };
                let decide = |side: Side| side.tables.sockopts.as_ref().map(|sockopts| sockopts.decide(&request));
                let Some(ways) = found.judge("sockopts", [a, b].map(decide)) else { continue };
                let name = |text: String, any: bool| if any { "other".to_owned() } else { text };
                let (level_name, option_name) =
                    (Level(level).to_string(), LevelOption { level, number: option }.to_string());
                let example = format!("sockopt {word} {level_name} {option_name}");
                let (level, option) = (name(level_name, any_level), name(option_name, any_option));
                found.add("sockopts", ways, Extent::Sockopts { access: word, level, option }, example);
            }
        }
    }
}
