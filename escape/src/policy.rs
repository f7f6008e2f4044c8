//! Policies as the fuzzer knows them, and what they mean: a small evaluator that shares nothing with guard-run's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use crate::unix;

/// What is done with the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    Connect,
    Bind,
    Send,
    Receive,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Connect, Self::Bind, Self::Send, Self::Receive];

    /// As policies call it.
    pub const fn name(self) -> &'static str {
        ["connect", "bind", "send", "receive"][self as usize]
    }
}

/// A protocol, as far as rules tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Icmp,
    Other,
}

impl Protocol {
    /// As policies call it.
    pub const fn name(self) -> &'static str {
        ["tcp", "udp", "icmp", "other"][self as usize]
    }
}

/// The hosts of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// A named set of networks.
    Named(&'static str),
    /// A network by its address and the length of its prefix.
    Network(IpAddr, u32),
    /// The sandbox's own sockets.
    Sandbox,
}

/// A rule on the network; a part that is empty means all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub allow: bool,
    pub ops: Vec<Op>,
    pub protocols: Vec<Protocol>,
    pub hosts: Vec<Hosts>,
    /// First and last; `(0, 0)` is "ephemeral".
    pub ports: Vec<(u16, u16)>,
}

/// A whole policy.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own, as in the policy's file")]
pub struct Policy {
    /// Tunables may be written unless a rule denies it, as in containers.
    pub writes: bool,
    /// The network section's default.
    pub allow: bool,
    pub rules: Vec<Rule>,
    /// Protocols of sockets that are allowed by name although no address hook judges them.
    pub sockets: Vec<&'static str>,
    /// Keep `CAP_NET_RAW`.
    pub raw: bool,
    /// The device of which reading and writing is denied: its minor number among those of memory (major 1).
    pub device: Option<u32>,
    /// The tunable of which reading is denied.
    pub sysctl: Option<&'static str>,
    /// The tunable that may be written.
    pub writable: Option<&'static str>,
    /// The socket option of which reading is denied: its level and number.
    pub option: Option<(i32, i32)>,
    /// The section on Unix sockets, if there is one.
    pub unix: Option<unix::Section>,
    /// Count what is reached.
    pub flows: bool,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    pub op: Op,
    pub protocol: Protocol,
    pub ip: IpAddr,
    /// Usually one; a port that the kernel has chosen also counts as 0.
    pub ports: &'a [u16],
    /// Whether the peer is one of the sandbox's own sockets.
    pub own: bool,
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(a: u16, h: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(a, 0, 0, 0, 0, 0, 0, h))
}

/// The networks of the named sets that are used here.
fn networks(name: &str) -> Vec<(IpAddr, u32)> {
    match name {
        "loopback" => vec![(v4(127, 0, 0, 0), 8), (v6(0, 1), 128)],
        "private" => vec![(v4(10, 0, 0, 0), 8), (v4(172, 16, 0, 0), 12), (v4(192, 168, 0, 0), 16), (v6(0xfc00, 0), 7)],
        "link-local" => vec![(v4(169, 254, 0, 0), 16), (v6(0xfe80, 0), 10)],
        "multicast" => vec![(v4(224, 0, 0, 0), 4), (v6(0xff00, 0), 8)],
        _ => vec![(v4(0, 0, 0, 0), 0), (v6(0, 0), 0)],
    }
}

/// Whether an address (IPv4 as IPv4) is in a network.
fn within(ip: IpAddr, (network, length): (IpAddr, u32)) -> bool {
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => (ip.to_bits() ^ network.to_bits()).leading_zeros() >= length,
        (IpAddr::V6(ip), IpAddr::V6(network)) => (ip.to_bits() ^ network.to_bits()).leading_zeros() >= length,
        _ => false,
    }
}

impl Rule {
    fn networks(&self) -> Vec<(IpAddr, u32)> {
        let of = |hosts: &Hosts| match hosts {
            Hosts::Named(name) => networks(name),
            Hosts::Network(ip, length) => vec![(*ip, *length)],
            Hosts::Sandbox => Vec::new(),
        };
        self.hosts.iter().flat_map(of).collect()
    }

    fn is_about_hosts(&self, request: &Request) -> bool {
        let networks = self.networks();
        let everywhere = |v4| networks.iter().any(|(ip, length)| ip.is_ipv4() == v4 && *length == 0);
        if self.hosts.is_empty() || everywhere(true) && everywhere(false) {
            return true;
        }
        if self.hosts.contains(&Hosts::Sandbox) && (request.own || request.op == Op::Bind) {
            return true;
        }
        if request.ip.is_unspecified() {
            // To bind to no address is to bind to every one.
            let reached = |(ip, _): &(IpAddr, u32)| request.ip.is_ipv6() || ip.is_ipv4();
            return !self.allow && self.ops.contains(&Op::Bind) && networks.iter().any(reached);
        }
        networks.iter().any(|network| within(request.ip, *network))
    }

    fn matches(&self, request: &Request) -> bool {
        let named = |port: &u16| self.ports.iter().any(|(first, last)| (first..=last).contains(&port));
        (self.ops.is_empty() || self.ops.contains(&request.op))
            && (self.protocols.is_empty() || self.protocols.contains(&request.protocol))
            && (self.ports.is_empty() || request.ports.iter().any(named))
            && self.is_about_hosts(request)
    }

    fn json(&self) -> Value {
        let mut rule = json!({ "action": if self.allow { "allow" } else { "deny" } });
        let hosts = |hosts: &Hosts| match hosts {
            Hosts::Named(name) => (*name).to_owned(),
            Hosts::Network(ip, length) => format!("{ip}/{length}"),
            Hosts::Sandbox => String::from("sandbox"),
        };
        let port = |(first, last): &(u16, u16)| match (first, last) {
            (0, 0) => json!("ephemeral"),
            (first, last) if first == last => json!(first),
            (first, last) => json!(format!("{first}-{last}")),
        };
        let mut add = |key: &str, values: Vec<Value>| {
            if !values.is_empty() {
                rule[key] = Value::Array(values);
            }
        };
        add("ops", self.ops.iter().map(|op| op.name().into()).collect());
        add("protocols", self.protocols.iter().map(|protocol| protocol.name().into()).collect());
        add("hosts", self.hosts.iter().map(|one| hosts(one).into()).collect());
        add("ports", self.ports.iter().map(port).collect());
        rule
    }
}

impl Policy {
    /// Whether a request is allowed: the first rule that matches decides, then the default.
    pub fn allows(&self, request: &Request) -> bool {
        self.rules.iter().find(|rule| rule.matches(request)).map_or(self.allow, |rule| rule.allow)
    }

    /// Whether a UDP socket may have a port that the kernel chose: every client has one, so only rules that deny ports by their
    /// numbers count.
    pub fn allows_chosen(&self, request: &Request) -> bool {
        let first = self.rules.iter().find(|rule| rule.matches(request));
        first.is_none_or(|rule| rule.allow || rule.ports.is_empty())
    }

    /// Whether any request of this kind could be denied.
    pub fn restricts(&self, op: Op) -> bool {
        let about = |rule: &&Rule| rule.ops.is_empty() || rule.ops.contains(&op);
        !self.allow || self.rules.iter().filter(about).any(|rule| !rule.allow)
    }

    /// Whether any rule is about the sandbox's own sockets.
    pub fn knows_own(&self) -> bool {
        self.rules.iter().any(|rule| rule.hosts.contains(&Hosts::Sandbox))
    }

    /// The policy as guard-run reads it.
    pub fn json(&self) -> Value {
        let action = |allow| if allow { "allow" } else { "deny" };
        let mut policy = json!({
            "version": 1,
            "network": {
                "default": action(self.allow),
                "rules": self.rules.iter().map(Rule::json).collect::<Vec<_>>(),
            },
        });
        if !self.sockets.is_empty() {
            let allowed = |name: &&str| match *name {
                "raw" => json!({ "action": "allow", "type": "raw" }),
                protocol => json!({ "action": "allow", "protocol": protocol }),
            };
            let rules: Vec<Value> = self.sockets.iter().map(allowed).collect();
            policy["sockets"] = json!({ "default": "allow", "rules": rules });
        }
        if self.raw {
            policy["process"] = json!({ "capabilities": ["CAP_NET_RAW"] });
        }
        if let Some(minor) = self.device {
            let rule = json!({ "action": "deny", "type": "c", "major": 1, "minor": minor, "access": "rw" });
            policy["devices"] = json!({ "default": "allow", "rules": [rule] });
        }
        let mut tunables = Vec::new();
        tunables.extend(self.sysctl.map(|name| json!({ "action": "deny", "names": [name], "access": "r" })));
        tunables.extend(self.writable.map(|name| json!({ "action": "allow", "names": [name], "access": "w" })));
        if !tunables.is_empty() {
            policy["sysctls"] = json!({ "default": "allow", "rules": tunables });
        }
        if let Some((level, option)) = self.option {
            let rule = json!({ "action": "deny", "level": level, "option": option, "access": "get" });
            policy["sockopts"] = json!({ "default": "allow", "rules": [rule] });
        }
        if let Some(unix) = self.unix {
            policy["unix"] = unix.json();
        }
        if self.flows {
            policy["record"] = json!("flows");
        }
        policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, ops: &[Op], hosts: &[Hosts], ports: &[(u16, u16)]) -> Rule {
        Rule { allow, ops: ops.to_vec(), protocols: Vec::new(), hosts: hosts.to_vec(), ports: ports.to_vec() }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let loopback = Hosts::Named("loopback");
        let rules = vec![
            rule(true, &[Op::Connect], &[loopback], &[(53, 53)]),
            rule(false, &[Op::Connect, Op::Bind], &[loopback], &[]),
        ];
        let policy = Policy { allow: true, rules, ..Policy::default() };
        let allows = |op, ip: &str, port| {
            let ip = ip.parse().expect("address");
            policy.allows(&Request { op, protocol: Protocol::Tcp, ip, ports: &[port], own: false })
        };
        assert!(allows(Op::Connect, "127.0.0.1", 53) && !allows(Op::Connect, "127.1.2.3", 54));
        assert!(allows(Op::Connect, "::2", 54) && !allows(Op::Connect, "::1", 54));
        assert!(!allows(Op::Bind, "0.0.0.0", 80) && !allows(Op::Bind, "::", 80) && allows(Op::Bind, "10.0.0.1", 80));
    }

    #[test]
    fn the_sandbox_is_its_sockets() {
        let policy = Policy { rules: vec![rule(true, &[], &[Hosts::Sandbox], &[])], ..Policy::default() };
        let ip = v4(127, 0, 0, 1);
        let request = |op, own| Request { op, protocol: Protocol::Udp, ip, ports: &[1], own };
        assert!(policy.allows(&request(Op::Connect, true)) && !policy.allows(&request(Op::Connect, false)));
        assert!(policy.allows(&request(Op::Bind, false)));
    }
}
