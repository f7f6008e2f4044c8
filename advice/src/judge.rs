//! What a policy decides on what logs tell of, as far as they tell it.
//!
//! A log doesn't say whether a peer was a socket of the command's own, whether datagrams were sent by a connected socket, or from which
//! port somebody connected. Where that matters, all possibilities are judged: what may be allowed counts as allowed, and not as sure.

use std::collections::HashMap;

use common::{
    Decision, RuleSet,
    name::address::nearness,
    net::{self, Address, Lookup, Op, Table, ones_if_equal},
    socket::protocol,
};
use policy::{
    compile::{NetTables, Tables},
    display_address, shared_space,
};
use report::{Cause, Event, Extent, Flow, Network};

use crate::{Peer, Request};

/// What a policy decides on a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The section that judges it.
    pub section: &'static str,
    /// Whether it is allowed, or may be.
    pub allowed: bool,
    /// The rule that decides: `None` for want of a section.
    pub rule: Option<u16>,
    /// Whether the log tells enough to say so.
    pub sure: bool,
    /// All rules that may decide.
    pub rules: RuleSet,
}

impl Judgement {
    /// What decides: a JSON pointer into the policy, `default`, `fail-closed` or `no section`.
    #[must_use]
    pub fn decided_by(&self) -> String {
        self.rule.map_or_else(|| "no section".to_owned(), |rule| Cause::new(self.section, rule).rule)
    }
}

/// How many records of different kinds are remembered.
const REMEMBERED: usize = 1 << 16;

/// Judges records by the tables of a policy.
#[derive(Debug)]
pub struct Judge<'a> {
    tables: &'a Tables,
    known: HashMap<Asked, Judgement>,
}

/// What was asked for, as far as a log tells it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Asked {
    Request(Request, Option<String>),
    Known(Peer),
    Flow { incoming: bool, datagrams: bool, peer: Peer, host: Option<String> },
}

impl<'a> Judge<'a> {
    /// Judges by these tables.
    #[must_use]
    pub fn new(tables: &'a Tables) -> Self {
        Self { tables, known: HashMap::new() }
    }

    /// Judges what an event tells of. `None` for system calls, about which there are no rules.
    pub fn event(&mut self, event: &Event) -> Option<Judgement> {
        Some(self.asked(Asked::Request(Request::of_event(event)?, host(event))))
    }

    /// Judges what an event tells of, of which somebody knows whether the peer was a socket of the command's own.
    pub fn event_of(&mut self, event: &Event, own: bool) -> Option<Judgement> {
        match Request::of_event(event)? {
            Request::Peer(peer) => Some(self.asked(Asked::Known(Peer { own, ..peer }))),
            _ => self.event(event),
        }
    }

    /// Whether an event is about a UDP socket that getaddrinfo(3) may have connected in order to sort addresses ([`net::sorts`]), if the policy
    /// denies that: programs work without, and guard-run doesn't report it.
    pub(crate) fn sorts(&mut self, event: &Event) -> bool {
        let Some(Request::Peer(peer)) = Request::of_event(event) else { return false };
        if (peer.op, peer.protocol) != (Op::CONNECT.index(), protocol::UDP) {
            return false;
        }
        // What is allowed, or in no section, the default doesn't deny.
        let judgement = self.event(event).filter(|judgement| !judgement.allowed);
        let rule = judgement.and_then(|judgement| judgement.rule).unwrap_or_default();
        let denied = Decision { allow: false, rule };
        net::sorts(denied, shared_space(peer.address), peer.port, ones_if_equal, |address| {
            let address = display_address(address);
            let by_tcp = Request::Peer(Peer { protocol: protocol::TCP, address, ..peer });
            self.asked(Asked::Request(by_tcp, host(event))).allowed
        })
    }

    /// Judges what a flow tells of. `None` for a protocol that is not known.
    pub fn flow(&mut self, flow: &Flow) -> Option<Judgement> {
        let incoming = flow.direction == "incoming";
        let datagrams = matches!(flow.extent, Extent::Datagrams { .. });
        let Network { address, port, ref protocol, ref host, .. } = flow.network;
        let protocol = protocol
            .parse()
            .ok()
            .or_else(|| protocol.parse::<policy::SocketProtocol>().ok().map(policy::SocketProtocol::number))?;
        let (op, local_port) = if incoming { (Op::RECEIVE, Some(port)) } else { (Op::CONNECT, None) };
        let peer = Peer { op: op.index(), protocol, address, port, local_port, own: false };
        Some(self.asked(Asked::Flow { incoming, datagrams, peer, host: host.clone() }))
    }

    /// Whether other tables allow what was judged last, as far as it is remembered, if and only if these do.
    pub(crate) fn is_alike(&self, tables: &Tables) -> bool {
        let other = Judge::new(tables);
        self.known.iter().all(|(asked, judgement)| other.judge(asked).allowed == judgement.allowed)
    }

    fn asked(&mut self, asked: Asked) -> Judgement {
        if let Some(known) = self.known.get(&asked) {
            return *known;
        }
        let judgement = self.judge(&asked);
        if self.known.len() == REMEMBERED {
            self.known.clear();
        }
        self.known.insert(asked, judgement);
        judgement
    }

    fn judge(&self, asked: &Asked) -> Judgement {
        match asked {
            Asked::Request(Request::Peer(peer), host) => self.peers(&[*peer], host.as_deref()),
            Asked::Known(peer) => {
                let network = self.tables.network.as_ref();
                sum("network", [network.map(|network| decide(network, peer, None))])
            }
            Asked::Request(request, _) => sum(request.section(), [request.judge(self.tables)]),
            Asked::Flow { incoming: true, peer, host, .. } => {
                let ports = self.tables.network.iter().flat_map(|network| &network.ports);
                // One of each interval of the peer's ports, of which the flow says nothing.
                let ports = ports.filter_map(|interval| u16::try_from(interval.first).ok()).chain([0]);
                let peers: Vec<Peer> = ports.map(|port| Peer { port, ..*peer }).collect();
                self.peers(&peers, host.as_deref())
            }
            Asked::Flow { datagrams: true, peer, host, .. } => {
                let ops = [Op::CONNECT, Op::SEND].map(Op::index);
                self.peers(&ops.map(|op| Peer { op, ..*peer }), host.as_deref())
            }
            Asked::Flow { peer, host, .. } => self.peers(&[*peer], host.as_deref()),
        }
    }

    /// Judges what may have been any of these, each as to the sandbox's own and to others where that may be.
    fn peers(&self, peers: &[Peer], host: Option<&str>) -> Judgement {
        let Some(network) = &self.tables.network else { return sum("network", [None]) };
        let either = |peer: &Peer| {
            let may_be_own = network.asks_for_own() && peer.address.is_loopback() && peer.op != Op::BIND.index();
            [Some(*peer), may_be_own.then_some(Peer { own: true, ..*peer })].into_iter().flatten().collect::<Vec<_>>()
        };
        let all = peers.iter().flat_map(either);
        sum("network", all.map(|peer| Some(decide(network, &peer, host))))
    }
}

/// The names by which an event's peer was found, if the log has them.
fn host(event: &Event) -> Option<String> {
    match &event.subject {
        report::Subject::Network(network) => network.host.clone(),
        _ => None,
    }
}

/// What holds if any of these does: one that allows, or else the first.
fn sum(section: &'static str, decisions: impl IntoIterator<Item = Option<Decision>>) -> Judgement {
    let decisions: Vec<Option<Decision>> = decisions.into_iter().collect();
    let allows = |decision: &Option<Decision>| decision.is_none_or(|decision| decision.allow);
    let allowing = decisions.iter().find(|decision| allows(decision));
    let decision = allowing.or(decisions.first()).copied().flatten();
    Judgement {
        section,
        allowed: allowing.is_some(),
        rule: decision.map(|decision| decision.rule),
        sure: decisions.iter().all(|decision| allows(decision) == allowing.is_some()),
        rules: decisions.iter().flatten().map(|one| one.rule.into()).filter(|rule| *rule < common::MAX_RULES).collect(),
    }
}

/// The decision on a peer that was found by a name, if one is known.
pub(crate) fn decide(network: &NetTables, peer: &Peer, host: Option<&str>) -> Decision {
    let request = peer.request();
    let is_active = [Op::CONNECT, Op::SEND].contains(&request.op);
    if let (Some(names), Some(host), true) = (&network.names, host, is_active) {
        let near = nearness(request.address, ones_if_equal);
        // The log has all names that led there.
        let all: Vec<RuleSet> = host.split(", ").map(|name| names.rules(name)).collect();
        let has = |rule: &usize| all.iter().any(|rules| rules.contains(*rule));
        let leads = |rule: &usize| has(rule) && (near.private == 0 || names.table.private.contains(*rule));
        let rules = (0..common::MAX_RULES).filter(leads).filter(|_| near.never == 0).collect();
        let lookup = Learnt { network, rules };
        return net::decide(&network.table, &lookup, &request).expect("tables are complete");
    }
    match peer.local_port.filter(|_| request.op == Op::RECEIVE) {
        Some(port) => network.decide_received(&request, port),
        None => network.decide(&request),
    }
}

/// Tables with which one address was learnt.
struct Learnt<'a> {
    network: &'a NetTables,
    rules: RuleSet,
}

impl Lookup for Learnt<'_> {
    fn by_host(&self, address: &Address) -> Option<&RuleSet> {
        self.network.by_host(address)
    }

    fn by_name(&self, _: Op, _: &Address) -> Option<&RuleSet> {
        Some(&self.rules)
    }

    fn by_port(&self, table: &Table, port: u16) -> Option<&RuleSet> {
        self.network.by_port(table, port)
    }

    fn by_chosen_port(&self) -> Option<&RuleSet> {
        self.network.by_chosen_port()
    }

    fn by_local_port(&self, table: &Table, port: u16) -> Option<&RuleSet> {
        self.network.by_local_port(table, port)
    }
}
