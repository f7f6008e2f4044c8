//! Capabilities: which a command keeps.

use std::collections::BTreeSet;

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use nix::errno::Errno;

use super::Step;
use crate::{
    policy::{ProcessSection, kept_capabilities},
    sys::confine::drop_from_bounding_set,
};

/// More capabilities than any kernel has: its sets have 64 bits.
const MAX: u8 = 64;

/// Takes all others from what the process, and what it becomes, can ever have. Needs `CAP_SETPCAP`.
pub(super) fn bounding_step(section: &ProcessSection) -> Step {
    let kept = kept_capabilities(section);
    Step::new("capabilities that may be gained", move || {
        for capability in (0..MAX).filter(|capability| !kept.contains(capability)) {
            if !drop_from_bounding_set(capability)? {
                break;
            }
        }
        Ok(())
    })
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
