//! That a change to a policy does what it says.

use json_patch::Patch;
use policy::Machine;

use crate::{
    Guard,
    compare::{Side, compare},
    patch,
    suggest::{SuggestError, Wanted},
};

/// Proves a change by the tables that go into the kernel: it allows what is wanted, and nothing that the policy didn't allow before but
/// what the plain rules are about. `plain` puts these rules before all others, where nothing but they themselves can be changed by them.
///
/// # Errors
///
/// When that isn't so, or the plain rules lead to no policy.
pub(super) fn prove(
    guard: &Guard,
    plain: &Patch,
    changed: &Guard,
    wanted: &[Wanted],
    machine: &impl Machine,
) -> Result<(), SuggestError> {
    if let Some(wanted) = wanted.iter().find(|wanted| !wanted.asked.is_allowed(&changed.tables)) {
        return Err(SuggestError::Unproved(format!("{} would still be denied", wanted.denied.what)));
    }
    let plain = patch::applied(guard, plain, machine)?;
    let comparison = compare(side(&plain), side(changed)).map_err(|error| SuggestError::Unproved(error.to_string()))?;
    match comparison.wider.first() {
        Some(wider) => Err(SuggestError::Unproved(format!("{} would be allowed, too", wider.example))),
        None => Ok(()),
    }
}

fn side(guard: &Guard) -> Side<'_> {
    Side { policy: &guard.policy, tables: &guard.tables }
}
