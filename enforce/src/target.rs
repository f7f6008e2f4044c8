//! Where a file is to be: found once, and the same place whatever becomes of the path.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs::{self, File},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{self, Write as _},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{
        AT_FDCWD, AtFlags, Flock, FlockArg, OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat, renameat,
    },
    sys::{
        stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat},
        statfs::{PROC_SUPER_MAGIC, fstatfs},
    },
    unistd::{Gid, Uid, UnlinkatFlags, fchown, ftruncate, geteuid, linkat, unlinkat},
};

use crate::ownership::is_ours;

/// Logs and events are for their owner: they hold command lines.
pub const PRIVATE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// How many links a path may lead through, as in the kernel (`MAXSYMLINKS`, include/linux/namei.h).
const MAX_LINKS: usize = 40;

/// How the names of files begin that are renamed when they are whole. After it come [`DIGITS`] hexadecimal digits.
const DRAFT: &str = ".guard-run-";
const DIGITS: usize = 16;

const LOOK: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// The descriptor of a folder, and a name in it, which may be there or not. What is opened, made or replaced by it is in that
/// folder, also when the path by which it was found leads elsewhere in the meantime.
#[derive(Debug)]
pub struct Target {
    folder: OwnedFd,
    name: OsString,
}

/// What a path leads to.
#[derive(Debug)]
pub enum Found {
    /// A name in a folder.
    Name(Target),
    /// What somebody has open, as /proc/PID/fd has it. It need not have a name. The descriptor is of the kind `O_PATH`.
    Open(OwnedFd),
}

/// Has a file of this content replace the one that a path leads to, as [`Target::replace`] does.
///
/// # Errors
///
/// Those of [`Found::at`] and [`Target::replace`], and when it is no regular file.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    match Found::at(path)? {
        Found::Name(target) => target.replace(content),
        Found::Open(_) => Err(io::Error::other("not a regular file")),
    }
}

/// Makes a file of this content where a path leads, for nobody else to write.
///
/// # Errors
///
/// Those of [`Found::at`], `AlreadyExists` where there is something, and when it can't be made or written.
pub fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let Found::Name(target) = Found::at(path)? else { return Err(io::ErrorKind::AlreadyExists.into()) };
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let made = target.open_or_make(flags, Mode::from_bits_truncate(0o644))?;
    File::from(made).write_all(content)
}

impl Found {
    /// Finds what a path leads to. Symbolic links are followed if they are root's or this process's user's: those of others
    /// could be made to lead elsewhere by them at any time, to files that are not theirs.
    ///
    /// # Errors
    ///
    /// As open(2), when such a link is in the way (`PermissionDenied`), and when the path can be nothing but a folder's.
    pub fn at(path: &Path) -> io::Result<Self> {
        let mut rest: VecDeque<OsString> = names(path.as_os_str().as_bytes()).collect();
        let mut folder = start(path)?;
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            let is_last = rest.is_empty();
            if is_last && ["", ".", ".."].iter().any(|folder| name == **folder) {
                if path.as_os_str().is_empty() {
                    return Err(Errno::ENOENT.into());
                }
                // It may be no folder.
                openat(&folder, ".", LOOK, Mode::empty())?;
                return Err(Errno::EISDIR.into());
            }
            if name.is_empty() {
                continue;
            }
            let entry = match openat(&folder, name.as_os_str(), LOOK | OFlag::O_NOFOLLOW, Mode::empty()) {
                Err(Errno::ENOENT) if is_last => return Ok(Self::Name(Target { folder, name })),
                entry => entry?,
            };
            let what = fstat(&entry)?;
            if kind(&what) != SFlag::S_IFLNK {
                if is_last {
                    return Ok(Self::Name(Target { folder, name }));
                }
                folder = entry;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::ELOOP.into());
            }
            if !is_ours(what.st_uid) {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!(
                        "the symbolic link {} belongs to user {} and is not followed; name what it leads to",
                        name.display(),
                        what.st_uid
                    ),
                ));
            }
            if stands_for_a_file(&folder, &name, &entry)? {
                let opened = openat(&folder, name.as_os_str(), LOOK, Mode::empty())?;
                if is_last {
                    return Ok(Self::Open(opened));
                }
                folder = opened;
            } else {
                // The very link that was looked at.
                let leads_to = readlinkat(&entry, "")?;
                if leads_to.as_bytes().starts_with(b"/") {
                    folder = start(Path::new("/"))?;
                }
                for name in names(leads_to.as_bytes()).collect::<Vec<_>>().into_iter().rev() {
                    rest.push_front(name);
                }
            }
        }
        Err(Errno::ENOENT.into())
    }
}

/// The names that a path consists of; the last one is empty if it ends with a slash.
fn names(path: &[u8]) -> impl Iterator<Item = OsString> + '_ {
    path.split(|byte| *byte == b'/').map(|name| OsString::from_vec(name.to_vec()))
}

/// The folder that a path begins in.
fn start(path: &Path) -> nix::Result<OwnedFd> {
    open(if path.is_absolute() { "/" } else { "." }, LOOK | OFlag::O_DIRECTORY, Mode::empty())
}

/// What a file is: `S_IFREG` and the like.
#[must_use]
pub fn kind(file: &FileStat) -> SFlag {
    // Not flags, but numbers.
    SFlag::from_bits_truncate(file.st_mode & libc::S_IFMT)
}

/// Whether a link is one of procfs that stands for an open file, a folder or a program itself, and not for a path.
fn stands_for_a_file(folder: &OwnedFd, name: &OsStr, link: &OwnedFd) -> nix::Result<bool> {
    if fstatfs(link)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Ok(false);
    }
    let how = OpenHow::new().flags(LOOK).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(folder, name, how).err() == Some(Errno::ELOOP))
}

impl Target {
    /// The name that a path leads to without any symbolic link.
    ///
    /// # Errors
    ///
    /// As openat2(2), when there is a link on the way, and when the path ends with no name.
    pub fn without_links(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::EISDIR.into()) };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let how = OpenHow::new().flags(LOOK | OFlag::O_DIRECTORY).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        Ok(Self { folder: openat2(AT_FDCWD, folder, how)?, name: name.to_owned() })
    }

    /// What has that name, if anything has: `S_IFREG` and the like.
    ///
    /// # Errors
    ///
    /// As fstatat(2).
    pub fn kind(&self) -> io::Result<Option<SFlag>> {
        match fstatat(&self.folder, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => Ok(None),
            found => Ok(Some(kind(&found?))),
        }
    }

    /// Device and inode of the folder.
    ///
    /// # Errors
    ///
    /// As fstat(2).
    pub fn folder_identity(&self) -> io::Result<(u64, u64)> {
        let folder = fstat(&self.folder)?;
        Ok((folder.st_dev, folder.st_ino))
    }

    /// Whether the folder has been removed.
    ///
    /// # Errors
    ///
    /// As fstat(2).
    pub fn is_removed(&self) -> io::Result<bool> {
        Ok(fstat(&self.folder)?.st_nlink == 0)
    }

    /// Whether both are one name in one folder.
    ///
    /// # Errors
    ///
    /// As fstat(2).
    pub fn is_same(&self, other: &Self) -> io::Result<bool> {
        Ok(self.name == other.name && self.folder_identity()? == other.folder_identity()?)
    }

    /// Opens what has that name, which is no symbolic link, or makes a file of that name, by its mode for the owner alone.
    ///
    /// # Errors
    ///
    /// As open(2), and, where others than root and this process's user make names, when the file is another user's, who may read what is written there, or when
    /// it also has another name: then it may be one that is not theirs who gave it this one.
    pub fn open(&self, flags: OFlag) -> io::Result<OwnedFd> {
        self.open_or_make(flags, PRIVATE)
    }

    /// Writes to what has that name, or to a file that is made, by its mode for whom the caller's mask lets read what it makes. What is in a file
    /// goes.
    ///
    /// # Errors
    ///
    /// As [`Target::open`], and as write(2).
    pub fn overwrite(&self, content: &[u8]) -> io::Result<()> {
        let opened =
            self.open_or_make(OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOCTTY, Mode::from_bits_truncate(0o666))?;
        if kind(&fstat(&opened)?) == SFlag::S_IFREG {
            ftruncate(&opened, 0)?;
        }
        File::from(opened).write_all(content)
    }

    fn open_or_make(&self, flags: OFlag, mode: Mode) -> io::Result<OwnedFd> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(&self.folder, self.name.as_os_str(), flags, mode)?;
        let folder = fstat(&self.folder)?;
        let others_make_names = !is_ours(folder.st_uid) || folder.st_mode & 0o022 != 0;
        let file = fstat(&opened)?;
        let refused = |why| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        if others_make_names && kind(&file) == SFlag::S_IFREG {
            if file.st_nlink > 1 {
                return refused("it has other names, too, and somebody else may have given it this one");
            }
            if !is_ours(file.st_uid) {
                return refused("another user has made it, who could read what is written there");
            }
        }
        Ok(opened)
    }

    /// Makes sure that a file can be made here, by making one without a name.
    ///
    /// # Errors
    ///
    /// When it can't.
    pub fn probe(&self) -> io::Result<()> {
        if self.kind()? == Some(SFlag::S_IFDIR) {
            return Err(Errno::EISDIR.into());
        }
        self.draft().map(drop)
    }

    /// Makes a file of this content, or has it replace the one that is there: whole, or not at all.
    ///
    /// # Errors
    ///
    /// When it can't be made or written, and when a folder is there.
    pub fn put(&self, content: &[u8]) -> io::Result<()> {
        let mut draft = self.draft()?;
        draft.file.write_all(content)?;
        draft.finish()
    }

    /// Has a file of this content replace the one that is there, whole or not at all, with its owner, group and mode.
    ///
    /// # Errors
    ///
    /// When there is none, it can't be made or written, or its owner can't be kept.
    pub fn replace(&self, content: &[u8]) -> io::Result<()> {
        let before = fstatat(&self.folder, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if kind(&before) != SFlag::S_IFREG {
            return Err(io::Error::other("not a regular file"));
        }
        let mut draft = self.draft()?;
        draft.file.write_all(content)?;
        fchown(&draft.file, Some(Uid::from_raw(before.st_uid)), Some(Gid::from_raw(before.st_gid)))?;
        fchmod(&draft.file, Mode::from_bits_truncate(before.st_mode & 0o777))?;
        draft.finish()
    }

    /// A file that has no name, or none that anybody knows.
    fn draft(&self) -> io::Result<Draft<'_>> {
        let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        match openat(&self.folder, ".", flags, PRIVATE) {
            Ok(file) => Draft::new(self, file, None),
            // A file system without such files, or a kernel that takes it for opening the folder.
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT | Errno::EINVAL) => self.named_draft(),
            Err(error) => Err(error.into()),
        }
    }

    fn named_draft(&self) -> io::Result<Draft<'_>> {
        let _ = sweep(&self.folder);
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        loop {
            let name = draft_name();
            let file = match openat(&self.folder, name.as_str(), flags, PRIVATE) {
                Err(Errno::EEXIST) => continue,
                file => file?,
            };
            let draft = Draft::new(self, file, Some(name))?;
            // Before it was locked, another guard-run may have taken it for one that was left behind.
            if fstat(&draft.file)?.st_nlink > 0 {
                return Ok(draft);
            }
        }
    }
}

/// A file in the making. It goes away with this value.
struct Draft<'a> {
    target: &'a Target,
    file: File,
    /// By which it is told from those that were left behind. Not every file system has locks.
    _lock: Option<Flock<OwnedFd>>,
    /// The name that it has in the meantime.
    name: Option<String>,
}

impl<'a> Draft<'a> {
    fn new(target: &'a Target, file: OwnedFd, name: Option<String>) -> io::Result<Self> {
        let lock = lock(file.try_clone()?);
        Ok(Self { target, file: file.into(), _lock: lock, name })
    }

    /// Gives the file its name.
    fn finish(mut self) -> io::Result<()> {
        let Target { folder, name } = self.target;
        if self.name.is_none() {
            match self.link(name) {
                Err(Errno::EEXIST) => {}
                linked => return Ok(linked?),
            }
            // No call puts a file without a name into the place of another. If this process is killed before the next call,
            // the name stays behind.
            let _ = sweep(folder);
            let draft = draft_name();
            self.link(draft.as_ref())?;
            self.name = Some(draft);
        }
        if let Some(draft) = &self.name {
            renameat(folder, draft.as_str(), folder, name.as_os_str())?;
            self.name = None;
        }
        Ok(())
    }

    fn link(&self, name: &OsStr) -> nix::Result<()> {
        // By procfs, since by the descriptor alone only root may.
        let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(AT_FDCWD, file.as_str(), &self.target.folder, name, AtFlags::AT_SYMLINK_FOLLOW)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Otherwise it is swept up later.
            let _ = unlinkat(&self.target.folder, name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

fn draft_name() -> String {
    format!("{DRAFT}{:0DIGITS$x}", RandomState::new().build_hasher().finish())
}

fn lock(file: OwnedFd) -> Option<Flock<OwnedFd>> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()
}

/// Removes the files of this user's that guard-runs have left half written in a folder, since they were killed. Returns how
/// many there were.
///
/// # Errors
///
/// When the folder can't be read.
pub fn sweep(folder: impl AsFd) -> io::Result<usize> {
    let folder = folder.as_fd();
    let is_draft = |name: &OsStr| {
        let digits = name.as_bytes().strip_prefix(DRAFT.as_bytes());
        digits.is_some_and(|digits| digits.len() == DIGITS && digits.iter().all(u8::is_ascii_hexdigit))
    };
    let mut removed = 0;
    for entry in fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))? {
        let name = entry?.file_name();
        if is_draft(&name) {
            removed += usize::from(sweep_one(folder, &name).is_ok_and(|removed| removed));
        }
    }
    Ok(removed)
}

fn sweep_one(folder: BorrowedFd<'_>, name: &OsStr) -> nix::Result<bool> {
    let file = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if kind(&file) != SFlag::S_IFREG || file.st_uid != geteuid().as_raw() {
        return Ok(false);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    // Its guard-run has it locked as long as it lives.
    let Some(_lock) = lock(openat(folder, name, flags, Mode::empty())?) else { return Ok(false) };
    unlinkat(folder, name, UnlinkatFlags::NoRemoveDir)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{MetadataExt as _, symlink},
        path::PathBuf,
    };

    use super::*;

    fn target(path: &Path) -> Target {
        match Found::at(path) {
            Ok(Found::Name(target)) => target,
            other => panic!("{}: {other:?}", path.display()),
        }
    }

    fn entries(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_path_leads_where_the_kernel_says() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/file"), "").unwrap();
        for (leads_to, link) in [
            ("a/b", "to-folder"),
            ("../file", "a/b/to-file"),
            ("missing", "a/dangling"),
            ("to-folder/../dangling", "twice"),
            ("loop", "loop"),
            (at("a").to_str().unwrap(), "absolute"),
        ] {
            symlink(leads_to, at(link)).unwrap();
        }
        for path in [
            "a/file",
            "a//b/../file",
            "./a/./file",
            "to-folder/x",
            "to-folder/../file",
            "a/b/to-file",
            "absolute/x",
            "to-folder/to-file",
            "a/dangling",
            "twice",
            "absolute/dangling",
        ] {
            let found = target(&at(path));
            let file = File::from(found.open(OFlag::O_WRONLY | OFlag::O_CREAT).unwrap());
            let (expected, found) = (fs::metadata(at(path)).unwrap(), file.metadata().unwrap());
            assert_eq!((found.dev(), found.ino()), (expected.dev(), expected.ino()), "{path}");
        }
        for (path, error) in [
            ("", Errno::ENOENT),
            ("missing/x", Errno::ENOENT),
            ("missing/", Errno::ENOENT),
            ("a/", Errno::EISDIR),
            ("a/..", Errno::EISDIR),
            ("a/file/x", Errno::ENOTDIR),
            ("a/file/", Errno::ENOTDIR),
            ("loop", Errno::ELOOP),
        ] {
            let path = if path.is_empty() { PathBuf::new() } else { at(path) };
            let found = Found::at(&path).map(drop).unwrap_err();
            assert_eq!(found.raw_os_error(), Some(error as i32), "{}", path.display());
        }
    }

    #[test]
    fn what_somebody_has_open_is_found_without_a_name() {
        let (reader, _writer) = io::pipe().unwrap();
        let file = tempfile::tempfile().unwrap();
        for fd in [reader.as_raw_fd(), file.as_raw_fd()] {
            let path = format!("/proc/self/fd/{fd}");
            assert!(matches!(Found::at(path.as_ref()), Ok(Found::Open(_))), "{path}");
        }
        // By a folder that is open, names are found.
        let folder = tempfile::tempdir().unwrap();
        let open = File::open(folder.path()).unwrap();
        target(format!("/proc/self/fd/{}/file", open.as_raw_fd()).as_ref()).put(b"x").unwrap();
        assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"x");
    }

    #[test]
    fn a_file_is_made_and_replaced_where_its_folder_is_now() {
        let root = tempfile::tempdir().unwrap();
        let (folder, moved) = (root.path().join("folder"), root.path().join("moved"));
        fs::create_dir(&folder).unwrap();
        let target = target(&folder.join("file"));
        fs::rename(&folder, &moved).unwrap();
        symlink("/", &folder).unwrap();
        for content in [&b"one"[..], b"two"] {
            target.probe().unwrap();
            target.put(content).unwrap();
            assert_eq!(fs::read(moved.join("file")).unwrap(), content);
            assert_eq!(entries(&moved), ["file"]);
        }
    }

    #[test]
    fn where_files_must_have_names_they_go_away_or_are_swept_up() {
        let folder = tempfile::tempdir().unwrap();
        let target = target(&folder.path().join("file"));
        let mut draft = target.named_draft().unwrap();
        assert_eq!(entries(folder.path()).len(), 1);
        // Nobody takes it for one that was left behind, nor does another draft.
        assert_eq!(sweep(File::open(folder.path()).unwrap()).unwrap(), 0);
        drop(target.named_draft().unwrap());
        draft.file.write_all(b"one").unwrap();
        draft.finish().unwrap();
        assert_eq!(entries(folder.path()), ["file"]);
        assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"one");
        fs::write(folder.path().join(draft_name()), "").unwrap();
        symlink("file", folder.path().join(draft_name())).unwrap();
        target.named_draft().unwrap().finish().unwrap();
        assert_eq!(entries(folder.path()).len(), 2, "the link is nobody's draft");
    }
}
