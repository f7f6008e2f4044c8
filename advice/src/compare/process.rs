//! Comparing what keeps the command inside beside the rules, and whether anything is enforced.

use std::collections::BTreeSet;

use policy::{Isolation, Mode, Part, ProcessSection};
use serde::Serialize;

use super::{Difference, Extent, Found, Side};

/// Audit mode denies nothing.
pub fn mode(a: Side, b: Side, found: &mut Found) {
    let audits = |side: Side| side.policy.mode == Mode::Audit;
    if audits(a) != audits(b) {
        let (allowed_by, denied_by) = ("mode".to_owned(), "mode".to_owned());
        let example = "whatever is denied".to_owned();
        found.put(audits(b), Difference { extent: Extent::Mode("audit"), allowed_by, denied_by, example });
    }
}

/// Compares the process sections.
pub fn process(a: Side, b: Side, found: &mut Found) {
    let (a, b) = (&a.policy.process, &b.policy.process);
    both(found, "isolation", &isolation(a), &isolation(b));
    both(found, "allow", &parts(a), &parts(b));
    both(found, "capabilities", &words(&a.capabilities), &words(&b.capabilities));
    both(found, "families", &words(&a.families), &words(&b.families));
    both(found, "architectures", &words(&a.architectures), &words(&b.architectures));
}

/// With the programs alone, every part is allowed, and more.
fn isolation(section: &ProcessSection) -> BTreeSet<String> {
    if section.isolation == Isolation::CgroupOnly { words(&[section.isolation]) } else { BTreeSet::new() }
}

fn parts(section: &ProcessSection) -> BTreeSet<String> {
    let allowed: Vec<Part> = Part::ALL.iter().copied().filter(|part| section.allows(*part)).collect();
    words(&allowed)
}

/// What is in a list, as it is written in policies.
fn words<T: Serialize>(all: &[T]) -> BTreeSet<String> {
    let word = |one: &T| serde_json::to_value(one).ok()?.as_str().map(ToOwned::to_owned);
    all.iter().filter_map(word).collect()
}

fn both(found: &mut Found, key: &'static str, a: &BTreeSet<String>, b: &BTreeSet<String>) {
    for (wider, one, other) in [(true, b, a), (false, a, b)] {
        for value in one.difference(other) {
            let (pointer, example) = (format!("/process/{key}"), format!("{key}: {value}"));
            let extent = Extent::Process { key, value: value.clone() };
            let denied_by = "/process".to_owned();
            found.put(wider, Difference { extent, allowed_by: pointer, denied_by, example });
        }
    }
}
