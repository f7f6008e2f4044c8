//! Hosts, addresses and ports of the fuzzer's own small world, and the grammar of addresses that programs name.
//!
//! The program's host has a device to each of two peers. `Allowed` is the one that policies like to allow, `Denied` the one
//! that they like to deny; `Local` is everybody outside the sandbox on the program's own host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// Somebody outside the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Host {
    /// The peer that policies like to allow.
    Allowed,
    /// The peer that policies like to deny.
    Denied,
    /// Processes outside the sandbox on its own host.
    Local,
}

impl Host {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Allowed, Self::Denied, Self::Local];

    /// The host's addresses; of `Local`, the loopback ones.
    pub fn addresses(self) -> &'static [IpAddr] {
        match self {
            Self::Allowed => &[ALLOWED4, ALLOWED6, PUBLIC4, PUBLIC6],
            Self::Denied => &[DENIED4, DENIED6],
            Self::Local => &[LOOPBACK4, LOOPBACK6],
        }
    }

    /// The number by which its datagrams name it.
    pub const fn number(self) -> u8 {
        self as u8 + 1
    }

    /// The host of that number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|host| host.number() == number)
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(a: u16, b: u16, c: u16, h: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, h))
}

/// Of the peer that policies like to allow: private addresses.
pub const ALLOWED4: IpAddr = v4(10, 77, 1, 2);
/// Like [`ALLOWED4`], by IPv6.
pub const ALLOWED6: IpAddr = v6(0xfd77, 1, 0, 2);
/// Of the same peer: addresses that are not private.
pub const PUBLIC4: IpAddr = v4(203, 0, 113, 2);
/// Like [`PUBLIC4`], by IPv6.
pub const PUBLIC6: IpAddr = v6(0x2001, 0xdb8, 1, 2);
/// Of the peer that policies like to deny.
pub const DENIED4: IpAddr = v4(10, 77, 2, 2);
/// Like [`DENIED4`], by IPv6.
pub const DENIED6: IpAddr = v6(0xfd77, 2, 0, 2);
/// 127.0.0.1.
pub const LOOPBACK4: IpAddr = v4(127, 0, 0, 1);
/// `::1`.
pub const LOOPBACK6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// The program's own host, on its devices.
pub const OWN: [IpAddr; 4] = [v4(10, 77, 1, 1), v4(10, 77, 2, 1), v6(0xfd77, 1, 0, 1), v6(0xfd77, 2, 0, 1)];
/// Broadcast and multicast addresses.
pub const MANY: [IpAddr; 8] = [
    v4(255, 255, 255, 255),
    v4(10, 77, 1, 255),
    v4(10, 77, 2, 255),
    v4(127, 255, 255, 255),
    v4(224, 0, 0, 1),
    v4(239, 7, 7, 7),
    v6(0xff02, 0, 0, 1),
    v6(0xff01, 0, 0, 1),
];

/// Whether all who listen get what is sent there.
pub fn is_for_several(ip: &IpAddr) -> bool {
    ip.is_multicast() || MANY.contains(ip)
}
/// The unspecified addresses.
pub const UNSPECIFIED: [IpAddr; 2] = [v4(0, 0, 0, 0), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
/// Addresses that no host has.
const NOBODY: [IpAddr; 4] = [v4(10, 77, 1, 77), v4(192, 0, 2, 1), v6(0xfd77, 1, 0, 0x77), v4(240, 0, 0, 1)];
/// Loopback addresses that are seldom used, and scoped ones.
const ODD: [IpAddr; 4] = [v4(127, 1, 2, 3), v4(127, 0, 0, 0), v4(0, 0, 0, 1), v6(0xfe80, 0, 0, 1)];

/// Ports at which all outside listen, by TCP and UDP.
pub const SERVED: [u16; 3] = [5001, 5002, 53];
/// A port from which outsiders send although they don't listen there.
pub const STRANGE: u16 = 5003;
/// The first of the ports from which outsiders connect; there are 100.
pub const CALLING: u16 = 5100;
/// Ports that programs bind to; policies like to deny the last.
pub const BOUND: [u16; 3] = [6001, 6002, 6003];
/// The first and the last of the ports that the kernel chooses from.
pub const CHOSEN: (u16, u16) = (40000, 40031);
/// The first and the last of the chosen ports that policies like to deny.
pub const CHOSEN_DENIED: (u16, u16) = (40008, 40015);

/// A descriptor of the program's, by its place.
pub type Slot = u8;

/// A port as a program names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Port {
    /// This one.
    Fixed(u16),
    /// The one at which this descriptor's socket is, or was when that was last known.
    Of(Slot),
}

/// An address as a program names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// `AF_INET`, `AF_INET6` (also with an IPv4 address: then it is a mapped one), or `AF_UNSPEC` before either.
    pub family: i32,
    /// The address.
    pub ip: IpAddr,
    /// The port.
    pub port: Port,
    /// The device of a scoped address; 0 for none.
    pub scope: u32,
}

impl Target {
    /// As the kernel takes it, with the number of the port.
    pub fn bytes(&self, port: u16) -> Vec<u8> {
        let family = u16::try_from(self.family).unwrap_or(0).to_ne_bytes();
        let v6 = match (self.family, self.ip) {
            (libc::AF_INET6, IpAddr::V4(v4)) => Some(v4.to_ipv6_mapped()),
            (_, IpAddr::V6(v6)) => Some(v6),
            (_, IpAddr::V4(_)) => None,
        };
        let mut bytes = family.to_vec();
        bytes.extend(port.to_be_bytes());
        match (v6, self.ip) {
            (Some(v6), _) => {
                bytes.extend([0; 4]);
                bytes.extend(v6.octets());
                bytes.extend(self.scope.to_ne_bytes());
            }
            (None, IpAddr::V4(v4)) => {
                bytes.extend(v4.octets());
                bytes.extend([0; 8]);
            }
            (None, IpAddr::V6(_)) => {}
        }
        bytes
    }
}

/// What the kernel says of an address, IPv4 as IPv4.
pub fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let ip = match i32::from(family) {
        libc::AF_INET => IpAddr::V4(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?.into()),
        libc::AF_INET6 => IpAddr::V6(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?.into()),
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

/// An address, by the grammar: those that matter to policies, and those that the kernel reads in a way of its own.
pub fn any_ip(random: &mut Random) -> IpAddr {
    let kind: &[IpAddr] = random.weighted::<&[IpAddr]>(&[
        (8, &UNSPECIFIED),
        (4, &MANY),
        (5, &[LOOPBACK4, LOOPBACK6]),
        (3, &OWN),
        (5, &[ALLOWED4, ALLOWED6]),
        (3, &[PUBLIC4, PUBLIC6]),
        (4, &[DENIED4, DENIED6]),
        (2, &NOBODY),
        (1, &ODD),
    ]);
    random.one(kind)
}

/// An address to send to, which a socket of that family can be given.
pub fn any_destination(random: &mut Random, family: i32) -> Target {
    let slot = random.one(&[0, 0, 1, 2]);
    let port = random.weighted(&[
        (6, Port::Fixed(SERVED[0])),
        (3, Port::Fixed(SERVED[1])),
        (1, Port::Fixed(SERVED[2])),
        (1, Port::Fixed(0)),
        (1, Port::Fixed(BOUND[0])),
        (2, Port::Of(slot)),
    ]);
    fitting(random, family, port)
}

/// A host outside: most are peers.
fn host(random: &mut Random) -> Host {
    random.weighted(&[(4, Host::Allowed), (4, Host::Denied), (1, Host::Local)])
}

/// An IPv4 address of one of those outside.
pub fn peer4(random: &mut Random) -> Ipv4Addr {
    let of = host(random).addresses().iter().filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None });
    random.one(&of.collect::<Vec<_>>())
}

/// Like [`peer4`], by IPv6.
pub fn peer6(random: &mut Random) -> Ipv6Addr {
    let of = host(random).addresses().iter().filter_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None });
    random.one(&of.collect::<Vec<_>>())
}

/// Where one of those outside listens, by that family.
pub fn any_peer(random: &mut Random, family: i32) -> Target {
    let ip = if family == libc::AF_INET { peer4(random).into() } else { peer6(random).into() };
    Target { family, ip, port: Port::Fixed(random.one(&SERVED[..2])), scope: 0 }
}

/// A mapped address to connect to.
pub fn any_mapped(random: &mut Random) -> Target {
    let ip = random.one(&[ALLOWED4, ALLOWED4, DENIED4, LOOPBACK4, PUBLIC4, UNSPECIFIED[0], OWN[0]]);
    let port = random.weighted(&[(4, Port::Fixed(SERVED[0])), (2, Port::Fixed(SERVED[1])), (1, Port::Fixed(0))]);
    Target { family: libc::AF_INET6, ip, port, scope: 0 }
}

/// An address to bind to.
pub fn any_source(random: &mut Random, family: i32) -> Target {
    let port = random.weighted(&[
        (6, Port::Fixed(0)),
        (3, Port::Fixed(BOUND[0])),
        (2, Port::Fixed(BOUND[1])),
        (2, Port::Fixed(BOUND[2])),
        (1, Port::Fixed(CHOSEN_DENIED.0)),
    ]);
    fitting(random, family, port)
}

/// An address of mostly that family, now and then spelled in another way.
fn fitting(random: &mut Random, family: i32, port: Port) -> Target {
    let mut ip = any_ip(random);
    // Most addresses of the other family are refused at once; mapped ones are not.
    for _ in 0..4 {
        let fits = if family == libc::AF_INET { ip.is_ipv4() } else { ip.is_ipv6() || random.percent(50) };
        if fits {
            break;
        }
        ip = any_ip(random);
    }
    let spelled = if ip.is_ipv6() { libc::AF_INET6 } else { family };
    let spelled = random.weighted(&[
        (20, spelled),
        (1, libc::AF_UNSPEC),
        (1, if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }),
    ]);
    let scope = if ip.is_ipv6() && random.percent(25) { 1 + u32::from(random.percent(66)) } else { 0 };
    Target { family: spelled, ip, port, scope }
}
