//! Writing a policy that was learnt: a rule a line.

use std::collections::{BTreeMap, BTreeSet};

use policy::access_letters;
use report::text::OneLine;
use serde_json::{Value, json};

use super::{Learner, Needed, needed_by, network::Rule};

/// Devices that do nothing: anybody who has them has nothing by them. Type and numbers, and the usual node.
const HARMLESS: [((&str, u32, u32), &str); 5] = [
    (("c", 1, 3), "/dev/null"),
    (("c", 1, 5), "/dev/zero"),
    (("c", 1, 7), "/dev/full"),
    (("c", 1, 8), "/dev/random"),
    (("c", 1, 9), "/dev/urandom"),
];

/// The major number of pseudo-terminals (Documentation/admin-guide/devices.txt), of which each run has others.
const PTS: u32 = 136;

/// An object, its keys in this order.
pub type Keys = Vec<(&'static str, Value)>;

/// A section: its name, its default where it is written anew, and the rules that it gets.
pub struct Section {
    pub name: &'static str,
    default: &'static str,
    pub rules: Vec<Keys>,
}

/// An object without the keys that have no value.
fn object(keys: impl IntoIterator<Item = (&'static str, Value)>) -> Keys {
    let is_there = |value: &Value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty());
    keys.into_iter().filter(|(_, value)| is_there(value)).collect()
}

/// An object on one line.
fn line<K: AsRef<str>>(keys: &[(K, Value)]) -> String {
    let written: Vec<String> =
        keys.iter().map(|(key, value)| format!("{}: {}", json!(key.as_ref()), spaced(value))).collect();
    format!("{{{}}}", written.join(", "))
}

fn spaced(value: &Value) -> String {
    match value.as_array() {
        Some(list) => format!("[{}]", list.iter().map(spaced).collect::<Vec<_>>().join(", ")),
        None => value.to_string(),
    }
}

fn ports(all: &BTreeSet<u16>) -> Value {
    all.iter().map(|port| if *port == 0 { json!("ephemeral") } else { json!(port) }).collect()
}

fn network(seen: &Learner, rule: &Rule) -> Keys {
    object([
        ("action", json!("allow")),
        ("ops", json!(rule.ops)),
        ("protocols", json!(rule.protocols)),
        ("hosts", json!(rule.hosts)),
        ("ports", ports(&rule.ports)),
        ("local_ports", ports(&rule.local_ports)),
        ("private", if rule.private { json!(true) } else { Value::Null }),
        ("reason", json!(rule.reason(seen))),
    ])
}

impl Section {
    fn text(&self) -> String {
        let Self { name, default, rules } = self;
        if rules.is_empty() {
            return format!("  \"{name}\": {{\"default\": \"{default}\"}}");
        }
        let rules: Vec<String> = rules.iter().map(|rule| format!("      {}", line(rule))).collect();
        format!(
            "  \"{name}\": {{\n    \"default\": \"{default}\",\n    \"rules\": [\n{}\n    ]\n  }}",
            rules.join(",\n")
        )
    }
}

/// The sections. Devices that do nothing are `harmless`, and allowed in any case.
pub fn sections(seen: &Learner, rules: &[Rule], has_unix: bool, harmless: bool) -> Vec<Section> {
    let network = rules.iter().map(|rule| network(seen, rule)).collect();
    let mut sections = vec![Section { name: "network", default: "deny", rules: network }];
    if has_unix {
        sections.push(Section { name: "unix", default: "deny", rules: unix(seen) });
    }
    sections.push(Section { name: "devices", default: "deny", rules: devices(seen, harmless) });
    if !seen.tunables.is_empty() {
        let names: Vec<&String> = seen.tunables.keys().collect();
        let reason = json!(needed_by(seen.tunables.values()));
        let rule =
            object([("action", json!("allow")), ("names", json!(names)), ("access", json!("w")), ("reason", reason)]);
        sections.push(Section { name: "sysctls", default: "allow", rules: vec![rule] });
    }
    if !seen.sockets.is_empty() {
        let rule = |((kind, protocol), by): (&(String, String), &Needed)| {
            let protocol = protocol.parse::<u32>().map_or_else(|_| json!(protocol), |number| json!(number));
            let reason = json!(needed_by([by]));
            object([("action", json!("allow")), ("type", json!(kind)), ("protocol", protocol), ("reason", reason)])
        };
        sections.push(Section { name: "sockets", default: "allow", rules: seen.sockets.iter().map(rule).collect() });
    }
    sections
}

/// The policy's text.
pub fn policy(seen: &Learner, command: &[String], rules: &[Rule], has_unix: bool) -> String {
    let description: String = command.join(" ").chars().take(100).collect();
    let mut parts = vec![
        "  \"version\": 1".to_owned(),
        format!("  \"description\": {}", json!(format!("learnt from: {description}"))),
    ];
    parts.extend(sections(seen, rules, has_unix, true).iter().map(Section::text));
    if !seen.process.is_empty() {
        let keys: Vec<(&str, Value)> =
            seen.process.iter().map(|(key, words)| (&**key, json!(words.keys().collect::<Vec<_>>()))).collect();
        parts.push(format!("  \"process\": {}", line(&keys)));
    }
    format!("{{\n{}\n}}\n", parts.join(",\n"))
}

fn unix(seen: &Learner) -> Vec<Keys> {
    let named: Vec<(String, &Needed)> = seen.unix.iter().filter_map(|(path, by)| Some((pattern(path)?, by))).collect();
    if named.is_empty() {
        return Vec::new();
    }
    let reason = json!(needed_by(named.iter().map(|(_, by)| *by)));
    let paths: Vec<&String> = named.iter().map(|(path, _)| path).collect();
    vec![object([("action", json!("allow")), ("paths", json!(paths)), ("reason", reason)])]
}

/// A socket's path or abstract name as a rule has it: characters that mean more there are any one byte. `None` for what no rule can
/// name: relative paths, and names with bytes that are no text, which the log escapes.
pub fn pattern(path: &str) -> Option<String> {
    let named = path.starts_with(['/', '@']) && !path.contains('\\');
    named.then(|| path.replace(['[', ']', '{', '}', '*'], "?"))
}

fn devices(seen: &Learner, harmless: bool) -> Vec<Keys> {
    let read_write = common::device::access::READ | common::device::access::WRITE;
    let mut all: BTreeMap<(&str, u32, Option<u32>), (u32, String)> = BTreeMap::new();
    if harmless {
        let baseline = HARMLESS.map(|((kind, major, minor), path)| {
            ((kind, major, Some(minor)), (read_write, format!("{path}: harmless")))
        });
        all.extend(baseline);
    }
    for ((kind, major, minor), opened) in &seen.devices {
        let is_harmless = harmless_node(kind, *major, *minor).is_some();
        if let Some((accesses, _)) = all.get_mut(&(&**kind, *major, Some(*minor))).filter(|_| is_harmless) {
            *accesses |= opened.accesses;
            continue;
        }
        let is_pts = *major == PTS && kind == "c";
        let path = opened.path.as_deref().map(|path| if is_pts { "/dev/pts/*" } else { path });
        let by = needed_by([&opened.by]);
        let reason =
            [path.map(|path| OneLine(path).to_string()), by].into_iter().flatten().collect::<Vec<_>>().join(": ");
        let (accesses, known) = all.entry((kind, *major, (!is_pts).then_some(*minor))).or_default();
        *accesses |= if is_harmless { opened.accesses | read_write } else { opened.accesses };
        *known = reason;
    }
    all.into_iter()
        .map(|((kind, major, minor), (accesses, reason))| {
            object([
                ("action", json!("allow")),
                ("type", json!(kind)),
                ("major", json!(major)),
                ("minor", json!(minor)),
                ("access", json!(access_letters(accesses))),
                ("reason", json!(Some(reason).filter(|reason| !reason.is_empty()))),
            ])
        })
        .collect()
}

/// The usual node of a device that does nothing.
fn harmless_node(kind: &str, major: u32, minor: u32) -> Option<&'static str> {
    HARMLESS.iter().find(|(numbers, _)| *numbers == (kind, major, minor)).map(|(_, node)| *node)
}

/// How narrow it is: counts of what it allows.
pub fn summary(seen: &Learner, rules: &[Rule], has_unix: bool) -> String {
    let of = |op: &'static str| rules.iter().filter(move |rule| rule.ops.contains(op) && rule.hosts != ["sandbox"]);
    let hosts: BTreeSet<&String> = of("connect").chain(of("send")).flat_map(|rule| &rule.hosts).collect();
    let ports: BTreeSet<u16> = of("connect").chain(of("send")).flat_map(|rule| rule.ports.iter().copied()).collect();
    let bound: BTreeSet<u16> = of("bind").flat_map(|rule| rule.ports.iter().copied()).collect();
    let count = |number: usize, what: &str| {
        (number > 0).then(|| format!("{number} {what}{}", if number == 1 { "" } else { "s" }))
    };
    let own = rules.iter().any(|rule| rule.hosts == ["sandbox"]).then(|| "its own servers".to_owned());
    let peers = count(hosts.len(), "host");
    let peers = peers
        .map(|hosts| count(ports.len(), "port").map_or_else(|| hosts.clone(), |ports| format!("{hosts} at {ports}")));
    let bound = count(bound.len(), "port").map(|ports| format!("{ports} to bind"));
    let network = match count(rules.len(), "rule") {
        Some(rules) => {
            let what = [own, peers, bound].into_iter().flatten().collect::<Vec<_>>().join(", ");
            let what = if what.is_empty() { what } else { format!(" ({what})") };
            format!("{rules} on the network{what}")
        }
        None => "nothing on the network".to_owned(),
    };
    let unix = if has_unix {
        count(seen.unix.keys().filter(|path| pattern(path).is_some()).count(), "Unix socket")
    } else {
        Some("all Unix sockets".to_owned())
    };
    let does_something = |(kind, major, minor): &&(String, u32, u32)| harmless_node(kind, *major, *minor).is_none();
    let devices = count(seen.devices.keys().filter(does_something).count(), "device");
    let process = count(seen.process.values().map(BTreeMap::len).sum(), "word");
    let process = process.map(|words| format!("{words} of the process section"));
    let all = [Some(network), unix, devices, count(seen.tunables.len(), "tunable"), process];
    all.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
