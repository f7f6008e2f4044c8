//! Programs: lists of system calls, as data that can be sent to a worker, made smaller, and printed.

use serde::{Deserialize, Serialize};

use crate::{
    address::{Host, Port, Slot, Target},
    judge::kind_of,
    show::describe,
    unix::Name,
};

/// How many descriptors a program has places for.
pub const SLOTS: usize = 8;

/// The arguments of socket(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SocketKind {
    /// `AF_INET`, `AF_INET6` or `AF_UNIX`
    pub family: i32,
    /// `SOCK_*`
    pub kind: i32,
    /// `IPPROTO_*`
    pub protocol: i32,
}

impl SocketKind {
    /// Whether it is a Unix socket.
    pub fn is_unix(self) -> bool {
        self.family == libc::AF_UNIX
    }

    /// Whether it is TCP, or MPTCP.
    pub fn is_stream(self) -> bool {
        self.kind == libc::SOCK_STREAM && !self.is_unix()
    }
}

/// By which call something is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Way {
    /// sendto(2)
    Sendto,
    /// sendmsg(2)
    Sendmsg,
    /// sendmmsg(2), three messages
    Sendmmsg,
    /// write(2)
    Write,
    /// sendfile(2)
    Sendfile,
    /// splice(2)
    Splice,
    /// sendto(2), with more than a packet can carry, so that it becomes several fragments.
    Large,
}

/// An option, or a control message: level, number, its name for people, and its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Setting {
    /// `SOL_*`
    pub level: i32,
    /// The option's number.
    pub option: i32,
    /// The tunable's name.
    pub name: String,
    /// The value as it lies in memory.
    pub value: Vec<u8>,
}

impl Setting {
    /// Whether it is an option that the kernel never refuses for want of a capability (`EPERM`): a range of ports, or a group to join.
    pub fn is_everybodys(&self) -> bool {
        match self.level {
            libc::IPPROTO_IP => [35, 36, 39, 42, 51].contains(&self.option),
            libc::IPPROTO_IPV6 => [20, 21, 42].contains(&self.option),
            _ => false,
        }
    }
}

/// What a program asks those outside to do, while it waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ask {
    /// Each of them is to send so many datagrams from this port to the socket.
    Datagrams { from: Vec<Host>, port: Port, to: Slot, count: u16 },
    /// Each of them is to connect to the socket.
    Connections { from: Vec<Host>, to: Slot },
}

/// One call, or several.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Call {
    Socket {
        slot: Slot,
        kind: SocketKind,
    },
    Bind {
        slot: Slot,
        to: Target,
    },
    Connect {
        slot: Slot,
        to: Target,
    },
    /// connect(2) with `AF_UNSPEC`, which undoes one.
    Disconnect {
        slot: Slot,
    },
    Listen {
        slot: Slot,
    },
    Accept {
        slot: Slot,
        into: Slot,
    },
    Shutdown {
        slot: Slot,
        how: i32,
    },
    Close {
        slot: Slot,
    },
    Dup {
        slot: Slot,
        into: Slot,
    },
    Send {
        slot: Slot,
        way: Way,
        to: Option<Target>,
        control: Vec<Setting>,
        flags: i32,
    },
    /// Sends what begins with headers that the program has made up itself, by a raw socket.
    Packet {
        slot: Slot,
        to: Target,
        head: Vec<u8>,
    },
    /// connect(2) by a name of a Unix socket.
    ConnectUnix {
        slot: Slot,
        to: Name,
    },
    /// Sends to a name of a Unix socket.
    SendUnix {
        slot: Slot,
        way: Way,
        to: Name,
    },
    Receive {
        slot: Slot,
    },
    Set {
        slot: Slot,
        setting: Setting,
    },
    /// getsockopt(2) of a number.
    Get {
        slot: Slot,
        level: i32,
        option: i32,
    },
    /// Passes the descriptor through a Unix socket (`SCM_RIGHTS`).
    Pass {
        slot: Slot,
        into: Slot,
    },
    /// Opens /proc/self/fd/N anew.
    Reopen {
        slot: Slot,
        into: Slot,
    },
    /// A child with all descriptors makes these calls; the program waits for it.
    Fork {
        calls: Vec<Call>,
    },
    /// Each of these lists is repeated by a thread of its own, until those outside have done what is asked or each was
    /// repeated so often.
    Race {
        loops: Vec<Vec<Call>>,
        ask: Option<Ask>,
        times: u32,
    },
    Ask(Ask),
    /// Opens a file, and reads it or writes the text to it.
    File {
        path: String,
        write: Option<String>,
        /// Opened as a path alone first (`O_PATH`), and then by /proc/self/fd.
        twice: bool,
    },
}

/// A whole program.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Program {
    /// The number that all it sends bears, another one for each time it runs.
    pub token: u32,
    /// What it does.
    pub calls: Vec<Call>,
}

impl Program {
    /// Every call, those within others, too, in the order in which they are numbered.
    pub fn all(&self) -> Vec<&Call> {
        let mut all = Vec::new();
        for call in &self.calls {
            call.gather(&mut all);
        }
        all
    }

    /// Whether what it does depends on when it does it.
    pub fn races(&self) -> bool {
        self.all().iter().any(|call| matches!(call, Call::Race { .. }))
    }

    /// Whether the kernel may keep back what it sends, until there is more.
    pub fn corks(&self) -> bool {
        self.all().iter().any(|call| match call {
            Call::Send { flags, .. } => flags & libc::MSG_MORE != 0,
            Call::Set { setting, .. } => setting.name.ends_with("CORK"),
            _ => false,
        })
    }

    /// Whether it sends packets with ports that it has made up itself, as part of what it sends.
    pub fn makes_headers(&self) -> bool {
        self.all().iter().any(|call| matches!(call, Call::Socket { kind, .. } if kind.kind == libc::SOCK_RAW))
    }

    /// What its calls are, and what kinds of arguments they have, for telling findings apart.
    pub fn shape(&self) -> Vec<String> {
        let mut shape: Vec<String> = self.all().iter().flat_map(|call| call.sketch()).collect();
        shape.sort_unstable();
        shape.dedup();
        shape
    }
}

impl Call {
    fn gather<'a>(&'a self, all: &mut Vec<&'a Self>) {
        all.push(self);
        match self {
            Self::Fork { calls } => calls.iter().for_each(|call| call.gather(all)),
            Self::Race { loops, .. } => loops.iter().flatten().for_each(|call| call.gather(all)),
            _ => {}
        }
    }

    /// How many numbers it takes: one, and one for each call within it.
    pub fn numbers(&self) -> usize {
        let mut all = Vec::new();
        self.gather(&mut all);
        all.len()
    }

    /// The call with the kinds of its arguments.
    fn sketch(&self) -> Vec<String> {
        let port = |to: &Target| if to.port == Port::Fixed(0) { " port 0" } else { "" };
        let to = |to: &Target| format!("{} {}{}", self.name(), kind_of(to.ip.to_canonical()), port(to));
        match self {
            Self::Socket { kind, .. } if kind.is_stream() => vec![String::from("tcp")],
            Self::Socket { kind: SocketKind { kind: libc::SOCK_DGRAM, protocol: libc::IPPROTO_UDP, .. }, .. } => {
                vec![String::from("udp")]
            }
            Self::Socket { kind, .. } => vec![describe(*kind)],
            Self::Bind { to: target, .. } if target.port == Port::Fixed(0) => {
                vec![format!("bind {} port 0", kind_of(target.ip))]
            }
            Self::Bind { to: target, .. } => vec![format!("bind {}", kind_of(target.ip))],
            Self::Connect { to: target, .. } | Self::Packet { to: target, .. } => vec![to(target)],
            Self::Send { to: target, control, .. } => {
                let mut parts: Vec<String> = control.iter().map(|one| format!("cmsg {}", one.name)).collect();
                parts.push(target.as_ref().map_or_else(|| String::from("send"), to));
                parts
            }
            Self::ConnectUnix { to, .. } | Self::SendUnix { to, .. } => vec![format!("{} {to}", self.name())],
            Self::Set { setting, .. } => vec![format!("set {}", setting.name)],
            _ => vec![self.name().to_owned()],
        }
    }

    /// The call's name, and, in names of their own, the kinds of its arguments that could make it fail.
    pub fn in_detail(&self) -> Vec<String> {
        let name = self.name();
        match self {
            Self::Socket { kind, .. } => vec![format!("{name} {}", describe(*kind))],
            Self::Set { setting, .. } => vec![name.to_owned(), format!("{name} {}", setting.name)],
            Self::Get { level, option, .. } => vec![name.to_owned(), format!("{name} {level}/{option}")],
            Self::Send { way, to, control, .. } => {
                let named = if to.is_some() { ", named" } else { "" };
                let messages = control.iter().map(|one| format!("{name} with {}", one.name));
                std::iter::once(format!("{name} {way:?}{named}")).chain(messages).collect()
            }
            Self::ConnectUnix { to, .. } | Self::SendUnix { to, .. } => vec![name.to_owned(), format!("{name} {to}")],
            Self::File { path, .. } => vec![name.to_owned(), format!("{name} {path}")],
            _ => vec![name.to_owned()],
        }
    }

    /// The call's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Socket { .. } => "socket",
            Self::Bind { .. } => "bind",
            Self::Connect { .. } => "connect",
            Self::Disconnect { .. } => "disconnect",
            Self::Listen { .. } => "listen",
            Self::Accept { .. } => "accept",
            Self::Shutdown { .. } => "shutdown",
            Self::Close { .. } => "close",
            Self::Dup { .. } => "dup",
            Self::Send { .. } => "send",
            Self::Packet { .. } => "packet",
            Self::ConnectUnix { .. } => "connect-unix",
            Self::SendUnix { .. } => "send-unix",
            Self::Receive { .. } => "receive",
            Self::Set { .. } => "set",
            Self::Get { .. } => "get",
            Self::Pass { .. } => "pass",
            Self::Reopen { .. } => "reopen",
            Self::Fork { .. } => "fork",
            Self::Race { .. } => "race",
            Self::Ask(Ask::Datagrams { .. }) => "datagrams-in",
            Self::Ask(Ask::Connections { .. }) => "connections-in",
            Self::File { .. } => "file",
        }
    }
}
