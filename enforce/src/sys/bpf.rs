//! bpf(2) calls that aya does not offer or makes too dear.
//!
//! aya 0.14 parses the kernel's whole BTF (20 ms) and probes a dozen kernel features (1 ms) before it loads the first
//! program, and attaches with links only. Here a program is loaded with one call, and attached so that the cgroup owns
//! it. Map contents are read through aya's own map types.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char, c_long},
    io, mem,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya_obj::generated::{
    BPF_F_ALLOW_MULTI, BPF_F_QUERY_EFFECTIVE, bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info, bpf_prog_info,
    bpf_prog_type,
};
use report::ProgramIdentity;

/// How often a program is loaded. The verifier gives up (`EAGAIN`) as soon as there is a signal, also one that only stops and
/// continues this process (`signal_pending` in kernel/bpf/verifier.c); by the next time it has been dealt with.
const LOAD_ATTEMPTS: usize = 1000;

/// Room for the verifier's explanation when it refuses a program.
const VERIFIER_LOG: usize = 1 << 20;

/// Writes a program's or map's name, of which the kernel keeps 15 bytes (`BPF_OBJ_NAME_LEN`), into a field of zeros.
pub(super) fn write_name(field: &mut [c_char; 16], name: &str) {
    for (to, from) in field.iter_mut().take(15).zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
}

pub(super) fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<c_long> {
    let size = size_of::<bpf_attr>();
    // SAFETY: the attributes are a bpf_attr of the size said; what their fields point to is the callers' matter.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_int, &raw mut *attributes, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub(super) fn attributes() -> bpf_attr {
    // SAFETY: a union of plain integers; the kernel demands that unused bytes be zero.
    unsafe { mem::zeroed() }
}

pub(super) fn descriptor(number: c_long) -> OwnedFd {
    let number = i32::try_from(number).expect("a file descriptor is an int");
    // SAFETY: the kernel has just made the descriptor, for us alone.
    unsafe { OwnedFd::from_raw_fd(number) }
}

// Pointers and descriptors are u64 and u32 in bpf_attr.
pub(super) fn address<T>(pointer: *const T) -> u64 {
    pointer as u64
}

fn number(fd: &impl AsFd) -> u32 {
    u32::try_from(fd.as_fd().as_raw_fd()).expect("an open descriptor is not negative")
}

/// What a program is for.
#[derive(Clone, Copy)]
pub struct Place {
    /// The program's type.
    pub kind: bpf_prog_type,
    /// Where such a program is attached, if it is.
    pub attach_type: Option<bpf_attach_type>,
    /// The BTF number of the function of an LSM hook; 0 for any other.
    pub function: u32,
}

/// Loads a program. Where the kernel calls one of its functions back, it is told where each of them begins. When the verifier
/// refuses the program, the error is accompanied by what the verifier said.
///
/// # Errors
///
/// As bpf(2) for `BPF_PROG_LOAD`: `EPERM` without the privileges, `EACCES` or `EINVAL` from the verifier.
pub fn load_program(
    name: &str,
    Place { kind, attach_type, function }: Place,
    instructions: &[u64],
    functions: &[u32],
    license: &CStr,
) -> Result<OwnedFd, (io::Error, String)> {
    let mut attributes = attributes();
    let described = if functions.is_empty() { None } else { Some(describe_function()) };
    let described = described.transpose().map_err(|error| (error, String::new()))?;
    let functions: Vec<[u32; 2]> = functions.iter().map(|begin| [*begin, FUNCTION]).collect();
    // SAFETY: writing a union's field; the others stay zero.
    let load = unsafe { &mut attributes.__bindgen_anon_3 };
    load.prog_type = kind as u32;
    load.expected_attach_type = attach_type.map_or(0, |attach_type| attach_type as u32);
    load.attach_btf_id = function;
    load.insns = address(instructions.as_ptr());
    load.insn_cnt = u32::try_from(instructions.len()).expect("a program is short");
    load.license = address(license.as_ptr());
    if let Some(types) = &described {
        load.prog_btf_fd = number(types);
        load.func_info_rec_size = u32::try_from(size_of::<[u32; 2]>()).expect("a small constant");
        load.func_info = address(functions.as_ptr());
        load.func_info_cnt = u32::try_from(functions.len()).expect("a program has few functions");
    }
    write_name(&mut load.prog_name, name);
    let mut refused = io::Error::from_raw_os_error(libc::EAGAIN);
    for _ in 0..LOAD_ATTEMPTS {
        match bpf(bpf_cmd::BPF_PROG_LOAD, &mut attributes) {
            Ok(fd) => return Ok(descriptor(fd)),
            Err(error) => refused = error,
        }
        if refused.raw_os_error() != Some(libc::EAGAIN) {
            break;
        }
    }
    // Once more, for the explanation.
    let mut log = vec![0_u8; VERIFIER_LOG];
    // SAFETY: as above; the buffer outlives the call.
    let load = unsafe { &mut attributes.__bindgen_anon_3 };
    load.log_level = 1;
    load.log_buf = address(log.as_mut_ptr());
    load.log_size = u32::try_from(log.len()).expect("a constant that fits");
    let _refused_again = bpf(bpf_cmd::BPF_PROG_LOAD, &mut attributes);
    let log = CStr::from_bytes_until_nul(&log).map(|log| log.to_string_lossy().into_owned()).unwrap_or_default();
    Err((refused, log))
}

/// The number of the one function in [`describe_function`].
const FUNCTION: u32 = 2;

/// The least BTF that describes a function (Documentation/bpf/btf.rst): the verifier follows a call back only into functions that
/// are described as static ones. What they take and return, it finds out by itself.
fn describe_function() -> io::Result<OwnedFd> {
    const KIND_FUNC: u32 = 12 << 24;
    const KIND_FUNC_PROTO: u32 = 13 << 24;
    // A prototype, and a static function of that, whose name is at offset 1.
    let types = [0, KIND_FUNC_PROTO, 0, 1, KIND_FUNC, 1];
    // Filled up to whole words.
    let strings = [u32::from_ne_bytes([0, b'f', 0, 0])];
    let size = |words: &[u32]| u32::try_from(size_of_val(words)).expect("a few words");
    // Magic number, version 1 and no flags; the lengths of this header, then offset and length of both sections.
    let header = [0x0001_eb9f, 24, 0, size(&types), size(&types), size(&strings)];
    let description = [&header[..], &types, &strings].concat();
    let mut load = attributes();
    load.__bindgen_anon_7.btf = address(description.as_ptr());
    load.__bindgen_anon_7.btf_size = size(&description);
    bpf(bpf_cmd::BPF_BTF_LOAD, &mut load).map(descriptor)
}

/// Attaches a program to a cgroup, beside others (`BPF_F_ALLOW_MULTI`): it stays until the cgroup is removed, whatever
/// becomes of this process.
///
/// # Errors
///
/// As bpf(2) for `BPF_PROG_ATTACH`: `EPERM` also where an ancestor cgroup forbids programs below it.
pub fn attach(program: &impl AsFd, cgroup: &impl AsFd, attach_type: bpf_attach_type) -> io::Result<()> {
    let mut attributes = attributes();
    attributes.__bindgen_anon_5.attach_bpf_fd = number(program);
    attributes.__bindgen_anon_5.__bindgen_anon_1.target_fd = number(cgroup);
    attributes.__bindgen_anon_5.attach_type = attach_type as u32;
    attributes.__bindgen_anon_5.attach_flags = BPF_F_ALLOW_MULTI;
    bpf(bpf_cmd::BPF_PROG_ATTACH, &mut attributes).map(drop)
}

/// Takes a program off a cgroup that it was attached to with [`attach`].
///
/// # Errors
///
/// As bpf(2) for `BPF_PROG_DETACH`: `ENOENT` where it isn't attached there, be it that somebody else has taken it off.
pub fn detach(program: &impl AsFd, cgroup: &impl AsFd, attach_type: bpf_attach_type) -> io::Result<()> {
    let mut attributes = attributes();
    attributes.__bindgen_anon_5.attach_bpf_fd = number(program);
    attributes.__bindgen_anon_5.__bindgen_anon_1.target_fd = number(cgroup);
    attributes.__bindgen_anon_5.attach_type = attach_type as u32;
    bpf(bpf_cmd::BPF_PROG_DETACH, &mut attributes).map(drop)
}

/// Attaches something to a cgroup in this way, and finds out what it puts out of force there. The kernel asks a program with
/// `BPF_F_ALLOW_OVERRIDE` only where there is none further down (`compute_effective_progs`). Returns what attaching does, and the
/// ids of the programs that are not asked any more.
///
/// # Errors
///
/// As attaching, and as bpf(2) for `BPF_PROG_QUERY`: `EPERM` without `CAP_NET_ADMIN`, `ENOSPC` if there are more than anybody
/// attaches.
pub fn displacing<T>(
    cgroup: &impl AsFd,
    attach_type: bpf_attach_type,
    attach: impl FnOnce() -> io::Result<T>,
) -> io::Result<(T, Vec<u32>)> {
    let before = effective(cgroup, attach_type)?;
    let attached = attach()?;
    let after = effective(cgroup, attach_type)?;
    Ok((attached, before.into_iter().filter(|id| !after.contains(id)).collect()))
}

/// The ids of the programs that are asked about what is done in a cgroup, those of its ancestors included.
fn effective(cgroup: &impl AsFd, attach_type: bpf_attach_type) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; 256];
    let mut attributes = attributes();
    attributes.query.__bindgen_anon_1.target_fd = number(cgroup);
    attributes.query.attach_type = attach_type as u32;
    attributes.query.query_flags = BPF_F_QUERY_EFFECTIVE;
    attributes.query.prog_ids = address(ids.as_mut_ptr());
    attributes.query.__bindgen_anon_2.prog_cnt = u32::try_from(ids.len()).expect("a small constant");
    bpf(bpf_cmd::BPF_PROG_QUERY, &mut attributes)?;
    // SAFETY: the kernel has filled in how many there are.
    let count = unsafe { attributes.query.__bindgen_anon_2.prog_cnt };
    Ok(ids.into_iter().take(count as usize).collect())
}

/// Attaches a program to a cgroup by a link, beside others: it stays until the last reference to the link is gone, a pin
/// being one, or the cgroup is removed. Nobody can detach or replace it by `BPF_PROG_DETACH` or `BPF_PROG_ATTACH`.
///
/// # Errors
///
/// As bpf(2) for `BPF_LINK_CREATE`: `EINVAL` before Linux 5.7.
pub fn link(program: &impl AsFd, cgroup: &impl AsFd, attach_type: bpf_attach_type) -> io::Result<OwnedFd> {
    let mut attributes = attributes();
    attributes.link_create.__bindgen_anon_1.prog_fd = number(program);
    attributes.link_create.__bindgen_anon_2.target_fd = number(cgroup);
    attributes.link_create.attach_type = attach_type as u32;
    bpf(bpf_cmd::BPF_LINK_CREATE, &mut attributes).map(descriptor)
}

/// What a link connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkEnds {
    /// The link's own id.
    pub link: u32,
    /// The program's id.
    pub program: u32,
    /// The cgroup's id, which is the inode of its folder; 0 once it is removed and nothing belongs to it any more, sockets
    /// included.
    pub cgroup: u64,
}

/// Asks the kernel what a link of a program to a cgroup connects.
///
/// # Errors
///
/// As bpf(2) for `BPF_OBJ_GET_INFO_BY_FD`.
pub fn link_ends(link: BorrowedFd<'_>) -> io::Result<LinkEnds> {
    // SAFETY: plain integers.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    let mut attributes = attributes();
    attributes.info.bpf_fd = number(&link);
    attributes.info.info_len = u32::try_from(size_of_val(&info)).expect("a small constant");
    attributes.info.info = address(&raw mut info);
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    // SAFETY: plain integers, which the kernel has filled in for a link to a cgroup and which are 0 otherwise.
    let cgroup = unsafe { info.__bindgen_anon_1.cgroup.cgroup_id };
    Ok(LinkEnds { link: info.id, program: info.prog_id, cgroup })
}

/// Gives a program, map or link a name in a bpf file system, which keeps it for as long as it is there.
///
/// # Errors
///
/// As bpf(2) for `BPF_OBJ_PIN`: `EPERM` for a name with a dot, or a folder that is in no bpf file system.
pub fn pin(object: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    let mut attributes = attributes();
    attributes.__bindgen_anon_4.bpf_fd = number(&object);
    attributes.__bindgen_anon_4.pathname = address(path.as_ptr());
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attributes).map(drop)
}

/// Opens a program, map or link by its name in a bpf file system.
///
/// # Errors
///
/// As bpf(2) for `BPF_OBJ_GET`.
pub fn open_pinned(path: &CStr) -> io::Result<OwnedFd> {
    let mut attributes = attributes();
    attributes.__bindgen_anon_4.pathname = address(path.as_ptr());
    bpf(bpf_cmd::BPF_OBJ_GET, &mut attributes).map(descriptor)
}

/// The first element of an array map, which has values of `size` bytes.
///
/// # Errors
///
/// As bpf(2) for `BPF_MAP_LOOKUP_ELEM`.
pub fn first_element(map: BorrowedFd<'_>, size: u32) -> io::Result<Vec<u8>> {
    // The kernel copies whole words.
    let mut value = vec![0; size.next_multiple_of(8) as usize];
    let key = 0_u32;
    let mut attributes = attributes();
    attributes.__bindgen_anon_2.map_fd = number(&map);
    attributes.__bindgen_anon_2.key = address(&raw const key);
    attributes.__bindgen_anon_2.__bindgen_anon_1.value = address(value.as_mut_ptr());
    bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attributes)?;
    value.truncate(size as usize);
    Ok(value)
}

/// Asks the kernel what it knows a program by.
///
/// # Errors
///
/// As bpf(2) for `BPF_OBJ_GET_INFO_BY_FD`.
pub fn identify(program: BorrowedFd<'_>) -> io::Result<ProgramIdentity> {
    // SAFETY: plain integers.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    let mut attributes = attributes();
    attributes.info.bpf_fd = number(&program);
    attributes.info.info_len = u32::try_from(size_of_val(&info)).expect("a small constant");
    attributes.info.info = address(&raw mut info);
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(ProgramIdentity { id: info.id, tag: info.tag })
}

/// Writes `count` elements into a map with one call. The keys and values lie one after the other.
///
/// # Errors
///
/// As bpf(2) for `BPF_MAP_UPDATE_BATCH`.
pub fn fill_map(map: BorrowedFd<'_>, keys: &[u8], values: &[u8], count: u32) -> io::Result<()> {
    let mut attributes = attributes();
    attributes.batch.map_fd = number(&map);
    attributes.batch.keys = address(keys.as_ptr());
    attributes.batch.values = address(values.as_ptr());
    attributes.batch.count = count;
    bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attributes).map(drop)
}

/// Makes a map's content unchangeable from user space, for good.
///
/// # Errors
///
/// As bpf(2) for `BPF_MAP_FREEZE`.
pub fn freeze_map(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = attributes();
    attributes.__bindgen_anon_2.map_fd = number(&map);
    bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attributes).map(drop)
}

/// Runs a classifier once on a packet and returns what it returned (`BPF_PROG_TEST_RUN`).
///
/// # Errors
///
/// As bpf(2): `EINVAL` for a packet shorter than an Ethernet header.
pub fn test_run(program: BorrowedFd<'_>, packet: &[u8]) -> io::Result<u32> {
    let mut attributes = attributes();
    attributes.test.prog_fd = number(&program);
    attributes.test.data_in = address(packet.as_ptr());
    attributes.test.data_size_in = u32::try_from(packet.len()).expect("a short packet");
    attributes.test.repeat = 1;
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attributes)?;
    // SAFETY: the kernel has filled in the result.
    Ok(unsafe { attributes.test.retval })
}
