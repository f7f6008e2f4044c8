//! The sysctl hook.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    helpers::{bpf_sysctl_get_name, bpf_sysctl_get_new_value},
    macros::map,
    maps::{Array, HashMap},
    programs::SysctlContext,
};
use common::{
    Decision, RuleSet, decision,
    glob::{Node, State},
    record::{Hook, Key, SysctlSubject, Tally},
    sysctl::{self, Access, Lookup, NAME_LEN, Name, Table, VALUE_WORDS},
};

use crate::{
    record::{Current, Ledger},
    rodata::{filled, judged},
};

/// The sysctls section but for its names.
#[unsafe(no_mangle)]
pub static SYSCTL_TABLE: Table = Table::DENY_ALL;

/// The rules of each tunable that is named without wildcards. The launcher sets the size.
#[map]
static SYSCTL_NAMES: HashMap<Name, RuleSet> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// The automaton that recognises names with wildcards: all its states, one after the other. The launcher sets the size of the one
/// element.
#[map]
static SYSCTL_STATES: Array<Node> = Array::with_max_entries(1, 0);

/// Denials by identity.
#[map]
static SYSCTL_TALLIES: HashMap<Key<SysctlSubject>, Tally> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// The lookups of the sysctls section in kernel maps.
struct KernelTables {
    states: *const Node,
    state_mask: u32,
}

impl Lookup for KernelTables {
    #[inline(always)]
    fn by_exact_name(&self, name: &Name) -> Option<&RuleSet> {
        // SAFETY: the launcher has frozen the map, so its values stay as they are.
        unsafe { SYSCTL_NAMES.get(name) }
    }

    #[inline(always)]
    fn node(&self, number: State) -> &Node {
        // SAFETY: the launcher makes the element as large as the mask says, and the verifier holds the number to that.
        unsafe { &*self.states.add((u32::from(number) & self.state_mask) as usize) }
    }
}

/// Judges a request with the tables in kernel maps. `None` can't happen with complete tables.
#[inline(always)]
pub fn decide(name: &Name, access: Access) -> Option<Decision> {
    let table = filled(&SYSCTL_TABLE);
    // A policy without wildcards has no states, and never looks at them.
    let states = if table.steps != 0 { SYSCTL_STATES.get_ptr(0)? } else { core::ptr::null() };
    Some(sysctl::decide(table, &KernelTables { states, state_mask: table.state_mask }, name, access))
}

/// Reading or writing a file below /proc/sys.
#[inline(always)]
pub fn sysctl(ctx: &SysctlContext) -> i32 {
    // SAFETY: the verifier checks the access to the context.
    let access = Access::from_write(unsafe { (*ctx.sysctl).write });
    // The name is read to where it is needed if the request is denied: the stack has no room for it twice.
    let mut key = MaybeUninit::<Key<SysctlSubject>>::uninit();
    let key = key.as_mut_ptr();
    // SAFETY: the pointer is to memory of this function's own, and the buffer as long as is said. The kernel ends the name
    // with a NUL, or returns an error if it doesn't fit (-E2BIG, after filling the buffer with the part that does).
    let (name, length) = unsafe {
        (&raw mut (*key).hook).write(Hook::Sysctl as u8);
        (&raw mut (*key).padding).write(0);
        let name = &raw mut (*key).subject.name;
        name.write([0; NAME_LEN]);
        let length = bpf_sysctl_get_name(ctx.sysctl, name.cast(), NAME_LEN as u64, 0);
        (&*name, length)
    };
    let Some(ledger) = Ledger::of(Hook::Sysctl) else { return 0 };
    let decision =
        judged(|| if length < 0 { Some(Decision::fail_closed(decision::NAME_TOO_LONG)) } else { decide(name, access) });
    let Some(decision) = decision else {
        return ledger.deny_unjudged();
    };
    ledger.conclude(
        decision,
        &SYSCTL_TALLIES,
        // SAFETY: what is not written of it yet is written before it is read: here, or where the denial is recorded.
        unsafe { &mut *key },
        |subject| {
            let value = (&raw mut subject.value).cast();
            // SAFETY: the buffer is as long as is said. The kernel fills it in any case: with NULs when a value is read, with
            // as much as fits when one is written (`copy_sysctl_value`, kernel/bpf/cgroup.c).
            let length = unsafe { bpf_sysctl_get_new_value(ctx.sysctl, value, size_of::<[u64; VALUE_WORDS]>() as u64) };
            subject.access = access.index() as u32;
            subject.length = length as i32;
            Current
        },
    )
}
