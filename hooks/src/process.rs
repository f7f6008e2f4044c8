//! The process that a container consists of when it is made. Its number comes with the container's state, and where the hook makes
//! the cgroup, it moves this process: so it must be one that a runtime could have made.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::capabilities::Apart;

/// The namespaces of which every container has at least one kind of its own.
const APART: [&str; 2] = ["mnt", "pid"];

/// Why a process isn't a container's.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// A file of the process in /proc can't be read.
    #[error("{}", path.display())]
    File {
        /// The file in /proc.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The first process, this one, or one that this one comes from.
    #[error("process {0} is the engine's or the machine's, and not a container's")]
    Engines(u32),
    /// The process is in the hook's own mount and pid namespaces.
    #[error("process {0} is in no mount or pid namespace of its own, so it is not a container's")]
    NotApart(u32),
}

/// Sees that a process is no ancestor of this one, and in namespaces of its own. Which of those it has that decide what its
/// capabilities are good for.
///
/// # Errors
///
/// When it can't be a container's.
pub fn check(pid: u32) -> Result<Apart, ProcessError> {
    let mut ancestor = std::process::id();
    // The first process has none; nor has what was put into this pid namespace from outside.
    while ancestor != 0 {
        if ancestor == pid {
            return Err(ProcessError::Engines(pid));
        }
        ancestor = parent(ancestor)?;
    }
    if pid == 1 {
        return Err(ProcessError::Engines(pid));
    }
    let mut apart = false;
    for kind in APART {
        apart |= is_apart(pid, kind)?;
    }
    if !apart {
        return Err(ProcessError::NotApart(pid));
    }
    Ok(Apart { users: is_apart(pid, "user")?, network: is_apart(pid, "net")? })
}

/// Whether a process is in another namespace of a kind than this one.
fn is_apart(pid: u32, kind: &str) -> Result<bool, ProcessError> {
    let of = |process: &str| {
        let path = Path::new("/proc").join(process).join("ns").join(kind);
        fs::metadata(&path)
            .map(|space| (space.dev(), space.ino()))
            .map_err(|source| ProcessError::File { path, source })
    };
    Ok(of(&pid.to_string())? != of("self")?)
}

/// The process that has made another one, or has taken it over.
fn parent(pid: u32) -> Result<u32, ProcessError> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    let status = fs::read_to_string(&path).map_err(|source| ProcessError::File { path: path.clone(), source })?;
    let found = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
    found.ok_or_else(|| ProcessError::File { path, source: io::ErrorKind::InvalidData.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_this_process_nor_its_ancestors_are_containers() {
        let mut pid = std::process::id();
        while pid != 0 {
            assert!(matches!(check(pid), Err(ProcessError::Engines(_))), "{pid}");
            pid = parent(pid).unwrap();
        }
        assert!(matches!(check(1), Err(ProcessError::Engines(1))));
        assert!(matches!(check(u32::MAX / 4), Err(ProcessError::File { .. })));
    }

    #[test]
    fn a_process_beside_this_one_is_no_container() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let found = check(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(found, Err(ProcessError::NotApart(_))), "{found:?}");
    }
}
