//! The automaton that recognises all globs of a section at once. The launcher builds it; each noun's `decide()` reads a
//! name with it, byte by byte.

use crate::RuleSet;

/// Number of a state.
pub type State = u16;

/// The state in which recognising a name begins.
pub const START: State = 0;

/// One state of the automaton.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// The state that each byte leads to. A NUL, of which there may be many at a name's end, leads nowhere else.
    pub next: [State; 256],
    /// The rules of which a glob ends here.
    pub accepted: RuleSet,
}

const _: () = assert!(size_of::<Node>() == 544);

impl Node {
    /// A state that is never reached, to fill up with.
    pub const UNREACHED: Self = Self { next: [START; 256], accepted: RuleSet::NONE };
}
