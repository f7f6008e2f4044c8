//! Rules that never decide, because earlier ones match all that they do.

use common::MAX_RULES;
use policy::{Action, NetRule};

use super::{Side, TooManyNames, look};

/// The rules of a policy that decide about nothing, as JSON pointers. A rule that denies host names decides by keeping them from being
/// resolved, so it is never among them.
///
/// # Errors
///
/// When names with wildcards overlap in too many ways.
pub fn hidden(side: Side) -> Result<Vec<String>, TooManyNames> {
    let deciding = look(side, side)?.deciding;
    let policy = side.policy;
    // Where all sockets have one verdict, nobody looks which rule it is.
    let tells_sockets_apart = side.tables.unix.as_ref().is_some_and(|unix| unix.needs_peer);
    let sections = [
        ("network", policy.network.as_ref().map_or(0, |section| section.rules.len())),
        ("unix", policy.unix.as_ref().filter(|_| tells_sockets_apart).map_or(0, |section| section.rules.len())),
        ("devices", policy.devices.as_ref().map_or(0, |section| section.rules.len())),
        ("sysctls", policy.sysctls.as_ref().map_or(0, |section| section.rules.len())),
        ("sockets", policy.sockets.as_ref().map_or(0, |section| section.rules.len())),
        ("sockopts", policy.sockopts.as_ref().map_or(0, |section| section.rules.len())),
    ];
    let denies_names = |rule: &NetRule| rule.action == Action::Deny && rule.has_names();
    let is_about_names = |section: &str, rule: usize| {
        section == "network" && policy.network.as_ref().is_some_and(|section| denies_names(&section.rules[rule]))
    };
    let mut hidden = Vec::new();
    for (section, count) in sections {
        for rule in (0..count.min(MAX_RULES)).filter(|rule| !is_about_names(section, *rule)) {
            let number = u16::try_from(rule).expect("there are fewer");
            if !deciding.contains(&(section, number)) {
                hidden.push(format!("/{section}/rules/{rule}"));
            }
        }
    }
    Ok(hidden)
}
