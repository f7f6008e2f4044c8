//! Somebody outside who says something in ICMP errors: they quote what a socket is said to have sent.

use std::{io, os::fd::OwnedFd};

use crate::sys::socket::{send_to, socket};

use super::{
    attempt::{LOOPBACK, LOOPBACK6, v4, v6},
    protocol::checksum,
};

/// To whom the socket has sent, as the errors have it.
pub const TO: [u8; 4] = [127, 0, 0, 2];
/// At which port, where nobody listens.
pub const DISCARD: u16 = 9;

/// Sockets by which errors are sent.
pub struct Errors {
    four: OwnedFd,
    six: Option<OwnedFd>,
}

impl Errors {
    /// Makes them. IPv6 may be missing.
    ///
    /// # Errors
    ///
    /// As socket(2).
    pub fn new() -> io::Result<Self> {
        let four = socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)?;
        Ok(Self { four, six: socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6).ok() })
    }

    /// Says to the UDP socket at a port of 127.0.0.1 and [::1] that nobody was there to get this, at [`TO`] and [::1].
    pub fn tell(&self, port: u16, what: &str) {
        let length = u16::try_from(8 + what.len()).expect("short");
        let udp = [&port.to_be_bytes()[..], &DISCARD.to_be_bytes(), &length.to_be_bytes(), &[0, 0], what.as_bytes()];
        let udp = udp.concat();
        let whole = (20 + length).to_be_bytes();
        let header = [&[0x45, 0][..], &whole, &[0, 1, 0, 0, 64, 17, 0, 0], &LOOPBACK, &TO].concat();
        // Nobody is at that port.
        let mut error = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &header, &udp].concat();
        let sum = checksum(&error).to_be_bytes();
        error[2..4].copy_from_slice(&sum);
        let _ = send_to(&self.four, &error, 0, &v4(LOOPBACK, 0));
        if let Some(six) = &self.six {
            let header = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[17, 64], &LOOPBACK6, &LOOPBACK6].concat();
            let error = [&[1, 4, 0, 0, 0, 0, 0, 0][..], &header, &udp].concat();
            let _ = send_to(six, &error, 0, &v6(LOOPBACK6, 0));
        }
    }
}
