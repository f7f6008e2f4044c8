//! Rules on Unix sockets, and requests.

use common::unix::{Kind, NAME_LEN};
use policy::{Section, UnixRule};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::Value;

use super::{action, object, optional, sysctl::expand};
use crate::oracle::Unix;

/// Names of which many begin or end alike.
const NAMES: [&str; 9] = [
    "/run/docker.sock",
    "/run/docker.sock2",
    "/run/dbus/system_bus_socket",
    "/run/user/1000/bus",
    "/tmp/.X11-unix/X0",
    "@/tmp/.X11-unix/X0",
    "@name",
    "@",
    "@ö",
];

/// Those and patterns whose automaton stays small whatever else there is.
const PLAIN: [&str; 12] = [
    "*",
    "/*",
    "@*",
    "?*",
    "/run/*",
    "/run/dbus/*",
    "@name*",
    "@?",
    "/run/docker.soc?",
    "unnamed",
    "sandbox",
    "/run/user/????/bus",
];

/// Patterns of which each can multiply the number of states.
const COSTLY: [&str; 4] = ["*sock", "*/bus", "/run/*/bus", "?run/*sock*"];

pub(super) fn rule() -> impl Strategy<Value = Value> {
    rule_on(prop_oneof![5 => name(), 6 => select(&PLAIN[..]), 1 => select(&COSTLY[..])])
}

/// A rule of which a policy can have many.
pub(super) fn plain_rule() -> impl Strategy<Value = Value> {
    rule_on(prop_oneof![name(), select(&PLAIN[..])])
}

fn rule_on(pattern: impl Strategy<Value = &'static str>) -> impl Strategy<Value = Value> {
    (action(), optional("paths", vec(pattern, 1..=3)))
        .prop_map(|(action, paths)| object([Some(("action", action)), paths]))
}

fn name() -> impl Strategy<Value = &'static str> {
    select(&NAMES[..])
}

/// Requests that the rules' patterns match, or nearly do.
pub(super) fn request(section: &Section<UnixRule>) -> impl Strategy<Value = Unix> + use<> {
    let mut patterns: Vec<String> = NAMES.iter().map(ToString::to_string).collect();
    for rule in &section.rules {
        patterns.extend(rule.paths.iter().flatten().map(|pattern| String::from(pattern.clone())));
    }
    let runs = select(&["", "/", "x", "dbus/x", "sock", "\u{ff}"][..]);
    let first = select(&b"/@"[..]);
    let name = (select(patterns), runs, 1..=255_u8, first, vec(any::<u8>(), 0..3)).prop_map(
        |(pattern, run, byte, first, more)| {
            let mut name = expand(&pattern, run, byte);
            name.extend(more);
            // Every name begins with one of these.
            if !name.starts_with(b"/") && !name.starts_with(b"@") {
                name.insert(0, first);
            }
            name
        },
    );
    let any_name = (select(&b"/@"[..]), vec(any::<u8>(), 0..NAME_LEN - 1)).prop_map(|(first, mut name)| {
        name.insert(0, first);
        name
    });
    let named = prop_oneof![10 => name, 1 => any_name].prop_map(|mut name: Vec<u8>| {
        let kind = if name[0] == b'@' { Kind::ABSTRACT } else { Kind::PATH };
        // NULs are in abstract names only.
        if kind == Kind::PATH {
            name.retain(|byte| *byte != 0);
        }
        name.truncate(NAME_LEN - 1);
        (kind, name)
    });
    let named = prop_oneof![12 => named, 1 => Just((Kind::UNNAMED, Vec::new()))];
    (named, any::<bool>()).prop_map(|((kind, name), own)| Unix { kind, name, own })
}
