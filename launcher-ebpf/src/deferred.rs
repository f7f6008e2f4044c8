//! What is denied of a connect(2) by UDP is what is sent afterwards. Programs connect such sockets only to learn which of their own addresses they would
//! send from, and send nothing (getaddrinfo(3) does it for each address that it sorts): that makes neither an error nor an event.
//!
//! - The kernel gets the peer's address, by which it chooses the source, but port 0. Nothing is received there, no rule of address translation (NAT) on
//!   the peer's port is about it, and a UDP socket never has such a peer otherwise: no system call can name port 0 with a datagram.
//! - What leaves such a socket for port 0 is refused, and counted as the connect(2) that was denied. From then on, the socket counts as one with several peers,
//!   so what else leaves it is judged by its own headers ([`crate::own::Peers`]): the kernel may put together the address of one and the port of another.
//! - What comes from the peer's address is judged as if the socket were connected to nobody, since it has no port to compare.
//! - An IPv6 socket that is connected to an IPv4 address names it to the hook with each datagram (`udpv6_sendmsg`), where it is judged.
//!   The kernel refuses port 0 there without asking anybody. So it keeps the port, and is refused all if it becomes an IPv4 socket (`IPV6_ADDRFORM`).

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::generated::bpf_sk_storage_get,
    macros::map,
    programs::{SkBuffContext, SockAddrContext},
};
use common::{
    Decision,
    net::{Deferred, Op},
    packet::Content as _,
    record::{Hook, NetSubject},
    socket::{self, protocol},
};

use crate::{
    net::{NET_TABLE, NET_TALLIES, subject_of},
    own::{self, Maker, SocketStorage},
    packet::{
        Bytes,
        plain::{self, Ends},
    },
    record::{Draft, Ledger},
    rodata::{audit, filled},
    verifier::is,
};

/// The last such connect(2) of each socket that has had one.
#[map]
static DEFERRED: SocketStorage = SocketStorage::of::<Deferred>(0);

/// Whether any connect(2) by UDP can be denied.
#[inline(always)]
pub fn matters() -> bool {
    filled(&NET_TABLE).defers != 0
}

/// # Safety
///
/// The verifier must know the socket.
#[inline(always)]
unsafe fn storage(socket: *mut bpf_sock, flags: u32) -> Option<&'static mut Deferred> {
    // SAFETY: a map's static is its address for the kernel; the value lives as long as its socket, and zeros, of which the kernel makes
    // it, are a valid one. Only hooks for which the socket is locked write to it; what another thread sends meanwhile may be put down to
    // another peer.
    unsafe {
        bpf_sk_storage_get(DEFERRED.0.get().cast(), socket.cast(), ptr::null_mut(), u64::from(flags))
            .cast::<Deferred>()
            .as_mut()
    }
}

/// Lets a connect(2) by UDP through that is denied, by this rule, and keeps that with the socket. `false` if that can't be done: then it has to be refused.
#[inline(always)]
pub fn defer(ctx: &SockAddrContext, socket: *const bpf_sock, subject: &NetSubject, rule: u16) -> bool {
    let socket = socket.cast_mut();
    // SAFETY: the verifier knows the socket, which the kernel has locked, and checks each access to the context.
    unsafe {
        if !own::note_several_peers(socket.cast()) {
            return false;
        }
        let crossed = is((*socket).family, socket::INET6) & subject.address.v4_mask(is);
        let Some(deferred) = storage(socket, BPF_SK_STORAGE_GET_F_CREATE) else { return false };
        (deferred.peer, deferred.port, deferred.rule) = (subject.address, subject.port, rule);
        deferred.crossed |= crossed & 1;
        deferred.current = 1;
        // Where denials are only recorded, what is sent has to arrive.
        if audit() == 0 {
            let port = u32::from(subject.port.to_be()) & crossed;
            (&raw mut (*ctx.sock_addr).user_port).write_volatile(port);
        }
    }
    true
}

/// Notes that a UDP socket is connected to a peer, or sends a datagram to one, where the policy allows it.
#[inline(always)]
pub fn settle(socket: *const bpf_sock) {
    // SAFETY: the verifier knows the socket, which the kernel has locked.
    if let Some(deferred) = unsafe { storage(socket.cast_mut(), 0) } {
        deferred.current = 0;
    }
}

/// What is to be done with a packet of a UDP socket.
#[derive(Clone, Copy)]
pub enum Packet {
    /// Nothing on account of a connect(2).
    OfNoConcern,
    /// The socket has had such a connect(2), so where the packet goes is judged by its own headers.
    Suspect,
    /// It is what was denied, and counted. The verdict is this one.
    Denied(i32),
}

/// A packet of a UDP socket.
///
/// # Safety
///
/// The verifier must know the socket.
#[inline(always)]
pub unsafe fn judge(ctx: &SkBuffContext, socket: *mut bpf_sock) -> Packet {
    // SAFETY: the caller's promise.
    let (deferred, family, port) = unsafe { (storage(socket, 0), (*socket).family, (*socket).dst_port) };
    let Some(deferred) = deferred else { return Packet::OfNoConcern };
    let mut word = [0];
    let v4 = plain::is_v4(ctx);
    if audit() != 0 && v4 && family == socket::INET6 {
        // It was counted where it was sent.
        return Packet::Denied(1);
    }
    // The byte that tells the protocol. IPsec has sealed the ports already, if it has.
    let missing = Bytes(ctx).load(if v4 { 8 } else { 4 }, &mut word);
    let next = u32::from_be(word[0]) >> if v4 { 16 } else { 8 } & 0xff;
    let to = match plain::ends(ctx, protocol::UDP, true) {
        Some(Ends { ports: [_, to], .. }) if missing == 0 && next == protocol::UDP => to,
        _ => 0,
    };
    // The kernel may have refused the connect(2) for reasons of its own, and then the socket is connected as before.
    let connected = is(port.into(), if audit() == 0 { 0 } else { deferred.port.to_be().into() });
    let crossed = is(deferred.crossed, 1) & is(family, socket::INET);
    if !is(deferred.current, 0) & connected | is(to.into(), 0) | crossed == 0 {
        return Packet::Suspect;
    }
    let mut draft = Draft::new(Hook::Egress, subject_of(Op::CONNECT, deferred.peer, deferred.port, protocol::UDP));
    let key = draft.key();
    let Some(ledger) = Ledger::of(Hook::Egress) else { return Packet::Denied(0) };
    let decision = Decision::fail_closed(deferred.rule);
    // SAFETY: as above.
    Packet::Denied(ledger.conclude(decision, &NET_TALLIES, key, |_| unsafe { Maker::of(socket) }))
}
