//! The second oracle: what a bare run does and the policy allows, a guarded run does, too.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    address::{CHOSEN, LOOPBACK4, LOOPBACK6, MANY, OWN, Port, Target, is_for_several},
    judge::{Finding, Known},
    policy::{Op, Policy, Protocol, Rule},
    program::{Ask, Call, Program},
    session::Run,
    unix::Peer,
};

/// What a guarded run was refused, or did not bring about, although the policy allows all of it and the bare run had it. Only
/// for programs that do the same each time.
pub fn hindered(policy: &Policy, program: &Program, guarded: &Run, bare: &Run) -> BTreeSet<Finding> {
    let mut found = BTreeSet::new();
    let known = Known { policy, program, run: bare };
    if known.is_excepted() {
        return found;
    }
    let innocent = known.is_innocent();
    // Routes and devices of a socket's own are reasons to refuse what its address would allow.
    let plain = !program.all().iter().any(|call| match call {
        Call::Set { .. } => true,
        Call::Send { control, .. } => !control.is_empty(),
        _ => false,
    });
    for ((call, bare_got), got) in program.all().iter().zip(&bare.report.outcomes).zip(&guarded.report.outcomes) {
        let (Some(bare_got), Some(got)) = (bare_got, got) else { continue };
        let refused = plain && *got == -libc::EPERM && *bare_got >= 0 && known.call_is_allowed(call);
        if refused || innocent && *bare_got >= 0 && *got < 0 {
            found.insert(Finding {
                class: format!("{} fails although it is allowed", call.name()),
                detail: format!("{call}: {bare_got} without a guard, {got} with it"),
            });
        }
    }
    if innocent && found.is_empty() {
        let reached = |run: &Run| -> BTreeSet<_> {
            run.seen.iter().map(|seen| (seen.at, seen.protocol, seen.destination)).collect()
        };
        if let Some(missing) = reached(bare).difference(&reached(guarded)).next() {
            let detail = format!("{missing:?} seen without a guard, not with it");
            found.insert(Finding { class: format!("{} does not arrive", missing.1.name()), detail });
        }
    }
    found
}

/// What a call or a program may do, as far as its arguments tell.
impl Known<'_> {
    /// All that an address may mean. What is sent to this host's own address from another one is judged as what goes to loopback.
    fn meant(to: &Target) -> Vec<IpAddr> {
        let ip = to.ip.to_canonical();
        if ip.is_unspecified() || OWN.contains(&ip) {
            [LOOPBACK4, LOOPBACK6].into_iter().chain(OWN).collect()
        } else {
            vec![ip]
        }
    }

    /// Whether the kernel may read an address as one of another family than it says, and so as another address.
    fn is_misread(&self, to: &Target) -> bool {
        let v4 = |call: &&Call| matches!(call, Call::Socket { kind, .. } if kind.family == libc::AF_INET);
        to.family == libc::AF_UNSPEC || to.family == libc::AF_INET6 && self.program.all().iter().any(v4)
    }

    fn names_unspecified(&self) -> bool {
        self.program.all().iter().any(|call| match call {
            Call::Connect { to, .. } | Call::Send { to: Some(to), .. } => to.ip.is_unspecified(),
            _ => false,
        })
    }

    /// Whether a rule denies ports by their numbers from which the kernel chooses: nothing is sent from these without bind(2).
    fn denies_chosen(&self) -> bool {
        let overlaps =
            |(first, last): &(u16, u16)| (*first, *last) == (0, 0) || *first <= CHOSEN.1 && *last >= CHOSEN.0;
        let about = |rule: &&Rule| rule.ops.is_empty() || rule.ops.contains(&Op::Bind);
        self.policy.rules.iter().filter(about).any(|rule| !rule.allow && rule.ports.iter().any(overlaps))
    }

    /// Whether a program does what the guard may hinder although nothing denies it.
    fn is_excepted(&self) -> bool {
        // The kernel sends what was kept back to an address that it makes up when the socket is connected meanwhile: egress
        // programs refuse that.
        // To one that is bound to a broadcast address, 0.0.0.0 is what it is bound to.
        let broadcasts = |call: &&Call| matches!(call, Call::Bind { to, .. } if MANY.contains(&to.ip));
        let all = self.program.all();
        // A scoped address ties the socket to its device, by which nothing may leave that is for loopback.
        let scoped = |call: &&Call| match call {
            Call::Bind { to, .. } | Call::Connect { to, .. } | Call::Send { to: Some(to), .. } => to.scope != 0,
            _ => false,
        };
        // A socket of IPv6 that was connected by IPv4 goes there again, whatever it is connected to next: that is refused.
        let by = |v4: bool| {
            all.iter().any(|call| match call {
                Call::Connect { to, .. } | Call::Send { to: Some(to), .. } => to.ip.to_canonical().is_ipv4() == v4,
                _ => false,
            })
        };
        let crosses = by(true) && by(false);
        // IPv4 hands this host a copy of what goes to several: a socket that sends so gets no other peer.
        let several = |to: &Target| matches!(to.ip.to_canonical(), ip @ IpAddr::V4(_) if is_for_several(&ip));
        let connects = all.iter().any(|call| matches!(call, Call::Connect { .. }));
        let copied = connects && self.targets().iter().any(|(_, to)| several(to));
        crosses
            || copied
            || self.program.corks()
            || all.iter().any(scoped)
            || all.iter().any(broadcasts) && self.names_unspecified()
    }

    /// Whether nothing about a call can be denied, as far as its arguments tell. What can't be told counts as denied.
    fn call_is_allowed(&self, call: &Call) -> bool {
        let protocols = [Protocol::Tcp, Protocol::Udp];
        let everywhere = |op, to: &Target| {
            let Port::Fixed(port) = to.port else { return false };
            if self.is_misread(to) {
                return false;
            }
            // What is sent to all is also sent to those that may not have it.
            Self::meant(to).iter().all(|ip| {
                let allowed = |protocol: &Protocol| self.allows(op, *protocol, *ip, &[port], false);
                !is_for_several(ip) && protocols.iter().all(allowed)
            })
        };
        match call {
            Call::Connect { to, .. } => everywhere(Op::Connect, to),
            Call::Send { .. } if self.denies_chosen() || self.program.makes_headers() => false,
            Call::Send { to: Some(to), .. } => everywhere(Op::Connect, to) && everywhere(Op::Send, to),
            Call::Bind { to, .. } if self.is_misread(to) => false,
            Call::Bind { to, .. } => match to.port {
                Port::Fixed(0) | Port::Of(_) => !self.policy.restricts(Op::Bind),
                Port::Fixed(port) => {
                    let ip = to.ip.to_canonical();
                    protocols.iter().all(|protocol| self.allows(Op::Bind, *protocol, ip, &[port], true))
                }
            },
            Call::Get { level, option, .. } => self.policy.option != Some((*level, *option)),
            // Without a section of its own, Landlock refuses abstract names. Containers have other files.
            Call::ConnectUnix { to, .. } | Call::SendUnix { to, .. } => {
                self.policy.unix.is_some_and(|section| section.allows(*to))
                    && !(self.policy.writes && to.peer == Peer::File)
            }
            _ => false,
        }
    }

    /// Whether the policy allows all that a program does, as far as that can be told.
    fn is_innocent(&self) -> bool {
        // Whether a socket is the sandbox's own can't be told of packets with routes, so these are refused.
        let restricted = Op::ALL.map(|op| self.policy.restricts(op) || self.policy.knows_own());
        let binds = self.policy.restricts(Op::Bind);
        self.program.all().iter().all(|call| match call {
            Call::Connect { .. } | Call::Bind { .. } | Call::ConnectUnix { .. } | Call::SendUnix { .. } => {
                self.call_is_allowed(call)
            }
            // Options and messages with routes are refused where peers can be.
            Call::Send { to, control, .. } => {
                (to.is_none() || self.call_is_allowed(call)) && (control.is_empty() || restricted == [false; 4])
            }
            Call::Socket { kind, .. } => {
                let judged = kind.is_stream()
                    || kind.is_unix()
                    || kind.protocol == libc::IPPROTO_UDP && kind.kind == libc::SOCK_DGRAM;
                judged || restricted == [false; 4]
            }
            Call::Get { level, option, .. } => self.policy.option != Some((*level, *option)),
            Call::Set { .. } => restricted == [false; 4],
            Call::Listen { .. } => !binds,
            Call::Ask(Ask::Datagrams { .. } | Ask::Connections { .. }) | Call::Accept { .. } | Call::Receive { .. } => {
                !self.policy.restricts(Op::Receive) && !binds
            }
            Call::File { .. } => self.policy.device.is_none() && self.policy.sysctl.is_none(),
            Call::Race { .. } | Call::Fork { .. } => false,
            _ => true,
        }) && !self.writes()
    }

    fn writes(&self) -> bool {
        self.program.all().iter().any(|call| matches!(call, Call::File { write: Some(_), .. }))
    }
}
