//! Network hooks: addresses and ports.

use core::mem::offset_of;

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_SOCK_OPS_TCP_LISTEN_CB, bpf_sock},
    helpers::bpf_map_lookup_elem,
    macros::map,
    maps::{Array, HashMap, LpmTrie},
    programs::SockAddrContext,
};
use common::{
    Decision, RuleSet,
    decision::UNSEEN_COPY,
    net::{self, Address, EPHEMERAL, Lookup, Op, PortInterval, Protocol, Request, Table},
    record::{Hook, Key, NetSubject, Tally},
    socket::{self, protocol},
};

use crate::{
    own::{self, Event, Maker, receiver},
    record::{Current, Draft, Ledger},
    rodata::{audit, filled, judged},
    verifier::{is, opaque},
};

/// The network section's rules but for hosts and ports.
#[unsafe(no_mangle)]
pub static NET_TABLE: Table = Table::DENY_ALL;

/// Prefixes, and the rules whose hosts include them. The launcher sets the size.
///
/// The launcher freezes the maps that hold policy. They aren't BPF_F_RDONLY_PROG: reading at a constant offset from an
/// array of several elements that is both makes the verifier fail with ENOTSUPP (`array_map_direct_value_addr`).
#[map]
static NET_HOSTS: LpmTrie<Address, RuleSet> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);

/// The intervals of ports, one after the other. The launcher sets the size of the one element.
#[map]
static NET_PORTS: Array<PortInterval> = Array::with_max_entries(1, 0);

/// The intervals of the sockets' own ports.
#[map]
static NET_LOCAL_PORTS: Array<PortInterval> = Array::with_max_entries(1, 0);

/// Denials by identity.
#[map]
pub static NET_TALLIES: HashMap<Key<NetSubject>, Tally> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// An address as the key of [`NET_HOSTS`]. (aya's type is packed, which costs a store for each of its bytes.)
#[repr(C)]
struct Prefix {
    length: u32,
    address: Address,
}

/// The lookups of the network section in kernel maps, for one request.
pub struct KernelTables<'a>(&'a Prefix);

impl<'a> KernelTables<'a> {
    /// For a request of which the record is begun, with its address. What precedes that is the process, which isn't known
    /// yet: it makes room for the prefix's length ([`Draft`]), so that the address need not be copied.
    #[inline(always)]
    pub fn of(key: &'a Key<NetSubject>) -> Self {
        const PLACE: usize = offset_of!(Key<NetSubject>, pid);
        const { assert!(PLACE + offset_of!(Prefix, address) == offset_of!(Key<NetSubject>, subject.address)) };
        // SAFETY: these are the words of a prefix, one behind the other.
        Self(unsafe { &*(&raw const *key).byte_add(PLACE).cast() })
    }
}

impl Lookup for KernelTables<'_> {
    #[inline(always)]
    fn by_host(&self, _: &Address) -> Option<&RuleSet> {
        // SAFETY: a map's static is its address for the kernel, the key has the size that the map was declared with,
        // and what is found is a value of the map, which no program writes to.
        unsafe {
            let map = (&raw const NET_HOSTS).cast_mut().cast();
            bpf_map_lookup_elem(map, (&raw const *self.0).cast()).cast::<RuleSet>().as_ref()
        }
    }

    #[cfg(feature = "names")]
    #[inline(always)]
    fn by_name(&self, op: Op, _: &Address) -> Option<&RuleSet> {
        // What is bound to is the sandbox's own.
        if op == Op::BIND { None } else { crate::name::rules_of_address(&self.0.address) }
    }

    #[inline(always)]
    fn by_port(&self, table: &Table, port: u16) -> Option<&RuleSet> {
        find(&NET_PORTS, table.port_intervals, port)
    }

    #[inline(always)]
    fn by_local_port(&self, table: &Table, port: u16) -> Option<&RuleSet> {
        find(&NET_LOCAL_PORTS, table.local_intervals, port)
    }

    #[inline(always)]
    fn by_chosen_port(&self) -> Option<&RuleSet> {
        // SAFETY: the first one is always there.
        NET_PORTS.get_ptr(0).map(|first| unsafe { &(*first).rules })
    }
}

/// The rules of the interval that a port is in.
#[inline(always)]
fn find(intervals: &'static Array<PortInterval>, count: u32, port: u16) -> Option<&'static RuleSet> {
    let intervals = intervals.get_ptr(0)?;
    // SAFETY: the launcher makes the element as large as the table says; the verifier holds each index to that.
    unsafe {
        let found = net::find_interval(count, |index| {
            // Both numbers are far below 2^31.
            let first = (*intervals.add(index as usize)).first;
            opaque(u64::from(first.wrapping_sub(u32::from(port) + 1) >> 31)) as u32
        });
        Some(&(*intervals.add(found as usize)).rules)
    }
}

/// connect(2) to an IPv4 address.
///
/// Like every address hook, this ignores `user_family`: a program that checks it can be walked round with AF_UNSPEC.
#[inline(always)]
pub fn connect4(ctx: &SockAddrContext) -> i32 {
    judge(ctx, Hook::Connect4, Op::CONNECT, IPV4, destination4(ctx, bound4(ctx)))
}

/// connect(2) to an IPv6 address, mapped ones included.
#[inline(always)]
pub fn connect6(ctx: &SockAddrContext) -> i32 {
    judge(ctx, Hook::Connect6, Op::CONNECT, ANY, destination6(ctx, bound6(ctx)))
}

/// bind(2) to an IPv4 address.
#[inline(always)]
pub fn bind4(ctx: &SockAddrContext) -> i32 {
    judge(ctx, Hook::Bind4, Op::BIND, IPV4, user4(ctx))
}

/// bind(2) to an IPv6 address, mapped ones included.
#[inline(always)]
pub fn bind6(ctx: &SockAddrContext) -> i32 {
    judge(ctx, Hook::Bind6, Op::BIND, ANY, user6(ctx))
}

/// A datagram to an IPv4 address, also by an IPv6 socket.
#[inline(always)]
pub fn sendmsg4(ctx: &SockAddrContext) -> i32 {
    // The address that the kernel will send from if it is given one: the socket's or a control message's (`udp_sendmsg`).
    // SAFETY: the verifier checks the access to the context.
    let source = Address::v4(unsafe { (*ctx.sock_addr).msg_src_ip4 });
    send(ctx, Hook::Sendmsg4, IPV4, destination4(ctx, source))
}

/// A datagram to an IPv6 address.
#[inline(always)]
pub fn sendmsg6(ctx: &SockAddrContext) -> i32 {
    // `::` is `::1` here: for a socket with a mapped address, the kernel has taken IPv4's way before (`udpv6_sendmsg`).
    send(ctx, Hook::Sendmsg6, ANY, destination6(ctx, Address::UNSPECIFIED6))
}

/// A datagram, unless the system call names no peer: the socket is connected then, and was judged as that.
#[inline(always)]
fn send(ctx: &SockAddrContext, hook: Hook, family: Family, destination: Address) -> i32 {
    // A control message makes the kernel ask again for a connected socket, and without an address; what the program writes is
    // ignored then. No system call can name port 0 (`udp_sendmsg` and `udpv6_sendmsg` refuse that before). Another thread
    // can't change this: it is about this system call's arguments.
    if port(ctx) == 0 {
        return 1;
    }
    judge(ctx, hook, Op::SEND.or_connect(is_peer(ctx, destination)), family, destination)
}

/// All ones if the socket is connected to where a datagram goes, else 0. The kernel itself names the peer of an IPv6 socket that
/// is connected to a mapped address (`udpv6_sendmsg`), so that it is no question of which system call was made.
#[inline(always)]
fn is_peer(ctx: &SockAddrContext, destination: Address) -> u32 {
    // SAFETY: the verifier knows the socket, which is there for as long as the program runs.
    let (peer, peer_port) = unsafe {
        socket(ctx).map_or((Address::UNSPECIFIED6, 0), |sock| {
            let peer = Address::v6(words(&raw const (*sock).dst_ip6));
            (peer.or_v4((*sock).dst_ip4, is((*sock).family, socket::INET)), u16::from_be((*sock).dst_port))
        })
    };
    is(peer.difference(destination) | u32::from(peer_port ^ port(ctx)), 0)
}

/// Where a request goes from a socket that sends from `source`, and where the kernel goes from now on: an unspecified address
/// means something only then, and what it means can change between here and there.
#[inline(always)]
fn destination4(ctx: &SockAddrContext, source: Address) -> Address {
    let destination = net::effective_destination(user4(ctx), source, is);
    let [_, _, _, word] = destination.words();
    // SAFETY: the verifier checks the access to the context.
    unsafe { (*ctx.sock_addr).user_ip4 = word };
    destination
}

/// Like [`destination4`], by an IPv6 address.
#[inline(always)]
fn destination6(ctx: &SockAddrContext, source: Address) -> Address {
    let destination = net::effective_destination(user6(ctx), source, is);
    // SAFETY: the verifier checks each access to the context, which allows none wider than a word.
    unsafe {
        let first = (&raw mut (*ctx.sock_addr).user_ip6).cast::<u32>();
        let [a, b, c, d] = destination.words();
        first.write_volatile(a);
        first.add(1).write_volatile(b);
        first.add(2).write_volatile(c);
        first.add(3).write_volatile(d);
    }
    destination
}

/// The port that the system call names, in host byte order.
#[inline(always)]
fn port(ctx: &SockAddrContext) -> u16 {
    // The low 16 bits of user_port are the port in network byte order (include/uapi/linux/bpf.h).
    // SAFETY: the verifier checks the access to the context.
    u16::from_be(unsafe { (*ctx.sock_addr).user_port } as u16)
}

/// What is known of the addresses of a hook's family, besides what they are.
type Family = fn(Address) -> Address;

/// Such addresses are IPv4's, so only the last word is to be looked at.
const IPV4: Family = |address| {
    let [_, _, _, word] = address.words();
    Address::v4(word)
};
/// Nothing: they can be mapped ones.
const ANY: Family = |address| address;

#[inline(always)]
fn judge(ctx: &SockAddrContext, hook: Hook, op: Op, family: Family, address: Address) -> i32 {
    // SAFETY: the verifier checks the access to the context.
    let (port, number) = (port(ctx), unsafe { (*ctx.sock_addr).protocol });
    // The process has asked for no port, nor for this connection's further paths. Nothing that a command can change decides this: it is in the
    // sandbox's cgroup, and can't bind such a socket itself.
    if op == Op::BIND
        && port == EPHEMERAL
        && number == protocol::TCP
        && let Some(socket) = socket(ctx)
    {
        // SAFETY: the verifier knows the socket, which is the context's own.
        let is_further_path = unsafe { own::is_further_path(socket.cast_mut().cast()) };
        if is_further_path {
            return 1;
        }
    }
    let protocol = protocol_of(number);
    let mut draft = Draft::new(hook, subject_of(op, address, port, number));
    let key = draft.key();
    let Some(ledger) = Ledger::of(hook) else { return 0 };
    #[cfg(feature = "names")]
    if let Some(verdict) = crate::name::asks(ledger, key, op, socket(ctx)) {
        return verdict;
    }
    let found = if op == Op::BIND {
        receiver::OWN
    } else if own::matters() {
        let address = family(key.subject.address);
        if address.is_loopback(is) { receives(ctx, protocol, family, (address, port)) } else { 0 }
    } else {
        0
    };
    // Where nobody listens, the kernel says so. Anybody who comes to listen meanwhile is found when the packet leaves.
    let own = (receiver::is_own(found) | receiver::is_nobody(found)) & 1;
    let request = Request { op, protocol, address: key.subject.address, port, own };
    let Some(mut decision) = judged(|| net::decide(filled(&NET_TABLE), &KernelTables::of(key), &request)) else {
        return ledger.deny_unjudged();
    };
    #[cfg(feature = "names")]
    if !crate::name::tls::hold(socket(ctx), &KernelTables::of(key), &request, decision.allow) {
        return ledger.deny_unjudged();
    }
    let goes_on = decision.allow || audit() != 0;
    let table = filled(&NET_TABLE);
    if op != Op::BIND
        && table.tells_peers_apart()
        && goes_on
        && let Some(socket) = socket(ctx)
    {
        let socket = socket.cast_mut().cast();
        // SAFETY: the verifier knows the socket, which is the context's own.
        unsafe {
            if number == protocol::UDP {
                if own::note_peer(socket, op, key.subject.address, port, found) != 0 && decision.allow {
                    decision = Decision::fail_closed(UNSEEN_COPY);
                }
            } else if own::matters() {
                own::note_nobody(socket, found);
            }
        }
    }
    let connects = hook as u8 == Hook::Connect4 as u8 || hook as u8 == Hook::Connect6 as u8;
    if connects && number == protocol::UDP && !decision.allow && audit() == 0 && sorts(&request, key, decision) {
        return ledger.deny_unreported();
    }
    let verdict = ledger.conclude(decision, &NET_TALLIES, key, |_| Current);
    // The bind(2) has not happened yet, and may fail. So what is noted is what was asked for, and it counts only for a socket that
    // has this port later. One that has a port keeps it (`__inet_bind` gives EINVAL). Of two threads that bind it, each has been judged, and
    // the later note counts: the other one's port is then judged as one that the kernel chose.
    // SAFETY: the verifier knows the socket, which is the context's own.
    unsafe {
        if op == Op::BIND
            && table.tells_peers_apart()
            && net::is_unspecified(key.subject.address, is) == 0
            && let Some(socket) = socket(ctx)
        {
            own::note_told_source(socket.cast_mut().cast());
        }
        if op == Op::BIND
            && verdict != 0
            && let Some(socket) = socket(ctx)
            && (*socket).src_port == 0
        {
            own::note_asked(socket.cast_mut().cast(), key.subject.address, port);
        }
    }
    verdict
}

/// Whether a connect(2) that is denied sorts addresses for TCP ([`net::sorts`]).
#[inline(always)]
fn sorts(request: &Request, key: &mut Key<NetSubject>, denied: Decision) -> bool {
    let sorts = net::sorts(denied, request.address, request.port, is, |address| {
        key.subject.address = address;
        let request = Request { protocol: Protocol::TCP, address, ..*request };
        let decision = judged(|| net::decide(filled(&NET_TABLE), &KernelTables::of(key), &request));
        decision.is_some_and(|decision| decision.allow)
    });
    key.subject.address = request.address;
    sorts
}

/// listen(2) by TCP: the socket may have a port now that no bind hook has seen. Nothing can be refused here, but nobody gets
/// through to a socket at another port than the one that is noted here ([`crate::packet::ingress`]): so there is no moment
/// at which it listens and was not judged.
#[inline(always)]
pub fn listen(event: &mut Event) {
    let table = filled(&NET_TABLE);
    let Event { ops, op, known, .. } = event;
    // Nobody gets through to what isn't noted here, if the policy judges it.
    if !table.judges(Op::BIND) || *op != BPF_SOCK_OPS_TCP_LISTEN_CB {
        return;
    }
    let ops = *ops;
    // SAFETY: the verifier checks each access to the context. Volatile, since the context allows no access wider than a
    // field, and no choice between two of them.
    let (address, port) = unsafe {
        let (v4, v6) = ((&raw const (*ops).local_ip4).read_volatile(), words(&raw const (*ops).local_ip6));
        let family = (&raw const (*ops).family).read_volatile();
        let address = Address::v6(v6).or_v4(v4, is(family, socket::INET));
        (address, (&raw const (*ops).local_port).read_volatile() as u16)
    };
    let request = Request { op: Op::BIND, protocol: Protocol::TCP, address, port, own: 1 };
    let mut draft = Draft::new(Hook::SockOps, subject(&request, protocol::TCP));
    let key = draft.key();
    let Some(ledger) = Ledger::of(Hook::SockOps) else { return };
    let asked = is(known.asked.into(), port.into());
    let verdict = match judged(|| net::decide_listener(table, &KernelTables::of(key), &request, asked)) {
        None => ledger.deny_unjudged(),
        Some(decision) => ledger.conclude(decision, &NET_TALLIES, key, |_| Maker(known.owner)),
    };
    known.served = port & 0_u16.wrapping_sub(verdict.cast_unsigned() as u16);
}

/// The protocol of that number.
#[inline(always)]
pub fn protocol_of(number: u32) -> Protocol {
    // Where the compiler knows that the number is a byte it would leave out the mask; the verifier of Linux 6.1 needs it.
    Protocol::from_ipproto(opaque(u64::from(number)) as u32)
}

/// What is recorded of a request by a protocol of this number.
#[inline(always)]
pub fn subject(request: &Request, protocol: u32) -> NetSubject {
    subject_of(request.op, request.address, request.port, protocol)
}

/// What is recorded of what is asked of an address and port.
#[inline(always)]
pub fn subject_of(op: Op, address: Address, port: u16, protocol: u32) -> NetSubject {
    NetSubject { address, port, op: op.index() as u8, padding: 0, protocol: protocol as u16, local_port: 0 }
}

/// The IPv4 address that the system call names.
#[inline(always)]
fn user4(ctx: &SockAddrContext) -> Address {
    // SAFETY: the verifier checks the access to the context.
    Address::v4(unsafe { (*ctx.sock_addr).user_ip4 })
}

/// The IPv6 address that the system call names.
#[inline(always)]
fn user6(ctx: &SockAddrContext) -> Address {
    // SAFETY: as above.
    Address::v6(unsafe { words(&raw const (*ctx.sock_addr).user_ip6) })
}

/// The IPv4 address that the socket is bound to.
#[inline(always)]
fn bound4(ctx: &SockAddrContext) -> Address {
    // SAFETY: the verifier knows the socket, which is there for as long as the program runs.
    Address::v4(unsafe { socket(ctx).map_or(0, |sock| (*sock).src_ip4) })
}

/// The IPv6 address that the socket is bound to.
#[inline(always)]
fn bound6(ctx: &SockAddrContext) -> Address {
    // SAFETY: as above.
    socket(ctx).map_or(Address::UNSPECIFIED6, |sock| Address::v6(unsafe { words(&raw const (*sock).src_ip6) }))
}

/// An IPv6 address in a context or a socket, word by word: the kernel allows no wider access.
///
/// # Safety
///
/// The verifier must allow it.
#[inline(always)]
pub unsafe fn words(address: *const [u32; 4]) -> [u32; 4] {
    let first = address.cast::<u32>();
    // SAFETY: the caller's promise.
    core::array::from_fn(|i| unsafe { first.add(i).read_volatile() })
}

/// Who receives what this socket sends to a loopback address, as [`receiver`] has it. Should it not come from where is thought,
/// the packet is denied when it leaves.
#[inline(always)]
fn receives(ctx: &SockAddrContext, protocol: Protocol, family: Family, destination: (Address, u16)) -> u32 {
    // SAFETY: as above.
    let (bound4, bound6, port) = unsafe {
        socket(ctx).map_or((0, [0; 4], 0), |sock| {
            ((*sock).src_ip4, words(&raw const (*sock).src_ip6), (*sock).src_port as u16)
        })
    };
    let v4 = destination.0.v4_mask(is);
    let source = family(net::loopback_source(v4, bound4, bound6, is));
    own::receives(ctx, protocol, (source, port), destination)
}

/// The socket of an address hook, if the kernel says which.
#[inline(always)]
fn socket(ctx: &SockAddrContext) -> Option<*const bpf_sock> {
    // SAFETY: the verifier checks the access; the union has the one member that matters here.
    let sock = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    (!sock.is_null()).then_some(sock.cast_const())
}
