//! Kernel tunables: who reads or writes which file below /proc/sys.

use crate::{
    Decision, RuleSet,
    decision::{DEFAULT, TUNABLE_WRITE, Verdicts},
    glob::{Node, START, State},
};

/// Room for a name and its terminating NUL. The longest that kernels have today is about 60 bytes; a longer one is
/// denied ([`crate::decision::NAME_TOO_LONG`]), not cut.
pub const NAME_LEN: usize = 128;

/// A sysctl's name below /proc/sys, as the kernel spells it (`net/ipv4/ip_forward`), filled up with NULs.
pub type Name = [u8; NAME_LEN];

/// Room for the value that a write tried to set, in words, and for the NUL that the kernel ends it with if it doesn't fit.
/// The log has 64 bytes of it; this is enough to tell whether there are more, a newline at the end not counted.
pub const VALUE_WORDS: usize = 9;

/// How a tunable is used. A number rather than an enum, for the reason that [`crate::net::Protocol`] is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(u32);

/// How many values [`Access::index`] has; a power of two.
pub const ACCESSES: usize = 2;

impl Access {
    /// The tunable's value is read.
    pub const READ: Self = Self(0);
    /// The tunable's value is changed.
    pub const WRITE: Self = Self(1);

    /// From `bpf_sysctl.write`: 0 or 1 (include/uapi/linux/bpf.h).
    #[inline(always)]
    #[must_use]
    pub const fn from_write(write: u32) -> Self {
        Self(write & 1)
    }

    /// The access as an index below [`ACCESSES`].
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize & (ACCESSES - 1)
    }
}

/// The part of the compiled sysctls section that has a fixed size.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// What the rules say.
    pub verdicts: Verdicts,
    /// 1: some rule names a tunable without wildcards, so the table of exact names must be asked.
    pub by_exact_name: u32,
    /// How many bytes of a name the automaton has to read until no further one matters: 0 where no rule has wildcards,
    /// [`NAME_LEN`] at the most.
    pub steps: u32,
    /// The number of the automaton's states, a power of two, less one.
    pub state_mask: u32,
    /// 1: writing is denied unless a rule allows it, whatever the default.
    pub rules_write: u32,
    /// The rules that hold for an access: `by_access[access]`.
    pub by_access: [RuleSet; ACCESSES],
    /// The rules that name no tunables and hold for all.
    pub any_name: RuleSet,
}

const _: () = assert!(size_of::<Table>() == 56 + 32 * (ACCESSES + 1));

impl Table {
    /// No rules, everything denied: what the programs are compiled with.
    pub const DENY_ALL: Self = Self {
        verdicts: Verdicts::DENY_ALL,
        by_exact_name: 0,
        steps: 0,
        state_mask: 0,
        rules_write: 1,
        by_access: [RuleSet::NONE; ACCESSES],
        any_name: RuleSet::NONE,
    };
}

impl Table {
    /// Whether anything at all can be denied.
    #[must_use]
    pub fn can_deny(&self) -> bool {
        self.verdicts.can_deny() || self.rules_write != 0
    }
}

/// The parts of the compiled sysctls section that are looked up by value.
pub trait Lookup {
    /// The rules that name this tunable without wildcards, and those that name none. `None` if no rule names it so.
    fn by_exact_name(&self, name: &Name) -> Option<&RuleSet>;
    /// The automaton's state of that number, or some other one for a number that none has.
    fn node(&self, number: State) -> &Node;
}

/// Judges a sysctl request.
#[inline(always)]
#[must_use]
pub fn decide(table: &Table, lookup: &impl Lookup, name: &Name, access: Access) -> Decision {
    let by_access = &table.by_access[access.index()];
    let mut exact = &table.any_name;
    if table.by_exact_name != 0 {
        exact = lookup.by_exact_name(name).unwrap_or(exact);
    }
    let mut accepted = None;
    if table.steps != 0 {
        let mut state = START;
        // No branch depends on the name, so the verifier follows this loop once, not once for each length of a name.
        for (step, byte) in (0_u32..).zip(name) {
            if step >= table.steps {
                break;
            }
            state = lookup.node(state).next[*byte as usize];
        }
        accepted = Some(&lookup.node(state).accepted);
    }
    let by_name = |index| exact.word(index) | accepted.map_or(0, |rules| rules.word(index));
    let decision = table.verdicts.of_first(|index| by_access.word(index) & by_name(index));
    if table.rules_write != 0 && decision.rule == DEFAULT && decision.allow && access.index() != 0 {
        return Decision::fail_closed(TUNABLE_WRITE);
    }
    decision
}
