//! The network section that is learnt: peers with the same ports share a rule, and so do addresses to bind.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use common::{
    name::address::nearness,
    net::{Protocol, ones_if_equal},
};
use policy::shared_space;

use super::{Learner, Seen, needed_by};

/// A rule that is learnt.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    pub ops: BTreeSet<&'static str>,
    pub protocols: BTreeSet<&'static str>,
    pub hosts: Vec<String>,
    pub ports: BTreeSet<u16>,
    pub local_ports: BTreeSet<u16>,
    /// Whether its names lead to private addresses.
    pub private: bool,
}

/// So many peers of a server are named one by one.
const NAMED: usize = 32;

/// What is known of names: the names of each address.
struct Names {
    of: BTreeMap<IpAddr, BTreeSet<String>>,
    /// Names of which no address was reached.
    others: BTreeSet<String>,
}

/// The rules for what was done, those for the sandbox's own sockets first.
pub fn rules(
    seen: &Learner,
    addresses: &dyn Fn(&str) -> Vec<IpAddr>,
    left_out: &mut BTreeSet<String>,
    notes: &mut Vec<String>,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    if seen.network.keys().any(|one| one.own && one.op != "bind") {
        let ops = ["connect", "send", "receive"].into_iter().collect();
        rules.push(Rule { ops, hosts: vec!["sandbox".to_owned()], ..Rule::default() });
    }
    rules.extend(binds(seen, notes));
    rules.extend(peers(seen, addresses, notes));
    rules.extend(clients(seen, left_out));
    rules
}

impl Rule {
    /// Whether it was learnt from that, among others.
    fn is_for(&self, one: &Seen) -> bool {
        if self.hosts == ["sandbox"] {
            return one.own && one.op != "bind";
        }
        let is_host = |host: &String| match host.parse::<IpAddr>() {
            Ok(address) => address == one.address,
            // A name, or "any".
            Err(_) => !one.own,
        };
        let port = if one.op == "bind" && one.chosen { 0 } else { one.port };
        self.ops.contains(&*one.op)
            && (self.protocols.is_empty() || self.protocols.contains(word(&one.protocol)))
            && self.hosts.iter().any(is_host)
            && (self.ports.is_empty() || self.ports.contains(&port))
            && (self.local_ports.is_empty() || one.local_port.is_some_and(|port| self.local_ports.contains(&port)))
    }

    /// Who needed it, in a sentence.
    pub fn reason(&self, seen: &Learner) -> Option<String> {
        needed_by(seen.network.iter().filter(|(one, _)| self.is_for(one)).map(|(_, who)| who))
    }
}

/// The protocol as rules have it.
fn word(protocol: &str) -> &'static str {
    let number = protocol.parse::<policy::SocketProtocol>().map(policy::SocketProtocol::number);
    match number.map(Protocol::from_ipproto) {
        Ok(Protocol::TCP) => "tcp",
        Ok(Protocol::UDP) => "udp",
        Ok(Protocol::ICMP) => "icmp",
        _ => "any",
    }
}

/// So many UDP ports at one address a program has chosen at random, as resolvers do, and will choose others next time.
const RANDOM: usize = 8;

/// Addresses and ports that the command took.
fn binds(seen: &Learner, notes: &mut Vec<String>) -> Vec<Rule> {
    let all = || seen.network.keys().filter(|one| one.op == "bind");
    let asked: BTreeSet<(&str, u16)> =
        all().filter(|one| !one.chosen).map(|one| (word(&one.protocol), one.port)).collect();
    let mut by_address: BTreeMap<(&str, IpAddr), BTreeSet<u16>> = BTreeMap::new();
    for one in all() {
        // A listener is judged by its port once more; one that nobody has asked for, the kernel has chosen.
        let named = asked.contains(&(word(&one.protocol), one.port));
        let port = if one.chosen && !named { 0 } else { one.port };
        if !(one.chosen && named) {
            by_address.entry((word(&one.protocol), one.address)).or_default().insert(port);
        }
    }
    let mut by_ports: BTreeMap<(&str, BTreeSet<u16>), BTreeSet<IpAddr>> = BTreeMap::new();
    for ((protocol, address), mut ports) in by_address {
        if protocol == "udp" && ports.len() >= RANDOM {
            notes.push(format!(
                "guessed: the command chooses its UDP ports at {address} at random ({}), so all are allowed",
                ports.len()
            ));
            ports.clear();
        }
        by_ports.entry((protocol, ports)).or_default().insert(address);
    }
    let rule = |((protocol, ports), addresses): ((&'static str, BTreeSet<u16>), BTreeSet<IpAddr>)| Rule {
        ops: ["bind"].into_iter().collect(),
        protocols: [protocol].into_iter().collect(),
        hosts: addresses.iter().map(ToString::to_string).collect(),
        ports,
        ..Rule::default()
    };
    by_ports.into_iter().map(rule).collect()
}

/// What the command connected and sent to, outside the sandbox.
fn is_active(one: &Seen) -> bool {
    !one.own && ["connect", "send"].contains(&&*one.op)
}

/// A socket's own answers come from whom it has sent to.
fn is_answer(seen: &Learner, one: &Seen) -> bool {
    let sent = |other: &Seen| {
        is_active(other) && (other.address, other.port, &other.protocol) == (one.address, one.port, &one.protocol)
    };
    one.protocol == "udp" && seen.network.keys().any(sent)
}

/// What rules have in common: protocol, operations, ports, and whether private addresses are meant.
type Alike = (&'static str, BTreeSet<&'static str>, BTreeSet<u16>, bool);

/// Peers by their names, where they have any.
fn peers(seen: &Learner, addresses: &dyn Fn(&str) -> Vec<IpAddr>, notes: &mut Vec<String>) -> Vec<Rule> {
    let names = Names::new(seen, addresses);
    // For each host, by each protocol: the operations at each port.
    let mut by_host: ByHost = BTreeMap::new();
    let is_peer = |one: &&Seen| is_active(one) || one.op == "receive" && !one.own && is_answer(seen, one);
    for one in seen.network.keys().filter(is_peer).filter(|one| !seen.sorts(one)) {
        let protocol = word(&one.protocol);
        let ops: &[&'static str] = match (&*one.op, protocol) {
            ("receive", _) => &["receive"],
            ("connect", "udp") if !seen.has_sent(one.address, one.port) => &["connect"],
            // Whether a socket is connected first is a library's whim.
            (_, "udp") => &["connect", "send"],
            ("send", _) => &["send"],
            _ => &["connect"],
        };
        let found = names.of.get(&one.address).filter(|_| one.op != "receive");
        let private = nearness(shared_space(one.address), ones_if_equal).private != 0;
        let hosts: Vec<(String, bool)> = match found {
            Some(names) => names.iter().map(|name| (name.clone(), private)).collect(),
            None => vec![(one.address.to_string(), false)],
        };
        for (host, private) in hosts {
            by_host.entry((protocol, host, private)).or_default().entry(one.port).or_default().extend(ops);
        }
    }
    without_sorting(&mut by_host);
    // Those that have the same operations at the same ports, in one rule.
    let mut alike: BTreeMap<Alike, Vec<String>> = BTreeMap::new();
    for ((protocol, host, private), ports) in by_host {
        let mut by_ops: BTreeMap<BTreeSet<&'static str>, BTreeSet<u16>> = BTreeMap::new();
        for (port, ops) in ports {
            by_ops.entry(ops).or_default().insert(port);
        }
        for (ops, ports) in by_ops {
            alike.entry((protocol, ops, ports, private)).or_default().push(host.clone());
        }
    }
    let rule = |((protocol, ops, ports, private), hosts): ((&'static str, _, _, bool), Vec<String>)| Rule {
        ops,
        protocols: [protocol].into_iter().collect(),
        hosts,
        ports,
        private,
        ..Rule::default()
    };
    let mut rules: Vec<Rule> = alike.into_iter().map(rule).collect();
    if !names.others.is_empty() {
        // They have other addresses by now, or none: they are asked for all the same, and led to where somebody connected.
        let far = |rule: &&Rule| {
            rule.hosts.iter().any(|host| host.parse::<IpAddr>().is_ok_and(|address| !address.is_loopback()))
        };
        let ports: BTreeSet<u16> = rules.iter().filter(far).flat_map(|rule| rule.ports.iter().copied()).collect();
        let ops = ["connect", "send"].into_iter().collect();
        let list = |ports: &BTreeSet<u16>| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (which, ports) = if ports.is_empty() {
            ("443 is assumed".to_owned(), [443].into())
        } else {
            (format!("those are assumed that it reached elsewhere: {}", list(&ports)), ports)
        };
        let name = |name: &String| format!("guessed: the ports of {name}, which was only asked for; {which}");
        notes.extend(names.others.iter().map(name));
        rules.push(Rule { ops, hosts: names.others.into_iter().collect(), ports, ..Rule::default() });
    }
    rules
}

/// By protocol, host, and whether private addresses are meant: ports with their operations.
type ByHost = BTreeMap<(&'static str, String, bool), BTreeMap<u16, BTreeSet<&'static str>>>;

/// Leaves out the UDP sockets that were connected where TCP may connect, too, and that sent nothing: getaddrinfo(3) sorts addresses by
/// them, and works without. guard-run doesn't report that they are denied.
fn without_sorting(by_host: &mut ByHost) {
    let tcp: BTreeSet<(String, u16)> = by_host
        .iter()
        .filter(|((protocol, ..), _)| *protocol == "tcp")
        .flat_map(|((_, host, _), ports)| {
            ports.iter().filter(|(_, ops)| ops.contains("connect")).map(|(port, _)| (host.clone(), *port))
        })
        .collect();
    for ((_, host, _), ports) in by_host.iter_mut().filter(|((protocol, ..), _)| *protocol == "udp") {
        ports.retain(|port, ops| *ops != ["connect"].into() || !tcp.contains(&(host.clone(), *port)));
    }
}

impl Names {
    fn new(seen: &Learner, addresses: &dyn Fn(&str) -> Vec<IpAddr>) -> Self {
        let reached: BTreeSet<IpAddr> =
            seen.network.keys().filter(|one| is_active(one)).map(|one| one.address).collect();
        let mut names = Self { of: BTreeMap::new(), others: BTreeSet::new() };
        for name in &seen.names {
            let found: Vec<IpAddr> = addresses(name).into_iter().filter(|address| reached.contains(address)).collect();
            if found.is_empty() {
                names.others.insert(name.clone());
            }
            for address in found {
                names.of.entry(address).or_default().insert(name.clone());
            }
        }
        names
    }
}

/// Who connected to the command's servers, or sent to them, from outside the sandbox.
fn clients(seen: &Learner, left_out: &mut BTreeSet<String>) -> Vec<Rule> {
    let bound: BTreeSet<(&str, u16)> = seen
        .network
        .keys()
        .filter(|one| one.op == "bind" && !one.chosen && one.port != 0)
        .map(|one| (word(&one.protocol), one.port))
        .collect();
    let mut by_server: BTreeMap<(&str, Option<u16>), BTreeSet<IpAddr>> = BTreeMap::new();
    for one in seen.network.keys().filter(|one| one.op == "receive" && !one.own && !is_answer(seen, one)) {
        let protocol = word(&one.protocol);
        let port = one.local_port.filter(|port| bound.contains(&(protocol, *port)));
        by_server.entry((protocol, port)).or_default().insert(one.address);
    }
    let mut alike: BTreeMap<(&str, BTreeSet<IpAddr>), BTreeSet<Option<u16>>> = BTreeMap::new();
    for ((protocol, port), peers) in by_server {
        alike.entry((protocol, peers)).or_default().insert(port);
    }
    let rules = alike.into_iter().map(|((protocol, peers), ports)| {
        let hosts = if peers.len() > NAMED {
            left_out.insert(format!("the {} hosts that reached its servers: all are allowed instead", peers.len()));
            vec!["any".to_owned()]
        } else {
            peers.iter().map(ToString::to_string).collect()
        };
        // A port that the kernel has chosen is another one next time.
        let local_ports = if ports.contains(&None) { BTreeSet::new() } else { ports.into_iter().flatten().collect() };
        let (ops, protocols) = (["receive"].into_iter().collect(), [protocol].into_iter().collect());
        Rule { ops, protocols, hosts, local_ports, ..Rule::default() }
    });
    rules.collect()
}
