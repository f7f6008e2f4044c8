//! Counting verdicts and recording denials.

use core::borrow::Borrow;

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_get_current_comm, bpf_ktime_get_boot_ns},
    macros::map,
    maps::{HashMap, PerCpuArray, RingBuf},
};
use common::{
    Decision,
    record::{Counters, Hook, Key, Tally},
};

use crate::rodata;

/// What each hook has done, indexed by [`Hook`].
#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(Hook::ALL.len() as u32, 0);

/// Keys of new denials on their way to the launcher.
#[map]
static NEWS: RingBuf = RingBuf::with_byte_size(128 * 1024, 0);

/// Counts what was decided, and records a denial under its `key`, which is made for denials only (or lent, where it is
/// too large to be moved). Returns what the hook
/// has to return: 1 to let the request go on, 0 to refuse it.
#[inline(always)]
pub fn conclude<S, K: Borrow<Key<S>>>(
    hook: Hook,
    decision: Decision,
    tallies: &HashMap<Key<S>, Tally>,
    ctx: &impl EbpfContext,
    key: impl FnOnce() -> K,
) -> i32 {
    let Some(counters) = counters(hook) else { return 0 };
    if decision.allow {
        increment(&counters.allowed);
        return 1;
    }
    increment(&counters.denied);
    if !tally(tallies, key().borrow(), ctx, counters) {
        increment(&counters.unrecorded);
    }
    i32::from(rodata::audit())
}

/// The identity of a denial.
#[inline(always)]
pub fn key<S>(hook: Hook, decision: Decision, ctx: &impl EbpfContext, subject: S) -> Key<S> {
    Key { hook: hook as u8, padding: 0, rule: decision.rule, pid: ctx.tgid(), subject }
}

/// This CPU's counters of a hook. They are always there: the index is a constant below the map's size.
#[inline(always)]
fn counters(hook: Hook) -> Option<&'static Counters> {
    // SAFETY: the map lives as long as the program. Another program may preempt this one on the same CPU, so the
    // counters are only ever changed atomically.
    COUNTERS.get_ptr_mut(hook as u32).map(|counters| unsafe { &*counters })
}

/// Counts a denial that could not even be judged. That can't happen with complete tables, so no reason is recorded.
#[inline(always)]
pub fn deny_unjudged(hook: Hook) -> i32 {
    if let Some(counters) = counters(hook) {
        increment(&counters.denied);
        increment(&counters.unrecorded);
    }
    i32::from(rodata::audit())
}

/// Counts a denial under its identity. False if there was no room for it.
#[inline(always)]
fn tally<S>(tallies: &HashMap<Key<S>, Tally>, key: &Key<S>, ctx: &impl EbpfContext, counters: &Counters) -> bool {
    // SAFETY: takes no arguments and has no effects.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let mut tally = tallies.get_ptr_mut(key);
    let mut new = false;
    if tally.is_none() {
        // It is counted below like any other. If another CPU is faster, this insertion fails, and it is there, too.
        let mut fresh = Tally { count: 0, first: now, last: now, uid: ctx.uid(), padding: 0, comm: [0; 2] };
        // SAFETY: the buffer is as long as is said.
        unsafe { bpf_get_current_comm((&raw mut fresh.comm).cast(), size_of_val(&fresh.comm) as u32) };
        new = tallies.insert(key, &fresh, u64::from(BPF_NOEXIST)).is_ok();
        tally = tallies.get_ptr_mut(key);
    }
    let Some(tally) = tally else { return false };
    // SAFETY: nothing is ever deleted from the map, so the value stays where it is; it is shared with other CPUs, hence
    // the atomic increment. `last` is a single aligned store, of which any of two at the same time may win.
    unsafe {
        increment(&(*tally).count);
        (&raw mut (*tally).last).write_volatile(now);
    }
    // A launcher that is too far behind will find it in the map later: a verdict never waits for it.
    if new && NEWS.output::<Key<S>>(key, 0).is_err() {
        increment(&counters.late);
    }
    true
}

/// Adds one to a counter in a map's value, atomically. (`core` has no atomic arithmetic for the BPF target.)
#[inline(always)]
fn increment(counter: &u64) {
    // SAFETY: map values are aligned to 8 bytes and writable, and every write to a counter is this one instruction.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({counter} + 0) += {one}",
            counter = in(reg) core::ptr::from_ref(counter),
            one = in(reg) 1_u64,
        );
    }
}
