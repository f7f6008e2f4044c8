//! Compiling the network section.

use std::{borrow::Cow, collections::BTreeMap};

use common::{
    Decision, MAX_RULES, RuleSet,
    decision::Verdicts,
    net::{self, Address, Lookup, OPS, PROTOCOLS, PortInterval, Request, Table},
    socket::unjudged,
    sockopt::group,
};

use super::{CompileError, IMPLIED, NameTables};
use crate::{Action, Host, NetRule, NetSection, Op, PortRange, Prefix, Protocol, Rule as _, Surroundings};

/// The compiled network section.
#[derive(Debug)]
pub struct NetTables {
    /// What goes into read-only data.
    pub table: Table,
    /// Networks in ascending order, and the rules whose hosts include them: each holds the rules of the networks
    /// around it too, so that the longest match alone tells. Empty where no rule names hosts.
    pub hosts: Vec<(Prefix, RuleSet)>,
    /// Intervals of ports in ascending order, filled up to a power of two of them. Empty where no rule names ports.
    pub ports: Vec<PortInterval>,
    /// Intervals of the sockets' own ports in ascending order, filled up to a power of two of them.
    pub local_ports: Vec<PortInterval>,
    /// The kinds of sockets ([`unjudged`]) that could do what the section denies without any address hook noticing.
    pub evasive: u32,
    /// Whether anybody's messages by ICMP can be denied, which the kernel hands to a socket without asking any hook.
    pub judges_errors: bool,
    /// Whether it depends on its port whether a socket may be bound, so that nobody may choose the port but by bind(2).
    pub binds_by_port: bool,
    /// Names, if any rule has some.
    pub names: Option<NameTables>,
    /// The number of a rule that is not the policy's ([`resolvers_rule`]).
    resolvers: Option<usize>,
}

impl NetTables {
    pub(super) fn compile(section: &NetSection, surroundings: &Surroundings) -> Result<Self, CompileError> {
        let names = if section.has_names() { Some(NameTables::compile(section, surroundings)?) } else { None };
        let resolvers = resolvers_rule(section);
        let rules = match resolvers.clone() {
            Some(rule) => Cow::Owned(section.rules.iter().cloned().chain([rule]).collect()),
            None => Cow::Borrowed(&section.rules),
        };
        let rules: &[NetRule] = &rules;
        let by_host = rules.iter().any(|rule| !rule.is_everywhere());
        let mut by_kind = [[RuleSet::NONE; PROTOCOLS]; OPS];
        for (index, rule) in rules.iter().enumerate() {
            for op in ops(rule) {
                for protocol in protocols(rule) {
                    by_kind[op.index()][protocol.index()].insert(index);
                }
            }
        }
        let own = rules.iter().enumerate().filter(|(_, rule)| is_own(rule)).map(|(index, _)| index).collect();
        let mut judged = 0;
        let mut evasive = 0;
        for op in net::Op::ALL {
            for protocol in net::Protocol::ALL {
                if can_deny(section, op, protocol) {
                    judged |= 1 << op.index();
                    evasive |= evasive_by(protocol);
                }
            }
        }
        if [net::Op::CONNECT, net::Op::SEND].iter().all(|op| can_deny(section, *op, net::Protocol::UDP)) {
            evasive |= unjudged::COPIES;
        }
        let denies_udp_ports = |rule: &NetRule| {
            let by_udp = protocols(rule).contains(&net::Protocol::UDP);
            rule.action() == Action::Deny && ops(rule).contains(&net::Op::BIND) && by_udp && rule.ports.is_some()
        };
        let ports = resolve_ports(rules, |rule| rule.ports.as_deref());
        let local_ports = resolve_ports(rules, |rule| rule.local_ports.as_deref());
        let known = names.as_ref().map_or(&[][..], |names| &names.known);
        let hosts = if by_host { resolve_hosts(rules, known) } else { Vec::new() };
        Ok(Self {
            table: Table {
                verdicts: Verdicts::new(
                    section.default == Action::Allow,
                    rules.iter().map(|rule| rule.action() == Action::Allow),
                ),
                by_host: u32::from(by_host),
                port_intervals: u32::try_from(ports.len()).expect("no more intervals than ports"),
                judged,
                by_own: (own != RuleSet::NONE).into(),
                own,
                udp_ports: Verdicts::new(true, rules.iter().map(|rule| !denies_udp_ports(rule))),
                judges_udp_ports: rules.iter().any(denies_udp_ports).into(),
                local_intervals: u32::try_from(local_ports.len()).expect("no more intervals than ports"),
                groups: rules
                    .iter()
                    .enumerate()
                    .filter(|(_, rule)| is_about_groups(rule))
                    .map(|(index, _)| index)
                    .collect(),
                by_kind,
            },
            hosts,
            ports,
            local_ports,
            evasive,
            judges_errors: can_deny(section, net::Op::RECEIVE, net::Protocol::ICMP),
            binds_by_port: judged & 1 << net::Op::BIND.index() != 0
                && section.rules.iter().any(|rule| rule.ports.is_some() && ops(rule).contains(&net::Op::BIND)),
            resolvers: resolvers.is_some().then_some(section.rules.len()),
            names,
        })
    }

    /// The kinds of sockets ([`unjudged`]) that could do what the section denies without any hook noticing.
    #[must_use]
    pub fn evasive_sockets(&self) -> u32 {
        let raw = self.table.tells_peers_apart() && self.evasive & unjudged::RAW != 0;
        self.evasive | if raw { unjudged::HEADERS } else { 0 }
    }

    /// The versions of IP, as [`common::sockopt::group`] has them, by which the routers of the network can't be sent to.
    #[must_use]
    pub fn keeps_groups(&self) -> u32 {
        let denies = |routers| !net::decide_group(&self.table, self, &routers).expect("tables are complete").allow;
        let versions = [(group::V4, group::ROUTERS4), (group::V6, group::ROUTERS6)];
        versions.into_iter().filter(|(_, routers)| denies(*routers)).fold(0, |all, (version, _)| all | version)
    }

    /// Whether any rule is about the sandbox's own sockets.
    #[must_use]
    pub fn asks_for_own(&self) -> bool {
        self.table.by_own != 0
    }

    /// Whether packets that leave have to be looked at: they may have a route of their own, or come from a port that nobody asked
    /// for.
    #[must_use]
    pub fn looks_at_what_leaves(&self) -> bool {
        // And what is asked of nameservers is read.
        let names = self.names.is_some();
        self.table.tells_peers_apart() || self.asks_for_own() || self.table.judges_udp_ports != 0 || names
    }

    /// Whether packets that arrive have to be judged.
    #[must_use]
    pub fn judges_packets(&self) -> bool {
        // Anybody who listens may have come to his port without bind(2), and anybody who answers may not be the sandbox's own.
        // And answers of nameservers are read.
        self.table.judges(net::Op::RECEIVE)
            || self.table.judges(net::Op::BIND)
            || self.asks_for_own()
            || self.names.is_some()
    }

    /// Judges what is received at a port of this host's, as the kernel would.
    #[must_use]
    pub fn decide_received(&self, request: &Request, local_port: u16) -> Decision {
        net::decide_received(&self.table, self, request, local_port).expect("tables are complete")
    }

    /// Judges a request, as the kernel would.
    #[must_use]
    pub fn decide(&self, request: &Request) -> Decision {
        if let Some(decision) = self.names.as_ref().and_then(|names| names.decide_on_peer(request)) {
            return decision;
        }
        self.told(net::decide(&self.table, self, request).expect("tables are complete"))
    }

    /// A decision as people are told: what is allowed by a rule that is not the policy's has a word of its own ([`IMPLIED`]).
    #[must_use]
    pub fn told(&self, decision: Decision) -> Decision {
        if self.resolvers.is_some_and(|rule| usize::from(decision.rule) == rule) {
            Decision { allow: true, rule: IMPLIED }
        } else {
            decision
        }
    }
}

/// What is decided on a request to any address that a name has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByName {
    /// The decision where no rule is about the address itself.
    pub decision: Decision,
    /// A rule that decides otherwise for some addresses, if there is one.
    pub otherwise: Option<u16>,
}

/// The tables, for an address of which the rules are known.
struct Known<'a> {
    tables: &'a NetTables,
    hosts: RuleSet,
    names: RuleSet,
}

impl Lookup for Known<'_> {
    fn by_host(&self, _: &Address) -> Option<&RuleSet> {
        Some(&self.hosts)
    }

    fn by_name(&self, _: net::Op, _: &Address) -> Option<&RuleSet> {
        Some(&self.names)
    }

    fn by_port(&self, table: &Table, port: u16) -> Option<&RuleSet> {
        self.tables.by_port(table, port)
    }

    fn by_local_port(&self, table: &Table, port: u16) -> Option<&RuleSet> {
        self.tables.by_local_port(table, port)
    }

    fn by_chosen_port(&self) -> Option<&RuleSet> {
        self.tables.by_chosen_port()
    }
}

impl NetTables {
    /// Judges a request to the address that is found by a name. The request's own address has no meaning.
    #[must_use]
    pub fn decide_by_name(&self, request: &Request, name: &str) -> ByName {
        let names = self.names.as_ref().map_or(RuleSet::NONE, |names| names.rules(name));
        let decide = |hosts| {
            let known = Known { tables: self, hosts, names };
            net::decide(&self.table, &known, request).expect("tables are complete")
        };
        let of =
            |family| self.hosts.iter().find(|(network, _)| *network == family).map_or(RuleSet::ALL, |(_, set)| *set);
        let everywhere = [of(Prefix::ALL_V4), of(Prefix::ALL_V6)];
        let decision = decide((0..MAX_RULES).filter(|rule| everywhere.iter().all(|set| set.contains(*rule))).collect());
        let anywhere = decide(self.hosts.iter().fold(RuleSet::NONE, |all, (_, set)| all.or(set)));
        ByName { decision, otherwise: (anywhere.allow != decision.allow).then_some(anywhere.rule) }
    }
}

impl Lookup for NetTables {
    fn by_host(&self, address: &Address) -> Option<&RuleSet> {
        (0..=128).rev().find_map(|length| {
            let network = Prefix::around(address.to_bits(), length);
            let found = self.hosts.binary_search_by_key(&network, |(network, _)| *network);
            found.ok().map(|index| &self.hosts[index].1)
        })
    }

    fn by_port(&self, table: &Table, port: u16) -> Option<&RuleSet> {
        find(&self.ports, table.port_intervals, port)
    }

    fn by_local_port(&self, table: &Table, port: u16) -> Option<&RuleSet> {
        find(&self.local_ports, table.local_intervals, port)
    }

    fn by_chosen_port(&self) -> Option<&RuleSet> {
        Some(&self.ports.first()?.rules)
    }
}

fn find(intervals: &[PortInterval], count: u32, port: u16) -> Option<&RuleSet> {
    let found = net::find_interval(count, |index| u32::from(intervals[index as usize].first <= u32::from(port)));
    Some(&intervals.get(found as usize)?.rules)
}

/// Where there are names, what resolvers do before they ask for one: musl's, BIND's and others take a UDP port that the kernel chooses, at no address.
/// The rule comes after all others. What arrives there is judged by itself, so that only nameservers answer. `None` where there are no names, by default all
/// is allowed, or there is no room for a rule.
pub(super) fn resolvers_rule(section: &NetSection) -> Option<NetRule> {
    let nowhere = FAMILIES.map(|(_, unspecified)| unspecified).to_vec();
    let is_needed = section.has_names() && section.default == Action::Deny && section.rules.len() < MAX_RULES;
    is_needed.then(|| NetRule {
        action: Action::Allow,
        ops: Some(vec![Op::Bind]),
        protocols: Some(vec![Protocol::Udp]),
        hosts: Some(vec![Host::Networks(nowhere)]),
        ports: Some(vec![PortRange::EPHEMERAL]),
        local_ports: None,
        private: false,
        report: true,
        reason: None,
        tls: false,
    })
}

pub(super) fn ops(rule: &NetRule) -> Vec<net::Op> {
    if rule.tls {
        return vec![net::Op::CONNECT];
    }
    rule.ops.as_ref().map_or_else(|| net::Op::ALL.to_vec(), |ops| ops.iter().copied().map(Op::meant).collect())
}

pub(super) fn protocols(rule: &NetRule) -> Vec<net::Protocol> {
    if rule.tls {
        return vec![net::Protocol::TCP];
    }
    let meant = |protocol: &Protocol| match protocol {
        Protocol::Tcp => vec![net::Protocol::TCP],
        Protocol::Udp => vec![net::Protocol::UDP],
        Protocol::Icmp => vec![net::Protocol::ICMP],
        Protocol::Any => net::Protocol::ALL.to_vec(),
    };
    rule.protocols.as_ref().map_or_else(|| net::Protocol::ALL.to_vec(), |all| all.iter().flat_map(meant).collect())
}

/// Whether there is a request for this operation by this protocol that is denied.
fn can_deny(section: &NetSection, op: net::Op, protocol: net::Protocol) -> bool {
    for rule in &section.rules {
        if ops(rule).contains(&op) && protocols(rule).contains(&protocol) {
            let denies = rule.action() == Action::Deny;
            // No later rule is ever asked.
            let always = rule.is_everywhere() && rule.ports.is_none() && rule.local_ports.is_none();
            if denies || always {
                return denies;
            }
        }
    }
    section.default == Action::Deny
}

/// The kinds of sockets that could do by this protocol what no address hook notices.
fn evasive_by(protocol: net::Protocol) -> u32 {
    // A raw socket sends anything.
    let other = match protocol {
        net::Protocol::TCP | net::Protocol::UDP => 0,
        net::Protocol::ICMP => unjudged::PING,
        _ => unjudged::OTHER,
    };
    unjudged::RAW | other
}

/// Whether a rule decides about all that is sent to a group by UDP.
fn is_about_groups(rule: &NetRule) -> bool {
    let is_about = ops(rule).contains(&net::Op::SEND) && protocols(rule).contains(&net::Protocol::UDP);
    is_about && (rule.action() == Action::Allow || rule.ports.is_none())
}

/// Whether a rule's hosts include the sandbox's own sockets.
fn is_own(rule: &NetRule) -> bool {
    rule.hosts.iter().flatten().any(|host| matches!(host, Host::Sandbox))
}

/// The networks of all rules, and the addresses that are `known` of names, each with the rules of those around it.
fn resolve_hosts(rules: &[NetRule], known: &[(Prefix, RuleSet)]) -> Vec<(Prefix, RuleSet)> {
    let mut networks: BTreeMap<Prefix, RuleSet> = BTreeMap::new();
    // The two families are there in any case, so that every address has a longest match. The unspecified addresses are
    // not looked up but for bind, where they mean every address: a rule that denies to bind any of these denies them.
    for (family, unspecified) in FAMILIES {
        networks.insert(family, RuleSet::NONE);
        let denied = rules.iter().enumerate().filter(|(_, rule)| {
            // An IPv6 socket that is bound to :: may have IPv4's addresses, too.
            let within = |network: &Prefix| family == Prefix::ALL_V6 || Prefix::ALL_V4.covers(*network);
            let binds = rule.ops.iter().flatten().any(|op| *op == Op::Bind);
            let denies = rule.action() == Action::Deny && binds;
            denies && rule.hosts.iter().flatten().flat_map(Host::networks).any(within)
        });
        networks.insert(unspecified, denied.map(|(index, _)| index).collect());
    }
    for (index, rule) in rules.iter().enumerate() {
        match &rule.hosts {
            None => [Prefix::ALL_V6, Prefix::ALL_V4].iter().for_each(|family| {
                networks.entry(*family).or_default().insert(index);
            }),
            Some(hosts) => hosts.iter().flat_map(Host::networks).for_each(|network| {
                networks.entry(*network).or_default().insert(index);
            }),
        }
    }
    for (address, rules) in known {
        let own = networks.entry(*address).or_default();
        *own = own.or(rules);
    }
    // In ascending order, a network comes after those around it; `around` holds these, innermost last.
    let mut resolved: Vec<(Prefix, RuleSet)> = Vec::with_capacity(networks.len());
    let mut around: Vec<(Prefix, RuleSet)> = Vec::new();
    for (network, own) in networks {
        while around.last().is_some_and(|(outer, _)| !outer.covers(network)) {
            around.pop();
        }
        // IPv4 is not a part of IPv6 here, although its mapped addresses lie within ::/0: anybody who writes ::/0 does
        // not mean IPv4.
        let inherited = match around.last() {
            Some((_, outer)) if network != Prefix::ALL_V4 => *outer,
            _ => RuleSet::NONE,
        };
        let rules = own.or(&inherited);
        around.push((network, rules));
        resolved.push((network, rules));
    }
    resolved
}

/// The networks of the two families, and the address in each that is none.
const FAMILIES: [(Prefix, Prefix); 2] =
    [(Prefix::ALL_V6, Prefix::around(0, 128)), (Prefix::ALL_V4, Prefix::around(Prefix::ALL_V4.bits(), 128))];

/// Divides the ports into intervals that no rule tells apart by the ports that it names. None where no rule names any.
fn resolve_ports(rules: &[NetRule], ports: impl Fn(&NetRule) -> Option<&[PortRange]>) -> Vec<PortInterval> {
    if !rules.iter().any(|rule| ports(rule).is_some()) {
        return Vec::new();
    }
    // Where the ranges of each rule begin (+1) and where they are over (-1).
    let mut edges: BTreeMap<u32, Vec<(usize, i32)>> = BTreeMap::from([(0, Vec::new())]);
    // How many ranges of each rule a port is in.
    let mut depth = vec![0; rules.len()];
    for (index, rule) in rules.iter().enumerate() {
        match ports(rule) {
            None => depth[index] = 1,
            Some(ranges) => {
                for range in ranges {
                    edges.entry(range.first().into()).or_default().push((index, 1));
                    // Behind the last port nobody looks.
                    if let Some(after) = range.last().checked_add(1) {
                        edges.entry(after.into()).or_default().push((index, -1));
                    }
                }
            }
        }
    }
    let mut intervals = Vec::with_capacity(edges.len());
    for (first, changes) in edges {
        for (index, change) in changes {
            depth[index] += change;
        }
        let open = depth.iter().enumerate().filter(|(_, depth)| **depth > 0).map(|(index, _)| index);
        intervals.push(PortInterval { first, padding: 0, rules: open.collect() });
    }
    intervals.resize(intervals.len().next_power_of_two(), PortInterval::BEHIND);
    intervals
}
