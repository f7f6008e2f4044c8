//! What is kept of a container between the two stages: a folder of its own in a bpf file system, in which programs, maps
//! and a note are pinned. Like them, it lives as long as the kernel runs, and no process is needed for it.
//!
//! A folder is made under another name and renamed when it is whole, and renamed again before it is taken apart. While
//! somebody works on one, it is locked with flock(2), which goes away with its process.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use enforce::bpffs::{self, FolderError, MOUNT, lock};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use report::Container;

use crate::container::folder_name;

/// The folder of all containers, for root's eyes only.
const FOLDER: &str = "/sys/fs/bpf/guard-run";

/// What the name of a folder ends with that is not whole. No container's name can.
const UNFINISHED: char = '~';

/// What the name of a folder ends with that is of an earlier run of its container and waits for being concluded. No container's
/// name can.
const EARLIER: char = '+';

/// How often another attempt is made because somebody took a new folder for an abandoned one.
const ATTEMPTS: u32 = 200;

/// How long that somebody is given to remove it each time.
const PAUSE: Duration = Duration::from_millis(5);

/// Why nothing can be kept of a container.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There is no bpf file system.
    #[error("no bpf file system is mounted at {MOUNT}; mount one: mount -t bpf bpf {MOUNT} -o mode=700")]
    NoBpfFs,
    /// Something failed on a file or folder.
    #[error("{}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The folder of all containers can't be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Somebody else has a container with this id.
    #[error("another guard-hook is at work on a container with the id {0}")]
    Busy(String),
}

fn on<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> PinError + '_ {
    move |source| PinError::File { path: path.to_owned(), source: source.into() }
}

/// A container's folder, locked.
#[derive(Debug)]
pub struct Pins {
    folder: PathBuf,
    lock: Flock<OwnedFd>,
}

impl Pins {
    /// The folder of a container; waits until nobody works on it. `None` if there is none.
    ///
    /// # Errors
    ///
    /// When it can't be opened.
    pub fn open(container: &Container) -> Result<Option<Self>, PinError> {
        if !are_there()? {
            return Ok(None);
        }
        let folder = Path::new(FOLDER).join(folder_name(container));
        loop {
            match lock(&folder, FlockArg::LockExclusive) {
                Ok(Some(lock)) => return Ok(Some(Self { folder, lock })),
                // It was removed while this process waited; there may be another one already.
                Ok(None) => {}
                Err(Errno::ENOENT) => return Ok(None),
                Err(error) => return Err(on(&folder)(error)),
            }
        }
    }

    /// The folders of all containers on which nobody is at work, each locked only when it is its turn: others wait for it.
    ///
    /// # Errors
    ///
    /// When what is there isn't known to be root's.
    pub fn idle() -> Result<impl Iterator<Item = Self>, PinError> {
        let entries = if are_there()? { Some(fs::read_dir(FOLDER).map_err(on(Path::new(FOLDER)))?) } else { None };
        let folders: Vec<PathBuf> = entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        Ok(folders.into_iter().filter_map(|folder| {
            let lock = lock(&folder, FlockArg::LockExclusiveNonblock).ok()??;
            Some(Self { folder, lock })
        }))
    }

    /// Leaves the name to the next run of the container. What is pinned stays in force. There is one such folder for a container:
    /// an earlier one is given to `conclude`, and removed if that fails, since a container that is started over and over
    /// must not fill the kernel's memory.
    ///
    /// # Errors
    ///
    /// When somebody else is at work on the earlier one, or it can't be renamed.
    pub fn set_aside(&mut self, conclude: impl FnOnce(Self)) -> Result<(), PinError> {
        let aside = with(&self.folder, EARLIER);
        match lock(&aside, FlockArg::LockExclusive) {
            Ok(Some(lock)) => {
                conclude(Self { folder: aside.clone(), lock });
                sweep(&aside)?;
            }
            // It was concluded while this process waited.
            Ok(None) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(on(&aside)(error)),
        }
        fs::rename(&self.folder, &aside).map_err(on(&self.folder))?;
        self.folder = aside;
        Ok(())
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether it was never finished, or is half removed: then it holds nothing that anybody needs.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.folder.as_os_str().as_encoded_bytes().ends_with(&[UNFINISHED as u8])
    }

    /// Removes the folder and all that is pinned in it: programs whose links nobody else holds are detached.
    ///
    /// # Errors
    ///
    /// When that isn't possible.
    pub fn remove(self) -> Result<(), PinError> {
        let Self { mut folder, lock } = self;
        // From here on, nobody mistakes it for a container's that can still be read.
        if !folder.as_os_str().as_encoded_bytes().ends_with(&[UNFINISHED as u8]) {
            let unfinished = unfinished(&folder);
            sweep(&unfinished)?;
            fs::rename(&folder, &unfinished).map_err(on(&folder))?;
            folder = unfinished;
        }
        fs::remove_dir_all(&folder).map_err(on(&folder))?;
        drop(lock);
        Ok(())
    }
}

/// A container's folder in the making. It goes away with this value unless it is finished.
#[derive(Debug)]
pub struct Draft {
    folder: PathBuf,
    name: String,
    // Not held any more once it is finished, so that the folder can be opened.
    lock: Option<Flock<OwnedFd>>,
}

impl Draft {
    /// Begins a folder for a container.
    ///
    /// # Errors
    ///
    /// When that isn't possible.
    pub fn new(container: &Container) -> Result<Self, PinError> {
        if !bpffs::is_mounted() {
            return Err(PinError::NoBpfFs);
        }
        bpffs::make_at_top(Path::new(FOLDER))?;
        let name = folder_name(container);
        let folder = unfinished(&Path::new(FOLDER).join(&name));
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                sleep(PAUSE);
            }
            sweep(&folder)?;
            match bpffs::make(&folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(on(&folder))?,
            }
            // Between these two, somebody else may take it for an abandoned one and remove it.
            if let Ok(Some(lock)) = lock(&folder, FlockArg::LockExclusiveNonblock) {
                return Ok(Self { folder, name, lock: Some(lock) });
            }
        }
        Err(PinError::Busy(container.id.clone()))
    }

    /// Where things are to be pinned.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Gives the folder its name, at which it is found from now on.
    ///
    /// # Errors
    ///
    /// When there is one of that name.
    pub fn finish(mut self) -> Result<(), PinError> {
        let finished = Path::new(FOLDER).join(&self.name);
        fs::rename(&self.folder, &finished).map_err(on(&finished))?;
        self.lock = None;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // The container is about to be aborted. What can't be removed is removed by the next one.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn unfinished(folder: &Path) -> PathBuf {
    with(folder, UNFINISHED)
}

/// A folder's path with another letter at its end.
fn with(folder: &Path, letter: char) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(letter.to_string());
    name.into()
}

/// Whether the folder of all containers is there. Every container that is guarded has it made.
///
/// # Errors
///
/// When it isn't known to be root's.
pub fn are_there() -> Result<bool, FolderError> {
    bpffs::is_there(Path::new(FOLDER))
}

/// Removes a folder that was left behind half made or half removed.
fn sweep(folder: &Path) -> Result<(), PinError> {
    match lock(folder, FlockArg::LockExclusiveNonblock) {
        Ok(Some(_lock)) => fs::remove_dir_all(folder).map_err(on(folder)),
        // Somebody is at work: what the caller wants to do with the name will fail.
        Ok(None) | Err(Errno::ENOENT | Errno::EWOULDBLOCK) => Ok(()),
        Err(error) => Err(on(folder)(error)),
    }
}
