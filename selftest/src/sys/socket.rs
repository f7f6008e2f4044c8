//! Sockets with addresses of any bytes: what the typed interfaces don't let anybody spell.

use std::{
    ffi::c_long,
    io, mem,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    ptr,
};

use super::{made, result};

fn length(bytes: &[u8]) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes.len()).expect("a short buffer")
}

/// socket(2).
///
/// # Errors
///
/// As that.
pub fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    made(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) }.into())
}

/// socket(2) with arguments of 64 bits, of which the kernel ignores the upper half.
///
/// # Errors
///
/// As that.
pub fn socket_of_words(domain: u64, kind: u64, protocol: u64) -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    made(unsafe { libc::syscall(libc::SYS_socket, domain, kind, protocol) })
}

/// connect(2).
///
/// # Errors
///
/// As that.
pub fn connect(socket: &impl AsFd, address: &[u8]) -> io::Result<()> {
    // SAFETY: the address is as long as said.
    let returned = unsafe { libc::connect(socket.as_fd().as_raw_fd(), address.as_ptr().cast(), length(address)) };
    result(returned.into()).map(drop)
}

/// bind(2).
///
/// # Errors
///
/// As that.
pub fn bind(socket: &impl AsFd, address: &[u8]) -> io::Result<()> {
    // SAFETY: the address is as long as said.
    let returned = unsafe { libc::bind(socket.as_fd().as_raw_fd(), address.as_ptr().cast(), length(address)) };
    result(returned.into()).map(drop)
}

/// sendto(2); an empty address is none.
///
/// # Errors
///
/// As that.
pub fn send_to(socket: &impl AsFd, data: &[u8], flags: i32, address: &[u8]) -> io::Result<()> {
    let to = if address.is_empty() { ptr::null() } else { address.as_ptr() };
    let fd = socket.as_fd().as_raw_fd();
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: data and address are as long as said.
    let sent = unsafe { libc::sendto(fd, data.as_ptr().cast(), data.len(), flags, to.cast(), length(address)) };
    result(sent.try_into().expect("a length")).map(drop)
}

/// sendmsg(2) with control messages.
///
/// # Errors
///
/// As that.
pub fn send_message(socket: &impl AsFd, data: &[u8], address: &[u8], control: &[u8]) -> io::Result<()> {
    let mut vector = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let message = message(&mut vector, address, control);
    // SAFETY: all that the message points to lives until the call returns, which only reads it.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    result(sent.try_into().expect("a length")).map(drop)
}

/// sendmmsg(2) of one message.
///
/// # Errors
///
/// As that.
pub fn send_messages(socket: &impl AsFd, data: &[u8], address: &[u8]) -> io::Result<()> {
    let mut vector = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let mut messages = libc::mmsghdr { msg_hdr: message(&mut vector, address, &[]), msg_len: 0 };
    // SAFETY: as in `send_message`; one message.
    result(unsafe { libc::sendmmsg(socket.as_fd().as_raw_fd(), &raw mut messages, 1, 0) }.into()).map(drop)
}

pub(super) fn message(vector: &mut libc::iovec, address: &[u8], control: &[u8]) -> libc::msghdr {
    // SAFETY: a structure of numbers and pointers, of which zero means "none".
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    if !address.is_empty() {
        message.msg_name = address.as_ptr().cast_mut().cast();
        message.msg_namelen = length(address);
    }
    (message.msg_iov, message.msg_iovlen) = (vector, 1);
    if !control.is_empty() {
        message.msg_control = control.as_ptr().cast_mut().cast();
        message.msg_controllen = control.len();
    }
    message
}

/// A control message (cmsg(3)).
#[must_use]
pub fn control(level: i32, kind: i32, value: &[u8]) -> Vec<u8> {
    const HEADER: usize = size_of::<usize>() + 8;
    let mut bytes =
        [&(HEADER + value.len()).to_ne_bytes()[..], &level.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(size_of::<usize>()), 0);
    bytes
}

/// The descriptors that the next message brings (`SCM_RIGHTS`), with its bytes thrown away.
///
/// # Errors
///
/// As recvmsg(2).
pub fn receive_descriptors(socket: &impl AsFd) -> io::Result<Vec<OwnedFd>> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    use std::os::fd::FromRawFd as _;
    let mut bytes = [0_u8; 16];
    let mut vectors = [io::IoSliceMut::new(&mut bytes)];
    let mut room = vec![0_u8; 256];
    let fd = socket.as_fd().as_raw_fd();
    let message = recvmsg::<()>(fd, &mut vectors, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut found = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel has just made the descriptors, for us alone.
            found.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    Ok(found)
}

/// recv(2).
///
/// # Errors
///
/// As that.
pub fn receive<'a>(socket: &impl AsFd, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the buffer is as long as said.
    let got = result(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) } as c_long)?;
    Ok(&buffer[..usize::try_from(got).expect("a length")])
}

/// setsockopt(2).
///
/// # Errors
///
/// As that.
pub fn set_option(socket: &impl AsFd, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the value is as long as said.
    let set = unsafe { libc::setsockopt(fd, level, option, value.as_ptr().cast(), length(value)) };
    result(set.into()).map(drop)
}

/// The port that a socket is bound to (of an `AF_INET` or `AF_INET6` one).
///
/// # Errors
///
/// As getsockname(2).
pub fn local_port(socket: &impl AsFd) -> io::Result<u16> {
    let mut address = [0_u8; 28];
    let mut size = length(&address);
    // SAFETY: the buffer is as long as said.
    let got = unsafe { libc::getsockname(socket.as_fd().as_raw_fd(), address.as_mut_ptr().cast(), &raw mut size) };
    result(got.into())?;
    Ok(u16::from_be_bytes([address[2], address[3]]))
}

/// Connects again and again while another thread swaps the port in the address for another one, and returns the first
/// socket that was connected. `address` is a `struct sockaddr_in`.
pub fn race(ports: [u16; 2], runs: u32, address: &[u8], mut make: impl FnMut() -> Option<OwnedFd>) -> Option<OwnedFd> {
    use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
    let halves: Vec<AtomicU16> =
        address.chunks_exact(2).map(|half| AtomicU16::new(u16::from_ne_bytes([half[0], half[1]]))).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for port in ports {
                    halves[1].store(port.to_be(), Ordering::Relaxed);
                }
            }
        });
        let found = (0..runs).find_map(|_| {
            let socket = make()?;
            let fd = socket.as_raw_fd();
            // SAFETY: as many bytes as said, which other threads change only atomically.
            let connected = unsafe { libc::connect(fd, halves.as_ptr().cast(), length(address)) };
            (connected == 0).then_some(socket)
        });
        over.store(true, Ordering::Relaxed);
        found
    })
}
