//! The sandbox's own sockets: each is marked with the process that made it. So it can be told whether the peer of a
//! request is one of them, and to whom a packet is to be put down that the kernel handles outside any system call.

use core::{cell::UnsafeCell, ffi::c_void};

use aya_ebpf::{
    EbpfContext,
    bindings::{
        BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB, bpf_map_def,
        bpf_map_type::BPF_MAP_TYPE_SK_STORAGE, bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
    },
    helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release, bpf_sk_storage_get},
    macros::map,
    programs::{SockContext, SockOpsContext},
};
use common::{
    net::{Address, Protocol},
    record::Owner,
};

use crate::{
    net::NET_TABLE,
    record::{Current, Process},
    rodata::filled,
};

/// A map that hangs a value on sockets, for which aya has no type.
#[repr(transparent)]
pub struct SocketStorage(UnsafeCell<bpf_map_def>);

// SAFETY: a definition that nobody changes; what it stands for, the kernel shares safely.
unsafe impl Sync for SocketStorage {}

/// Who made each of the sandbox's sockets. What accept(2) makes inherits it from the listener, and all of it goes away
/// with the socket. Only this run's programs know the map, so the sockets of another sandbox are not in it.
#[map]
static OWNERS: SocketStorage = SocketStorage(UnsafeCell::new(bpf_map_def {
    type_: BPF_MAP_TYPE_SK_STORAGE,
    key_size: size_of::<u32>() as u32,
    value_size: size_of::<Owner>() as u32,
    max_entries: 0,
    map_flags: BPF_F_NO_PREALLOC | BPF_F_CLONE,
    id: 0,
    pinning: 0,
}));

/// `BPF_SK_STORAGE_GET_F_CREATE` (include/uapi/linux/bpf.h).
const CREATE: u64 = 1;
/// `BPF_F_CURRENT_NETNS`: the network namespace of the context's socket.
const CURRENT_NETNS: u64 = u64::MAX;

/// Marks a socket as this process's, unless it is marked already.
#[inline(always)]
fn mark(socket: *mut c_void) {
    let mut owner = Current.describe();
    // SAFETY: the map's static is its address for the kernel, and the value has the size that it was declared with.
    // Without memory for the mark the socket counts as nobody's, and a rule on the sandbox's own doesn't meet it.
    unsafe { bpf_sk_storage_get(OWNERS.0.get().cast(), socket, (&raw mut owner).cast(), CREATE) };
}

/// Marks a new socket.
#[inline(always)]
pub fn mark_new(ctx: &SockContext) {
    mark(ctx.as_ptr());
}

/// Marks a socket that begins to listen or to connect, in case the kernel has made it: MPTCP's connections are TCP
/// sockets of the kernel's, for which no `sock_create` program runs.
#[inline(always)]
pub fn mark_active(ctx: &SockOpsContext) {
    // SAFETY: the verifier checks each access to the context.
    let (op, socket) = unsafe { ((*ctx.ops).op, (*ctx.ops).__bindgen_anon_2.sk) };
    if (op == BPF_SOCK_OPS_TCP_LISTEN_CB || op == BPF_SOCK_OPS_TCP_CONNECT_CB) && !socket.is_null() {
        mark(socket.cast());
    }
}

/// Who made a socket, if it is one of the sandbox's.
///
/// # Safety
///
/// The verifier must know the socket.
#[inline(always)]
pub unsafe fn owner(socket: *mut bpf_sock) -> Option<&'static Owner> {
    // SAFETY: the map's static is its address for the kernel; nothing changes a mark, which lives as long as its socket.
    unsafe {
        bpf_sk_storage_get(OWNERS.0.get().cast(), socket.cast(), core::ptr::null_mut(), 0).cast::<Owner>().as_ref()
    }
}

/// Whoever made a socket, where the process that runs has nothing to do with it.
pub struct Maker(Owner);

impl Maker {
    /// The maker of a socket; all zero if nobody knows.
    ///
    /// # Safety
    ///
    /// The verifier must know the socket.
    #[inline(always)]
    pub unsafe fn of(socket: *mut bpf_sock) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { owner(socket) }.copied().unwrap_or(Owner { pid: 0, uid: 0, comm: [0; 2] }))
    }
}

impl Process for Maker {
    #[inline(always)]
    fn pid(&self) -> u32 {
        self.0.pid
    }

    #[inline(always)]
    fn describe(&self) -> Owner {
        self.0
    }
}

/// Whether any rule of the policy is about the sandbox's own sockets.
#[inline(always)]
pub fn matters() -> bool {
    let rules = &filled(&NET_TABLE).own;
    rules.word(0) | rules.word(1) | rules.word(2) | rules.word(3) != 0
}

/// 1 if what is sent to `destination` from `source` is received by one of the sandbox's own sockets, by the kernel's own
/// search for the receiver; else 0. A source that isn't known yet is unspecified.
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
    let ((saddr, sport), (daddr, dport)) = (source, destination);
    let (sport, dport) = (sport.to_be(), dport.to_be());
    let mut tuple = bpf_sock_tuple {
        __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 {
            ipv6: bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
                saddr: saddr.words(),
                daddr: daddr.words(),
                sport,
                dport,
            },
        },
    };
    let mut size = size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2>();
    if daddr.is_v4() {
        let ([_, _, _, saddr], [_, _, _, daddr]) = (saddr.words(), daddr.words());
        tuple.__bindgen_anon_1.ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 { saddr, daddr, sport, dport };
        size = size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>();
    }
    let (ctx, size) = (ctx.as_ptr(), size as u32);
    // SAFETY: the tuple has the size said. The socket that is found is held until it is released, whatever it is.
    unsafe {
        let mut found = match protocol {
            Protocol::TCP => bpf_sk_lookup_tcp(ctx, &raw mut tuple, size, CURRENT_NETNS, 0),
            Protocol::UDP => bpf_sk_lookup_udp(ctx, &raw mut tuple, size, CURRENT_NETNS, 0),
            _ => return 0,
        };
        if found.is_null() && protocol == Protocol::TCP {
            // What is left of an earlier connection from the same port (TIME_WAIT) hides the listener, which will get the
            // new one. Without the port, the search passes it by.
            if daddr.is_v4() {
                tuple.__bindgen_anon_1.ipv4.sport = 0;
            } else {
                tuple.__bindgen_anon_1.ipv6.sport = 0;
            }
            found = bpf_sk_lookup_tcp(ctx, &raw mut tuple, size, CURRENT_NETNS, 0);
        }
        if found.is_null() {
            return 0;
        }
        let own = owner(found).is_some();
        bpf_sk_release(found.cast());
        u32::from(own)
    }
}
