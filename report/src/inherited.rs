//! Sockets and devices that a command was handed at its start.

use std::{fmt, os::fd::RawFd, path::PathBuf};

use policy::strict::object;
use serde::{Deserialize, Serialize};

use crate::Word;

/// A descriptor that the command inherits.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Inherited {
    /// The descriptor's number.
    pub fd: RawFd,
    /// What it stands for.
    #[serde(flatten, deserialize_with = "object")]
    pub object: Object,
}

/// What a descriptor stands for.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Object {
    /// A socket.
    Socket {
        /// What it is, as /proc names it: `socket:[12345]`.
        socket: String,
        /// `inet`, `inet6`, `unix` or another family.
        family: Option<String>,
        /// The address that it is bound to.
        local: Option<String>,
        /// The address that it is connected to.
        peer: Option<String>,
    },
    /// A device.
    Device {
        /// The path by which it was opened.
        device: Option<PathBuf>,
        /// `b` or `c`.
        #[serde(rename = "type")]
        kind: Word,
        /// Major number.
        major: u64,
        /// Minor number.
        minor: u64,
    },
}

impl Inherited {
    /// Whether it is a standard stream, and a socket of another family than Unix's: what it reaches, or who reaches it, no rule of the
    /// policy has a say in.
    #[must_use]
    pub fn is_network_stream(&self) -> bool {
        let family = match &self.object {
            Object::Socket { family, .. } => family.as_deref(),
            Object::Device { .. } => return false,
        };
        self.stream().is_some() && family != Some("unix")
    }

    /// What a standard stream is called.
    fn stream(&self) -> Option<&'static str> {
        usize::try_from(self.fd).ok().and_then(|fd| STREAMS.get(fd)).copied()
    }
}

/// The standard streams, by their numbers.
const STREAMS: [&str; 3] = ["standard input", "standard output", "standard error"];

/// For people.
impl fmt::Display for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stream() {
            Some(stream) => f.write_str(stream)?,
            None => write!(f, "descriptor {}", self.fd)?,
        }
        match &self.object {
            Object::Socket { family, local, peer, .. } => {
                write!(f, " is a socket of the family {}", family.as_deref().unwrap_or("that guard-run doesn't know"))?;
                match (peer, local) {
                    (Some(peer), _) => write!(f, ", connected to {peer}"),
                    (None, Some(local)) => write!(f, ", bound to {local}"),
                    (None, None) => Ok(()),
                }
            }
            Object::Device { kind, major, minor, .. } => write!(f, " is a device ({kind} {major}:{minor})"),
        }
    }
}
