//! UDP datagrams: from the packets that a socket sends and receives.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_sk_fullsock, bpf_skb_load_bytes},
    programs::SkBuffContext,
};
use common::{
    flow::{INCOMING, Key, OUTGOING, UDP},
    net::Address,
};

use super::{find, find_or_begin, lose, now, touch, wanted};
use crate::{
    own,
    packet::plain::{self, Ends},
    record::add,
};

/// The length of an IPv6 header.
const IPV6_HEADER: u32 = 40;
/// The length of a UDP header.
const UDP_HEADER: u32 = 8;
/// More extension headers than any packet has.
const EXTENSIONS: usize = 8;

/// A packet is about to be sent.
#[inline(always)]
pub fn sent(ctx: &SkBuffContext) {
    count(ctx, true);
}

/// A packet has come for a socket.
#[inline(always)]
pub fn received(ctx: &SkBuffContext) {
    count(ctx, false);
}

#[inline(always)]
fn count(ctx: &SkBuffContext, sent: bool) {
    if !wanted() {
        return;
    }
    let skb = ctx.skb.skb;
    // SAFETY: the verifier checks each access to the context, and to the socket. Volatile, since the context allows no
    // access wider than a field.
    let (sk, segments, length) = unsafe {
        let sk = (&raw const (*skb).__bindgen_anon_2.sk).read_volatile();
        if sk.is_null() {
            return;
        }
        let sk = bpf_sk_fullsock(sk);
        if sk.is_null() || (&raw const (*sk).protocol).read_volatile() != u32::from(UDP) {
            return;
        }
        ((sk), (&raw const (*skb).gso_segs).read_volatile(), (&raw const (*skb).len).read_volatile())
    };
    // A packet that is still to be cut, or was put together, is as many datagrams, with one header.
    let datagrams = u64::from(if segments == 0 { 1 } else { segments });
    // SAFETY: it is the context's own socket.
    let known = unsafe { own::known(sk.cast()) };
    let (Some(socket), Some((headers, address, port, own_port))) = (known, endpoints(ctx, sent)) else {
        return lose(datagrams);
    };
    // SAFETY: the kernel keeps the value as long as the socket; the owner was written before the first packet.
    let owner = unsafe { (*socket).owner };
    let outgoing = Key { address, pid: owner.pid, port, direction: OUTGOING, protocol: UDP };
    let incoming = Key { port: own_port, direction: INCOMING, ..outgoing };
    // The side that spoke first began the flow, and the other one answers.
    let now = now();
    let tally = match find(&outgoing) {
        Some(tally) => Some(tally),
        None if sent => match find(&incoming) {
            Some(tally) => Some(tally),
            None => find_or_begin(&outgoing, owner, now),
        },
        None => find_or_begin(&incoming, owner, now),
    };
    let Some(tally) = tally else {
        return lose(datagrams);
    };
    let bytes = u64::from(length.saturating_sub(headers));
    add(if sent { &tally.begun } else { &tally.ended }, datagrams);
    add(if sent { &tally.bytes_sent } else { &tally.bytes_received }, bytes);
    touch(tally, now);
}

/// The length of a packet's headers, the peer's address and port, and the own port.
type Endpoints = (u32, Address, u16, u16);

/// Reads a packet's headers. `None` where they aren't what the kernel itself has made or checked.
#[inline(always)]
fn endpoints(ctx: &SkBuffContext, sent: bool) -> Option<Endpoints> {
    if let Some(Ends { header, address, ports, .. }) = plain::ends(ctx, u32::from(UDP), sent) {
        return Some(with_ports(header, address, ports, sent));
    }
    let skb = ctx.skb.skb;
    let (start, address) = if plain::is_v4(ctx) {
        let version_and_length: u8 = load(skb, 0)?;
        let address: u32 = load(skb, if sent { 16 } else { 12 })?;
        (u32::from(version_and_length & 0xf) * 4, Address::v4(address))
    } else {
        let address: [u32; 4] = load(skb, if sent { 24 } else { 8 })?;
        (after_extensions(skb)?, Address::v6(address))
    };
    Some(with_ports(start, address, load(skb, start)?, sent))
}

/// Sorts the ports of a UDP header at `start` by whose they are.
#[inline(always)]
fn with_ports(start: u32, address: Address, [source, destination]: [u16; 2], sent: bool) -> Endpoints {
    let (peer, own) = if sent { (destination, source) } else { (source, destination) };
    (start + UDP_HEADER, address, u16::from_be(peer), u16::from_be(own))
}

/// Where the UDP header of an IPv6 packet is.
#[inline(always)]
fn after_extensions(skb: *const __sk_buff) -> Option<u32> {
    let mut next: u8 = load(skb, 6)?;
    let mut start = IPV6_HEADER;
    for _ in 0..EXTENSIONS {
        if next == UDP {
            return Some(start);
        }
        // Next header, and the length in 8 octets without the first 8 (RFC 8200). The authentication header, which counts
        // otherwise, has been taken off or is not there yet.
        let [following, length]: [u8; 2] = load(skb, start)?;
        next = following;
        start += (u32::from(length) + 1) * 8;
    }
    None
}

/// Part of a packet, from its network header on.
#[inline(always)]
fn load<T: Copy + Default>(skb: *const __sk_buff, offset: u32) -> Option<T> {
    let mut value = T::default();
    // SAFETY: the buffer is as long as is said, and any bytes make one of the integers that this is called for.
    let failed =
        unsafe { bpf_skb_load_bytes(skb.cast::<c_void>(), offset, (&raw mut value).cast(), size_of::<T>() as u32) };
    (failed == 0).then_some(value)
}
