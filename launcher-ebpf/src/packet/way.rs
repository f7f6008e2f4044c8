//! Where a packet goes that leaves: elsewhere than its socket's peer, if it has a route of its own.

use aya_ebpf::programs::SkBuffContext;
use common::{
    Decision,
    decision::{LOOPBACK_LEAVES, OTHER_VERSION, STAYS_HERE, UNPARSED_PACKET},
    net::{self, Op, Request},
    packet::{Way, way},
    record::Hook,
};

use super::{Bytes, Socket, deny_unjudged, leaves, plain, returns, stays, stays_as_loopback};
use crate::{
    net::{KernelTables, NET_TABLE, NET_TALLIES, protocol_of, subject},
    record::{Draft, Ledger},
    rodata::{filled, judged},
    verifier::opaque,
};

/// A packet from one of the sandbox's sockets, of a policy by which nothing else is asked of it. The address hooks have judged where
/// TCP and UDP go; it is refused if it goes elsewhere, or if it is for this host and leaves it. 1 lets it through; 0 drops it, and the
/// system call fails with EPERM if it is in one.
///
/// What the packet says of its destination is not judged, since it may be on its way to another address (NAT), unless its socket has had
/// several peers. What stays on this host although its destination is another one's is judged as what goes to loopback.
#[inline(always)]
pub fn leaving(ctx: &SkBuffContext) -> i32 {
    let Some(socket) = Socket::of(ctx) else {
        return deny_unjudged(Hook::Egress);
    };
    // Other sockets could not be made if the policy had anything to say about them. Of TCP and UDP, see `goes_as_judged`: what it compares was
    // noted before the kernel did it, or can't change while the packet leaves.
    if !(socket.is_tcp() | socket.is_udp()) | socket.goes_as_judged(ctx) != 0 {
        return 1;
    }
    let Some(ledger) = Ledger::of(Hook::Egress) else { return 0 };
    let socket = socket.again();
    let (tcp, udp, v4) = (socket.is_tcp(), socket.is_udp(), plain::v4_mask(ctx));
    let Way { destination, routed, port } = way(&Bytes(ctx), v4);
    let (leaves, crosses) = (leaves(ctx, destination), socket.crosses(v4));
    let peers = socket.peers(ctx);
    let strays = udp & peers.may_stray(stays(ctx), destination);
    let several = udp & peers.are_several();
    let returns = (udp | socket.asks_here(v4)) & returns(ctx, destination, several | peers.are_told_another_source());
    let rerouted = returns & several;
    let refused = opaque(routed | u64::from(leaves | crosses | rerouted)) != 0;
    // It goes, as the packet itself says, where a hook has judged.
    if !refused && strays | returns == 0 {
        return 1;
    }
    let op = Op::SEND.or_connect(tcp | socket.is_peer(destination, port));
    let mut request = Request { op, protocol: protocol_of(socket.protocol), address: destination, port, own: 0 };
    let mut draft = Draft::new(Hook::Egress, subject(&request, socket.protocol));
    let key = draft.key();
    let mut reason = u32::from(UNPARSED_PACKET);
    reason ^= (reason ^ u32::from(LOOPBACK_LEAVES)) & leaves;
    reason ^= (reason ^ u32::from(OTHER_VERSION)) & crosses;
    let decision = if refused {
        Some(Decision::fail_closed(opaque(reason.into()) as u16))
    } else {
        judged(|| {
            if returns != 0 && !stays_as_loopback(key, &mut request, v4)? {
                return Some(Decision::fail_closed(STAYS_HERE));
            }
            if strays == 0 {
                return Some(Decision::NOT_CONCERNED);
            }
            net::decide(filled(&NET_TABLE), &KernelTables::of(key), &request)
        })
    };
    let Some(decision) = decision else {
        return ledger.deny_unjudged();
    };
    ledger.conclude(decision, &NET_TALLIES, key, |_| socket.maker())
}
