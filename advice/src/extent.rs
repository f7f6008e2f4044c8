//! How much a rule is about, in words and numbers.

use common::net;
use policy::{Host, NetRule};
use serde_json::Value;

use crate::{Guard, Request, guard::written};

/// How many addresses, ports, operations and protocols there are.
const PORTS: u128 = 1 << 16;

/// What a rule grants beyond one request when a value is added to the list of one of its keys: in words, and how many requests, where
/// that can be counted.
pub(crate) fn beyond(
    guard: &Guard,
    request: &Request,
    number: usize,
    key: &str,
    value: &Value,
) -> (String, Option<u64>) {
    let section = request.section();
    let others: Vec<String> = keys(section)
        .iter()
        .filter(|other| **other != key)
        .map(|other| match guard.rule(section, number).and_then(|rule| rule.get(*other)) {
            Some(Value::Array(list)) => shown(other, list),
            Some(value) => format!("{other} {}", plain(value)),
            None => format!("all {other}"),
        })
        .collect();
    let further = match request {
        Request::Peer(_) => {
            let rule = guard.policy.network.as_ref().and_then(|section| section.rules.get(number));
            rule.and_then(|rule| requests(rule, key)).map(|all| all - 1)
        }
        // Nothing else is in such a rule.
        Request::Unix { .. } => Some(0),
        Request::Device(_) => {
            guard.policy.devices.as_ref().and_then(|section| section.rules.get(number)).and_then(|rule| {
                let one = rule.kind.only().is_some() && rule.major.is_some() && rule.minor.is_some();
                one.then_some(0)
            })
        }
        _ => None,
    };
    let further = further.map(|count| u64::try_from(count).unwrap_or(u64::MAX));
    let text = match further {
        Some(0) => "nothing".to_owned(),
        Some(u64::MAX) => format!("{} with {}: more than 2^64 requests", plain(value), others.join(", ")),
        Some(count) => format!("{} with {}: {} further requests", plain(value), others.join(", "), grouped(count)),
        None => format!("{} with {}", plain(value), others.join(", ")),
    };
    (text, further)
}

/// The keys by which rules of a section tell requests apart.
const fn keys(section: &str) -> &'static [&'static str] {
    match section.as_bytes() {
        b"network" => &["ops", "protocols", "hosts", "ports"],
        b"unix" => &["paths"],
        b"devices" => &["type", "major", "minor", "access"],
        b"sysctls" => &["names", "access"],
        b"sockets" => &["family", "type", "protocol"],
        _ => &["level", "option", "access"],
    }
}

/// How many requests a rule is about, of which the values of one key count as one. `None` where it has host names, of which nobody
/// knows the addresses.
fn requests(rule: &NetRule, key: &str) -> Option<u128> {
    if rule.has_names() {
        return None;
    }
    let count = |other: &str, count: u128| if other == key { 1 } else { count };
    let ops = rule.ops.as_ref().map_or(net::OPS, Vec::len) as u128;
    let protocols = rule.protocols.as_ref().map_or(net::PROTOCOLS, Vec::len) as u128;
    let ports = rule
        .ports
        .as_ref()
        .map_or(PORTS, |ranges| ranges.iter().map(|range| u128::from(range.last() - range.first()) + 1).sum());
    let hosts = rule.hosts.as_ref().map_or(u128::MAX, |hosts| {
        let size = |length: u8| 1_u128.checked_shl(u32::from(128 - length)).unwrap_or(u128::MAX);
        let of_host =
            |host: &Host| host.networks().iter().map(|network| size(network.length())).fold(0, u128::saturating_add);
        hosts.iter().map(of_host).fold(0, u128::saturating_add)
    });
    let all = [count("ops", ops), count("protocols", protocols), count("ports", ports), count("hosts", hosts)];
    Some(all.into_iter().fold(1, u128::saturating_mul).max(1))
}

/// How many elements of a list are shown.
const SHOWN: usize = 4;

/// A list of a rule after its key, the beginning of a long one.
fn shown(key: &str, list: &[Value]) -> String {
    format!("{key} {}", listed(list, " "))
}

/// The values of a list with something between them, the beginning of a long one.
pub(crate) fn listed(list: &[Value], between: &str) -> String {
    let more = list.len().saturating_sub(SHOWN);
    let some: Vec<String> = list.iter().take(SHOWN).map(plain).collect();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    some.join(between) + &rest
}

/// A value without quotes.
pub(crate) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| written(value), ToOwned::to_owned)
}

/// A number with commas between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let start = digits.len() % 3;
    let (first, rest) = digits.split_at(start);
    let groups = rest.as_bytes().chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    let groups: Vec<String> = [first.to_owned()].into_iter().filter(|group| !group.is_empty()).chain(groups).collect();
    groups.join(",")
}

/// A number of things, of which there may be one.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_groups() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (65_535, "65,535"), (16_777_215, "16,777,215")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
