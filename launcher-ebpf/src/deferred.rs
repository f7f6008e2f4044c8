//! What is denied of a connect(2) by UDP is what is sent afterwards. Programs connect such sockets only to learn from which of their own addresses they would
//! send, and send nothing (getaddrinfo(3) does it for each address that it sorts): that makes neither an error nor an event.
//!
//! - The kernel gets the peer's address, by which it chooses the source, but port 0: nothing is received there, and no rule of address translation (NAT)
//!   on the peer's port is about it.
//! - From then on, all that leaves the socket is refused, and counted as the connect(2) that was denied. Nothing is asked of where it goes: a datagram that
//!   waits for more (`MSG_MORE`) keeps the route to this peer, and gets the address of the next one.
//! - An IPv6 socket that is connected to an IPv4 address keeps the port, since the kernel refuses to send to port 0 there without asking anybody. It names
//!   the peer to a hook with each datagram (`udpv6_sendmsg`), where that is judged. But the copies that IPv4 hands to this host's own sockets, of what
//!   is sent to several, are shown to no program: a socket that may have such copies is not connected so, nor the other way round
//!   ([`crate::own::note_peer`]).
//!
//! Where denials are only recorded, the kernel gets the port as well, and what is sent to that peer is recorded.

use aya_ebpf::{bindings::bpf_sock, programs::SockAddrContext};
use common::{
    net::{self, Deferred},
    record::NetSubject,
    socket,
};

use crate::{
    net::NET_TABLE,
    own,
    rodata::{audit, filled},
    verifier::is,
};

/// Whether any connect(2) by UDP can be denied.
#[inline(always)]
pub fn matters() -> bool {
    filled(&NET_TABLE).defers != 0
}

/// Lets a connect(2) by UDP through that is denied, by this rule, and keeps that with the socket. `false` if it can't be: then it has to be refused.
#[inline(always)]
pub fn defer(ctx: &SockAddrContext, socket: *const bpf_sock, subject: &NetSubject, rule: u16) -> bool {
    let socket = socket.cast_mut();
    // SAFETY: the verifier knows the socket, which the kernel has locked, and checks each access to the context.
    unsafe {
        let Some(known) = own::known(socket.cast()).map(|known| &mut *known) else { return false };
        let crosses = is((*socket).family, socket::INET6) & subject.address.v4_mask(is);
        if crosses & known.copied | net::is_for_several(subject.address, is) != 0 {
            return false;
        }
        let crossed = known.deferred.crosses | (crosses & 1) as u16;
        known.deferred = Deferred { peer: subject.address, port: subject.port, rule, exists: 1, crosses: crossed };
        if audit() == 0 {
            // Volatile: it is the kernel who reads it.
            (&raw mut (*ctx.sock_addr).user_port).write_volatile(u32::from(subject.port.to_be()) & crosses);
        }
    }
    true
}
