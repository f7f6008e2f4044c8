//! That a change to a policy does what it says.

use json_patch::Patch;
use policy::Machine;

use crate::{
    Guard, Request,
    compare::{Side, compare},
    patch,
    property::missed,
    suggest::SuggestError,
};

/// Proves a change by the tables that go into the kernel: it allows what was denied, and nothing that the policy didn't allow before but
/// what the plain rules are about. `plain` puts these rules before all others, where nothing but they themselves can be changed by them.
/// A request comes with the host name by which its peer was found, if it was.
///
/// # Errors
///
/// When that isn't so, or a change leads to no policy.
pub(super) fn prove(
    guard: &Guard,
    plain: &Patch,
    change: &Patch,
    requests: &[(&Request, Option<&str>)],
    machine: &impl Machine,
) -> Result<(), SuggestError> {
    let changed = patch::applied(guard, change, machine)?;
    let is_allowed = |(request, name): &&(&Request, Option<&str>)| match name {
        Some(name) => is_allowed_by(&changed, request, name),
        None => request.is_allowed(&changed.tables),
    };
    if let Some((request, _)) = requests.iter().find(|request| !is_allowed(request)) {
        return Err(SuggestError::Unproved(format!("{request:?} would still be denied")));
    }
    let plain = patch::applied(guard, plain, machine)?;
    let comparison =
        compare(side(&plain), side(&changed)).map_err(|error| SuggestError::Unproved(error.to_string()))?;
    match comparison.wider.first() {
        Some(wider) => Err(SuggestError::Unproved(format!("{} would be allowed, too", wider.example))),
        None => Ok(()),
    }
}

fn side(guard: &Guard) -> Side<'_> {
    Side { policy: &guard.policy, tables: &guard.tables }
}

/// Whether a rule on a host name allows a request to an address that it leads to.
fn is_allowed_by(guard: &Guard, request: &Request, name: &str) -> bool {
    let Some(names) = guard.tables.names() else { return false };
    let rules = names.rules(name);
    let lacks_no_more_than_the_address = |rule| {
        missed(&guard.policy, rule, request).is_some_and(|missed| missed.iter().all(|missed| missed.key == "hosts"))
    };
    (0..guard.rules("network")).any(|rule| rules.contains(rule) && lacks_no_more_than_the_address(rule))
}
