//! Packets that arrive or leave: what the address hooks can't see.
//!
//! - Who connects to a listener of the sandbox, and who sends datagrams to it.
//! - What leaves a socket that the policy allows although no address hook judges it (raw, ping …).
//! - Where a packet goes that the address hooks have judged as a system call: it may have a route of its own.
//! - Once more, whether the sandbox's own socket receives what is meant for it: between the system call and the packet,
//!   another one may have taken its place.
//!
//! Another thread can change a socket's state, peer and port at any moment: after the kernel has found the socket for a packet,
//! and before the socket gets it. So no state of a socket is a reason to let a packet through. It is compared with the packet, or what
//! it says is judged like a request.

pub mod plain;
mod socket;
pub mod way;

use core::mem::MaybeUninit;

use aya_ebpf::{EbpfContext, helpers::generated::bpf_skb_load_bytes, programs::SkBuffContext};
use common::{
    Decision,
    decision::{LOOPBACK_LEAVES, NOT_SERVED, OTHER_VERSION, STAYS_HERE, UNPARSED_PACKET},
    net::{self, Address, Op, Protocol, Request},
    packet::{Addresses, Arrived, Content, Leaving, OPTION_WORDS, Packet, parse},
    record::{Hook, Key, NetSubject},
    socket::protocol,
};

use crate::{
    net::{KernelTables, NET_TABLE, NET_TALLIES, protocol_of, subject, subject_of},
    own::{self, receiver},
    packet::{
        plain::{Ends, flag},
        socket::{SYN_SENT, Socket},
    },
    record::{Draft, Ledger},
    rodata::{filled, judged},
    socket::SOCKET_TABLE,
    verifier::{is, opaque, opaque_pointer},
};

/// All ones if TCP's flags ask for a connection, so that the packet is no part of one; else 0.
///
/// It is none either if its sender is the one that the socket itself is connecting to: another thread may have made a listener of the
/// socket by the time that the kernel gives it the packet. Two that ask each other have a connection by their answers.
#[inline(always)]
fn asks_for_connection(flags: u8) -> u32 {
    is((flags & (flag::SYN | flag::ACK)).into(), flag::SYN.into())
}

/// The bytes of a packet.
pub struct Bytes<'a>(pub &'a SkBuffContext);

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
    fn load_options(&self, start: u32, end: u32) -> [u64; OPTION_WORDS] {
        // From the word before the options on, so that there is always something to load. The mask makes what is no length one of
        // at most 63.
        let mut words = [0_u64; 9];
        let length = opaque(u64::from(end.wrapping_sub(start))) as u32 & 0x3f;
        // SAFETY: the buffer is longer than what is loaded, and filled with zeros if it can't be.
        unsafe { bpf_skb_load_bytes(self.0.as_ptr(), start.wrapping_sub(8), words.as_mut_ptr().cast(), length + 8) };
        [words[1], words[2], words[3], words[4], words[5]]
    }

    #[inline(always)]
    fn opaque(number: u32) -> u32 {
        opaque(u64::from(number)) as u32
    }

    #[inline(always)]
    fn opaque_long(number: u64) -> u64 {
        opaque(number)
    }

    #[inline(always)]
    fn is(one: u32, other: u32) -> u32 {
        is(one, other)
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
    let (binds, receives) = (table.judges(Op::BIND), table.judges(Op::RECEIVE));
    // The policy says nothing of what arrives, and it never changes.
    if !binds && !receives && !own::matters() {
        return 1;
    }
    let Some(socket) = Socket::of(ctx) else {
        return deny_unjudged(Hook::Ingress);
    };
    let (tcp, udp) = (socket.is_tcp(), socket.is_udp());
    // Only the answer to a connection tells for certain which socket accepts it: another one may have joined or left the
    // port meanwhile, or a program of a SO_REUSEPORT group may have chosen. Nothing but that answer takes a socket out of this
    // state and leaves it its peer. If another thread connects the socket only now, this is no answer to that: its number is another one.
    let connecting = if own::matters() { tcp & socket.is_in(SYN_SENT) } else { 0 };
    // What belongs to a TCP connection was judged when that was made. The packet says that it does, and the kernel compares its numbers with
    // those of the connection that the socket has then: what another thread makes of the socket meanwhile has other ones.
    if tcp & !connecting != 0
        && let Some(Ends { address, ports: [port, _], flags, .. }) = plain::ends(ctx, protocol::TCP, false)
        && socket.is_peer(address, u16::from_be(port)) & !asks_for_connection(flags) != 0
    {
        return 1;
    }
    // A socket stays of one kind, whatever another thread does with it.
    if tcp == 0 && !receives && (udp == 0 || table.judges_udp_ports == 0) {
        return 1;
    }
    judge(ctx, Hook::Ingress, &socket, |packet, addresses, key| {
        let protocol = protocol_of(packet.protocol);
        let (address, port) = (addresses.source(), packet.source_port);
        let (own_address, own_port) = (addresses.destination(), packet.destination_port);
        let flags = if tcp != 0 { flags(ctx, packet) } else { 0 };
        let is_peer = socket.is_peer(address, port) & !(tcp & asks_for_connection(flags));
        if tcp & is_peer & !connecting != 0 {
            return Some(Decision::NOT_CONCERNED);
        }
        if binds && !is_peer & (tcp | udp) != 0 {
            let decision = judge_port(&socket, key, tcp, (own_address, own_port), packet.protocol)?;
            if !decision.allow {
                return Some(decision);
            }
        }
        let answered = connecting & is_peer;
        if !receives && answered == 0 {
            return Some(Decision::NOT_CONCERNED);
        }
        // Where nobody is, the kernel answers by itself, and by nothing but that (`tcp_v4_send_reset`).
        let found = receiver_of(ctx, protocol, (own_address, own_port), (address, port));
        let refuses = is((flags & flag::RST).into(), flag::RST.into()) & answered;
        let own = receiver::is_own(found) | receiver::is_nobody(found) & refuses;
        // What the peer of a connected UDP socket answers is judged as the connect(2) was, and not taken for judged: while a
        // socket goes from one peer to another, it has the address of the one and the port of the other.
        let op = Op::RECEIVE.or_connect(answered | udp & is_peer);
        let request = Request { op, protocol, address, port, own: own & 1 };
        key.subject = NetSubject { local_port: own_port, ..subject(&request, packet.protocol) };
        net::decide_received(table, &KernelTables::of(key), &request, own_port)
    })
}

/// A packet from one of the sandbox's sockets, of a policy that asks more of it than where it goes ([`way::leaving`]). 1 lets it
/// through; 0 drops it, and the system call fails with EPERM if it is in one.
#[inline(always)]
pub fn egress(ctx: &SkBuffContext) -> i32 {
    let table = filled(&NET_TABLE);
    let (ports, packets) = (table.judges_udp_ports != 0, filled(&SOCKET_TABLE).packets != 0);
    let peers = table.tells_peers_apart();
    // The policy says nothing of what leaves, and it never changes.
    if !peers && !ports && !packets && !own::matters() {
        return 1;
    }
    let Some(socket) = Socket::of(ctx) else {
        return deny_unjudged(Hook::Egress);
    };
    let mut again = socket.may_be_received_by_others() | if ports { socket.is_udp() } else { 0 };
    if peers {
        again |= !socket.goes_as_judged(ctx);
    }
    let judged = socket.is_tcp() | socket.is_udp();
    // Of what a hook has judged: the kernel holds a TCP socket's lock, and whom a UDP socket has been connected to was noted before that
    // was done. Other sockets could not be made if the policy had anything to say about their packets.
    if judged != 0 && again == 0 || judged == 0 && !packets {
        return 1;
    }
    let socket = socket.again();
    judge(ctx, Hook::Egress, &socket, |packet, addresses, key| {
        let (tcp, udp) = (socket.is_tcp(), socket.is_udp());
        let protocol = protocol_of(packet.protocol);
        let (address, port) = (addresses.destination(), packet.destination_port);
        let (own_address, own_port) = (addresses.source(), packet.source_port);
        let mut op = Op::of_sent(protocol);
        if own::matters() || peers {
            // What a connected UDP socket sends was judged as that.
            op = op.or_connect(udp & socket.is_peer(address, port));
        }
        let mut request = Request { op, protocol, address, port, own: 0 };
        key.subject = subject(&request, packet.protocol);
        if peers && socket.crosses(plain::v4_mask(ctx)) != 0 {
            return Some(Decision::fail_closed(OTHER_VERSION));
        }
        if peers && leaves(ctx, address) != 0 {
            return Some(Decision::fail_closed(LOOPBACK_LEAVES));
        }
        if ports && udp & !socket.is_peer(address, port) != 0 {
            // Where the packet has none to be seen (IPsec), it is the socket's.
            let own_port = own_port | socket.port() & is(own_port.into(), 0) as u16;
            let decision = judge_port(&socket, key, tcp, (own_address, own_port), packet.protocol)?;
            if !decision.allow {
                return Some(decision);
            }
        }
        let own = socket.may_be_received_by_others();
        let mut strays = 0;
        if peers {
            let of_socket = socket.peers(ctx);
            let several = !tcp & of_socket.are_several();
            strays = (udp | own) & of_socket.may_stray(stays(ctx), address);
            let unsure = several | of_socket.are_told_another_source();
            if (!tcp | socket.asks_here(plain::v4_mask(ctx))) & returns(ctx, address, unsure) != 0 {
                // `judge_port` may have left another one.
                key.subject = subject(&request, packet.protocol);
                if several != 0 {
                    return Some(Decision::fail_closed(UNPARSED_PACKET));
                }
                // And then as what it says, if no hook has judged that.
                if !stays_as_loopback(key, &mut request, plain::v4_mask(ctx))? {
                    return Some(Decision::fail_closed(STAYS_HERE));
                }
            }
        }
        if tcp | udp != 0 && strays == 0 && (own == 0 || !address.is_loopback(is)) {
            // The address hooks have judged where it goes. What it says of its destination is not judged: it may be on its way
            // to another address (NAT).
            return Some(Decision::NOT_CONCERNED);
        }
        let found = receiver_of(ctx, protocol, (own_address, own_port), (address, port));
        request.own = (receiver::is_own(found) | receiver::is_nobody(found)) & 1;
        key.subject = subject(&request, packet.protocol);
        net::decide(table, &KernelTables::of(key), &request)
    })
}

/// The flags in a TCP packet; 0 if they are cut off.
#[inline(always)]
fn flags(ctx: &SkBuffContext, packet: &Packet) -> u8 {
    let mut word = [0];
    // Behind both ports and both numbers, the first byte is the header's length.
    Bytes(ctx).load(packet.end.wrapping_add(12), &mut word);
    let [word] = word;
    (u32::from_be(word) >> 16) as u8
}

/// Judges the port at which a TCP or UDP socket is reached, or sends, where bind(2) is restricted: it may have it without that.
#[inline(always)]
fn judge_port(
    socket: &Socket,
    key: &mut Key<NetSubject>,
    tcp: u32,
    (address, port): (Address, u16),
    number: u32,
) -> Option<Decision> {
    let table = filled(&NET_TABLE);
    let request = Request { op: Op::BIND, protocol: protocol_of(number), address, port, own: 1 };
    key.subject = subject(&request, number);
    if tcp != 0 {
        // Nothing but a listener takes a TCP packet that is not its peer's.
        // SAFETY: the verifier knows the socket from `of`.
        let is_served = unsafe { own::is_served(socket.pointer, port) };
        return Some(if is_served { Decision::NOT_CONCERNED } else { Decision::fail_closed(NOT_SERVED) });
    }
    // SAFETY: as above.
    if table.judges_udp_ports == 0 || unsafe { own::is_asked(socket.pointer, socket.bound(), (address, port)) } {
        return Some(Decision::NOT_CONCERNED);
    }
    net::decide_udp_port(table, &KernelTables::of(key), &request)
}

/// The loopback device, in every network namespace (`LOOPBACK_IFINDEX`, include/net/net_namespace.h).
const LOOPBACK_DEVICE: u32 = 1;

/// All ones if a packet is sent by the loopback device, and so to this host; else 0.
#[inline(always)]
pub fn stays(ctx: &SkBuffContext) -> u32 {
    // SAFETY: the verifier checks the access to the context. Volatile, so that it is read anew where ways have met.
    is(unsafe { (&raw const (*ctx.skb.skb).ifindex).read_volatile() }, LOOPBACK_DEVICE)
}

/// All ones if a packet to this address is for this host, and leaves it by another device than loopback; else 0.
#[inline(always)]
pub fn leaves(ctx: &SkBuffContext, address: Address) -> u32 {
    is_loopback_network(address) & !stays(ctx)
}

/// All ones if a packet stays on this host although its destination may be another one's; else 0.
///
/// The kernel sends by the loopback device whatever a socket asks to be sent by it (`SO_BINDTODEVICE`, `IP_UNICAST_IF`, `IP_PKTINFO`), and takes it for
/// this host's (`__mkroute_output`, net/ipv4/route.c). It keeps the route of a datagram that waits for more (`MSG_MORE`), and of a socket that another thread
/// connects meanwhile, and puts the address of the next peer into the header (`__ip4_datagram_connect`, net/ipv4/datagram.c). So a header with an
/// allowed address goes to anybody on this host who listens at that port.
///
/// What goes to one of this host's own addresses usually comes from that one (`ip_route_output_key_hash_rcu`; RFC 6724, rule 1). The kernel chooses no source
/// that is another host's, and it has no way by the loopback device to other hosts' IPv6 addresses. That says nothing where a socket has had several peers, or
/// was told its source (`unsure`: all ones).
#[inline(always)]
fn returns(ctx: &SkBuffContext, destination: Address, unsure: u32) -> u32 {
    stays(ctx) & !is_loopback_network(destination) & (unsure | !plain::is_to_itself(ctx, plain::v4_mask(ctx)))
}

/// Whether what stays on this host may go to loopback at its port; `None` if that can't be judged. Leaves `key` and `request` as they were.
#[inline(always)]
fn stays_as_loopback(key: &mut Key<NetSubject>, request: &mut Request, v4: u32) -> Option<bool> {
    let destination = request.address;
    request.address = Address::loopback(v4);
    key.subject.address = request.address;
    let decision = net::decide(filled(&NET_TABLE), &KernelTables::of(key), request);
    request.address = destination;
    key.subject.address = destination;
    decision.map(|decision| decision.allow)
}

/// All ones for an address of the loopback networks, those for several receivers included; else 0.
#[inline(always)]
pub fn is_loopback_network(address: Address) -> u32 {
    let [a, b, c, d] = address.words();
    address.v4_mask(is) & is(u32::from_be(d) >> 24, 127) | is(a | b | c | d ^ Address::LOOPBACK6.words()[3], 0)
}

/// Who receives what is sent from `source` to `destination`, as [`receiver`] has it, where the policy asks for that.
#[inline(always)]
fn receiver_of(ctx: &SkBuffContext, protocol: Protocol, source: (Address, u16), destination: (Address, u16)) -> u32 {
    if !own::matters() || !destination.0.is_loopback(is) {
        return 0;
    }
    // A socket that is bound to another device (SO_BINDTODEVICE) sends even this over the wire.
    if stays(ctx) == 0 {
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
    let mut draft = Draft::new(hook, subject_of(op, address, 0, protocol));
    let key = draft.key();
    let Some(ledger) = Ledger::of(hook) else { return 0 };
    let decision = judged(|| {
        let mut memory = MaybeUninit::uninit();
        // SAFETY: to the compiler, this is written now; really, `parse` does that before it reads any of it.
        let addresses = unsafe { &mut *opaque_pointer(memory.as_mut_ptr()) };
        let packet = if hook as u8 == Hook::Egress as u8 {
            parse::<Leaving, _>(&Bytes(ctx), addresses)
        } else {
            parse::<Arrived, _>(&Bytes(ctx), addresses)
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
