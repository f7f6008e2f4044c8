//! bpf(2) turned against a guard: finding, detaching, replacing and outdoing its programs.

use std::{
    ffi::c_long,
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
};

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_prog_type};

use super::{made, result};

/// More programs than anybody attaches to one hook of a cgroup.
const ENOUGH: usize = 64;

/// The fields of `union bpf_attr` for `BPF_PROG_QUERY`.
#[repr(C)]
struct Query {
    cgroup: u32,
    hook: u32,
    flags: u32,
    attached_with: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// bpf(2)'s attributes for `BPF_PROG_LOAD`.
#[derive(Default)]
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u64; 2],
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// bpf(2)'s attributes for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
struct Attach {
    cgroup: u32,
    program: u32,
    hook: u32,
    flags: u32,
    replaced: u32,
}

/// bpf(2)'s attributes for `BPF_LINK_CREATE`.
#[repr(C)]
struct Link {
    program: u32,
    cgroup: u32,
    hook: u32,
    flags: u32,
}

/// bpf(2)'s attributes for `BPF_PROG_GET_FD_BY_ID` and `BPF_PROG_GET_NEXT_ID`.
#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

fn bpf<T>(command: c_long, attributes: &mut T) -> io::Result<c_long> {
    // SAFETY: the structures above are beginnings of the union; what they point to, their users keep alive.
    result(unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) })
}

fn number(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}

/// A program to put in the way.
#[derive(Clone, Copy, Debug)]
pub enum Program {
    /// Allows everything.
    Allow,
    /// Allows everything, and takes back what others have denied (`bpf_set_retval`).
    Forgive,
    /// Sends every connection to this port.
    Redirect(u16),
}

impl Program {
    fn instructions(self) -> Vec<u64> {
        const ALLOW: u64 = 1 << 32 | 0xb7; // r0 = 1
        const EXIT: u64 = 0x95;
        const SET_RETVAL: u64 = 187 << 32 | 0x85;
        const ZERO: u64 = 1 << 8 | 0xb7; // r1 = 0
        match self {
            Self::Allow => vec![ALLOW, EXIT],
            Self::Forgive => vec![ZERO, SET_RETVAL, ALLOW, EXIT],
            Self::Redirect(port) => {
                let port = u64::from(port.to_be());
                // r2 = port; *(u32 *)(r1 + offsetof(struct bpf_sock_addr, user_port)) = r2
                vec![port << 32 | 2 << 8 | 0xb7, 24 << 16 | 2 << 12 | 1 << 8 | 0x63, ALLOW, EXIT]
            }
        }
    }
}

/// Loads a program for connect(2) on `AF_INET` sockets.
///
/// # Errors
///
/// As bpf(2).
pub fn load(program: Program) -> io::Result<OwnedFd> {
    let kind = bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR;
    let attach_type = Some(bpf_attach_type::BPF_CGROUP_INET4_CONNECT);
    load_program(kind, attach_type, program)
}

/// Loads a program of a kind.
fn load_program(kind: bpf_prog_type, attach_type: Option<bpf_attach_type>, program: Program) -> io::Result<OwnedFd> {
    let instructions = program.instructions();
    let mut attributes = Load {
        kind: kind as u32,
        count: u32::try_from(instructions.len()).expect("a short program"),
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        attach_type: attach_type.map_or(0, |attach_type| attach_type as u32),
        ..Load::default()
    };
    made(bpf(c_long::from(bpf_cmd::BPF_PROG_LOAD as u32), &mut attributes)?)
}

/// Loads a program that could look at every process (`BPF_PROG_TYPE_RAW_TRACEPOINT`).
///
/// # Errors
///
/// As bpf(2).
pub fn load_tracer() -> io::Result<OwnedFd> {
    let kind = bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT;
    load_program(kind, None, Program::Allow)
}

/// The ids of the programs at a hook of a cgroup.
///
/// # Errors
///
/// As bpf(2).
pub fn query(cgroup: &impl AsFd, hook: bpf_attach_type) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; ENOUGH];
    let mut query = Query {
        cgroup: number(cgroup),
        hook: hook as u32,
        flags: 0,
        attached_with: 0,
        ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(ENOUGH).expect("small"),
        padding: 0,
    };
    bpf(16, &mut query)?;
    Ok(ids[..usize::try_from(query.count).expect("small").min(ENOUGH)].to_vec())
}

/// A program by its id.
///
/// # Errors
///
/// As bpf(2).
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    made(bpf(13, &mut ById { id, next: 0, flags: 0 })?)
}

/// The first program of the whole machine that has a greater id.
///
/// # Errors
///
/// As bpf(2); `ENOENT` after the last.
pub fn next_program(id: u32) -> io::Result<u32> {
    let mut attributes = ById { id, next: 0, flags: 0 };
    bpf(11, &mut attributes)?;
    Ok(attributes.next)
}

/// Detaches a program from a hook of a cgroup; with no program named, the only one.
///
/// # Errors
///
/// As bpf(2).
pub fn detach(cgroup: &impl AsFd, hook: bpf_attach_type, program: Option<&OwnedFd>) -> io::Result<()> {
    let program = program.map_or(0, number);
    bpf(9, &mut Attach { cgroup: number(cgroup), program, hook: hook as u32, flags: 0, replaced: 0 }).map(drop)
}

/// Attaches a program beside others (`BPF_F_ALLOW_MULTI`), or in the place of one.
///
/// # Errors
///
/// As bpf(2).
pub fn attach(
    cgroup: &impl AsFd,
    hook: bpf_attach_type,
    program: &OwnedFd,
    replaced: Option<&OwnedFd>,
) -> io::Result<()> {
    const MULTI: u32 = 2;
    const REPLACE: u32 = 4;
    let flags = if replaced.is_some() { MULTI | REPLACE } else { MULTI };
    let replaced = replaced.map_or(0, number);
    let program = number(program);
    bpf(8, &mut Attach { cgroup: number(cgroup), program, hook: hook as u32, flags, replaced }).map(drop)
}

/// Attaches a program by a link, which holds as long as the descriptor.
///
/// # Errors
///
/// As bpf(2).
pub fn link(cgroup: &impl AsFd, hook: bpf_attach_type, program: &OwnedFd) -> io::Result<OwnedFd> {
    let (program, cgroup) = (number(program), number(cgroup));
    made(bpf(28, &mut Link { program, cgroup, hook: hook as u32, flags: 0 })?)
}
