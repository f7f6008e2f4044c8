//! Where leaves are made and removed.

use std::{
    ffi::OsStr,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
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
    unistd::{UnlinkatFlags, geteuid, unlinkat},
};

use super::{CgroupError, Events, descendants, kill, on};
use crate::privilege::{self, Operation, Rights};

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
        // The leaf's files are its user's, so these would be the user's to set.
        let controllers = self.read("cgroup.subtree_control")?;
        let shares: Vec<&str> = controllers.split_whitespace().filter(|name| !ONLY_LIMITS.contains(name)).collect();
        if shares.is_empty() {
            return Ok(());
        }
        refused(format!(
            "hands the {} {} on to cgroups in it, which a user is not to set; start guard-run in a cgroup without, as in a \
             session of systemd's",
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

    /// Makes a leaf, unless its name is taken; whether it did, and it is there.
    pub(super) fn make(&self, name: &OsStr, rights: &mut Rights) -> Result<bool, CgroupError> {
        // Who may read the folder can lock it, and keep it from being reaped. An ordinary user's leaf is nobody else's business at all;
        // root's command may be another user, who finds its limits there.
        let mode = Mode::from_bits_truncate(if privilege::is_root() { 0o711 } else { 0o700 });
        let result = {
            let _raised = rights.raise(Operation::Leaf);
            mkdirat(&self.folder, name, mode)
        };
        match result {
            Err(Errno::EEXIST) => return Ok(false),
            result => result.map_err(self.on(name))?,
        }
        // The umask may have taken the user's own rights to it.
        match fchmodat(&self.folder, name, mode, FchmodatFlags::FollowSymlink) {
            // Somebody has taken it for an abandoned one.
            Err(Errno::ENOENT) => Ok(false),
            result => result.map(|()| true).map_err(self.on(name)),
        }
    }

    /// Opens and locks a leaf. `None` if somebody holds it, or it is gone.
    pub(super) fn lock(&self, name: &OsStr) -> Option<Flock<OwnedFd>> {
        self.try_lock(name).ok().flatten()
    }

    /// Like [`Parent::lock`], but fails where this process can't open the leaf, for want of descriptors for example.
    pub(super) fn try_lock(&self, name: &OsStr) -> Result<Option<Flock<OwnedFd>>, CgroupError> {
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
        // Programs are attached to it: for an ordinary user, to nothing but a cgroup of that user's.
        let is_ours = privilege::is_root() || locked.st_uid == geteuid().as_raw();
        Ok((is_ours && (locked.st_dev, locked.st_ino) == (parent.st_dev, there.st_ino)).then_some(folder))
    }

    /// Removes a leaf and the cgroups below it, which must all be without processes.
    pub(super) fn remove(&self, name: &OsStr, rights: &mut Rights) -> Result<(), CgroupError> {
        // What is below belongs to whom the leaf belongs to.
        for cgroup in descendants(&self.path.join(name)).iter().skip(1).rev() {
            fs::remove_dir(cgroup).map_err(on(cgroup))?;
        }
        self.remove_one(name, rights)
    }

    /// Removes a leaf without any below it.
    pub(super) fn remove_one(&self, name: &OsStr, rights: &mut Rights) -> Result<(), CgroupError> {
        let _raised = rights.raise(Operation::Leaf);
        unlinkat(&self.folder, name, UnlinkatFlags::RemoveDir).map_err(self.on(name))
    }

    /// Kills what is in a leaf, and removes it.
    pub(super) fn kill_and_remove(
        &self,
        name: &OsStr,
        events: &Events,
        rights: &mut Rights,
    ) -> Result<(), CgroupError> {
        if events.is_populated()? {
            kill(&self.path.join(name))?;
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
