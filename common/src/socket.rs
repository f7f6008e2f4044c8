//! Sockets: who makes one of which kind.

use crate::{
    Decision, MAX_RULES, RuleSet,
    decision::{OWN_HEADERS, UNJUDGED_SOCKET, UNSEEN_COPY, Verdicts},
};

/// `AF_INET` (include/linux/socket.h).
pub const INET: u32 = 2;
/// `AF_INET6`.
pub const INET6: u32 = 10;

/// `SOCK_*` (include/linux/net.h).
pub mod kind {
    /// A stream of bytes.
    pub const STREAM: u32 = 1;
    /// Datagrams.
    pub const DGRAM: u32 = 2;
    /// Packets with the protocol's own header, or with none but the sender's.
    pub const RAW: u32 = 3;
    /// Messages in sequence.
    pub const SEQPACKET: u32 = 5;
}

/// `IPPROTO_*` (include/uapi/linux/in.h).
pub mod protocol {
    /// ICMP.
    pub const ICMP: u32 = 1;
    /// TCP.
    pub const TCP: u32 = 6;
    /// UDP.
    pub const UDP: u32 = 17;
    /// DCCP.
    pub const DCCP: u32 = 33;
    /// `ICMPv6`.
    pub const ICMPV6: u32 = 58;
    /// SCTP.
    pub const SCTP: u32 = 132;
    /// UDP-Lite.
    pub const UDPLITE: u32 = 136;
    /// Any, with an IP header of its own.
    pub const RAW: u32 = 255;
    /// TCP over several paths.
    pub const MPTCP: u32 = 262;
}

/// One request to be judged: socket(2) with these arguments.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The address family, [`INET`] or [`INET6`]: the kernel asks about no others.
    pub family: u32,
    /// The type, one of [`kind`].
    pub kind: u32,
    /// The protocol, an `IPPROTO_*` number.
    pub protocol: u32,
    /// Always 0.
    pub padding: u32,
}

const _: () = assert!(size_of::<Request>() == 16);

/// One compiled rule: it matches when `(key ^ value) & mask == 0`.
///
/// Bit-fields of a request's key: protocol 0–31, type 32–47, family 48–63.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    value: u64,
    mask: u64,
}

const _: () = assert!(size_of::<Rule>() == 16);

const TYPE_SHIFT: u32 = 32;
const FAMILY_SHIFT: u32 = 48;

impl Rule {
    /// To fill up with, behind the rules that are looked at.
    pub const NONE: Self = Self { value: 0, mask: 0 };

    /// A rule on the sockets that have all of the properties given (`None`: any).
    #[must_use]
    pub fn new(family: Option<u32>, kind: Option<u32>, protocol: Option<u32>) -> Self {
        let part = |property: Option<u32>, shift: u32, mask: u64| {
            property.map_or((0, 0), |number| ((u64::from(number) & mask) << shift, mask << shift))
        };
        let parts =
            [part(family, FAMILY_SHIFT, 0xffff), part(kind, TYPE_SHIFT, 0xffff), part(protocol, 0, 0xffff_ffff)];
        let (value, mask) = parts.iter().fold((0, 0), |(value, mask), part| (value | part.0, mask | part.1));
        Self { value, mask }
    }
}

/// Kinds of sockets that no address hook of the kernel sees all requests of, as bits.
pub mod unjudged {
    /// Raw sockets: whatever is sent, it needn't name its peer.
    pub const RAW: u32 = 1;
    /// ICMP datagram sockets (ping).
    pub const PING: u32 = 2;
    /// Any other protocol than TCP and UDP: UDP-Lite, SCTP, DCCP …
    pub const OTHER: u32 = 4;
    /// Raw sockets whose packets come with an IP header. The address that sendto(2) names chooses the neighbour that gets such a packet,
    /// and its header may name another one.
    pub const HEADERS: u32 = 8;
    /// Raw sockets by which datagrams are sent, and those of UDP-Lite, of whose connect(2) no hook is told. IPv4 hands this host's own servers
    /// a copy of what goes to a group or as a broadcast, and no hook sees the copy (`ip_mc_output`, net/ipv4/ip_output.c). And no address hook is told to whom such a socket sends first what it keeps back.
    pub const COPIES: u32 = 16;
}

impl Request {
    /// Which of [`unjudged`] the socket is; 0 for TCP and UDP, whose peers the address hooks see.
    #[inline(always)]
    #[must_use]
    pub fn unjudged(&self) -> u32 {
        match (self.kind, self.protocol) {
            (kind::RAW, protocol) => {
                // Without a branch: 1 only for a difference of 0, since no number is that large.
                let is = |one: u32, other: u32| (one ^ other).wrapping_sub(1) >> 31;
                let datagrams = is(protocol, protocol::UDP) | is(protocol, protocol::UDPLITE);
                unjudged::RAW | (is(protocol, protocol::RAW) * unjudged::HEADERS) | (datagrams * unjudged::COPIES)
            }
            (kind::STREAM, protocol::TCP | protocol::MPTCP) | (kind::DGRAM, protocol::UDP) => 0,
            (kind::DGRAM, protocol::ICMP | protocol::ICMPV6) => unjudged::PING,
            (kind::DGRAM, protocol::UDPLITE) => unjudged::OTHER | unjudged::COPIES,
            _ => unjudged::OTHER,
        }
    }
}

/// The compiled sockets section, and what the network section adds to it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// What the rules say.
    pub verdicts: Verdicts,
    /// The kinds of sockets ([`unjudged`]) by which the network section's denials could be evaded.
    pub refused: u32,
    /// 1: every socket is marked as the sandbox's own, with the process that makes it.
    pub mark: u32,
    /// 1: sockets are allowed by name by which the network section could be evaded: what they send is judged packet by
    /// packet.
    pub packets: u32,
    /// Always 0.
    pub padding: u32,
    /// The rules that name a type or a protocol: what these allow is allowed although it is in `refused`, but for
    /// [`unjudged::HEADERS`] and [`unjudged::COPIES`].
    pub naming: RuleSet,
    /// The rules that name [`protocol::RAW`], and so [`unjudged::HEADERS`].
    pub naming_headers: RuleSet,
}

const _: () = assert!(size_of::<Table>() == 120);

impl Table {
    /// No rules, everything denied: what the programs are compiled with.
    pub const DENY_ALL: Self = Self {
        verdicts: Verdicts::DENY_ALL,
        refused: u32::MAX,
        mark: 0,
        packets: 1,
        padding: 0,
        naming: RuleSet::NONE,
        naming_headers: RuleSet::NONE,
    };
}

/// The rules of the compiled sockets section; those from [`Verdicts::count`] on are never looked at.
pub type Rules = [Rule; MAX_RULES];

/// Judges the making of a socket. A kind by which the network section could be evaded has to be allowed by name.
#[inline(always)]
#[must_use]
pub fn decide(table: &Table, rules: &Rules, request: &Request) -> Decision {
    let key = u64::from(request.protocol)
        | u64::from(request.kind & 0xffff) << TYPE_SHIFT
        | u64::from(request.family & 0xffff) << FAMILY_SHIFT;
    let mut decision = table.verdicts.of_default();
    // The kinds that are allowed by name.
    let mut named = 0;
    for (index, rule) in (0_u16..).zip(rules) {
        if u32::from(index) >= table.verdicts.count() {
            break;
        }
        if (key ^ rule.value) & rule.mask == 0 {
            decision = table.verdicts.of_rule(index);
            let index = usize::from(index);
            let all = if table.naming.contains(index) { !(unjudged::HEADERS | unjudged::COPIES) } else { 0 };
            named = all | if table.naming_headers.contains(index) { unjudged::HEADERS } else { 0 };
            break;
        }
    }
    // At the end, since the kernel's verifier follows what comes after once for each kind.
    let unjudged = request.unjudged() & table.refused & !named;
    if decision.allow && unjudged != 0 {
        // By arithmetic, for the same reason.
        #[allow(clippy::cast_possible_truncation)] // a bit
        let [headers, copies] = [unjudged::HEADERS, unjudged::COPIES].map(|kind| ((unjudged / kind) & 1) as u16);
        return Decision::fail_closed(
            UNJUDGED_SOCKET ^ ((UNJUDGED_SOCKET ^ OWN_HEADERS) * headers) ^ ((UNJUDGED_SOCKET ^ UNSEEN_COPY) * copies),
        );
    }
    decision
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn socket(kind: u32, protocol: u32) -> Request {
        Request { family: INET, kind, protocol, padding: 0 }
    }

    #[test]
    fn kinds_that_no_address_hook_judges() {
        let table = [
            (kind::STREAM, protocol::TCP, 0),
            (kind::STREAM, protocol::MPTCP, 0),
            (kind::DGRAM, protocol::UDP, 0),
            (kind::DGRAM, protocol::ICMP, unjudged::PING),
            (kind::DGRAM, protocol::ICMPV6, unjudged::PING),
            (kind::DGRAM, protocol::UDPLITE, unjudged::OTHER | unjudged::COPIES),
            (kind::DGRAM, protocol::TCP, unjudged::OTHER),
            (kind::STREAM, protocol::SCTP, unjudged::OTHER),
            (kind::SEQPACKET, protocol::SCTP, unjudged::OTHER),
            (kind::RAW, protocol::TCP, unjudged::RAW),
            (kind::RAW, 255, unjudged::RAW | unjudged::HEADERS),
            (kind::RAW, protocol::UDP, unjudged::RAW | unjudged::COPIES),
            (kind::RAW, protocol::UDPLITE, unjudged::RAW | unjudged::COPIES),
        ];
        for (kind, protocol, expected) in table {
            assert_eq!(socket(kind, protocol).unjudged(), expected, "type {kind}, protocol {protocol}");
        }
    }

    #[test]
    fn what_could_evade_must_be_allowed_by_name() {
        let mut rules = [Rule::NONE; MAX_RULES];
        rules[0] = Rule::new(Some(INET), None, None);
        rules[1] = Rule::new(None, Some(kind::RAW), Some(protocol::ICMP));
        let table = Table {
            verdicts: Verdicts::new(true, [true, true]),
            refused: unjudged::RAW,
            naming: [1].into_iter().collect(),
            ..Table::DENY_ALL
        };
        let raw = socket(kind::RAW, protocol::ICMP);
        let decided = |request| decide(&table, &rules, &request).rule;
        // The first rule allows it, but not by name.
        assert_eq!(decided(raw), UNJUDGED_SOCKET);
        assert_eq!(decided(Request { family: INET6, ..raw }), 1);
        assert_eq!(decided(Request { family: INET6, protocol: protocol::TCP, ..raw }), UNJUDGED_SOCKET);
        assert_eq!(decided(socket(kind::DGRAM, protocol::ICMP)), 0);
        // Packets with headers of their own have to be allowed as such, where rules tell hosts apart.
        let own = Request { family: INET6, ..socket(kind::RAW, protocol::RAW) };
        rules[1] = Rule::new(None, Some(kind::RAW), None);
        let decided = |table: &Table| decide(table, &rules, &own).rule;
        assert_eq!(decided(&table), 1);
        let table = Table { refused: unjudged::RAW | unjudged::HEADERS, ..table };
        assert_eq!(decided(&table), OWN_HEADERS);
        assert_eq!(decided(&Table { naming_headers: [1].into_iter().collect(), ..table }), 1);
        // Nothing allows raw datagrams then.
        let table = Table { refused: unjudged::RAW | unjudged::COPIES, ..table };
        let raw = socket(kind::RAW, protocol::UDP);
        assert_eq!(
            decide(&table, &[Rule::new(None, Some(kind::RAW), Some(protocol::UDP)); MAX_RULES], &raw).rule,
            UNSEEN_COPY
        );
    }
}
