//! What nameservers answer.
//!
//! Its parts are functions of their own for the kernel, too: so their memory lies in the same place, of which there is little.

use aya_ebpf::{bindings::__sk_buff, programs::SkBuffContext};
use common::{
    RuleSet,
    name::{
        PORT, ROOM, Text,
        address::{Nearness, nearness},
        message::{Answer, Learner, addresses, answer},
    },
    net::Address,
    record::Hook,
    socket::protocol,
};

use super::{NAME_LEARNED, NAME_TABLE, NameKey, asked, bytes::Payload, is_nameserver, rules_of, socket};
use crate::{
    packet::plain::{self, Ends},
    record::{Ledger, insert, lookup, or},
    rodata::filled,
    verifier::{is, opaque_pointer},
};

/// What there is to be learnt.
struct Lesson {
    /// The rules that have the name.
    rules: [u64; 4],
    answer: Answer,
}

/// A packet for one of the sandbox's sockets. `None` if it is of no concern to names; else it comes from a nameserver that was asked, and is
/// let through, whatever it says: what isn't learnt can't be connected to.
#[inline(always)]
pub fn read(ctx: &SkBuffContext) -> Option<i32> {
    let skb = ctx.skb.skb;
    let socket = socket(ctx)?;
    // SAFETY: the verifier knows the socket.
    if unsafe { (*socket).protocol } != protocol::UDP {
        return None;
    }
    let Ends { address, ports: [from, _], .. } = plain::ends(ctx, protocol::UDP, false)?;
    if u16::from_be(from) != PORT || is_nameserver(address) == 0 {
        return None;
    }
    // SAFETY: as above.
    unsafe { asked(socket) }.filter(|asked| asked.asks != 0)?;
    let mut lesson = Lesson { rules: [0; 4], answer: Answer::NONE };
    // What another function writes, the compiler must not keep to itself.
    let lesson = opaque_pointer(&raw mut lesson);
    // SAFETY: it is the same pointer.
    unsafe {
        if question(skb, &mut *lesson) != 0 {
            records(skb, &*lesson);
        }
    }
    Some(Ledger::of(Hook::Ingress).map_or(0, Ledger::allow))
}

/// Reads which name a packet is about. 1 if there is something to be learnt, else 0.
#[inline(never)]
fn question(skb: *mut __sk_buff, lesson: &mut Lesson) -> u32 {
    let ctx = &SkBuffContext::new(skb);
    let Some(socket) = socket(ctx) else { return 0 };
    let Some(Ends { header, .. }) = plain::ends(ctx, protocol::UDP, false) else { return 0 };
    let (payload, size) = Payload::of(ctx, header);
    let mut key = NameKey { bits: filled(&NAME_TABLE).bits, text: [0; ROOM] };
    let text: *mut Text = opaque_pointer(&raw mut key.text);
    // SAFETY: it is the same pointer; the verifier knows the socket.
    unsafe {
        let Some(found) = answer(&payload, size, &mut *text) else { return 0 };
        let Some(asked) = asked(socket) else { return 0 };
        if asked.waits::<Payload>(found.id) == 0 {
            return 0;
        }
        let Some(rules) = rules_of((&raw const key).cast()) else { return 0 };
        for (index, word) in lesson.rules.iter_mut().enumerate() {
            *word = rules.word(index);
        }
        lesson.answer = found;
    }
    1
}

/// Reads the records of a packet, and learns the addresses in them.
#[inline(never)]
fn records(skb: *mut __sk_buff, lesson: &Lesson) {
    let ctx = &SkBuffContext::new(skb);
    let Some(Ends { header, .. }) = plain::ends(ctx, protocol::UDP, false) else { return };
    let (payload, size) = Payload::of(ctx, header);
    addresses(&payload, &lesson.answer, size, &mut Learning { rules: &lesson.rules });
}

/// Learning addresses of a name.
struct Learning<'a> {
    rules: &'a [u64; 4],
}

impl Learner for Learning<'_> {
    #[inline(always)]
    fn learn(&mut self, address: Address) {
        let Nearness { never, private } = nearness(address, is);
        let wide = |mask: u32| u64::from(mask) << 32 | u64::from(mask);
        let (never, private) = (wide(never), wide(private));
        let may: &RuleSet = &filled(&NAME_TABLE).private;
        let mut rules = *self.rules;
        for (index, rules) in rules.iter_mut().enumerate() {
            *rules &= !never & (may.word(index) | !private);
        }
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
            return;
        }
        // SAFETY: nothing is deleted from the map while a program may run; bits are only ever added, each word at once.
        let known = unsafe { &*known };
        for (known, rules) in known.iter().zip(rules) {
            or(known, rules);
        }
    }
}
