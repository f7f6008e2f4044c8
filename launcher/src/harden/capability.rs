//! Capabilities: which a command keeps.

use std::collections::BTreeSet;

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use enforce::sys::confine::reduce_bounding_set;
use nix::errno::Errno;
use policy::{KeptCapability, ProcessSection};

use super::Step;

/// The capabilities that a command keeps in any case, if it is root: those that ordinary work of root needs, like installing a
/// package. They give power over files and over processes of the same sandbox, and ports below 1024; none of
/// them over other processes, the kernel, the network's configuration or devices.
fn kept(section: &ProcessSection) -> BTreeSet<u8> {
    const KEPT: [Capability; 11] = [
        Capability::CAP_CHOWN,
        Capability::CAP_DAC_OVERRIDE,
        Capability::CAP_FOWNER,
        Capability::CAP_FSETID,
        Capability::CAP_KILL,
        Capability::CAP_NET_BIND_SERVICE,
        Capability::CAP_SETFCAP,
        Capability::CAP_SETGID,
        Capability::CAP_SETPCAP,
        Capability::CAP_SETUID,
        Capability::CAP_SYS_CHROOT,
    ];
    KEPT.iter().chain(section.capabilities.iter().map(|KeptCapability(kept)| kept)).map(Capability::index).collect()
}

/// Whether a command that is root keeps a capability.
pub(crate) fn is_kept(section: &ProcessSection, capability: Capability) -> bool {
    kept(section).contains(&capability.index())
}

/// The capabilities that a command keeps at the most, as bits.
pub(super) fn kept_bits(section: &ProcessSection) -> u64 {
    kept(section).iter().map(|index| 1 << index).sum()
}

/// Whether what this process starts can have a capability. In a container, and in some virtual machines, root has not all of them.
pub(super) fn can_be_had(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(true)
}

/// Takes all others from what the process, and what it becomes, can ever have. Needs `CAP_SETPCAP`.
pub(super) fn bounding_step(section: &ProcessSection) -> Step {
    let kept = kept(section);
    Step::new("capabilities that may be gained", move || reduce_bounding_set(&kept))
}

/// Takes all others from the four sets that the process has.
pub(super) fn step(section: &ProcessSection) -> Step {
    let kept = kept(section);
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
    let kept = kept(section);
    let mut names: Vec<Capability> = caps::all().into_iter().filter(|held| kept.contains(&held.index())).collect();
    names.sort_unstable_by_key(Capability::index);
    names.iter().map(ToString::to_string).collect()
}
