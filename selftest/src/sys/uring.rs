//! io_uring with three system calls and no library: one request in a ring of its own.

use std::{
    ffi::{CStr, c_long},
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{made, result};

const PAGE: usize = 4096;
const ENTER_GETEVENTS_WAKEUP: c_long = 1 | 2;
/// Where a ring's parts are mapped from (linux/io_uring.h).
const SUBMISSIONS: i64 = 0;
const COMPLETIONS: i64 = 0x800_0000;
const ENTRIES: i64 = 0x1000_0000;
/// `AT_FDCWD`, as the entry's descriptor.
const HERE: i32 = libc::AT_FDCWD;

/// Whether a thread of the kernel takes the requests (`IORING_SETUP_SQPOLL`) or the call that submits them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taker {
    /// The process itself.
    Caller,
    /// A thread of the kernel.
    Thread,
}

/// A request (`struct io_uring_sqe`), up to where all fields are used.
#[repr(C)]
#[derive(Default)]
struct Entry {
    opcode: u8,
    flags: u8,
    priority: u16,
    descriptor: i32,
    offset: u64,
    address: u64,
    length: u32,
    options: u32,
    data: u64,
    buffer: u16,
    personality: u16,
    /// Of `SEND`: the length of the address at `offset`, in the lower half.
    more: u32,
    rest: [u64; 2],
}

/// A part of a ring in memory.
struct Mapping(*mut libc::c_void);

impl Mapping {
    fn new(ring: &OwnedFd, offset: i64) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: mapped where the kernel likes.
        let at = unsafe { libc::mmap(ptr::null_mut(), PAGE, protection, flags, ring.as_raw_fd(), offset) };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(at)) }
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        let offset = usize::try_from(offset).expect("in the page");
        assert!(offset + 4 <= PAGE, "a small ring is in one page");
        // SAFETY: within the mapping, which lives as long as the reference; the kernel aligns the words.
        unsafe { &*self.0.byte_add(offset).cast::<AtomicU32>() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by us, and no reference into it is left.
        unsafe { libc::munmap(self.0, PAGE) };
    }
}

/// Makes one request and waits for its result. What the entry points to must live until then.
fn request(taker: Taker, entry: Entry) -> io::Result<i32> {
    let mut parameters = [0_u32; 30];
    parameters[2] = if taker == Taker::Thread { 2 } else { 0 };
    // SAFETY: 120 bytes are the structure.
    let ring = made(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) })?;
    let (tail, array, completions) = (parameters[11], parameters[16], parameters[25]);
    let submission = Mapping::new(&ring, SUBMISSIONS)?;
    let completion = Mapping::new(&ring, COMPLETIONS)?;
    let entries = Mapping::new(&ring, ENTRIES)?;
    // SAFETY: the mapping has room for one entry, and the kernel does not look at it yet.
    unsafe { entries.0.cast::<Entry>().write(entry) };
    submission.word(array).store(0, Ordering::Relaxed);
    submission.word(tail).store(1, Ordering::Release);
    let fd = ring.as_raw_fd();
    // SAFETY: numbers and a null pointer; the ring and its memory live.
    result(unsafe { libc::syscall(libc::SYS_io_uring_enter, fd, 1, 1, ENTER_GETEVENTS_WAKEUP, 0, 0) })?;
    let outcome = completion.word(completions + 8).load(Ordering::Acquire).cast_signed();
    if outcome < 0 { Err(io::Error::from_raw_os_error(-outcome)) } else { Ok(outcome) }
}

/// `IORING_OP_SOCKET`.
///
/// # Errors
///
/// As `io_uring_setup(2)`, `io_uring_enter(2)` and socket(2).
pub fn socket(domain: i32, kind: i32) -> io::Result<OwnedFd> {
    let kind = u64::from(kind.cast_unsigned());
    let made_by = request(Taker::Caller, Entry { opcode: 45, descriptor: domain, offset: kind, ..Entry::default() })?;
    made(made_by.into())
}

/// `IORING_OP_CONNECT`.
///
/// # Errors
///
/// As [`socket`], and connect(2).
pub fn connect(taker: Taker, socket: &impl AsFd, address: &[u8]) -> io::Result<()> {
    let descriptor = socket.as_fd().as_raw_fd();
    let (length, at) = (address.len() as u64, address.as_ptr() as u64);
    request(taker, Entry { opcode: 16, descriptor, offset: length, address: at, ..Entry::default() }).map(drop)
}

/// `IORING_OP_SEND` to an address.
///
/// # Errors
///
/// As [`socket`], and sendto(2).
pub fn send_to(socket: &impl AsFd, data: &[u8], address: &[u8]) -> io::Result<()> {
    send(26, socket, data, address)
}

/// `IORING_OP_SEND_ZC` to an address.
///
/// # Errors
///
/// As [`socket`], and sendto(2).
pub fn send_without_copy(socket: &impl AsFd, data: &[u8], address: &[u8]) -> io::Result<()> {
    send(47, socket, data, address)
}

fn send(opcode: u8, socket: &impl AsFd, data: &[u8], address: &[u8]) -> io::Result<()> {
    let entry = Entry {
        opcode,
        descriptor: socket.as_fd().as_raw_fd(),
        offset: address.as_ptr() as u64,
        address: data.as_ptr() as u64,
        length: u32::try_from(data.len()).expect("short"),
        more: u32::try_from(address.len()).expect("short"),
        ..Entry::default()
    };
    request(Taker::Caller, entry).map(drop)
}

/// `IORING_OP_SENDMSG` to an address.
///
/// # Errors
///
/// As [`socket`], and sendmsg(2).
pub fn send_message(socket: &impl AsFd, data: &[u8], address: &[u8]) -> io::Result<()> {
    let mut vector = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let message = super::socket::message(&mut vector, address, &[]);
    let descriptor = socket.as_fd().as_raw_fd();
    let at = &raw const message as u64;
    request(Taker::Caller, Entry { opcode: 9, descriptor, address: at, length: 1, ..Entry::default() }).map(drop)
}

/// `IORING_OP_BIND` (Linux 6.11).
///
/// # Errors
///
/// As [`socket`], and bind(2).
pub fn bind(socket: &impl AsFd, address: &[u8]) -> io::Result<()> {
    let descriptor = socket.as_fd().as_raw_fd();
    let (length, at) = (address.len() as u64, address.as_ptr() as u64);
    request(Taker::Caller, Entry { opcode: 56, descriptor, offset: length, address: at, ..Entry::default() }).map(drop)
}

/// `IORING_OP_OPENAT`, for reading.
///
/// # Errors
///
/// As [`socket`], and openat(2).
pub fn open(path: &CStr) -> io::Result<OwnedFd> {
    let entry = Entry { opcode: 18, descriptor: HERE, address: path.as_ptr() as u64, ..Entry::default() };
    made(request(Taker::Caller, entry)?.into())
}

/// `IORING_OP_READ` from the file's start.
///
/// # Errors
///
/// As [`socket`], and read(2).
pub fn read<'a>(taker: Taker, file: &impl AsFd, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let entry = Entry {
        opcode: 22,
        descriptor: file.as_fd().as_raw_fd(),
        address: buffer.as_mut_ptr() as u64,
        length: u32::try_from(buffer.len()).expect("short"),
        ..Entry::default()
    };
    let read = request(taker, entry)?;
    Ok(&buffer[..usize::try_from(read).expect("a length")])
}
