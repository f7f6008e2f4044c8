//! Finding files where other users may change what is on the way.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

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
