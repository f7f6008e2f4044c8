//! Requests, as logs tell of them, judged by the tables that the kernel judges them by.

use std::{
    ffi::OsStr,
    net::IpAddr,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::Path,
};

use common::{
    Decision, device, net, socket, sockopt,
    sysctl::{self, NAME_LEN},
    unix,
};
use policy::{Machine, SocketProtocol, compile::Tables, parse_sockopt, shared_space};
use report::{Event, Network, Subject};

/// Something that a command asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// To connect, bind, send or receive.
    Peer(Peer),
    /// To have a host name resolved.
    Name(String),
    /// To connect or send to a Unix socket.
    Unix {
        /// What kind of name it has: `unix::Kind`, by its index.
        kind: usize,
        /// The socket's path, or `@` and its abstract name; nothing for one without a name.
        name: Vec<u8>,
        /// Whether it is a socket of the command's own. Logs don't say so.
        own: bool,
    },
    /// To use a device.
    Device(device::Request),
    /// To use a kernel tunable.
    Sysctl {
        /// The tunable's name below /proc/sys, as the kernel spells it.
        name: String,
        /// Whether it is written.
        write: bool,
    },
    /// To make a socket.
    Socket {
        /// `AF_INET` or `AF_INET6`.
        family: u32,
        /// `SOCK_*`.
        kind: u32,
        /// `IPPROTO_*`.
        protocol: u32,
    },
    /// To use a socket option.
    Sockopt {
        /// The option's level.
        level: i32,
        /// The option's number at that level.
        option: i32,
        /// Whether it is set.
        set: bool,
    },
}

/// What is to be done with the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// [`net::Op`], by its index.
    pub op: usize,
    /// `IPPROTO_*`.
    pub protocol: u32,
    /// The peer; for bind, the socket's own address.
    pub address: IpAddr,
    /// The peer's port.
    pub port: u16,
    /// The socket's own port, of what is received.
    pub local_port: Option<u16>,
    /// Whether the peer is a socket of the command's own. Logs don't say so.
    pub own: bool,
}

impl Peer {
    /// The request for `decide()`.
    #[must_use]
    pub fn request(&self) -> net::Request {
        let op = net::Op::ALL[self.op];
        let named = shared_space(self.address);
        let address = match op {
            net::Op::BIND | net::Op::RECEIVE => named,
            _ => net::effective_destination(named, net::Address::UNSPECIFIED6, net::ones_if_equal),
        };
        let own = self.own || op == net::Op::BIND;
        let protocol = net::Protocol::from_ipproto(self.protocol);
        net::Request { op, protocol, address, port: self.port, own: own.into() }
    }

    /// A peer as the log has it. `None` where the operation or the protocol is none that is known.
    fn of_log(op: &str, network: &Network) -> Option<Self> {
        let op = net::Op::ALL.into_iter().find(|known| known.name() == op)?.index();
        let protocol = protocol(&network.protocol)?;
        let Network { address, port, local_port, .. } = *network;
        Some(Self { op, protocol, address, port, local_port, own: false })
    }
}

impl Request {
    /// The request, with a Unix socket's path as rules have it: hooks that see addresses alone have it as the command spelled it, such as
    /// /var/run/nscd/socket.
    #[must_use]
    pub(crate) fn on(self, machine: &impl Machine) -> Self {
        match self {
            Self::Unix { kind, name, own } if name.starts_with(b"/") => {
                let real = machine.real_path(Path::new(OsStr::from_bytes(&name)));
                Self::Unix { kind, name: real.into_os_string().into_vec(), own }
            }
            other => other,
        }
    }

    /// What an event tells of. `None` for a system call, about which there are no rules, and for what is not known by name.
    #[must_use]
    pub fn of_event(event: &Event) -> Option<Self> {
        Some(match &event.subject {
            Subject::Network(network) => Self::Peer(Peer::of_log(&event.op, network)?),
            Subject::Name(name) => Self::Name(name.name.clone()),
            Subject::Unix(unix) => {
                let name = unescaped(&unix.path)?;
                match &*name {
                    b"unnamed" => Self::Unix { kind: unix::Kind::UNNAMED.index(), name: Vec::new(), own: false },
                    [b'@', ..] => Self::Unix { kind: unix::Kind::ABSTRACT.index(), name, own: false },
                    _ => Self::Unix { kind: unix::Kind::PATH.index(), name, own: false },
                }
            }
            Subject::Device(device) => {
                let kind = if device.kind == "b" { device::Type::Block } else { device::Type::Char };
                let access = policy::DeviceAccess::try_from(device.access.clone()).ok()?.bits();
                let (major, minor) = (device.major, device.minor);
                Self::Device(device::Request { kind: kind as u32, access, major, minor })
            }
            Subject::Sysctl(sysctl) => Self::Sysctl { name: sysctl.name.clone(), write: sysctl.access == "w" },
            Subject::Socket(socket) => Self::Socket {
                family: if socket.family == "inet" { socket::INET } else { socket::INET6 },
                kind: match &*socket.kind {
                    "stream" => socket::kind::STREAM,
                    "dgram" => socket::kind::DGRAM,
                    "raw" => socket::kind::RAW,
                    "seqpacket" => socket::kind::SEQPACKET,
                    other => other.parse().ok()?,
                },
                protocol: protocol(&socket.protocol)?,
            },
            Subject::Sockopt(sockopt) => {
                let found = parse_sockopt(&sockopt.level.to_string(), &sockopt.option.to_string()).ok()?;
                Self::Sockopt { level: found.0.0, option: found.1.number, set: sockopt.access == "set" }
            }
            Subject::Call(_) => return None,
        })
    }

    /// The section of policies that judges it.
    #[must_use]
    pub const fn section(&self) -> &'static str {
        match self {
            Self::Peer(_) | Self::Name(_) => "network",
            Self::Unix { .. } => "unix",
            Self::Device(_) => "devices",
            Self::Sysctl { .. } => "sysctls",
            Self::Socket { .. } => "sockets",
            Self::Sockopt { .. } => "sockopts",
        }
    }

    /// What a policy decides. `None` where it has nothing to say: no such section, or no host names.
    #[must_use]
    pub fn judge(&self, tables: &Tables) -> Option<Decision> {
        match self {
            Self::Peer(peer) => {
                let network = tables.network.as_ref()?;
                Some(match peer.local_port.filter(|_| net::Op::ALL[peer.op] == net::Op::RECEIVE) {
                    Some(port) => network.decide_received(&peer.request(), port),
                    None => network.decide(&peer.request()),
                })
            }
            Self::Name(name) => Some(tables.names()?.decide(name)),
            Self::Unix { kind, name, own } => {
                let mut padded = [0; unix::NAME_LEN];
                let Some(room) = padded.get_mut(..name.len()).filter(|_| name.len() < unix::NAME_LEN) else {
                    return Some(Decision::fail_closed(common::decision::NAME_TOO_LONG));
                };
                room.copy_from_slice(name);
                let kind = unix::Kind::from_number(u32::try_from(*kind).unwrap_or(u32::MAX));
                let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
                let own = (*own).into();
                Some(tables.unix.as_ref()?.decide(&unix::Peer { kind, length, name: &padded, own }))
            }
            Self::Device(request) => Some(tables.devices.as_ref()?.decide(request)),
            Self::Sysctl { name, write } => {
                let mut padded = [0; NAME_LEN];
                let Some(room) = padded.get_mut(..name.len()).filter(|_| name.len() < NAME_LEN) else {
                    return Some(Decision::fail_closed(common::decision::NAME_TOO_LONG));
                };
                room.copy_from_slice(name.as_bytes());
                let access = if *write { sysctl::Access::WRITE } else { sysctl::Access::READ };
                Some(tables.sysctls.as_ref()?.decide(&padded, access))
            }
            Self::Socket { family, kind, protocol } => {
                let (family, kind, protocol) = (*family, *kind, *protocol);
                Some(tables.sockets.as_ref()?.decide(&socket::Request { family, kind, protocol, padding: 0 }))
            }
            Self::Sockopt { level, option, set } => {
                let access = if *set { sockopt::access::SET } else { sockopt::access::GET };
                let request = sockopt::Request { level: *level, option: *option, access };
                Some(tables.sockopts.as_ref()?.decide(&request))
            }
        }
    }

    /// Whether a policy allows it.
    #[must_use]
    pub fn is_allowed(&self, tables: &Tables) -> bool {
        self.judge(tables).is_none_or(|decision| decision.allow)
    }
}

/// A protocol's number, from its name or its number as text.
fn protocol(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| Some(text.parse::<SocketProtocol>().ok()?.number()))
}

/// The bytes of a socket's name, from the text of the log, in which odd ones are escaped. `None` where an escape is none of these.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let plain = match byte {
            b'\\' => match rest.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let digits = [rest.next()?, rest.next()?];
                    u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
                }
                other => other,
            },
            byte => byte,
        };
        bytes.push(plain);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_were_before_they_were_escaped() {
        let table: [(&str, Option<&[u8]>); 6] = [
            ("/run/x", Some(b"/run/x")),
            ("@a\\x00b", Some(b"@a\0b")),
            ("/\\xff\\n\\\\", Some(b"/\xff\n\\")),
            ("/ö", Some("/ö".as_bytes())),
            ("/\\x0", None),
            ("/\\", None),
        ];
        for (text, bytes) in table {
            assert_eq!(unescaped(text).as_deref(), bytes, "{text}");
        }
    }
}
