//! Where something is mounted in the command's own mount namespace.
//!
//! What is below a folder that others may change is opened without links and looked at before anything is done to it, by descriptor.
//! Otherwise its owner could exchange the folder meanwhile, have something else hidden from the command, and the mount itself left as it is.

use std::{
    fmt, fs,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use enforce::mounts::Mount;
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, ResolveFlag},
};

use super::{
    place::Place,
    walk::{FUSE, by_descriptor, open_without_links},
};

/// A place in a mount.
#[derive(Clone, Debug)]
pub(super) struct Point {
    place: PathBuf,
    /// The point of the mount that it must be in, if others may change the way there.
    within: Option<PathBuf>,
}

/// A place that can't become another while this is there.
pub(super) struct Opened {
    /// The path by which it is to be had.
    pub(super) path: PathBuf,
    _held: Option<OwnedFd>,
}

impl Point {
    /// A place, where others may change the way to these mounts.
    pub(super) fn new(place: &Path, unsure: &[Place]) -> Self {
        let within = unsure.iter().find(|mount| place.starts_with(&***mount)).map(|mount| mount.to_path_buf());
        Self { place: place.to_owned(), within }
    }

    /// Opens it, where that is needed.
    ///
    /// # Errors
    ///
    /// `ELOOP` and `ESTALE` when something else is there by now.
    pub(super) fn open(&self) -> nix::Result<Opened> {
        let Some(within) = &self.within else { return Ok(Opened { path: self.place.clone(), _held: None }) };
        let fd = open_without_links(AT_FDCWD, &self.place, OFlag::O_PATH | OFlag::O_NOFOLLOW, ResolveFlag::empty())?;
        let mount = mount_of(&fd).ok_or(Errno::ESTALE)?;
        // All that others can mount is a file system for which they answer themselves.
        let is_it =
            mount.point.starts_with(within) && self.place.starts_with(&mount.point) && !mount.kind.starts_with(FUSE);
        if is_it { Ok(Opened { path: by_descriptor(&fd), _held: Some(fd) }) } else { Err(Errno::ESTALE) }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = if self.within.is_some() { ", to which others than root can change the way," } else { "" };
        write!(f, "{}{why}", self.place.display())
    }
}

/// The mount that a descriptor is of. Its file system is not asked for anything.
fn mount_of(fd: &OwnedFd) -> Option<Mount> {
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    let id = about.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse::<u32>().ok())?;
    Mount::all().ok()?.into_iter().find(|mount| mount.id == id)
}

/// Whether others than root can change what is on the way to a path: by a folder of theirs, or one that they may write to and that lets them
/// rename what is in it.
pub(super) fn is_unsure(path: &Path) -> bool {
    path.ancestors().skip(1).any(|folder| {
        fs::symlink_metadata(folder).map_or(true, |folder| {
            let is_shared = folder.mode() & 0o1000 != 0;
            folder.uid() != 0 || folder.mode() & 0o022 != 0 && !is_shared
        })
    })
}
