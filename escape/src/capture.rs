//! What packets say that were seen outside: who sent what to whom.

use std::net::IpAddr;

use crate::{
    address::{CALLING, Host, SERVED, STRANGE},
    policy::Protocol,
    token::Token,
};

/// A packet of the program's, seen outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    /// At whose device: a peer's, or the loopback device of the program's own host.
    pub at: Host,
    /// TCP only where it begins a connection.
    pub protocol: Protocol,
    pub source: (IpAddr, u16),
    pub destination: (IpAddr, u16),
    /// Whether it has a route of its own, or options that could be one.
    pub routed: bool,
    /// Whether it is a fragment that does not begin with the header of what is carried, so that there are no ports in it.
    pub later: bool,
}

/// Reads a packet from its IP header on. `None` unless it is the program's of that run, and says something new: a datagram,
/// or the beginning of a connection.
pub fn parse(at: Host, run: u32, packet: &[u8]) -> Option<Seen> {
    let headers = Headers::of(packet)?;
    let Headers { source, destination, number, routed, .. } = headers;
    let payload = packet.get(headers.end..)?;
    let ports = |offset: usize| {
        if headers.later {
            return 0;
        }
        payload.get(offset..offset + 2).map_or(0, |port| u16::from_be_bytes([port[0], port[1]]))
    };
    let token = Token::find(packet).filter(|token| token.run == run && token.from.is_none());
    let seen = |protocol, source_port, port| {
        Some(Seen {
            at,
            protocol,
            source: (source, source_port),
            destination: (destination, port),
            routed,
            later: headers.later,
        })
    };
    let outsider = |port| (CALLING..CALLING + 100).contains(&port);
    match i32::from(number) {
        libc::IPPROTO_TCP => {
            const SYN: u8 = 2;
            const ACK: u8 = 16;
            let begins = payload.get(13).is_some_and(|flags| flags & (SYN | ACK) == SYN);
            if begins && !headers.later && !outsider(ports(0)) { seen(Protocol::Tcp, ports(0), ports(2)) } else { None }
        }
        libc::IPPROTO_UDP => {
            // One without content bears no token.
            let outsiders = || SERVED.contains(&ports(0)) || ports(0) == STRANGE || outsider(ports(0));
            let empty = payload.len() == 8 && !headers.later && !outsiders();
            if token.is_some() || empty { seen(Protocol::Udp, ports(0), ports(2)) } else { None }
        }
        libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6 => {
            let request = payload.first().is_some_and(|kind| [8, 128].contains(kind));
            token.filter(|_| request).and_then(|_| seen(Protocol::Icmp, 0, 0))
        }
        libc::IPPROTO_UDPLITE => token.and_then(|_| seen(Protocol::Other, ports(0), ports(2))),
        _ => token.and_then(|_| seen(Protocol::Other, 0, 0)),
    }
}

struct Headers {
    source: IpAddr,
    destination: IpAddr,
    number: u8,
    end: usize,
    routed: bool,
    /// [`Seen::later`]
    later: bool,
}

impl Headers {
    fn of(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::v4(packet),
            6 => Self::v6(packet),
            _ => None,
        }
    }

    fn v4(packet: &[u8]) -> Option<Self> {
        let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
        let end = usize::from(packet[0] & 15) * 4;
        let later = packet.get(6..8)?.iter().fold(0, |all, byte| all << 8 | u16::from(*byte)) & 0x1fff != 0;
        let (source, destination) = (address(12)?, address(16)?);
        Some(Self { source, destination, number: *packet.get(9)?, end, routed: end > 20, later })
    }

    fn v6(packet: &[u8]) -> Option<Self> {
        let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
        let (source, destination) = (address(8)?, address(24)?);
        let (mut number, mut end, mut routed, mut later) = (*packet.get(6)?, 40, false, false);
        // Hop by hop, routing, fragment, destination.
        while !later && [0, 43, 44, 60].contains(&number) {
            routed |= number == 43;
            later |= number == 44 && (packet.get(end + 2)? | packet.get(end + 3)? & 0xf8) != 0;
            let length = if number == 44 { 8 } else { 8 + 8 * usize::from(*packet.get(end + 1)?) };
            number = *packet.get(end)?;
            end += length;
        }
        Some(Self {
            source: source.to_canonical(),
            destination: destination.to_canonical(),
            number,
            end,
            routed,
            later,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_known_by_their_token() {
        let token = Token { run: 7, from: None, port: 0, to: 0 };
        let mut packet = vec![0x45, 0, 0, 44, 0, 0, 0, 0, 64, 17, 0, 0, 10, 77, 1, 1, 10, 77, 2, 2];
        packet.extend([0x9c, 0x40, 0x13, 0x89, 0, 24, 0, 0]);
        packet.extend(token.bytes());
        let seen = parse(Host::Denied, 7, &packet).expect("seen");
        assert_eq!(seen.destination, (crate::address::DENIED4, 5001));
        assert_eq!(seen.source.1, 40000);
        assert_eq!(parse(Host::Denied, 8, &packet), None);
    }

    #[test]
    fn a_route_is_found() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, 43, 64];
        packet.extend([0; 15]);
        packet.push(1);
        packet.extend([0; 15]);
        packet.push(2);
        packet.extend([6, 2, 4, 0, 0, 0, 0, 0]);
        packet.extend([0; 16]);
        packet.extend([0x9c, 0x40, 0x13, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0]);
        let seen = parse(Host::Allowed, 1, &packet).expect("seen");
        assert!(seen.routed && seen.protocol == Protocol::Tcp && seen.destination.1 == 5001);
    }
}
