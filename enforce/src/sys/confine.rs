//! System calls by which a process gives something up for good, as far as no crate has them.
#![allow(unsafe_code)]

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString},
    mem,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
};
use seccompiler::sock_filter;

/// Has this process, and all that it becomes or starts, ask a filter about every system call. (seccompiler's own function
/// sets no_new_privs, too, which a policy may disable.)
///
/// # Errors
///
/// As seccomp(2): `EACCES` without no_new_privs or `CAP_SYS_ADMIN`, `EINVAL` on kernels without seccomp.
pub fn install_filter(filter: &[sock_filter]) -> nix::Result<()> {
    set_filter(filter, 0).map(drop)
}

/// As [`install_filter`], with the flags of seccomp(2), and what that returns.
pub(super) fn set_filter(filter: &[sock_filter], flags: libc::c_ulong) -> nix::Result<libc::c_long> {
    let length = u16::try_from(filter.len()).map_err(|_| Errno::E2BIG)?;
    // The crate's instruction is laid out as the kernel's.
    const { assert!(size_of::<sock_filter>() == size_of::<libc::sock_filter>()) };
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel only reads the program, and as many instructions as it is said to have.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    Errno::result(result)
}

/// Makes a mount read-only, and all below it.
///
/// # Errors
///
/// As mount_setattr(2): `EINVAL` where nothing is mounted, `ENOSYS` before Linux 5.12.
pub fn make_read_only(point: &CString) -> nix::Result<()> {
    set_attributes(point, libc::MOUNT_ATTR_RDONLY, 0, libc::AT_RECURSIVE)
}

/// Makes a mount writable, and none below it.
///
/// # Errors
///
/// As [`make_read_only`]; `EPERM` where the mount was made by who has more rights than this process.
pub fn make_writable(point: &CString) -> nix::Result<()> {
    set_attributes(point, 0, libc::MOUNT_ATTR_RDONLY, 0)
}

fn set_attributes(point: &CString, set: u64, clear: u64, flags: libc::c_int) -> nix::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    // SAFETY: the kernel reads a string that ends with a NUL, and a structure of the size that it is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            point.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}

/// Whether a file or folder is the one by which a mount begins. Its file system is not asked for anything.
#[must_use]
pub fn is_mount_root(fd: &OwnedFd) -> bool {
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the kernel reads an empty string that ends with a NUL, and fills in a structure of which all zero is a value.
    let file = unsafe {
        let mut file: libc::statx = mem::zeroed();
        (libc::statx(fd.as_raw_fd(), c"".as_ptr(), flags, 0, &raw mut file) == 0).then_some(file)
    };
    file.is_some_and(|file| file.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0)
}

/// Puts a copy of a descriptor in the place of another one, by its number, for what this process executes.
///
/// # Errors
///
/// As dup2(2).
pub fn replace_descriptor(by: &OwnedFd, number: RawFd) -> nix::Result<()> {
    // SAFETY: takes integers. What is closed are descriptors that the process keeps for what it executes, not for itself.
    Errno::result(unsafe { libc::dup2(by.as_raw_fd(), number) }).map(drop)
}

/// For open_tree(2) and move_mount(2); the libc crate has neither (include/uapi/linux/mount.h).
const OPEN_TREE_CLONE: libc::c_int = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_int = 4;

/// Mounts a folder, which may be below it, in the place of what is mounted at a point. A mount on top of the other one would do
/// as well, but programs that read mountinfo take the first that they find.
///
/// # Errors
///
/// As open_tree(2) and move_mount(2): `ENOSYS` before Linux 5.2.
pub fn mount_instead(folder: &CString, point: &CString) -> nix::Result<()> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC;
    // SAFETY: the kernel reads a string that ends with a NUL.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, folder.as_ptr(), flags) };
    let tree = RawFd::try_from(Errno::result(tree)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the descriptor is new, and nobody else's.
    let tree = unsafe { OwnedFd::from_raw_fd(tree) };
    // Some mounts of a container are locked together with others, and stay below.
    match umount2(point.as_c_str(), MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(error) => return Err(error),
    }
    attach_mount(&tree, point)
}

/// For fsopen(2), fsconfig(2) and fsmount(2); the libc crate has none of these (include/uapi/linux/mount.h).
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;

/// Mounts a file system in memory nowhere: it is there as long as the descriptor is, or until [`attach_mount`] gives it a place. Each
/// option is a name and a value.
///
/// # Errors
///
/// As fsopen(2), fsconfig(2) and fsmount(2): `EPERM` without `CAP_SYS_ADMIN`, `ENOSYS` before Linux 5.2.
pub fn detached_memory(options: &[(&CStr, &CStr)]) -> nix::Result<OwnedFd> {
    let descriptor = |result| {
        let number = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
        // SAFETY: the descriptor is new, and nobody else's.
        Ok::<_, Errno>(unsafe { OwnedFd::from_raw_fd(number) })
    };
    // SAFETY: the kernel reads a string that ends with a NUL.
    let context = descriptor(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), FSOPEN_CLOEXEC) })?;
    let number = context.as_raw_fd();
    for (name, value) in options {
        let (set, name, value) = (FSCONFIG_SET_STRING, name.as_ptr(), value.as_ptr());
        // SAFETY: as above.
        Errno::result(unsafe { libc::syscall(libc::SYS_fsconfig, number, set, name, value, 0) })?;
    }
    let nothing = ptr::null::<libc::c_char>();
    // SAFETY: null is what this command wants for name and value.
    Errno::result(unsafe { libc::syscall(libc::SYS_fsconfig, number, FSCONFIG_CMD_CREATE, nothing, nothing, 0) })?;
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    // SAFETY: takes integers.
    descriptor(unsafe { libc::syscall(libc::SYS_fsmount, number, FSMOUNT_CLOEXEC, attributes) })
}

/// Gives a mount that is nowhere a place, in this process's mount namespace.
///
/// # Errors
///
/// As move_mount(2).
pub fn attach_mount(mount: &OwnedFd, point: &CString) -> nix::Result<()> {
    // SAFETY: the kernel reads strings that end with a NUL.
    let result = unsafe {
        let (mount, here) = (mount.as_raw_fd(), libc::AT_FDCWD);
        libc::syscall(libc::SYS_move_mount, mount, c"".as_ptr(), here, point.as_ptr(), MOVE_MOUNT_F_EMPTY_PATH)
    };
    Errno::result(result).map(drop)
}

/// Has all descriptors from this one up closed when this process executes something.
///
/// # Errors
///
/// As close_range(2): `ENOSYS` before Linux 5.9, `EINVAL` before 5.11.
pub fn close_on_exec_from(first: RawFd) -> nix::Result<()> {
    let first = u32::try_from(first).map_err(|_| Errno::EBADF)?;
    // SAFETY: takes integers, and closes nothing yet.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}

/// More capabilities than any kernel has: its sets have 64 bits.
const MAX_CAPABILITIES: u8 = 64;

/// Takes all capabilities but these from what this process, and what it becomes, can ever have; also those that have no
/// name yet.
///
/// # Errors
///
/// `EPERM` without `CAP_SETPCAP`.
pub fn reduce_bounding_set(kept: &BTreeSet<u8>) -> nix::Result<()> {
    for capability in (0..MAX_CAPABILITIES).filter(|capability| !kept.contains(capability)) {
        // SAFETY: takes integers.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
        match Errno::result(result) {
            // There is none of that number, nor of higher ones.
            Err(Errno::EINVAL) => break,
            result => result?,
        };
    }
    Ok(())
}

/// Whether the kernel offers system calls of the x32 kind: those of x86-64 with another number, which a filter of
/// numbers would miss (`__X32_SYSCALL_BIT`, arch/x86/include/uapi/asm/unistd.h).
#[must_use]
pub fn has_x32() -> bool {
    // SAFETY: getpid(2) by its x32 number has no effect, where there is such a thing.
    cfg!(target_arch = "x86_64") && unsafe { libc::syscall(libc::SYS_getpid | X32) } >= 0
}

/// What is added to the numbers of x32's system calls.
pub const X32: libc::c_long = 0x4000_0000;
