//! Counting verdicts and recording denials.

use core::ptr;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_get_current_comm, bpf_ktime_get_boot_ns, bpf_map_update_elem},
    },
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use common::{
    Decision,
    record::{Counters, Hook, Key, Kind, Owner, SEVERAL, SHORT, Subject, Tally, Unreported, thread},
};

use crate::{
    rodata::{self, filled},
    verifier::{opaque, opaque_pointer},
};

/// What each hook has done, indexed by [`Hook`].
#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(Hook::ALL.len() as u32, 0);

/// The rules whose denials are not recorded.
#[unsafe(no_mangle)]
pub static UNREPORTED: Unreported = Unreported::NONE;

/// How many identities each map of denials has, indexed by [`Kind`].
#[map]
static IN_ROOM: Array<u64> = Array::with_max_entries(Kind::ALL.len() as u32, 0);

/// Keys of new denials on their way to the launcher.
#[map]
static NEWS: RingBuf = RingBuf::with_byte_size(128 * 1024, 0);

/// Who makes a request.
pub trait Process {
    /// The process's id (thread group) in the initial pid namespace.
    fn pid(&self) -> u32;
    /// The name of its thread.
    fn comm(&self) -> [u64; 2];
    /// Writes down what else is recorded of it.
    fn describe(&self, tally: &mut Tally);
}

/// The process that runs: the one that makes the system call that the hook is in.
pub struct Current;

impl Process for Current {
    #[inline(always)]
    fn pid(&self) -> u32 {
        (bpf_get_current_pid_tgid() >> 32) as u32
    }

    #[inline(always)]
    fn comm(&self) -> [u64; 2] {
        let mut comm = [0; 2];
        name(&mut comm);
        comm
    }

    #[inline(always)]
    fn describe(&self, tally: &mut Tally) {
        tally.uid = bpf_get_current_uid_gid() as u32;
        name(&mut tally.comm);
    }
}

impl Current {
    /// All that is recorded of it.
    #[inline(always)]
    pub fn owner(&self) -> Owner {
        let mut owner = Owner { pid: self.pid(), uid: bpf_get_current_uid_gid() as u32, comm: [0; 2] };
        name(&mut owner.comm);
        owner
    }
}

/// The name of the thread that runs.
#[inline(always)]
fn name(comm: &mut [u64; 2]) {
    // SAFETY: the buffer is as long as is said.
    unsafe { bpf_get_current_comm(comm.as_mut_ptr().cast(), size_of_val(comm) as u32) };
}

/// How long an address is.
const ADDRESS_BITS: u32 = 128;

/// The key of a denial that may come, but for rule and process. It is where words of 8 bytes can be written to it.
#[repr(align(8))]
pub struct Draft<S>(Key<S>);

impl<S> Draft<S> {
    /// A key with this subject, as far as that is known. What will be the process is the length of a whole address until
    /// then ([`crate::net::KernelTables`]).
    #[inline(always)]
    pub const fn new(hook: Hook, subject: S) -> Self {
        Self(Key { hook: hook as u8, padding: 0, rule: 0, thread: [0; 2], pid: ADDRESS_BITS, subject })
    }

    /// The key, all of it written now, and read from now on. The compiler would keep its parts elsewhere, and put them
    /// together only for a denial.
    #[inline(always)]
    pub fn key(&mut self) -> &mut Key<S> {
        let key = opaque_pointer(&raw mut self.0);
        // SAFETY: it is the same pointer.
        unsafe { &mut *key }
    }
}

/// Where a hook's decisions are entered.
///
/// To be opened before anything is judged: that ends in several ways, each of which the verifier would follow through
/// this.
#[derive(Clone, Copy)]
pub struct Ledger {
    /// This CPU's. Another program may preempt this one on the same CPU, so they are only ever changed atomically.
    counters: &'static Counters,
}

impl Ledger {
    /// The ledger of a hook. It is always there: the index is a constant below the map's size. What can't be entered
    /// has to be denied.
    #[inline(always)]
    pub fn of(hook: Hook) -> Option<Self> {
        // SAFETY: the map lives as long as the program.
        let counters = COUNTERS.get_ptr_mut(hook as u32).map(|counters| unsafe { &*counters })?;
        Some(Self { counters })
    }

    /// Counts what was decided, and records a denial that the policy wants to hear of under its key, of which the rule, the process and its thread are filled in.
    /// Process and subject are asked for only then. Returns what the hook has to return: 1 to let the request go on, 0 to
    /// refuse it.
    #[inline(always)]
    pub fn conclude<S: Subject, P: Process>(
        self,
        decision: Decision,
        tallies: &HashMap<Key<S>, Tally>,
        key: &mut Key<S>,
        process: impl FnOnce(&mut S) -> P,
    ) -> i32 {
        if decision.allow {
            increment(&self.counters.allowed);
            return 1;
        }
        if filled(&UNREPORTED).has(S::KIND, decision.rule) {
            return self.deny_unreported();
        }
        increment(&self.counters.denied);
        let process = process(&mut key.subject);
        key.rule = decision.rule;
        key.pid = process.pid();
        key.thread = thread(process.comm());
        self.tally(tallies, key, &process);
        rodata::audit()
    }

    /// Counts something that is let through. Returns 1.
    #[cfg(feature = "names")]
    #[inline(always)]
    pub fn allow(self) -> i32 {
        increment(&self.counters.allowed);
        1
    }

    /// Counts a denial that nobody wants to hear of.
    #[inline(always)]
    pub fn deny_unreported(self) -> i32 {
        increment(&self.counters.denied);
        increment(&self.counters.unreported);
        rodata::audit()
    }

    /// Counts a denial that could not even be judged. That can't happen with complete tables, so it has no identity; a counter of its
    /// own tells that it happened.
    #[inline(always)]
    pub fn deny_unjudged(self) -> i32 {
        increment(&self.counters.denied);
        increment(&self.counters.unrecorded);
        increment(&self.counters.unjudged);
        rodata::audit()
    }

    /// Counts a denial under its identity, or as unrecorded if there is no room for it.
    #[inline(always)]
    fn tally<S: Subject>(self, tallies: &HashMap<Key<S>, Tally>, key: &mut Key<S>, process: &impl Process) {
        // SAFETY: takes no arguments and has no effects.
        let now = unsafe { bpf_ktime_get_boot_ns() };
        let mut tally = lookup(tallies, key);
        // 0 when it is made now.
        let mut made = 1;
        // How many identities there are. It is always there: the index is a constant below the map's size.
        let in_room = IN_ROOM.get_ptr_mut(S::KIND as u32).unwrap_or(ptr::null_mut());
        if tally.is_null() && !in_room.is_null() {
            // SAFETY: the map lives as long as the program; the number may be older than others' changes to it.
            if unsafe { in_room.read_volatile() } >= SHORT {
                // Room gets short, so that who it was is left out: many short processes that are denied the same would leave
                // none for what else is denied.
                (key.pid, key.thread) = (SEVERAL, [0; 2]);
            }
            // It is counted below like any other. If another CPU is faster, this insertion fails, and it is there, too.
            // All of it is written, also what is written again: what a helper writes into, the verifier takes for what was
            // there before, and compares that wherever ways meet.
            let mut fresh = Tally { count: 0, first: now, last: now, uid: 0, padding: 0, comm: [0; 2] };
            process.describe(&mut fresh);
            made = insert(tallies, key, &fresh);
            tally = lookup(tallies, key);
            // SAFETY: as above.
            unsafe { add(&*in_room, u64::from(made == 0)) };
        }
        // The compiler would write what follows once for each of the two.
        (made, tally) = (opaque(made), opaque_pointer(tally));
        if tally.is_null() {
            increment(&self.counters.unrecorded);
            return;
        }
        // SAFETY: nothing is deleted from the map while a program may run, so the value stays where it is; it is shared with
        // other CPUs, hence the atomic increment. `last` is a single aligned store, of which any of two at the same time may
        // win.
        unsafe {
            increment(&(*tally).count);
            (&raw mut (*tally).last).write_volatile(now);
        }
        // A launcher that is too far behind will find it in the map later: a verdict never waits for it.
        if made == 0 && NEWS.output::<Key<S>>(key, 0).is_err() {
            increment(&self.counters.late);
        }
    }
}

/// Puts something into a map that isn't there. 0 if that was done. (aya's function makes a branch of that.)
#[inline(always)]
pub fn insert<K, V>(map: &HashMap<K, V>, key: &K, value: &V) -> u64 {
    let (map, key, value) = ((&raw const *map).cast_mut().cast(), (&raw const *key).cast(), (&raw const *value).cast());
    // SAFETY: a map's static is its address for the kernel, and key and value have the sizes that it was declared with.
    unsafe { bpf_map_update_elem(map, key, value, u64::from(BPF_NOEXIST)) }.cast_unsigned()
}

/// What a map holds under a key, or null.
#[inline(always)]
pub fn lookup<K, V>(map: &HashMap<K, V>, key: &K) -> *mut V {
    map.get_ptr_mut(key).unwrap_or(ptr::null_mut())
}

/// Adds one to a counter in a map's value.
#[inline(always)]
fn increment(counter: &u64) {
    add(counter, 1);
}

/// Adds to a counter in a map's value, atomically. (`core` has no atomic arithmetic for the BPF target.)
#[inline(always)]
pub fn add(counter: &u64, number: u64) {
    // SAFETY: map values are aligned to 8 bytes and writable, and every write to a counter is this one instruction.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({counter} + 0) += {number}",
            counter = in(reg) ptr::from_ref(counter),
            number = in(reg) number,
        );
    }
}

/// Sets bits of a word in a map's value, atomically.
#[cfg(feature = "names")]
#[inline(always)]
pub fn or(word: &u64, bits: u64) {
    // SAFETY: map values are aligned to 8 bytes and writable.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({word} + 0) |= {bits}",
            word = in(reg) ptr::from_ref(word),
            bits = in(reg) bits,
        );
    }
}

/// Tells the launcher something besides denials. Its first byte is the number of a hook that records none.
#[inline(always)]
pub fn announce<T: 'static>(hook: Hook, news: &T) {
    if NEWS.output::<T>(news, 0).is_ok() {
        return;
    }
    if let Some(ledger) = Ledger::of(hook) {
        increment(&ledger.counters.late);
    }
}
