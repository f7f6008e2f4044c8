//! Where a packet goes that leaves: elsewhere than its socket's peer, if it has a route of its own.

use aya_ebpf::programs::SkBuffContext;
use common::{
    Decision,
    decision::{LOOPBACK_LEAVES, UNPARSED_PACKET},
    net::Op,
    packet::{Way, way},
    record::{Hook, NetSubject},
};

use super::{Bytes, Socket, is_loopback_network, plain, stays};
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
    if plain::goes_straight(ctx) != 0 {
        return 1;
    }
    let Some(ledger) = Ledger::of(Hook::Egress) else { return 0 };
    let Some(socket) = Socket::of(ctx) else {
        return ledger.deny_unjudged();
    };
    if socket.is_tcp() | socket.is_udp() == 0 {
        // Other sockets could not be made if the policy had anything to say about them.
        return 1;
    }
    let v4 = 0_u32.wrapping_sub(plain::is_v4(ctx).into());
    let Way { destination: address, routed } = way(&Bytes(ctx), opaque(v4.into()) as u32, is);
    let leaves = if stays(ctx) { 0 } else { is_loopback_network(address) };
    if opaque(routed | u64::from(leaves)) == 0 {
        return 1;
    }
    let reason = u32::from(UNPARSED_PACKET) ^ u32::from(UNPARSED_PACKET ^ LOOPBACK_LEAVES) & leaves;
    let op = Op::SEND.or_connect(socket.is_tcp()).index() as u8;
    let subject = NetSubject { address, port: socket.peer_port(), op, padding: 0, protocol: socket.protocol };
    let mut draft = Draft::new(Hook::Egress, subject);
    let decision = Decision::fail_closed(opaque(reason.into()) as u16);
    ledger.conclude(decision, &NET_TALLIES, draft.key(), |_| socket.maker())
}
