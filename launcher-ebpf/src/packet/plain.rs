//! Packets as the kernel sends and receives nearly all of them: TCP or UDP right behind an IP header without options or extension
//! headers. They are read directly, which takes a third of the time of a call.

use aya_ebpf::programs::SkBuffContext;
#[cfg(feature = "names")]
use common::packet::Content as _;
use common::{net::Address, socket::protocol};

use crate::verifier::{is, opaque};

/// `ETH_P_IP` in network byte order, as the kernel keeps it (include/uapi/linux/if_ether.h).
const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
/// The length of an IPv4 header without options, in bytes.
const HEADER4: u32 = 20;
/// The first byte of such a header: version and length.
const FIRST4: u8 = 0x45;
/// The length of an IPv6 header, in bytes.
const HEADER6: u32 = 40;
/// The length of a UDP header, in bytes.
const UDP_HEADER: u32 = 8;
/// The length of a TCP header without options, in bytes.
const TCP_HEADER: u32 = 20;
/// Where a TCP header has its flags.
const FLAGS: u32 = 13;

/// TCP's flags in its header (RFC 9293, section 3.1).
pub mod flag {
    /// A connection is asked for.
    pub const SYN: u8 = 0x02;
    /// The connection is refused, or given up.
    pub const RST: u8 = 0x04;
    /// Something of the other side's is acknowledged: there is a connection, or half of one.
    pub const ACK: u8 = 0x10;
    /// A part of what is sent is urgent.
    #[cfg(feature = "names")]
    pub const URG: u8 = 0x20;
}

/// ESP (RFC 4303): the kernel puts it behind all headers in which a packet says where it goes (`xfrm6_hdr_offset`).
const ESP: u32 = 50;

/// The peer of a packet.
pub struct Ends {
    /// The length of the IP header, in bytes.
    pub header: u32,
    /// The peer's address.
    pub address: Address,
    /// The source's port and the destination's, in network byte order.
    pub ports: [u16; 2],
    /// TCP's flags; 0 for another protocol.
    pub flags: u8,
}

/// Whether a packet is one of IPv4.
#[inline(always)]
pub fn is_v4(ctx: &SkBuffContext) -> bool {
    // SAFETY: the verifier checks the access to the context.
    unsafe { (&raw const (*ctx.skb.skb).protocol).read_volatile() == ETH_P_IP }
}

/// All ones for a packet of IPv4, else 0.
#[inline(always)]
pub fn v4_mask(ctx: &SkBuffContext) -> u32 {
    // SAFETY: as above.
    is(unsafe { (&raw const (*ctx.skb.skb).protocol).read_volatile() }, ETH_P_IP)
}

/// The bounds of what can be read directly of a packet.
#[inline(always)]
fn bytes(ctx: &SkBuffContext) -> (*const u8, *const u8) {
    // SAFETY: the verifier checks each access to the context.
    unsafe {
        let data = (&raw const (*ctx.skb.skb).data).read_volatile() as usize as *const u8;
        (data, (&raw const (*ctx.skb.skb).data_end).read_volatile() as usize as *const u8)
    }
}

/// The peer of a packet of a socket with this protocol, `sent` by it or received. `None` if its headers are not plain.
#[inline(always)]
pub fn ends(ctx: &SkBuffContext, protocol: u32, sent: bool) -> Option<Ends> {
    let (data, end) = bytes(ctx);
    let is_tcp = protocol == protocol::TCP;
    let transport = if is_tcp { TCP_HEADER } else { UDP_HEADER };
    // SAFETY: the verifier checks each access to the packet by what is compared.
    unsafe {
        let ends = |address: Address, header: u32| {
            let ports = data.add(header as usize).cast::<[u16; 2]>().read_unaligned();
            let flags = if is_tcp { data.add((header + FLAGS) as usize).read() } else { 0 };
            Ends { header, address, ports, flags }
        };
        if is_v4(ctx) {
            if data.add((HEADER4 + transport) as usize) > end || data.read() != FIRST4 {
                return None;
            }
            let address = data.add(if sent { 16 } else { 12 }).cast::<u32>().read_unaligned();
            return Some(ends(Address::v4(address), HEADER4));
        }
        if data.add((HEADER6 + transport) as usize) > end || u32::from(data.add(6).read()) != protocol {
            return None;
        }
        let address = data.add(if sent { 24 } else { 8 }).cast::<[u32; 4]>().read_unaligned();
        Some(ends(Address::v6(address), HEADER6))
    }
}

/// Whether all of a packet is in one piece of memory.
#[cfg(feature = "names")]
#[inline(always)]
pub fn is_linear(ctx: &SkBuffContext) -> bool {
    let (data, end) = bytes(ctx);
    // SAFETY: the verifier checks the access to the context.
    let length = unsafe { (&raw const (*ctx.skb.skb).len).read_volatile() };
    end.addr().wrapping_sub(data.addr()) as u32 == length
}

/// The source of a packet whose headers are plain, and whose IP header has this length ([`ends`]).
#[cfg(feature = "names")]
#[inline(always)]
pub fn source(ctx: &SkBuffContext, header: u32) -> Address {
    let (data, end) = bytes(ctx);
    // SAFETY: the verifier checks each access to the packet by what is compared.
    unsafe {
        if header == HEADER4 {
            let within = data.add(HEADER4 as usize) <= end;
            return Address::v4(if within { data.add(12).cast::<u32>().read_unaligned() } else { 0 });
        }
        let within = data.add(HEADER6 as usize) <= end;
        Address::v6(if within { data.add(8).cast::<[u32; 4]>().read_unaligned() } else { [0; 4] })
    }
}

/// All ones if a packet's source is its destination, else 0, also if it is too short to be read directly. `v4`: all ones for an IPv4 packet,
/// else 0.
#[inline(always)]
pub fn is_to_itself(ctx: &SkBuffContext, v4: u32) -> u32 {
    let (data, end) = bytes(ctx);
    // SAFETY: the verifier checks each access to the packet by what is compared.
    unsafe {
        let word = |index: usize| data.add(4 * index).cast::<u32>().read_unaligned();
        if data.add(HEADER4 as usize) > end {
            return 0;
        }
        let differs4 = word(3) ^ word(4);
        if data.add(HEADER6 as usize) > end {
            return is(differs4, 0) & v4;
        }
        let differs6 = word(2) ^ word(6) | word(3) ^ word(7) | word(4) ^ word(8) | word(5) ^ word(9);
        is(differs4 & v4 | differs6 & !v4, 0)
    }
}

/// What a TCP packet carries.
#[cfg(feature = "names")]
pub struct Segment {
    /// Where that begins in the packet.
    pub start: u32,
    /// How many bytes it has.
    pub size: u32,
    /// The number of its first byte in the connection.
    pub sequence: u32,
    /// Not 0 if it says that a part of it is urgent, which the receiver may take out of it.
    pub urgent: u32,
}

/// What a TCP packet carries whose headers are plain, with an IP header of that length ([`ends`]).
#[cfg(feature = "names")]
#[inline(always)]
pub fn segment(ctx: &SkBuffContext, header: u32, flags: u8) -> Segment {
    let mut words = [0; 5];
    super::Bytes(ctx).load(header, &mut words);
    let [_, sequence, _, offset, urgent] = words.map(u32::from_be);
    let start = header.wrapping_add(offset >> 28 << 2);
    // SAFETY: the verifier checks the access to the context.
    let length = unsafe { (&raw const (*ctx.skb.skb).len).read_volatile() };
    // What asks for a connection has a number itself.
    let sequence = sequence.wrapping_add(u32::from(flags & flag::SYN) >> 1);
    Segment {
        start,
        size: length.wrapping_sub(start),
        sequence,
        urgent: urgent & 0xffff | u32::from(flags & flag::URG),
    }
}

/// The destination of a packet that leaves, and all ones if it goes there: if its headers are plain. `v4`: all ones for an IPv4
/// packet, else 0. `None` if it is too short to be read directly.
///
/// Without a branch but for the length, since the verifier would follow each kind of packet by itself.
#[inline(always)]
pub fn destination(ctx: &SkBuffContext, v4: u32) -> Option<(Address, u32)> {
    let (data, end) = bytes(ctx);
    // The destination's last word is the last one of an IPv4 header without options; of an IPv6 header, too.
    // Linux 6.1 needs the mask to know any bounds.
    let place = (opaque(u64::from((HEADER4 - 16) & v4 | (HEADER6 - 16) & !v4)) & 0x1c) as usize;
    // SAFETY: the verifier checks each access to the packet by what is compared.
    let (first, next, words) = unsafe {
        let address = data.add(place);
        if data.add(HEADER4 as usize) > end || address.add(16) > end {
            return None;
        }
        (data.read(), data.add(6).read(), address.cast::<[u32; 4]>().read_unaligned())
    };
    let next = u32::from(next);
    let plain4 = is(first.into(), FIRST4.into());
    let plain6 = is(next, protocol::TCP) | is(next, protocol::UDP) | is(next, ESP);
    Some((Address::v6(words).or_v4(words[3], v4), plain4 & v4 | plain6 & !v4))
}
