//! Finding files in folders that several users may change, with more rights than these users have. No link that another user
//! made is followed, and no file system of another user is asked for anything: it may never answer.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use enforce::mounts::Mount;
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2, readlinkat},
    sys::stat::{FileStat, SFlag, fstat},
};

/// How many links a path may have, as in the kernel (`MAXSYMLINKS`, include/linux/namei.h).
const MAX_LINKS: u32 = 40;

/// What the type of a FUSE file system begins with: `fuse`, `fuseblk`, `fuse.sshfs` …
pub(super) const FUSE: &str = "fuse";

/// Whether an error says that nothing is there, or nothing that this process could reach. All others say that this process
/// can't look.
pub(super) fn is_absent(error: Errno) -> bool {
    use Errno::{EACCES, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOTCONN, ENOTDIR, ESTALE, EXDEV};
    matches!(error, EACCES | EIO | ELOOP | ENAMETOOLONG | ENOENT | ENOTCONN | ENOTDIR | ESTALE | EXDEV)
}

/// The value, or nothing where nothing is there.
pub(super) fn if_there<T>(result: nix::Result<T>) -> nix::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_absent(error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a path in which nothing is a symbolic link. With `O_PATH` and `O_NOFOLLOW`, its end may be one, and is opened itself.
///
/// # Errors
///
/// As openat2(2): `ELOOP` for a link.
pub(super) fn open_without_links(
    folder: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlag,
    resolve: ResolveFlag,
) -> nix::Result<OwnedFd> {
    let resolve = resolve | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    openat2(folder, path.as_ref(), OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve))
}

/// Whether a file is of this type.
pub(super) fn is(file: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(file.st_mode & libc::S_IFMT) == kind
}

/// By which path a mount on a descriptor, or a list of its entries, is to be had.
pub(super) fn by_descriptor(fd: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

/// Who can change what a folder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// The folder's trusted owner alone.
    Owner,
    /// Everybody, but each only what is theirs: such as /tmp.
    Shared,
    /// Others.
    Others,
}

impl Trust {
    fn new(folder: &FileStat, trusted: &[u32]) -> Self {
        let others = libc::S_IWGRP | libc::S_IWOTH;
        match trusted.contains(&folder.st_uid) {
            true if folder.st_mode & others == 0 => Self::Owner,
            true if folder.st_mode & libc::S_ISVTX != 0 => Self::Shared,
            _ => Self::Others,
        }
    }
}

/// What was found.
#[derive(Debug)]
pub(super) enum What {
    /// A folder.
    Folder(Trust),
    /// A Unix socket.
    Socket,
    /// A symbolic link.
    Link,
    /// Something else.
    Other,
}

/// A file that was found, and can't become another.
#[derive(Debug)]
pub(super) struct Found {
    fd: OwnedFd,
    /// The entry's path, in which nothing is a link.
    pub(super) path: PathBuf,
    /// What it is.
    pub(super) what: What,
    /// The number of the user to whom it belongs.
    pub(super) owner: u32,
}

/// Who looks.
#[derive(Clone)]
pub(super) struct Walk<'a> {
    /// The folder that counts as `/`.
    root: Rc<Found>,
    /// The users whose links are followed, and into whose folders it looks.
    owners: Vec<u32>,
    /// The users whose file systems are asked, by their ids.
    mounters: Vec<u32>,
    mounts: &'a [Mount],
}

impl<'a> Walk<'a> {
    /// Looks below a folder, where this is mounted, and trusts these users.
    ///
    /// # Errors
    ///
    /// When this process can't look.
    pub(super) fn new(root: &Path, users: &[u32], mounts: &'a [Mount]) -> nix::Result<Self> {
        let fd = open_without_links(AT_FDCWD, root, OFlag::O_PATH, ResolveFlag::empty())?;
        let root = Rc::new(Found::new(fd, root.to_owned(), users)?);
        Ok(Self { root, owners: users.to_owned(), mounters: users.to_owned(), mounts })
    }

    /// Trusts another user as well, but no file system of that user's.
    pub(super) fn trusting(&self, user: u32) -> Self {
        let owners = self.owners.iter().copied().chain([user]).collect();
        Self { owners, ..self.clone() }
    }

    /// What was found, as it counts for whom this trusts.
    ///
    /// # Errors
    ///
    /// When this process can't look.
    pub(super) fn again(&self, found: &Found) -> nix::Result<Found> {
        let fd = found.fd.try_clone().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
        Found::new(fd, found.path.clone(), &self.owners)
    }

    /// Whether it trusts a user.
    pub(super) fn trusts(&self, user: u32) -> bool {
        self.owners.contains(&user)
    }

    /// Finds what is at an absolute path. Links are followed if a trusted user made them.
    ///
    /// # Errors
    ///
    /// When this process can't look.
    pub(super) fn find(&self, path: impl AsRef<Path>) -> nix::Result<Option<Found>> {
        match path.as_ref().strip_prefix("/") {
            Ok(below) if below.as_os_str().is_empty() => self.again(&self.root).map(Some),
            Ok(below) => self.follow(&self.root, below, &mut 0),
            Err(_) => Ok(None),
        }
    }

    /// Finds an entry of a folder. Links are followed if a trusted user made them.
    ///
    /// # Errors
    ///
    /// When this process can't look.
    pub(super) fn enter(&self, folder: &Found, name: impl AsRef<Path>) -> nix::Result<Option<Found>> {
        self.follow(folder, name.as_ref(), &mut 0)
    }

    fn follow(&self, from: &Found, path: &Path, links: &mut u32) -> nix::Result<Option<Found>> {
        let mut at: Option<Found> = None;
        for part in path.components() {
            let here = at.as_ref().unwrap_or(from);
            let next = match part {
                Component::Normal(name) => self.entry(here, name)?,
                Component::RootDir => self.find("/")?,
                // Its path has no links, so this is the folder above.
                Component::ParentDir => {
                    self.find(Path::new("/").join(self.below_root(here).parent().unwrap_or(Path::new(""))))?
                }
                Component::CurDir | Component::Prefix(_) => continue,
            };
            let Some(next) = next else { return Ok(None) };
            at = if matches!(next.what, What::Link) {
                *links += 1;
                let Some(target) = if_there(readlinkat(&next.fd, ""))?.filter(|_| *links <= MAX_LINKS) else {
                    return Ok(None);
                };
                let Some(end) = self.follow(here, Path::new(&target), links)? else { return Ok(None) };
                Some(end)
            } else {
                Some(next)
            };
        }
        Ok(at)
    }

    fn below_root<'p>(&self, found: &'p Found) -> &'p Path {
        found.path.strip_prefix(&self.root.path).unwrap_or(Path::new(""))
    }

    /// An entry as it is. None of a folder in which others could have put it; in a shared one, none that isn't a trusted user's.
    fn entry(&self, folder: &Found, name: &OsStr) -> nix::Result<Option<Found>> {
        let trust = match folder.what {
            What::Folder(Trust::Others) | What::Socket | What::Link | What::Other => return Ok(None),
            What::Folder(trust) => trust,
        };
        let open = |resolve| open_without_links(&folder.fd, name, OFlag::O_PATH | OFlag::O_NOFOLLOW, resolve);
        let path = folder.path.join(name);
        // Users may mount their own file systems on their folders. Asked for anything, such a one need not answer.
        let opened = match open(ResolveFlag::RESOLVE_NO_XDEV) {
            Err(Errno::EXDEV) if self.is_mounted_by_trusted(&path) => open(ResolveFlag::empty()),
            opened => opened,
        };
        let Some(fd) = if_there(opened)? else { return Ok(None) };
        let found = Found::new(fd, path, &self.owners)?;
        Ok(Some(found).filter(|found| trust == Trust::Owner || self.trusts(found.owner)))
    }

    /// Whether what is mounted there was so when the mounts were read, and isn't a FUSE file system of another user.
    fn is_mounted_by_trusted(&self, path: &Path) -> bool {
        // The last one is on top.
        let Some(mount) = self.mounts.iter().rfind(|mount| mount.point == path) else { return false };
        let user = mount.options.split(',').find_map(|option| option.strip_prefix("user_id=")?.parse().ok());
        !mount.kind.starts_with(FUSE) || user.is_some_and(|user| self.mounters.contains(&user))
    }
}

impl Found {
    fn new(fd: OwnedFd, path: PathBuf, trusted: &[u32]) -> nix::Result<Self> {
        let file = fstat(&fd)?;
        let what = match SFlag::from_bits_truncate(file.st_mode & libc::S_IFMT) {
            SFlag::S_IFDIR => What::Folder(Trust::new(&file, trusted)),
            SFlag::S_IFSOCK => What::Socket,
            SFlag::S_IFLNK => What::Link,
            _ => What::Other,
        };
        Ok(Self { fd, path, what, owner: file.st_uid })
    }

    /// As a folder in which everybody can make something, if it is a folder: for those of the system's own, whatever their mode.
    pub(super) fn shared(self) -> Self {
        match self.what {
            What::Folder(Trust::Others) => Self { what: What::Folder(Trust::Shared), ..self },
            _ => self,
        }
    }

    /// The names in a folder, at most so many, of which a function makes something.
    ///
    /// # Errors
    ///
    /// When this process can't look.
    pub(super) fn names<T>(&self, most: usize, of: impl Fn(OsString) -> Option<T>) -> nix::Result<Vec<T>> {
        let entries = fs::read_dir(by_descriptor(&self.fd));
        let entries = entries.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()));
        let entries = if_there(entries)?.into_iter().flatten().filter_map(Result::ok);
        Ok(entries.filter_map(|entry| of(entry.file_name())).take(most).collect())
    }
}
