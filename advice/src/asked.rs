//! A request, and what logs tell of it beside the request itself.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use common::{Decision, name::address::nearness, net, net::ones_if_equal};
use policy::compile::Tables;
use report::{Event, Flow, Subject};

use crate::{Guard, Peer, Request, judge};

/// Something that a command asked for, and what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub request: Request,
    /// The host names by which the peer was found, with commas between them, as logs have them.
    pub host: Option<String>,
    /// Whether the peer is only taken to have been found by that name: the process had asked for it just before.
    pub is_next: bool,
    /// Where a name led to.
    pub led_to: Option<LedTo>,
    /// From what it follows that the peer is a socket of the command's own, if no rule says so.
    pub own: Option<Source>,
    /// Whether the port of the command's own server is one that the kernel has chosen, and another one next time.
    pub is_by_chance: bool,
}

/// What an inference rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Other records.
    Records,
    /// What the policy lets the command bind, alone.
    Policy,
}

/// Where a name led to: what connected to it, or to an address that it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LedTo {
    pub protocol: &'static str,
    pub port: u16,
    /// Whether the address is one to which names lead only where a rule says so.
    pub is_near: bool,
}

impl Asked {
    /// A request of which no more is known.
    pub fn alone(request: Request) -> Self {
        Self { request, host: None, is_next: false, led_to: None, own: None, is_by_chance: false }
    }

    /// A request to a peer that was found by these names. Of a name that leads nowhere near it, nothing is known.
    pub fn by_name(request: Request, host: Option<&str>) -> Self {
        let leads = |request: &Request| match request {
            Request::Peer(peer) => {
                let net::Request { op, address, .. } = peer.request();
                [net::Op::CONNECT, net::Op::SEND].contains(&op) && nearness(address, ones_if_equal).never == 0
            }
            _ => false,
        };
        let host = host.filter(|_| leads(&request)).map(ToOwned::to_owned);
        Self { host, ..Self::alone(request) }
    }

    /// The names by which the peer was found.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.host.iter().flat_map(|names| names.split(", "))
    }

    /// Whether the peer is at an address to which names lead only where a rule says so. Of the unspecified address, that isn't known.
    pub fn is_near(&self) -> bool {
        match &self.request {
            Request::Peer(peer) if !peer.address.is_unspecified() => {
                nearness(peer.request().address, ones_if_equal).private != 0
            }
            _ => false,
        }
    }

    /// What a policy decides. `None` where it has nothing to say.
    pub fn judge(&self, tables: &Tables) -> Option<Decision> {
        match (&self.request, &self.host, &tables.network) {
            // Of the unspecified address, nothing is meant but the name.
            (Request::Peer(peer), Some(name), Some(network)) if peer.address.is_unspecified() => {
                Some(network.decide_by_name(&peer.request(), name).decision)
            }
            (Request::Peer(peer), Some(host), Some(network)) => Some(judge::decide(network, peer, Some(host))),
            _ => self.request.judge(tables),
        }
    }

    /// Whether a policy allows it.
    pub fn is_allowed(&self, tables: &Tables) -> bool {
        self.judge(tables).is_none_or(|decision| decision.allow)
    }
}

/// Where the command's own servers are, as far as logs tell: by protocol and port.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    /// Ports that bind(2) asked for; 0 is "any".
    asked: HashSet<(String, u16)>,
    /// Ports that were listened at and that nobody has asked for.
    chosen: HashSet<(String, u16)>,
    /// TCP ports of the command's at which something arrived.
    served: HashSet<u16>,
    /// Loopback ports that the command connected or sent to.
    reached: HashSet<(String, u16)>,
}

/// From here on, Linux chooses ports (`net.ipv4.ip_local_port_range`, as it is unless somebody sets it).
const EPHEMERAL: u16 = 32768;

impl Servers {
    /// Notes what an event tells of them.
    pub fn event(&mut self, event: &Event) {
        let Subject::Network(network) = &event.subject else { return };
        let at = |port| (network.protocol.clone(), port);
        match (&*event.op, network.local_port) {
            ("bind", _) if event.hook.starts_with("bind") => drop(self.asked.insert(at(network.port))),
            ("bind", _) => drop(self.chosen.insert(at(network.port))),
            ("receive", Some(port)) if network.protocol == "tcp" => drop(self.served.insert(port)),
            ("connect" | "send", _) if network.address.is_loopback() => drop(self.reached.insert(at(network.port))),
            _ => {}
        }
    }

    /// Notes what a flow tells of them.
    pub fn flow(&mut self, flow: &Flow) {
        let network = &flow.network;
        if flow.direction == "incoming" {
            if network.protocol == "tcp" {
                self.served.insert(network.port);
            }
        } else if network.address.is_loopback() {
            self.reached.insert((network.protocol.clone(), network.port));
        }
    }

    /// Takes what other logs tell.
    pub fn append(&mut self, other: Self) {
        let Self { asked, chosen, served, reached } = other;
        self.asked.extend(asked);
        self.chosen.extend(chosen);
        self.served.extend(served);
        self.reached.extend(reached);
    }

    /// The request, of which it is known whether it is to the command's own server or from its own client, and at which port.
    pub fn tell(&self, asked: Asked, guard: &Guard) -> Asked {
        let Request::Peer(peer) = asked.request else { return asked };
        let op = peer.request().op;
        if peer.own || asked.host.is_some() || !peer.address.is_loopback() || op == net::Op::BIND {
            return asked;
        }
        let own = Request::Peer(Peer { own: true, ..peer });
        let (port, is_receive) = (peer.local_port.unwrap_or(peer.port), op == net::Op::RECEIVE);
        let protocol = policy::protocol_name(peer.protocol);
        let has = |ports: &HashSet<(String, u16)>, port| ports.contains(&(protocol.clone(), port));
        let (is_asked, is_chosen) = (has(&self.asked, port), has(&self.chosen, port));
        let is_own = if is_receive {
            // The command's own client is one that got as far as here. A datagram may be an answer from elsewhere.
            (protocol == "tcp" || is_asked) && (has(&self.reached, port) || may_reach(&peer, port, guard))
        } else {
            is_asked || is_chosen || protocol == "tcp" && self.served.contains(&port)
        };
        let by_policy = if is_own || is_receive { None } else { may_bind(&peer, guard) };
        // What the policy allows to the command's own is denied to others.
        if !is_own && by_policy.is_none() || own.is_allowed(&guard.tables) {
            return asked;
        }
        let is_by_chance = match by_policy {
            Some(port) => port == net::EPHEMERAL,
            None => !is_asked && (is_chosen || has(&self.asked, net::EPHEMERAL) || port >= EPHEMERAL),
        };
        let source = if by_policy.is_some() { Source::Policy } else { Source::Records };
        Asked { request: own, own: Some(source), is_by_chance, ..asked }
    }
}

/// The port at which the policy lets the command have a server where it connected to, by a rule that names it: "ephemeral" stands for those
/// that the kernel chooses.
fn may_bind(peer: &Peer, guard: &Guard) -> Option<u16> {
    let chosen = Some(net::EPHEMERAL).filter(|_| peer.port >= EPHEMERAL);
    let addresses = [peer.address, Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let names = |port: u16, address: IpAddr| {
        let bind = Peer { op: net::Op::BIND.index(), port, address, local_port: None, own: false, ..*peer };
        let decision = Request::Peer(bind).judge(&guard.tables).filter(|decision| decision.allow);
        let rule = decision.and_then(|decision| guard.rule("network", decision.rule.into()));
        rule.is_some_and(|rule| rule.get("ports").is_some())
    };
    let mut ports = [Some(peer.port), chosen].into_iter().flatten();
    ports.find(|port| addresses.iter().any(|address| names(*port, *address)))
}

/// Whether the policy lets the command itself connect or send to a port at which something arrives from an address of this host.
fn may_reach(peer: &Peer, port: u16, guard: &Guard) -> bool {
    let [connect, send] = [net::Op::CONNECT, net::Op::SEND].map(net::Op::index);
    [(connect, true), (connect, false), (send, true), (send, false)].into_iter().any(|(op, own)| {
        let there = Peer { op, port, local_port: None, own, ..*peer };
        Request::Peer(there).is_allowed(&guard.tables)
    })
}
