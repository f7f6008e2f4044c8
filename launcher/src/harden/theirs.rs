//! Mounts below folders that others than root can change. By path, one could become another at any time: the folder's owner exchanges what is on
//! the way. So all of them are opened at once, found to be those that were looked at, and held while something is done to them.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::Path,
};

use enforce::{
    mounts::Mount,
    sys::confine::{is_mount_root, make_read_only},
};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, ResolveFlag},
    mount::{MsFlags, mount},
    sys::stat::Mode,
};
use serde::{Deserialize, Serialize};

use super::{
    place::Place,
    view::{EMPTY, memory},
    walk::{FUSE, by_descriptor, if_there, open_without_links},
};

/// One of them, and what is done to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Theirs {
    pub(super) point: Place,
    pub(super) id: u32,
    kind: String,
    root: Place,
    pub(super) treatment: Treatment,
}

/// What is done to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Treatment {
    /// It seems empty.
    Hidden,
    /// It is read-only, with all that is mounted below.
    ReadOnly,
    /// Of what it has, the first can only be read, and the second seem empty.
    Parts(Vec<String>, Vec<String>),
}

impl Theirs {
    pub(super) fn new(mount: &Mount, treatment: Treatment) -> Self {
        let Mount { id, point, kind, root, .. } = mount.clone();
        Self { point: point.into(), id, kind, root: root.into(), treatment }
    }

    /// Does to each what is to be done, in this process's mount namespace. Needs `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    ///
    /// When one is elsewhere by now (`ESTALE`, `ELOOP`, `ENOENT`), or the kernel can't mount.
    pub(super) fn treat(all: &[Self]) -> nix::Result<()> {
        let opened: Vec<OwnedFd> = all.iter().map(|it| open(AT_FDCWD, &it.point)).collect::<nix::Result<_>>()?;
        let mounts = Mount::all().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
        // No two are the same one, and each is one of a kind that was found as often: so none is missing, whatever has been exchanged.
        let mut found = BTreeSet::new();
        for (it, fd) in all.iter().zip(&opened) {
            let id = mount_id(fd).filter(|id| is_mount_root(fd) && found.insert(*id)).ok_or(Errno::ESTALE)?;
            // In a cgroup namespace of its own, the process sees other roots of cgroups. All of them are hidden.
            let is_root = |mount: &Mount| it.treatment == Treatment::Hidden || *mount.root == *it.root;
            let is_it = |mount: &&Mount| mount.id == id && mount.kind == it.kind && is_root(mount);
            mounts.iter().find(is_it).ok_or(Errno::ESTALE)?;
        }
        all.iter().zip(&opened).try_for_each(|(it, fd)| it.treatment.apply(fd))
    }
}

impl Treatment {
    fn apply(&self, fd: &OwnedFd) -> nix::Result<()> {
        match self {
            Self::Hidden => hide(fd),
            Self::ReadOnly => read_only(fd),
            Self::Parts(pinned, hidden) => {
                for name in pinned {
                    let Some(file) = if_there(open(fd, Path::new(name)))? else { continue };
                    let file = by_descriptor(&file);
                    mount(Some(&file), &file, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
                    // What is mounted there now.
                    read_only(&open(fd, Path::new(name))?)?;
                }
                for name in hidden {
                    if let Some(folder) = if_there(open(fd, Path::new(name)))? {
                        hide(&folder)?;
                    }
                }
                Ok(())
            }
        }
    }
}

fn open(folder: impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    open_without_links(folder, path, OFlag::O_PATH | OFlag::O_NOFOLLOW, ResolveFlag::empty())
}

fn hide(folder: &OwnedFd) -> nix::Result<()> {
    memory(&by_descriptor(folder), MsFlags::MS_RDONLY, EMPTY)
}

fn read_only(mount: &OwnedFd) -> nix::Result<()> {
    make_read_only(&CString::new(by_descriptor(mount).as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?)
}

/// The number of the mount that the working folder is in.
pub(super) fn mount_of_working_folder() -> Option<u32> {
    let folder = nix::fcntl::open("/proc/self/cwd", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    mount_id(&folder)
}

/// The number of the mount that a descriptor is of. The file system is not asked for anything.
fn mount_id(fd: &OwnedFd) -> Option<u32> {
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    about.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

/// Whether others than root can change what is on the way to a mount: by a folder of theirs, or one that they may write to. (In one such as /tmp they may
/// rename what is theirs, also the folder that is mounted on, in another mount namespace.) What is in a file system that one of them answers for is
/// not asked.
pub(super) fn is_theirs(mount: &Mount, mounts: &[Mount]) -> bool {
    in_fuse_of_theirs(mount, mounts)
        || mount.point.ancestors().skip(1).any(|folder| {
            fs::symlink_metadata(folder).map_or(true, |folder| folder.uid() != 0 || folder.mode() & 0o022 != 0)
        })
}

/// Whether a mount is in a FUSE file system of another user than root, which need not answer.
pub(super) fn in_fuse_of_theirs(mount: &Mount, mounts: &[Mount]) -> bool {
    mounts.iter().any(|other| {
        let is_theirs =
            other.options.split(',').any(|option| option.strip_prefix("user_id=").is_some_and(|user| user != "0"));
        other.kind.starts_with(FUSE) && is_theirs && other.point != mount.point && mount.is_in(&other.point)
    })
}
