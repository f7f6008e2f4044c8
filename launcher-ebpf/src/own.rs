//! The sandbox's own sockets: each is marked with the process that made it. So it can be told whether the peer of a
//! request is one of them, and to whom a packet is to be put down that the kernel handles outside any system call.

use core::{cell::UnsafeCell, ffi::c_void, ptr};

use aya_ebpf::{
    EbpfContext,
    bindings::{
        BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_TCP_CONNECT_CB,
        BPF_SOCK_OPS_TCP_LISTEN_CB, bpf_map_def, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE, bpf_sock, bpf_sock_ops,
    },
    helpers::generated::{
        bpf_get_current_cgroup_id, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release, bpf_sk_storage_get,
        bpf_skc_to_mptcp_sock,
    },
    macros::map,
    programs::{SockContext, SockOpsContext},
};
use common::{
    flow::Socket,
    net::{self, Address, Op, Protocol},
    record::{Owner, Tally},
};

use crate::{
    flow,
    net::NET_TABLE,
    record::{Current, Process},
    rodata::{PLAIN, audit, filled},
    verifier::{is, opaque, opaque_pointer},
};

/// 1: the kernel has MPTCP, so a TCP socket may belong to another one, which a process knows it by. Without it, the
/// verifier refuses to look for that.
#[unsafe(no_mangle)]
pub static HAS_MPTCP: u32 = 0;

/// A map that keeps a value with each socket. (aya has one, but only as a map that is described by BTF.)
#[repr(transparent)]
pub struct SocketStorage(pub(crate) UnsafeCell<bpf_map_def>);

impl SocketStorage {
    /// A map of such values, with flags besides `BPF_F_NO_PREALLOC`, which the kernel demands.
    pub const fn of<T>(flags: u32) -> Self {
        Self(UnsafeCell::new(bpf_map_def {
            type_: BPF_MAP_TYPE_SK_STORAGE,
            key_size: size_of::<u32>() as u32,
            value_size: size_of::<T>() as u32,
            max_entries: 0,
            map_flags: BPF_F_NO_PREALLOC | flags,
            id: 0,
            pinning: 0,
        }))
    }
}

// SAFETY: a definition that nobody changes; what it stands for, the kernel shares safely.
unsafe impl Sync for SocketStorage {}

/// What is known of each of the sandbox's sockets, first of all who made it. What accept(2) makes begins with a copy of what
/// is known of the listener, and all of it goes away with the socket. Only one run's programs at a time know the map, and no
/// socket of an earlier run is left by then (`enforce::load::CacheEntry`): so the sockets of another sandbox are not in it.
#[map]
static SOCKETS: SocketStorage = SocketStorage::of::<Socket>(BPF_F_CLONE);

/// The size of a `bpf_sock_tuple` for IPv4.
const SIZE4: u32 = 12;
/// The size of one for IPv6.
const SIZE6: u32 = 36;

/// `BPF_F_CURRENT_NETNS`: the network namespace of the context's socket.
const CURRENT_NETNS: u64 = u64::MAX;

/// What is known of a socket, from now on if nothing has been so far. `None` where there is no memory (then it counts as
/// nobody's, and a rule on the sandbox's own doesn't meet it) or no whole socket.
///
/// # Safety
///
/// The verifier must take the pointer for one to a socket.
#[inline(always)]
pub unsafe fn known(socket: *mut c_void) -> Option<*mut Socket> {
    let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: a map's static is its address for the kernel; without a first value, the kernel fills in zeroes, which
    // are a valid one. The socket is the caller's promise.
    let known = unsafe { bpf_sk_storage_get(SOCKETS.0.get().cast(), socket, ptr::null_mut(), flags) };
    let known = known.cast::<Socket>();
    (!known.is_null()).then_some(known)
}

/// Marks a new socket as this process's.
#[inline(always)]
pub fn mark_new(ctx: &SockContext) {
    // SAFETY: the context is the socket, and the value belongs to it; nobody else has it yet.
    unsafe {
        if let Some(known) = known(ctx.as_ptr()) {
            (*known).owner = Current.owner();
            (*known).own = 1;
        }
    }
}

/// Something that happens to a TCP socket.
pub struct Event {
    /// The callback's context.
    pub ops: *mut bpf_sock_ops,
    /// Which callback it is, `BPF_SOCK_OPS_*_CB`.
    pub op: u32,
    /// The socket, which the verifier knows.
    socket: *mut c_void,
    /// What is known of it.
    pub known: &'static mut Socket,
}

/// The callbacks about a socket that begins to listen or to connect.
const BEGINNINGS: u32 = 1 << BPF_SOCK_OPS_TCP_LISTEN_CB | 1 << BPF_SOCK_OPS_TCP_CONNECT_CB;

impl Event {
    /// What a callback is about, if it matters to this policy.
    #[inline(always)]
    pub fn of(ctx: &SockOpsContext) -> Option<Self> {
        let ops = ctx.ops;
        // SAFETY: the verifier checks each access to the context. Volatile, since the context allows no access wider than a
        // field.
        let (op, socket): (u32, *mut c_void) = unsafe {
            ((&raw const (*ops).op).read_volatile(), (&raw const (*ops).__bindgen_anon_2.sk).read_volatile().cast())
        };
        let mut matter = 0;
        if filled(&NET_TABLE).judges(Op::BIND) {
            matter |= 1 << BPF_SOCK_OPS_TCP_LISTEN_CB;
        }
        if *filled(&HAS_MPTCP) != 0 {
            matter |= BEGINNINGS;
        }
        if flow::wanted() {
            matter |= BEGINNINGS | flow::CALLBACKS;
        }
        // Every callback that there is has a number below 32.
        if opaque(u64::from(matter >> (op & 31))) & 1 == 0 || op > 31 || socket.is_null() {
            return None;
        }
        // Nobody gets through to a listener of which nothing can be known.
        // SAFETY: it is the context's own socket. The kernel calls this with the socket locked, and keeps the value as long
        // as the socket.
        let Some(known) = (unsafe { known(socket).map(|known| &mut *known) }) else {
            if flow::wanted() {
                flow::missed(op);
            }
            return None;
        };
        // SAFETY: as above.
        Some(Self { ops, op, socket, known })
    }

    /// Whether a socket begins to listen or to connect. Then it is marked, in case the kernel has made it: MPTCP's
    /// connections are TCP sockets of the kernel's, for which no `sock_create` program runs. It belongs to the process that made the
    /// MPTCP socket.
    #[inline(always)]
    pub fn begins(&mut self) -> bool {
        if self.op != BPF_SOCK_OPS_TCP_LISTEN_CB && self.op != BPF_SOCK_OPS_TCP_CONNECT_CB {
            return false;
        }
        self.known.connects = u8::from(self.op == BPF_SOCK_OPS_TCP_CONNECT_CB);
        if *filled(&HAS_MPTCP) != 0 {
            // SAFETY: the verifier checks the sockets. The owner was written before anybody else had the socket.
            unsafe {
                let whole = bpf_skc_to_mptcp_sock(self.socket);
                if !whole.is_null()
                    && let Some(whole) = known(whole.cast())
                {
                    self.known.owner = (*whole).owner;
                    if self.known.asked == 0 {
                        self.known.asked = (*whole).asked;
                    }
                    self.known.own = (*whole).own;
                    self.known.mixed |= (*whole).mixed;
                }
            }
        }
        true
    }
}

/// The id of the hierarchy's root, in which the kernel's own threads are.
const ROOT_CGROUP: u64 = 1;

/// Whether it is the kernel itself that binds a socket, for a further path of an MPTCP connection (`__mptcp_subflow_connect`): to an address
/// that the system's administrator has named (`ip mptcp endpoint`). A worker of the kernel's does that.
///
/// # Safety
///
/// The verifier must take the pointer for one to a socket.
#[inline(always)]
pub unsafe fn is_further_path(socket: *mut c_void) -> bool {
    // SAFETY: the caller's promise; the other takes no arguments.
    *filled(&HAS_MPTCP) != 0
        && unsafe { bpf_get_current_cgroup_id() == ROOT_CGROUP && !bpf_skc_to_mptcp_sock(socket).is_null() }
}

/// Notes that a socket may have been told its source: by a bind(2) that names an address, whether or not the kernel, or the policy, lets it, or by an option.
///
/// # Safety
///
/// The verifier must take the pointer for one to a socket.
#[inline(always)]
pub unsafe fn note_told_source(socket: *mut c_void) {
    // SAFETY: the caller's promise; the kernel calls this with the socket locked. A socket of which nothing can be kept counts as one with several
    // peers ([`Peers::of`]).
    unsafe {
        if let Some(known) = known(socket) {
            (*known).bound = 1;
        }
    }
}

/// Notes the address and the port, in host byte order, that a bind(2) names which the policy allows.
///
/// # Safety
///
/// The verifier must take the pointer for one to a socket.
#[inline(always)]
pub unsafe fn note_asked(socket: *mut c_void, address: Address, port: u16) {
    // SAFETY: the caller's promise; the kernel calls this with the socket locked.
    unsafe {
        if let Some(known) = known(socket) {
            ((*known).asked_address, (*known).asked) = (address, port);
        }
    }
}

/// Notes that a TCP socket is to be connected to a loopback address at which nobody listens, or that it isn't (`found`, as
/// [`receiver`] has it): the former was let through only because it goes to nobody, and may be on its way to another address (NAT).
///
/// # Safety
///
/// The verifier must take the pointer for one to a socket.
#[inline(always)]
pub unsafe fn note_nobody(socket: *mut c_void, found: u32) {
    // SAFETY: the caller's promise; the kernel calls this with the socket locked.
    unsafe {
        if let Some(known) = known(socket) {
            (*known).mixed = found & receiver::NOBODY;
        }
    }
}

/// Notes that a socket may broadcast from now on. `false` if it must not: since that can't be kept, or it has had several peers, to which another thread
/// may still be connecting it.
///
/// # Safety
///
/// The verifier must take the pointer for one to a socket.
#[inline(always)]
pub unsafe fn note_broadcast(socket: *mut c_void) -> bool {
    // SAFETY: the caller's promise; the kernel calls this with the socket locked.
    unsafe {
        known(socket).is_some_and(|known| {
            (*known).copied = 1;
            (*known).mixed & 1 == 0
        })
    }
}

/// Notes whom a UDP socket is to be connected to, or who is to receive a datagram of it, where the policy allows that. Before the kernel
/// acts on it: so what comes of several peers comes of a socket of which that is known. The kernel calls both hooks with the
/// socket locked. What goes to nobody (`found`, as [`receiver`] has it) is judged once more, by what the packet says.
///
/// Returns 1 if that is to be refused, else 0: a datagram to a group or as a broadcast that waits for more gets the address of the next peer
/// (`MSG_MORE`), and IPv4 hands this host's own sockets a copy of it, which no hook sees. What is refused is noted in audit mode alone, in
/// which it goes on.
///
/// # Safety
///
/// The verifier must take the pointer for one to a socket.
#[inline(always)]
pub unsafe fn note_peer(socket: *mut c_void, op: Op, address: Address, port: u16, found: u32) -> u32 {
    // SAFETY: the caller's promise. Of a socket of which nothing can be kept it is not known whether it has sent to several.
    let Some(known) = (unsafe { known(socket).map(|known| &mut *known) }) else { return 1 };
    let connects = op == Op::CONNECT;
    let differs = known.peer.difference(address) | u32::from(known.peer_port ^ port);
    let is_first = known.connected | known.named == 0;
    let differs = if is_first { 0 } else { !is(differs, 0) & 1 };
    let (others, connected) = (u32::from(known.named) >> 1, u32::from(known.connected));
    // Another thread may still be on its way to an earlier peer.
    let several = known.mixed & 1 | if connects { others | differs } else { connected & differs };
    let copied = known.copied | address.v4_mask(is) & net::is_for_several(address, is) & 1;
    let refused = if filled(&NET_TABLE).keeps_copies() { several & copied } else { 0 };
    if refused != 0 && audit() == 0 {
        return 1;
    }
    known.copied = copied;
    known.mixed |= found & receiver::NOBODY | several;
    if is_first {
        (known.peer, known.peer_port) = (address, port);
    }
    if connects {
        known.connected = 1;
    } else {
        known.named |= 1 | (differs << 1) as u8;
    }
    refused
}

/// Whom a UDP socket has been connected to. Values, so that the verifier need not follow what comes after once with and once without
/// a socket's storage.
pub struct Peers {
    mixed: u32,
    connected: u32,
    first: Address,
    bound: u32,
}

impl Peers {
    /// The peers of a socket. One of which nothing is known may have had any; `unknown` is a number of which the verifier knows
    /// nothing, so that it goes on once for both.
    ///
    /// # Safety
    ///
    /// The verifier must know the socket.
    #[inline(always)]
    pub unsafe fn of(socket: *mut bpf_sock, unknown: u32) -> Self {
        // SAFETY: the caller's promise.
        if let Some(known) = unsafe { storage(socket) } {
            return Self {
                mixed: known.mixed,
                connected: known.connected.into(),
                first: known.peer,
                bound: known.bound,
            };
        }
        Self { mixed: unknown | 1, connected: unknown, first: Address::v6([unknown; 4]), bound: 1 }
    }

    /// All ones if the socket has several peers, else 0.
    #[inline(always)]
    pub fn are_several(&self) -> u32 {
        !is(self.mixed, 0)
    }

    /// All ones if a bind(2) has named an address for the socket, or an option frees its source, else 0. Then what its packets say of their source is what it was told: the kernel binds to
    /// addresses that are not this host's (`IP_FREEBIND`, `net.ipv4.ip_nonlocal_bind`), and asks only for a route whether they are.
    #[inline(always)]
    pub fn are_told_another_source(&self) -> u32 {
        !is(self.bound, 0)
    }

    /// All ones if a packet to this address may go elsewhere than a hook has judged, else 0: its socket has several peers, or the
    /// packet stays on this host (`stays`: all ones) and the one peer has another address. The latter is what the kernel makes of a
    /// peer that is gone when it looks again (0.0.0.0, and so 127.0.0.1 or a device's own address).
    #[inline(always)]
    pub fn may_stray(&self, stays: u32, address: Address) -> u32 {
        self.are_several() | stays & !is(self.connected, 0) & !is(self.first.difference(address), 0)
    }
}

/// What is known of a socket, if anything is.
///
/// # Safety
///
/// The verifier must know the socket.
#[inline(always)]
unsafe fn storage(socket: *mut bpf_sock) -> Option<&'static Socket> {
    // SAFETY: a map's static is its address for the kernel; the value lives as long as its socket.
    unsafe { bpf_sk_storage_get(SOCKETS.0.get().cast(), socket.cast(), ptr::null_mut(), 0).cast::<Socket>().as_ref() }
}

/// Whether a socket may listen at this port.
///
/// # Safety
///
/// The verifier must know the socket.
#[inline(always)]
pub unsafe fn is_served(socket: *mut bpf_sock, port: u16) -> bool {
    // SAFETY: the caller's promise. What nothing is known of is a listener that was never judged.
    unsafe { storage(socket) }.is_some_and(|known| known.served == port)
}

/// Whether a bind(2) that the policy allows has named this port for a socket, and `used`, the address of this host's in a packet, or
/// all addresses. That bind(2) may have failed, and then the kernel may have chosen the port, for all addresses: so it says nothing
/// of those that it didn't name.
///
/// A socket that is bound to addresses by which it can only receive (`bound`) sends from others.
///
/// # Safety
///
/// The verifier must know the socket.
#[inline(always)]
pub unsafe fn is_asked(socket: *mut bpf_sock, bound: Address, (used, port): (Address, u16)) -> bool {
    // SAFETY: the caller's promise.
    unsafe { storage(socket) }.is_some_and(|known| {
        let asked = known.asked_address;
        let receives = net::is_for_several(asked, is) & is(asked.difference(bound), 0);
        let named =
            is(known.asked.into(), port.into()) & !is(port.into(), 0) & (net::includes(asked, used, is) | receives);
        opaque(named.into()) != 0
    })
}

/// The process that made a socket, where the process that runs has nothing to do with it.
pub struct Maker(pub Owner);

impl Maker {
    /// The maker of a socket; all zero if nobody knows.
    ///
    /// # Safety
    ///
    /// The verifier must know the socket.
    #[inline(always)]
    pub unsafe fn of(socket: *mut bpf_sock) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { storage(socket) }.map_or_else(Owner::default, |known| known.owner))
    }
}

impl Process for Maker {
    #[inline(always)]
    fn pid(&self) -> u32 {
        self.0.pid
    }

    #[inline(always)]
    fn comm(&self) -> [u64; 2] {
        self.0.comm
    }

    #[inline(always)]
    fn describe(&self, tally: &mut Tally) {
        let Owner { uid, comm, .. } = self.0;
        (tally.uid, tally.comm) = (uid, comm);
    }
}

/// Whether any rule of the policy is about the sandbox's own sockets.
#[inline(always)]
pub fn matters() -> bool {
    !PLAIN && filled(&NET_TABLE).by_own != 0
}

/// Who receives what is sent to a loopback address, as bits.
pub mod receiver {
    use crate::verifier::is;

    /// A socket of the sandbox's own.
    pub const OWN: u32 = 1;
    /// There is no such socket.
    pub const NOBODY: u32 = 2;

    /// All ones if it is one of the sandbox's own sockets, else 0.
    #[inline(always)]
    pub fn is_own(found: u32) -> u32 {
        is(found, OWN)
    }

    /// All ones if there is no such socket, else 0.
    #[inline(always)]
    pub fn is_nobody(found: u32) -> u32 {
        is(found, NOBODY)
    }
}

/// Who receives what is sent to `destination` from `source`, as [`receiver`] has it, by the kernel's own search for the
/// receiver. A source that isn't known yet is unspecified.
///
/// Meant for loopback addresses only: the search does not ask whether an address is this host's, and a socket that is
/// bound to none would be found for the whole world's.
#[inline(always)]
pub fn receives(
    ctx: &impl EbpfContext,
    protocol: Protocol,
    source: (Address, u16),
    destination: (Address, u16),
) -> u32 {
    let ([a, b, c, d], [e, f, g, h]) = (source.0.words(), destination.0.words());
    let ports = |source: u16| u32::from(source.to_be()) | u32::from(destination.1.to_be()) << 16;
    // A `bpf_sock_tuple`: addresses and ports, one behind the other. An IPv4 address begins with two words of 0, which make
    // room for the last words of both; where the third is, the ports are then.
    let v4 = destination.0.v4_mask(is);
    let third = |ports: u32| c ^ (c ^ ports) & v4;
    let (known, unknown) = (ports(source.1), ports(0));
    let mut tuple = [a | d & v4, b | h & v4, third(known), d, e, f, g, h, known];
    let size = opaque(u64::from(SIZE4 + ((SIZE6 - SIZE4) & !v4))) as u32;
    // What is compared is not the number itself: it would be known from then on, and with it the rules on the protocol, so
    // that the verifier would follow all that comes after once for each.
    let differs = |from: Protocol| opaque((protocol.index() ^ from.index()) as u64) != 0;
    let ctx = ctx.as_ptr();
    // SAFETY: the tuple has the size said. The socket that is found is held until it is released, whatever it is.
    unsafe {
        let mut found = if !differs(Protocol::TCP) {
            let mut found = bpf_sk_lookup_tcp(ctx, tuple.as_mut_ptr().cast(), size, CURRENT_NETNS, 0);
            if found.is_null() {
                // What is left of an earlier connection from the same port (TIME_WAIT) hides the listener, which will get
                // the new one. Without the port, the search passes it by.
                (tuple[2], tuple[8]) = (third(unknown), unknown);
                found = bpf_sk_lookup_tcp(ctx, tuple.as_mut_ptr().cast(), size, CURRENT_NETNS, 0);
            }
            found
        } else if !differs(Protocol::UDP) {
            bpf_sk_lookup_udp(ctx, tuple.as_mut_ptr().cast(), size, CURRENT_NETNS, 0)
        } else {
            return 0;
        };
        // The compiler would write what follows once for each of the searches.
        found = opaque_pointer(found);
        if found.is_null() {
            return receiver::NOBODY;
        }
        let own = storage(found).map_or(0, |known| known.own);
        bpf_sk_release(found.cast());
        own
    }
}
