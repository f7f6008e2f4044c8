//! The cgroup v2 leaf of a run: where to make it, making it, and reaping those whose launcher is gone.

mod parent;

use std::{
    error::Error as _,
    ffi::OsString,
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStringExt as _,
            fs::{FileExt as _, MetadataExt as _},
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, OFlag, openat},
    sys::{
        stat::Mode,
        statfs::{CGROUP2_SUPER_MAGIC, statfs},
    },
    unistd::{ROOT, geteuid, write},
};

use self::parent::Parent;
use crate::{
    mounts::{MOUNTINFO, Mount},
    outlet::tell,
    privilege::{self, Operation, Rights},
    sys::process::{Side, fork_into},
};

/// The type of the hierarchy's file system.
pub const CGROUP2: &str = "cgroup2";

/// What the names of all leaves begin with.
const PREFIX: &str = "guard-run.";

/// How often another name is tried because somebody took the new leaf for an abandoned one.
const ATTEMPTS: u32 = 16;

/// What can go wrong with cgroups.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// There is no cgroup v2 hierarchy.
    #[error("no cgroup2 file system is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup")]
    NoCgroup2,
    /// A container is shown version 1 alone. What it could mount wouldn't have its own cgroup in it.
    #[error(
        "no cgroup2 file system is mounted (this is a container, and its host has cgroups of version 1: guard the container itself, by \
         guard-hook, or start it so that guard-run can work in it: podman run --cap-add=BPF,NET_ADMIN,PERFMON,SYS_ADMIN \
         --volume=/sys/fs/cgroup/unified:/sys/fs/cgroup/unified, where the host has cgroup2 mounted there; see docs/recipes/podman.md)"
    )]
    OnlyVersion1,
    /// Something failed on a file or folder.
    #[error("{}{}", path.display(), hint(.source))]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (run guard-run as root)",
        io::ErrorKind::ReadOnlyFilesystem if is_in_container() => {
            " (this is a container, in which its engine lets nobody make cgroups: guard the container itself, by guard-hook, or \
             start it so that guard-run can work in it: podman run --cap-add=BPF,NET_ADMIN,PERFMON,SYS_ADMIN \
             --security-opt=unmask=/sys/fs/cgroup; Docker: the same capabilities, and --volume=/sys/fs/cgroup:/sys/fs/cgroup)"
        }
        io::ErrorKind::ReadOnlyFilesystem => " (the cgroup file system must be writable)",
        _ => "",
    }
}

/// What podman and Docker leave in each container, to be told by. Anybody who puts such a file elsewhere gets other advice, nothing else.
const CONTAINER_MARKS: [&str; 2] = ["/run/.containerenv", "/.dockerenv"];

fn is_in_container() -> bool {
    CONTAINER_MARKS.iter().any(|mark| Path::new(mark).exists())
}

/// Says on which file or folder something failed.
fn on(path: &Path) -> impl FnOnce(io::Error) -> CgroupError + '_ {
    move |source| CgroupError::File { path: path.to_owned(), source }
}

/// The cgroup v2 hierarchy, as this process sees it.
#[derive(Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// This process's own cgroup below the mount point; the mount point itself where it isn't shown there.
    pub own: PathBuf,
}

impl Hierarchy {
    /// Finds the hierarchy, on pure and hybrid layouts.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn find() -> Result<Self, CgroupError> {
        Self::find_among(&mounts()?)
    }

    /// Finds the hierarchy, once with the cgroup of another process as its `own`, and once with that of this process.
    ///
    /// # Errors
    ///
    /// When there is no hierarchy, or no such process.
    pub fn of_process(pid: u32) -> Result<(Self, Self), CgroupError> {
        // Where containers run there are many mounts, and the kernel takes its time to write them down.
        let mounts = mounts()?;
        Ok((Self::of(&pid.to_string(), &mounts)?, Self::of("self", &mounts)?))
    }

    /// Finds the hierarchy among the mounts of this process's namespace.
    ///
    /// # Errors
    ///
    /// When it isn't there.
    pub fn find_among(mounts: &[Mount]) -> Result<Self, CgroupError> {
        Self::of("self", mounts)
    }

    fn of(process: &str, mounts: &[Mount]) -> Result<Self, CgroupError> {
        let file = format!("/proc/{process}/cgroup");
        let cgroups = fs::read(&file).map_err(on(Path::new(&file)))?;
        // A mount may be covered by another one; what is seen at its mount point then is something else.
        let is_seen = |mount: &Path| statfs(mount).is_ok_and(|seen| seen.filesystem_type() == CGROUP2_SUPER_MAGIC);
        Self::among(mounts, &cgroups, is_seen).ok_or_else(|| {
            let has_version_1 = mounts.iter().any(|mount| mount.kind == "cgroup");
            if has_version_1 && is_in_container() { CgroupError::OnlyVersion1 } else { CgroupError::NoCgroup2 }
        })
    }

    /// The one among these mounts. `cgroups` is a cgroup file (cgroups(7)).
    fn among(mounts: &[Mount], cgroups: &[u8], is_seen: impl Fn(&Path) -> bool) -> Option<Self> {
        let own = cgroups.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
        let own = PathBuf::from(OsString::from_vec(own.to_vec()));
        let mut found = None;
        for Mount { root, point, kind, .. } in mounts {
            if kind != CGROUP2 || !is_seen(point) {
                continue;
            }
            // The hierarchy may be mounted more than once, of some mounts only a part: the best one shows our cgroup.
            match own.strip_prefix(root) {
                Ok(below) => return Some(Self { own: point.join(below), mount: point.clone() }),
                Err(_) => found = found.or(Some(point)),
            }
        }
        found.map(|mount| Self { own: mount.clone(), mount: mount.clone() })
    }
}

fn mounts() -> Result<Vec<Mount>, CgroupError> {
    Mount::all().map_err(on(Path::new(MOUNTINFO)))
}

/// A cgroup of our own, which lives as long as this value: it is killed and removed with it.
///
/// While its launcher is alive, the folder is locked with flock(2). The lock goes away with the launcher, however it
/// ends, and is seen across pid namespaces: that is how abandoned leaves are told from those in use.
///
/// The leaf keeps the launcher's rights, since it is what needs them last; what needs some before borrows them ([`Leaf::rights`]).
#[derive(Debug)]
pub struct Leaf {
    pub(crate) cgroup: Locked,
    pub(crate) rights: Rights,
}

/// A cgroup that was made, and is locked.
#[derive(Debug)]
pub(crate) struct Locked {
    pub(crate) path: PathBuf,
    name: OsString,
    parent: Parent,
    pub(crate) folder: Flock<OwnedFd>,
    events: Events,
}

/// The file that says whether there are processes in a cgroup. poll(2) reports `POLLPRI` on it from a change until it
/// is next read, by this very descriptor (`kernfs_generic_poll`).
#[derive(Debug)]
struct Events {
    path: PathBuf,
    file: fs::File,
}

impl Events {
    fn open(cgroup: &Path) -> Result<Self, CgroupError> {
        let path = cgroup.join("cgroup.events");
        let file = fs::File::open(&path).map_err(on(&path))?;
        Ok(Self { path, file })
    }

    fn is_populated(&self) -> Result<bool, CgroupError> {
        let mut text = [0; 256];
        let length = match self.file.read_at(&mut text, 0) {
            // It is gone, which none is with processes in it.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(false),
            length => length.map_err(on(&self.path))?,
        };
        Ok(!text[..length].split(|byte| *byte == b'\n').any(|line| line == b"populated 0"))
    }
}

impl Leaf {
    /// Forks. The child is in the leaf from its first instruction. What that takes is in effect for the birth alone, on both
    /// sides. No program guards it yet: so the child does nothing but what this program says.
    ///
    /// # Errors
    ///
    /// As [`fork_into`].
    pub fn fork(&mut self) -> io::Result<Side> {
        let _raised = self.rights.raise(Operation::Leaf);
        fork_into(&self.cgroup.folder)
    }

    /// Makes a fresh leaf below this process's own cgroup. Before that, it removes empty leaves that dead launchers left there.
    ///
    /// An ordinary user's is there in any case: what limits and guards the user limits and guards what runs in it. Root's is in the nearest
    /// cgroup around it that is root's alone, or else below the root of the hierarchy.
    ///
    /// # Errors
    ///
    /// When neither is possible.
    pub fn create(hierarchy: &Hierarchy, mut rights: Rights) -> Result<Self, CgroupError> {
        let own = &hierarchy.own;
        let place = if privilege::is_root() { parent::of_root_alone(own, &hierarchy.mount)? } else { own.clone() };
        reap_empty(&place, &mut rights);
        let cgroup = Locked::make_in(&place, &mut rights).or_else(|error| {
            // Where descriptors are short, they are so elsewhere, too.
            let is_here = !matches!(&error, CgroupError::File { source, .. }
                if matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)));
            if place == hierarchy.mount || !privilege::is_root() || !is_here {
                return Err(error);
            }
            let made = Locked::make_in(&hierarchy.mount, &mut rights)?;
            let source = error.source().map_or_else(String::new, |source| format!(": {source}"));
            made.tell_where(&format!("in which there can be none for it: {error}{source}"));
            Ok(made)
        })?;
        // Who starts root's shell in a graphical session is in such a one.
        if place != *own && cgroup.path.parent() == Some(place.as_path()) {
            cgroup.tell_where("which belongs to an ordinary user, who could move it out of a cgroup in there");
        }
        Ok(Self { cgroup, rights })
    }

    /// The leaf's folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.cgroup.path
    }

    /// The leaf's folder as a descriptor, for attaching programs and being born there.
    #[must_use]
    pub fn folder(&self) -> &OwnedFd {
        &self.cgroup.folder
    }

    /// The launcher's rights.
    pub fn rights(&mut self) -> &mut Rights {
        &mut self.rights
    }

    /// A file on which poll(2) reports `POLLPRI` when [`Leaf::is_populated`] may have changed since it was last asked.
    #[must_use]
    pub fn events(&self) -> &fs::File {
        &self.cgroup.events.file
    }

    /// Whether there is a process in the leaf, or in a cgroup below it.
    ///
    /// # Errors
    ///
    /// When the kernel doesn't say.
    pub fn is_populated(&self) -> Result<bool, CgroupError> {
        self.cgroup.events.is_populated()
    }

    /// The processes in the leaf and below.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        processes(self.path())
    }

    /// Kills every process in the leaf and below, at once and for good.
    ///
    /// # Errors
    ///
    /// When the kernel can't (before 5.14).
    pub fn kill(&mut self) -> Result<(), CgroupError> {
        let Self { cgroup: Locked { path, folder, .. }, rights } = self;
        kill(folder, rights).map_err(|error| on(path)(error.into()))
    }

    /// Removes the leaf, which must be empty.
    ///
    /// # Errors
    ///
    /// When it isn't.
    pub fn remove(mut self) -> Result<(), CgroupError> {
        self.cgroup.parent.remove(&self.cgroup.name, &mut self.rights)
    }
}

impl Locked {
    fn make_in(path: &Path, rights: &mut Rights) -> Result<Self, CgroupError> {
        let parent = Parent::open(path)?;
        if !privilege::is_root() {
            parent.check_for_user()?;
        }
        for attempt in 0..ATTEMPTS {
            let name = OsString::from(format!("{PREFIX}{}.{attempt}.{}", std::process::id(), geteuid()));
            if let Some(folder) = parent.make(&name, rights)? {
                let path = path.join(&name);
                // What was made goes away again, where nothing can be done with it.
                let mut remove = |_: &CgroupError| drop(parent.remove_one(&name, rights));
                check_type(&path).inspect_err(&mut remove)?;
                let events = Events::open(&path).inspect_err(&mut remove)?;
                return Ok(Self { path, name, parent, folder, events });
            }
        }
        Err(on(path)(io::Error::other("can't make a cgroup here: every name is taken")))
    }

    /// Says that it isn't in guard-run's own cgroup. What limits guard-run doesn't limit the command then.
    fn tell_where(&self, why: &str) {
        let path = self.path.display();
        tell(&format!("the command runs in {path}, without the limits of guard-run's own cgroup, {why}"));
    }
}

/// Makes sure that processes can be born in a cgroup. Who has another one beside it can keep them out, by making that one threaded.
fn check_type(cgroup: &Path) -> Result<(), CgroupError> {
    let file = cgroup.join("cgroup.type");
    let kind = fs::read_to_string(&file).map_err(on(&file))?;
    if kind.trim() == "domain invalid" {
        let why = "no process can be in a new cgroup here, since another one beside it is threaded (cgroup.type)";
        return Err(on(cgroup)(io::Error::other(why)));
    }
    Ok(())
}

impl Drop for Leaf {
    fn drop(&mut self) {
        // Only where something failed on the way is it still there. Nobody is left to tell about a second failure, and
        // the next run reaps what stays behind.
        let Self { cgroup: Locked { path, name, parent, folder, events }, rights } = self;
        if path.exists() {
            let _ = parent.kill_and_remove(name, folder, events, rights);
        }
    }
}

/// The processes in a cgroup and below; 0 for those that are outside this process's pid namespace.
#[must_use]
pub fn processes(cgroup: &Path) -> Vec<u32> {
    descendants(cgroup)
        .iter()
        .filter_map(|cgroup| fs::read_to_string(cgroup.join("cgroup.procs")).ok())
        .flat_map(|pids| pids.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// Whether there is a process in a cgroup or below.
///
/// # Errors
///
/// When the kernel doesn't say.
pub fn is_populated(cgroup: &Path) -> Result<bool, CgroupError> {
    Events::open(cgroup)?.is_populated()
}

/// Reaps every leaf in the hierarchy whose launcher is gone: what still runs in it is killed. For an ordinary user, only
/// the user's own. Returns those that were removed, and those that could not be.
#[must_use]
pub fn reap(hierarchy: &Hierarchy, rights: &mut Rights) -> (Vec<PathBuf>, Vec<CgroupError>) {
    let (mut removed, mut failed) = (Vec::new(), Vec::new());
    for path in descendants(&hierarchy.mount).into_iter().filter(|path| is_leaf(path)) {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
        // What is gone in the meantime needs no reaping.
        let Ok(parent) = Parent::open(parent) else { continue };
        if let Some(folder) = parent.lock(name, rights) {
            match Events::open(&path).and_then(|events| parent.kill_and_remove(name, &folder, &events, rights)) {
                Ok(()) => removed.push(path),
                Err(error) => failed.push(error),
            }
        }
    }
    (removed, failed)
}

/// Removes abandoned leaves without processes in one folder. Errors don't matter: a leaf that can't be removed is no
/// obstacle to making another.
fn reap_empty(path: &Path, rights: &mut Rights) {
    let (Ok(entries), Ok(parent)) = (fs::read_dir(path), Parent::open(path)) else { return };
    for entry in entries.filter_map(Result::ok).filter(|entry| is_leaf(&entry.path())) {
        let name = entry.file_name();
        if let Some(_lock) = parent.lock(&name, rights) {
            let _ = parent.remove_one(&name, rights);
        }
    }
}

/// Whether this is a leaf that this process may reap: it is root's, and has a name of three numbers, so that a service's cgroup is
/// none (guard-run.service). For an ordinary user, the last one must be the user's.
fn is_leaf(path: &Path) -> bool {
    let numbers = path.file_name().and_then(|name| name.to_str()?.strip_prefix(PREFIX)).unwrap_or_default().split('.');
    let Ok(numbers) = numbers.map(str::parse).collect::<Result<Vec<u32>, _>>() else { return false };
    let [_, _, user] = numbers[..] else { return false };
    let is_mine = privilege::is_root() || user == geteuid().as_raw();
    is_mine && path.symlink_metadata().is_ok_and(|leaf| ROOT.as_raw() == leaf.uid())
}

/// Kills what is in a cgroup and below, at once.
fn kill(folder: &OwnedFd, rights: &mut Rights) -> nix::Result<()> {
    let _raised = rights.raise(Operation::Leaf);
    let file = openat(folder, "cgroup.kill", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    write(&file, b"1").map(drop)
}

/// A cgroup and all below it, each after the one that it is in. What vanishes in the meantime is left out.
fn descendants(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    let mut next = 0;
    while let Some(cgroup) = found.get(next) {
        let entries = fs::read_dir(cgroup).into_iter().flatten().filter_map(Result::ok);
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let folders: Vec<PathBuf> = folders.map(|entry| entry.path()).collect();
        found.extend(folders);
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CGROUPS: &[u8] = b"9:name=systemd:/x\n4:memory:/a:b\n0::/user.slice/me\n";

    fn hierarchy(mount: &str, own: &str) -> Hierarchy {
        Hierarchy { mount: mount.into(), own: own.into() }
    }

    #[test]
    fn the_hierarchy_is_found_on_every_layout() {
        let table: [(&[u8], Option<Hierarchy>); 6] = [
            (
                b"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
                Some(hierarchy("/sys/fs/cgroup", "/sys/fs/cgroup/user.slice/me")),
            ),
            (
                b"31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                  32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
                Some(hierarchy("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/user.slice/me")),
            ),
            (
                b"32 30 0:28 /other /elsewhere rw - cgroup2 cgroup2 rw\n\
                  33 30 0:28 /user.slice /part rw shared:1 master:2 - cgroup2 cgroup2 rw\n",
                Some(hierarchy("/part", "/part/me")),
            ),
            (b"32 30 0:28 /other /elsewhere rw - cgroup2 cgroup2 rw\n", Some(hierarchy("/elsewhere", "/elsewhere"))),
            (
                b"32 30 0:28 / /a\\040b\\134c rw - cgroup2 none rw\n",
                Some(hierarchy("/a b\\c", "/a b\\c/user.slice/me")),
            ),
            (b"24 1 8:1 / / rw - ext4 /dev/cgroup2 rw\ngarbage\n\n", None),
        ];
        for (mounts, expected) in table {
            let found = Hierarchy::among(&Mount::parse(mounts), CGROUPS, |_| true);
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(mounts));
        }
        let mount = b"30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(Hierarchy::among(&Mount::parse(mount), b"1:cpu:/\n", |_| true), None);
    }

    #[test]
    fn a_mount_that_is_covered_is_not_taken() {
        let mounts = b"32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                       33 30 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let found = Hierarchy::among(&Mount::parse(mounts), CGROUPS, |mount| mount == "/sys/fs/cgroup");
        assert_eq!(found, Some(hierarchy("/sys/fs/cgroup", "/sys/fs/cgroup/user.slice/me")));
    }
}
