//! A bundle's config.json, read so that no runtime can read anything else in it.
//!
//! Runtimes parse the file each in its own way. Go's decoder (runc, gVisor) takes keys without regard to case, by Unicode's simple
//! folding, and of two alike the last; crun compares C strings, which end at a NUL, and takes the first. What these, or serde
//! (youki), could understand differently is refused: engines write none of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use policy::strict;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// The members of the objects that decide whether and how a container is guarded (config.md of the runtime specification). `*` is
/// any member, or any element of a list.
const DECIDING: [(&[&str], &[&str]); 10] = [
    (
        &[],
        &[
            "ociVersion",
            "process",
            "root",
            "hostname",
            "domainname",
            "mounts",
            "hooks",
            "annotations",
            "linux",
            "solaris",
            "windows",
            "vm",
            "zos",
            "freebsd",
        ],
    ),
    (
        &["process"],
        &[
            "terminal",
            "consoleSize",
            "user",
            "args",
            "commandLine",
            "env",
            "cwd",
            "capabilities",
            "rlimits",
            "noNewPrivileges",
            "apparmorProfile",
            "oomScoreAdj",
            "scheduler",
            "selinuxLabel",
            "ioPriority",
            "execCPUAffinity",
        ],
    ),
    (&["process", "capabilities"], &SETS),
    (&["hooks"], &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]),
    (&["hooks", "*", "*"], &["path", "args", "env", "timeout"]),
    (
        &["linux"],
        &[
            "uidMappings",
            "gidMappings",
            "sysctl",
            "resources",
            "cgroupsPath",
            "namespaces",
            "devices",
            "netDevices",
            "seccomp",
            "rootfsPropagation",
            "maskedPaths",
            "readonlyPaths",
            "mountLabel",
            "intelRdt",
            "memoryPolicy",
            "personality",
            "timeOffsets",
        ],
    ),
    (&["linux", "namespaces", "*"], &["type", "path"]),
    (
        &["linux", "seccomp"],
        &["defaultAction", "defaultErrnoRet", "architectures", "flags", "listenerPath", "listenerMetadata", "syscalls"],
    ),
    (&["root"], &["path", "readonly"]),
    (&["mounts", "*"], &["destination", "source", "type", "options", "uidMappings", "gidMappings"]),
];

/// The sets of capabilities.
const SETS: [&str; 5] = ["bounding", "effective", "inheritable", "permitted", "ambient"];

/// A letter that Unicode's simple folding makes an ASCII letter, and which. There are no others (CaseFolding.txt).
const FOLDING: [(char, char); 2] = [('\u{212a}', 'k'), ('\u{17f}', 's')];

/// Sees that all runtimes read the same in the file.
///
/// # Errors
///
/// When they may not; with the place.
pub fn check(text: &str) -> Result<(), String> {
    // Serde would take a list for a structure, too.
    if !text.trim_start().starts_with('{') {
        return Err("/: not an object".into());
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let mut path = Vec::new();
    let checked = Strict { path: &mut path }.deserialize(&mut json).and_then(|()| json.end());
    checked.map_err(|error| format!("/{}: {error}", path.join("/")))
}

/// What a key is for a decoder that ignores case.
fn fold(key: &str) -> String {
    let fold = |c: char| FOLDING.iter().find(|(from, _)| *from == c).map_or(c.to_ascii_lowercase(), |(_, to)| *to);
    key.chars().map(fold).collect()
}

/// The members of the object at this path, where they decide whether and how a container is guarded.
fn members(path: &[String]) -> Option<&'static [&'static str]> {
    let matches = |pattern: &[&str]| {
        pattern.len() == path.len()
            && pattern.iter().zip(path).all(|(pattern, part)| *pattern == "*" || pattern == part)
    };
    DECIDING.iter().find(|(pattern, _)| matches(pattern)).map(|(_, names)| *names)
}

/// The name that a key is another spelling of, in the object at this path.
fn misspelled(path: &[String], key: &str) -> Option<&'static str> {
    let folded = fold(key);
    members(path)?.iter().copied().find(|name| *name != key && fold(name) == folded)
}

/// Goes through a value. Afterwards, if something was wrong, `path` says where.
struct Strict<'a> {
    path: &'a mut Vec<String>,
}

impl Strict<'_> {
    fn at<T, E>(&mut self, part: String, read: impl FnOnce(Strict<'_>) -> Result<T, E>) -> Result<T, E> {
        self.path.push(part);
        let value = read(Strict { path: self.path })?;
        self.path.pop();
        Ok(value)
    }
}

fn no_nul<E: serde::de::Error>(text: &str) -> Result<(), E> {
    if text.contains('\0') {
        return Err(E::custom(format!("\"{}\" has a NUL in it", text.escape_debug())));
    }
    Ok(())
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        no_nul(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut values: A) -> Result<(), A::Error> {
        if members(self.path).is_some() {
            return Err(A::Error::custom("not an object, but a list"));
        }
        for index in 0.. {
            if self.at(index.to_string(), |value| values.next_element_seed(value))?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = members.next_key::<String>()? {
            no_nul(&key)?;
            if let Some(name) = misspelled(self.path, &key) {
                let key = key.escape_debug();
                return Err(A::Error::custom(format!(
                    "\"{key}\" is \"{name}\" to some runtimes, and unknown to others"
                )));
            }
            self.at(key.clone(), |value| members.next_value_seed(value))?;
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("duplicate field `{}`", key.escape_debug())));
            }
        }
        Ok(())
    }
}

/// What config.json says of a container that matters for its guard.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The command, with its arguments.
    pub command: Option<Vec<String>>,
    /// The capabilities in all five sets together, as "CAP_NET_RAW". `None` where nothing is said, which runc and crun take for
    /// none and youki for all.
    pub capabilities: Option<BTreeSet<String>>,
    /// The kinds of namespaces that the container has of its own, or of another container's.
    pub namespaces: BTreeSet<String>,
    /// What the cgroup is called that the container is to be in.
    pub cgroup: Option<String>,
    /// What is mounted in it, in this order.
    pub mounts: Vec<Mount>,
}

/// Something that is mounted in a container.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub struct Mount {
    /// Where, by its path inside.
    pub destination: String,
    /// Of a file or folder of the machine's: its path, also from the bundle on.
    pub source: Option<String>,
}

/// The members that are looked at here. Everything else may be as it is.
#[derive(Deserialize)]
struct Members {
    process: Option<Process>,
    linux: Option<Linux>,
    mounts: Option<Vec<Mount>>,
}

#[derive(Deserialize)]
struct Process {
    args: Option<Vec<String>>,
    capabilities: Option<BTreeMap<String, Box<RawValue>>>,
}

#[derive(Deserialize)]
struct Linux {
    namespaces: Option<Vec<Namespace>>,
    #[serde(rename = "cgroupsPath")]
    cgroups_path: Option<String>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
}

impl Config {
    /// Reads the text of the file.
    ///
    /// # Errors
    ///
    /// When runtimes may read it differently, or it isn't what it should be.
    pub fn parse(text: &str) -> Result<Self, String> {
        check(text)?;
        let Members { process, linux, mounts } = strict::from_str(text).map_err(|error| format!("/: {error}"))?;
        let Process { args, capabilities } = process.unwrap_or(Process { args: None, capabilities: None });
        let Linux { namespaces, cgroups_path } = linux.unwrap_or(Linux { namespaces: None, cgroups_path: None });
        Ok(Self {
            command: args,
            capabilities: capabilities.map(union).transpose()?,
            namespaces: namespaces.into_iter().flatten().map(|namespace| namespace.kind).collect(),
            cgroup: cgroups_path.as_deref().and_then(cgroup_name),
            mounts: mounts.unwrap_or_default(),
        })
    }
}

/// The capabilities in any of the sets. What is only in the bounding set can still be gained: by a set-user-ID program, or by what is
/// executed in the container later, as root.
fn union(sets: BTreeMap<String, Box<RawValue>>) -> Result<BTreeSet<String>, String> {
    let mut all = BTreeSet::new();
    for (set, names) in sets.into_iter().filter(|(set, _)| SETS.contains(&set.as_str())) {
        let place = format!("/process/capabilities/{set}");
        let names: Option<Vec<String>> =
            serde_json::from_str(names.get()).map_err(|error| format!("{place}: {error}"))?;
        for name in names.into_iter().flatten() {
            all.insert(
                capability(&name).ok_or_else(|| format!("{place}: unknown capability \"{}\"", name.escape_debug()))?,
            );
        }
    }
    Ok(all)
}

/// A capability's name as capabilities(7) has it. libcap, which crun reads names with, takes them in any case, and numbers: these
/// are no names here.
fn capability(name: &str) -> Option<String> {
    let upper = name.to_ascii_uppercase();
    let good = upper.starts_with("CAP_") && upper.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    good.then_some(upper)
}

/// The last part of a path of a cgroup; under systemd (SLICE:PREFIX:NAME) the name of the unit.
fn cgroup_name(path: &str) -> Option<String> {
    let name = match path.split(':').collect::<Vec<_>>()[..] {
        [_, _, name] if name.strip_suffix(".slice").is_some() => name.to_owned(),
        [_, "", name] => format!("{name}.scope"),
        [_, prefix, name] => format!("{prefix}-{name}.scope"),
        _ => path.rsplit('/').find(|part| !part.is_empty())?.to_owned(),
    };
    (!["", ".", ".."].contains(&name.as_str())).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runtimes_could_read_differently_is_refused() {
        let table = [
            (r#"{"Hooks": null}"#, "/: \"Hooks\" is \"hooks\" to some"),
            (r#"{"hooks": {}, "hoo\u212as": null}"#, "is \"hooks\" to some"),
            (r#"{"hook\u017f": null}"#, "is \"hooks\" to some"),
            (r#"{"hooks\u0000": {}}"#, "\"hooks\\0\" has a NUL in it"),
            (r#"{"hooks": {"createruntime": []}}"#, "/hooks: \"createruntime\" is \"createRuntime\" to some"),
            (r#"{"hooks": {"poststop": [{"path": "/x", "Args": []}]}}"#, "/hooks/poststop/0: \"Args\" is \"args\""),
            (r#"{"hooks": {"poststop": [{"path": "/x\u0000"}]}}"#, "/hooks/poststop/0/path: \"/x\\0\" has a NUL in it"),
            (r#"{"hooks": {}, "hooks": {}}"#, "/: duplicate field `hooks`"),
            (r#"{"annotations": {"a": "1", "a": "2"}}"#, "/annotations: duplicate field `a`"),
            (r#"{"annotations": {"io.guard-run.policy\u0000x": "/p"}}"#, "has a NUL in it"),
            (
                r#"{"process": {"capabilities": {"Bounding": []}}}"#,
                "/process/capabilities: \"Bounding\" is \"bounding\"",
            ),
            (r#"{"linux": {"namespaces": [{"Type": "user"}]}}"#, "/linux/namespaces/0: \"Type\" is \"type\""),
            (
                r#"{"linux": {"seccomp": {"Architectures": ["SCMP_ARCH_X86"]}}}"#,
                "/linux/seccomp: \"Architectures\" is \"architectures\"",
            ),
            (r#"{"linux": {"seccomp": []}}"#, "/linux/seccomp: not an object, but a list"),
            (r#"{"linux": {"later": [{"x": 1, "x": 2}]}}"#, "/linux/later/0: duplicate field `x`"),
            (r#"{"x": "\ud800"}"#, "/x: "),
            (r"{} {}", "trailing characters"),
            (r"{} // x", "trailing characters"),
            ("[]", "/: not an object"),
            ("", "/: not an object"),
            (r#"{"process": [["sh"], {}]}"#, "/process: not an object, but a list"),
            (r#"{"process": {"capabilities": []}}"#, "/process/capabilities: not an object, but a list"),
            (r#"{"linux": [[{"type": "pid"}], "/x"]}"#, "/linux: not an object, but a list"),
            (r#"{"linux": {"namespaces": [["pid"]]}}"#, "/linux/namespaces/0: not an object, but a list"),
            (r#"{"mounts": [{"destination": "/x"}, ["/x", "/y"]]}"#, "/mounts/1: not an object, but a list"),
            (r#"{"root": ["/x"]}"#, "/root: not an object, but a list"),
            (r#"{"hooks": []}"#, "/hooks: not an object, but a list"),
            (r#"{"hooks": {"poststop": [["/x"]]}}"#, "/hooks/poststop/0: not an object, but a list"),
        ];
        for (text, expected) in table {
            let error = check(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn what_all_read_alike_is_taken() {
        for text in [
            "{}",
            r#"{"hooks": null, "later": {"Hooks": 1, "hooks": 2}, "n": [1e3, -1, 123456789012345678901234567890, true]}"#,
            r#"{"annotations": {"A": "1", "a": "2", "Hooks": "3"}, "linux": {"sysctl": {"A": "1", "a": "2"}}}"#,
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_matters_is_read() {
        let config = Config::parse(
            r#"{"process": {"args": ["a", "b"], "capabilities": {"bounding": ["CAP_NET_RAW"], "ambient": null,
                "effective": ["cap_kill"], "later": 1}}, "linux": {"namespaces": [{"type": "user"}, {"type": "mount", "path": "/x"}],
                "cgroupsPath": "/a/b"}, "mounts": [{"destination": "/etc/hosts", "type": "bind", "source": "/h"}, {"destination": "/proc"}],
                "hostname": 5}"#,
        );
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let expected = Config {
            mounts: vec![
                Mount { destination: "/etc/hosts".into(), source: Some("/h".into()) },
                Mount { destination: "/proc".into(), source: None },
            ],
            command: Some(vec!["a".into(), "b".into()]),
            capabilities: Some(set(&["CAP_KILL", "CAP_NET_RAW"])),
            namespaces: set(&["mount", "user"]),
            cgroup: Some("b".into()),
        };
        assert_eq!(config, Ok(expected));
        assert_eq!(Config::parse("{}"), Ok(Config::default()));
        for odd in ["13", "NET_RAW", "CAP_NET_RAW=ep", "CAP_NET_RAW,CAP_KILL"] {
            let text = format!(r#"{{"process": {{"capabilities": {{"permitted": ["{odd}"]}}}}}}"#);
            assert!(Config::parse(&text).unwrap_err().contains("/process/capabilities/permitted: unknown"), "{odd}");
        }
    }

    #[test]
    fn cgroups_are_named_as_runtimes_name_them() {
        for (path, name) in [
            ("/a/b", Some("b")),
            ("b/", Some("b")),
            ("", None),
            ("/", None),
            ("/a/..", None),
            ("machine.slice:libpod:c1", Some("libpod-c1.scope")),
            ("machine.slice::c1", Some("c1.scope")),
            ("x.slice:runc:y.slice", Some("y.slice")),
        ] {
            assert_eq!(cgroup_name(path).as_deref(), name, "{path}");
        }
    }
}
