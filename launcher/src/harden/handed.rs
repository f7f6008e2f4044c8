//! Folders that the command is handed as descriptors. By one that was opened outside, everything outside could be reached, so
//! each is opened anew, where the command is.

use std::{
    os::{fd::RawFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use enforce::sys::confine::replace_descriptor;
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, ResolveFlag},
    sys::stat::fstat,
};

use super::walk::open_without_links;

/// A folder among this process's descriptors.
#[derive(Clone, Debug)]
pub(super) struct Handed {
    /// The descriptor.
    pub(super) number: RawFd,
    /// Where it was when guard-run was started, by the path that the kernel knows.
    pub(super) path: PathBuf,
    /// Device and inode, which another folder doesn't have as long as this one is open.
    identity: (u64, u64),
}

impl Handed {
    /// The folders among the descriptors below `first_closed`.
    pub(super) fn all(first_closed: RawFd) -> Vec<Self> {
        let folder = |number| {
            let link = PathBuf::from(format!("/proc/self/fd/{number}"));
            let file = link.metadata().ok().filter(std::fs::Metadata::is_dir)?;
            Some(Self { number, path: link.read_link().ok()?, identity: (file.dev(), file.ino()) })
        };
        (0..first_closed).filter_map(folder).collect()
    }

    /// Puts the folder as the command sees it in the place of the descriptor. `instead` are the places where the command sees
    /// something of its own.
    ///
    /// # Errors
    ///
    /// `ELOOP` if there is a link in its path by now, `ESTALE` if another folder is there, `ENOENT` if none is.
    pub(super) fn open_anew<'p>(&self, mut instead: impl Iterator<Item = &'p Path>) -> nix::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let folder = open_without_links(AT_FDCWD, &self.path, flags, ResolveFlag::empty())?;
        let file = fstat(&folder)?;
        let is_same = (file.st_dev, file.st_ino) == self.identity;
        if !is_same && !instead.any(|place| self.path.starts_with(place)) {
            return Err(Errno::ESTALE);
        }
        replace_descriptor(&folder, self.number)
    }
}
