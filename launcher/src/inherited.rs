//! Sockets that the command is handed at its start. The policy of a socket is that of the cgroup in which it was made,
//! so these are outside the guard; the log names them.

use std::{fs, os::fd::RawFd};

use nix::sys::{
    socket::{AddressFamily, SockaddrLike as _, SockaddrStorage, getpeername, getsockname},
    stat::{SFlag, fstat},
};
use serde::Serialize;

use crate::sys::process::duplicate_inherited;

/// A socket that the command inherits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InheritedSocket {
    /// Its descriptor.
    pub fd: RawFd,
    /// What it is, as /proc names it: `socket:[12345]`.
    pub socket: String,
    /// `inet`, `inet6`, `unix` or another family.
    pub family: Option<String>,
    /// The address that it is bound to.
    pub local: Option<String>,
    /// The address that it is connected to.
    pub peer: Option<String>,
}

/// The sockets among this process's descriptors that a command executed by it would have.
#[must_use]
pub fn inherited_sockets() -> Vec<InheritedSocket> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| describe(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn describe(fd: RawFd) -> Option<InheritedSocket> {
    let copy = duplicate_inherited(fd)?;
    let file = fstat(&copy).ok().filter(|file| SFlag::from_bits_truncate(file.st_mode).contains(SFlag::S_IFSOCK))?;
    let raw = std::os::fd::AsRawFd::as_raw_fd(&copy);
    let local: Option<SockaddrStorage> = getsockname(raw).ok();
    let peer: Option<SockaddrStorage> = getpeername(raw).ok();
    let family = local.as_ref().and_then(SockaddrStorage::family).map(|family| match family {
        AddressFamily::Inet => "inet".to_owned(),
        AddressFamily::Inet6 => "inet6".to_owned(),
        AddressFamily::Unix => "unix".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    });
    let text = |address: SockaddrStorage| address.to_string();
    Some(InheritedSocket {
        fd,
        socket: format!("socket:[{}]", file.st_ino),
        family,
        local: local.map(text),
        peer: peer.map(text),
    })
}
