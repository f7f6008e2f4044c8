//! What the kernel says about eBPF programs and maps: bpf(2) with the few commands that ask.

use std::{
    fs::File,
    io::{Error, Result},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::Path,
};

use serde_json::Value;

use crate::cgroup_only;

// include/uapi/linux/bpf.h
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

/// The same without anything else that keeps a command inside, so that the command may look at these programs.
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

/// Those of `BPF_*_GET_FD_BY_ID`.
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Those of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct Info {
    fd: u32,
    length: u32,
    address: u64,
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
        found.extend(programs_on(cgroup, hook)?);
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
