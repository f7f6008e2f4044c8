//! The properties by which rules tell requests apart, and which of a rule's a request misses.

use common::{Decision, device::access, net};
use policy::{
    Action, DeviceRule, Host, NetRule, Policy, PortRange, Prefix, Protocol, Rule as _, SocketPattern, SocketRule,
    SockoptRule, SysctlRule, UnixRule,
};

use crate::{
    Guard,
    asked::Asked,
    request::{Peer, Request},
};

/// A property of a rule that a request does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missed {
    /// The rule's key.
    pub key: &'static str,
    /// What the request has instead, for people.
    pub value: String,
}

/// The properties of a rule that a request misses. `None` where the policy has no such rule, or it denies.
pub(crate) fn missed(policy: &Policy, rule: usize, asked: &Asked) -> Option<Vec<Missed>> {
    let allows = |action: Action| action == Action::Allow;
    match &asked.request {
        Request::Peer(peer) => {
            let rule = policy.network.as_ref()?.rules.get(rule)?;
            allows(rule.action()).then(|| of_network(rule, peer, asked))
        }
        Request::Name(name) => {
            // Rules without names are never asked.
            let rule = policy.network.as_ref()?.rules.get(rule).filter(|rule| rule.has_names())?;
            let has = rule.names().any(|known| known.has(name));
            allows(rule.action()).then(|| list([("hosts", has, name.clone())]))
        }
        Request::Unix { name, own, .. } => {
            let rule = policy.unix.as_ref()?.rules.get(rule)?;
            allows(rule.action()).then(|| of_unix(rule, name, *own))
        }
        Request::Device(request) => {
            let rule = policy.devices.as_ref()?.rules.get(rule)?;
            allows(rule.action()).then(|| of_device(rule, request))
        }
        Request::Sysctl { name, write } => {
            let rule = policy.sysctls.as_ref()?.rules.get(rule)?;
            allows(rule.action()).then(|| of_sysctl(rule, name, *write))
        }
        Request::Socket { family, kind, protocol } => {
            let rule = policy.sockets.as_ref()?.rules.get(rule)?;
            allows(rule.action()).then(|| of_socket(rule, *family, *kind, *protocol))
        }
        Request::Sockopt { level, option, set } => {
            let rule = policy.sockopts.as_ref()?.rules.get(rule)?;
            allows(rule.action()).then(|| of_sockopt(rule, *level, *option, *set))
        }
    }
}

/// The number of the first rule that denies a request, which a policy denies by this decision. `None` where no rule does.
///
/// A rule that is to allow the request has to stand before that one. Tables don't always say which it is: where all sockets have one verdict,
/// nobody looks for the rule, and a name that a rule denies is not resolved for the rules behind it.
pub(crate) fn denied_by(guard: &Guard, asked: &Asked, denied: Decision) -> Option<usize> {
    let rules = guard.rules(asked.request.section());
    let told = Some(usize::from(denied.rule)).filter(|rule| *rule < rules);
    told.into_iter().chain(untold(&guard.policy, asked)).min()
}

/// The number of the first rule that denies a socket, or one of the names by which something is asked for.
fn untold(policy: &Policy, asked: &Asked) -> Option<usize> {
    let names: Vec<&str> = match &asked.request {
        Request::Unix { name, own, .. } => {
            let has = |rule: &UnixRule| rule.action == Action::Deny && of_unix(rule, name, *own).is_empty();
            return policy.unix.as_ref()?.rules.iter().position(has);
        }
        Request::Name(name) => vec![name],
        _ => asked.names().collect(),
    };
    let has = |rule: &NetRule| rule.names().any(|known| names.iter().any(|name| known.has(name)));
    policy.network.as_ref()?.rules.iter().position(|rule| rule.action == Action::Deny && has(rule))
}

/// Those properties of which the request has none.
fn list<const N: usize>(properties: [(&'static str, bool, String); N]) -> Vec<Missed> {
    let missed = properties.into_iter().filter(|(_, has, _)| !has);
    missed.map(|(key, _, value)| Missed { key, value }).collect()
}

fn of_network(rule: &NetRule, peer: &Peer, asked: &Asked) -> Vec<Missed> {
    let request = peer.request();
    let op = rule.ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op.meant() == request.op));
    let protocol = rule.protocols.as_ref().is_none_or(|all| all.iter().any(|one| is_protocol(*one, request.protocol)));
    let by_address = rule.hosts.as_ref().is_none_or(|hosts| {
        hosts.iter().any(|host| match host {
            Host::Sandbox => request.own == 1,
            // What a set holds stands in its place.
            Host::Name(_) | Host::Set(_) => false,
            Host::Networks(networks) => networks.iter().any(|network| contains(*network, request.address)),
        })
    });
    // The log has the names that led there. A name leads to what is near only where a rule says so.
    let by_name = rule.names().any(|name| asked.names().any(|known| name.has(known)));
    let private = by_address || !by_name || !asked.is_near() || rule.private;
    let address = policy::display_address(request.address).to_string();
    let within =
        |ranges: &Vec<PortRange>, port| ranges.iter().any(|range| (range.first()..=range.last()).contains(&port));
    let ports = rule.ports.as_ref().is_none_or(|ports| within(ports, peer.port));
    let local_ports = match (&rule.local_ports, peer.local_port) {
        (Some(ports), Some(port)) => within(ports, port),
        // Tables tell such ports apart only where the port is known.
        _ => true,
    };
    list([
        ("ops", op, request.op.name().to_owned()),
        ("protocols", protocol, policy::protocol_name(peer.protocol)),
        ("hosts", by_address || by_name, asked.host.clone().unwrap_or_else(|| address.clone())),
        ("private", private, address),
        ("ports", ports, peer.port.to_string()),
        ("local_ports", local_ports, peer.local_port.unwrap_or_default().to_string()),
    ])
}

fn is_protocol(named: Protocol, asked: net::Protocol) -> bool {
    match named {
        Protocol::Tcp => asked == net::Protocol::TCP,
        Protocol::Udp => asked == net::Protocol::UDP,
        Protocol::Icmp => asked == net::Protocol::ICMP,
        Protocol::Any => true,
    }
}

/// Whether an address is in a network. `::/0` is nothing of IPv4.
pub(crate) fn contains(network: Prefix, address: net::Address) -> bool {
    network.covers(Prefix::around(address.to_bits(), 128)) && (Prefix::ALL_V4.covers(network) || !address.is_v4())
}

fn of_unix(rule: &UnixRule, name: &[u8], own: bool) -> Vec<Missed> {
    let has = match &rule.paths {
        None => !name.is_empty(),
        Some(paths) => paths.iter().any(|pattern| match pattern {
            SocketPattern::Sandbox => own,
            SocketPattern::Unnamed => name.is_empty(),
            SocketPattern::Named(glob) => !name.is_empty() && glob.matches(name),
        }),
    };
    let shown = if name.is_empty() { "unnamed".into() } else { String::from_utf8_lossy(name) };
    list([("paths", has, shown.into_owned())])
}

fn of_device(rule: &DeviceRule, request: &common::device::Request) -> Vec<Missed> {
    let kind = rule.kind.only().is_none_or(|kind| kind as u32 == request.kind);
    let major = rule.major.is_none_or(|major| major == request.major);
    let minor = rule.minor.is_none_or(|minor| minor == request.minor);
    let lacks = request.access & access::ALL & !rule.access.bits();
    let letter = if request.kind == common::device::Type::Block as u32 { "b" } else { "c" };
    list([
        ("type", kind, letter.to_owned()),
        ("major", major, request.major.to_string()),
        ("minor", minor, request.minor.to_string()),
        ("access", lacks == 0, policy::access_letters(lacks)),
    ])
}

fn of_sysctl(rule: &SysctlRule, name: &str, write: bool) -> Vec<Missed> {
    let names =
        rule.names.as_ref().is_none_or(|names| names.iter().any(|pattern| pattern.glob().matches(name.as_bytes())));
    let access = if write { common::sysctl::Access::WRITE } else { common::sysctl::Access::READ };
    let letter = if write { "w" } else { "r" };
    list([("names", names, name.to_owned()), ("access", rule.access.includes(access), letter.to_owned())])
}

fn of_socket(rule: &SocketRule, family: u32, kind: u32, protocol: u32) -> Vec<Missed> {
    let shown = |number: u32, named: &[(u32, &str)]| {
        named
            .iter()
            .find(|(known, _)| *known == number)
            .map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
    };
    list([
        ("family", rule.family.is_none_or(|known| known.number() == family), shown(family, &FAMILIES)),
        ("type", rule.kind.is_none_or(|known| known.number() == kind), shown(kind, &TYPES)),
        ("protocol", rule.protocol.is_none_or(|known| known.number() == protocol), policy::protocol_name(protocol)),
    ])
}

/// The families of sockets, as rules call them.
pub(crate) const FAMILIES: [(u32, &str); 2] = [(common::socket::INET, "inet"), (common::socket::INET6, "inet6")];

/// The types of sockets, as rules call them.
pub(crate) const TYPES: [(u32, &str); 4] = [
    (common::socket::kind::STREAM, "stream"),
    (common::socket::kind::DGRAM, "dgram"),
    (common::socket::kind::RAW, "raw"),
    (common::socket::kind::SEQPACKET, "seqpacket"),
];

fn of_sockopt(rule: &SockoptRule, level: i32, option: i32, set: bool) -> Vec<Missed> {
    let access = if set { common::sockopt::access::SET } else { common::sockopt::access::GET };
    list([
        ("level", rule.level().is_none_or(|known| known == level), policy::Level(level).to_string()),
        (
            "option",
            rule.option().is_none_or(|known| known == option),
            policy::LevelOption { level, number: option }.to_string(),
        ),
        ("access", rule.accesses() & access != 0, if set { "set" } else { "get" }.to_owned()),
    ])
}
