//! Changes of a config.json that its readers could understand differently.

use std::fmt;

use serde_json::{Value, json};

use crate::{
    json::{Written, quoted},
    random::Random,
    world::{DEFAULT_POLICY, OTHER_POLICY, VICTIM},
};

/// Where something is changed in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Where {
    Top,
    Hooks,
    CreateRuntime,
    Annotations,
    Linux,
}

/// A change of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Another member, before or after all others; of a list, another entry, without a key.
    Add {
        to: Where,
        key: String,
        value: Written,
        first: bool,
        class: String,
    },
    /// Text before or after the document, or in place of some of it.
    Before(&'static [u8]),
    After(&'static [u8]),
    Instead(&'static [u8], &'static [u8]),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add { to, key, value, first, .. } => {
                let place = match to {
                    Where::Top => "/",
                    Where::Hooks => "/hooks",
                    Where::CreateRuntime => "/hooks/createRuntime",
                    Where::Annotations => "/annotations",
                    Where::Linux => "/linux",
                };
                let colon = if key.is_empty() { "" } else { ": " };
                let value = value.to_string();
                let value =
                    if value.len() > 200 { format!("{}… ({} bytes)", &value[..60], value.len()) } else { value };
                write!(f, "{} in {place}: {key}{colon}{value}", if *first { "first" } else { "last" })
            }
            Self::Before(text) => write!(f, "before the document: {}", text.escape_ascii()),
            Self::After(text) => write!(f, "after the document: {}", text.escape_ascii()),
            Self::Instead(old, new) => write!(f, "{} instead of {}", new.escape_ascii(), old.escape_ascii()),
        }
    }
}

impl Change {
    /// What is reported once.
    pub fn class(&self) -> String {
        match self {
            Self::Add { to, class, .. } => format!("{to:?} {class}"),
            other => other.to_string(),
        }
    }
}

/// The ways in which a key is spelled.
fn spelling(random: &mut Random, key: &str) -> (String, &'static str) {
    let escaped = |c: char| format!("\\u{:04x}", u32::from(c));
    match random.below(10) {
        0 => (quoted(key), "as it is"),
        1 => {
            // At least one letter in the other case.
            let certain = random.below(key.len());
            let other = |c: char| if c.is_ascii_uppercase() { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() };
            let text = key
                .chars()
                .enumerate()
                .map(|(index, c)| if index == certain || random.once_in(2) { other(c) } else { c });
            (quoted(&text.collect::<String>()), "case")
        }
        2 => (quoted(&key.replacen('k', "\u{212a}", 1)), "Kelvin sign"),
        3 => (quoted(&key.replacen('s', "\u{17f}", 1)), "long s"),
        4 => (quoted(key).replacen('k', "\\u212a", 1), "Kelvin sign"),
        5 => (quoted(key).replacen('s', "\\u017F", 1), "long s"),
        6 => (quoted(&format!("{key}\0")), "NUL"),
        7 => (quoted(&format!("{key}\0{}", random.next())), "NUL"),
        8 => {
            let first = key.chars().next().unwrap_or('x');
            (quoted(key).replacen(first, &escaped(first), 1), "escape")
        }
        _ => (quoted(&format!("{key}{}", random.pick(&[" ", "\u{feff}", "\u{301}", "s", "\u{1}"]))), "other"),
    }
}

/// Entries that look like guard-hook's.
fn lookalike(random: &mut Random, hook: &str) -> (Written, &'static str) {
    let path = quoted("path");
    let good = json!(["guard-hook", "createRuntime"]);
    let arguments: &[Value] = &[
        json!(["guard-hook", "createRuntime", "--help"]),
        json!(["guard-hook", "createRuntime", "--version"]),
        json!(["guard-hook", "--help"]),
        json!(["guard-hook", "poststop"]),
        json!(["guard-hook", "gc"]),
        json!(["guard-hook", null]),
        json!(["guard-hook", null, "--help"]),
        json!([]),
        Value::Null,
        json!("guard-hook"),
    ];
    let members = match random.below(6) {
        0 | 1 => {
            let arguments = random.pick(arguments);
            return (Written::new(&json!({"path": hook, "args": arguments})), "arguments");
        }
        2 => {
            let (key, class) = spelling(random, "path");
            let mut members = vec![(path, Written::new(&json!(hook))), (quoted("args"), Written::new(&good))];
            members.insert(random.below(3), (key, Written::new(&json!("/bin/true"))));
            return (Written::Object(members), if class == "NUL" { "path NUL" } else { "path" });
        }
        3 => {
            let (key, class) = spelling(random, "args");
            let mut members = vec![(path, Written::new(&json!(hook))), (quoted("args"), Written::new(&good))];
            members.insert(random.below(3), (key, Written::new(random.pick(arguments))));
            return (Written::Object(members), if class == "NUL" { "args NUL" } else { "args" });
        }
        4 => {
            let path =
                random.pick(&["/bin/true", "guard-hook", "/run/w/bin/../bin/guard-hook", "/run/w/bin/guard-hook\0"]);
            json!({"path": path, "args": good})
        }
        _ => {
            let more = random
                .pick(&[
                    json!({"timeout": 1}),
                    json!({"timeout": -1}),
                    json!({"env": ["PATH=/", "X"]}),
                    json!({"env": null}),
                ])
                .clone();
            let mut members = json!({"path": hook, "args": good});
            for (key, value) in more.as_object().into_iter().flatten() {
                members[key] = value.clone();
            }
            members
        }
    };
    (Written::new(&members), "entry")
}

/// Any of these values.
fn any(random: &mut Random, values: &[Value]) -> Written {
    Written::new(random.pick(values))
}

/// Any change.
pub fn change(random: &mut Random, hook: &str) -> Change {
    match random.below(14) {
        0..=2 => of_hooks(random, hook),
        3..=4 => of_stage(random, hook),
        5..=6 => {
            let (value, class) = lookalike(random, hook);
            add(random, Where::CreateRuntime, String::new(), value, class)
        }
        7..=9 => of_annotations(random),
        10 => {
            let name = random.one(&["linux", "process", "root", "ociVersion"]);
            let (key, class) = spelling(random, name);
            let class = if class == "as it is" { "twice" } else { class };
            let value = any(
                random,
                &[
                    json!(null),
                    json!({}),
                    json!({"cgroupsPath": ""}),
                    json!({"cgroupsPath": "/"}),
                    json!({"args": null}),
                ],
            );
            add(random, Where::Top, key, value, &format!("{name}, {class}"))
        }
        11..=12 => of_filter(random),
        _ => of_text(random),
    }
}

fn add(random: &mut Random, to: Where, key: String, value: Written, class: &str) -> Change {
    Change::Add { to, key, value, first: random.once_in(2), class: class.to_owned() }
}

/// Another member that a reader could take for the hooks.
fn of_hooks(random: &mut Random, hook: &str) -> Change {
    let (key, class) = spelling(random, "hooks");
    let (stage, _) = spelling(random, "createRuntime");
    let list = any(random, &[json!(null), json!([]), json!([{"path": "/bin/true"}])]);
    let value = match random.below(7) {
        0 => Written::new(&json!(null)),
        1 => Written::new(&json!({})),
        2 => any(random, &[json!([]), json!(""), json!(0), json!(true), json!({"poststop": null})]),
        3 => Written::Object(vec![(quoted("createRuntime"), list)]),
        4 => Written::Object(vec![(quoted("createRuntime"), Written::List(vec![lookalike(random, hook).0]))]),
        _ => Written::Object(vec![(stage, list)]),
    };
    add(random, Where::Top, key, value, &format!("hooks, {class}"))
}

/// Another member that a reader could take for a stage.
fn of_stage(random: &mut Random, hook: &str) -> Change {
    let name = random.one(&["createRuntime", "createRuntime", "poststop", "prestart"]);
    let (key, class) = spelling(random, name);
    let value = match random.below(4) {
        0 => Written::new(&json!(null)),
        1 => Written::new(&json!([])),
        2 => Written::List(vec![lookalike(random, hook).0]),
        _ => any(random, &[json!({}), json!(""), json!([null]), json!([{}])]),
    };
    add(random, Where::Hooks, key, value, &format!("{name}, {class}"))
}

/// Annotations of the guard's, or others that a reader could take for them.
fn of_annotations(random: &mut Random) -> Change {
    match random.below(3) {
        0 => {
            let (key, class) = spelling(random, "annotations");
            let others = [
                json!(null),
                json!({}),
                json!({"io.guard-run.policy": OTHER_POLICY}),
                json!({"io.guard-run.policy": ""}),
                json!([]),
            ];
            let value = any(random, &others);
            add(random, Where::Top, key, value, &format!("annotations, {class}"))
        }
        1 => {
            let name = random.one(&["io.guard-run.policy", "io.guard-run.log"]);
            let (key, class) = spelling(random, name);
            let others = [
                json!(DEFAULT_POLICY),
                json!(null),
                json!(0),
                json!("/etc/guard-run/../guard-run/default-policy.json"),
                json!(""),
            ];
            let value = any(random, &others);
            add(random, Where::Annotations, key, value, &format!("annotation, {class}"))
        }
        _ => {
            let path = random.one(&["passwd", "sub/log.json", "new.json", "sub", "root.sock"]);
            let value = Written::new(&json!(format!("{VICTIM}/{path}")));
            add(random, Where::Annotations, quoted("io.guard-run.log"), value, ANY_LOG)
        }
    }
}

/// A filter of system calls that lets those of other architectures through, if somebody takes it for one.
fn of_filter(random: &mut Random) -> Change {
    if random.once_in(4) {
        // The one instruction that returns SECCOMP_RET_ALLOW.
        let value = any(random, &[json!("BgAAAAAA/38="), json!(""), json!(null)]);
        return add(random, Where::Annotations, quoted("run.oci.seccomp_bpf_data"), value, FILTER);
    }
    let name = random.one(&["SCMP_ARCH_X86", "SCMP_ARCH_x86", "scmp_arch_x86", "x86", "X86", "SCMP_ARCH_X32", "x32"]);
    let list = Written::new(&json!(["SCMP_ARCH_X86_64", name]));
    let mut members = vec![(quoted("defaultAction"), Written::new(&json!("SCMP_ACT_ALLOW")))];
    members.push((spelling(random, "architectures").0, list));
    if random.once_in(3) {
        members.insert(random.below(3), (quoted("architectures"), Written::new(&json!(["SCMP_ARCH_X86_64"]))));
    }
    let (key, _) = spelling(random, "seccomp");
    add(random, Where::Linux, key, Written::Object(members), FILTER)
}

/// The class of a log that is the victim's, and of a filter.
const ANY_LOG: &str = "a log anywhere";
const FILTER: &str = "a filter";

impl Change {
    /// Whether it is something that no model of a reader is about.
    pub fn is_beyond_models(&self) -> bool {
        matches!(self, Self::Add { class, .. } if class == ANY_LOG || class == FILTER)
    }
}

/// Text that is no JSON to all readers, or more of it than some take.
fn of_text(random: &mut Random) -> Change {
    match random.below(9) {
        0 => Change::After(b"{}"),
        1 => Change::After(b"{\"hooks\":null}"),
        2 => Change::After(b"\0"),
        3 => Change::Before(b"\xef\xbb\xbf"),
        4 => Change::Before(b"/* */"),
        5 => Change::Instead(b"\"hostname\":\"x\"", b"\"hostname\":\"\xff\""),
        6 => Change::Instead(b"\"hostname\":\"x\"", b"\"hostname\":\"\\ud800\""),
        7 => {
            let deep = 50 << random.below(5);
            let value = Written::Scalar(format!("{}{}", "[".repeat(deep), "]".repeat(deep)));
            add(random, Where::Top, quoted("deep"), value, "depth")
        }
        _ => {
            let long = "x".repeat(1 << random.below(22));
            let number = random.one(&["1e999999", "-0", "123456789012345678901234567890", "0.1e-400"]);
            let value = if random.once_in(2) { Written::Scalar(number.to_owned()) } else { Written::new(&json!(long)) };
            add(random, Where::Top, quoted("large"), value, "size")
        }
    }
}
