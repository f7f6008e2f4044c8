//! What a command reached: connections and datagrams that went through, counted.
//!
//! A *flow* is all that one process and one peer had to do with each other by one protocol, port and direction. Its
//! identity is a [`Key`]; a hash map counts under it ([`Tally`]). What has to be known of a socket meanwhile is kept with
//! the socket ([`Socket`]) and goes away with it.

use crate::{net::Address, record::Owner};

/// Who began: the command's process.
pub const OUTGOING: u8 = 0;
/// Who began: the peer.
pub const INCOMING: u8 = 1;

/// `IPPROTO_TCP`, include/uapi/linux/in.h. MPTCP's connections are TCP's.
pub const TCP: u8 = 6;
/// `IPPROTO_UDP`
pub const UDP: u8 = 17;

/// Identity of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The peer's address.
    pub address: Address,
    /// The process, as [`Owner::pid`].
    pub pid: u32,
    /// In host byte order: the peer's port of an outgoing flow, the command's own of an incoming one (the clients of a
    /// server have a different port for each connection).
    pub port: u16,
    /// [`OUTGOING`] or [`INCOMING`].
    pub direction: u8,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
}

const _: () = assert!(size_of::<Key>() == 24);

/// What was counted under an identity. Byte counts are those of the payload.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// TCP: connections that were established. UDP: datagrams sent.
    pub begun: u64,
    /// TCP: connections that have ended since. UDP: datagrams received.
    pub ended: u64,
    /// Bytes sent; of a TCP connection, those that the peer has acknowledged.
    pub bytes_sent: u64,
    /// Bytes received, in order, read by the process or not.
    pub bytes_received: u64,
    /// How long the ended connections were established, together, in nanoseconds.
    pub duration: u64,
    /// Time of the first connection or datagram, in nanoseconds of `CLOCK_BOOTTIME`.
    pub first: u64,
    /// Time at which something of this last changed.
    pub last: u64,
    /// Who it was, at the first connection or datagram.
    pub owner: Owner,
}

const _: () = assert!(size_of::<Tally>() == 56 + size_of::<Owner>());

/// What is known of a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Socket {
    /// Whose it is.
    pub owner: Owner,
    /// When its connection was established. 0: it has none that is counted.
    pub established: u64,
    /// Bytes of the connection that are counted as sent.
    pub bytes_sent: u64,
    /// Bytes of the connection that are counted as received.
    pub bytes_received: u64,
    /// The sequence number after the peer's FIN, if `fin_seen`.
    pub fin_end: u32,
    /// 1: a segment with the peer's FIN has come, maybe before others that belong before it.
    pub fin_seen: u8,
    /// 1: the own FIN has been sent.
    pub fin_sent: u8,
    /// 1: the own SYN is among the acknowledged bytes as the kernel counts them.
    pub syn_counted: u8,
    /// 1: the socket connects; 0: it listens, or was accepted.
    pub connects: u8,
    /// The port that a bind(2) named last which the policy allows, in host byte order; 0 if there is none. The kernel may have
    /// refused that bind(2) for other reasons, so the socket may have another port.
    pub asked: u16,
    /// The port, in host byte order, at which it may listen; 0 if there is none. Whatever else it listens at, nobody gets
    /// through to it.
    pub served: u16,
    /// The first peer of a UDP socket that the policy allows: of a connect(2), or of a datagram that names it.
    pub peer: Address,
    /// The address that belongs to `asked`.
    pub asked_address: Address,
    /// The port of `peer`, in host byte order.
    pub peer_port: u16,
    /// 1: there was a connect(2) that the policy allows.
    pub connected: u8,
    /// Bits: 1, a datagram of a UDP socket has named its receiver; 2, one has named another than `peer`.
    pub named: u8,
    /// 1: it was connected, and to another peer as well, by a connect(2) or a datagram that names it. Then the kernel can
    /// put together the address of one and the port of another, or half of an address.
    pub mixed: u32,
    /// 1: it may broadcast, or has sent to a group, or was connected to one. IPv4 hands this host's own sockets a copy of such packets.
    pub copied: u32,
    /// 1: it is one of the sandbox's own. Read rather than implied, since the verifier would follow everything that comes
    /// after once for each value that it knows.
    pub own: u32,
    /// 1: a bind(2) has named an address for it, which need not be this host's, or an option lets it have such a source.
    pub bound: u32,
}

const _: () = assert!(size_of::<Socket>() == 88 + size_of::<Owner>());

/// Tells the launcher of a new flow, so that it can look at the process while it is there.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// [`crate::record::Hook::SockOps`], as its number, which tells this from the keys of denials.
    pub hook: u8,
    /// Always 0.
    pub padding: [u8; 3],
    /// The process.
    pub pid: u32,
    /// When it was seen, as [`Tally::first`].
    pub first: u64,
}

const _: () = assert!(size_of::<News>() == 16);
