//! Policies: any text as one, for a guard-run of root's and for one of an ordinary user's, which has file capabilities. It must be
//! refused in one line, or the command runs; and an ordinary user's command never has more than its user, whatever the policy says.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use serde_json::{Value, json};

use crate::{
    drive::drive,
    finding::{Finding, Known, Violation},
    guarded::{Expected, Runs, Starter},
    minimise::minimise,
    place::Place,
    random::Random,
    session::{Session, found, note},
    world::{self, OWN},
};

/// What the changes begin with.
const POLICIES: [&str; 10] = [
    include_str!("../../examples/audit.json"),
    include_str!("../../examples/ci.json"),
    include_str!("../../examples/everything-allowed.json"),
    include_str!("../../examples/loopback-only.json"),
    include_str!("../../examples/no-daemons.json"),
    include_str!("../../examples/no-private-networks.json"),
    include_str!("../../examples/own-servers-only.json"),
    include_str!("../../examples/ping.json"),
    include_str!("../../examples/sockopts.json"),
    include_str!("../../examples/tutorial.json"),
];

/// A change of a policy.
#[derive(Clone, Debug)]
enum Change {
    /// What is at this place has another value.
    Set(String, Value),
    /// What is at this place is left out.
    Without(String),
    /// The section that is about the command's process says this.
    Process(Value),
    /// These bytes follow the first so many of the text, in per mille.
    Text(usize, &'static str),
    /// Only so much of the text is there.
    Cut(usize),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(place, value) => {
                let text = value.to_string();
                let short: String = text.chars().take(120).collect();
                write!(f, "{place}: {short}{}", if short.len() < text.len() { "…" } else { "" })
            }
            Self::Without(place) => write!(f, "no {place}"),
            Self::Process(value) => write!(f, "/process: {value}"),
            Self::Text(place, text) => write!(f, "after {place} ‰ of the text: {}", text.escape_debug()),
            Self::Cut(place) => write!(f, "only {place} ‰ of the text"),
        }
    }
}

/// The places in a document, as JSON pointers.
fn places(value: &Value, own: &str, found: &mut Vec<String>) {
    let mut below = |name: &str, value: &Value| {
        let place = format!("{own}/{}", name.replace('~', "~0").replace('/', "~1"));
        found.push(place.clone());
        places(value, &place, found);
    };
    match value {
        Value::Array(list) => (0..).zip(list).for_each(|(index, value): (usize, _)| below(&index.to_string(), value)),
        Value::Object(members) => members.iter().for_each(|(name, value)| below(name, value)),
        _ => {}
    }
}

/// Any change of a policy.
fn change(random: &mut Random, policy: &Value) -> Change {
    let mut all = Vec::new();
    places(policy, "", &mut all);
    let place = if all.is_empty() { String::new() } else { random.pick(&all).clone() };
    match random.below(10) {
        0..=4 => Change::Set(place, value(random)),
        5 => Change::Without(place),
        6..=7 => {
            let parts = [
                "namespaces",
                "privileges",
                "kernel-files",
                "bpf",
                "tracing",
                "signals",
                "abstract-sockets",
                "ipc",
                "io-uring",
                "keys",
                "delegation",
                "cgroups",
                "inherited-sockets",
                "sysctls",
                "terminal",
            ];
            let allowed: Vec<&str> = (0..random.below(6)).map(|_| random.one(&parts)).collect();
            let capabilities =
                random.pick(&[json!([]), json!(["CAP_SYS_ADMIN"]), json!(["CAP_NET_RAW", "CAP_BPF"])]).clone();
            Change::Process(match random.below(4) {
                0 => json!({"isolation": "cgroup-only"}),
                1 => json!({ "capabilities": capabilities }),
                2 => json!({ "allow": allowed, "capabilities": capabilities }),
                _ => json!({ "allow": allowed }),
            })
        }
        8 => Change::Text(
            random.below(1000),
            random.one(&["\0", "\"", "\\", "{", "]", ",", "\u{feff}", "1e400", "\\ud800", "//"]),
        ),
        _ => Change::Cut(random.below(1000)),
    }
}

fn value(random: &mut Random) -> Value {
    match random.below(16) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(random.one(&[-1_i64, 0, 1, 255, 256, 65_535, 65_536, i64::MIN, i64::MAX])),
        3 => json!(u64::MAX),
        4 => json!(0.5),
        5 => json!(""),
        6 => json!([]),
        7 => json!({}),
        8 => json!("x".repeat(1 << random.below(20))),
        9 => json!(random.one(&[
            "any",
            "sandbox",
            "loopback",
            "deny",
            "allow",
            "audit",
            "*",
            "**",
            "/",
            "\n",
            "a\0b",
            "\u{1b}[2J"
        ])),
        10 => {
            json!(random.one(&["0.0.0.0/0", "::/0", "::ffff:0:0/96", "1.2.3.4/33", "fe80::1%eth0", "0-65535", "1-0"]))
        }
        11 => json!((0..random.below(600)).map(|number| number.to_string()).collect::<Vec<_>>()),
        12 => json!(
            (0..random.below(3000)).map(|number| json!({"action": "deny", "ports": [number]})).collect::<Vec<_>>()
        ),
        13 => json!(
            (0..random.below(4000))
                .map(|number| format!("10.{}.{}.0/24", number / 256, number % 256))
                .collect::<Vec<_>>()
        ),
        // Few: an automaton with all the states there may be takes an unoptimised program seconds.
        14 => json!((0..random.below(3)).map(|number| format!("*a{number}*/**/?")).collect::<Vec<_>>()),
        _ => (0..1 << random.below(9)).fold(Value::Null, |inner, _| json!([inner])),
    }
}

/// The text of a policy that is changed so.
fn text(policy: &Value, changes: &[Change]) -> Vec<u8> {
    let mut policy = policy.clone();
    for change in changes {
        match change {
            Change::Set(place, value) => {
                if let Some(old) = policy.pointer_mut(place) {
                    *old = value.clone();
                }
            }
            Change::Without(place) => {
                let (parent, name) = place.rsplit_once('/').unwrap_or_default();
                match policy.pointer_mut(parent) {
                    Some(Value::Object(members)) => drop(members.remove(name)),
                    Some(Value::Array(list)) => drop(list.pop()),
                    _ => {}
                }
            }
            Change::Process(process) => {
                if let Value::Object(members) = &mut policy {
                    members.insert("process".into(), process.clone());
                }
            }
            Change::Text(..) | Change::Cut(_) => {}
        }
    }
    let mut text = policy.to_string().into_bytes();
    for change in changes {
        match change {
            Change::Text(place, more) => {
                let at = text.len() * place / 1000;
                text.splice(at..at, more.bytes()).for_each(drop);
            }
            Change::Cut(place) => text.truncate(text.len() * place / 1000),
            _ => {}
        }
    }
    text
}

/// Fuzzes until the time is over.
///
/// # Errors
///
/// When the world around an attempt can't be made.
pub fn fuzz(session: &mut Session, place: &Place) -> anyhow::Result<()> {
    let mut random = session.random.clone();
    let runs = Runs::new(place)?;
    let policies = POLICIES.map(|text| serde_json::from_str::<Value>(text).unwrap_or_default());
    let mut known = Known::default();
    let starters =
        [("root runs a command under", Starter::Root), ("an ordinary user runs a command under", Starter::Attacker)];
    world::attackers(false)?;
    let mut ran = 0_u32;
    while !session.is_over() {
        let index = random.below(policies.len());
        let policy = &policies[index];
        let changes: Vec<Change> = (0..=random.below(3)).map(|_| change(&mut random, policy)).collect();
        for (subject, starter) in starters {
            session.count();
            let after = (session.elapsed(), session.attempts());
            let (violations, has_run) = attempt(&runs, starter, policy, &changes)?;
            ran += u32::from(has_run);
            for violation in violations {
                // Of each kind, one: what it says differs with every policy.
                if known.has(subject, &violation.kind, &[].into()) {
                    continue;
                }
                known.add(subject, &violation.kind, [].into());
                let again = |fewer: &[Change]| Ok(attempt(&runs, starter, policy, fewer)?.0);
                let (changes, violation) = minimise(&changes, violation, again)?;
                let way = [format!("the example {index}: {policy}")]
                    .into_iter()
                    .chain(changes.iter().map(ToString::to_string));
                found(Finding { subject: subject.into(), violation, way: way.collect(), after })?;
            }
        }
    }
    note(&format!("the command has run {ran} times"));
    Ok(())
}

/// Runs the command under a policy that is changed so. What is wrong, and whether it has run.
fn attempt(
    runs: &Runs,
    starter: Starter,
    policy: &Value,
    changes: &[Change],
) -> anyhow::Result<(Vec<Violation>, bool)> {
    let file = Path::new(OWN).join("policy.json");
    fs::write(&file, text(policy, changes))?;
    let option = format!("--policy={}", file.display());
    let command = runs.command(starter, &[&option, "--log=-", "--quiet"]);
    let outcome = drive(command, &runs.probe, 0, |_| Ok(()))?;
    let expected = Expected {
        starter,
        as_attacker: starter == Starter::Attacker,
        independent: true,
        guarded: false,
        descriptors: BTreeMap::new(),
    };
    let violations = runs.judge(&expected, &outcome);
    Ok((violations, outcome.output.status.success()))
}
