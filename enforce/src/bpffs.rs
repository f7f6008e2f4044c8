//! Folders in a bpf file system, in which programs and maps outlive the process that made them. Like these, they live as
//! long as the kernel runs.
//!
//! Everybody may write to a bpf file system unless it is mounted otherwise, and make folders and symbolic links there. So
//! guard-run's own are used only if nobody but root could have put anything into them, or them where they are.

use std::{
    fs::{DirBuilder, Metadata},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg, OFlag, open},
    sys::{
        stat::{Mode, fstat, stat},
        statfs::{BPF_FS_MAGIC, statfs},
    },
};

use crate::ownership::{is_roots_alone, keeps_roots};

/// Where a bpf file system is mounted, by systemd or by others.
pub const MOUNT: &str = "/sys/fs/bpf";

/// Why a folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Somebody else than root could have put anything there.
    #[error(
        "{} is not root's alone (owner {owner}, mode {mode:o}), so what is in it can't be trusted; see who has made it, \
         then: chmod 700 {MOUNT}, rm -r {}",
        path.display(), folder.display()
    )]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// The folder, or a folder that it is in.
        path: PathBuf,
        /// Who owns that.
        owner: u32,
        /// The folder's mode.
        mode: u32,
    },
    /// The file or folder can't be looked at.
    #[error("{}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

/// Whether a bpf file system is mounted.
#[must_use]
pub fn is_mounted() -> bool {
    statfs(MOUNT).is_ok_and(|mount| mount.filesystem_type() == BPF_FS_MAGIC)
}

/// Whether a folder is there, at the top of the file system. Then it is root's alone: anybody else who could write to it could have
/// put programs there that do nothing, or have what links lead to removed.
///
/// # Errors
///
/// When it isn't.
pub fn is_there(folder: &Path) -> Result<bool, FolderError> {
    let found = match folder.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found.map_err(on(folder))?,
    };
    let foreign = |path: &Path, metadata: &Metadata| FolderError::Foreign {
        folder: folder.to_owned(),
        path: path.to_owned(),
        owner: metadata.uid(),
        mode: metadata.mode(),
    };
    if !found.is_dir() || !is_roots_alone(&found) {
        return Err(foreign(folder, &found));
    }
    let top = Path::new(MOUNT);
    let at = top.symlink_metadata().map_err(on(top))?;
    if keeps_roots(&at) { Ok(true) } else { Err(foreign(top, &at)) }
}

/// Makes a folder for root's eyes only at the top of the file system, unless it is there, root's alone.
///
/// # Errors
///
/// As mkdir(2) and [`is_there`].
pub fn make_at_top(folder: &Path) -> Result<(), FolderError> {
    match make(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.map_err(on(folder))?,
    }
    is_there(folder).map(drop)
}

fn on(path: &Path) -> impl FnOnce(io::Error) -> FolderError + '_ {
    move |source| FolderError::File { path: path.to_owned(), source }
}

/// Makes a folder for root's eyes only.
///
/// # Errors
///
/// As mkdir(2).
pub fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)
}

/// Opens and locks a folder (flock(2)): the lock goes away with this process, however it ends. `None` if it is another folder
/// by then.
///
/// # Errors
///
/// As open(2) and flock(2): `ELOOP` or `ENOTDIR` for a link, `EWOULDBLOCK` where somebody else has locked it.
pub fn lock(folder: &Path, how: FlockArg) -> nix::Result<Option<Flock<OwnedFd>>> {
    let opened =
        open(folder, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let opened = Flock::lock(opened, how).map_err(|(_, error)| error)?;
    let (locked, there) = (fstat(&*opened)?, stat(folder));
    Ok(there.is_ok_and(|there| there.st_ino == locked.st_ino).then_some(opened))
}
