//! The container, as its runtime describes it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, Metadata},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context as _, anyhow, ensure};
use nix::fcntl::OFlag;
use oci_spec::runtime::{ContainerState, State};
use policy::strict;
use report::Container;

use crate::config::Config;

/// More than any runtime writes: a state is some paths and the annotations.
const MAX_STATE: u64 = 16 << 20;

/// The longest name of a file (255), less what may be added to it (see [`crate::pins`]).
const MAX_NAME: usize = 253;

/// Why a runtime's description of a container can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The state can't be read.
    #[error("can't read the container's state from standard input")]
    Unreadable(#[source] io::Error),
    /// The state is not what the runtime specification says.
    #[error("what is on standard input is not the state of a container (OCI runtime specification): {0}")]
    NotAState(String),
}

/// The stage of a container's life at which its runtime calls a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The container has been made and is about to run.
    CreateRuntime,
    /// The container has ended.
    Poststop,
}

/// What a runtime tells its hooks.
#[derive(Debug)]
pub struct HookCall {
    /// The stage that its words stand for.
    pub stage: Stage,
    /// The container's process, while there is one.
    pub pid: Option<u32>,
    /// The container.
    pub container: Container,
}

impl HookCall {
    /// Reads the state of a container, as the runtime specification has it.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn read(from: impl Read) -> Result<Self, StateError> {
        let mut text = Vec::new();
        from.take(MAX_STATE).read_to_end(&mut text).map_err(StateError::Unreadable)?;
        Self::parse(&text)
    }

    fn parse(text: &[u8]) -> Result<Self, StateError> {
        let wrong = |what: &str| StateError::NotAState(what.to_owned());
        let invalid = |error: serde_json::Error| StateError::NotAState(error.to_string());
        // oci-spec takes a status that is missing for "stopped": then a container would go on unguarded.
        let named: BTreeMap<String, serde_json::Value> = serde_json::from_slice(text).map_err(invalid)?;
        if !named.contains_key("status") {
            return Err(wrong("it has no status"));
        }
        let told: State = strict::from_slice(text).map_err(invalid)?;
        let pid = told.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
        let stage = match told.status() {
            ContainerState::Creating | ContainerState::Created => Stage::CreateRuntime,
            // runc calls createRuntime so while CRIU restores the container (criuNotifications, container_linux.go).
            ContainerState::Stopped if pid.is_some() => {
                return Err(wrong(
                    "it is stopped and has a process, as one that is restored from a checkpoint: what that has open was \
                     opened outside of the guard; start the container anew",
                ));
            }
            ContainerState::Stopped => Stage::Poststop,
            ContainerState::Running => {
                return Err(wrong("it is running; the hook's stages are createRuntime and poststop"));
            }
        };
        let id = told.id().clone();
        if id.is_empty() || name_of(&id).len() > MAX_NAME {
            return Err(wrong("it has no id that a file could be named after"));
        }
        let annotations = told.annotations().iter().flatten().map(|(key, value)| (key.clone(), value.clone()));
        let container = Container { id, bundle: told.bundle().clone(), annotations: annotations.collect() };
        Ok(Self { stage, pid, container })
    }
}

/// A name for a container's folder. See [`name_of`].
#[must_use]
pub fn folder_name(container: &Container) -> String {
    name_of(&container.id)
}

/// Reads a container's configuration, which its runtime has read before.
///
/// # Errors
///
/// When it can't be read, or another program may read something else in it.
pub fn config_of(container: &Container) -> anyhow::Result<Config> {
    let path = container.bundle.join("config.json");
    let text = read(&path).with_context(|| path.display().to_string())?;
    Config::parse(&text).map_err(|error| anyhow!("{}: {error}", path.display()))
}

/// The most that is read of a configuration, in bytes: more than any engine writes.
const MOST: u64 = 16 << 20;

/// Reads a file that somebody else may have put there: only a regular one, and no more than [`MOST`] of it.
///
/// # Errors
///
/// When it is another, longer, or can't be read.
pub fn read(path: &Path) -> anyhow::Result<String> {
    Ok(read_with_metadata(path)?.0)
}

/// Like [`read`], with what the file system says of that very file.
///
/// # Errors
///
/// As [`read`].
pub fn read_with_metadata(path: &Path) -> anyhow::Result<(String, Metadata)> {
    // A FIFO would wait for somebody to write.
    let file = fs::OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let metadata = file.metadata()?;
    ensure!(metadata.is_file(), "not a regular file");
    let mut text = String::new();
    file.take(MOST + 1).read_to_string(&mut text)?;
    ensure!(text.len() as u64 <= MOST, "longer than {MOST} bytes");
    Ok((text, metadata))
}

/// An id as the name of a file in a bpf file system: these have no dots (`bpf_lookup`, kernel/bpf/inode.c). What is neither
/// a letter nor a digit, "-" or "_" is written as a percent sign and two hexadecimal digits.
fn name_of(id: &str) -> String {
    id.bytes().fold(String::new(), |mut name, byte| {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            name.push(char::from(byte));
        } else {
            write!(name, "%{byte:02X}").expect("writing to a String can't fail");
        }
        name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_that_are_not_too_long_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, "{}").unwrap();
        assert_eq!(read(&path).unwrap(), "{}");
        for (other, why) in [("/dev/zero", "not a regular file"), ("/dev", "not a regular file")] {
            let link = folder.path().join("link");
            std::os::unix::fs::symlink(other, &link).unwrap();
            assert_eq!(read(&link).unwrap_err().to_string(), why, "{other}");
            fs::remove_file(link).unwrap();
        }
        nix::unistd::mkfifo(&folder.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&folder.path().join("fifo")).unwrap_err().to_string(), "not a regular file");
        fs::File::options().write(true).open(&path).unwrap().set_len(MOST + 1).unwrap();
        assert!(read(&path).unwrap_err().to_string().starts_with("longer than"));
    }

    /// What runc, crun and youki write, each in its own way.
    const STATES: [(&str, Stage, Option<u32>); 5] = [
        (
            r#"{"ociVersion":"1.0.2-dev","id":"c1","status":"creating","pid":42,"bundle":"/b","annotations":{"a":"b"}}"#,
            Stage::CreateRuntime,
            Some(42),
        ),
        (
            r#"{"ociVersion":"1.0","id":"c1","pid":42,"root":"/r","bundle":"/b","status":"created","annotations":{"a":"b"}}"#,
            Stage::CreateRuntime,
            Some(42),
        ),
        (
            r#"{"ociVersion":"1.1.0","id":"c1","status":"stopped","bundle":"/b","annotations":{"a":"b"}}"#,
            Stage::Poststop,
            None,
        ),
        (
            r#"{"ociVersion":"1.0","id":"c1","pid":0,"bundle":"/b","status":"stopped","annotations":{"a":"b"}}"#,
            Stage::Poststop,
            None,
        ),
        (
            r#"{"ociVersion":"1.0","id":"c1","pid":-1,"bundle":"/b","status":"stopped","annotations":{"a":"b"}}"#,
            Stage::Poststop,
            None,
        ),
    ];

    #[test]
    fn states_of_runtimes_are_read() {
        for (text, stage, pid) in STATES {
            let told = HookCall::parse(text.as_bytes()).unwrap();
            assert_eq!((told.stage, told.pid), (stage, pid), "{text}");
            let Container { id, bundle, annotations } = told.container;
            assert_eq!((id.as_str(), bundle.as_path()), ("c1", Path::new("/b")), "{text}");
            assert_eq!(annotations["a"], "b", "{text}");
        }
    }

    #[test]
    fn a_state_that_says_no_stage_is_refused() {
        let long = format!(r#"{{"id":"{}","status":"created","bundle":"/b"}}"#, "x".repeat(300));
        for text in [
            "",
            "[]",
            r#"{"id":"c1","bundle":"/b","pid":1}"#,
            r#"{"id":"c1","bundle":"/b","status":"running","pid":1}"#,
            r#"{"id":"c1","bundle":"/b","status":"dancing","pid":1}"#,
            // As runc has it in the midst of restoring a checkpoint.
            r#"{"ociVersion":"1.0.2-dev","id":"c1","status":"stopped","pid":42,"bundle":"/b"}"#,
            r#"{"bundle":"/b","status":"creating","pid":1}"#,
            &long,
        ] {
            assert!(HookCall::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn names_have_no_dots_and_stay_different() {
        assert_eq!(name_of("web-1_a"), "web-1_a");
        assert_eq!(name_of("a.b"), "a%2Eb");
        assert_eq!(name_of("a%2Eb"), "a%252Eb");
        assert_eq!(name_of("../x~"), "%2E%2E%2Fx%7E");
    }
}
