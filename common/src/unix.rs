//! Unix sockets: who connects to which peer, or sends it a datagram.

use crate::{
    Decision, RuleSet,
    decision::{DEFAULT, Verdicts},
    glob::{Node, START, State},
};

/// Room for a peer's name. Paths are absolute, so they can be longer than the 108 bytes of an address; one that doesn't
/// fit is denied ([`crate::decision::NAME_TOO_LONG`]), not cut.
pub const NAME_LEN: usize = 256;

/// The bytes of a peer's name, filled up with NULs: a path from its `/` on, or `@` and an abstract name.
pub type Name = [u8; NAME_LEN];

/// What kind of name a peer has. A number rather than an enum, for the reason that [`crate::net::Protocol`] is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(u32);

/// How many values [`Kind::index`] has; a power of two.
pub const KINDS: usize = 4;

impl Kind {
    /// None: the peer is the other end of a socketpair(2), or was never bound.
    pub const UNNAMED: Self = Self(0);
    /// A socket file.
    pub const PATH: Self = Self(1);
    /// A name of the abstract namespace.
    pub const ABSTRACT: Self = Self(2);

    /// The kind of that number.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// The kind as an index below [`KINDS`].
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize & (KINDS - 1)
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Op {
    /// connect(2), also of a datagram socket.
    Connect = 0,
    /// Sending a datagram.
    Send = 1,
}

/// The socket at the other end.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// What kind of name it has.
    pub kind: Kind,
    /// How many bytes of the name there are. An abstract name may have NULs among them.
    pub length: u32,
    /// The name.
    pub name: &'a Name,
    /// 1: it is a socket that the same sandbox has made; else 0.
    pub own: u32,
}

/// The part of the compiled unix section that has a fixed size.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// What the rules say.
    pub verdicts: Verdicts,
    /// How many bytes of a name the automaton has to read until no further one matters: 0 where no verdict depends on
    /// one, [`NAME_LEN`] at the most.
    pub steps: u32,
    /// The number of the automaton's states, a power of two, less one.
    pub state_mask: u32,
    /// 1: a peer's kind matters to some verdict, if not its name.
    pub by_kind: u32,
    /// 1: some rule is about the sandbox's own sockets.
    pub by_own: u32,
    /// Those rules.
    pub own: RuleSet,
    /// 1 for the kinds of peers whose names the automaton has to read: `by_name[kind]`.
    pub by_name: [u32; KINDS],
    /// The rules that hold for all peers of a kind: `whole[kind]`.
    pub whole: [RuleSet; KINDS],
}

const _: () = assert!(size_of::<Table>() == 104 + 32 * KINDS);

impl Table {
    /// No rules, everything denied: what the programs are compiled with.
    pub const DENY_ALL: Self = Self {
        verdicts: Verdicts::DENY_ALL,
        steps: 0,
        state_mask: 0,
        by_kind: 0,
        by_own: 0,
        own: RuleSet::NONE,
        by_name: [0; KINDS],
        whole: [RuleSet::NONE; KINDS],
    };
}

/// Where the kernel keeps the address of a socket hook: offsets in `struct bpf_sock_addr_kern` (include/linux/filter.h),
/// to which the hook's context really points, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressLayout {
    /// `uaddr`: a pointer to the address, which is a copy in the kernel.
    pub address: u32,
    /// `uaddrlen`: its length.
    pub length: u32,
}

const _: () = assert!(size_of::<AddressLayout>() == 8);

impl AddressLayout {
    /// The layout of Linux 6.7 and all since. It is good enough to report in an event what was asked for; what decides by it has to
    /// ask the kernel's BTF.
    pub const USUAL: Self = Self { address: 8, length: 32 };
}

/// Where the kernel keeps what a peer is known by: offsets in its structures, in bytes, by the kernel's BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLayout {
    /// `struct socket`, `sk`.
    pub socket_sk: u32,
    /// `struct unix_sock`, `addr`: the address that it is bound to. (A `struct sock` is the first member of that.)
    pub sock_address: u32,
    /// `struct unix_sock`, `path.mnt`: the mount in which its file was made.
    pub sock_mount: u32,
    /// `struct unix_sock`, `path.dentry`: its file's name there.
    pub sock_dentry: u32,
    /// `struct unix_address`, `len`: the length of the address.
    pub address_length: u32,
    /// `struct unix_address`, `name`: the address itself, a `struct sockaddr_un`.
    pub address_name: u32,
    /// `struct dentry`, `d_parent`.
    pub dentry_parent: u32,
    /// `struct dentry`, `d_name.len`.
    pub dentry_length: u32,
    /// `struct dentry`, `d_name.name`.
    pub dentry_name: u32,
    /// `struct vfsmount`, `mnt_root`: the root of what is mounted.
    pub vfsmount_root: u32,
    /// `struct mount`, `mnt`: the `struct vfsmount` in it.
    pub mount_vfsmount: u32,
    /// `struct mount`, `mnt_parent`: the mount that it is mounted on, or itself.
    pub mount_parent: u32,
    /// `struct mount`, `mnt_mountpoint`: where it is mounted in its parent.
    pub mount_point: u32,
    /// `struct mount`, `mnt_ns`: the mount namespace that it is in, if it is in any.
    pub mount_namespace: u32,
    /// `struct sock`, `sk_cgrp_data.cgroup`: the cgroup of the process that made it, at that time.
    pub sock_cgroup: u32,
    /// `struct cgroup`, `self.parent`: the cgroup around it, or null. (`self` is the first member of that.)
    pub cgroup_parent: u32,
    /// `struct cgroup`, `kn`: its folder.
    pub cgroup_folder: u32,
    /// `struct kernfs_node`, `id`: the folder's inode number.
    pub folder_id: u32,
}

const _: () = assert!(size_of::<PeerLayout>() == 72);

impl PeerLayout {
    /// What the programs are compiled with.
    pub const UNKNOWN: Self = Self {
        socket_sk: 0,
        sock_address: 0,
        sock_mount: 0,
        sock_dentry: 0,
        address_length: 0,
        address_name: 0,
        dentry_parent: 0,
        dentry_length: 0,
        dentry_name: 0,
        vfsmount_root: 0,
        mount_vfsmount: 0,
        mount_parent: 0,
        mount_point: 0,
        mount_namespace: 0,
        sock_cgroup: 0,
        cgroup_parent: 0,
        cgroup_folder: 0,
        folder_id: 0,
    };
}

/// The parts of the compiled unix section that are looked up by value.
pub trait Lookup {
    /// The automaton's state of that number, or some other one for a number that none has.
    fn node(&self, number: State) -> &Node;
    /// The state that a byte leads to.
    fn next(&self, number: State, byte: u32) -> State;
}

/// What the automaton reads for a NUL within a name: a byte that no rule can contain, since rules are UTF-8, but that a
/// wildcard stands for. So `@a` is not the socket whose name is `a` and a NUL.
const INNER_NUL: u32 = 0xff;

/// Judges a request. Connecting and sending are the same to the rules.
///
/// A peer without a name can only be reached through a descriptor that one already has, so a default doesn't concern it:
/// only rules that name such peers do.
#[inline(always)]
#[must_use]
pub fn decide(table: &Table, lookup: &impl Lookup, peer: &Peer) -> Decision {
    let kind = peer.kind.index();
    let whole = &table.whole[kind];
    let mut accepted = None;
    if table.steps != 0 && table.by_name[kind] != 0 {
        let mut state = START;
        // As in [`crate::sysctl::decide`], no branch depends on the name.
        for (step, byte) in (0_u32..).zip(peer.name) {
            if step >= table.steps {
                break;
            }
            let byte = u32::from(*byte);
            // Both are 1 or 0: the differences are negative, as 32 bits hold them, or small.
            let (is_nul, is_inside) = (byte.wrapping_sub(1) >> 31, step.wrapping_sub(peer.length) >> 31);
            let read = byte.wrapping_sub(is_nul & is_inside) & INNER_NUL;
            state = lookup.next(state, read);
        }
        accepted = Some(&lookup.node(state).accepted);
    }
    // All ones or 0.
    let own = u64::from(peer.own & table.by_own & 1).wrapping_neg();
    let matching =
        |index| whole.word(index) | table.own.word(index) & own | accepted.map_or(0, |rules| rules.word(index));
    let decision = table.verdicts.of_first(matching);
    if kind == Kind::UNNAMED.index() && decision.rule == DEFAULT {
        return Decision { allow: true, rule: DEFAULT };
    }
    decision
}
