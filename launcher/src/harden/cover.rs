//! What is put in the place of sockets, in the command's own mount namespace: nothing.

use std::path::Path;

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, ResolveFlag},
    mount::{MsFlags, mount},
    sys::stat::{SFlag, fstat},
};
use serde::{Deserialize, Serialize};

use super::{
    place::Place,
    view::{EMPTY, NO_FILE, memory},
    walk::{by_descriptor, if_there, is, open_without_links},
};
use enforce::privilege::{Operation, Rights};

/// What is to be covered. Whether it is still what it is said to be is seen when it is covered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Cover {
    /// A Unix socket.
    Socket(Place),
    /// A folder, with all that is in it.
    Folder(Place),
    /// A folder in one where everybody can make something, if it belongs to this user.
    FolderOf(Place, u32),
}

impl Cover {
    /// Where.
    pub(super) fn path(&self) -> &Path {
        let (Self::Socket(path) | Self::Folder(path) | Self::FolderOf(path, _)) = self;
        path
    }

    /// Whether it is a folder.
    pub(super) fn is_folder(&self) -> bool {
        !matches!(self, Self::Socket(_))
    }

    /// For people. Folders have a slash at their end.
    pub(super) fn name(&self) -> String {
        format!("{}{}", self.path().display(), if self.is_folder() { "/" } else { "" })
    }

    /// Covers it, in this process's mount namespace. What is not there any more, or is something else by now, is left alone. It is
    /// opened with nothing in effect; mounting takes `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    ///
    /// When this process can't look, or the kernel can't mount.
    pub(super) fn apply(&self, rights: &mut Rights) -> nix::Result<()> {
        let path = self.path();
        let fd = match self {
            Self::Socket(_) => {
                open_without_links(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_NOFOLLOW, ResolveFlag::empty())
            }
            // Of a folder nothing is asked but that it is one: what is mounted there may never answer.
            Self::Folder(_) => open_folder(path, ResolveFlag::empty()),
            Self::FolderOf(..) => open_folder(path, ResolveFlag::RESOLVE_NO_XDEV),
        };
        let Some(fd) = if_there(fd)? else { return Ok(()) };
        let holds = match self {
            Self::Socket(_) => is(&fstat(&fd)?, SFlag::S_IFSOCK),
            Self::Folder(_) => true,
            Self::FolderOf(_, owner) => fstat(&fd)?.st_uid == *owner,
        };
        if !holds {
            return Ok(());
        }
        let target = by_descriptor(&fd);
        let _raised = rights.raise(Operation::View);
        let mounted = if self.is_folder() {
            memory(&target, MsFlags::MS_RDONLY, EMPTY)
        } else {
            mount(Some(NO_FILE), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        };
        match mounted {
            // It was removed in this moment, unless it is what to cover with that isn't there.
            Err(Errno::ENOENT) if Path::new(NO_FILE).exists() => Ok(()),
            mounted => mounted,
        }
    }
}

/// Opens a folder, and asks nothing of what is mounted there. `resolve` is about its last step alone.
fn open_folder(path: &Path, resolve: ResolveFlag) -> nix::Result<std::os::fd::OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::ENOENT) };
    open_without_links(open_without_links(AT_FDCWD, parent, flags, ResolveFlag::empty())?, name, flags, resolve)
}
