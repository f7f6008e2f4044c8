//! The first oracle: nothing reaches what the policy denies, or comes from it. What was seen outside counts.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    address::{CHOSEN, Host, LOOPBACK4, LOOPBACK6, MANY, OWN, Port, SERVED, STRANGE, Target, is_for_several},
    capture::Seen,
    outside::Contact,
    policy::{Op, Policy, Protocol, Request},
    program::{Call, Program, SLOTS, SocketKind},
    session::Run,
    unix,
    wire::Listened,
};

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What kind of thing it is, the same for all that are alike.
    pub class: String,
    /// What was seen.
    pub detail: String,
}

/// What is known of a program beside what was seen.
pub struct Known<'a> {
    pub policy: &'a Policy,
    pub program: &'a Program,
    pub run: &'a Run,
}

/// Addresses of the program's host.
const HERE: [IpAddr; 6] = [OWN[0], OWN[1], OWN[2], OWN[3], LOOPBACK4, LOOPBACK6];

/// An address as findings tell them apart.
pub fn kind_of(ip: IpAddr) -> &'static str {
    match ip {
        ip if ip.is_loopback() => "loopback",
        ip if OWN.contains(&ip) => "own device's address",
        ip if Host::Denied.addresses().contains(&ip) => "denied peer",
        ip if Host::Allowed.addresses().contains(&ip) => "allowed peer",
        ip if ip.is_multicast() => "multicast",
        ip if MANY.contains(&ip) => "broadcast",
        ip if ip.is_unspecified() => "unspecified",
        _ => "other address",
    }
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "4" } else { "6" }
}

/// What a guarded run led to that the policy denies.
pub fn escapes(policy: &Policy, program: &Program, run: &Run) -> BTreeSet<Finding> {
    let known = Known { policy, program, run };
    let mut found = BTreeSet::new();
    run.seen.iter().for_each(|seen| found.extend(known.sent(seen)));
    run.contacts.iter().for_each(|contact| found.extend(known.contacted(contact)));
    run.report.received.iter().for_each(|received| found.extend(known.received(received)));
    found.extend(known.files());
    found.extend(known.options());
    found.extend(known.reached());
    found
}

/// How many times at the least and at the most a guarded run had a TCP socket begin to listen at a port that the policy denies. Whether
/// bind(2) asked for the port is not told: a port that was not asked for counts as one that the kernel chose, too.
pub fn listened(policy: &Policy, program: &Program, run: &Run) -> (u64, u64) {
    let (mut least, mut most) = (0, run.report.listened_elsewhere);
    for Listened { ip, port, times } in &run.report.listened {
        let allows =
            |ports| policy.allows(&Request { op: Op::Bind, protocol: Protocol::Tcp, ip: *ip, ports, own: true });
        let allowed = [allows(&[*port]), allows(&[*port, 0])];
        // What is repeated by threads may have begun anew each time, or not.
        least += if program.races() || allowed.contains(&true) { 0 } else { *times };
        most += if allowed == [true, true] { 0 } else { *times };
    }
    (least, most)
}

impl Known<'_> {
    /// Whether the policy allows that.
    pub fn allows(&self, op: Op, protocol: Protocol, ip: IpAddr, ports: &[u16], own: bool) -> bool {
        self.policy.allows(&Request { op, protocol, ip, ports, own })
    }

    /// Whether the program names peers in connects, or in sends.
    fn reaches_by(&self) -> (bool, bool) {
        let all = self.program.all();
        let connects = all.iter().any(|call| matches!(call, Call::Connect { .. }));
        let sends = all.iter().any(|call| matches!(call, Call::Send { to: Some(_), .. }));
        (connects, sends)
    }

    /// Whether what goes there is allowed by any operation that the program uses.
    fn may_reach(&self, protocol: Protocol, (ip, port): (IpAddr, u16), own: bool) -> bool {
        if protocol == Protocol::Tcp {
            return self.allows(Op::Connect, protocol, ip, &[port], own);
        }
        let (connects, sends) = self.reaches_by();
        // Sockets that no address hook judges are judged by their packets, as sends.
        let sends = sends || protocol != Protocol::Udp || self.uses_other(protocol);
        connects && self.allows(Op::Connect, protocol, ip, &[port], own)
            || sends && self.allows(Op::Send, protocol, ip, &[port], own)
    }

    fn sent(&self, seen: &Seen) -> Option<Finding> {
        let (ip, port) = seen.destination;
        if ip.is_loopback() && seen.at != Host::Local {
            return self.strayed(seen);
        }
        // This host takes what is sent by its loopback device, whatever it says. No connection comes of that.
        let others = !HERE.contains(&ip) && !ip.is_loopback() && !ip.is_unspecified() && !is_for_several(&ip);
        let stays = seen.at == Host::Local && seen.protocol != Protocol::Tcp && others;
        let here = if ip.is_ipv4() { LOOPBACK4 } else { LOOPBACK6 };
        if stays && !seen.later && !self.may_reach(seen.protocol, (here, seen.destination.1), false) {
            return Some(Finding {
                class: format!("sent {}{} by the loopback device", seen.protocol.name(), family(ip)),
                detail: format!("from {:?} to {ip} port {}, seen at {:?}", seen.source, seen.destination.1, seen.at),
            });
        }
        // Which socket on loopback gets it, those know who got it.
        let decided = !(self.policy.knows_own() && ip.is_loopback());
        // While another thread connects, the kernel may send to no address, which nobody receives.
        let decided = decided && (!ip.is_unspecified() || seen.routed || seen.at != Host::Local);
        // The ports are in the first fragment, which is judged by itself.
        let follows = |first: &Seen| !first.later && (first.at, first.destination.0) == (seen.at, ip);
        let decided = decided && !(seen.later && self.run.seen.iter().any(follows));
        // While another thread disconnects, the kernel may send to port 0 of the peer, where nobody receives.
        let decided = decided && !(port == 0 && !seen.routed && self.disconnects_from(seen.protocol, ip));
        (decided && !self.may_reach(seen.protocol, seen.destination, false)).then(|| Finding {
            class: format!(
                "sent {}{} to {}{}",
                seen.protocol.name(),
                family(ip),
                kind_of(ip),
                if seen.routed { ", with a route of its own" } else { "" }
            ),
            detail: format!(
                "{} from {:?} to {ip} port {port}, seen at {:?}",
                seen.protocol.name(),
                seen.source,
                seen.at
            ),
        })
    }

    /// Whether threads connect a socket to an allowed port of this address, by UDP, while others send by it.
    fn disconnects_from(&self, protocol: Protocol, ip: IpAddr) -> bool {
        let is_allowed = |(connects, to): (bool, Target)| match to.port {
            Port::Fixed(port) => connects && to.ip.to_canonical() == ip && self.may_reach(protocol, (ip, port), false),
            Port::Of(_) => false,
        };
        protocol == Protocol::Udp && self.program.races() && self.targets().into_iter().any(is_allowed)
    }

    /// What is for a loopback address and is seen at a peer: there, that peer could take it.
    fn strayed(&self, seen: &Seen) -> Option<Finding> {
        let (ip, port) = seen.destination;
        let mut addresses = seen.at.addresses().iter().filter(|address| address.is_ipv4() == ip.is_ipv4());
        let denied = !seen.later && !addresses.any(|address| self.may_reach(seen.protocol, (*address, port), false));
        denied.then(|| Finding {
            class: format!("sent {}{} to loopback, by another device", seen.protocol.name(), family(ip)),
            detail: format!("{:?} to {ip} port {port}, seen at {:?}", seen.source, seen.at),
        })
    }

    fn contacted(&self, contact: &Contact) -> BTreeSet<Finding> {
        let mut found = BTreeSet::new();
        let Contact { host, protocol, incoming, program, outsider } = *contact;
        let what = protocol.name();
        if incoming {
            if !self.allows(Op::Receive, protocol, outsider.0, &[outsider.1], false) {
                found.insert(Finding {
                    class: format!("connection of {host:?} accepted by {what}"),
                    detail: format!("{} from {outsider:?} to {program:?}", protocol.name()),
                });
            }
            if !self.may_listen(protocol, program) {
                found.insert(Finding {
                    class: format!("listens by {what} at a denied {}port", self.chosen(protocol, program.1)),
                    detail: format!("{program:?}, reached by {outsider:?}"),
                });
            }
        } else if self.policy.knows_own() && outsider.0.is_loopback() && !self.may_reach(protocol, outsider, false) {
            found.insert(Finding {
                class: format!("reached {host:?} by {what}, which is not the sandbox's"),
                detail: format!("{} from {program:?} to {outsider:?}", protocol.name()),
            });
        }
        found
    }

    fn chosen(&self, protocol: Protocol, port: u16) -> &'static str {
        if self.names_port(protocol, port) { "" } else { "chosen " }
    }

    /// Whether the program has bound a socket of that protocol to that port by its number.
    fn names_port(&self, protocol: Protocol, port: u16) -> bool {
        self.asks_for(protocol, port, |outcome| outcome == Some(0))
    }

    /// Whether the program has asked bind(2) for that port for a socket of that protocol, with such an outcome.
    fn asks_for(&self, protocol: Protocol, port: u16, came: impl Fn(Option<i32>) -> bool) -> bool {
        let mut streams = [false; SLOTS];
        let all = self.program.all();
        let mut done = all.iter().zip(&self.run.report.outcomes);
        done.any(|(call, outcome)| {
            match call {
                Call::Socket { slot, kind } => streams[usize::from(*slot)] = kind.is_stream(),
                Call::Bind { slot, to } if to.port == Port::Fixed(port) => {
                    return came(*outcome) && streams[usize::from(*slot)] == (protocol == Protocol::Tcp);
                }
                _ => {}
            }
            false
        })
    }

    /// Whether a socket may be where it was reached. What it was bound to is not seen, so any address of it will do.
    fn may_listen(&self, protocol: Protocol, (ip, port): (IpAddr, u16)) -> bool {
        let wildcards = [IpAddr::from([0; 4]), IpAddr::from([0; 16])];
        let named = self.names_port(protocol, port) || !(CHOSEN.0..=CHOSEN.1).contains(&port);
        // A port that the kernel chose counts as both; the first rule on either decides.
        let ports: &[u16] = if named { &[port] } else { &[port, 0] };
        // If the guard has allowed a bind(2) that the kernel refused, the socket may have that port, also by chance.
        let allowed = !named && self.asks_for(protocol, port, |outcome| outcome != Some(-libc::EPERM));
        // A socket that is bound to no address was reached by one of these.
        let own: &[IpAddr] = if ip.is_unspecified() { &HERE } else { &[] };
        [ip].into_iter().chain(wildcards).chain(own.iter().copied()).any(|ip| {
            let request = Request { op: Op::Bind, protocol, ip, ports, own: true };
            let chosen = !named && protocol == Protocol::Udp;
            let itself = Request { ports: &[port], ..request };
            allowed && self.policy.allows(&itself)
                || if chosen { self.policy.allows_chosen(&request) } else { self.policy.allows(&request) }
        })
    }

    fn received(&self, received: &crate::wire::Received) -> BTreeSet<Finding> {
        let mut found = BTreeSet::new();
        let protocol = if received.accepted { Protocol::Tcp } else { Protocol::Udp };
        let ((ip, port), local) = (received.peer, received.local);
        if received.from.is_none() && self.uses_other(protocol) {
            return found;
        }
        let what = protocol.name();
        // Who had connected, those outside know; of datagrams, the datagram itself tells.
        let outsiders = [SERVED.as_slice(), &[STRANGE]].concat().contains(&port);
        let own = received.from.is_none() && !outsiders && !self.calls(received.peer);
        let answers = !received.accepted && self.connects_to(received.peer);
        let answered = answers && self.allows(Op::Connect, protocol, ip, &[port], own);
        if !self.allows(Op::Receive, protocol, ip, &[port], own) && !answered {
            let from = received.from.map_or_else(|| String::from("itself"), |host| format!("{host:?}"));
            found.insert(Finding {
                class: format!("{what} of {from} received"),
                detail: format!("from {ip} port {port} at {local:?}"),
            });
        }
        let unasked = received.from.is_some() && !self.names(received.peer);
        // A raw socket has its protocol's number there.
        let bound = !received.accepted && local.1 > 255;
        if bound && unasked && !self.may_listen(protocol, local) {
            found.insert(Finding {
                class: format!("receives by {what} at a denied {}port", self.chosen(protocol, local.1)),
                detail: format!("{local:?}, from {ip} port {port}"),
            });
        }
        found
    }

    /// Whether the program has datagram sockets that aren't UDP, whose rules are others.
    fn uses_other(&self, protocol: Protocol) -> bool {
        let udp = (libc::SOCK_DGRAM, libc::IPPROTO_UDP);
        let other = |kind: &SocketKind| !kind.is_stream() && !kind.is_unix() && (kind.kind, kind.protocol) != udp;
        protocol == Protocol::Udp
            && self.program.all().iter().any(|call| matches!(call, Call::Socket { kind, .. } if other(kind)))
    }

    /// Whether somebody outside has connected from there.
    fn calls(&self, peer: (IpAddr, u16)) -> bool {
        self.run.contacts.iter().any(|contact| contact.incoming && contact.outsider == peer)
    }

    /// Whom the program names as peers, and whether by a connect.
    pub fn targets(&self) -> Vec<(bool, Target)> {
        let target = |call: &&Call| match call {
            Call::Connect { to, .. } => Some((true, *to)),
            Call::Send { to: Some(to), .. } => Some((false, *to)),
            _ => None,
        };
        self.program.all().iter().filter_map(target).collect()
    }

    /// Whether the program names this very peer in a connect. The unspecified address is every own one.
    fn connects_to(&self, (ip, port): (IpAddr, u16)) -> bool {
        self.targets().iter().any(|(connects, to)| *connects && may_mean(to, ip, port))
    }

    fn names(&self, (ip, port): (IpAddr, u16)) -> bool {
        self.targets().iter().any(|(_, to)| may_mean(to, ip, port))
    }

    /// Options that were read although the policy denies it.
    fn options(&self) -> BTreeSet<Finding> {
        let mut calls = self.program.all().into_iter().zip(&self.run.report.outcomes);
        let read = calls.any(|(call, outcome)| match (call, outcome) {
            (Call::Get { level, option, .. }, Some(0..)) => self.policy.option == Some((*level, *option)),
            _ => false,
        });
        let found = || Finding { class: String::from("option read"), detail: format!("{:?}", self.policy.option) };
        read.then(found).into_iter().collect()
    }

    /// Unix sockets of those outside that the program has reached.
    fn reached(&self) -> BTreeSet<Finding> {
        let denied =
            self.run.unix.iter().filter(|name| self.policy.unix.is_some_and(|section| !section.allows(**name)));
        let found = |name: &unix::Name| Finding {
            class: format!("Unix socket reached, of {:?}", name.peer),
            detail: name.to_string(),
        };
        denied.map(found).collect()
    }

    fn files(&self) -> BTreeSet<Finding> {
        let mut found = BTreeSet::new();
        for (call, outcome) in self.program.all().iter().zip(&self.run.report.outcomes) {
            let (Call::File { path, write, .. }, Some(outcome @ 0..)) = (call, outcome) else { continue };
            let device = !path.contains("/sys/");
            let denied = if device {
                self.policy.device.is_some_and(|minor| i32::try_from(minor) == Ok(*outcome))
            } else if write.is_some() {
                !self.policy.writes && self.policy.writable.is_none_or(|name| !ends_with(path, name))
            } else {
                self.policy.sysctl.is_some_and(|name| ends_with(path, name))
            };
            if denied {
                let what = if device { "device" } else { "tunable" };
                found.insert(Finding { class: format!("{what} opened"), detail: path.clone() });
            }
        }
        found
    }
}

/// Whether a path leads to that tunable.
fn ends_with(path: &str, name: &str) -> bool {
    path.rsplit('/').next() == name.rsplit('/').next()
}

fn may_mean(to: &Target, ip: IpAddr, port: u16) -> bool {
    let named = matches!(to.port, Port::Of(_)) || to.port == Port::Fixed(port);
    let here = ip.is_loopback() || OWN.contains(&ip);
    named && (to.ip == ip || to.ip.is_unspecified() && here)
}
