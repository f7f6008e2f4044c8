//! What a container's annotations ask for.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

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
        /// Its value.
        value: String,
    },
}

/// What a container's annotations ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The policy file.
    pub policy: PathBuf,
    /// Where the log goes, if it is said.
    pub log: Option<PathBuf>,
}

impl Wanted {
    /// Reads the annotations of a container. A key that is misspelled must not leave it unguarded, or its log somewhere
    /// else.
    ///
    /// # Errors
    ///
    /// When they don't say what to do.
    pub fn new(annotations: &BTreeMap<String, String>) -> Result<Self, AnnotationError> {
        let ours = annotations.keys().filter(|key| key.starts_with(PREFIX));
        if let Some(unknown) = ours.into_iter().find(|key| ![POLICY, LOG].contains(&key.as_str())) {
            return Err(AnnotationError::Unknown(unknown.escape_debug().to_string()));
        }
        Ok(Self { policy: path(annotations, POLICY)?.ok_or(AnnotationError::NoPolicy)?, log: path(annotations, LOG)? })
    }
}

fn path(annotations: &BTreeMap<String, String>, key: &'static str) -> Result<Option<PathBuf>, AnnotationError> {
    let Some(value) = annotations.get(key) else { return Ok(None) };
    if Path::new(value).is_absolute() {
        return Ok(Some(value.into()));
    }
    Err(AnnotationError::NotAbsolute { key, value: value.escape_debug().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(annotations: &[(&str, &str)]) -> Result<Wanted, AnnotationError> {
        Wanted::new(&annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn paths_are_taken_and_others_left_alone() {
        let both = wanted(&[(POLICY, "/etc/p.json"), (LOG, "/var/log/x"), ("io.podman.thing", "1")]).unwrap();
        assert_eq!(both, Wanted { policy: "/etc/p.json".into(), log: Some("/var/log/x".into()) });
        assert_eq!(wanted(&[(POLICY, "/p")]).unwrap().log, None);
    }

    #[test]
    fn what_is_misspelled_is_refused() {
        assert_eq!(wanted(&[]), Err(AnnotationError::NoPolicy));
        assert_eq!(wanted(&[(LOG, "/x")]), Err(AnnotationError::NoPolicy));
        for unknown in ["io.guard-run.polcy", "io.guard-run.", "io.guard-run.policy.path"] {
            let error = wanted(&[(POLICY, "/p"), (unknown, "/x")]);
            assert_eq!(error, Err(AnnotationError::Unknown(unknown.to_owned())));
        }
        for (key, value) in [(POLICY, "p.json"), (POLICY, ""), (LOG, "./x"), (LOG, "-")] {
            let error = wanted(&[(POLICY, "/p"), (key, value)]);
            assert!(matches!(error, Err(AnnotationError::NotAbsolute { .. })), "{key} {value}");
        }
    }
}
