//! Packets that arrive or leave: what the address hooks can't see.
//!
//! - Who connects to a listener of the sandbox, and who sends datagrams to a socket that is connected to nobody.
//! - What leaves a socket that the policy allows although no address hook judges it (raw, ping …).
//! - Once more, whether the sandbox's own socket receives what is meant for it: between the system call and the packet,
//!   another one may have taken its place.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sock,
    helpers::generated::{bpf_sk_fullsock, bpf_skb_load_bytes},
    programs::SkBuffContext,
};
use common::{
    Decision,
    decision::UNPARSED_PACKET,
    net::{self, Address, Op, Protocol, Request},
    packet::{Addresses, Content, OPTION_WORDS, Packet, Quick, Thorough, parse},
    record::{Hook, Key, NetSubject},
    socket::{self, kind, protocol},
};

use crate::{
    net::{KernelTables, NET_TABLE, NET_TALLIES, protocol_of, subject, words},
    own::{self, Maker},
    record::{Draft, Ledger},
    rodata::{filled, judged},
    socket::SOCKET_TABLE,
    verifier::{is, opaque, opaque_pointer},
};

/// `TCP_ESTABLISHED`, which a connected UDP socket is in, too (include/net/tcp_states.h).
const ESTABLISHED: u32 = 1;
/// `TCP_SYN_SENT`
const SYN_SENT: u32 = 2;
/// `TCP_LISTEN`
const LISTEN: u32 = 10;

/// What tells MPTCP's number from TCP's.
const MPTCP_BIT: u32 = 0x100;

/// The packet's socket, as far as packets are judged by it.
struct Socket {
    pointer: *mut bpf_sock,
    family: u32,
    /// Type and protocol in one number, as [`kind_of`] has it.
    kind: u32,
    protocol: u32,
    state: u32,
}

/// A type and a protocol in one number.
const fn kind_of(kind: u32, protocol: u32) -> u32 {
    kind << 16 | protocol
}

impl Socket {
    #[inline(always)]
    fn of(ctx: &SkBuffContext) -> Option<Self> {
        // SAFETY: the verifier checks each access to the context and to what it finds there.
        unsafe {
            let socket = (*ctx.skb.skb).__bindgen_anon_2.sk;
            if socket.is_null() {
                return None;
            }
            let pointer = bpf_sk_fullsock(socket);
            if pointer.is_null() {
                return None;
            }
            let (family, protocol, state) = ((*pointer).family, (*pointer).protocol, (*pointer).state);
            let kind = kind_of((*pointer).type_, protocol);
            Some(Self { pointer, family, kind, protocol, state })
        }
    }

    /// All ones if it is a TCP socket, whose connections the address hooks judge; else 0.
    #[inline(always)]
    fn is_tcp(&self) -> u32 {
        // The number of MPTCP is that of TCP with another bit.
        const { assert!(protocol::MPTCP == protocol::TCP | MPTCP_BIT) };
        is(self.kind & !MPTCP_BIT, kind_of(kind::STREAM, protocol::TCP))
    }

    /// All ones if it is a UDP socket, whose datagrams the address hooks judge; else 0.
    #[inline(always)]
    fn is_udp(&self) -> u32 {
        is(self.kind, kind_of(kind::DGRAM, protocol::UDP))
    }

    /// All ones if it is in that state, else 0.
    #[inline(always)]
    fn is_in(&self, state: u32) -> u32 {
        is(self.state, state)
    }

    /// The address that the socket is connected or connecting to.
    #[inline(always)]
    fn peer(&self) -> Address {
        // SAFETY: as above.
        unsafe {
            let v6 = Address::v6(words(&raw const (*self.pointer).dst_ip6));
            v6.or_v4((*self.pointer).dst_ip4, is(self.family, socket::INET))
        }
    }

    #[inline(always)]
    fn maker(&self) -> Maker {
        // SAFETY: the verifier knows the socket from `of`.
        unsafe { Maker::of(self.pointer) }
    }
}

struct Bytes<'a>(&'a SkBuffContext);

impl Content for Bytes<'_> {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32, to: &mut [u32; N]) -> u32 {
        // SAFETY: the buffer is as long as is said, and filled with zeros where the packet ends before. (In a cgroup's
        // program it begins with its IP header.)
        let failed = unsafe { bpf_skb_load_bytes(self.0.as_ptr(), offset, to.as_mut_ptr().cast(), 4 * N as u32) };
        // Negative or 0.
        opaque(failed.cast_unsigned() >> 63) as u32
    }

    #[inline(always)]
    fn is_sent_as(&self, version: u32) -> bool {
        const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
        const ETH_P_IPV6: u32 = 0x86dd_u16.to_be() as u32;
        // SAFETY: the verifier checks the access to the context.
        unsafe { (*self.0.skb.skb).protocol == if version == 4 { ETH_P_IP } else { ETH_P_IPV6 } }
    }

    #[inline(always)]
    fn load_options(&self, end: u32) -> [u64; OPTION_WORDS] {
        // From the word before the options on, so that there is always something to load. The header's length counts words
        // of four bytes; the mask makes one of less than 20 bytes one of at most 80.
        let mut words = [0_u64; 9];
        let length = opaque(u64::from(end.wrapping_sub(20))) as u32 & 0x3c;
        // SAFETY: the buffer is longer than what is loaded, and filled with zeros if it can't be.
        unsafe { bpf_skb_load_bytes(self.0.as_ptr(), 12, words.as_mut_ptr().cast(), length + 8) };
        [words[1], words[2], words[3], words[4], words[5]]
    }

    #[inline(always)]
    fn opaque(number: u32) -> u32 {
        opaque(u64::from(number)) as u32
    }

    #[inline(always)]
    fn write(to: &mut [u32; 10], words: [u32; 10]) {
        for (to, word) in to.iter_mut().zip(words) {
            // SAFETY: a reference can be written to. Volatile, so that it is done in order.
            unsafe { (&raw mut *to).write_volatile(word) };
        }
    }

    #[inline(always)]
    fn zero(&self) -> u32 {
        // No packet is so long.
        // SAFETY: the verifier checks the access to the context.
        unsafe { (*self.0.skb.skb).len >> 31 }
    }
}

/// A packet for one of the sandbox's sockets. 1 lets it through, 0 drops it.
#[inline(always)]
pub fn ingress(ctx: &SkBuffContext) -> i32 {
    let table = filled(&NET_TABLE);
    if !table.judges(Op::BIND) && !table.judges(Op::RECEIVE) {
        return 1;
    }
    let Some(socket) = Socket::of(ctx) else {
        return deny_unjudged(Hook::Ingress);
    };
    let listens = socket.is_in(LISTEN);
    // Only the answer to a connection tells for certain which socket accepts it: another one may have joined or left the
    // port meanwhile, or a program of a SO_REUSEPORT group may have chosen.
    let answered = if own::matters() { socket.is_in(SYN_SENT) } else { 0 };
    // What belongs to a connection has been judged when that was made; likewise a connected UDP socket.
    if socket.is_tcp() & !(listens | answered) | socket.is_udp() & socket.is_in(ESTABLISHED) != 0 {
        return 1;
    }
    // SAFETY: the verifier knows the socket from `of`.
    if table.judges(Op::BIND) && listens != 0 && unsafe { own::is_closed(socket.pointer) } {
        return 0;
    }
    if !table.judges(Op::RECEIVE) && answered == 0 {
        return 1;
    }
    judge(ctx, Hook::Ingress, &socket, |packet, addresses, key| {
        let protocol = protocol_of(packet.protocol);
        let (address, port) = (addresses.source(), packet.source_port);
        let own = is_own(ctx, protocol, (addresses.destination(), packet.destination_port), (address, port));
        let op = Op::RECEIVE.or_connect(answered);
        let request = Request { op, protocol, address, port, own };
        key.subject = subject(&request, packet.protocol);
        net::decide(table, &KernelTables::of(key), &request)
    })
}

/// A packet from one of the sandbox's sockets. 1 lets it through; 0 drops it, and the system call fails with EPERM if it
/// is in one.
#[inline(always)]
pub fn egress(ctx: &SkBuffContext) -> i32 {
    if !own::matters() && filled(&SOCKET_TABLE).packets == 0 {
        return 1;
    }
    let Some(socket) = Socket::of(ctx) else {
        return deny_unjudged(Hook::Egress);
    };
    // The address hooks have judged these, but for who receives it: that may have changed since. It does not matter for
    // who isn't reached by loopback, and must not: the packet may be on its way to another address (NAT).
    if own::matters() {
        if socket.is_tcp() != 0 && (socket.is_in(SYN_SENT) == 0 || !socket.peer().is_loopback(is)) {
            return 1;
        }
    } else if socket.is_tcp() | socket.is_udp() != 0 {
        return 1;
    }
    judge(ctx, Hook::Egress, &socket, |packet, addresses, key| {
        let protocol = protocol_of(packet.protocol);
        let (address, port) = (addresses.destination(), packet.destination_port);
        let own = is_own(ctx, protocol, (addresses.source(), packet.source_port), (address, port));
        let mut op = Op::of_sent(protocol);
        if own::matters() {
            // A connected UDP socket was judged as that.
            op = op.or_connect(is(socket.protocol, protocol::UDP) & socket.is_in(ESTABLISHED));
        }
        let request = Request { op, protocol, address, port, own };
        key.subject = subject(&request, packet.protocol);
        net::decide(filled(&NET_TABLE), &KernelTables::of(key), &request)
    })
}

/// The loopback device, in every network namespace (`LOOPBACK_IFINDEX`, include/net/net_namespace.h).
const LOOPBACK_DEVICE: u32 = 1;

/// 1 if what is sent from `source` to `destination` is received by one of the sandbox's own sockets, where the policy
/// asks for that.
#[inline(always)]
fn is_own(ctx: &SkBuffContext, protocol: Protocol, source: (Address, u16), destination: (Address, u16)) -> u32 {
    if !own::matters() || !destination.0.is_loopback(is) {
        return 0;
    }
    // A socket that is bound to another device (SO_BINDTODEVICE) sends even this over the wire.
    // SAFETY: the verifier checks the access to the context.
    if unsafe { (*ctx.skb.skb).ifindex } != LOOPBACK_DEVICE {
        return 0;
    }
    own::receives(ctx, protocol, source, destination)
}

/// Denies a packet of which nothing is known.
#[inline(always)]
fn deny_unjudged(hook: Hook) -> i32 {
    Ledger::of(hook).map_or(0, Ledger::deny_unjudged)
}

/// Parses a packet, has it judged and concludes. One that can't be parsed is denied.
#[inline(always)]
fn judge(
    ctx: &SkBuffContext,
    hook: Hook,
    socket: &Socket,
    decide: impl FnOnce(&Packet, &Addresses, &mut Key<NetSubject>) -> Option<Decision>,
) -> i32 {
    let op = if hook as u8 == Hook::Ingress as u8 { Op::RECEIVE } else { Op::SEND };
    // Zeros that the compiler knows it would write byte by byte.
    let zero = opaque(0) as u32;
    let (address, protocol) = (Address::v6([zero; 4]), socket.protocol);
    let mut draft = Draft::new(hook, NetSubject { address, port: 0, op: op.index() as u8, padding: 0, protocol });
    let key = draft.key();
    let Some(ledger) = Ledger::of(hook) else { return 0 };
    let decision = judged(|| {
        let mut memory = MaybeUninit::uninit();
        // SAFETY: to the compiler, this is written now; really, `parse` does that before it reads any of it.
        let addresses = unsafe { &mut *opaque_pointer(memory.as_mut_ptr()) };
        // Where no socket is allowed that makes its own headers, the kernel has made or acted on all that matters.
        let packet = if filled(&SOCKET_TABLE).packets != 0 {
            parse::<Thorough, _>(&Bytes(ctx), addresses)
        } else {
            parse::<Quick, _>(&Bytes(ctx), addresses)
        };
        if let Some(packet) = packet {
            return decide(&packet, addresses, key);
        }
        Some(Decision::fail_closed(UNPARSED_PACKET))
    });
    let Some(decision) = decision else {
        return ledger.deny_unjudged();
    };
    ledger.conclude(decision, &NET_TALLIES, key, |_| socket.maker())
}
