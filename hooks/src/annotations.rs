//! What a container's annotations ask for.

use std::{
    collections::BTreeMap,
    path::{Component, PathBuf},
};

use crate::settings::{DEFAULT_POLICY, FILE};

/// What the keys of all annotations of the guard begin with.
pub const PREFIX: &str = "io.guard-run.";

/// The annotation that names the policy: an absolute path. A container that has it is guarded.
pub const POLICY: &str = "io.guard-run.policy";

/// The annotation that says where the log goes: the absolute path of a file, which is replaced, or of a folder, in which
/// every run gets a file of its own.
pub const LOG: &str = "io.guard-run.log";

/// What is wrong with a container's annotations.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// None of them is the guard's: the hook was called for a container that nobody wanted to be guarded.
    #[error("this container has no annotation {POLICY}, so there is no policy to guard it by")]
    NoPolicy,
    /// A key that does not exist.
    #[error("unknown annotation {0}; there are {POLICY} and {LOG}")]
    Unknown(String),
    /// A path that depends on where the engine happens to be started.
    #[error("annotation {key}: write an absolute path, not \"{value}\"")]
    NotAbsolute {
        /// The annotation.
        key: &'static str,
        /// The annotation's value.
        value: String,
    },
    /// A path that leads out of the folder that it begins with.
    #[error("annotation {key}: write the path without \"..\", not \"{value}\"")]
    Dots {
        /// The annotation.
        key: &'static str,
        /// The annotation's value.
        value: String,
    },
    /// A policy where there is one for all containers.
    #[error(
        "annotation {POLICY}: {} would take the place of {DEFAULT_POLICY}, which is for all containers unless root writes \
         \"annotations\": \"replace\" in {FILE}",
        policy.display()
    )]
    HasDefault {
        /// The policy that it names.
        policy: PathBuf,
    },
}

/// What a container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The policy file.
    pub policy: PathBuf,
    /// Where the log goes, if it is said.
    pub log: Option<PathBuf>,
}

/// Where the policy is, and where the log goes, by a container's annotations. A key that is misspelled must not leave a container
/// unguarded, or its log somewhere else.
///
/// # Errors
///
/// When they don't say what to do.
pub fn paths(annotations: &BTreeMap<String, String>) -> Result<(Option<PathBuf>, Option<PathBuf>), AnnotationError> {
    let ours = annotations.keys().filter(|key| key.starts_with(PREFIX));
    if let Some(unknown) = ours.into_iter().find(|key| ![POLICY, LOG].contains(&key.as_str())) {
        return Err(AnnotationError::Unknown(unknown.escape_debug().to_string()));
    }
    Ok((path(annotations, POLICY)?, path(annotations, LOG)?))
}

fn path(annotations: &BTreeMap<String, String>, key: &'static str) -> Result<Option<PathBuf>, AnnotationError> {
    let Some(value) = annotations.get(key) else { return Ok(None) };
    let (path, value) = (PathBuf::from(value), value.escape_debug().to_string());
    if !path.is_absolute() {
        return Err(AnnotationError::NotAbsolute { key, value });
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(AnnotationError::Dots { key, value });
    }
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(annotations: &[(&str, &str)]) -> Result<(Option<PathBuf>, Option<PathBuf>), AnnotationError> {
        paths(&annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn paths_are_taken_and_others_left_alone() {
        let both = asked(&[(POLICY, "/etc/p.json"), (LOG, "/var/log/x"), ("io.podman.thing", "1")]).unwrap();
        assert_eq!(both, (Some("/etc/p.json".into()), Some("/var/log/x".into())));
        assert_eq!(asked(&[(POLICY, "/p")]).unwrap().1, None);
    }

    #[test]
    fn what_is_misspelled_is_refused() {
        for unknown in ["io.guard-run.polcy", "io.guard-run.", "io.guard-run.policy.path"] {
            let error = asked(&[(POLICY, "/p"), (unknown, "/x")]);
            assert_eq!(error, Err(AnnotationError::Unknown(unknown.to_owned())));
        }
        for (key, value) in [(POLICY, "p.json"), (POLICY, ""), (LOG, "./x"), (LOG, "-")] {
            let error = asked(&[(POLICY, "/p"), (key, value)]);
            assert!(matches!(error, Err(AnnotationError::NotAbsolute { .. })), "{key} {value}");
        }
        let error = asked(&[(POLICY, "/p"), (LOG, "/var/log/guard-run/../../../etc/x")]);
        assert!(matches!(error, Err(AnnotationError::Dots { key: LOG, .. })));
    }
}
