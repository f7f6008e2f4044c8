//! Where a packet goes that leaves: elsewhere than its socket's peer, if it has a route of its own.

use aya_ebpf::programs::SkBuffContext;
use common::{
    Decision,
    decision::{LOOPBACK_LEAVES, OTHER_VERSION, UNPARSED_PACKET},
    net::Op,
    packet::{Way, way},
    record::{Hook, NetSubject},
};

use super::{Bytes, Socket, deny_unjudged, is_loopback_network, plain, stays};
use crate::{
    net::NET_TALLIES,
    record::{Draft, Ledger},
    verifier::{is, opaque},
};

/// A packet from one of the sandbox's sockets, of a policy by which nothing else is asked of it. The address hooks have judged where
/// TCP and UDP go; it is refused if it goes elsewhere, or if it is for this host and leaves it. 1 lets it through; 0 drops it, and the
/// system call fails with EPERM if it is in one.
///
/// What the packet says of its destination is not judged: it may be on its way to another address (NAT).
#[inline(always)]
pub fn leaving(ctx: &SkBuffContext) -> i32 {
    let Some(socket) = Socket::of(ctx) else {
        return deny_unjudged(Hook::Egress);
    };
    let v4 = plain::v4_mask(ctx);
    let crosses = socket.crosses(v4);
    // Sockets that are neither could not be made if the policy had anything to say about them.
    if plain::goes_straight(ctx) & !crosses != 0 || socket.is_tcp() | socket.is_udp() == 0 {
        return 1;
    }
    let Some(ledger) = Ledger::of(Hook::Egress) else { return 0 };
    let Way { destination: address, routed } = way(&Bytes(ctx), v4, is);
    let leaves = if stays(ctx) { 0 } else { is_loopback_network(address) };
    if opaque(routed | u64::from(leaves | crosses)) == 0 {
        return 1;
    }
    let mut reason = u32::from(UNPARSED_PACKET);
    reason ^= (reason ^ u32::from(LOOPBACK_LEAVES)) & leaves;
    reason ^= (reason ^ u32::from(OTHER_VERSION)) & crosses;
    let op = Op::SEND.or_connect(socket.is_tcp()).index() as u8;
    let subject = NetSubject { address, port: socket.peer_port(), op, padding: 0, protocol: socket.protocol };
    let mut draft = Draft::new(Hook::Egress, subject);
    let decision = Decision::fail_closed(opaque(reason.into()) as u16);
    ledger.conclude(decision, &NET_TALLIES, draft.key(), |_| socket.maker())
}
