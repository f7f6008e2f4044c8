//! Headers that programs make up themselves, for raw sockets: with options, as fragments, with another packet inside.

use std::net::IpAddr;

use crate::{
    address::{BOUND, OWN, any_ip},
    options,
    random::Random,
};

const UDP: u8 = 17;
/// Extension headers of IPv6.
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const OPTIONS: u8 = 60;
/// IPv4 in IP, IPv6 in IP.
const TUNNELS: [u8; 2] = [4, 41];

/// How much the program sends behind the headers.
const CONTENT: u16 = 16;

/// A UDP header, and before it, if the socket wants the whole packet, an IP header with what may come between.
pub fn head(random: &mut Random, v6: bool, whole: bool, (destination, port): (IpAddr, u16)) -> Vec<u8> {
    let source_port = random.one(&[BOUND[0], BOUND[1], BOUND[2], 40000]);
    let length = 8 + CONTENT;
    let udp = [source_port.to_be_bytes(), port.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    if !whole {
        return udp;
    }
    let packet = ip(random, v6, destination, UDP, &udp);
    // One in another.
    if random.percent(15) {
        let outer = any_ip(random);
        return ip(random, v6, outer, TUNNELS[usize::from(v6)], &packet);
    }
    packet
}

/// An IP header with what it carries behind it.
fn ip(random: &mut Random, v6: bool, destination: IpAddr, carried: u8, body: &[u8]) -> Vec<u8> {
    match (v6, destination) {
        (false, IpAddr::V4(destination)) => {
            let IpAddr::V4(source) = random.one(&OWN[..2]) else { return body.to_vec() };
            let mut options = if random.percent(25) { options::ip_options(random) } else { Vec::new() };
            options.resize(options.len().next_multiple_of(4).min(40), 0);
            let words = u8::try_from(5 + options.len() / 4).unwrap_or(5);
            // More fragments, the second fragment, one that begins within the UDP header.
            let fragment = random.weighted(&[(12, 0_u16), (2, 0x2000), (2, 3), (1, 0x2001)]);
            // The kernel fills in the length and the checksum.
            let mut head = vec![0x40 | words, 0, 0, 0, 0x77, 0x77];
            head.extend(fragment.to_be_bytes());
            head.extend([64, carried, 0, 0]);
            head.extend(source.octets());
            head.extend(destination.octets());
            [head, options, body.to_vec()].concat()
        }
        (true, destination) => {
            let to = match destination {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            let IpAddr::V6(source) = random.one(&OWN[2..]) else { return body.to_vec() };
            let mut between = Vec::new();
            let mut next = carried;
            for _ in 0..random.weighted(&[(6, 0), (3, 1), (2, 2), (1, 4)]) {
                let (number, mut header) = match random.below(3) {
                    0 => (ROUTING, options::route(random)),
                    1 => (FRAGMENT, vec![0, 0, 0, random.weighted(&[(4, 0_u8), (2, 1), (2, 8)]), 0, 0, 0x77, 0x77]),
                    _ => (OPTIONS, vec![0, 0, 1, 4, 0, 0, 0, 0]),
                };
                header[0] = next;
                next = number;
                between = [header, between].concat();
            }
            let length = u16::try_from(between.len() + body.len()).unwrap_or(u16::MAX) + CONTENT;
            let mut head = vec![0x60, 0, 0, 0];
            head.extend(length.to_be_bytes());
            head.extend([next, 64]);
            head.extend(source.octets());
            head.extend(to.octets());
            [head, between, body.to_vec()].concat()
        }
        (false, IpAddr::V6(_)) => body.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        address::{DENIED4, DENIED6, Host},
        capture,
        token::Token,
    };

    #[test]
    fn what_is_made_up_is_understood_as_it_is_meant() {
        let token = Token { run: 3, from: None, port: 0, to: 0 }.bytes();
        for (v6, to) in [(false, DENIED4), (true, DENIED6)] {
            let plain = (0..200).filter(|seed| {
                let packet = [head(&mut Random::new(*seed), v6, true, (to, 5001)), token.to_vec()].concat();
                let seen = capture::parse(Host::Denied, 3, &packet);
                seen.is_some_and(|seen| seen.destination == (to, 5001))
            });
            assert!(plain.count() > 80, "{to}");
        }
    }
}
