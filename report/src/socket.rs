//! Denied sockets.

use std::fmt;

use common::{
    record::SocketSubject,
    socket::{self, kind},
};
use policy::protocol_name;
use serde::{Deserialize, Serialize};

use crate::{Names, Recorded, Subject, Word};

/// A socket that was not made.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Socket {
    /// `inet` or `inet6`.
    pub family: Word,
    /// `stream`, `dgram`, `raw`, `seqpacket`, or the type's number.
    #[serde(rename = "type")]
    pub kind: String,
    /// `tcp`, `udp`, `icmp` and the like, or the protocol's number.
    pub protocol: String,
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, kind, protocol } = self;
        write!(f, "{family} {kind} {protocol}")
    }
}

impl Recorded for SocketSubject {
    const SECTION: &'static str = "sockets";

    fn op(&self) -> &'static str {
        "socket"
    }

    fn describe(&self, _: &impl Names) -> Subject {
        let kind = match self.kind {
            kind::STREAM => "stream".to_owned(),
            kind::DGRAM => "dgram".to_owned(),
            kind::RAW => "raw".to_owned(),
            kind::SEQPACKET => "seqpacket".to_owned(),
            other => other.to_string(),
        };
        let family = if self.family == socket::INET { "inet" } else { "inet6" };
        Subject::Socket(Socket { family: family.into(), kind, protocol: protocol_name(self.protocol) })
    }
}
