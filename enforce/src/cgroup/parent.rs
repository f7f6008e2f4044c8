//! Where leaves are made and removed.

use std::{
    ffi::OsStr,
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, Flock, FlockArg, OFlag, openat},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        stat::{FchmodatFlags, Mode, fchmodat, fstat, fstatat, mkdirat},
        statfs::{CGROUP2_SUPER_MAGIC, fstatfs},
    },
    unistd::{ROOT, UnlinkatFlags, unlinkat},
};

use super::{CgroupError, Events, descendants, kill, on};
use crate::privilege::{Operation, Rights};

/// The controllers by whose files a cgroup can only have less. By those of the others it can also have more than its
/// siblings: processor time, protected memory, processors of its own.
const ONLY_LIMITS: [&str; 4] = ["hugetlb", "misc", "pids", "rdma"];

/// How folders are opened.
const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// A cgroup in which leaves are made and removed. For an ordinary user this is done with more than the user's rights, so
/// it is done by a descriptor of what is known to be a cgroup, not by a path that may come to mean something else.
#[derive(Debug)]
pub(super) struct Parent {
    path: PathBuf,
    folder: OwnedFd,
}

/// By these, processes are moved, killed and stopped, and cgroups changed.
const DECISIVE: [&str; 6] =
    ["cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze", "cgroup.type", "cgroup.subtree_control"];

/// The nearest cgroup, this one or around it, that is root's alone, as all are that it is in.
///
/// Anybody who may write to the files of a cgroup that two others are in can move processes from one to the other: so out of a leaf, wherever that is in a
/// cgroup of a user's (`cgroup_procs_write_permission`, kernel/cgroup/cgroup.c).
///
/// # Errors
///
/// When there is none, or it is not to be seen.
pub(super) fn of_root_alone(path: &Path, top: &Path) -> Result<PathBuf, CgroupError> {
    let is_roots = |path: &Path| match fs::symlink_metadata(path) {
        // The root of the hierarchy lacks some.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        file => file.map(|file| ROOT.as_raw() == file.uid() && file.mode() & 0o022 == 0).map_err(on(path)),
    };
    let mut found = Some(path);
    for cgroup in path.ancestors().take_while(|cgroup| cgroup.starts_with(top)) {
        let mut is_alone = is_roots(cgroup)?;
        for file in DECISIVE {
            is_alone &= is_roots(&cgroup.join(file))?;
        }
        if !is_alone {
            found = cgroup.parent().filter(|parent| parent.starts_with(top));
        }
    }
    let why = "belongs to an ordinary user, who could move the command out of a cgroup in there";
    found.map(Path::to_owned).ok_or_else(|| on(top)(io::Error::other(why)))
}

impl Parent {
    pub(super) fn open(path: &Path) -> Result<Self, CgroupError> {
        let open = || -> io::Result<OwnedFd> {
            let folder = nix::fcntl::open(path, FOLDER, Mode::empty())?;
            if fstatfs(&folder)?.filesystem_type() != CGROUP2_SUPER_MAGIC {
                return Err(io::Error::other("is no cgroup"));
            }
            Ok(folder)
        };
        Ok(Self { path: path.to_owned(), folder: open().map_err(on(path))? })
    }

    /// Makes sure that an ordinary user may have a leaf here: the user gets nothing by it but a smaller part of what the
    /// user's processes have now.
    pub(super) fn check_for_user(&self) -> Result<(), CgroupError> {
        let refused = |what: String| Err(on(&self.path)(io::Error::other(what)));
        let own = std::process::id().to_string();
        if !self.read("cgroup.procs")?.lines().any(|pid| pid == own) {
            return refused("is not this process's own cgroup, which is not to be seen".to_owned());
        }
        // By these, what is in a cgroup of its own gets a share of its own.
        let controllers = self.read("cgroup.subtree_control")?;
        let shares: Vec<&str> = controllers.split_whitespace().filter(|name| !ONLY_LIMITS.contains(name)).collect();
        if shares.is_empty() {
            return Ok(());
        }
        refused(format!(
            "hands the {} {} on to cgroups in it, of which a user is not to have more; start guard-run in a cgroup without, as in \
             a session of systemd's",
            shares.join(", "),
            if shares.len() == 1 { "controller" } else { "controllers" }
        ))
    }

    fn read(&self, name: &str) -> Result<String, CgroupError> {
        let read = || -> io::Result<String> {
            let file = openat(&self.folder, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
            io::read_to_string(fs::File::from(file))
        };
        read().map_err(on(&self.path.join(name)))
    }

    /// Makes a leaf that belongs to root, and locks it. `None` if its name is taken, or somebody has taken it for an abandoned one meanwhile.
    ///
    /// To whom the folder belongs, its files do (`cgroup_kn_set_ugid`, kernel/cgroup/cgroup.c), and cgroup v2 lets anybody who may write to
    /// these move any process in, make cgroups below, and so on. To hand it over later would be too late: somebody may have opened a file.
    pub(super) fn make(&self, name: &OsStr, rights: &mut Rights) -> Result<Option<Flock<OwnedFd>>, CgroupError> {
        // Who may read the folder can lock it, and keep it from being reaped. The command finds its limits there, by name.
        let mode = Mode::from_bits_truncate(0o711);
        let _raised = rights.raise(Operation::Make);
        match mkdirat(&self.folder, name, mode) {
            Err(Errno::EEXIST) => return Ok(None),
            result => result.map_err(self.on(name))?,
        }
        // The umask may have taken some of it.
        let locked = match fchmodat(&self.folder, name, mode, FchmodatFlags::FollowSymlink) {
            Err(Errno::ENOENT) => Ok(None),
            result => result.map_err(self.on(name)).and_then(|()| self.open_and_lock(name)),
        };
        if !matches!(locked, Ok(Some(_))) {
            // If it is still there, nobody else has it.
            let _ = unlinkat(&self.folder, name, UnlinkatFlags::RemoveDir);
        }
        locked
    }

    /// Opens and locks a leaf. `None` if somebody holds it, it is gone, or can't be opened.
    pub(super) fn lock(&self, name: &OsStr, rights: &mut Rights) -> Option<Flock<OwnedFd>> {
        let _raised = rights.raise(Operation::Leaf);
        self.open_and_lock(name).ok().flatten()
    }

    fn open_and_lock(&self, name: &OsStr) -> Result<Option<Flock<OwnedFd>>, CgroupError> {
        let folder = match openat(&self.folder, name, FOLDER | OFlag::O_NOFOLLOW, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(None),
            opened => opened.map_err(self.on(name))?,
        };
        let Ok(folder) = Flock::lock(folder, FlockArg::LockExclusiveNonblock) else { return Ok(None) };
        // It may have been removed, and even made anew, before it was locked.
        let there = match fstatat(&self.folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(None),
            there => there.map_err(self.on(name))?,
        };
        let (locked, parent) = (fstat(&*folder).map_err(self.on(name))?, fstat(&self.folder).map_err(self.on(name))?);
        // Programs are attached to it, and what is in it may be killed: what an ordinary user has made in its place is no leaf.
        let is_leaf = ROOT.as_raw() == locked.st_uid;
        Ok((is_leaf && (locked.st_dev, locked.st_ino) == (parent.st_dev, there.st_ino)).then_some(folder))
    }

    /// Removes a leaf and the cgroups below it, which must all be without processes.
    pub(super) fn remove(&self, name: &OsStr, rights: &mut Rights) -> Result<(), CgroupError> {
        // Only root's command can have made any, or root itself.
        for cgroup in descendants(&self.path.join(name)).iter().skip(1).rev() {
            fs::remove_dir(cgroup).map_err(on(cgroup))?;
        }
        self.remove_one(name, rights)
    }

    /// Removes a leaf without any below it.
    pub(super) fn remove_one(&self, name: &OsStr, rights: &mut Rights) -> Result<(), CgroupError> {
        let _raised = rights.raise(Operation::Leaf);
        match unlinkat(&self.folder, name, UnlinkatFlags::RemoveDir) {
            // Who may write to the cgroup that it is in can remove it, once it is empty.
            Err(Errno::ENOENT) => Ok(()),
            removed => removed.map_err(self.on(name)),
        }
    }

    /// Kills what is in a leaf, which is this folder, and removes it.
    pub(super) fn kill_and_remove(
        &self,
        name: &OsStr,
        folder: &OwnedFd,
        events: &Events,
        rights: &mut Rights,
    ) -> Result<(), CgroupError> {
        if events.is_populated()? {
            kill(folder, rights).map_err(self.on(name))?;
            // The kernel says so when the last one is gone. A process can't be killed while it is in the kernel, so there
            // is a limit to waiting; removing then fails with EBUSY.
            for _ in 0..50 {
                if !events.is_populated()? {
                    break;
                }
                let mut files = [PollFd::new(events.file.as_fd(), PollFlags::POLLPRI)];
                let _ = poll(&mut files, PollTimeout::from(100_u8));
            }
        }
        self.remove(name, rights)
    }

    /// Says on which leaf something failed.
    fn on(&self, name: &OsStr) -> impl FnOnce(Errno) -> CgroupError {
        let path = self.path.join(name);
        move |error| CgroupError::File { path, source: error.into() }
    }
}
