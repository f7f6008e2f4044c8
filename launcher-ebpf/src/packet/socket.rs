//! What a packet's socket says of it: whom it is connected to, and whether the packet goes where a hook has judged.

use aya_ebpf::{bindings::bpf_sock, helpers::generated::bpf_sk_fullsock, programs::SkBuffContext};
use common::{
    net::Address,
    socket::{self, kind, protocol},
};

use super::{is_loopback_network, leaves, plain, stays};
use crate::{
    net::words,
    own::{self, Maker, Peers},
    verifier::{is, opaque_pointer},
};

/// `TCP_SYN_SENT` (include/net/tcp_states.h)
pub const SYN_SENT: u32 = 2;

/// What tells MPTCP's number from TCP's.
const MPTCP_BIT: u32 = 0x100;

/// The packet's socket, as far as packets are judged by it.
pub struct Socket {
    pub pointer: *mut bpf_sock,
    family: u32,
    /// Type and protocol in one number, as [`kind_of`] has it.
    kind: u32,
    pub protocol: u32,
    state: u32,
}

/// A type and a protocol in one number.
const fn kind_of(kind: u32, protocol: u32) -> u32 {
    kind << 16 | protocol
}

impl Socket {
    #[inline(always)]
    pub fn of(ctx: &SkBuffContext) -> Option<Self> {
        // SAFETY: the verifier checks each access to the context and to what it finds there.
        unsafe {
            let socket = (*ctx.skb.skb).__bindgen_anon_2.sk;
            if socket.is_null() {
                return None;
            }
            let pointer = bpf_sk_fullsock(socket);
            if pointer.is_null() { None } else { Some(Self::read(pointer)) }
        }
    }

    /// # Safety
    ///
    /// The verifier must know the socket.
    #[inline(always)]
    unsafe fn read(pointer: *mut bpf_sock) -> Self {
        // SAFETY: the caller's promise.
        let (family, protocol, state, kind) =
            unsafe { ((*pointer).family, (*pointer).protocol, (*pointer).state, (*pointer).type_) };
        Self { pointer, family, kind: kind_of(kind, protocol), protocol, state }
    }

    /// The socket with all of its fields read anew. Where ways meet that have looked at different parts of it, the verifier goes on
    /// once for all of them then: nothing that one of them knows is used any more.
    #[inline(always)]
    pub fn again(&self) -> Self {
        // SAFETY: it is the same pointer, which the verifier knows from `of`.
        unsafe { Self::read(opaque_pointer(self.pointer)) }
    }

    /// All ones if it is a TCP socket, whose connections the address hooks judge; else 0.
    #[inline(always)]
    pub fn is_tcp(&self) -> u32 {
        // The number of MPTCP is that of TCP with another bit.
        const { assert!(protocol::MPTCP == protocol::TCP | MPTCP_BIT) };
        is(self.kind & !MPTCP_BIT, kind_of(kind::STREAM, protocol::TCP))
    }

    /// All ones if it is a UDP socket, whose datagrams the address hooks judge; else 0.
    #[inline(always)]
    pub fn is_udp(&self) -> u32 {
        is(self.kind, kind_of(kind::DGRAM, protocol::UDP))
    }

    /// All ones if it is in that state, else 0.
    #[inline(always)]
    pub fn is_in(&self, state: u32) -> u32 {
        is(self.state, state)
    }

    /// All ones if a packet asks for a connection by TCP that a server of this host may take for another one's, else 0 (`v4`: all ones for an IPv4 packet, else 0).
    /// The kernel holds a TCP socket's lock while it sends. By IPv6, the loopback device leads to no other host's address.
    #[inline(always)]
    pub fn asks_here(&self, v4: u32) -> u32 {
        self.is_tcp() & self.is_in(SYN_SENT) & v4
    }

    /// The address that the socket is connected or connecting to.
    #[inline(always)]
    pub fn peer(&self) -> Address {
        // SAFETY: as above.
        unsafe {
            let v6 = Address::v6(words(&raw const (*self.pointer).dst_ip6));
            v6.or_v4((*self.pointer).dst_ip4, is(self.family, socket::INET))
        }
    }

    /// The port that the socket is connected or connecting to, in host byte order; 0 if it is to none.
    #[inline(always)]
    pub fn peer_port(&self) -> u16 {
        // SAFETY: as above. The kernel keeps it in network byte order (include/uapi/linux/bpf.h).
        u16::from_be(unsafe { (*self.pointer).dst_port })
    }

    /// The address that the socket is bound to, or unspecified.
    #[inline(always)]
    pub fn bound(&self) -> Address {
        // SAFETY: as above.
        unsafe {
            let v6 = Address::v6(words(&raw const (*self.pointer).src_ip6));
            v6.or_v4((*self.pointer).src_ip4, is(self.family, socket::INET))
        }
    }

    /// The port that the socket has, in host byte order; 0 if it has none.
    #[inline(always)]
    pub fn port(&self) -> u16 {
        // SAFETY: as above.
        unsafe { (*self.pointer).src_port as u16 }
    }

    /// All ones if who receives a packet of this socket may be another one than when that was judged, and rules ask who it is: what
    /// asks a loopback address for a connection, and all datagrams. Else 0. The kernel holds a TCP socket's lock while it sends,
    /// so its state is that of this packet.
    #[inline(always)]
    pub fn may_be_received_by_others(&self) -> u32 {
        if !own::matters() {
            return 0;
        }
        let connects = if self.peer().is_loopback(is) { self.is_tcp() & self.is_in(SYN_SENT) } else { 0 };
        connects | self.is_udp()
    }

    /// All ones if the socket is connected, or connecting, to this address and port; else 0. The kernel itself compares no port
    /// where a UDP socket is connected to port 0 (`compute_score`, net/ipv4/udp.c): such a socket has no peer.
    #[inline(always)]
    pub fn is_peer(&self, address: Address, port: u16) -> u32 {
        let peer_port = self.peer_port();
        is(self.peer().difference(address) | u32::from(peer_port ^ port), 0) & !is(port.into(), 0)
    }

    /// All ones if a packet of a TCP or UDP socket is of another version of IP than the address of its peer; else 0. (`v4`: all
    /// ones for an IPv4 packet, else 0.)
    ///
    /// An IPv6 TCP socket that was connected, or tried to connect, to a mapped address sends by IPv4 ever after (`tcp_v6_connect` sets
    /// `icsk_af_ops`, and nothing sets it back), to the IPv4 address that it has kept, whatever it is connected to next. A connect(2)
    /// to a mapped address also overwrites half of the address of a datagram that waits for its end (`MSG_MORE`). A UDP socket that
    /// is connected to an IPv6 address may send to a mapped one that it names; the other way round, the kernel refuses it
    /// (`ip6_dst_lookup_tail`).
    #[inline(always)]
    pub fn crosses(&self, v4: u32) -> u32 {
        let peer = self.peer();
        let ([a, b, c, d], peer_v4) = (peer.words(), peer.v4_mask(is));
        let by_v4 = v4 & self.is_tcp() & !peer_v4 & !is(a | b | c | d, 0);
        // Disconnecting leaves a UDP socket the address of its peer (`__udp_disconnect`).
        by_v4 | !v4 & peer_v4 & (self.is_tcp() | self.is_udp() & !is(self.peer_port().into(), 0))
    }

    /// All ones if a packet goes, as its plain headers say, where a hook has judged; else 0, also where that takes a longer look.
    #[inline(always)]
    pub fn goes_as_judged(&self, ctx: &SkBuffContext) -> u32 {
        let v4 = plain::v4_mask(ctx);
        let Some((address, plain)) = plain::destination(ctx, v4) else { return 0 };
        let goes = plain & !leaves(ctx, address) & !self.crosses(v4);
        let here = stays(ctx) & !is_loopback_network(address);
        // What a TCP connection goes to can't change, but by a route of its own, which no socket gets. By the loopback device, a transparent server answers
        // for another host.
        if self.is_udp() == 0 {
            return goes & !(here & self.asks_here(v4));
        }
        let peers = self.peers(ctx);
        goes & !here & !peers.may_stray(stays(ctx), address)
    }

    /// Whom it is or was connected to, as far as that matters to its packets.
    #[inline(always)]
    pub fn peers(&self, ctx: &SkBuffContext) -> Peers {
        // SAFETY: the verifier knows the socket from `of`, and checks the access to the context.
        unsafe { Peers::of(self.pointer, (&raw const (*ctx.skb.skb).len).read_volatile()) }
    }

    #[inline(always)]
    pub fn maker(&self) -> Maker {
        // SAFETY: the verifier knows the socket from `of`.
        unsafe { Maker::of(self.pointer) }
    }
}
