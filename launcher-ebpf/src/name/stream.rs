//! Queries by TCP: each message follows its length, in two bytes (RFC 7766, section 8).
//!
//! A packet must have whole messages, of which each passes. So does all of the stream, however the kernel cuts it: nothing leaves before what
//! comes before it. What is dropped counts as not sent, so that the kernel tries again, with what the program has added meanwhile.

use aya_ebpf::{bindings::__sk_buff, programs::SkBuffContext};
use common::{
    name::{Content as _, Held, state},
    record::Hook,
    socket::protocol,
};

use super::{
    NAME_TABLE,
    bytes::Payload,
    held,
    query::{NONE, OTHER, deny, look, settle},
    socket,
    tls::may_change,
};
use crate::{
    packet::plain::{self, Ends, Segment},
    rodata::filled,
};

/// What [`messages`] returns besides: that the last one is not all there.
const SHORT: i32 = 4;

/// How many messages a packet may have: resolvers ask for both kinds of addresses at once.
const MESSAGES: u32 = 2;

/// A packet of a TCP socket that is connected to a nameserver. As [`super::query::judge`] has it.
#[inline(never)]
pub fn judge(skb: *mut __sk_buff) -> i32 {
    let ctx = &SkBuffContext::new(skb);
    // SAFETY: the verifier knows the socket, which the kernel has locked.
    let Some(held) = socket(ctx).and_then(|socket| unsafe { held(socket, 0) }) else { return OTHER };
    let Some(Ends { header, flags, .. }) = plain::ends(ctx, protocol::TCP, true) else { return OTHER };
    let Segment { start, size, urgent, .. } = plain::segment(ctx, header, flags);
    if size == 0 {
        return settle(skb);
    }
    if held.state == state::REFUSED {
        // The kernel tries again. It is said once.
        return 0;
    }
    let any = filled(&NAME_TABLE).any_query != 0;
    let mut verdict = if urgent != 0 || may_change(skb) { OTHER } else { messages(skb, held, start, size) };
    if verdict == SHORT {
        // The rest may come, unless this is what there was before.
        if size > held.seen {
            held.seen = size;
            return 0;
        }
        verdict = OTHER;
    }
    held.seen = 0;
    if verdict == 0 {
        verdict = deny(skb, &mut held.key);
        // It goes on only where denials are only recorded.
        verdict = if verdict == 0 { 0 } else { NONE };
    }
    if verdict == NONE || verdict == OTHER && any {
        return settle(skb);
    }
    held.state = state::REFUSED;
    verdict
}

/// Judges the messages in a packet.
#[inline(never)]
fn messages(skb: *mut __sk_buff, held: &mut Held, start: u32, size: u32) -> i32 {
    let ctx = &SkBuffContext::new(skb);
    held.key.hook = Hook::Egress as u8;
    let (payload, _) = Payload::at(ctx, start);
    let mut place = 0;
    for _ in 0..MESSAGES {
        // No message is shorter than its header.
        let mut word = [0];
        if payload.load(place, &mut word) != 0 {
            return SHORT;
        }
        let length = u32::from_be(word[0]) >> 16;
        let next = place.wrapping_add(2 + length);
        if next > size {
            return SHORT;
        }
        let verdict = look(skb, &mut held.key, start.wrapping_add(place + 2), length);
        if verdict != NONE || next == size {
            return verdict;
        }
        place = next;
    }
    OTHER
}
