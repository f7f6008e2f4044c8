//! Sockets and devices that the command is handed at its start. The policy of a socket is that of the cgroup in which it was
//! made, and the device hook is asked when one is opened, so these are outside the guard; the log names them.

use std::{
    fs,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
};

use enforce::sys::process::duplicate_inherited;
use nix::sys::{
    socket::{AddressFamily, SockaddrLike as _, SockaddrStorage, getpeername, getsockname},
    stat::{SFlag, fstat, major, minor},
};
use report::{Inherited, Object, Word};

/// The sockets and devices among this process's descriptors that a command executed by it would have, if it were handed all.
#[must_use]
pub fn inherited() -> Vec<Inherited> {
    let entries = fs::read_dir(DESCRIPTORS).into_iter().flatten().filter_map(Result::ok);
    let mut found: Vec<Inherited> =
        entries.filter_map(|entry| describe(entry.file_name().to_str()?.parse().ok()?)).collect();
    found.sort_unstable_by_key(|inherited| inherited.fd);
    found
}

const DESCRIPTORS: &str = "/proc/self/fd";

fn describe(fd: RawFd) -> Option<Inherited> {
    let copy = duplicate_inherited(fd)?;
    let file = fstat(&copy).ok()?;
    let device = |kind| Object::Device {
        device: fs::read_link(format!("{DESCRIPTORS}/{fd}")).ok(),
        kind: Word::Borrowed(kind),
        major: major(file.st_rdev),
        minor: minor(file.st_rdev),
    };
    // Not flags, but numbers.
    let object = match SFlag::from_bits_truncate(file.st_mode & libc::S_IFMT) {
        SFlag::S_IFSOCK => describe_socket(&copy, file.st_ino),
        SFlag::S_IFCHR => device("c"),
        SFlag::S_IFBLK => device("b"),
        _ => return None,
    };
    Some(Inherited { fd, object })
}

fn describe_socket(socket: &OwnedFd, inode: u64) -> Object {
    let local: Option<SockaddrStorage> = getsockname(socket.as_raw_fd()).ok();
    let peer: Option<SockaddrStorage> = getpeername(socket.as_raw_fd()).ok();
    let family = local.as_ref().and_then(SockaddrStorage::family).map(|family| match family {
        AddressFamily::Inet => "inet".to_owned(),
        AddressFamily::Inet6 => "inet6".to_owned(),
        AddressFamily::Unix => "unix".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    });
    let text = |address: SockaddrStorage| address.to_string();
    Object::Socket { socket: format!("socket:[{inode}]"), family, local: local.map(text), peer: peer.map(text) }
}
