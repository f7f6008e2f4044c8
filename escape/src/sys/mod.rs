//! System calls with arguments that no safe interface takes: descriptors that may be closed, addresses, options and control
//! messages as bytes. Each function gives what the call returned, or the error's number.
#![allow(unsafe_code)]

mod process;

use std::{
    ffi::CString,
    os::fd::{FromRawFd as _, OwnedFd},
    ptr, slice,
};

use libc::{c_int, c_void, socklen_t};

pub use process::{
    INTERRUPTED, catch_interrupts, ended, exit, fork, kill_group, pidfd, readable, ready, reap_all, shared_words,
};

/// What a system call returned, or its `errno`.
pub type Outcome = Result<i32, i32>;

/// The last error's number.
fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn outcome(returned: isize) -> Outcome {
    if returned < 0 { Err(errno()) } else { Ok(i32::try_from(returned).unwrap_or(i32::MAX)) }
}

fn length(bytes: &[u8]) -> socklen_t {
    socklen_t::try_from(bytes.len()).unwrap_or(0)
}

fn address(bytes: &[u8]) -> *const libc::sockaddr {
    bytes.as_ptr().cast()
}

/// socket(2)
pub fn socket(family: i32, kind: i32, protocol: i32) -> Outcome {
    // SAFETY: takes numbers alone.
    outcome(unsafe { libc::socket(family, kind, protocol) } as isize)
}

/// bind(2)
pub fn bind(fd: i32, to: &[u8]) -> Outcome {
    // SAFETY: the kernel reads as many bytes as there are.
    outcome(unsafe { libc::bind(fd, address(to), length(to)) } as isize)
}

/// connect(2)
pub fn connect(fd: i32, to: &[u8]) -> Outcome {
    // SAFETY: as for bind.
    outcome(unsafe { libc::connect(fd, address(to), length(to)) } as isize)
}

/// listen(2)
pub fn listen(fd: i32, backlog: i32) -> Outcome {
    // SAFETY: takes numbers alone.
    outcome(unsafe { libc::listen(fd, backlog) } as isize)
}

/// accept4(2), without waiting; the peer's address as bytes.
pub fn accept(fd: i32) -> Result<(i32, Vec<u8>), i32> {
    let mut peer = [0_u8; 128];
    let mut size: socklen_t = 128;
    // SAFETY: the buffer is as long as is said.
    let fd =
        outcome(unsafe { libc::accept4(fd, peer.as_mut_ptr().cast(), &raw mut size, libc::SOCK_NONBLOCK) } as isize)?;
    Ok((fd, peer[..128.min(size as usize)].to_vec()))
}

/// shutdown(2)
pub fn shutdown(fd: i32, how: i32) -> Outcome {
    // SAFETY: takes numbers alone.
    outcome(unsafe { libc::shutdown(fd, how) } as isize)
}

/// close(2)
pub fn close(fd: i32) -> Outcome {
    // SAFETY: takes a number alone; the programs' descriptors are numbers here, which nothing else owns.
    outcome(unsafe { libc::close(fd) } as isize)
}

/// dup(2)
pub fn dup(fd: i32) -> Outcome {
    // SAFETY: takes a number alone.
    outcome(unsafe { libc::dup(fd) } as isize)
}

/// setsockopt(2)
pub fn setsockopt(fd: i32, level: i32, option: i32, value: &[u8]) -> Outcome {
    // SAFETY: the kernel reads as many bytes as there are.
    outcome(unsafe { libc::setsockopt(fd, level, option, value.as_ptr().cast(), length(value)) } as isize)
}

/// getsockopt(2) of a number.
pub fn getsockopt(fd: i32, level: i32, option: i32) -> Outcome {
    let (mut value, mut size): (c_int, socklen_t) = (0, 4);
    // SAFETY: the buffer is as long as is said.
    let got = unsafe { libc::getsockopt(fd, level, option, (&raw mut value).cast::<c_void>(), &raw mut size) };
    outcome(got as isize).map(|_| value)
}

/// `SO_ERROR` of a socket; also an outcome of a connect that went on.
pub fn pending_error(fd: i32) -> i32 {
    getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR).unwrap_or_else(|errno| errno)
}

/// getsockname(2), or getpeername(2): the address as bytes.
pub fn name_of(fd: i32, peer: bool) -> Result<Vec<u8>, i32> {
    let mut name = [0_u8; 128];
    let mut size: socklen_t = 128;
    // SAFETY: the buffer is as long as is said.
    let got = unsafe {
        if peer {
            libc::getpeername(fd, name.as_mut_ptr().cast(), &raw mut size)
        } else {
            libc::getsockname(fd, name.as_mut_ptr().cast(), &raw mut size)
        }
    };
    outcome(got as isize)?;
    Ok(name[..128.min(size as usize)].to_vec())
}

/// A message for sendmsg(2): destination, data, and control messages as they lie in memory.
pub struct Message<'a> {
    /// The address; empty for none.
    pub to: &'a [u8],
    /// What is sent.
    pub data: &'a [u8],
    /// Control messages with their headers ([`control`]).
    pub control: &'a [u8],
}

impl Message<'_> {
    fn header(&self, vector: &mut libc::iovec) -> libc::msghdr {
        *vector = libc::iovec { iov_base: self.data.as_ptr().cast_mut().cast(), iov_len: self.data.len() };
        // SAFETY: all zeros are a valid header.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        if !self.to.is_empty() {
            header.msg_name = self.to.as_ptr().cast_mut().cast();
            header.msg_namelen = length(self.to);
        }
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        if !self.control.is_empty() {
            header.msg_control = self.control.as_ptr().cast_mut().cast();
            header.msg_controllen = self.control.len();
        }
        header
    }
}

const NO_VECTOR: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

/// sendto(2)
pub fn sendto(fd: i32, data: &[u8], flags: i32, to: &[u8]) -> Outcome {
    let name = if to.is_empty() { ptr::null() } else { address(to) };
    // SAFETY: both buffers are as long as is said.
    outcome(unsafe { libc::sendto(fd, data.as_ptr().cast(), data.len(), flags, name, length(to)) })
}

/// sendmsg(2)
pub fn sendmsg(fd: i32, message: &Message, flags: i32) -> Outcome {
    let mut vector = NO_VECTOR;
    let header = message.header(&mut vector);
    // SAFETY: the header's pointers are to the message's slices, each with its length.
    outcome(unsafe { libc::sendmsg(fd, &raw const header, flags) })
}

/// sendmmsg(2): how many were sent.
pub fn sendmmsg(fd: i32, messages: &[Message], flags: i32) -> Outcome {
    let mut vectors = vec![NO_VECTOR; messages.len()];
    let headers = messages.iter().zip(&mut vectors);
    let mut headers: Vec<_> =
        headers.map(|(message, vector)| libc::mmsghdr { msg_hdr: message.header(vector), msg_len: 0 }).collect();
    let count = u32::try_from(headers.len()).unwrap_or(0);
    // SAFETY: as for sendmsg; there are as many headers as is said.
    outcome(unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), count, flags) } as isize)
}

/// A control message as it lies in memory, filled up to the next one's place.
pub fn control(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let mut bytes = (size_of::<libc::cmsghdr>() + data.len()).to_ne_bytes().to_vec();
    bytes.extend(level.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(size_of::<usize>()), 0);
    bytes
}

/// recvfrom(2), without waiting: how many bytes, and the sender's address as bytes.
pub fn recvfrom(fd: i32, buffer: &mut [u8]) -> Result<(usize, Vec<u8>), i32> {
    let mut peer = [0_u8; 128];
    let mut size: socklen_t = 128;
    // SAFETY: both buffers are as long as is said.
    let got = outcome(unsafe {
        libc::recvfrom(
            fd,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
            peer.as_mut_ptr().cast(),
            &raw mut size,
        )
    })?;
    Ok((usize::try_from(got).unwrap_or(0).min(buffer.len()), peer[..128.min(size as usize)].to_vec()))
}

/// Passes a descriptor through a Unix socket pair (`SCM_RIGHTS`): the new descriptor.
pub fn pass(fd: i32) -> Outcome {
    let mut pair = [0; 2];
    // SAFETY: there is room for two descriptors.
    outcome(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM, 0, pair.as_mut_ptr()) } as isize)?;
    let control = control(libc::SOL_SOCKET, libc::SCM_RIGHTS, &fd.to_ne_bytes());
    let sent = sendmsg(pair[0], &Message { to: &[], data: b"x", control: &control }, 0);
    let received = sent.and_then(|_| received_descriptor(pair[1]));
    let _ = (close(pair[0]), close(pair[1]));
    received
}

fn received_descriptor(from: i32) -> Outcome {
    let (mut data, mut control) = ([0_u8; 1], [0_usize; 4]);
    let mut vector = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: all zeros are a valid header; the buffers are as long as is said, and the control message's aligned.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        (header.msg_iov, header.msg_iovlen) = (&raw mut vector, 1);
        (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(&control));
        outcome(libc::recvmsg(from, &raw mut header, 0))?;
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        if first.is_null() { Err(libc::EBADMSG) } else { Ok(libc::CMSG_DATA(first).cast::<i32>().read_unaligned()) }
    }
}

/// pipe2(2), without waiting.
fn pipe() -> Result<[i32; 2], i32> {
    let mut ends = [0; 2];
    // SAFETY: there is room for two descriptors.
    outcome(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK) } as isize)?;
    Ok(ends)
}

/// Sends data by splice(2) from a pipe.
pub fn splice(to: i32, data: &[u8]) -> Outcome {
    let [read, write] = pipe()?;
    // SAFETY: the buffer is as long as is said; the rest are numbers and null pointers.
    let sent = unsafe {
        libc::write(write, data.as_ptr().cast(), data.len());
        outcome(libc::splice(read, ptr::null_mut(), to, ptr::null_mut(), data.len(), libc::SPLICE_F_NONBLOCK))
    };
    let _ = (close(read), close(write));
    sent
}

/// Sends data by sendfile(2) from a file in memory.
pub fn sendfile(to: i32, data: &[u8]) -> Outcome {
    // SAFETY: the name ends with a NUL.
    let file = outcome(unsafe { libc::memfd_create(c"token".as_ptr(), 0) } as isize)?;
    let mut offset = 0;
    // SAFETY: the buffer is as long as is said, and the offset is there.
    let sent = unsafe {
        libc::write(file, data.as_ptr().cast(), data.len());
        outcome(libc::sendfile(to, file, &raw mut offset, data.len()))
    };
    let _ = close(file);
    sent
}

/// write(2)
pub fn write(fd: i32, data: &[u8]) -> Outcome {
    // SAFETY: the buffer is as long as is said.
    outcome(unsafe { libc::write(fd, data.as_ptr().cast(), data.len()) })
}

/// read(2)
pub fn read(fd: i32, buffer: &mut [u8]) -> Outcome {
    // SAFETY: the buffer is as long as is said.
    outcome(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// open(2)
pub fn open(path: &str, flags: i32) -> Outcome {
    let Ok(path) = CString::new(path) else { return Err(libc::EINVAL) };
    // SAFETY: the path ends with a NUL.
    outcome(unsafe { libc::open(path.as_ptr(), flags | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC) } as isize)
}

/// The device that an open descriptor is of: (is it a character device, major, minor).
pub fn device_of(fd: i32) -> Option<(bool, u32, u32)> {
    // SAFETY: all zeros are a valid structure, which the kernel fills in.
    let (status, is_device) = unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        if libc::fstat(fd, &raw mut status) < 0 {
            return None;
        }
        (status, [libc::S_IFCHR, libc::S_IFBLK].contains(&(status.st_mode & libc::S_IFMT)))
    };
    let character = status.st_mode & libc::S_IFMT == libc::S_IFCHR;
    is_device.then(|| (character, libc::major(status.st_rdev), libc::minor(status.st_rdev)))
}

/// A socket that gets every packet that arrives at a device of the calling thread's network namespace, without waiting, each
/// from its IP header on.
pub fn capture(device: u32) -> Result<OwnedFd, i32> {
    const IGNORE_OUTGOING: c_int = 23; // PACKET_IGNORE_OUTGOING, include/uapi/linux/if_packet.h
    // SAFETY: all zeros are a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(|_| libc::EINVAL)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).map_err(|_| libc::EINVAL)?.to_be();
    address.sll_ifindex = device.cast_signed();
    let fd = owned(socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0)?);
    let number = std::os::fd::AsRawFd::as_raw_fd(&fd);
    setsockopt(number, libc::SOL_PACKET, IGNORE_OUTGOING, &1_i32.to_ne_bytes())?;
    setsockopt(number, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(64_i32 << 20).to_ne_bytes())?;
    let size = size_of_val(&address);
    // SAFETY: the structure is read as bytes, of which there are so many.
    bind(number, unsafe { slice::from_raw_parts((&raw const address).cast(), size) })?;
    Ok(fd)
}

/// Takes a descriptor that a call here has just returned.
pub fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the descriptor is new, and the caller hands it over.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
