//! The policy language in its plainest reading: every rule is tried in order, and nothing is compiled. What the tables
//! and the kernel decide is compared with this, so it shares no code with either.
#![allow(dead_code)] // no test needs all of it

use std::net::{IpAddr, Ipv6Addr};

use common::{
    Decision,
    decision::{DEFAULT, TUNABLE_WRITE},
    unix::{Kind, NAME_LEN},
};
use policy::{
    Action, DeviceRule, Host, NetRule, Op, Part, Policy, Prefix, Protocol, Rule, Section, SocketRule, SockoptRule,
    UnixRule,
};

/// Something that is asked of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    /// 0: connect, 1: bind, 2: send, 3: receive.
    pub op: u8,
    /// An `IPPROTO_*` number.
    pub protocol: u8,
    /// IPv4 in its mapped form.
    pub address: Ipv6Addr,
    pub port: u16,
    /// The peer is a socket of the same sandbox.
    pub own: bool,
}

impl Net {
    /// A connection to a peer outside the sandbox.
    pub fn connect(protocol: u8, address: Ipv6Addr, port: u16) -> Self {
        Self { op: 0, protocol, address, port, own: false }
    }
}

/// A socket that is asked for, with the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    pub family: u32,
    pub kind: u32,
    pub protocol: u32,
}

/// A device that is asked for, with the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// 1: block, 2: char.
    pub kind: u32,
    pub major: u32,
    pub minor: u32,
    /// 1: mknod, 2: read, 4: write.
    pub access: u32,
}

/// A sysctl that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    pub name: Vec<u8>,
    pub write: bool,
}

/// A socket option that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sockopt {
    pub level: i32,
    pub option: i32,
    pub set: bool,
}

/// A peer that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unix {
    pub kind: Kind,
    /// With its `/` or `@`.
    pub name: Vec<u8>,
    /// The peer is a socket of the same sandbox.
    pub own: bool,
}

impl Unix {
    /// The name as the programs have it, after its length.
    pub fn padded(&self) -> (u16, [u8; NAME_LEN]) {
        let mut name = [0; NAME_LEN];
        name[..self.name.len()].copy_from_slice(&self.name);
        (u16::try_from(self.name.len()).unwrap(), name)
    }
}

pub fn net(section: &Section<NetRule>, request: Net) -> Decision {
    first_match(section, |rule| {
        let names_bind = rule.ops.iter().flatten().any(|op| *op == Op::Bind);
        let op = rule.ops.iter().flatten().any(|op| match op {
            Op::Connect => request.op == 0,
            Op::Bind => request.op == 1,
            Op::Send => request.op == 2,
            Op::Receive => request.op == 3,
        });
        let protocol = rule.protocols.iter().flatten().any(|protocol| match protocol {
            Protocol::Tcp => request.protocol == 6,
            Protocol::Udp => request.protocol == 17,
            Protocol::Icmp => [1, 58].contains(&request.protocol),
            Protocol::Any => true,
        });
        let host = rule.hosts.iter().flatten().any(|host| match host {
            Host::Sandbox => request.own,
            // Nothing has been learnt.
            Host::Name(_) => false,
            Host::Set(name) => panic!("a set is left: {name}"),
            Host::Networks(networks) => networks.iter().any(|network| {
                // No address is every address of its family, :: of both; to deny one of them is to deny that.
                let every = match request.address.to_bits() {
                    0 => true,
                    0xffff_0000_0000 => is_of_v4(*network),
                    _ => false,
                };
                covers(*network, request.address) || every && rule.action == Action::Deny && names_bind
            }),
        });
        let mut ports = rule.ports.iter().flatten().map(|range| range.first()..=range.last());
        let port = ports.any(|range| range.contains(&request.port));
        (rule.ops.is_none() || op)
            && (rule.protocols.is_none() || protocol)
            && (rule.hosts.is_none() || host)
            && (rule.ports.is_none() || port)
    })
}

/// The section alone, without what the network section refuses.
pub fn socket(section: &Section<SocketRule>, request: Socket) -> Decision {
    first_match(section, |rule| {
        rule.family.is_none_or(|family| family.number() == request.family)
            && rule.kind.is_none_or(|kind| kind.number() == request.kind)
            && rule.protocol.is_none_or(|protocol| protocol.number() == request.protocol)
    })
}

/// Each access is judged by itself, and what is asked for as one is denied if any of them is. Of several denials, that
/// of the earliest rule is told; of several permissions, that of the latest. The default comes after all rules.
pub fn device(section: &Section<DeviceRule>, request: Device) -> Decision {
    let accesses = [1, 2, 4].into_iter().filter(|access| request.access & access != 0);
    let decisions: Vec<Decision> = accesses
        .map(|access| {
            first_match(section, |rule| {
                let kind = rule.kind.only().is_none_or(|kind| kind as u32 == request.kind);
                let major = rule.major.is_none_or(|major| major == request.major);
                let minor = rule.minor.is_none_or(|minor| minor == request.minor);
                kind && major && minor && rule.access.bits() & access != 0
            })
        })
        .collect();
    let denied = decisions.iter().filter(|decision| !decision.allow).min_by_key(|decision| decision.rule);
    let allowed = decisions.iter().max_by_key(|decision| decision.rule);
    // No access: nothing is asked for that could be denied.
    denied.or(allowed).copied().unwrap_or(Decision { allow: true, rule: DEFAULT })
}

pub fn sysctl(policy: &Policy, request: &Sysctl) -> Decision {
    let decision = first_match(policy.sysctls.as_ref().unwrap(), |rule| {
        let mut patterns = rule.names.iter().flatten().map(|pattern| String::from(pattern.clone()));
        let name = patterns.any(|pattern| glob(pattern.as_bytes(), &request.name));
        let letters = serde_json::to_value(rule.access).unwrap();
        let access = letters.as_str().unwrap().contains(if request.write { 'w' } else { 'r' });
        access && (rule.names.is_none() || name)
    });
    let by_rule = decision.rule != DEFAULT || policy.process.allows(Part::Sysctls);
    if request.write && decision.allow && !by_rule { Decision { allow: false, rule: TUNABLE_WRITE } } else { decision }
}

pub fn sockopt(section: &Section<SockoptRule>, request: Sockopt) -> Decision {
    first_match(section, |rule| {
        let level = rule.level().is_none_or(|level| level == request.level);
        let option = rule.option().is_none_or(|option| option == request.option);
        // As it is written: "get", "set", or nothing for both.
        let rule = serde_json::to_value(rule).unwrap();
        let access = rule.get("access").is_none_or(|access| access == if request.set { "set" } else { "get" });
        level && option && access
    })
}

/// A peer without a name concerns only the rules that name such peers.
pub fn unix(section: &Section<UnixRule>, request: &Unix) -> Decision {
    let unnamed = request.kind == Kind::UNNAMED;
    let decision = first_match(section, |rule| match &rule.paths {
        None => !unnamed,
        Some(patterns) => {
            let mut patterns = patterns.iter().map(|pattern| String::from(pattern.clone()));
            patterns.any(|pattern| match pattern.as_str() {
                "sandbox" => request.own,
                "unnamed" => unnamed,
                pattern => !unnamed && glob(pattern.as_bytes(), &request.name),
            })
        }
    });
    if unnamed && decision.rule == DEFAULT { Decision { allow: true, ..decision } } else { decision }
}

fn first_match<R: Rule>(section: &Section<R>, matches: impl Fn(&R) -> bool) -> Decision {
    for (index, rule) in section.rules.iter().enumerate() {
        if matches(rule) {
            return Decision { allow: rule.action() == Action::Allow, rule: u16::try_from(index).unwrap() };
        }
    }
    Decision { allow: section.default == Action::Allow, rule: DEFAULT }
}

/// Whether an address is in a network. The families are separate, although the mapped addresses lie within `::/0`.
fn covers(network: Prefix, address: Ipv6Addr) -> bool {
    let of_v4 = is_of_v4(network);
    let bit = |bits: u128, index: u8| bits >> (127 - index) & 1;
    let same_bits = (0..network.length()).all(|index| bit(network.bits(), index) == bit(address.to_bits(), index));
    match address.to_canonical() {
        IpAddr::V4(_) => of_v4 && same_bits,
        IpAddr::V6(_) => !of_v4 && same_bits,
    }
}

fn is_of_v4(network: Prefix) -> bool {
    network.length() >= 96 && network.bits() >> 32 == 0xffff
}

fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((b'*', after)), _) => (0..=name.len()).any(|run| glob(after, &name[run..])),
        (Some((b'?', after)), Some((_, rest))) => glob(after, rest),
        (Some((expected, after)), Some((byte, rest))) => expected == byte && glob(after, rest),
        (Some(_), None) => false,
    }
}
