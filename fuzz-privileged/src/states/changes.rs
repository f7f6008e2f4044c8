//! Changes of the state that guard-hook reads.

use std::{fmt, fs};

use serde_json::{Value, json};

use crate::{
    containers::state,
    json::{Written, quoted},
    random::Random,
    world::{DEFAULT_POLICY, HOME, OWN, VICTIM},
};

/// A change of the state.
#[derive(Clone, Debug)]
pub enum Change {
    /// A member has this value, or is there once more.
    Member { name: &'static str, value: Written, again: bool },
    /// An annotation has.
    Annotation { name: &'static str, value: Written },
    /// A member is left out.
    Without(&'static str),
    /// Only so much of the text is there, in percent.
    Cut(usize),
    /// Something follows.
    After(&'static str),
    /// The stage is said, whatever the status.
    Stage(&'static str),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |value: &Written| {
            let text = value.to_string();
            let end = text.char_indices().nth(120).map_or(text.len(), |(index, _)| index);
            if end < text.len() { format!("{}… ({} bytes)", &text[..end], text.len()) } else { text }
        };
        match self {
            Self::Member { name, value, again: false } => write!(f, "\"{name}\": {}", short(value)),
            Self::Member { name, value, again: true } => write!(f, "once more \"{name}\": {}", short(value)),
            Self::Annotation { name, value } => write!(f, "the annotation \"{name}\": {}", short(value)),
            Self::Without(name) => write!(f, "no \"{name}\""),
            Self::Cut(percent) => write!(f, "only {percent} % of the text"),
            Self::After(text) => write!(f, "followed by {}", text.escape_debug()),
            Self::Stage(stage) => write!(f, "guard-hook {stage}"),
        }
    }
}

impl Change {
    /// What is reported once for each kind of violation.
    pub fn class(&self) -> String {
        match self {
            Self::Member { name, .. } | Self::Without(name) => (*name).to_owned(),
            Self::Annotation { name, .. } => format!("the annotation {name}"),
            Self::Cut(_) => "cut".to_owned(),
            Self::After(_) => "more".to_owned(),
            Self::Stage(stage) => (*stage).to_owned(),
        }
    }
}

/// Any change. Ids that are made up begin with `ids`; `user` is a process that is no container's.
pub fn change(random: &mut Random, ids: &str, user: u32) -> Change {
    match random.below(10) {
        0..=2 => of_process(random, user),
        3..=5 => of_annotations(random),
        6..=8 => of_member(random, ids),
        _ => match random.below(5) {
            0 => Change::Without(random.one(&["pid", "id", "status", "bundle", "annotations", "ociVersion"])),
            1 => Change::Cut(random.below(100)),
            2 => Change::After(random.one(&["{}", "\0", "x", "\n\n", "]"])),
            3 => Change::Stage(random.one(&["createRuntime", "poststop"])),
            _ => {
                let depth = 1 << random.below(15);
                let value = Written::Scalar(format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
                Change::Member { name: "deep", value, again: false }
            }
        },
    }
}

/// Any of these values.
fn any(random: &mut Random, values: &[Value]) -> Written {
    Written::new(random.pick(values))
}

/// Processes that are none, or no container's.
fn of_process(random: &mut Random, user: u32) -> Change {
    // guard-hook's own comes soon.
    let last = fs::read_to_string("/proc/sys/kernel/ns_last_pid").unwrap_or_default();
    let next: u32 = last.trim().parse().unwrap_or_default();
    let numbers = [
        json!(1),
        json!(0),
        json!(-1),
        json!(2),
        json!(std::process::id()),
        json!(user),
        json!(next + 2),
        json!(next + 3),
        json!(4_194_305),
        json!(1_u64 << 32 | 1),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1.5),
        json!("1"),
        json!(null),
        json!([1]),
    ];
    Change::Member { name: "pid", value: any(random, &numbers), again: random.once_in(4) }
}

fn of_annotations(random: &mut Random) -> Change {
    if random.once_in(3) {
        let name = random.one(&["io.guard-run.polcy", "io.guard-run.", "x", "io.guard-run.policy\0", ""]);
        let values = [json!(null), json!(1), json!({}), json!("x\ny"), json!("x".repeat(1 << 20))];
        return Change::Annotation { name, value: any(random, &values) };
    }
    let victims = ["passwd", "new.json", "", "root.sock", "dir/policy.json"].map(|name| format!("{VICTIM}/{name}"));
    let long = format!("/{}", "x".repeat(5000));
    let round = format!("/var/log/guard-run/../../..{VICTIM}/passwd");
    let attackers = format!("{HOME}/sub/policy.json");
    let others = [
        &long,
        &round,
        &attackers,
        DEFAULT_POLICY,
        "/var/log/guard-run/a.json",
        "/dev/zero",
        "/dev/null",
        "/dev/stdin",
        "/proc/self/mem",
        "/proc/self/fd/0",
        "/proc/self/environ",
        "/sys/fs/bpf/x",
        "/",
        "relative",
        "-",
        "",
        "/a\0b",
    ];
    let paths: Vec<&str> = victims.iter().map(String::as_str).chain(others).collect();
    let name = random.one(&["io.guard-run.log", "io.guard-run.policy"]);
    Change::Annotation { name, value: Written::new(&json!(random.one(&paths))) }
}

fn of_member(random: &mut Random, ids: &str) -> Change {
    let name = random.one(&["id", "status", "bundle", "annotations"]);
    let (values, again) = match name {
        "id" => {
            let odd = ["/../../x", ".x~", &"x".repeat(250), "\n\u{1}"].map(|end| json!(format!("{ids}{end}")));
            (odd.into_iter().chain([json!(""), json!(null), json!(1), json!([])]).collect(), false)
        }
        "status" => {
            let words = ["creating", "created", "running", "stopped", "Stopped", "x"].map(|word| json!(word));
            (words.into_iter().chain([json!(null), json!(1)]).collect(), random.once_in(4))
        }
        "bundle" => {
            let long = "x".repeat(100_000);
            let odd = format!("{OWN}/odd");
            let paths = [&odd, "/proc/self/fd", VICTIM, "", "../..", "/dev/null", &long].map(|path| json!(path));
            (paths.into_iter().chain([json!(null), json!(1)]).collect(), false)
        }
        _ => (vec![json!(null), json!([]), json!({}), json!("x")], random.once_in(2)),
    };
    let values: Vec<Value> = values;
    Change::Member { name, value: any(random, &values), again }
}

/// The text of a state, and the stage that is said.
pub fn document(id: &str, process: u32, changes: &[Change]) -> (String, &'static str) {
    let mut document = Written::new(&state(id, process));
    let (mut stage, mut more, mut percent) = ("", "", 100);
    for change in changes {
        match change {
            Change::Member { name, value, again } => {
                if *again && let Written::Object(members) = &mut document {
                    members.push((quoted(name), value.clone()));
                } else if let Some(member) = document.member(name, value) {
                    *member = value.clone();
                }
            }
            Change::Annotation { name, value } => {
                let annotations = document.member("annotations", &Written::Object(Vec::new()));
                if let Some(member) = annotations.and_then(|annotations| annotations.member(name, value)) {
                    *member = value.clone();
                }
            }
            Change::Without(name) => {
                if let Written::Object(members) = &mut document {
                    members.retain(|(key, _)| *key != quoted(name));
                }
            }
            Change::Cut(rest) => percent = *rest,
            Change::After(text) => more = text,
            Change::Stage(said) => stage = said,
        }
    }
    let mut text = document.to_string();
    let end = (0..=text.len() * percent / 100).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    text.truncate(end);
    (text + more, stage)
}
