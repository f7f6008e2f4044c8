//! What the kernel side remembers of denials, without losing one.
//!
//! Each denial has an identity: the hook, the rule, the process, its thread's name and the subject ([`Key`]). A hash map per noun counts
//! the denials of each identity ([`Tally`]); the key of each new one also goes through the ring buffer, so that the
//! launcher can look at the process while it is there. The first byte of a key, the hook's number, and its size tell its `S`. Per-hook counters ([`Counters`]) stay exact when a
//! hash map is full.

use crate::{RuleSet, device, name, net, socket, sysctl, unix};

/// Has the compiler list the variants of an enum whose numbers index tables, so that none is forgotten.
macro_rules! numbered {
    ($(#[$attribute:meta])* pub enum $name:ident { $($(#[$document:meta])* $variant:ident,)+ }) => {
        $(#[$attribute])*
        pub enum $name { $($(#[$document])* $variant,)+ }

        impl $name {
            /// Every one, in the order of its number.
            pub const ALL: [Self; [$(Self::$variant),+].len()] = [$(Self::$variant),+];
        }
    };
}

numbered! {
    /// The hooks of the kernel that guard-run attaches programs to. The numbers index the counters.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    #[repr(u8)]
    pub enum Hook {
        /// `BPF_CGROUP_INET4_CONNECT`
        Connect4,
        /// `BPF_CGROUP_INET6_CONNECT`
        Connect6,
        /// `BPF_CGROUP_INET4_BIND`
        Bind4,
        /// `BPF_CGROUP_INET6_BIND`
        Bind6,
        /// `BPF_CGROUP_UDP4_SENDMSG`
        Sendmsg4,
        /// `BPF_CGROUP_UDP6_SENDMSG`
        Sendmsg6,
        /// `BPF_CGROUP_INET_INGRESS`
        Ingress,
        /// `BPF_CGROUP_INET_EGRESS`
        Egress,
        /// `BPF_CGROUP_INET_SOCK_CREATE`
        SockCreate,
        /// `BPF_CGROUP_SOCK_OPS`
        SockOps,
        /// `BPF_CGROUP_GETSOCKOPT`
        Getsockopt,
        /// `BPF_CGROUP_SETSOCKOPT`
        Setsockopt,
        /// `BPF_CGROUP_UNIX_CONNECT`
        ConnectUnix,
        /// `BPF_CGROUP_UNIX_SENDMSG`
        SendmsgUnix,
        /// `BPF_LSM_CGROUP` at the LSM hook of this name
        UnixStreamConnect,
        /// `BPF_LSM_CGROUP` at the LSM hook of this name
        UnixMaySend,
        /// `BPF_CGROUP_DEVICE`
        Device,
        /// `BPF_CGROUP_SYSCTL`
        Sysctl,
    }
}

impl Hook {
    /// The hook's name in the kernel's attach types, the log and `bpftool`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Bind4 => "bind4",
            Self::Bind6 => "bind6",
            Self::Sendmsg4 => "sendmsg4",
            Self::Sendmsg6 => "sendmsg6",
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::SockCreate => "sock_create",
            Self::SockOps => "sock_ops",
            Self::Getsockopt => "getsockopt",
            Self::Setsockopt => "setsockopt",
            Self::ConnectUnix => "connect_unix",
            Self::SendmsgUnix => "sendmsg_unix",
            Self::UnixStreamConnect => "unix_stream_connect",
            Self::UnixMaySend => "unix_may_send",
            Self::Device => "device",
            Self::Sysctl => "sysctl",
        }
    }

    /// Whether there are ways round the hook: int 0x80 and a ring made by 32-bit io_uring_setup(2) skip those for socket
    /// options (do_sock_getsockopt and do_sock_setsockopt in net/socket.c, with `compat`).
    #[must_use]
    pub const fn is_advisory(self) -> bool {
        matches!(self, Self::Getsockopt | Self::Setsockopt)
    }

    /// The kinds of subjects that denials of this hook are about. The keys of each kind have another size.
    #[must_use]
    pub const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Connect4
            | Self::Connect6
            | Self::Bind4
            | Self::Bind6
            | Self::Sendmsg4
            | Self::Sendmsg6
            | Self::SockOps => &[Kind::Net],
            Self::Ingress | Self::Egress => &[Kind::Net, Kind::Name],
            Self::SockCreate => &[Kind::Socket],
            Self::Getsockopt | Self::Setsockopt => &[Kind::Sockopt],
            Self::ConnectUnix | Self::SendmsgUnix | Self::UnixStreamConnect | Self::UnixMaySend => &[Kind::Unix],
            Self::Device => &[Kind::Device],
            Self::Sysctl => &[Kind::Sysctl],
        }
    }

    /// The hook with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }
}

numbered! {
    /// The kinds of subjects that denials are about. Each kind has a map that counts its denials. The numbers index what is kept for
    /// each of these maps.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(u32)]
    pub enum Kind {
        /// Peers, and own addresses.
        Net,
        /// Sockets.
        Socket,
        /// Socket options.
        Sockopt,
        /// Unix sockets.
        Unix,
        /// Devices.
        Device,
        /// Kernel tunables.
        Sysctl,
        /// Host names.
        Name,
    }
}

/// From so many identities on, processes and threads are not told apart any more in new ones: three quarters of what there is room for in a map of
/// denials.
pub const SHORT: u64 = 3072;

/// What stands for the process in an identity that is several processes'. No process has such an id (`PID_MAX_LIMIT`,
/// include/linux/threads.h).
pub const SEVERAL: u32 = u32::MAX;

/// What one hook of a guard has done, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that the policy allows.
    pub allowed: u64,
    /// Requests that the policy denies (in audit mode: would have).
    pub denied: u64,
    /// Of those denied, the ones that no [`Tally`] counts, since the map was full or had no memory for it.
    pub unrecorded: u64,
    /// New keys that found the ring buffer full: counted, but seen by the launcher only at the end.
    pub late: u64,
    /// Of those denied and unrecorded, the ones that could not be judged, since the program lacked a table or the kernel did not tell
    /// enough.
    pub unjudged: u64,
    /// Of those denied, the ones that the policy does not want to hear of ([`Unreported`]). No [`Tally`] counts them.
    pub unreported: u64,
}

const _: () = assert!(size_of::<Counters>() == 48);

/// The rules whose denials are counted, and not recorded (`"report": false`), in the programs' read-only data.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreported {
    /// 1: there are some. The verifier drops the rest of this where there are none.
    any: u32,
    /// Always 0.
    padding: u32,
    /// Those of the section that denials of a kind are about, indexed by [`Kind`].
    rules: [RuleSet; Kind::ALL.len()],
}

const _: () = assert!(size_of::<Unreported>() == 8 + 32 * Kind::ALL.len());

impl Unreported {
    /// Every denial is recorded.
    pub const NONE: Self = Self { any: 0, padding: 0, rules: [RuleSet::NONE; Kind::ALL.len()] };

    /// Adds rules of the section that denials of a kind are about.
    pub fn add(&mut self, kind: Kind, rules: &RuleSet) {
        let all = &mut self.rules[kind as usize];
        *all = all.or(rules);
        self.any |= u32::from(*rules != RuleSet::NONE);
    }

    /// Whether denials of a kind by this rule ([`crate::Decision::rule`]) are not recorded. What no rule decided always is.
    #[inline(always)]
    #[must_use]
    pub fn has(&self, kind: Kind, rule: u16) -> bool {
        self.any != 0 && self.rules.get(kind as usize).is_some_and(|rules| rules.contains(rule as usize))
    }
}

/// Identity of a denial.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key<S> {
    /// [`Hook`], as its number.
    pub hook: u8,
    /// Always 0.
    pub padding: u8,
    /// [`crate::Decision::rule`].
    pub rule: u16,
    /// [`thread()`] of the thread's name. Test runners that run many tests in a process name a thread after each.
    pub thread: [u32; 2],
    /// The process (thread group) in the initial pid namespace, or [`SEVERAL`].
    pub pid: u32,
    /// What it wanted.
    pub subject: S,
}

/// What stands for a thread's name in an identity. Two names that have the same are counted under the first.
#[inline(always)]
#[must_use]
pub const fn thread(comm: [u64; 2]) -> [u32; 2] {
    // An odd number with as many ones as zeros (2^64 divided by the golden ratio), so that each bit of a name counts.
    let mixed = comm[0].wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ comm[1];
    let [a, b, c, d, e, f, g, h] = mixed.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

/// Subject of a network denial.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetSubject {
    /// The peer.
    pub address: net::Address,
    /// The peer's port, in host byte order.
    pub port: u16,
    /// [`net::Op`], as its number.
    pub op: u8,
    /// Always 0.
    pub padding: u8,
    /// The `IPPROTO_*` number of the socket's protocol, none of which is larger.
    pub protocol: u16,
    /// The port of this host's at which something is received, in host byte order; 0 for all that is not received.
    pub local_port: u16,
}

/// Subject of a device denial: the request itself.
pub type DeviceSubject = device::Request;

/// Subject of a denied socket: the request itself.
pub type SocketSubject = socket::Request;

/// Subject of a sockopt denial.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SockoptSubject {
    /// [`crate::sockopt::Request::level`].
    pub level: i32,
    /// [`crate::sockopt::Request::option`].
    pub option: i32,
    /// [`crate::sockopt::Request::access`].
    pub access: u32,
    /// How many bytes the value has: the one that was to be set, or the one that the kernel had found.
    pub length: i32,
    /// The first 16 bytes of the value that was to be set, in order, filled up with zeros. In words, for the reason that
    /// [`Tally::comm`] is.
    pub value: [u64; 2],
}

/// Subject of a sysctl denial.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SysctlSubject {
    /// [`sysctl::Access`], as its number.
    pub access: u32,
    /// What `bpf_sysctl_get_new_value` returned: how many bytes of `value` a write tried to set, or -E2BIG where they are
    /// more than fit, or another error where there are none.
    pub length: i32,
    /// The name; empty where it was too long to be read.
    pub name: sysctl::Name,
    /// The bytes that a write tried to set, in order, filled up with NULs. In words, for the reason that [`Tally::comm`]
    /// is.
    pub value: [u64; sysctl::VALUE_WORDS],
}

/// Subject of a Unix socket denial.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnixSubject {
    /// [`unix::Op`], as its number.
    pub op: u32,
    /// [`unix::Kind`], as its number.
    pub kind: u16,
    /// How many bytes the name has.
    pub length: u16,
    /// The name, as in [`unix::Peer`]; empty where it could not be found out.
    pub name: unix::Name,
}

/// Subject of what was refused because of a name: a query, an answer, or a TLS connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NameSubject {
    /// The name, back to front, filled up with NULs; empty where it could not be read.
    pub text: name::Text,
    /// The type of the records that were asked for; 0 for a connection.
    pub kind: u16,
    /// 1: a connection.
    pub connects: u16,
    /// The peer's port, in host byte order.
    pub port: u16,
    /// Always 0.
    pub padding: u16,
    /// The peer's address: a nameserver's, or a server's.
    pub address: net::Address,
}

const _: () = assert!(size_of::<Key<NameSubject>>() == 40 + name::ROOM);

impl NameSubject {
    /// Nothing is known yet.
    pub const BLANK: Self =
        Self { text: [0; name::ROOM], kind: 0, connects: 0, port: 0, padding: 0, address: net::Address::UNSPECIFIED6 };
}
/// What denials are about.
pub trait Subject {
    /// The subject's kind.
    const KIND: Kind;
}

macro_rules! subjects {
    ($($subject:ty: $kind:ident,)+) => {
        $(impl Subject for $subject {
            const KIND: Kind = Kind::$kind;
        })+
    };
}

subjects! {
    NetSubject: Net,
    NameSubject: Name,
    UnixSubject: Unix,
    DeviceSubject: Device,
    SysctlSubject: Sysctl,
    SocketSubject: Socket,
    SockoptSubject: Sockopt,
}

const _: () = assert!(size_of::<Key<NetSubject>>() == 40);
const _: () = assert!(size_of::<Key<DeviceSubject>>() == 32);
const _: () = assert!(size_of::<Key<SocketSubject>>() == 32);
const _: () = assert!(size_of::<Key<SockoptSubject>>() == 48);
const _: () = assert!(size_of::<Key<SysctlSubject>>() == 24 + sysctl::NAME_LEN + 8 * sysctl::VALUE_WORDS);
const _: () = assert!(size_of::<Key<UnixSubject>>() == 24 + unix::NAME_LEN);

/// Who made a socket; for an accepted connection, the socket that listened. What a socket does outside system calls (the
/// kernel receives for it, and sends again what was lost) is put down to this process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The process (thread group) in the initial pid namespace. 0: the kernel made the socket.
    pub pid: u32,
    /// The process's real user id in the initial user namespace.
    pub uid: u32,
    /// The name of its thread: its bytes in order, filled up with NULs.
    pub comm: [u64; 2],
}

const _: () = assert!(size_of::<Owner>() == 24);

/// How often an identity was denied, when, and to whom.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Number of denials.
    pub count: u64,
    /// Time of the first, in nanoseconds of `CLOCK_BOOTTIME`.
    pub first: u64,
    /// Time of the last.
    pub last: u64,
    /// Real user id of the process at the first denial, in the initial user namespace.
    pub uid: u32,
    /// Always 0.
    pub padding: u32,
    /// Name of the thread at the first denial: its bytes in order, filled up with NULs. In words, which a BPF program
    /// clears and copies eight times as fast.
    pub comm: [u64; 2],
}

const _: () = assert!(size_of::<Tally>() == 48);
