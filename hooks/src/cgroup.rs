//! The cgroup on which a container is guarded: its own, whole, and nobody else's.

use std::{
    ffi::OsStr,
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use enforce::cgroup::{CgroupError, Hierarchy, is_populated, processes};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use serde::{Deserialize, Serialize};

use report::Container;

use crate::container::folder_name;

/// Where engines expect cgroups. Runtimes tell by the type of this very file system whether a host has cgroup v2 alone.
const USUAL_MOUNT: &str = "/sys/fs/cgroup";

/// What the names of the cgroups begin with that are made for containers that have none. Not what the names of
/// guard-run's own begin with: its `gc` must not take them for abandoned ones.
const PREFIX: &str = "guard-hook.";

/// Why there is no cgroup to guard a container on.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Something about cgroups failed.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A file or folder of a cgroup.
    #[error("{}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The container is where its engine is.
    #[error(
        "the container has no cgroup of its own: its process is in {}, as its engine is or everything; a policy there would \
         hold for all of them. Let the engine manage cgroups (podman: without --cgroups=disabled)",
        .0.display()
    )]
    NotItsOwn(PathBuf),
    /// There are others in the container's cgroup.
    #[error(
        "the container's cgroup {} has other processes in it than the container's ({pid}): {others:?}; \
         a policy there would hold for these, too",
        path.display()
    )]
    Shared {
        /// The cgroup.
        path: PathBuf,
        /// The container's process.
        pid: u32,
        /// The processes that are not.
        others: Vec<u32>,
    },
}

fn on(path: &Path) -> impl FnOnce(io::Error) -> PlaceError + '_ {
    move |source| PlaceError::File { path: path.to_owned(), source }
}

/// A cgroup, so that it can be found again, and told from another one at the same path.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The cgroup's folder.
    pub path: PathBuf,
    /// The folder's inode, which is what the kernel calls the cgroup's id.
    pub id: u64,
    /// Where the hierarchy was mounted.
    mount: PathBuf,
    /// What was seen there: the same file system from the same cgroup down has the same device and inode.
    view: (u64, u64),
    /// Whether it was made for the container by the hook, so that nobody else removes it, and nothing that an engine
    /// starts in the container later is in it.
    pub made: bool,
}

impl Place {
    fn new(mount: &Path, path: &Path, id: u64) -> Result<Self, PlaceError> {
        let view = view(mount).map_err(on(mount))?;
        Ok(Self { path: path.to_owned(), id, mount: mount.to_owned(), view, made: false })
    }

    /// Whether no process is in the cgroup any more. `None` where another part of the hierarchy is seen than when it was made,
    /// as in another mount namespace.
    #[must_use]
    pub fn is_deserted(&self) -> Option<bool> {
        if !view(&self.mount).is_ok_and(|view| view == self.view) {
            return None;
        }
        if !self.is_there() {
            return Some(true);
        }
        is_populated(&self.path).ok().map(|populated| !populated)
    }

    /// Whether this very cgroup is where it was.
    fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|folder| folder.ino() == self.id)
    }

    /// Opens its folder. `None` where it isn't there, or not seen from here.
    #[must_use]
    pub fn open(&self) -> Option<OwnedFd> {
        let folder = fs::File::open(&self.path).ok()?;
        (folder.metadata().ok()?.ino() == self.id).then(|| folder.into())
    }

    /// Removes the cgroup if the hook has made it. It must be empty.
    ///
    /// # Errors
    ///
    /// When it isn't.
    pub fn remove(&self) -> Result<(), PlaceError> {
        if self.made && self.is_there() {
            fs::remove_dir(&self.path).map_err(on(&self.path))?;
        }
        Ok(())
    }
}

fn view(mount: &Path) -> io::Result<(u64, u64)> {
    let folder = fs::metadata(mount)?;
    Ok((folder.dev(), folder.ino()))
}

/// The cgroup that a container is about to be guarded on.
#[derive(Debug)]
pub struct Own {
    /// Which one.
    pub place: Place,
    /// The cgroup's folder, for attaching programs.
    pub folder: OwnedFd,
    moved: Option<Moved>,
}

impl Own {
    /// Finds the cgroup of a container that consists of one process yet: the topmost one that is the container's alone, as
    /// what an engine executes in the container later may be beside the first process, and not below it. `configured` is what
    /// the cgroup is called that the container is to be in.
    ///
    /// # Errors
    ///
    /// When the container has no cgroup of its own.
    pub fn find(container: &Container, pid: u32, configured: Option<&str>) -> Result<Self, PlaceError> {
        let (of_container, of_engine) = Hierarchy::of_process(pid)?;
        let path = of_container.own;
        if path == of_container.mount || of_engine.own.starts_with(&path) {
            if is_pure() {
                return Err(PlaceError::NotItsOwn(path));
            }
            return Self::make(&of_container.mount, container, pid, path);
        }
        alone(&path, pid)?;
        let above = path.ancestors().skip(1).take_while(|above| **above != of_container.mount);
        let named = |above: &&Path| {
            is_named_after(above, &container.id)
                || above.file_name().is_some_and(|name| Some(name) == configured.map(OsStr::new))
        };
        let topmost = above.filter(named).filter(|above| alone(above, pid).is_ok()).last();
        Self::open(&of_container.mount, topmost.unwrap_or(&path))
    }

    fn open(mount: &Path, path: &Path) -> Result<Self, PlaceError> {
        let folder = fs::File::open(path).map_err(on(path))?;
        let id = folder.metadata().map_err(on(path))?.ino();
        Ok(Self { place: Place::new(mount, path, id)?, folder: folder.into(), moved: None })
    }

    /// Makes a cgroup for a container that has none of version 2, since its runtime uses version 1.
    fn make(mount: &Path, container: &Container, pid: u32, from: PathBuf) -> Result<Self, PlaceError> {
        let path = mount.join(format!("{PREFIX}{}", folder_name(container)));
        // A container of this id may have left one behind. It can be removed unless there are processes in it.
        let made = match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_dir(&path).and_then(|()| fs::create_dir(&path))
            }
            made => made,
        };
        made.map_err(on(&path))?;
        let moved = Moved { pid, from, to: path };
        let mut own = Self::open(mount, &moved.to)?;
        own.place.made = true;
        own.moved = Some(moved);
        Ok(own)
    }

    /// Moves the container's process in, if the cgroup was made for it. To be called once everything is attached.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn enter(&self) -> Result<(), PlaceError> {
        self.moved.as_ref().map_or(Ok(()), |moved| move_to(&moved.to, moved.pid))
    }

    /// Leaves the container in it for good.
    pub fn keep(mut self) {
        if let Some(moved) = self.moved.take() {
            std::mem::forget(moved);
        }
    }
}

/// A cgroup that was made for a process. Unless it is kept, the process is moved back, and the cgroup removed.
#[derive(Debug)]
struct Moved {
    pid: u32,
    from: PathBuf,
    to: PathBuf,
}

impl Drop for Moved {
    fn drop(&mut self) {
        // The container is about to be aborted. Nobody is left to tell about a second failure.
        let _ = move_to(&self.from, self.pid);
        let _ = fs::remove_dir(&self.to);
    }
}

fn move_to(cgroup: &Path, pid: u32) -> Result<(), PlaceError> {
    let file = cgroup.join("cgroup.procs");
    fs::write(&file, pid.to_string()).map_err(on(&file))
}

/// Makes sure that this process, and no other, is in a cgroup and those below.
fn alone(path: &Path, pid: u32) -> Result<(), PlaceError> {
    let inside = processes(path);
    if inside == [pid] {
        return Ok(());
    }
    let others = inside.into_iter().filter(|other| *other != pid).collect();
    Err(PlaceError::Shared { path: path.to_owned(), pid, others })
}

/// Whether a cgroup's name says that it is this container's. Engines put their own name before the id and the kind of unit
/// behind it: `libpod-ID.scope`, `docker-ID.scope`, `cri-containerd-ID.scope`.
fn is_named_after(cgroup: &Path, id: &str) -> bool {
    let Some(name) = cgroup.file_name().and_then(|name| name.to_str()) else { return false };
    let name = name.strip_suffix(".scope").unwrap_or(name);
    name.strip_suffix(id).is_some_and(|before| before.is_empty() || before.ends_with('-'))
}

/// Whether this host has cgroup v2 alone.
fn is_pure() -> bool {
    statfs(USUAL_MOUNT).is_ok_and(|mount| mount.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_containers_own_cgroups_are_named_after_it() {
        for name in ["c1", "libpod-c1", "libpod-c1.scope", "docker-c1.scope", "cri-containerd-c1.scope"] {
            assert!(is_named_after(&Path::new("/sys/fs/cgroup/machine.slice").join(name), "c1"), "{name}");
        }
        for name in ["", "c12", "libpodc1", "c1.slice", "c1-x", "container", "machine.slice", "xc1"] {
            assert!(!is_named_after(&Path::new("/sys/fs/cgroup/machine.slice").join(name), "c1"), "{name}");
        }
    }
}
