//! Capabilities: which a command keeps.

use std::collections::BTreeSet;

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use nix::errno::Errno;

use super::Step;
use crate::{
    policy::{ProcessSection, kept_capabilities},
    sys::confine::reduce_bounding_set,
};

/// Takes all others from what the process, and what it becomes, can ever have. Needs `CAP_SETPCAP`.
pub(super) fn bounding_step(section: &ProcessSection) -> Step {
    let kept = kept_capabilities(section);
    Step::new("capabilities that may be gained", move || reduce_bounding_set(&kept))
}

/// Takes all others from the four sets that the process has.
pub(super) fn step(section: &ProcessSection) -> Step {
    let kept = kept_capabilities(section);
    Step::new("capabilities", move || reduce(&kept).map_err(|_| Errno::EPERM))
}

fn reduce(kept: &BTreeSet<u8>) -> Result<(), CapsError> {
    caps::clear(None, CapSet::Ambient)?;
    let permitted = caps::read(None, CapSet::Permitted)?;
    let permitted: CapsHashSet = permitted.into_iter().filter(|held| kept.contains(&held.index())).collect();
    caps::set(None, CapSet::Effective, &permitted)?;
    caps::set(None, CapSet::Permitted, &permitted)?;
    caps::clear(None, CapSet::Inheritable)
}

/// What the kept ones are called.
pub(super) fn names(section: &ProcessSection) -> Vec<String> {
    let kept = kept_capabilities(section);
    let mut names: Vec<Capability> = caps::all().into_iter().filter(|held| kept.contains(&held.index())).collect();
    names.sort_unstable_by_key(Capability::index);
    names.iter().map(ToString::to_string).collect()
}
