//! What leaves for nameservers.
//!
//! The parts of this module are functions of their own for the kernel, too: so their memory lies in the same place, of which there is little.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    programs::SkBuffContext,
};
use common::{
    Decision, RuleSet,
    decision::{DEFAULT, FORGED_ANSWER, NO_QUERY, NO_SERVER_NAME, SECRET_NAME, UNPARSED_PACKET},
    name::{
        Content as _, PORT, ROOM, Step, Text,
        message::{kind, query},
    },
    net::{Address, Op},
    packet::{Addresses, Leaving, parse},
    record::{Hook, Key, NameSubject},
    socket::protocol,
};

use super::{
    NAME_TABLE, NAME_TALLIES, asked, bytes::Payload, held, is_nameserver, is_to_nameserver, rules_of_name, socket,
    stream, tls,
};
use crate::{
    net::{NET_TABLE, NET_TALLIES, subject_of},
    own::Maker,
    packet::{
        Bytes, is_loopback_network, leaves,
        plain::{self, Ends},
        stays,
    },
    record::{Draft, Ledger},
    rodata::filled,
    verifier::{is, opaque},
};

/// What a part returns besides verdicts: that it is of no concern to names, or that it is no query.
pub(super) const NONE: i32 = 2;
pub(super) const OTHER: i32 = 3;

/// A packet from one of the sandbox's sockets. `None` if it is of no concern to names, and has to be judged by where it goes; else 1 to let
/// it through, or 0 to drop it.
#[inline(always)]
pub fn judge(ctx: &SkBuffContext) -> Option<i32> {
    let skb = ctx.skb.skb;
    let socket = socket(ctx)?;
    // SAFETY: the verifier knows the socket.
    let number = unsafe { (*socket).protocol };
    if number != protocol::UDP && number != protocol::TCP {
        return verdict(unusual(skb));
    }
    let Some(Ends { header, ports, .. }) = plain::ends(ctx, number, true) else {
        return verdict(unusual(skb));
    };
    let from = u16::from_be(ports[0]);
    if from == PORT && is_nameserver(plain::source(ctx, header)) != 0 {
        return verdict(refuse(skb, FORGED_ANSWER.into()));
    }
    // SAFETY: as above.
    let known = unsafe {
        if number == protocol::TCP {
            // The kernel holds the socket's lock, so its peer is that of the packet.
            if is_to_nameserver(socket) {
                stream::judge(skb)
            } else if tls::is_held(socket) {
                tls::judge(skb)
            } else {
                return None;
            }
        } else if asked(socket, 0).is_none_or(|asked| asked.asks == 0) {
            // No hook has let it connect or send to a nameserver: that is noted before the kernel does it.
            return None;
        } else {
            asks(skb)
        }
    };
    match known {
        OTHER => verdict(refuse(skb, NO_QUERY.into())),
        known => verdict(known),
    }
}

#[inline(always)]
fn verdict(number: i32) -> Option<i32> {
    // A program may return 0 or 1.
    if number == NONE { None } else { Some(number & 1) }
}

/// A packet of a socket that may ask: 1 if it is a query that passes, 0 if it is one that doesn't, [`NONE`] if it is to be judged by where it
/// goes as well, or [`OTHER`].
#[inline(never)]
fn asks(skb: *mut __sk_buff) -> i32 {
    let mut draft = Draft::new(Hook::Egress, NameSubject::BLANK);
    // What another function writes, the compiler must not keep to itself.
    let key = draft.key();
    match look(skb, key, datagram(skb), u32::MAX) {
        0 => deny(skb, key),
        NONE => settle(skb),
        other => other,
    }
}

/// Where the message of a UDP packet begins, if it leaves as it is and its headers are plain; else 0.
#[inline(never)]
fn datagram(skb: *mut __sk_buff) -> u32 {
    let ctx = &SkBuffContext::new(skb);
    let ends = if is_whole(ctx) { plain::ends(ctx, protocol::UDP, true) } else { None };
    ends.map_or(0, |Ends { header, .. }| Payload::of(ctx, header).0.start())
}

/// A query that passes, or a TCP packet without any: 1 if it goes to a nameserver, or [`NONE`].
#[inline(never)]
pub(super) fn settle(skb: *mut __sk_buff) -> i32 {
    let ctx = &SkBuffContext::new(skb);
    let Some(socket) = socket(ctx) else { return NONE };
    // SAFETY: the verifier knows the socket.
    let number = unsafe { (*socket).protocol };
    let Some(Ends { address, ports, .. }) = plain::ends(ctx, number, true) else { return NONE };
    // Where something changes its destination on the way, it is judged by that as well. And so is a UDP port that may not be used.
    let there = is(ports[1].into(), PORT.to_be().into()) & is_nameserver(address);
    // And so is what is for a nameserver on this host, but leaves it, and what stays here, but not for loopback: it may be anybody's here.
    let here = stays(ctx) & !is_loopback_network(address);
    let port = is(filled(&NET_TABLE).judges_udp_ports, 0) | is(number, protocol::TCP);
    let settled = there & !leaves(ctx, address) & !here & port;
    if settled != 0 { Ledger::of(Hook::Egress).map_or(OTHER, Ledger::allow) } else { NONE }
}

/// Reads a message that begins there in a packet and has `size` bytes, or all that are left, and finds out whether a rule has the name
/// that it asks for. [`NONE`] if it passes, [`OTHER`] if it is no query, or 0, which leaves the name where it was to be read to, its
/// length in place of the process, and the reason in that of the rule.
#[inline(never)]
pub(super) fn look(skb: *mut __sk_buff, key: &mut Key<NameSubject>, start: u32, size: u32) -> i32 {
    let ctx = &SkBuffContext::new(skb);
    let table = filled(&NAME_TABLE);
    let any = table.any_query != 0;
    let (payload, rest) = Payload::at(ctx, start);
    let size = if size > rest { rest } else { size };
    let found = if start != 0 { query(&payload, size, &mut key.subject.text) } else { None };
    // Where all may be asked, it may be asked in any way, too.
    let Some(found) = found else { return if any { NONE } else { OTHER } };
    let rules = rules_of_name(key);
    // An answer of that kind may have a key by which a ClientHello's name is kept secret.
    let keeps = is(found.kind.into(), kind::HTTPS.into()) | is(found.kind.into(), kind::SVCB.into());
    let secret = table.asks_for_tls() && keeps != 0 && rules.is_some_and(|rules| !is_apart(rules, &table.tls));
    if secret || !any && rules.is_none_or(is_empty) {
        key.rule = if secret { SECRET_NAME } else { DEFAULT };
        key.subject.kind = found.kind;
        key.pid = found.length;
        return 0;
    }
    // SAFETY: the verifier knows the socket.
    let asked = socket(ctx).and_then(|socket| unsafe {
        if (*socket).protocol == protocol::UDP { asked(socket, 0) } else { held(socket, 0).map(|held| &mut held.asked) }
    });
    let Some(asked) = asked else { return OTHER };
    asked.note::<Payload>(found.id);
    NONE
}

/// The first rule that has the name for which a message asks that begins there, for the tests.
#[inline(always)]
pub fn first_rule(skb: *mut __sk_buff, start: u32) -> Option<i32> {
    let ctx = &SkBuffContext::new(skb);
    let (payload, size) = Payload::at(ctx, start);
    let mut draft = Draft::new(Hook::Egress, NameSubject::BLANK);
    let key = draft.key();
    query(&payload, size, &mut key.subject.text)?;
    let rules = rules_of_name(key)?;
    let mut words = (0_u32..4).map(|index| (index * 64, rules.word(index as usize)));
    words.find(|(_, word)| *word != 0).map(|(first, word)| (first + word.trailing_zeros()).cast_signed())
}

/// Records a denial because of the name in that key, in which its length stands in place of the process. Returns what becomes of the packet
/// by it.
#[inline(never)]
pub(super) fn deny(skb: *mut __sk_buff, key: &mut Key<NameSubject>) -> i32 {
    let ctx = &SkBuffContext::new(skb);
    let Some(socket) = socket(ctx) else { return 0 };
    Payload::repeat(ROOM as u32, &mut Clear { text: &mut key.subject.text, from: key.pid });
    // SAFETY: the verifier knows the socket.
    let number = unsafe { (*socket).protocol };
    let leaves = key.hook == Hook::Egress as u8;
    if let Some(Ends { address, ports, .. }) = plain::ends(ctx, number, leaves) {
        (key.subject.address, key.subject.port) = (address, u16::from_be(ports[usize::from(leaves)]));
    }
    let Some(ledger) = Ledger::of(if leaves { Hook::Egress } else { Hook::Ingress }) else { return 0 };
    let decision = Decision { allow: false, rule: key.rule };
    // SAFETY: as above.
    ledger.conclude(decision, &NAME_TALLIES, key, |_| unsafe { Maker::of(socket) })
}

/// Whether no rule is in a set.
#[inline(always)]
pub(super) fn is_empty(rules: &RuleSet) -> bool {
    rules.word(0) | rules.word(1) | rules.word(2) | rules.word(3) == 0
}

/// Whether no rule is in both sets.
#[inline(always)]
fn is_apart(some: &RuleSet, others: &RuleSet) -> bool {
    let both = |index| some.word(index) & others.word(index);
    both(0) | both(1) | both(2) | both(3) == 0
}

/// Whether all of a packet is in memory that nobody else has, and is sent as it is: what is read of it is what leaves. Packets that
/// are cut into several, or are put together of a program's own pages, are not.
#[inline(always)]
fn is_whole(ctx: &SkBuffContext) -> bool {
    // SAFETY: the verifier checks each access to the context.
    let segments = unsafe { (&raw const (*ctx.skb.skb).gso_size).read_volatile() };
    segments == 0 && plain::is_linear(ctx)
}

/// A packet of which the headers are not plain, or of another socket than one of TCP or UDP.
#[inline(never)]
fn unusual(skb: *mut __sk_buff) -> i32 {
    let ctx = &SkBuffContext::new(skb);
    let Some(socket) = socket(ctx) else { return 0 };
    // SAFETY: the verifier knows the socket.
    let number = unsafe { (*socket).protocol };
    let mut addresses = Addresses::default();
    let Some(packet) = parse::<Leaving, _>(&Bytes(ctx), &mut addresses) else {
        return record(socket, (Address::UNSPECIFIED6, 0), number, UNPARSED_PACKET);
    };
    let peer = (addresses.destination(), packet.destination_port);
    // SAFETY: as above.
    let (asks, waits) = unsafe {
        if number == protocol::TCP {
            (is_to_nameserver(socket), tls::is_held(socket))
        } else {
            (asked(socket, 0).is_some_and(|asked| asked.asks != 0), false)
        }
    };
    let reason = if packet.source_port == PORT && is_nameserver(addresses.source()) != 0 {
        FORGED_ANSWER
    } else if waits {
        NO_SERVER_NAME
    } else if asks && filled(&NAME_TABLE).any_query == 0 {
        NO_QUERY
    } else {
        return NONE;
    };
    record(socket, peer, number, reason)
}

/// Drops a packet whose headers are plain, and says why.
#[inline(never)]
fn refuse(skb: *mut __sk_buff, reason: u32) -> i32 {
    let ctx = &SkBuffContext::new(skb);
    let Some(socket) = socket(ctx) else { return 0 };
    // SAFETY: the verifier knows the socket.
    let number = unsafe { (*socket).protocol };
    let Some(Ends { address, ports, .. }) = plain::ends(ctx, number, true) else { return 0 };
    record(socket, (address, u16::from_be(ports[1])), number, reason as u16)
}

#[inline(always)]
fn record(socket: *mut bpf_sock, (address, port): (Address, u16), number: u32, reason: u16) -> i32 {
    let mut draft = Draft::new(Hook::Egress, subject_of(Op::SEND, address, port, number));
    let key = draft.key();
    let Some(ledger) = Ledger::of(Hook::Egress) else { return 0 };
    // SAFETY: the verifier knows the socket.
    ledger.conclude(Decision::fail_closed(reason), &NET_TALLIES, key, |_| unsafe { Maker::of(socket) })
}

/// Clears what is behind a name.
struct Clear<'a> {
    text: &'a mut Text,
    from: u32,
}

impl Step for Clear<'_> {
    #[inline(always)]
    fn step(&mut self, index: u32) -> u32 {
        let place = self.from.wrapping_add(index);
        self.text[opaque(u64::from(place)) as usize & (ROOM - 1)] = 0;
        (ROOM as u32 - 2).wrapping_sub(place) >> 31
    }
}
