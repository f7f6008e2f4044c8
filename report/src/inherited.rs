//! Sockets and devices that a command was handed at its start.

use std::{os::fd::RawFd, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::Word;

/// A descriptor that the command inherits.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Inherited {
    /// Its number.
    pub fd: RawFd,
    /// What it stands for.
    #[serde(flatten)]
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
