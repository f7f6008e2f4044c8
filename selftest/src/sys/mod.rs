//! What the attempts of `guard-run selftest` ask of the kernel and no safe library offers: odd spellings of common
//! system calls, rare ones, and other ways into the kernel. Only the processes of the self-test call these.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_long},
    io, mem,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
};

use nix::{sys::signal::Signal, unistd::Pid};

pub mod bpf;
pub mod foreign;
pub mod ipc;
pub mod socket;
pub mod uring;

/// What a system call returned, or why it failed.
pub(super) fn result(returned: c_long) -> io::Result<c_long> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// A descriptor that a system call has just made.
pub(super) fn made(returned: c_long) -> io::Result<OwnedFd> {
    let number = i32::try_from(result(returned)?).expect("a file descriptor is an int");
    // SAFETY: the callers pass what a call returned that makes a descriptor, which is then ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// System calls that take nothing but numbers, none of which is an address, and change nothing of this process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `ioprio_set(2)`.
    IoprioSet,
    /// `iopl(2)`; x86 only.
    Iopl,
    /// `msgget(2)`.
    Msgget,
    /// `pidfd_open(2)`.
    PidfdOpen,
    /// `pidfd_getfd(2)`.
    PidfdGetfd,
    /// `setpriority(2)`.
    Setpriority,
    /// `semget(2)`.
    Semget,
    /// `shmget(2)`.
    Shmget,
    /// `tgkill(2)`.
    Tgkill,
}

/// Makes one of these calls.
///
/// # Errors
///
/// As the call; `ENOSYS` where the machine has none of that name.
pub fn call(call: Call, arguments: [c_long; 3]) -> io::Result<c_long> {
    let number = match call {
        Call::IoprioSet => libc::SYS_ioprio_set,
        #[cfg(target_arch = "x86_64")]
        Call::Iopl => libc::SYS_iopl,
        #[cfg(not(target_arch = "x86_64"))]
        Call::Iopl => return Err(io::Error::from_raw_os_error(libc::ENOSYS)),
        Call::Msgget => libc::SYS_msgget,
        Call::PidfdOpen => libc::SYS_pidfd_open,
        Call::PidfdGetfd => libc::SYS_pidfd_getfd,
        Call::Setpriority => libc::SYS_setpriority,
        Call::Semget => libc::SYS_semget,
        Call::Shmget => libc::SYS_shmget,
        Call::Tgkill => libc::SYS_tgkill,
    };
    let [a, b, c] = arguments;
    // SAFETY: numbers only, as the enumeration promises.
    result(unsafe { libc::syscall(number, a, b, c, 0, 0, 0) })
}

/// Makes a call that returns a new descriptor, and owns that.
///
/// # Errors
///
/// As [`call`].
pub fn open_by(which: Call, arguments: [c_long; 3]) -> io::Result<OwnedFd> {
    made(call(which, arguments)?)
}

/// Forks. Only for the processes of the self-test, which have a single thread.
///
/// # Errors
///
/// As clone(2).
pub fn fork(flags: libc::c_int) -> io::Result<Option<Pid>> {
    // SAFETY: without CLONE_VM this is a fork; no other thread can have left a lock held in the copy.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0) };
    let pid = i32::try_from(result(pid)?).expect("a process id is an int");
    Ok((pid != 0).then(|| Pid::from_raw(pid)))
}

/// Forks by clone3(2) with these flags.
///
/// # Errors
///
/// As clone3(2).
pub fn clone3(flags: u64) -> io::Result<Option<Pid>> {
    // SAFETY: a structure of integers, of which zero means "not used".
    let mut arguments: libc::clone_args = unsafe { mem::zeroed() };
    arguments.flags = flags;
    arguments.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    clone_with(&mut arguments)
}

/// include/uapi/linux/sched.h. The libc crate's constant of this name is an int, into which it doesn't fit: it is 0.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks by clone3(2). The child is in the cgroup from its first instruction.
///
/// # Errors
///
/// As clone3(2).
pub fn fork_into(cgroup: &OwnedFd) -> io::Result<Option<Pid>> {
    // SAFETY: a structure of integers, of which zero means "not used".
    let mut arguments: libc::clone_args = unsafe { mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP;
    arguments.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    arguments.cgroup = cgroup.as_raw_fd().cast_unsigned().into();
    clone_with(&mut arguments)
}

/// Forks as `arguments` say, which don't have `CLONE_VM`.
fn clone_with(arguments: &mut libc::clone_args) -> io::Result<Option<Pid>> {
    // SAFETY: as in `fork`; the structure is of the size said.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut *arguments, size_of::<libc::clone_args>()) };
    let pid = i32::try_from(result(pid)?).expect("a process id is an int");
    Ok((pid != 0).then(|| Pid::from_raw(pid)))
}

/// Ends this process at once, without any of what a Rust or C program does at its end.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: takes an integer and doesn't return.
    unsafe { libc::_exit(status) }
}

/// Sends a signal to the process that a descriptor stands for.
///
/// # Errors
///
/// As `pidfd_send_signal(2)`.
pub fn send_signal(process: &OwnedFd, signal: Signal) -> io::Result<()> {
    let (fd, signal) = (process.as_raw_fd(), signal as libc::c_int);
    // SAFETY: no pointers but a null one, which means the same as for kill(2).
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, ptr::null::<libc::siginfo_t>(), 0) };
    result(sent).map(drop)
}

/// Takes a descriptor by its number, such as one that this process was started with.
///
/// # Errors
///
/// `EBADF` if there is none.
pub fn take_descriptor(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: the calls only ask and copy; the copy is ours alone, so nothing else can close it.
    made(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 64) }.into())
}

/// Opens a file by the handle of it (`struct file_handle`: length, type, bytes).
///
/// # Errors
///
/// As `open_by_handle_at(2)`.
pub fn open_by_handle(mount: &impl AsFd, kind: i32, handle: &[u8], flags: i32) -> io::Result<OwnedFd> {
    let length = u32::try_from(handle.len()).expect("a short handle");
    let bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), handle].concat();
    let mount = mount.as_fd().as_raw_fd();
    // SAFETY: the structure is as long as its first field says.
    made(unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount, bytes.as_ptr(), flags) })
}

/// The handle of a file: its type and bytes.
///
/// # Errors
///
/// As `name_to_handle_at(2)`.
pub fn handle_of(path: &CStr) -> io::Result<(i32, Vec<u8>)> {
    const ROOM: u32 = 128;
    let mut bytes = [0_u8; 8 + ROOM as usize];
    bytes[..4].copy_from_slice(&ROOM.to_ne_bytes());
    let mut mount = 0_i32;
    // SAFETY: the buffer has the room that its first field speaks of.
    result(unsafe {
        libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, path.as_ptr(), bytes.as_mut_ptr(), &raw mut mount, 0)
    })?;
    let number = |at: usize| i32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    Ok((number(4), bytes[8..8 + usize::try_from(number(0)).expect("a length")].to_vec()))
}

/// Mounts a file system nowhere (`fsopen`, `fsconfig`, `fsmount`), and returns its root.
///
/// # Errors
///
/// As these.
pub fn mount_nowhere(kind: &CStr) -> io::Result<OwnedFd> {
    const CREATE: c_long = 6; // FSCONFIG_CMD_CREATE
    // SAFETY: a string that ends with NUL.
    let context = made(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 0) })?;
    let fd = context.as_raw_fd();
    // SAFETY: the command takes neither key nor value.
    result(unsafe { libc::syscall(libc::SYS_fsconfig, fd, CREATE, 0, 0, 0) })?;
    // SAFETY: numbers only.
    made(unsafe { libc::syscall(libc::SYS_fsmount, fd, 0, 0) })
}

/// A copy of a mount without the mounts that cover parts of it (`open_tree` with `OPEN_TREE_CLONE`).
///
/// # Errors
///
/// As `open_tree(2)`.
pub fn clone_mount(path: &CStr) -> io::Result<OwnedFd> {
    const CLONE: c_long = 1;
    // SAFETY: a string that ends with NUL.
    made(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), CLONE) })
}

/// Opens with openat2(2), which looks into nothing that the flags don't say.
///
/// # Errors
///
/// As openat2(2).
pub fn openat2(path: &CStr, flags: i32) -> io::Result<OwnedFd> {
    let how = [u64::from(flags.cast_unsigned()), 0, 0];
    // SAFETY: three words are a `struct open_how`.
    made(unsafe { libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path.as_ptr(), how.as_ptr(), size_of_val(&how)) })
}

/// Opens without a look at what the access mode means: 3 asks for none, which is enough for ioctl(2).
///
/// # Errors
///
/// As open(2).
pub fn open_raw(path: &CStr, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: a string that ends with NUL.
    made(unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0) })
}

/// Reads with the old asynchronous interface (`io_submit`).
///
/// # Errors
///
/// As `io_setup(2)`, `io_submit(2)` and `io_getevents(2)`, or the read's own.
pub fn read_aio(file: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    const PREAD: u64 = 0;
    let mut context: u64 = 0;
    // SAFETY: the kernel writes one word.
    result(unsafe { libc::syscall(libc::SYS_io_setup, 1, &raw mut context) })?;
    let fd = u64::from(file.as_fd().as_raw_fd().cast_unsigned());
    // struct iocb: data, key and flags, opcode with priority and descriptor, buffer, length, offset, 2 words.
    let request: [u64; 8] = [0, 0, PREAD | fd << 32, buffer.as_mut_ptr() as u64, buffer.len() as u64, 0, 0, 0];
    let requests = [request.as_ptr()];
    let mut event = [0_u64; 4];
    // SAFETY: one request whose buffer outlives it, since its end is waited for before anything goes away; one event.
    let outcome = unsafe {
        let submitted = result(libc::syscall(libc::SYS_io_submit, context, 1, requests.as_ptr()));
        submitted.and_then(|_| result(libc::syscall(libc::SYS_io_getevents, context, 1, 1, event.as_mut_ptr(), 0)))
    };
    // SAFETY: the context was made above.
    unsafe { libc::syscall(libc::SYS_io_destroy, context) };
    outcome?;
    let read = event[2].cast_signed();
    usize::try_from(read).map_err(|_| io::Error::from_raw_os_error(i32::try_from(-read).unwrap_or(libc::EIO)))
}

/// Pushes a byte into a terminal's input as if it had been typed (`TIOCSTI`). The kernel ignores the upper half of the
/// request's number.
///
/// # Errors
///
/// As ioctl(2): `EIO` where the kernel has no such thing any more.
pub fn push_input(terminal: &impl AsFd, byte: u8, upper_half: u32) -> io::Result<()> {
    let request = u64::from(upper_half) << 32 | libc::TIOCSTI;
    // SAFETY: the call reads one byte.
    result(unsafe { libc::syscall(libc::SYS_ioctl, terminal.as_fd().as_raw_fd(), request, &raw const byte) }).map(drop)
}

/// Attaches to the TUN device of that name, or to a new one, which goes away with the descriptor (`TUNSETIFF`). The kernel ignores the
/// upper half of the request's number.
///
/// # Errors
///
/// As ioctl(2).
pub fn attach_tun(device: &impl AsFd, name: &CStr, upper_half: u32) -> io::Result<()> {
    const IFF_TUN: u16 = 1;
    attach(device, name, IFF_TUN, upper_half)
}

/// Like [`attach_tun`], for a TAP device: what is read from the descriptor are frames and nothing else.
///
/// # Errors
///
/// As ioctl(2).
pub fn attach_tap(device: &impl AsFd, name: &CStr) -> io::Result<()> {
    const IFF_TAP: u16 = 2;
    const IFF_NO_PI: u16 = 0x1000;
    attach(device, name, IFF_TAP | IFF_NO_PI, 0)
}

fn attach(device: &impl AsFd, name: &CStr, kind: u16, upper_half: u32) -> io::Result<()> {
    let mut request = [0_u8; 40];
    let name = name.to_bytes();
    // At most 15 bytes, then a NUL.
    let length = name.len().min(15);
    request[..length].copy_from_slice(&name[..length]);
    request[16..18].copy_from_slice(&kind.to_ne_bytes());
    let number = u64::from(upper_half) << 32 | libc::TUNSETIFF;
    // SAFETY: the buffer is a `struct ifreq`.
    result(unsafe { libc::syscall(libc::SYS_ioctl, device.as_fd().as_raw_fd(), number, request.as_mut_ptr()) })
        .map(drop)
}

/// Has the network device of a descriptor stay when that is closed, and be this user's (`TUNSETPERSIST`, `TUNSETOWNER`).
///
/// # Errors
///
/// As ioctl(2).
pub fn keep_tun(device: &impl AsFd, owner: u32) -> io::Result<()> {
    let device = device.as_fd().as_raw_fd();
    // SAFETY: both take a number.
    result(unsafe { libc::ioctl(device, libc::TUNSETPERSIST, 1) }.into())?;
    // SAFETY: as above.
    result(unsafe { libc::ioctl(device, libc::TUNSETOWNER, libc::c_ulong::from(owner)) }.into()).map(drop)
}

/// Gives a terminal the line discipline that it has by default (`TIOCSETD`).
///
/// # Errors
///
/// As ioctl(2).
pub fn keep_line_discipline(terminal: &impl AsFd) -> io::Result<()> {
    let n_tty = 0;
    // SAFETY: the call reads one int.
    result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSETD, &raw const n_tty) }.into()).map(drop)
}

/// Makes a device that the kernel serves in the place of a hypervisor this process's (`VHOST_SET_OWNER`).
///
/// # Errors
///
/// As ioctl(2).
pub fn own_vhost(device: &impl AsFd) -> io::Result<()> {
    const VHOST_SET_OWNER: libc::c_ulong = 0xaf01;
    // SAFETY: no argument.
    result(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), VHOST_SET_OWNER) }.into()).map(drop)
}

/// The number of a loop device that nobody uses (`LOOP_CTL_GET_FREE`).
///
/// # Errors
///
/// As ioctl(2).
pub fn free_loop(control: &impl AsFd) -> io::Result<u32> {
    const GET_FREE: libc::c_ulong = 0x4c82;
    // SAFETY: no argument.
    let number = result(unsafe { libc::ioctl(control.as_fd().as_raw_fd(), GET_FREE) }.into())?;
    Ok(u32::try_from(number).expect("not negative"))
}

/// Puts a file behind a loop device, read only, until the last user is gone (`LOOP_CONFIGURE` with `LO_FLAGS_AUTOCLEAR`).
///
/// # Errors
///
/// As ioctl(2).
pub fn configure_loop(device: &impl AsFd, file: &impl AsFd) -> io::Result<()> {
    const CONFIGURE: libc::c_ulong = 0x4c0a;
    const READ_ONLY_AUTOCLEAR: u32 = 1 | 4;
    // struct loop_config: descriptor, block size, struct loop_info64 (232 bytes), 8 words.
    let mut config = [0_u8; 8 + 232 + 64];
    config[..4].copy_from_slice(&file.as_fd().as_raw_fd().to_ne_bytes());
    // lo_flags, after five words and four half-words' fields (linux/loop.h).
    config[8 + 52..8 + 56].copy_from_slice(&READ_ONLY_AUTOCLEAR.to_ne_bytes());
    // SAFETY: the buffer is as long as the structure.
    result(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), CONFIGURE, config.as_ptr()) }.into()).map(drop)
}

/// Sets another process's limit of the size of files, to what it is (`prlimit`), and returns it.
///
/// # Errors
///
/// As prlimit(2).
pub fn keep_limit(process: Pid) -> io::Result<u64> {
    // SAFETY: both structures are plain numbers, and the call reads or writes one.
    unsafe {
        let mut limit: libc::rlimit64 = mem::zeroed();
        let resource = libc::RLIMIT_FSIZE;
        let old = &raw mut limit;
        result(libc::syscall(libc::SYS_prlimit64, process.as_raw(), resource, 0, old))?;
        result(libc::syscall(libc::SYS_prlimit64, process.as_raw(), resource, &raw const limit, 0))?;
        Ok(limit.rlim_cur)
    }
}

/// Sets a process's scheduling policy by `sched_setattr(2)`, the newer call.
///
/// # Errors
///
/// As `sched_setattr(2)`.
pub fn set_idle_by_attributes(process: Pid) -> io::Result<()> {
    const IDLE: u32 = 5;
    // struct sched_attr: size, policy, and what else there is, which stays zero.
    let mut attributes = [0_u32; 12];
    (attributes[0], attributes[1]) = (48, IDLE);
    // SAFETY: the structure has the size that it says.
    result(unsafe { libc::syscall(libc::SYS_sched_setattr, process.as_raw(), attributes.as_ptr(), 0) }).map(drop)
}

/// Makes a mount writable (`mount_setattr`).
///
/// # Errors
///
/// As that.
pub fn make_writable(path: &CStr) -> io::Result<()> {
    const READ_ONLY: u64 = 1;
    let attributes = [0, READ_ONLY, 0, 0];
    let size = size_of_val(&attributes);
    // SAFETY: a string that ends with NUL, and the four words of a `struct mount_attr`.
    let set =
        unsafe { libc::syscall(libc::SYS_mount_setattr, libc::AT_FDCWD, path.as_ptr(), 0, attributes.as_ptr(), size) };
    result(set).map(drop)
}

/// Has a process run only when nobody else wants to (`SCHED_IDLE`).
///
/// # Errors
///
/// As `sched_setscheduler(2)`.
pub fn set_idle(process: Pid) -> io::Result<()> {
    // SAFETY: a structure of a number, which stays zero.
    let parameter: libc::sched_param = unsafe { mem::zeroed() };
    // SAFETY: the call reads the structure.
    result(unsafe { libc::sched_setscheduler(process.as_raw(), libc::SCHED_IDLE, &raw const parameter) }.into())
        .map(drop)
}

/// Sends a signal with a value (`rt_sigqueueinfo`).
///
/// # Errors
///
/// As that.
pub fn queue_signal(process: Pid, signal: i32) -> io::Result<()> {
    const SI_QUEUE: i32 = -1;
    let mut info = [0_i32; 32];
    (info[0], info[2]) = (signal, SI_QUEUE);
    // SAFETY: 128 bytes are a siginfo_t.
    result(unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, process.as_raw(), signal, info.as_ptr()) }).map(drop)
}

/// Whether the kernel would count what another process does (`perf_event_open` of its context switches).
///
/// # Errors
///
/// As that.
pub fn open_counter(process: Pid) -> io::Result<OwnedFd> {
    const SOFTWARE: u32 = 1;
    const CONTEXT_SWITCHES: u64 = 3;
    let mut attributes = [0_u8; 128];
    attributes[..4].copy_from_slice(&SOFTWARE.to_ne_bytes());
    attributes[4..8].copy_from_slice(&128_u32.to_ne_bytes());
    attributes[8..16].copy_from_slice(&CONTEXT_SWITCHES.to_ne_bytes());
    // SAFETY: the structure has the size that it says.
    made(unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), process.as_raw(), -1, -1, 0) })
}

/// Advises the kernel that one page of another process's memory, at this address, may be paged out before others
/// (`process_madvise` with `MADV_COLD`).
///
/// # Errors
///
/// As that.
pub fn advise(process: &impl AsFd, address: u64) -> io::Result<()> {
    const COLD: c_long = 20;
    const PAGE: u64 = 4096;
    let range = [address & !(PAGE - 1), PAGE];
    let process = process.as_fd().as_raw_fd();
    // SAFETY: one `struct iovec`, of another process's addresses.
    result(unsafe { libc::syscall(libc::SYS_process_madvise, process, range.as_ptr(), 1, COLD, 0) }).map(drop)
}

/// Offers the kernel bytes that are no module (`init_module`). A kernel that looks at them says `ENOEXEC`.
///
/// # Errors
///
/// Always; as that.
pub fn offer_module() -> io::Result<()> {
    let bytes = [0_u8; 64];
    // SAFETY: 64 bytes, and a string.
    result(unsafe { libc::syscall(libc::SYS_init_module, bytes.as_ptr(), bytes.len(), c"".as_ptr()) }).map(drop)
}

/// Sets the length of the clock's tick to what it is (`adjtimex`), which changes nothing.
///
/// # Errors
///
/// As that.
pub fn keep_tick() -> io::Result<()> {
    const TICK: u32 = 0x4000;
    // SAFETY: a structure of numbers that the call fills in, and then reads.
    unsafe {
        let mut clock: libc::timex = mem::zeroed();
        result(libc::adjtimex(&raw mut clock).into())?;
        clock.modes = TICK;
        result(libc::adjtimex(&raw mut clock).into()).map(drop)
    }
}

/// Sets the host's name to what it is (`sethostname`).
///
/// # Errors
///
/// As that.
pub fn keep_host_name() -> nix::Result<()> {
    nix::unistd::sethostname(nix::unistd::gethostname()?)
}

/// Raises all capabilities that this process may have, and those bits too that it may not (`capset`).
///
/// # Errors
///
/// As capset(2).
pub fn raise_capabilities(capabilities: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let low = u32::try_from(capabilities & 0xffff_ffff).expect("32 bits");
    let high = u32::try_from(capabilities >> 32).expect("32 bits");
    // Effective, permitted, inheritable; of the lower and of the upper half.
    let sets = [low, low, 0, high, high, 0];
    // SAFETY: the header and two structures of three words, as this version has them.
    result(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) }).map(drop)
}

/// Gives a file a capability, as setcap(8) does: `bit` in the permitted and effective sets.
///
/// # Errors
///
/// As setxattr(2).
pub fn set_file_capability(path: &CStr, bit: u32) -> io::Result<()> {
    const REVISION_2_EFFECTIVE: u32 = 0x0200_0001;
    let value: [u32; 5] = [REVISION_2_EFFECTIVE, 1 << bit, 0, 0, 0];
    let name = c"security.capability";
    // SAFETY: strings that end with NUL, and a value of the size said (capabilities are little-endian there).
    let set = unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.map(u32::to_le).as_ptr().cast(), size_of_val(&value), 0)
    };
    result(set.into()).map(drop)
}

/// Says whom to signal when something happens on a file (`F_SETOWN`).
///
/// # Errors
///
/// As fcntl(2).
pub fn set_owner(file: &impl AsFd, process: Pid) -> io::Result<()> {
    // SAFETY: numbers only.
    result(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_SETOWN, process.as_raw()) }.into()).map(drop)
}

/// And by which signal (`F_SETSIG`).
///
/// # Errors
///
/// As fcntl(2).
pub fn set_signal(file: &impl AsFd, signal: i32) -> io::Result<()> {
    const F_SETSIG: i32 = 10;
    // SAFETY: numbers only.
    result(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), F_SETSIG, signal) }.into()).map(drop)
}
