//! A bundle's config.json: what its annotations ask for, and adding the hooks.
//!
//! Only the members that change are written anew; all the rest of the text stays as it is, byte by byte, whatever later
//! versions of the specification or an engine of its own put there.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs::{self, Metadata},
    io::{self, Write as _},
    num::NonZeroU32,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use policy::strict;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json, value::RawValue};
use tempfile::NamedTempFile;

use crate::{
    annotations,
    config::{self, Config},
    container,
};

/// The stages that the hook is called in.
const STAGES: [&str; 2] = ["createRuntime", "poststop"];

/// The annotations by which containerd and CRI-O tell the container that holds a pod's namespaces from the others.
const SANDBOX: [(&str, &str); 2] =
    [("io.kubernetes.cri.container-type", "sandbox"), ("io.kubernetes.cri-o.ContainerType", "sandbox")];

/// What the names of architectures begin with, in filters of system calls.
const ARCHITECTURE: &str = "SCMP_ARCH_";

/// Why the hooks can't be added.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file can't be read or replaced.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file's content isn't what a runtime expects.
    #[error("{}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// The members of config.json that matter here.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default, deserialize_with = "even_null")]
    annotations: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    hooks: Option<&'a RawValue>,
    #[serde(borrow, default)]
    process: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    linux: Option<&'a RawValue>,
}

/// A member that is there, also if it is null: it must not be added once more.
fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A bundle's config.json.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    metadata: Metadata,
    text: String,
}

impl Bundle {
    /// Reads it; none if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, BundleError> {
        let on = |source| BundleError::File { path: path.into(), source };
        // The file itself is replaced, not a link to it.
        let path = match path.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            path => path.map_err(on)?,
        };
        let wrong = |error: anyhow::Error| BundleError::Content { path: path.clone(), what: format!("{error:#}") };
        let (text, metadata) = container::read_with_metadata(&path).map_err(wrong)?;
        let bundle = Self { path, metadata, text };
        // Before anything is made of it: whether it asks for a guard must not depend on who reads it.
        config::check(&bundle.text).map_err(|error| bundle.content(error))?;
        Ok(Some(bundle))
    }

    /// The annotations that are the guard's. One that is misspelled is, too: anybody who reads them refuses it.
    pub fn guards(&self) -> Result<BTreeMap<String, String>, BundleError> {
        let ours = self.annotations()?.into_iter().filter(|(key, _)| key.starts_with(annotations::PREFIX));
        ours.map(|(key, value)| match value {
            Value::String(value) => Ok((key, value)),
            _ => Err(self.wrong(&format!("/annotations/{key}"), "not a string")),
        })
        .collect()
    }

    /// What it says that matters for the guard.
    pub fn config(&self) -> Result<Config, BundleError> {
        Config::parse(&self.text).map_err(|error| self.content(error))
    }

    /// Names a policy in the annotations.
    pub fn set_policy(&mut self, policy: &Path) -> Result<(), BundleError> {
        let mut annotations = self.annotations()?;
        annotations.insert(annotations::POLICY.into(), policy.to_string_lossy().into());
        self.text = with_member(&self.text, "annotations", self.members()?.annotations, &Value::from(annotations));
        Ok(())
    }

    /// Whether it is the container that holds a Kubernetes pod's namespaces, by what the engine notes.
    pub fn is_sandbox(&self) -> Result<bool, BundleError> {
        let annotations = self.annotations()?;
        Ok(SANDBOX.iter().any(|(key, value)| annotations.get(*key).is_some_and(|found| found == value)))
    }

    /// What an annotation says, if it is there and a text: to runtimes, anything else is an error.
    pub fn annotation(&self, key: &str) -> Result<Option<String>, BundleError> {
        Ok(self.annotations()?.get(key).and_then(Value::as_str).map(str::to_owned))
    }

    /// Takes a capability out of all sets.
    pub fn drop_capability(&mut self, name: &str) -> Result<(), BundleError> {
        let old = self.members()?.process;
        let mut process = object(old).map_err(|error| self.wrong("/process", error))?;
        let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
        for set in sets.into_iter().flat_map(Map::values_mut).filter_map(Value::as_array_mut) {
            set.retain(|held| !held.as_str().is_some_and(|held| held.eq_ignore_ascii_case(name)));
        }
        self.text = with_member(&self.text, "process", old, &Value::from(process));
        Ok(())
    }

    /// Has the container's filter of system calls (seccomp) let those of `allowed` architectures through beside the machine's own, if it does, and none of
    /// those that are `dropped`. A container that has no filter gets one that does nothing else.
    pub fn limit_architectures(&mut self, allowed: &[&str], dropped: &[&str]) -> Result<(), BundleError> {
        let old = self.members()?.linux;
        let before = object(old).map_err(|error| self.wrong("/linux", error))?;
        let mut linux = before.clone();
        let filter = linux.entry("seccomp").or_insert(Value::Null);
        if filter.is_null() {
            *filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": allowed});
        }
        let Value::Object(filter) = filter else {
            return Err(self.wrong("/linux/seccomp", "not an object"));
        };
        match filter.get_mut("architectures") {
            // The machine's own alone.
            None | Some(Value::Null) => {}
            Some(Value::Array(list)) => list.retain(|one| !dropped.iter().any(|name| is_architecture(one, name))),
            Some(_) => return Err(self.wrong("/linux/seccomp/architectures", "not a list")),
        }
        if linux != before {
            self.text = with_member(&self.text, "linux", old, &Value::from(linux));
        }
        Ok(())
    }

    /// Adds the hook to its stages, after those that are there. One that is there already, from hooks.d (which doesn't name
    /// the stage) or an earlier try, is not added again.
    pub fn add_hooks(&mut self, hook: &Path) -> Result<(), BundleError> {
        let Some(hook) = hook.to_str() else {
            return Err(self.wrong("/hooks", format!("{} can't be written in JSON", hook.display())));
        };
        let old = self.members()?.hooks;
        let mut hooks = object(old).map_err(|error| self.wrong("/hooks", error))?;
        for stage in STAGES {
            let list = hooks.entry(stage).or_insert(Value::Null);
            if list.is_null() {
                *list = json!([]);
            }
            let Value::Array(list) = list else {
                return Err(self.wrong(&format!("/hooks/{stage}"), "not a list"));
            };
            if !list.iter().any(|entry| is_ours(entry, hook, stage)) {
                list.push(json!({"path": hook, "args": ["guard-hook", stage]}));
            }
        }
        self.text = with_member(&self.text, "hooks", old, &Value::from(hooks));
        Ok(())
    }

    /// Replaces the file at once, with its owner and mode, if there is anything to change: anybody who reads it sees the old one
    /// or the new one.
    pub fn write(self) -> Result<(), BundleError> {
        let on = |source| BundleError::File { path: self.path.clone(), source };
        if fs::read(&self.path).map_err(on)? == self.text.as_bytes() {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let mut file = NamedTempFile::new_in(folder).map_err(on)?;
        file.write_all(self.text.as_bytes()).map_err(on)?;
        fchown(file.as_file(), Some(self.metadata.uid()), Some(self.metadata.gid())).map_err(on)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(self.metadata.mode() & 0o7777)).map_err(on)?;
        file.persist(&self.path).map_err(|error| on(error.error))?;
        Ok(())
    }

    fn members(&self) -> Result<Members<'_>, BundleError> {
        strict::from_str(&self.text).map_err(|error| self.wrong("/", error))
    }

    fn annotations(&self) -> Result<Map<String, Value>, BundleError> {
        object(self.members()?.annotations).map_err(|error| self.wrong("/annotations", error))
    }

    fn wrong(&self, place: &str, what: impl Display) -> BundleError {
        self.content(format!("{place}: {what}"))
    }

    fn content(&self, what: String) -> BundleError {
        BundleError::Content { path: self.path.clone(), what }
    }
}

/// Whether an entry calls the hook at this stage, and nothing in it could keep the hook from its work: as it is added here, or as
/// hooks.d has it, without the stage and perhaps with a time limit.
fn is_ours(entry: &Value, hook: &str, stage: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Entry {
        path: String,
        args: Vec<String>,
        #[serde(default)]
        env: Option<Vec<String>>,
        // If time runs out, the container isn't made.
        #[serde(default, rename = "timeout")]
        _timeout: Option<NonZeroU32>,
    }
    let Ok(Entry { path, args, env, .. }) = strict::object::<_, Entry>(entry) else { return false };
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    path == hook && ["guard-hook", stage].starts_with(&args) && !args.is_empty() && env.is_none_or(|env| env.is_empty())
}

/// Whether an architecture is the one of this name. To crun, case makes no difference, nor whether [`ARCHITECTURE`] is there.
fn is_architecture(written: &Value, name: &str) -> bool {
    let short = |name: &str| {
        let name = name.to_ascii_uppercase();
        name.strip_prefix(ARCHITECTURE).unwrap_or(&name).to_owned()
    };
    written.as_str().is_some_and(|written| short(written) == short(name))
}

/// An object; one that is left out, or null, is empty.
fn object(text: Option<&RawValue>) -> serde_json::Result<Map<String, Value>> {
    text.map_or(Ok(None), |text| serde_json::from_str(text.get())).map(Option::unwrap_or_default)
}

/// The text of a JSON object, with another value for one of its members. `old` is the member's value, a part of the text.
fn with_member(text: &str, name: &str, old: Option<&RawValue>, new: &Value) -> String {
    if let Some(old) = old {
        let begin = old.get().as_ptr().addr() - text.as_ptr().addr();
        let end = begin + old.get().len();
        return format!("{}{new}{}", &text[..begin], &text[end..]);
    }
    let (before, after) = text.split_once('{').expect("it has been read as an object");
    let comma = if after.trim_start().starts_with('}') { "" } else { "," };
    format!("{before}{{\"{name}\":{new}{comma}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOOK: &str = "/usr/bin/guard-hook";

    fn bundle(text: &str) -> (tempfile::TempDir, Bundle) {
        let (folder, bundle) = read(text);
        (folder, bundle.unwrap())
    }

    fn read(text: &str) -> (tempfile::TempDir, Result<Bundle, BundleError>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, text).unwrap();
        (folder, Bundle::read(&path).map(Option::unwrap))
    }

    fn with_hooks(text: &str) -> String {
        let (_folder, mut bundle) = bundle(text);
        bundle.add_hooks(Path::new(HOOK)).unwrap();
        bundle.text
    }

    const CREATE: &str = r#"{"args":["guard-hook","createRuntime"],"path":"/usr/bin/guard-hook"}"#;
    const STOP: &str = r#"{"args":["guard-hook","poststop"],"path":"/usr/bin/guard-hook"}"#;

    #[test]
    fn hooks_are_added_and_nothing_else_is_changed() {
        let both = format!(r#"{{"createRuntime":[{CREATE}],"poststop":[{STOP}]}}"#);
        assert_eq!(with_hooks("{}"), format!(r#"{{"hooks":{both}}}"#));
        assert_eq!(with_hooks(" { \n }\n"), format!(" {{\"hooks\":{both} \n }}\n"));
        assert_eq!(with_hooks(r#"{"hooks":null}"#), format!(r#"{{"hooks":{both}}}"#));
        // What no type of ours could keep: the order, numbers of any size, spellings, what isn't known.
        let rest = r#""z": 1.50, "a": 123456789012345678901234567890, "ociVersion":"1.0.2\u0041", "later": {"y":[ ],"x":null}"#;
        assert_eq!(with_hooks(&format!("{{{rest} }}")), format!(r#"{{"hooks":{both},{rest} }}"#));
        let other = r#"{"env":["A=b"],"path":"/bin/true","timeout":5}"#;
        assert_eq!(
            with_hooks(&format!(r#"{{{rest},"hooks":{{"poststart":[{other}],"createRuntime":[{other}]}}, "b":2}}"#)),
            format!(
                r#"{{{rest},"hooks":{{"createRuntime":[{other},{CREATE}],"poststart":[{other}],"poststop":[{STOP}]}}, "b":2}}"#
            )
        );
    }

    #[test]
    fn hooks_are_added_once() {
        let once = with_hooks(r#"{"hooks":{"poststop":null}}"#);
        assert_eq!(with_hooks(&once), once);
        // As hooks.d has it.
        let timed = once.replace(r#"],"path""#, r#"],"timeout":30,"path""#);
        assert_eq!(with_hooks(&timed).matches("guard-hook\",\"createRuntime").count(), 1);
        let unstaged = once.replace(",\"createRuntime\"]", "]").replace(",\"poststop\"]", "]");
        assert_eq!(with_hooks(&unstaged), unstaged);
        // One that does something else with the same program isn't it.
        for other in [
            once.replace(",\"createRuntime\"]", ",\"createRuntime\",\"--help\"]"),
            once.replace(",\"createRuntime\"]", ",\"gc\"]"),
            once.replace("[\"guard-hook\",\"createRuntime\"]", "[]"),
            once.replace(r#"],"path""#, r#"],"env":["A=b"],"path""#),
            once.replace(r#"],"path""#, r#"],"timeout":0,"path""#),
            once.replace(r#"],"path""#, r#"],"timeout":-1,"path""#),
            once.replace(r#"],"path""#, r#"],"later":1,"path""#),
        ] {
            assert_ne!(with_hooks(&other), other);
            assert!(with_hooks(&other).contains(CREATE), "{other}");
        }
        // Another one at another stage, or of another place, isn't it.
        let elsewhere = once.replace("/usr/bin", "/opt");
        assert_eq!(with_hooks(&elsewhere).matches("guard-hook\",\"createRuntime").count(), 2);
    }

    #[test]
    fn foreign_architectures_are_taken_out_of_the_filter() {
        let without = |text: &str| {
            let (_folder, mut bundle) = bundle(text);
            bundle.limit_architectures(&["SCMP_ARCH_ARM"], &["SCMP_ARCH_X86", "SCMP_ARCH_X32"]).map(|()| bundle.text)
        };
        let nothing = r#"{"seccomp":{"architectures":["SCMP_ARCH_ARM"],"defaultAction":"SCMP_ACT_ALLOW"}}"#;
        for (text, expected) in [
            ("{}", format!(r#"{{"linux":{nothing}}}"#)),
            (r#"{"linux":null}"#, format!(r#"{{"linux":{nothing}}}"#)),
            (r#"{"linux":{"seccomp":null}, "a":1.50}"#, format!(r#"{{"linux":{nothing}, "a":1.50}}"#)),
            (
                r#"{"linux":{"seccomp":{"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],"syscalls":[]}}}"#,
                r#"{"linux":{"seccomp":{"architectures":["SCMP_ARCH_X86_64"],"syscalls":[]}}}"#.to_owned(),
            ),
            (
                r#"{"linux":{"seccomp":{"architectures":["x86_64","x86","X32","SCMP_ARCH_x86","arm"]}}}"#,
                r#"{"linux":{"seccomp":{"architectures":["x86_64","arm"]}}}"#.to_owned(),
            ),
        ] {
            assert_eq!(without(text).unwrap(), expected, "{text}");
        }
        // What lets none through stays as it is written.
        for text in
            [r#"{"linux": {"seccomp": {"syscalls": [ ]}}}"#, r#"{"linux": {"seccomp": {"architectures": [ ]}}}"#]
        {
            assert_eq!(without(text).unwrap(), text);
        }
        for (text, message) in [
            (r#"{"linux":1}"#, "/linux: "),
            (r#"{"linux":{"seccomp":1}}"#, "/linux/seccomp: not an object"),
            (r#"{"linux":{"seccomp":{"architectures":"SCMP_ARCH_X86"}}}"#, "/linux/seccomp/architectures: not a list"),
        ] {
            let error = without(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn a_guard_is_asked_for_by_any_annotation_of_the_guard() {
        let asked = |text: &str| {
            let guards = read(text).1.and_then(|bundle| bundle.guards());
            guards.map(|guards| guards.into_keys().collect::<Vec<_>>()).map_err(|error| error.to_string())
        };
        for key in ["io.guard-run.policy", "io.guard-run.log", "io.guard-run.polcy"] {
            assert_eq!(asked(&json!({"annotations": {key: "/p.json", "a": 1}}).to_string()), Ok(vec![key.to_owned()]));
        }
        for text in ["{}", r#"{"annotations":null}"#, r#"{"annotations":{"io.guard-runner.policy":"/p.json"}}"#] {
            assert_eq!(asked(text), Ok(vec![]), "{text}");
        }
        for (text, message) in [
            (r#"{"annotations":["io.guard-run.policy"]}"#, "/annotations: invalid type: sequence"),
            (r#"{"annotations":{"io.guard-run.policy":1}}"#, "/annotations/io.guard-run.policy: not a string"),
            (r#"{"annotations":{}, "annotations":{}}"#, "/: duplicate field `annotations`"),
            ("", "/: not an object"),
            ("[]", "/: not an object"),
            (r#"{"annotations":{"io.guard-run.policy":"/p.json"}"#, "/: EOF while parsing an object"),
        ] {
            let error = asked(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn a_default_policy_joins_the_other_annotations() {
        for (before, after) in [
            ("{}", r#"{"annotations":{"io.guard-run.policy":"/p"}}"#),
            (r#"{"annotations":{"a":"b"},"x":1}"#, r#"{"annotations":{"a":"b","io.guard-run.policy":"/p"},"x":1}"#),
        ] {
            let (_folder, mut bundle) = bundle(before);
            bundle.set_policy(Path::new("/p")).unwrap();
            assert_eq!(bundle.text, after);
        }
    }

    #[test]
    fn a_capability_is_taken_from_the_container_that_holds_a_pods_namespaces() {
        let process =
            r#""process":{"args":["a"],"capabilities":{"ambient":null,"bounding":["CAP_KILL","CAP_NET_RAW"],"x":1}}"#;
        for (annotations, is_sandbox) in [
            (r#"{"io.kubernetes.cri.container-type":"sandbox"}"#, true),
            (r#"{"io.kubernetes.cri-o.ContainerType":"sandbox"}"#, true),
            (r#"{"io.kubernetes.cri.container-type":"container"}"#, false),
        ] {
            let (_folder, mut bundle) = bundle(&format!(r#"{{"annotations":{annotations}, {process}}}"#));
            assert_eq!(bundle.is_sandbox().unwrap(), is_sandbox, "{annotations}");
            bundle.drop_capability("CAP_NET_RAW").unwrap();
            let expected = process.replace(",\"CAP_NET_RAW\"", "");
            assert_eq!(bundle.text, format!(r#"{{"annotations":{annotations}, {expected}}}"#));
        }
    }

    #[test]
    fn hooks_that_are_none_are_refused() {
        for (text, message) in [
            (r#"{"hooks":1}"#, "/hooks: invalid type: integer"),
            (r#"{"hooks":{"poststop":{}}}"#, "/hooks/poststop: not a list"),
        ] {
            let error = bundle(text).1.add_hooks(Path::new(HOOK)).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn the_file_keeps_its_mode_and_stays_itself_if_nothing_changes() {
        let (folder, mut bundle) = bundle("{}");
        let path = folder.path().join("config.json");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        bundle = Bundle::read(&path).unwrap().unwrap_or(bundle);
        bundle.add_hooks(Path::new(HOOK)).unwrap();
        bundle.write().unwrap();
        let written = fs::metadata(&path).unwrap();
        assert_eq!(written.mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let mut bundle = Bundle::read(&path).unwrap().unwrap();
        bundle.add_hooks(Path::new(HOOK)).unwrap();
        bundle.write().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), written.ino());
    }
}
