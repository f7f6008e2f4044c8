//! What can be relied on, since nobody but root, or root and this process's user, could have written it.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _};

use nix::unistd::geteuid;

/// Permission bits by which others than its owner could write to a file or folder.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Whether a file or folder is root's, and nobody else's to write to.
#[must_use]
pub fn is_roots_alone(metadata: &Metadata) -> bool {
    metadata.uid() == 0 && metadata.mode() & WRITABLE_BY_OTHERS == 0
}

/// Whether what root has in a folder stays there: nobody else can rename or remove it.
#[must_use]
pub fn keeps_roots(folder: &Metadata) -> bool {
    // In a sticky folder, others only rename and remove what is theirs.
    is_roots_alone(folder) || folder.uid() == 0 && folder.mode() & libc::S_ISVTX != 0
}

/// Whether what this user owns can't be turned against this process: root, or the user that this process is.
#[must_use]
pub fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// Whether a file or folder is root's or this process's user's, and nobody else's to write to. Rights by an access control list count
/// as the group's.
#[must_use]
pub fn is_ours_alone(metadata: &Metadata) -> bool {
    is_ours(metadata.uid()) && metadata.mode() & WRITABLE_BY_OTHERS == 0
}

/// Whether what root or this process's user has in a folder stays there: nobody else can rename or remove it.
#[must_use]
pub fn keeps_ours(folder: &Metadata) -> bool {
    // In a sticky folder, others only rename and remove what is theirs.
    is_ours_alone(folder) || is_ours(folder.uid()) && folder.mode() & libc::S_ISVTX != 0
}
