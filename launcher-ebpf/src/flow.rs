//! Counting what the command reaches, if the user asked for that. Nothing here denies anything.
//!
//! Whoever judges packets and sockets at the same hooks calls [`created`], [`sent`] and [`received`] for what it lets go
//! on.

mod tcp;
mod udp;

use core::{cell::UnsafeCell, ffi::c_void, ptr};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_def,
        bpf_map_type::BPF_MAP_TYPE_SK_STORAGE,
    },
    helpers::generated::{bpf_get_current_comm, bpf_ktime_get_boot_ns, bpf_sk_storage_get},
    macros::map,
    maps::{HashMap, PerCpuArray},
    programs::SockContext,
};
use common::{
    flow::{Key, News, Owner, Socket, Tally, config},
    record::Hook,
};

pub use self::{
    tcp::sock_ops,
    udp::{received, sent},
};
use crate::{
    record::{add, announce},
    rodata::filled,
};

/// What is wanted: bits of [`config`].
#[unsafe(no_mangle)]
pub static FLOW_CONFIG: u32 = 0;

/// The flows.
#[map]
static FLOWS: HashMap<Key, Tally> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// Connections and datagrams that are in no flow, there being no room for another one.
#[map]
static FLOWS_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// A map that keeps a value with each socket. (aya has one, but only as a map that is described by BTF.)
#[repr(transparent)]
struct SocketStorage(UnsafeCell<bpf_map_def>);

// SAFETY: the program never looks at the definition: it is what the loader makes the map from.
unsafe impl Sync for SocketStorage {}

/// What is known of each socket. An accepted socket begins with a copy of what is known of the listening one: that is
/// how it gets its owner.
#[map]
static SOCKETS: SocketStorage = SocketStorage(UnsafeCell::new(bpf_map_def {
    type_: BPF_MAP_TYPE_SK_STORAGE,
    key_size: size_of::<i32>() as u32,
    value_size: size_of::<Socket>() as u32,
    max_entries: 0,
    map_flags: BPF_F_NO_PREALLOC | BPF_F_CLONE,
    id: 0,
    pinning: 0,
}));

/// Whether any of these bits is set.
#[inline(always)]
fn wanted(bits: u32) -> bool {
    *filled(&FLOW_CONFIG) & bits != 0
}

/// What is known of a socket, from now on if nothing has been so far. `sk` may be any pointer to a socket that the
/// verifier takes. `None` where there is no memory, or no whole socket.
#[inline(always)]
fn socket(sk: *mut c_void) -> Option<*mut Socket> {
    let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: a map's static is its address for the kernel; without a first value, the kernel fills in zeroes, which
    // are a valid one. The verifier checks the socket.
    let socket = unsafe { bpf_sk_storage_get(SOCKETS.0.get().cast(), sk, ptr::null_mut(), flags) };
    let socket = socket.cast::<Socket>();
    (!socket.is_null()).then_some(socket)
}

/// A process has made a socket.
#[inline(always)]
pub fn created(ctx: &SockContext) {
    if !wanted(config::COUNT) {
        return;
    }
    let Some(socket) = socket(ctx.as_ptr()) else { return };
    let mut owner = Owner { pid: ctx.tgid(), uid: ctx.uid(), comm: [0; 2] };
    // SAFETY: the buffer is as long as is said; the value belongs to the socket, which nobody else has yet.
    unsafe {
        bpf_get_current_comm((&raw mut owner.comm).cast(), size_of_val(&owner.comm) as u32);
        (*socket).owner = owner;
    }
}

/// Now, in nanoseconds of `CLOCK_BOOTTIME`.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: takes no arguments and has no effects.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// The flow of that identity, if there is one. Nothing is ever deleted from the map, so it stays where it is; it is shared
/// with other CPUs, so it is only changed by [`add`] and [`touch`].
#[inline(always)]
fn find(key: &Key) -> Option<&'static Tally> {
    // SAFETY: as above.
    FLOWS.get_ptr_mut(key).map(|tally| unsafe { &*tally })
}

/// The flow of that identity, a new one if need be. `None` if there is no room for it.
#[inline(always)]
fn find_or_begin(key: &Key, owner: Owner, now: u64) -> Option<&'static Tally> {
    if let Some(tally) = find(key) {
        return Some(tally);
    }
    let fresh =
        Tally { begun: 0, ended: 0, bytes_sent: 0, bytes_received: 0, duration: 0, first: now, last: now, owner };
    // If another CPU is faster, this fails, and it is there, too.
    if FLOWS.insert(key, &fresh, u64::from(BPF_NOEXIST)).is_ok() {
        announce(Hook::SockOps, &News { hook: Hook::SockOps as u8, padding: [0; 3], pid: owner.pid, first: now });
    }
    find(key)
}

/// Notes when a flow last changed.
#[inline(always)]
fn touch(tally: &Tally, now: u64) {
    // SAFETY: a single aligned store into a map's value, of which any of two at the same time may win.
    unsafe { (&raw const tally.last).cast_mut().write_volatile(now) }
}

/// Counts what is in no flow.
#[inline(always)]
fn lose(count: u64) {
    if let Some(lost) = FLOWS_LOST.get_ptr_mut(0) {
        // SAFETY: the map lives as long as the program, and the element is only changed atomically.
        add(unsafe { &*lost }, count);
    }
}
