//! Counting what the command reaches, if the user asked for that. Nothing here denies anything.
//!
//! [`sent`] and [`received`] are called for packets that are let through.

mod tcp;
mod udp;

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    helpers::generated::bpf_ktime_get_boot_ns,
    macros::map,
    maps::{HashMap, PerCpuArray},
};
use common::{
    flow::{Key, News, Tally},
    record::{Hook, Owner},
};

pub use self::{
    tcp::{CALLBACKS, happened, missed},
    udp::{received, sent},
};
use crate::{
    record::{add, announce},
    rodata::{PLAIN, filled},
};

/// 1: flows are counted.
#[unsafe(no_mangle)]
pub static COUNT_FLOWS: u32 = 0;

/// The flows.
#[map]
static FLOWS: HashMap<Key, Tally> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// Connections and datagrams that are in no flow, there being no room for another one.
#[map]
static FLOWS_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Whether flows are counted.
#[inline(always)]
pub fn wanted() -> bool {
    !PLAIN && *filled(&COUNT_FLOWS) != 0
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
