//! Rules of the sysctls section.

use common::sysctl::{self, NAME_LEN};
use serde::{Deserialize, Serialize};

use super::{
    Action, Rule,
    glob::Glob,
    section::{is_reported, non_empty, reason, reported, words},
};

/// A rule on kernel tunables. What is `None` holds for all.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SysctlRule {
    /// What happens to the requests that match.
    pub action: Action,
    /// Whether what it denies is reported.
    #[serde(default = "reported", skip_serializing_if = "is_reported")]
    pub report: bool,
    /// The tunables.
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<Pattern>>,
    /// Whether they are read or written.
    #[serde(default)]
    pub access: Access,
    /// Why it is there, for anybody who meets it.
    #[serde(default, deserialize_with = "reason", skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Rule for SysctlRule {
    fn action(&self) -> Action {
        self.action
    }

    fn reports(&self) -> bool {
        self.report
    }

    fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

words! {
    /// Ways to use a tunable.
    #[derive(Default)]
    pub enum Access {
        /// Reading.
        Read = "r",
        /// Writing.
        Write = "w",
        /// Both.
        #[default]
        Both = "rw",
    }
}

impl Access {
    /// Whether an access is among those meant.
    #[must_use]
    pub fn includes(self, access: sysctl::Access) -> bool {
        match self {
            Self::Read => access == sysctl::Access::READ,
            Self::Write => access == sysctl::Access::WRITE,
            Self::Both => true,
        }
    }
}

/// The names of one or more tunables.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Glob);

impl Pattern {
    /// The glob in the kernel's spelling.
    #[must_use]
    pub fn glob(&self) -> &Glob {
        &self.0
    }
}

/// A tunable's name or pattern in the kernel's spelling. As in sysctl(8), the first separator tells the notation: where
/// it is a dot, dots separate and a slash stands for a dot in a name (`net.ipv4.conf.eth0/100.forwarding`).
#[must_use]
pub fn canonical_name(text: &str) -> String {
    match text.find(['.', '/']) {
        Some(separator) if text.as_bytes()[separator] == b'.' => text
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => text.to_owned(),
    }
}

/// What is directly below /proc/sys (Documentation/admin-guide/sysctl/index.rst).
const TOP: [&str; 13] =
    ["abi", "crypto", "debug", "dev", "fs", "kernel", "net", "proc", "sched", "sunrpc", "user", "vm", "xen"];

/// The name that is meant by one that looks like a path: from /proc/sys on, and without the parts that lead nowhere. The kernel has
/// none of these in a name (`sysctl_cpy_dir`, kernel/bpf/cgroup.c).
fn real_name(name: &str) -> String {
    let (mut parts, mut all) = (Vec::new(), Vec::new());
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => {
                parts.push(part);
                all.push(part);
            }
        }
    }
    let below = |parts: &[&str]| parts.strip_prefix(&["proc", "sys"]).unwrap_or(parts).join("/");
    // Where the dots lead to no tunable, they are a mistake, and not what stands before them.
    let is_top = |name: &str| {
        name.is_empty()
            || name.starts_with(['*', '?'])
            || TOP.iter().any(|top| {
                name.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '*', '?']))
            })
    };
    let real = below(&parts);
    if is_top(&real) { real } else { below(&all) }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_path = ["./", "../"].iter().any(|start| text.starts_with(start));
        let name = if is_path { text.clone() } else { canonical_name(&text) };
        if text.is_empty() {
            return Err("a sysctl name can't be empty; write \"*\" to mean all".to_owned());
        }
        if name.len() >= NAME_LEN {
            return Err(format!("sysctl name of {} bytes; the longest possible has {}", name.len(), NAME_LEN - 1));
        }
        let real = real_name(&name);
        if real != name {
            let instead = if real.is_empty() { "\"*\" to mean all".to_owned() } else { format!("\"{real}\"") };
            return Err(format!(
                "sysctl name \"{text}\" would never match: names start below /proc/sys, and are no paths; write {instead}"
            ));
        }
        Glob::new(name, "sysctl name", |c| !c.is_whitespace() && !c.is_control()).map(Self)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_notations_name_the_same_tunable() {
        let table = [
            ("kernel/hostname", "kernel/hostname"),
            ("kernel.hostname", "kernel/hostname"),
            ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
            ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
            ("net.*", "net/*"),
            ("*", "*"),
        ];
        for (text, expected) in table {
            let pattern = Pattern::try_from(text.to_owned()).unwrap();
            assert_eq!(pattern.glob().as_str(), expected, "{text}");
        }
    }

    #[test]
    fn names_that_would_never_match_are_refused() {
        let long = "k".repeat(NAME_LEN);
        for text in ["", "a b", "a[b]", &long] {
            assert!(Pattern::try_from(text.to_owned()).is_err(), "{text}");
        }
        for (text, instead) in [
            ("/", "\"*\""),
            ("/proc/sys", "\"*\""),
            ("..", "\"*\""),
            ("/kernel/hostname", "\"kernel/hostname\""),
            ("kernel/", "\"kernel\""),
            ("kernel..x", "\"kernel/x\""),
            ("./kernel/x", "\"kernel/x\""),
            ("../../proc/sys/kernel.x", "\"kernel.x\""),
            ("/proc/sys/kernel/x", "\"kernel/x\""),
            ("proc/sys/kernel/*", "\"kernel/*\""),
            ("proc.sys.kernel.x", "\"kernel/x\""),
            ("//proc/./sys/kernel/../net/?x", "\"net/?x\""),
            ("vm/../../../proc/sys/kernel/x", "\"kernel/x\""),
            ("kernel/../hostname", "\"kernel/hostname\""),
            ("kernel/../vm/swappiness", "\"vm/swappiness\""),
        ] {
            let error = Pattern::try_from(text.to_owned()).unwrap_err();
            assert!(error.contains("never match") && error.contains(&format!("write {instead}")), "{text}: {error}");
        }
        for text in ["proc/x", "kernel/...", "a/.b/..c", "sys/kernel/x"] {
            assert!(Pattern::try_from(text.to_owned()).is_ok(), "{text}");
        }
        assert!(Pattern::try_from("k".repeat(NAME_LEN - 1)).is_ok());
    }
}
