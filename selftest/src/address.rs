//! Ways to spell where to connect to, or to send to.

use std::os::fd::OwnedFd;

use crate::sys::socket::{self, bind, connect, control, send_message, send_messages, send_to, set_option};

use super::{
    attempt::{At as _, LOOPBACK, LOOPBACK6, MAPPED, Outcome, Scene, Stop, of_family, tcp, udp, v4, v6},
    policies::{PORT, PORT_AT_ONE_ADDRESS, PORT_ON_LOOPBACK},
    vector::{Evidence, Layer::Hook, Vector},
};

const ANY: [u8; 4] = [0; 4];
const ANY6: [u8; 16] = [0; 16];
const INET: i32 = libc::AF_INET;
const INET6: i32 = libc::AF_INET6;
const BROADCAST: [u8; 4] = [255; 4];
const MULTICAST: [u8; 4] = [224, 0, 0, 1];
const OTHER_LOOPBACK: [u8; 4] = [127, 0, 0, 2];
/// An address for documentation, which no host has (RFC 3849).
const NOWHERE6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// A port at which nobody listens, and which no policy of the self-test forbids.
const DISCARD: u16 = 9;

const fn vector(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, PORT, attempt).stopped_by(Hook)
}

/// A way to the forbidden port on loopback, where the same port elsewhere is allowed.
const fn any(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, PORT_ON_LOOPBACK, attempt).stopped_by(Hook)
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    vector("tcp4", "TCP to 127.0.0.1", Scene::tell),
    vector("tcp4-any", "TCP to 0.0.0.0, which is this host", |s| s.tell_by(&tcp(INET, 0)?, &v4(ANY, s.port))),
    vector("tcp6", "TCP to ::1", |s| s.tell_by(&tcp(INET6, 0)?, &v6(LOOPBACK6, s.port))),
    vector("tcp6-any", "TCP to ::", |s| s.tell_by(&tcp(INET6, 0)?, &v6(ANY6, s.port))),
    vector("tcp6-mapped", "TCP to ::ffff:127.0.0.1", |s| s.tell_by(&tcp(INET6, 0)?, &v6(MAPPED, s.port))),
    vector("tcp6-mapped-any", "TCP to ::ffff:0.0.0.0", |s| {
        s.tell_by(&tcp(INET6, 0)?, &v6([&MAPPED[..12], &ANY].concat().try_into().expect("16 bytes"), s.port))
    }),
    vector("tcp6-scope", "TCP to ::1 with a scope and flow label", |s| {
        let mut address = v6(LOOPBACK6, s.port);
        address[4..8].copy_from_slice(&[0, 1, 2, 3]);
        address[24..28].copy_from_slice(&1_u32.to_ne_bytes());
        s.tell_by(&tcp(INET6, 0)?, &address)
    }),
    vector("tcp4-fast-open", "data in the first packet (MSG_FASTOPEN)", |s| {
        let to = v4(LOOPBACK, s.port);
        send_to(&tcp(INET, 0)?, s.token.as_bytes(), libc::MSG_FASTOPEN, &to).at("sendto")?;
        Ok(Vec::new())
    }),
    vector("tcp6-fast-open", "data in the first packet, to ::ffff:127.0.0.1", |s| {
        let to = v6(MAPPED, s.port);
        send_to(&tcp(INET6, 0)?, s.token.as_bytes(), libc::MSG_FASTOPEN, &to).at("sendto")?;
        Ok(Vec::new())
    }),
    vector("tcp4-fast-open-connect", "a connect that waits for data (TCP_FASTOPEN_CONNECT)", |s| {
        let socket = tcp(INET, 0)?;
        set_option(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &1_i32.to_ne_bytes()).at("setsockopt")?;
        s.tell_by(&socket, &v4(LOOPBACK, s.port))
    }),
    vector("tcp4-again", "a second connect after the first was refused", |s| {
        let socket = tcp(INET, 0)?;
        let _refused = connect(&socket, &v4(LOOPBACK, DISCARD));
        s.tell_by(&socket, &v4(LOOPBACK, s.port))
    }),
    vector("tcp4-unbound", "a connect after taking a connect back (AF_UNSPEC)", |s| {
        let socket = tcp(INET, 0)?;
        let _nothing = connect(&socket, &of_family(libc::AF_UNSPEC, ANY, 0));
        s.tell_by(&socket, &v4(LOOPBACK, s.port))
    }),
    vector("tcp4-options", "TCP with IP options", |s| {
        let socket = tcp(INET, 0)?;
        set_option(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &[1, 1, 1, 0]).at("setsockopt")?;
        s.tell_by(&socket, &v4(LOOPBACK, s.port))
    }),
    vector("tcp4-device", "TCP by a named interface (SO_BINDTODEVICE)", |s| {
        let socket = tcp(INET, 0)?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo\0").at("setsockopt")?;
        s.tell_by(&socket, &v4(LOOPBACK, s.port))
    }),
    vector("tcp4-race", "another thread changes the address while the kernel reads it", race),
    vector("udp4", "a datagram to 127.0.0.1", |s| datagram(s, INET, &v4(LOOPBACK, s.port))),
    vector("udp4-connected", "a connected UDP socket", |s| s.tell_by(&udp(INET)?, &v4(LOOPBACK, s.port))),
    vector("udp4-elsewhere", "a UDP socket connected to one port sends to another", |s| {
        let socket = udp(INET)?;
        connect(&socket, &v4(LOOPBACK, DISCARD)).at("connect to an allowed port")?;
        send_to(&socket, s.token.as_bytes(), 0, &v4(LOOPBACK, s.port)).at("sendto")?;
        Ok(Vec::new())
    }),
    vector("udp4-unspecified", "a datagram to an address of no family (AF_UNSPEC)", |s| {
        datagram(s, INET, &of_family(libc::AF_UNSPEC, LOOPBACK, s.port))
    }),
    vector("udp4-many", "sendmmsg", |s| {
        send_messages(&udp(INET)?, s.token.as_bytes(), &v4(LOOPBACK, s.port)).at("sendmmsg")?;
        Ok(Vec::new())
    }),
    vector("udp4-cork", "a datagram put together from pieces (MSG_MORE)", |s| {
        let (socket, to) = (udp(INET)?, v4(LOOPBACK, s.port));
        let (first, second) = s.token.as_bytes().split_at(4);
        send_to(&socket, first, libc::MSG_MORE, &to).at("sendto")?;
        send_to(&socket, second, 0, &to).at("sendto")?;
        Ok(Vec::new())
    }),
    vector("udp4-segments", "a datagram that the kernel cuts (UDP_SEGMENT)", |s| {
        let socket = udp(INET)?;
        set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, &1000_i32.to_ne_bytes()).at("setsockopt")?;
        send_to(&socket, s.token.as_bytes(), 0, &v4(LOOPBACK, s.port)).at("sendto")?;
        Ok(Vec::new())
    }),
    vector("udp4-pktinfo", "a datagram by a control message's interface (IP_PKTINFO)", |s| {
        let info: Vec<u8> = [1_u32.to_ne_bytes(), LOOPBACK, [0; 4]].concat();
        let control = control(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        send_message(&udp(INET)?, s.token.as_bytes(), &v4(LOOPBACK, s.port), &control).at("sendmsg")?;
        Ok(Vec::new())
    }),
    vector("udp4-pktinfo-source", "a datagram to 0.0.0.0, which a control message makes the forbidden address", |s| {
        let info: Vec<u8> = [[0; 4], LOOPBACK, [0; 4]].concat();
        let control = control(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        let socket = udp(INET)?;
        bind(&socket, &v4(OTHER_LOOPBACK, 0)).at("bind")?;
        send_message(&socket, s.token.as_bytes(), &v4(ANY, s.port), &control).at("sendmsg")?;
        Ok(Vec::new())
    })
    .under(PORT_AT_ONE_ADDRESS),
    any("tcp4-any-broadcast", "TCP to 0.0.0.0, bound to 255.255.255.255", |s| bound_tell(s, &tcp(INET, 0)?, BROADCAST)),
    any("tcp4-any-multicast", "TCP to 0.0.0.0, bound to 224.0.0.1", |s| bound_tell(s, &tcp(INET, 0)?, MULTICAST)),
    any("udp4-any-broadcast", "UDP connected to 0.0.0.0, bound to 255.255.255.255", |s| {
        bound_tell(s, &udp(INET)?, BROADCAST)
    }),
    any("udp4-any-broadcast-send", "a datagram to 0.0.0.0, bound to 255.255.255.255", |s| {
        let socket = udp(INET)?;
        bind(&socket, &v4(BROADCAST, 0)).at("bind")?;
        send_to(&socket, s.token.as_bytes(), 0, &v4(ANY, s.port)).at("sendto")?;
        Ok(Vec::new())
    }),
    any("udp6-route", "a datagram with a route of its own (IPV6_RTHDR)", |_| {
        let socket = udp(INET6)?;
        routed(&socket)?;
        send_to(&socket, b"x", 0, &v6(NOWHERE6, DISCARD)).at("sendto")?;
        Ok(Vec::new())
    })
    .seen_by(Evidence::Word),
    any("udp6-route-connected", "a connected UDP socket whose packets have a route of their own", |_| {
        let socket = udp(INET6)?;
        routed(&socket)?;
        connect(&socket, &v6(NOWHERE6, DISCARD)).at("connect")?;
        send_to(&socket, b"x", 0, &[]).at("send")?;
        Ok(Vec::new())
    })
    .seen_by(Evidence::Word),
    vector("udp6", "a datagram to ::1", |s| datagram(s, INET6, &v6(LOOPBACK6, s.port))),
    vector("udp6-mapped", "a datagram to ::ffff:127.0.0.1", |s| datagram(s, INET6, &v6(MAPPED, s.port))),
    vector("udp6-inet", "an IPv6 socket sends to an IPv4 address", |s| datagram(s, INET6, &v4(LOOPBACK, s.port))),
    vector("udp6-connected-mapped", "an IPv6 UDP socket connected to ::ffff:127.0.0.1", |s| {
        s.tell_by(&udp(INET6)?, &v6(MAPPED, s.port))
    }),
    vector("udp6-connected-inet", "an IPv6 UDP socket connected to an IPv4 address", |s| {
        s.tell_by(&udp(INET6)?, &v4(LOOPBACK, s.port))
    }),
    vector("udp6-header", "a datagram with an extension header (IPV6_DSTOPTS)", |s| {
        let control = control(libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, &[0, 0, 1, 4, 0, 0, 0, 0]);
        send_message(&udp(INET6)?, s.token.as_bytes(), &v6(LOOPBACK6, s.port), &control).at("sendmsg")?;
        Ok(Vec::new())
    }),
];

/// Binds a socket to an address at which it only receives, and says the token to "this host".
fn bound_tell(scene: &Scene, socket: &OwnedFd, bound: [u8; 4]) -> Outcome {
    bind(socket, &v4(bound, 0)).at("bind")?;
    scene.tell_by(socket, &v4(ANY, scene.port))
}

/// Has a socket's packets go to `::1` first, by a routing header in which no segments are left.
fn routed(socket: &OwnedFd) -> Result<(), Stop> {
    let header: Vec<u8> = [&[0, 2, 4, 0, 0, 0, 0, 0], &LOOPBACK6[..]].concat();
    set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RTHDR, &header).at("setsockopt")
}

fn datagram(scene: &Scene, domain: i32, address: &[u8]) -> Outcome {
    send_to(&udp(domain)?, scene.token.as_bytes(), 0, address).at("sendto")?;
    Ok(Vec::new())
}

/// How often the race is run: a kernel that read the address twice would lose it within a few hundred.
const RUNS: u32 = 3000;

fn race(scene: &Scene) -> Outcome {
    let ports = [scene.port, DISCARD];
    match socket::race(ports, RUNS, &v4(LOOPBACK, DISCARD), || tcp(INET, 0).ok()) {
        Some(socket) => scene.send(&socket),
        None => Err(Stop::because("no connect went through")),
    }
}
