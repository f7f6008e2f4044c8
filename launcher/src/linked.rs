//! Paths of Unix sockets as the kernel knows them: without symbolic links. What a path leads to is a matter of this machine, so policies are
//! looked at here once they have been parsed.

use std::path::{Path, PathBuf};

use enforce::machine::real_path;
use policy::{Policy, SocketPattern};

/// A rule names a path that no socket has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{place}: \"{path}\" leads through a symbolic link, and sockets are known by their real paths, so it would never match; \
     write \"{}\"",
    real.display()
)]
pub struct Linked {
    /// The path's place in the policy.
    pub place: String,
    /// The path as it is written there.
    pub path: String,
    /// The path that sockets have which it is meant for.
    pub real: PathBuf,
}

/// Makes sure that no path of the unix section leads through a symbolic link of this machine's: no socket has such a path. Of a path
/// with wildcards, only the folders before the first one are looked at.
///
/// # Errors
///
/// When one does.
pub fn check(policy: &Policy) -> Result<(), Linked> {
    for (index, rule) in policy.unix.iter().flat_map(|unix| &unix.rules).enumerate() {
        for (number, pattern) in rule.paths.iter().flatten().enumerate() {
            let SocketPattern::Named(glob) = pattern else { continue };
            let path = glob.as_str();
            if let Some(real) = linked(path) {
                return Err(Linked {
                    place: format!("/unix/rules/{index}/paths/{number}"),
                    path: path.to_owned(),
                    real,
                });
            }
        }
    }
    Ok(())
}

/// What a glob has to be instead, if links lead from it to something else.
fn linked(glob: &str) -> Option<PathBuf> {
    if !glob.starts_with('/') {
        return None;
    }
    let fixed = match glob.find(['*', '?']) {
        Some(wild) => &glob[..=glob[..wild].rfind('/')?],
        None => glob,
    };
    let real = real_path(Path::new(fixed));
    let rest = glob[fixed.len()..].trim_start_matches('/');
    let real = if rest.is_empty() { real } else { real.join(rest) };
    (real != Path::new(glob)).then_some(real)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn links_are_found_before_and_behind_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        fs::create_dir(folder.join("run")).unwrap();
        symlink("run", folder.join("var")).unwrap();
        fs::write(folder.join("run/socket"), "").unwrap();
        symlink("socket", folder.join("run/link")).unwrap();
        let folder = folder.to_str().unwrap();
        for (path, instead) in [
            ("/var/x", Some("/run/x")),
            ("/var/a/b", Some("/run/a/b")),
            ("/var", Some("/run")),
            ("/var/*.sock", Some("/run/*.sock")),
            ("/var/a?/x", Some("/run/a?/x")),
            ("/run/link", Some("/run/socket")),
            ("/run/socket", None),
            ("/run/absent", None),
            ("/run/*", None),
            ("/v*/x", None),
            ("/absent/x", None),
        ] {
            let expected = instead.map(|instead| PathBuf::from(format!("{folder}{instead}")));
            assert_eq!(linked(&format!("{folder}{path}")), expected, "{path}");
        }
        assert_eq!((linked("@/var"), linked("*/x"), linked("/")), (None, None, None));
    }
}
