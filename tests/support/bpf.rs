//! What the kernel says about eBPF programs and maps: bpf(2) with the few commands that ask.

use std::{
    ffi::CString,
    fs::File,
    io::{Error, Result},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use serde_json::Value;

use crate::cgroup_only;

// include/uapi/linux/bpf.h
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_MAP_GET_FD_BY_ID: libc::c_int = 14;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;

/// More programs than anybody attaches to one hook of a cgroup, and more maps than one program has.
const ENOUGH: usize = 64;

/// A hook of a cgroup, by its number in `enum bpf_attach_type`, under the name that the log has for it.
pub const HOOKS: [(&str, u32); 16] = [
    ("connect4", 10),
    ("connect6", 11),
    ("bind4", 8),
    ("bind6", 9),
    ("sendmsg4", 14),
    ("sendmsg6", 15),
    ("ingress", 0),
    ("egress", 1),
    ("sock_create", 2),
    ("sock_ops", 3),
    ("connect_unix", 49),
    ("sendmsg_unix", 50),
    ("device", 6),
    ("sysctl", 18),
    ("getsockopt", 21),
    ("setsockopt", 22),
];

/// A policy that needs a program on each of [`HOOKS`], and denies nothing that tests or commands do.
pub const EVERY_SECTION: &str = include_str!("../../examples/everything-allowed.json");

/// [`EVERY_SECTION`] without anything else that keeps a command inside, so that the command may look at these programs.
///
/// # Panics
///
/// When it is no JSON.
#[must_use]
pub fn every_section_alone() -> Value {
    cgroup_only(&EVERY_SECTION.parse().expect("JSON"))
}

/// The fields of `union bpf_attr` that `BPF_PROG_QUERY` uses.
#[repr(C)]
#[expect(clippy::struct_field_names, reason = "the kernel's names")]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// bpf(2)'s attributes of `BPF_PROG_LOAD`, up to what is needed here.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u64; 2],
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// bpf(2)'s attributes of `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target_fd: u32,
    program_fd: u32,
    hook: u32,
    flags: u32,
}

/// bpf(2)'s attributes of `BPF_*_GET_FD_BY_ID`.
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// bpf(2)'s attributes of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct Info {
    fd: u32,
    length: u32,
    address: u64,
}

/// bpf(2)'s attributes of `BPF_OBJ_GET`.
#[repr(C)]
struct ByPath {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `struct bpf_link_info` of a link to a cgroup.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    before: [u32; 4],
    cgroup_id: u64,
    after: u64,
}

/// `struct bpf_prog_info`, up to what is needed here.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    before: [u64; 6],
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
}

/// Calls bpf(2). The attributes, and the memory that they point to, must be what the command expects.
fn bpf<T>(command: libc::c_int, attributes: &mut T) -> Result<libc::c_long> {
    // SAFETY: the structures above are prefixes of the union; their callers keep alive what they point to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

fn number(fd: RawFd) -> u32 {
    u32::try_from(fd).expect("an open descriptor is not negative")
}

/// The ids of the programs that are attached to a hook of this very cgroup.
///
/// # Errors
///
/// When there is no such cgroup (any more).
pub fn programs_on(cgroup: &Path, (_, attach_type): (&str, u32)) -> Result<Vec<u32>> {
    let folder = File::open(cgroup)?;
    let mut ids = [0_u32; ENOUGH];
    let (target_fd, prog_ids) = (number(folder.as_raw_fd()), ids.as_mut_ptr() as u64);
    let prog_cnt = u32::try_from(ENOUGH).expect("small");
    let mut query = Query { target_fd, attach_type, query_flags: 0, attach_flags: 0, prog_ids, prog_cnt, padding: 0 };
    bpf(BPF_PROG_QUERY, &mut query)?;
    Ok(ids[..query.prog_cnt as usize].to_vec())
}

/// The ids of all programs that guard-run may have attached to a cgroup.
///
/// # Errors
///
/// When there is no such cgroup (any more).
pub fn guard_of(cgroup: &Path) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for hook in HOOKS {
        match programs_on(cgroup, hook) {
            // Before Linux 6.7, nothing can be on a hook of Unix sockets.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && hook.0.ends_with("_unix") => {}
            programs => found.extend(programs?),
        }
    }
    Ok(found)
}

fn by_id(command: libc::c_int, id: u32) -> Option<OwnedFd> {
    let fd = bpf(command, &mut ById { id, next_id: 0, open_flags: 0 });
    match fd {
        // SAFETY: the kernel has just made the descriptor, for us alone.
        Ok(fd) => Some(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).expect("a descriptor is an int")) }),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
        Err(error) => panic!("asking for an eBPF object: {error}"),
    }
}

/// Whether the kernel has a program of this id.
#[must_use]
pub fn program_exists(id: u32) -> bool {
    by_id(BPF_PROG_GET_FD_BY_ID, id).is_some()
}

/// Whether the kernel has a map of this id.
#[must_use]
pub fn map_exists(id: u32) -> bool {
    by_id(BPF_MAP_GET_FD_BY_ID, id).is_some()
}

/// The ids of the maps that a program uses.
///
/// # Panics
///
/// When there is no such program.
#[must_use]
pub fn maps_of(program: u32) -> Vec<u32> {
    let program = by_id(BPF_PROG_GET_FD_BY_ID, program).expect("the program is there");
    let mut ids = [0_u32; ENOUGH];
    let nr_map_ids = u32::try_from(ENOUGH).expect("small");
    let mut info = ProgramInfo { nr_map_ids, map_ids: ids.as_mut_ptr() as u64, ..ProgramInfo::default() };
    let length = u32::try_from(size_of::<ProgramInfo>()).expect("small");
    let mut attributes = Info { fd: number(program.as_raw_fd()), length, address: &raw mut info as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes).expect("the program is there");
    ids[..info.nr_map_ids as usize].to_vec()
}

/// Whether a link that is pinned there still leads to a cgroup. Where there is none, none does.
///
/// # Panics
///
/// When the kernel doesn't say.
#[must_use]
pub fn leads_to_a_cgroup(link: &Path) -> bool {
    let path = CString::new(link.as_os_str().as_bytes()).expect("a path");
    let fd = bpf(BPF_OBJ_GET, &mut ByPath { path: path.as_ptr() as u64, fd: 0, flags: 0 });
    let fd = match fd {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return false,
        fd => RawFd::try_from(fd.expect("tests run as root")).expect("a descriptor is an int"),
    };
    // SAFETY: the kernel has just made the descriptor, for us alone.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = LinkInfo::default();
    let length = u32::try_from(size_of::<LinkInfo>()).expect("small");
    let mut attributes = Info { fd: number(link.as_raw_fd()), length, address: &raw mut info as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes).expect("the link is there");
    info.cgroup_id != 0
}

/// How a program on a cgroup goes together with those on cgroups further down.
#[derive(Clone, Copy, Debug)]
pub enum Beside {
    /// `BPF_F_ALLOW_OVERRIDE`: it yields to them.
    Yields = 1,
    /// `BPF_F_ALLOW_MULTI`: all of them have to allow.
    Joins = 2,
}

/// Puts a program on a cgroup that forbids all there is below /proc/sys.
///
/// # Panics
///
/// When that can't be done.
pub fn forbid_sysctls(cgroup: &Path, beside: Beside) {
    const BPF_PROG_TYPE_CGROUP_SYSCTL: u32 = 23;
    const BPF_CGROUP_SYSCTL: u32 = 18;
    // r0 = 0; exit
    let instructions: [u64; 2] = [0xb7, 0x95];
    let license = c"GPL";
    let mut load = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_SYSCTL,
        insn_cnt: 2,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        expected_attach_type: BPF_CGROUP_SYSCTL,
        ..Load::default()
    };
    let program = bpf(BPF_PROG_LOAD, &mut load).expect("tests run as root");
    // SAFETY: the kernel has just made the descriptor, for us alone.
    let program = unsafe { OwnedFd::from_raw_fd(RawFd::try_from(program).expect("a descriptor is an int")) };
    let folder = File::open(cgroup).expect("the cgroup is there");
    let (target_fd, program_fd) = (number(folder.as_raw_fd()), number(program.as_raw_fd()));
    let mut attach = Attach { target_fd, program_fd, hook: BPF_CGROUP_SYSCTL, flags: beside as u32 };
    bpf(BPF_PROG_ATTACH, &mut attach).expect("tests run as root");
}
