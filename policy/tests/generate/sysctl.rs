//! Sysctl rules and requests.

use policy::{Section, SysctlRule};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};

use super::{action, object, optional};
use crate::oracle::Sysctl;

/// The longest name that can be judged.
const MAX_NAME: usize = 127;

/// Names of which many begin or end alike, in both notations.
const NAMES: [&str; 12] = [
    "kernel/hostname",
    "kernel.hostname",
    "kernel/host",
    "kernel/ostype",
    "kernel/yama/ptrace_scope",
    "net/ipv4/ip_forward",
    "net.ipv4.ip_forward",
    "net/ipv4/conf/eth0.100/forwarding",
    "net.ipv4.conf.eth0/100.forwarding",
    "net/ipv6/conf/all/forwarding",
    "vm/overcommit_memory",
    "net/ipv4/conf/ö/tag",
];

/// Names and patterns whose automaton stays small whatever else there is.
const PLAIN: [&str; 8] = ["*", "kernel/*", "net.*", "net/ipv4/*", "net/ipv?/*", "kernel/host????", "?", "vm/*"];

/// Patterns of which each can multiply the number of states.
const COSTLY: [&str; 8] = [
    "*/forwarding",
    "*name",
    "net.*.conf.*.forwarding",
    "net/ipv?/conf/*/forwarding",
    "*/ip*",
    "k*l/h*e",
    "**/host*",
    "?*?/ostype",
];

pub(super) fn rule() -> impl Strategy<Value = Value> {
    rule_on(prop_oneof![6 => name(), 6 => select(&PLAIN[..]).prop_map(str::to_owned), 1 => costly()])
}

/// A rule of which a policy can have many.
pub(super) fn plain_rule() -> impl Strategy<Value = Value> {
    rule_on(prop_oneof![name(), select(&PLAIN[..]).prop_map(str::to_owned)])
}

fn rule_on(pattern: impl Strategy<Value = String>) -> impl Strategy<Value = Value> {
    let keys = (action(), optional("names", vec(pattern, 1..=3)), optional("access", select(&["r", "w", "rw"][..])));
    keys.prop_map(|(action, names, access)| object([Some(("action", action)), names, access]))
}

fn costly() -> impl Strategy<Value = String> {
    select(&COSTLY[..]).prop_map(str::to_owned)
}

/// A name of [`NAMES`], or one that nearly is, or one of any length there can be.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => select(&NAMES[..]).prop_map(str::to_owned),
        2 => (select(&NAMES[..]), select(&["x", "2", "_max", "?"][..])).prop_map(|(name, more)| format!("{name}{more}")),
        1 => (1..=MAX_NAME).prop_map(|length| "k".repeat(length)),
    ]
}

/// A policy that denies tunables whose names need so many states to be recognised, of some thousand.
pub fn names_of_so_many_states(states: usize) -> Value {
    // One for each character, as the names differ from the first one on, and in the rule that they belong to, so that their ends are
    // not alike; one before it, and one where nothing matches.
    let characters = states - 2;
    let lengths = (0..characters).step_by(MAX_NAME).map(|before| MAX_NAME.min(characters - before));
    let names = lengths.zip(('A'..='Z').chain('a'..='j')).map(|(length, first)| match length {
        1 => "?".to_owned(),
        length => format!("{first}{}?", "k".repeat(length - 2)),
    });
    let rules: Vec<Value> = names.map(|name| json!({"action": "deny", "names": [name]})).collect();
    json!({"version": 1, "sysctls": {"default": "allow", "rules": rules}})
}

/// Requests that the rules' patterns match, or nearly do.
pub(super) fn request(section: &Section<SysctlRule>) -> impl Strategy<Value = Sysctl> + use<> {
    let mut patterns: Vec<String> = vec!["kernel/hostname".to_owned()];
    for rule in &section.rules {
        patterns.extend(rule.names.iter().flatten().map(|pattern| String::from(pattern.clone())));
    }
    let runs = select(&["", "/", "x", "all", "eth0.1/x", "*", "name", "\u{ff}"][..]);
    let change = prop_oneof![
        4 => Just(Change::None),
        1 => Just(Change::Cut),
        1 => any::<u8>().prop_map(|byte| Change::Append(byte.max(1))),
        1 => (any::<prop::sample::Index>(), 1..=255_u8).prop_map(|(index, byte)| Change::Replace(index, byte)),
        1 => Just(Change::Lengthen),
    ];
    let name = prop_oneof![
        10 => (select(patterns), runs, 1..=255_u8, change)
            .prop_map(|(pattern, run, byte, change)| change.apply(expand(&pattern, run, byte))),
        1 => vec(1..=255_u8, 0..=MAX_NAME),
    ];
    (name, any::<bool>()).prop_map(|(mut name, write)| {
        name.truncate(MAX_NAME);
        Sysctl { name, write }
    })
}

/// A name that the pattern matches.
pub(super) fn expand(pattern: &str, run: &str, byte: u8) -> Vec<u8> {
    let mut name = Vec::new();
    for token in pattern.bytes() {
        match token {
            b'*' => name.extend_from_slice(run.as_bytes()),
            b'?' => name.push(byte),
            other => name.push(other),
        }
    }
    name
}

/// What may make a name no longer match.
#[derive(Clone, Debug)]
enum Change {
    None,
    Cut,
    Append(u8),
    Replace(prop::sample::Index, u8),
    /// To the longest name that there can be.
    Lengthen,
}

impl Change {
    fn apply(self, mut name: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Cut => drop(name.pop()),
            Self::Append(byte) => name.push(byte),
            Self::Replace(index, byte) if !name.is_empty() => *index.get_mut(&mut name) = byte,
            Self::None | Self::Replace(..) => {}
            Self::Lengthen => name.resize(MAX_NAME, b'k'),
        }
        name
    }
}
