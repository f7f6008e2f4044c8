//! Programs as people read them.

use std::fmt;

use crate::{
    address::{Port, Target},
    program::{Ask, Call, Program, Setting, SocketKind},
};

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.family, self.ip) {
            (libc::AF_INET6, std::net::IpAddr::V4(ip)) => write!(f, "::ffff:{ip}")?,
            (libc::AF_UNSPEC, ip) => write!(f, "AF_UNSPEC {ip}")?,
            (_, ip) => write!(f, "{ip}")?,
        }
        if self.scope != 0 {
            write!(f, "%{}", self.scope)?;
        }
        write!(f, " port {}", self.port)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(port) => write!(f, "{port}"),
            Self::Of(slot) => write!(f, "of {slot}"),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}/{}) = ", self.name, self.level, self.option)?;
        match <[u8; 4]>::try_from(self.value.as_slice()) {
            Ok(number) if i32::from_ne_bytes(number).unsigned_abs() < 1 << 16 => {
                write!(f, "{}", i32::from_ne_bytes(number))
            }
            _ => self.value.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Datagrams { from, port, to, count } => {
                write!(f, "{from:?} send {count} datagrams from port {port} to {to}")
            }
            Self::Connections { from, to } => write!(f, "{from:?} connect to {to}"),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { slot, kind } => {
                write!(f, "{slot} = socket({})", describe(*kind))
            }
            Self::Bind { slot, to } => write!(f, "bind({slot}, {to})"),
            Self::Connect { slot, to } => write!(f, "connect({slot}, {to})"),
            Self::Disconnect { slot } => write!(f, "connect({slot}, AF_UNSPEC)"),
            Self::Listen { slot } => write!(f, "listen({slot})"),
            Self::Accept { slot, into } => write!(f, "{into} = accept({slot})"),
            Self::Shutdown { slot, how } => write!(f, "shutdown({slot}, {how})"),
            Self::Close { slot } => write!(f, "close({slot})"),
            Self::Dup { slot, into } => write!(f, "{into} = dup({slot})"),
            Self::Send { slot, way, to, control, flags } => {
                write!(f, "{}({slot}", format!("{way:?}").to_lowercase())?;
                if let Some(to) = to {
                    write!(f, ", to {to}")?;
                }
                control.iter().try_for_each(|message| write!(f, ", cmsg {message}"))?;
                if *flags != 0 {
                    write!(f, ", flags {flags:#x}")?;
                }
                write!(f, ")")
            }
            Self::Packet { slot, to, head } => {
                write!(f, "packet({slot}, to {to}, ")?;
                head.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                write!(f, ")")
            }
            Self::ConnectUnix { slot, to } => write!(f, "connect({slot}, {to})"),
            Self::SendUnix { slot, way, to } => {
                write!(f, "{}({slot}, to {to})", format!("{way:?}").to_lowercase())
            }
            Self::Receive { slot } => write!(f, "receive({slot})"),
            Self::Set { slot, setting } => write!(f, "setsockopt({slot}, {setting})"),
            Self::Get { slot, level, option } => write!(f, "getsockopt({slot}, {level}/{option})"),
            Self::Pass { slot, into } => write!(f, "{into} = SCM_RIGHTS({slot})"),
            Self::Reopen { slot, into } => write!(f, "{into} = open(/proc/self/fd/{slot})"),
            Self::Fork { calls } => {
                write!(f, "fork {{ ")?;
                calls.iter().try_for_each(|call| write!(f, "{call}; "))?;
                write!(f, "}}")
            }
            Self::Race { loops, ask, times } => {
                write!(f, "race, up to {times} times")?;
                for calls in loops {
                    write!(f, " {{ ")?;
                    calls.iter().try_for_each(|call| write!(f, "{call}; "))?;
                    write!(f, "}}")?;
                }
                ask.iter().try_for_each(|ask| write!(f, " while outside {ask}"))
            }
            Self::Ask(ask) => write!(f, "outside: {ask}"),
            Self::File { path, write, twice } => {
                let by = if *twice { ", by /proc/self/fd" } else { "" };
                match write {
                    None => write!(f, "read({path}{by})"),
                    Some(text) => write!(f, "write({path}{by}, {text:?})"),
                }
            }
        }
    }
}

/// The arguments of socket(2), as people write them.
pub fn describe(SocketKind { family, kind, protocol }: SocketKind) -> String {
    let family = match family {
        libc::AF_INET => "inet",
        libc::AF_INET6 => "inet6",
        _ => "unix",
    };
    let kind = match kind {
        libc::SOCK_STREAM => "stream",
        libc::SOCK_DGRAM => "dgram",
        libc::SOCK_RAW => "raw",
        _ => "seqpacket",
    };
    let protocol = match protocol {
        0 => String::from("0"),
        libc::IPPROTO_TCP => String::from("tcp"),
        libc::IPPROTO_UDP => String::from("udp"),
        libc::IPPROTO_MPTCP => String::from("mptcp"),
        libc::IPPROTO_UDPLITE => String::from("udplite"),
        libc::IPPROTO_ICMP => String::from("icmp"),
        libc::IPPROTO_ICMPV6 => String::from("icmpv6"),
        other => other.to_string(),
    };
    format!("{family}, {kind}, {protocol}")
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.calls.iter().try_for_each(|call| writeln!(f, "      {call}"))
    }
}
