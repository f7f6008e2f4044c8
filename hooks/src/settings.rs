//! What root has settled for all containers of this machine, in one file. Annotations may come from somebody else (podman before
//! 4.5.1 takes those of an image, Kubernetes those of a pod's author): what they may ask for is said here.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use policy::strict;
use report::LOG_FOLDER;
use serde::Deserialize;

use crate::{
    annotations::{self, AnnotationError, LOG, POLICY, Wanted},
    trusted::{PathError, open_roots_file},
};

/// The file. Where there is none, everything in it has its default.
pub const FILE: &str = "/etc/guard-run/hook.json";

/// The policy of containers that name none. It is root's choice whether there is one.
pub const DEFAULT_POLICY: &str = "/etc/guard-run/default-policy.json";

/// Where policies are unless the file says otherwise.
const POLICY_FOLDERS: [&str; 2] = ["/etc/guard-run", "/usr/share/guard-run/policies"];

/// A file that leaves everything as it is.
const NOTHING: &str = r#"{"version": 1}"#;

/// More than anybody writes.
const MAX_LEN: u64 = 1 << 20;

/// What /proc/self/uid_map says where user ids are the host's.
const ALL_USERS: [&str; 3] = ["0", "0", "4294967295"];

/// Why nothing can be settled.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file, or the default policy, can't be used.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The file doesn't say what it should.
    #[error("{FILE}: {0}")]
    Content(String),
    /// Who runs the engine is root only among its own user ids.
    #[error(
        "this is not the host's root, but an ordinary user's, as a rootless engine has it: the kernel lets only root guard \
         containers; start the container as root (sudo podman …)"
    )]
    Rootless,
    /// The kernel doesn't say which user ids there are.
    #[error("/proc/self/uid_map")]
    Users(#[source] io::Error),
    /// A file outside of the folders for it.
    #[error(
        "annotation {key}: {} is outside of {}; put it there, or have root name its folder in {FILE} (\"{list}\")",
        path.display(),
        Folders(folders)
    )]
    Outside {
        /// The annotation.
        key: &'static str,
        /// What it names.
        path: PathBuf,
        /// Where that may be.
        folders: Vec<PathBuf>,
        /// The list in the file that says so.
        list: &'static str,
    },
    /// The annotations don't say what to do.
    #[error(transparent)]
    Annotations(#[from] AnnotationError),
}

struct Folders<'a>(&'a [PathBuf]);

impl fmt::Display for Folders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folders: Vec<String> = self.0.iter().map(|folder| folder.display().to_string()).collect();
        f.write_str(&if folders.is_empty() {
            "all folders, since none is allowed".to_owned()
        } else {
            folders.join(", ")
        })
    }
}

/// What annotations may do where there is a default policy.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// Name that policy or none.
    #[default]
    Keep,
    /// Name another one in its place.
    Replace,
}

/// The file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// For editors.
    #[serde(rename = "$schema", default)]
    _schema: Option<String>,
    version: u32,
    #[serde(default = "policy_folders")]
    policies: Vec<PathBuf>,
    #[serde(default = "log_folders")]
    logs: Vec<PathBuf>,
    #[serde(default)]
    annotations: Choice,
    #[serde(default)]
    runtimes: Vec<String>,
}

fn policy_folders() -> Vec<PathBuf> {
    POLICY_FOLDERS.map(PathBuf::from).to_vec()
}

fn log_folders() -> Vec<PathBuf> {
    vec![LOG_FOLDER.into()]
}

/// What root has settled.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    policies: Vec<PathBuf>,
    logs: Vec<PathBuf>,
    annotations: Choice,
    /// Runtimes that guard-runtime may stand in for beside those that it knows.
    pub runtimes: Vec<String>,
    /// The policy of containers that name none.
    default_policy: Option<PathBuf>,
    /// Whether this is the root of an ordinary user's namespace, to whom root's files say nothing.
    rootless: bool,
}

impl Settings {
    /// Reads the file, and looks whether there is a default policy.
    ///
    /// # Errors
    ///
    /// When somebody else than root could have written the file, or it says something unknown.
    pub fn read() -> Result<Self, SettingsError> {
        if !is_roots_namespace(&fs::read_to_string("/proc/self/uid_map").map_err(SettingsError::Users)?) {
            // Whose files are is not to be seen from here.
            let default_policy = Path::new(DEFAULT_POLICY).exists().then(|| DEFAULT_POLICY.into());
            let settings = Self::new(NOTHING, default_policy).map_err(SettingsError::Content)?;
            return Ok(Self { rootless: true, ..settings });
        }
        let text = match open_roots_file(Path::new(FILE)) {
            Err(error) if error.is_absent() => None,
            file => Some(read(file?)?),
        };
        let default_policy = match open_roots_file(Path::new(DEFAULT_POLICY)) {
            Err(error) if error.is_absent() => None,
            file => file.map(|_| Some(DEFAULT_POLICY.into()))?,
        };
        Self::new(text.as_deref().unwrap_or(NOTHING), default_policy).map_err(SettingsError::Content)
    }

    fn new(text: &str, default_policy: Option<PathBuf>) -> Result<Self, String> {
        let Written { version, policies, logs, annotations, runtimes, .. } =
            strict::from_str(text).map_err(|error| error.to_string())?;
        if version != 1 {
            return Err(format!("/version: {version} is unknown; this guard-hook knows 1"));
        }
        for (list, folders) in [("policies", &policies), ("logs", &logs)] {
            if let Some(odd) = folders.iter().find(|folder| !folder.is_absolute()) {
                return Err(format!("/{list}: write absolute paths, not \"{}\"", odd.display()));
            }
        }
        Ok(Self { policies, logs, annotations, runtimes, default_policy, rootless: false })
    }

    /// What a container gets by its annotations. `None` where it asks for nothing, and there is no default policy.
    ///
    /// # Errors
    ///
    /// When the annotations are wrong, or ask for what root has not allowed, or this is not the host's root.
    pub fn wanted(&self, annotations: &BTreeMap<String, String>) -> Result<Option<Wanted>, SettingsError> {
        let (policy, log) = annotations::paths(annotations)?;
        if self.rootless && (policy.is_some() || log.is_some() || self.default_policy.is_some()) {
            return Err(SettingsError::Rootless);
        }
        let policy = match (policy, &self.default_policy) {
            (Some(policy), Some(default)) if policy != *default && self.annotations == Choice::Keep => {
                return Err(AnnotationError::HasDefault { policy }.into());
            }
            (Some(policy), _) => policy,
            (None, Some(default)) => default.clone(),
            (None, None) if log.is_some() => return Err(AnnotationError::NoPolicy.into()),
            (None, None) => return Ok(None),
        };
        // Its place is known, and root's choice.
        if Some(&policy) != self.default_policy.as_ref() {
            inside(POLICY, &policy, &self.policies, "policies")?;
        }
        if let Some(log) = &log {
            inside(LOG, log, &self.logs, "logs")?;
        }
        Ok(Some(Wanted { policy, log }))
    }

    /// Whether a path, which leads through no link, is in a folder for logs.
    #[must_use]
    pub fn is_for_logs(&self, path: &Path) -> bool {
        self.logs.iter().any(|folder| path.starts_with(folder))
    }

    /// Whether a path is that of a folder for logs itself.
    #[must_use]
    pub fn is_log_folder(&self, path: &Path) -> bool {
        self.logs.iter().any(|folder| folder == path)
    }
}

/// Sees that a path is in one of these folders.
fn inside(key: &'static str, path: &Path, folders: &[PathBuf], list: &'static str) -> Result<(), SettingsError> {
    if folders.iter().any(|folder| path.starts_with(folder)) {
        return Ok(());
    }
    Err(SettingsError::Outside { key, path: path.to_owned(), folders: folders.to_vec(), list })
}

fn read(file: File) -> Result<String, SettingsError> {
    let mut text = String::new();
    file.take(MAX_LEN).read_to_string(&mut text).map_err(|error| SettingsError::Content(error.to_string()))?;
    Ok(text)
}

/// Whether user ids are the host's, all of them.
fn is_roots_namespace(map: &str) -> bool {
    map.split_whitespace().eq(ALL_USERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str, default: bool) -> Settings {
        Settings::new(text, default.then(|| DEFAULT_POLICY.into())).unwrap()
    }

    fn wanted(settings: &Settings, annotations: &[(&str, &str)]) -> Result<Option<Wanted>, String> {
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        settings.wanted(&annotations).map_err(|error| error.to_string())
    }

    #[test]
    fn annotations_name_policies_and_logs_in_roots_folders_only() {
        let plain = settings(NOTHING, false);
        assert_eq!(wanted(&plain, &[]), Ok(None));
        let both = Wanted { policy: "/etc/guard-run/p.json".into(), log: Some("/var/log/guard-run/web/x".into()) };
        let given = [(POLICY, "/etc/guard-run/p.json"), (LOG, "/var/log/guard-run/web/x")];
        assert_eq!(wanted(&plain, &given), Ok(Some(both)));
        for policy in ["/etc/passwd", "/etc/guard-run.json", "/", "/etc/guard-runner/p", "/tmp/etc/guard-run/p"] {
            let error = wanted(&plain, &[(POLICY, policy)]).unwrap_err();
            assert!(error.contains("is outside of /etc/guard-run, /usr/share/guard-run/policies"), "{error}");
        }
        let error = wanted(&plain, &[given[0], (LOG, "/etc/ld.so.preload")]).unwrap_err();
        assert!(error.contains("io.guard-run.log: /etc/ld.so.preload is outside of /var/log/guard-run"), "{error}");
        let other = settings(r#"{"version": 1, "policies": ["/srv/p"], "logs": []}"#, false);
        assert!(wanted(&other, &[(POLICY, "/srv/p/x")]).is_ok());
        assert!(wanted(&other, &given[..1]).is_err());
        assert!(wanted(&other, &[(POLICY, "/srv/p/x"), given[1]]).unwrap_err().contains("none is allowed"));
    }

    #[test]
    fn a_default_policy_is_replaced_only_if_root_says_so() {
        let kept = settings(NOTHING, true);
        let default = Wanted { policy: DEFAULT_POLICY.into(), log: None };
        assert_eq!(wanted(&kept, &[]), Ok(Some(default.clone())));
        assert_eq!(wanted(&kept, &[(POLICY, DEFAULT_POLICY)]), Ok(Some(default)));
        let error = wanted(&kept, &[(POLICY, "/etc/guard-run/lax.json")]).unwrap_err();
        assert!(error.contains("\"annotations\": \"replace\""), "{error}");
        let replaced = settings(r#"{"version": 1, "annotations": "replace"}"#, true);
        assert!(wanted(&replaced, &[(POLICY, "/etc/guard-run/lax.json")]).is_ok());
    }

    #[test]
    fn what_is_unknown_in_the_file_is_refused() {
        for text in [
            "",
            "[1]",
            "[null, 1]",
            "{}",
            r#"{"version": 2}"#,
            r#"{"version": 1, "polices": []}"#,
            r#"{"version": 1, "logs": ["var/log"]}"#,
            r#"{"version": 1, "logs": [], "logs": []}"#,
            r#"{"version": 1, "annotations": "tighten"}"#,
        ] {
            assert!(Settings::new(text, None).is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_hosts_own_user_ids_are_roots() {
        assert!(is_roots_namespace("         0          0 4294967295\n"));
        for map in ["", "0 1000 1\n", "0 1000 1\n1 100000 65536\n", "0 0 65536\n"] {
            assert!(!is_roots_namespace(map), "{map}");
        }
    }
}
