//! What the fuzzer and its workers tell each other by a pipe each way.

use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::address::Host;

/// The byte by which the fuzzer says that what a program has asked for is done.
pub const DONE: u8 = 0xa5;
/// How a program to be run begins.
pub const PROGRAM: u8 = b'P';
/// How something begins that a program asks for.
pub const ASK: u8 = b'A';
/// How a worker's first message begins ([`Hello`]).
pub const HELLO: u8 = b'H';
/// How the report on a program begins.
pub const REPORT: u8 = b'R';

/// What a running program asks those outside to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// See to all that has come so far: accept, read, answer.
    Answer,
    /// Send datagrams from this port to the socket that is bound here.
    Datagrams { from: Vec<Host>, port: u16, to: SocketAddr, v6: bool, count: u16 },
    /// Connect to the socket that is bound here.
    Connections { from: Vec<Host>, to: SocketAddr, v6: bool },
}

/// Something that a program received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Received {
    /// Whether it is a connection that was accepted, and not a datagram.
    pub accepted: bool,
    /// Where its socket is bound.
    pub local: (IpAddr, u16),
    /// From where it came, as the kernel says.
    pub peer: (IpAddr, u16),
    /// From whom, as the datagram says.
    pub from: Option<Host>,
}

/// Where a program has had TCP sockets begin to listen, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Listened {
    pub ip: IpAddr,
    pub port: u16,
    pub times: u64,
}

/// For which kind of call a refusal (`EPERM`) was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Refusal {
    Connect,
    Bind,
    Send,
    Socket,
    Set,
    Device,
    Sysctl,
    Get,
    /// connect(2) of a Unix socket.
    ConnectUnix,
    /// A datagram to a Unix socket.
    SendUnix,
    /// An option that the kernel itself refuses to whom lacks a capability.
    SetUnclear,
    /// The failure may have another reason than a denial, or none is reported: of several messages, not all were sent.
    Unclear,
}

/// What a worker says of itself when it has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The capabilities that are in effect, as a bit each.
    pub capabilities: u64,
}

/// How many kinds of refusals there are.
pub const REFUSALS: usize = 12;

/// What a worker reports on a program.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProgramReport {
    /// What each call returned, or its error's number as a negative one; `None` where it was not made.
    pub outcomes: Vec<Option<i32>>,
    /// How many system calls were made.
    pub calls: u64,
    /// Refusals by [`Refusal`].
    pub refused: [u64; REFUSALS],
    /// What was received.
    pub received: Vec<Received>,
    /// Where it has listened.
    pub listened: Vec<Listened>,
    /// How often it may have begun to listen at places that there was no room to note, or that nobody knows.
    pub listened_elsewhere: u64,
    /// Whether it came to its end in time.
    pub finished: bool,
}

impl ProgramReport {
    /// Whether the same calls succeeded, and the others failed for the same reasons.
    pub fn went_like(&self, other: &Self) -> bool {
        let errors = |report: &Self| report.outcomes.iter().map(|got| got.map(|got| got.min(0))).collect::<Vec<_>>();
        self.finished && other.finished && errors(self) == errors(other)
    }
}

/// A message with its kind and its length before it.
pub fn frame(kind: u8, message: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_vec(message).expect("these structures are JSON");
    let mut bytes = vec![kind];
    bytes.extend(u32::try_from(text.len()).expect("short").to_le_bytes());
    bytes.extend(text);
    bytes
}

/// Reads the rest of a message whose kind has been read.
///
/// # Errors
///
/// When the other side is gone, or says something that makes no sense.
pub fn body<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut text = vec![0; u32::from_le_bytes(length) as usize];
    from.read_exact(&mut text)?;
    serde_json::from_slice(&text).map_err(io::Error::from)
}
