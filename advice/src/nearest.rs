//! The rule that would have allowed a request if the request, or the rule's place, were a little different.

use common::Decision;

use crate::{
    Guard,
    asked::Asked,
    property::{Missed, denied_by, missed},
    request::Request,
};

/// The key of the property that a rule misses whose place is behind the rule that denies.
pub(crate) const PLACE: &str = "place";

/// A rule that allows, and by what a request misses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nearest {
    /// The rule's number in its section.
    pub rule: usize,
    /// The properties that the request misses, in the order of the manual.
    pub missed: Vec<Missed>,
}

/// The nearest rule: of those of the request's section that allow, the one of which the request misses the fewest properties, and
/// of several the first; the first that has the name by which the peer was found, if one has. A rule behind the one that denies misses its place as well.
pub(crate) fn nearest(guard: &Guard, asked: &Asked, denied: Decision) -> Option<Nearest> {
    let request = &asked.request;
    let section = request.section();
    let count = guard.rules(section);
    let first = denied_by(guard, asked, denied);
    (0..count)
        .filter_map(|rule| {
            let mut missed = missed(&guard.policy, rule, asked)?;
            if section == "devices" && guard.rule(section, rule)?.get("path").is_some() {
                by_path(&mut missed, request);
            }
            if let Some(first) = first.filter(|first| rule > *first) {
                let value = format!("/{section}/rules/{first}");
                missed.push(Missed { key: PLACE, value });
            }
            Some(Nearest { rule, missed })
        })
        .min_by_key(|nearest| {
            let has_name = asked.host.is_some() && nearest.missed.iter().all(|missed| missed.key != "hosts");
            (nearest.missed.len(), !has_name)
        })
}

/// Makes one property of those for which a device's path stands.
fn by_path(missed: &mut Vec<Missed>, request: &Request) {
    let (before, Request::Device(device)) = (missed.len(), request) else { return };
    missed.retain(|missed| missed.key == "access");
    if missed.len() < before {
        let letter = if device.kind == common::device::Type::Block as u32 { "b" } else { "c" };
        let value = format!("{letter} {}:{}", device.major, device.minor);
        missed.insert(0, Missed { key: "path", value });
    }
}
