//! What everything sent in a run bears: the run's number, and who sent it.

use crate::address::Host;

/// How all of it begins.
const MAGIC: &[u8; 4] = b"GRFZ";

/// The length of a token.
pub const LENGTH: usize = 16;

/// Who sent something, in which run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// [`crate::program::Program::token`]
    pub run: u32,
    /// `None` is the program.
    pub from: Option<Host>,
    /// The port from which an outsider has sent it.
    pub port: u16,
    /// The port to which an outsider has sent it. A socket may have another one by the time it is read.
    pub to: u16,
}

impl Token {
    /// As it is sent.
    pub fn bytes(self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..8].copy_from_slice(&self.run.to_le_bytes());
        bytes[8] = self.from.map_or(0, Host::number);
        bytes[10..12].copy_from_slice(&self.port.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.to.to_le_bytes());
        bytes
    }

    /// The first one in what was received.
    pub fn find(bytes: &[u8]) -> Option<Self> {
        let token = bytes.windows(LENGTH).find(|window| window.starts_with(MAGIC))?;
        let run = u32::from_le_bytes(token[4..8].try_into().ok()?);
        let port = u16::from_le_bytes(token[10..12].try_into().ok()?);
        let to = u16::from_le_bytes(token[12..14].try_into().ok()?);
        Some(Self { run, from: Host::from_number(token[8]), port, to })
    }
}
