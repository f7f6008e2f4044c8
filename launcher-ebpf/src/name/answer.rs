//! What nameservers answer.
//!
//! The parts of this module are functions of their own for the kernel, too: so their memory lies in the same place, of which there is little.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_tcp_sock, programs::SkBuffContext};
use common::{
    RuleSet,
    decision::{NEAR_ANSWER, NO_ROOM_TO_LEARN},
    name::{
        Content as _, PORT, ROOM, Text,
        address::{Nearness, nearness},
        message::{Answer, Learner, addresses, answer},
    },
    net::Address,
    record::{Hook, Key, NameSubject},
    socket::protocol,
};

use super::{
    NAME_LEARNED, NAME_TABLE, NameKey, asked, bytes::Payload, held, is_nameserver, is_to_nameserver, peer, query,
    rules_of, socket,
};
use crate::{
    packet::plain::{self, Ends, Segment, flag},
    record::{Draft, Ledger, insert, lookup, or},
    rodata::filled,
    verifier::{is, opaque_pointer},
};

/// What there is to be learnt.
struct Lesson {
    /// The rules that have the name.
    rules: Option<&'static RuleSet>,
    /// Where the message begins in the packet.
    start: u32,
    answer: Answer,
}

/// A packet for one of the sandbox's sockets. `None` if it is to be judged like any other; else it comes from a nameserver that was
/// asked, or is connected to, and is let through, whatever it says: what isn't learnt can't be connected to.
#[inline(always)]
pub fn read(ctx: &SkBuffContext) -> Option<i32> {
    let skb = ctx.skb.skb;
    // A nameserver answers to one host. IPv4 hands this host a copy of what the sandbox sends to several, from addresses of this host, and
    // no egress program has seen it.
    // SAFETY: the verifier checks the access to the context.
    if unsafe { (*skb).pkt_type } != PACKET_HOST {
        return None;
    }
    let protocol = asked_by(skb);
    if protocol == protocol::TCP {
        by_tcp(skb);
    } else if protocol == protocol::UDP {
        let start = by_udp(skb);
        let missed = learn(skb, start, u32::MAX);
        if missed != 0 {
            tell(skb, start, u32::MAX, missed);
        }
    } else {
        return None;
    }
    Some(Ledger::of(Hook::Ingress).map_or(0, Ledger::allow))
}

/// What is for this host alone (include/uapi/linux/if_packet.h).
const PACKET_HOST: u32 = 0;

/// The protocol by which a packet's sender was asked for names; 0 if it wasn't.
#[inline(never)]
fn asked_by(skb: *mut __sk_buff) -> u32 {
    let ctx = &SkBuffContext::new(skb);
    let Some(socket) = socket(ctx) else { return 0 };
    // SAFETY: the verifier knows the socket.
    let number = unsafe { (*socket).protocol };
    if number != protocol::UDP && number != protocol::TCP {
        return 0;
    }
    let Some(Ends { address, ports: [from, _], flags, .. }) = plain::ends(ctx, number, false) else { return 0 };
    if u16::from_be(from) != PORT || is_nameserver(address) == 0 {
        return 0;
    }
    // SAFETY: as above.
    let asks = unsafe {
        if number == protocol::TCP {
            // What asks for a connection belongs to none.
            flags & (flag::SYN | flag::ACK) != flag::SYN
                && is_to_nameserver(socket)
                && peer(socket).difference(address) == 0
        } else {
            // A hook has let it ask before it could, and it may from then on, whatever another thread does with it.
            asked(socket, 0).is_some_and(|asked| asked.asks != 0)
        }
    };
    if asks { number } else { 0 }
}

/// Where the message of a UDP packet begins; 0 if it has none.
#[inline(never)]
fn by_udp(skb: *mut __sk_buff) -> u32 {
    let ctx = &SkBuffContext::new(skb);
    plain::ends(ctx, protocol::UDP, false).map_or(0, |Ends { header, .. }| Payload::of(ctx, header).0.start())
}

/// How many messages of a TCP packet are read.
const MESSAGES: u32 = 4;

/// Reads the messages in a TCP packet, of which each follows its length. One that ends in another packet is learnt as far as it is there.
///
/// What a packet begins with is only taken for a message if the one before ended there, counted from the beginning of the connection:
/// where packets end, the command has a say in, and by that an answer's middle could pass for another answer.
#[inline(always)]
fn by_tcp(skb: *mut __sk_buff) {
    let ctx = &SkBuffContext::new(skb);
    let Some(Ends { header, flags, .. }) = plain::ends(ctx, protocol::TCP, false) else { return };
    let Segment { start, sequence, .. } = plain::segment(ctx, header, flags);
    let Some(socket) = socket(ctx) else { return };
    // SAFETY: the verifier knows the socket, and of what the helper returns that it may be null.
    let (held, tcp) = unsafe { (held(socket, 0), bpf_tcp_sock(socket).as_ref()) };
    let (Some(held), Some(tcp)) = (held, tcp) else { return };
    if held.answered == 0 {
        // Before the connection is there, the kernel doesn't know either.
        if flags & flag::SYN != 0 || tcp.bytes_received != 0 {
            return;
        }
        (held.answered, held.next) = (1, tcp.rcv_nxt);
    }
    if sequence != held.next {
        return;
    }
    let (payload, _) = Payload::at(ctx, start);
    let mut place = 0;
    for _ in 0..MESSAGES {
        let mut word = [0];
        if payload.load(place, &mut word) != 0 {
            return;
        }
        let length = u32::from_be(word[0]) >> 16;
        held.next = held.next.wrapping_add(2 + length);
        let message = start.wrapping_add(place + 2);
        let missed = learn(skb, message, length);
        if missed != 0 {
            tell(skb, message, length, missed);
        }
        place = place.wrapping_add(2 + length);
    }
}

/// Learns what there is to learn of a message that begins there in a packet and has `size` bytes, or all that are left. Gives why something was
/// not learnt, or 0. Who calls this tells of it: there is no room on the stack for that from here (Linux 6.1 rounds each function's up to 32 bytes).
#[inline(never)]
fn learn(skb: *mut __sk_buff, start: u32, size: u32) -> u32 {
    let mut lesson = Lesson { rules: None, start: 0, answer: Answer::NONE };
    // What another function writes, the compiler must not keep to itself.
    let lesson = opaque_pointer(&raw mut lesson);
    // SAFETY: it is the same pointer.
    unsafe { if question(skb, start, size, &mut *lesson) != 0 { records(skb, size, &*lesson) } else { 0 } }
}

/// Reads which name a message is about. 1 if there is something to be learnt, else 0.
#[inline(never)]
fn question(skb: *mut __sk_buff, start: u32, size: u32, lesson: &mut Lesson) -> u32 {
    let ctx = &SkBuffContext::new(skb);
    if start == 0 {
        return 0;
    }
    let (payload, rest) = Payload::at(ctx, start);
    let size = if size > rest { rest } else { size };
    lesson.start = start;
    let mut key = NameKey { bits: filled(&NAME_TABLE).bits, text: [0; ROOM] };
    let text: *mut Text = opaque_pointer(&raw mut key.text);
    // SAFETY: it is the same pointer; the verifier knows the socket.
    unsafe {
        let Some(found) = answer(&payload, size, &mut *text) else { return 0 };
        let Some(socket) = socket(ctx) else { return 0 };
        let asked = if (*socket).protocol == protocol::UDP {
            asked(socket, 0)
        } else {
            held(socket, 0).map(|held| &mut held.asked)
        };
        let Some(asked) = asked else { return 0 };
        if asked.waits::<Payload>(found.id) == 0 {
            return 0;
        }
        lesson.rules = rules_of((&raw const key).cast()).filter(|rules| !query::is_empty(rules));
        lesson.answer = found;
    }
    u32::from(lesson.rules.is_some())
}

/// Says that something of an answer was not learnt, and why: [`Learning::missed`]. It is let through all the same.
#[inline(never)]
fn tell(skb: *mut __sk_buff, start: u32, size: u32, missed: u32) {
    let mut draft = Draft::new(Hook::Ingress, NameSubject::BLANK);
    // What another function writes, the compiler must not keep to itself.
    let key = draft.key();
    key.rule = missed as u16;
    if name(skb, start, size, key) != 0 {
        query::deny(skb, key);
    }
}

/// Reads the name that an answer is about, as [`query::deny`] wants it. 0 if it can't be read.
#[inline(never)]
fn name(skb: *mut __sk_buff, start: u32, size: u32, key: &mut Key<NameSubject>) -> u32 {
    let ctx = &SkBuffContext::new(skb);
    let (payload, rest) = Payload::at(ctx, start);
    let size = if size > rest { rest } else { size };
    let Some(found) = answer(&payload, size, &mut key.subject.text) else { return 0 };
    (key.subject.kind, key.pid) = (found.kind, found.length);
    1
}

/// Reads the records of a message, and learns the addresses in them. Gives why some were not, or 0.
#[inline(never)]
fn records(skb: *mut __sk_buff, size: u32, lesson: &Lesson) -> u32 {
    let ctx = &SkBuffContext::new(skb);
    let Some(rules) = lesson.rules else { return 0 };
    let (payload, rest) = Payload::at(ctx, lesson.start);
    let size = if size > rest { rest } else { size };
    let mut learning = Learning { rules, missed: 0 };
    addresses(&payload, &lesson.answer, size, &mut learning);
    learning.missed
}

/// Learning addresses of a name.
struct Learning<'a> {
    rules: &'a RuleSet,
    /// Why one was not learnt, [`NEAR_ANSWER`] or [`NO_ROOM_TO_LEARN`]; 0 if all were.
    missed: u32,
}

impl Learner for Learning<'_> {
    #[inline(always)]
    fn learn(&mut self, address: Address) {
        let Nearness { never, private } = nearness(address, is);
        let wide = |mask: u32| u64::from(mask) << 32 | u64::from(mask);
        let (never, private) = (wide(never), wide(private));
        let table = filled(&NAME_TABLE);
        let (mut rules, mut some) = ([0; 4], 0);
        for (index, rules) in rules.iter_mut().enumerate() {
            *rules = self.rules.word(index) & !never & (table.private.word(index) | !private);
            some |= *rules & table.rules.word(index);
        }
        if some == 0 {
            self.missed = NEAR_ANSWER.into();
        }
        // An address that no rule has is noted with its name all the same, for people.
        if rules[0] | rules[1] | rules[2] | rules[3] == 0 {
            return;
        }
        let mut known = lookup(&NAME_LEARNED, &address);
        if known.is_null() {
            // If another CPU is faster, this fails, and it is there, too. If there is no room, it can't be connected to.
            insert(&NAME_LEARNED, &address, &rules);
            known = lookup(&NAME_LEARNED, &address);
        }
        if known.is_null() {
            self.missed = NO_ROOM_TO_LEARN.into();
            return;
        }
        // SAFETY: nothing is deleted from the map while a program may run; bits are only ever added, each word at once.
        let known = unsafe { &*known };
        for (known, rules) in known.iter().zip(rules) {
            or(known, rules);
        }
    }
}
