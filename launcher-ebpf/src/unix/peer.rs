//! Unix sockets, by the peer itself: LSM hooks, which see the socket that an address has led to, however it was spelled.
//!
//! What a socket is known by is in structures of the kernel: its abstract name, or the path of its file. Where their
//! fields are, the launcher knows of the running kernel ([`UNIX_PEER`]).

use aya_ebpf::{
    helpers::generated::bpf_probe_read_kernel,
    macros::map,
    maps::{Array, PerCpuArray},
    programs::LsmContext,
};
use common::{
    Decision,
    decision::{NAME_TOO_LONG, NAME_UNKNOWN},
    record::{Hook, UnixSubject},
    unix::{Kind, NAME_LEN, Op, PeerLayout},
};

use super::{SUN_PATH, UNIX_TABLE, UNIX_TALLIES, blank, decide_on, name_length};
use crate::{
    record::{Current, Draft, Ledger},
    rodata::filled,
    verifier::opaque,
};

/// Where the kernel keeps what a peer is known by.
#[unsafe(no_mangle)]
pub static UNIX_PEER: PeerLayout = PeerLayout::UNKNOWN;

/// The most folders and mounts that a path may lead through. A deeper one is denied.
const DEPTH: usize = 40;

/// What is too large for the stack.
pub struct Scratch {
    /// 1 while a program uses it.
    taken: u64,
    /// Where the path begins.
    begin: u64,
    draft: Draft<UnixSubject>,
    /// A path, which grows from the middle towards the beginning. So a part that is as long as can be, read to where a
    /// path may begin, stays within.
    path: [u8; 2 * NAME_LEN],
}

/// One for each CPU. Both hooks are called with a spinlock held, so nothing else runs there meanwhile; on a real-time
/// kernel something may, which is denied then.
#[map]
static UNIX_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// The cgroup of the sandbox: the id of its folder, which the side that attaches the programs sets. 0: it is not said, so that no socket is
/// one of the sandbox's own.
#[map]
static OWN_CGROUP: Array<u64> = Array::with_max_entries(1, 0);

/// The most cgroups that a socket's may be below, the sandbox's among them.
const CGROUP_DEPTH: usize = 32;

/// `unix_stream_connect(struct sock *sock, struct sock *other, struct sock *newsk)`: connect(2) of a stream or seqpacket
/// socket.
#[inline(always)]
pub fn stream_connect(ctx: &LsmContext) -> i32 {
    judge(Hook::UnixStreamConnect, Op::Connect, ctx.arg::<*const u8>(1) as u64)
}

/// `unix_may_send(struct socket *sock, struct socket *other)`: sending a datagram, and connect(2) of a datagram socket.
#[inline(always)]
pub fn may_send(ctx: &LsmContext) -> i32 {
    let other = read(ctx.arg::<*const u8>(1) as u64, filled(&UNIX_PEER).socket_sk);
    judge(Hook::UnixMaySend, Op::Send, other)
}

#[inline(always)]
fn judge(hook: Hook, op: Op, other: u64) -> i32 {
    let Some(ledger) = Ledger::of(hook) else { return 0 };
    let Some(scratch) = UNIX_SCRATCH.get_ptr_mut(0) else { return ledger.deny_unjudged() };
    // SAFETY: the map lives as long as the program, and the mark keeps others off, also those that interrupt this one.
    let scratch = unsafe {
        if exchange(&raw mut (*scratch).taken, 1) != 0 {
            return ledger.deny_unjudged();
        }
        &mut *scratch
    };
    let own = if filled(&UNIX_TABLE).by_own != 0 { is_own(other) } else { 0 };
    scratch.draft = blank(hook, op);
    let decision = match find(other, scratch) {
        0 => {
            let UnixSubject { kind, length, name, .. } = &scratch.draft.key().subject;
            decide_on(Kind::from_number(u32::from(*kind)), u32::from(*length), name, own)
        }
        reason => Some(Decision::fail_closed(reason)),
    };
    let verdict = match decision {
        None => ledger.deny_unjudged(),
        Some(decision) => ledger.conclude(decision, &UNIX_TALLIES, scratch.draft.key(), |_| Current),
    };
    exchange(&raw mut scratch.taken, 0);
    verdict
}

/// 1 if a socket was made in the sandbox's cgroup or in one below it, else 0. Every socket keeps the cgroup that its maker was in then,
/// also if it is handed on since.
#[inline(always)]
fn is_own(sock: u64) -> u32 {
    let layout = filled(&UNIX_PEER);
    // SAFETY: the map lives as long as the program. The number is written before anything runs in the sandbox.
    let sandbox = OWN_CGROUP.get_ptr(0).map_or(0, |id| unsafe { id.read_volatile() });
    if sandbox == 0 {
        return 0;
    }
    let (mut cgroup, mut differs) = (read(sock, layout.sock_cgroup), 1_u64);
    for _ in 0..CGROUP_DEPTH {
        let id = read(read(cgroup, layout.cgroup_folder), layout.folder_id);
        let difference = id ^ sandbox;
        // 0 if and only if one of them is it.
        differs &= (difference | difference.wrapping_neg()) >> 63;
        cgroup = read(cgroup, layout.cgroup_parent);
    }
    opaque(differs ^ 1) as u32 & 1
}

/// Finds out what a socket is known by. Returns the reason if that can't be, or 0.
#[inline(always)]
fn find(sock: u64, scratch: &mut Scratch) -> u16 {
    let layout = filled(&UNIX_PEER);
    let address = read(sock, layout.sock_address);
    if sock == 0 {
        return NAME_UNKNOWN;
    }
    let subject = &mut scratch.draft.key().subject;
    // Another thread may give it a name only now: it was reached without one.
    if address == 0 {
        subject.kind = Kind::UNNAMED.index() as u16;
        return 0;
    }
    let name = address + u64::from(layout.address_name) + SUN_PATH as u64;
    if read(name, 0) as u8 != 0 {
        return find_path(sock, scratch);
    }
    let Some(length) = name_length(read(address, layout.address_length) as u32) else { return NAME_UNKNOWN };
    if !read_bytes(subject.name.as_mut_ptr(), length, name) {
        return NAME_UNKNOWN;
    }
    subject.name[0] = b'@';
    subject.kind = Kind::ABSTRACT.index() as u16;
    subject.length = length as u16;
    0
}

/// Finds out the path of a socket's file from the top of its mount namespace, whatever the root of any process is, as
/// `prepend_path` does (fs/d_path.c). It is where the file is now: renamed folders count by their new name.
#[inline(always)]
fn find_path(sock: u64, scratch: &mut Scratch) -> u16 {
    let layout = filled(&UNIX_PEER);
    let mut dentry = read(sock, layout.sock_dentry);
    let mut mount = read(sock, layout.sock_mount).wrapping_sub(u64::from(layout.mount_vfsmount));
    scratch.begin = NAME_LEN as u64;
    let mut at_top = false;
    for _ in 0..DEPTH {
        if dentry == read(mount, layout.mount_vfsmount + layout.vfsmount_root) {
            let parent = read(mount, layout.mount_parent);
            if parent == mount {
                at_top = true;
                break;
            }
            dentry = read(mount, layout.mount_point);
            mount = parent;
            continue;
        }
        let parent = read(dentry, layout.dentry_parent);
        // A root that isn't the mount's: what is mounted is below a folder that was moved out of it. Also what can't be
        // read, which is 0.
        if parent == dentry {
            return NAME_UNKNOWN;
        }
        let length = read(dentry, layout.dentry_length) as u32;
        // From memory rather than from a register, so that the verifier knows as little of it in each round as in the
        // first, and doesn't follow what comes after the loop for each of them.
        let begin = volatile(&scratch.begin) as u32;
        if length >= NAME_LEN as u32 || begin > NAME_LEN as u32 || length + 1 >= begin {
            return NAME_TOO_LONG;
        }
        let begin = (begin - length - 1) & (NAME_LEN as u32 - 1);
        let part = read(dentry, layout.dentry_name);
        // SAFETY: `begin` is below NAME_LEN, and the part is shorter than that.
        let copied = unsafe {
            let slash = scratch.path.as_mut_ptr().add(begin as usize);
            *slash = b'/';
            read_bytes(slash.add(1), length, part)
        };
        if !copied {
            return NAME_UNKNOWN;
        }
        scratch.begin = u64::from(begin);
        dentry = parent;
    }
    // A mount that is in no namespace any more is at no path. Pointers are in the upper half; -EINVAL is not a pointer.
    let namespace = read(mount, layout.mount_namespace).cast_signed();
    if !at_top || namespace >= -4095 {
        return NAME_UNKNOWN;
    }
    let begin = volatile(&scratch.begin) as u32 & (NAME_LEN as u32 - 1);
    let length = NAME_LEN as u32 - begin;
    let Scratch { draft, path, .. } = scratch;
    let key = draft.key();
    if !read_bytes(key.subject.name.as_mut_ptr(), length, path.as_ptr().wrapping_add(begin as usize) as u64) {
        return NAME_UNKNOWN;
    }
    key.subject.kind = Kind::PATH.index() as u16;
    key.subject.length = length as u16;
    0
}

/// Eight bytes of the kernel's memory; 0 where there is none.
#[inline(always)]
fn read(address: u64, offset: u32) -> u64 {
    let mut value = 0_u64;
    let from = address.wrapping_add(u64::from(offset));
    // SAFETY: writes a word to where it is told, and reads from anywhere; on failure it writes zeros.
    unsafe { bpf_probe_read_kernel((&raw mut value).cast(), 8, from as *const _) };
    value
}

/// Copies bytes of the kernel's memory. False where there are none.
#[inline(always)]
fn read_bytes(to: *mut u8, length: u32, from: u64) -> bool {
    // SAFETY: the verifier holds the length to what there is at `to`; it reads from anywhere.
    unsafe { bpf_probe_read_kernel(to.cast(), length, from as *const _) == 0 }
}

#[inline(always)]
fn volatile(place: &u64) -> u64 {
    // SAFETY: a reference can be read.
    unsafe { core::ptr::from_ref(place).read_volatile() }
}

/// Puts a value into a map and returns what was there, in one step.
#[inline(always)]
fn exchange(place: *mut u64, mut value: u64) -> u64 {
    // SAFETY: the place is an aligned word in a map's value.
    unsafe {
        core::arch::asm!(
            "{value} = xchg_64({place} + 0, {value})",
            value = inout(reg) value,
            place = in(reg) place,
        );
    }
    value
}
