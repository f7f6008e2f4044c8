//! What the kernel does for a socket beside sending and receiving what it is told to: reports of the groups that it joins, and what others
//! say in ICMP errors. And packets that go elsewhere than their socket, or their header, says.

use std::{ffi::CStr, os::fd::OwnedFd, thread, time::Duration};

use nix::{
    net::if_::if_nametoindex,
    sys::socket::{MsgFlags, recv},
};

use crate::sys::socket::{bind, connect, control, send_message, send_to, set_option, socket};

use super::{
    attempt::{At as _, LOOPBACK, LOOPBACK6, Outcome, Scene, Stop, of_family, tcp, udp, v4, v6},
    error::{DISCARD, TO},
    policies::{DENIED_HOST, GROUP_ALLOWED, NO_ERRORS, NO_GROUPS, OWN_DEVICE, PORT_ON_LOOPBACK},
    protocol::{LO, checksum},
    vector::{Evidence, Vector},
    wire::{ALLOWED, ALLOWED6, DENIED, DENIED6, DEVICE, OWN},
};

const INET: i32 = libc::AF_INET;
const INET6: i32 = libc::AF_INET6;
const IP: i32 = libc::IPPROTO_IP;
const IPV6: i32 = libc::IPPROTO_IPV6;
/// Groups of which policies allow the first ones.
pub const GROUP: [u8; 4] = [239, 1, 2, 3];
const GROUP6: [u8; 16] = [0xff, 0x15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];

// include/uapi/linux/in.h, in6.h, tcp.h, udp.h
const IP_MSFILTER: i32 = 41;
const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_JOIN_SOURCE_GROUP: i32 = 46;
const MCAST_MSFILTER: i32 = 48;
const MCAST_INCLUDE: u32 = 1;
const IP_UNICAST_IF: i32 = 50;
const IPV6_HDRINCL: i32 = 36;
const UDP_CORK: i32 = 1;
/// Data in the first packet, without a cookie.
pub const TCP_FASTOPEN_NO_COOKIE: i32 = 34;

/// How long the kernel may take to send a report.
const REPORTED: Duration = Duration::from_millis(300);

/// Joins a group. Whether others hear of it is seen by those that say something in it.
const fn join(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, NO_GROUPS, attempt).on_the_wire().seen_by(Evidence::Word)
}

/// Says something to the routers.
const fn report(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    join(name, shows, attempt).seen_by(Evidence::Heard)
}

/// Hears somebody who may not be heard.
const fn error(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, NO_ERRORS, attempt).told_by_errors().seen_by(Evidence::Told)
}

/// Sends to the host that is denied.
const fn astray(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, DENIED_HOST, attempt).on_the_wire()
}

/// Reaches this host's own address, by naming none.
const fn own(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, OWN_DEVICE, attempt).on_the_wire()
}

/// Reaches the forbidden port of this host as if it were another one's.
const fn home(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, PORT_ON_LOOPBACK, attempt).on_the_wire()
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    join("group4", "joins a group, of which the routers hear (IP_ADD_MEMBERSHIP)", |_| join4(8)),
    join("group4-user", "the same by an ordinary user", |_| join4(8)).by_user(),
    join("group4-long", "the same by a value that is longer than a page", |_| join4(8192)).under(GROUP_ALLOWED),
    join("group4-any-family", "joins a group (MCAST_JOIN_GROUP)", |_| {
        option(INET, MCAST_JOIN_GROUP, &[request()?, storage(&v4(GROUP, 0))].concat())
    }),
    join("group4-source", "joins a group, as one host sends to it (IP_ADD_SOURCE_MEMBERSHIP)", |_| {
        option(INET, libc::IP_ADD_SOURCE_MEMBERSHIP, &[GROUP, OWN, ALLOWED].concat())
    }),
    join("group6", "joins a group, of which the routers hear (IPV6_ADD_MEMBERSHIP)", |_| {
        option(INET6, libc::IPV6_ADD_MEMBERSHIP, &[&GROUP6[..], &device()?].concat())
    }),
    join("group6-user", "the same by an ordinary user", |_| {
        option(INET6, libc::IPV6_ADD_MEMBERSHIP, &[&GROUP6[..], &device()?].concat())
    })
    .by_user(),
    join("group6-source", "joins a group, as one host sends to it (MCAST_JOIN_SOURCE_GROUP)", |_| {
        let (group, source) = (storage(&v6(GROUP6, 0)), storage(&v6(ALLOWED6, 0)));
        option(INET6, MCAST_JOIN_SOURCE_GROUP, &[request()?, group, source].concat())
    }),
    report("report4", "tells the routers something, spelled as hosts that a group is wanted from", report4),
    report("report4-allowed", "the same by a group that it may join", report4).under(GROUP_ALLOWED),
    report("report6", "tells the routers something by IPv6", report6),
    report("report6-allowed", "the same by a group that it may join", report6).under(GROUP_ALLOWED),
    error("error4", "hears what ICMP errors quote (IP_RECVERR)", |s| hear(s, INET, false)),
    error("error4-connected", "the same by a connected socket", |s| hear(s, INET, true)),
    error("error4-user", "the same by an ordinary user", |s| hear(s, INET, false)).by_user(),
    error("error6", "hears what ICMPv6 errors quote (IPV6_RECVERR)", |s| hear(s, INET6, false)),
    error("error6-connected", "the same by a connected socket", |s| hear(s, INET6, true)),
    astray("header4", "a packet whose header names another host than sendto(2) does (IPPROTO_RAW)", |s| {
        send(&socket(INET, libc::SOCK_RAW, libc::IPPROTO_RAW).at("socket")?, &packet4(s), &v4(DENIED, 0))
    })
    .with_raw_sockets(),
    astray("header4-option", "the same by an option (IP_HDRINCL)", |s| {
        let raw = socket(INET, libc::SOCK_RAW, libc::IPPROTO_ICMP).at("socket")?;
        set_option(&raw, IP, libc::IP_HDRINCL, &1_i32.to_ne_bytes()).at("setsockopt")?;
        send(&raw, &packet4(s), &v4(DENIED, 0))
    })
    .with_raw_sockets(),
    astray("header6", "a packet whose IPv6 header names another host than sendto(2) does (IPPROTO_RAW)", |s| {
        send(&socket(INET6, libc::SOCK_RAW, libc::IPPROTO_RAW).at("socket")?, &packet6(s), &v6(DENIED6, 0))
    })
    .with_raw_sockets(),
    astray("header6-option", "the same by an option (IPV6_HDRINCL)", |s| {
        let raw = socket(INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6).at("socket")?;
        set_option(&raw, IPV6, IPV6_HDRINCL, &1_i32.to_ne_bytes()).at("setsockopt")?;
        send(&raw, &packet6(s), &v6(DENIED6, 0))
    })
    .with_raw_sockets(),
    astray("route4", "a datagram whose header has a source route (IP_OPTIONS)", |s| {
        let udp = udp(INET)?;
        set_option(&udp, IP, libc::IP_OPTIONS, &[&[1, 131, 7, 4][..], &DENIED].concat()).at("setsockopt")?;
        send(&udp, s.token.as_bytes(), &v4(ALLOWED, DISCARD))
    })
    .with_raw_sockets(),
    astray("route6", "a datagram with a routing header (IPV6_RTHDR)", |s| {
        let udp = udp(INET6)?;
        set_option(&udp, IPV6, libc::IPV6_RTHDR, &route6()).at("setsockopt")?;
        send(&udp, s.token.as_bytes(), &v6(ALLOWED6, DISCARD))
    }),
    astray("route6-user", "the same by an ordinary user", |s| {
        let udp = udp(INET6)?;
        set_option(&udp, IPV6, libc::IPV6_RTHDR, &route6()).at("setsockopt")?;
        send(&udp, s.token.as_bytes(), &v6(ALLOWED6, DISCARD))
    })
    .by_user(),
    astray("route6-message", "a datagram that has one by a control message", |s| {
        // Of the types of routing headers, messages take mobile hosts' alone.
        let header = [&[0, 2, 2, 1, 0, 0, 0, 0], &DENIED6[..]].concat();
        let route = control(IPV6, libc::IPV6_RTHDR, &header);
        send_message(&udp(INET6)?, s.token.as_bytes(), &v6(ALLOWED6, DISCARD), &route).at("sendmsg")?;
        Ok(Vec::new())
    }),
    astray("route6-tcp", "a connection whose packets have one, with data in the first (MSG_FASTOPEN)", |s| {
        let tcp = tcp(INET6, 0)?;
        set_option(&tcp, IPV6, libc::IPV6_RTHDR, &route6()).at("setsockopt")?;
        set_option(&tcp, libc::IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, &1_i32.to_ne_bytes()).at("setsockopt")?;
        let flags = libc::MSG_FASTOPEN | libc::MSG_DONTWAIT;
        match send_to(&tcp, s.token.as_bytes(), flags, &v6(ALLOWED6, DISCARD)) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(Vec::new()),
            sent => sent.at("sendto").map(|()| Vec::new()),
        }
    }),
    own("device4-tcp", "TCP to 0.0.0.0 by a named interface: its own address (SO_BINDTODEVICE)", |s| {
        s.tell_by(&bound_to(DEVICE, tcp(INET, 0)?)?, &v4([0; 4], s.port))
    }),
    own("device4-udp", "UDP to 0.0.0.0 by a named interface: its own address (SO_BINDTODEVICE)", |s| {
        s.tell_by(&bound_to(DEVICE, udp(INET)?)?, &v4([0; 4], s.port))
    }),
    own("device4-index", "the same by the interface's number (IP_UNICAST_IF)", |s| by_number(s, index()?, [0; 4])),
    own("device4-message", "the same by a control message (IP_PKTINFO)", |s| by_message(s, index()?, [0; 4])),
    home(
        "home4-device",
        "UDP to another host by the loopback device, and so to this one (SO_BINDTODEVICE)",
        by_loopback,
    ),
    home("home4-user", "the same by an ordinary user", by_loopback).by_user(),
    home("home4-connected", "the same by a connected socket", |s| {
        s.tell_by(&bound_to(c"lo", udp(INET)?)?, &v4(DENIED, s.port))
    }),
    home("home4-index", "the same by the device's number (IP_UNICAST_IF)", |s| {
        by_number(s, LO.cast_unsigned(), DENIED)
    }),
    home("home4-message", "the same by a control message (IP_PKTINFO)", |s| by_message(s, LO.cast_unsigned(), DENIED)),
    home("home4-source", "the same by a source that bind(2) names, in a datagram that waits (IP_FREEBIND)", by_source),
    home("home4-source-user", "the same by an ordinary user", by_source).by_user(),
];

/// A socket that sends by a device of this name alone.
fn bound_to(device: &CStr, socket: OwnedFd) -> Result<OwnedFd, Stop> {
    set_option(&socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, device.to_bytes_with_nul()).at("setsockopt")?;
    Ok(socket)
}

fn by_loopback(scene: &Scene) -> Outcome {
    send(&bound_to(c"lo", udp(INET)?)?, scene.token.as_bytes(), &v4(DENIED, scene.port))
}

/// Keeps back a datagram with its route by the loopback device, and has a connect(2) put the other host's address into it, as its source as well.
fn by_source(scene: &Scene) -> Outcome {
    let (socket, peer) = (bound_to(c"lo", udp(INET)?)?, v4(DENIED, scene.port));
    connect(&socket, &peer).at("connect")?;
    send_to(&socket, scene.token.as_bytes(), libc::MSG_MORE, &[]).at("send")?;
    // So that it can be bound.
    let _nothing = connect(&socket, &of_family(libc::AF_UNSPEC, [0; 4], 0));
    set_option(&socket, IP, libc::IP_FREEBIND, &1_i32.to_ne_bytes()).at("setsockopt")?;
    bind(&socket, &v4(DENIED, 0)).at("bind")?;
    // It fails for want of a route, when the addresses have been written.
    let _nothing = connect(&socket, &peer);
    set_option(&socket, libc::SOL_UDP, UDP_CORK, &0_i32.to_ne_bytes()).at("setsockopt")?;
    Ok(Vec::new())
}

/// Sends a datagram by the device of this number, as the socket's option has it.
fn by_number(scene: &Scene, device: u32, to: [u8; 4]) -> Outcome {
    let udp = udp(INET)?;
    set_option(&udp, IP, IP_UNICAST_IF, &device.to_be_bytes()).at("setsockopt")?;
    send(&udp, scene.token.as_bytes(), &v4(to, scene.port))
}

/// Sends a datagram by the device of this number, as a control message has it.
fn by_message(scene: &Scene, device: u32, to: [u8; 4]) -> Outcome {
    let control = control(IP, libc::IP_PKTINFO, &[device.to_ne_bytes(), [0; 4], [0; 4]].concat());
    send_message(&udp(INET)?, scene.token.as_bytes(), &v4(to, scene.port), &control).at("sendmsg")?;
    Ok(Vec::new())
}

/// The number of the network device.
fn index() -> Result<u32, Stop> {
    if_nametoindex(DEVICE).at("if_nametoindex")
}

fn device() -> Result<[u8; 4], Stop> {
    Ok(index()?.to_ne_bytes())
}

/// How a `struct group_req` and its like begin: the device's number, and four bytes of padding.
fn request() -> Result<Vec<u8>, Stop> {
    Ok([device()?, [0; 4]].concat())
}

/// A `struct sockaddr_storage` of an address.
fn storage(address: &[u8]) -> Vec<u8> {
    let mut bytes = address.to_vec();
    bytes.resize(128, 0);
    bytes
}

/// Sets an option of a UDP socket, at the level of its IP.
fn option(domain: i32, option: i32, value: &[u8]) -> Outcome {
    let level = if domain == INET { IP } else { IPV6 };
    set_option(&udp(domain)?, level, option, value).at("setsockopt")?;
    Ok(Vec::new())
}

/// By a value of so many bytes, of which the kernel looks at the first eight.
fn join4(length: usize) -> Outcome {
    let mut value = [GROUP, OWN].concat();
    value.resize(length, 0);
    option(INET, libc::IP_ADD_MEMBERSHIP, &value)
}

/// The token as addresses of hosts.
fn spelled<const N: usize>(token: &str) -> Vec<[u8; N]> {
    let address = |part: &[u8]| {
        let mut address = [b'.'; N];
        address[..part.len()].copy_from_slice(part);
        address
    };
    token.as_bytes().chunks(N).map(address).collect()
}

fn report4(scene: &Scene) -> Outcome {
    let udp = udp(INET)?;
    set_option(&udp, IP, libc::IP_ADD_MEMBERSHIP, &[GROUP, OWN].concat()).at("setsockopt")?;
    let sources = spelled::<4>(&scene.token);
    let count = u32::try_from(sources.len()).expect("a few");
    let head = [GROUP, OWN, MCAST_INCLUDE.to_ne_bytes(), count.to_ne_bytes()].concat();
    set_option(&udp, IP, IP_MSFILTER, &[head, sources.concat()].concat()).at("choosing sources")?;
    thread::sleep(REPORTED);
    Ok(Vec::new())
}

fn report6(scene: &Scene) -> Outcome {
    let (udp, group) = (udp(INET6)?, [request()?, storage(&v6(GROUP6, 0))].concat());
    set_option(&udp, IPV6, MCAST_JOIN_GROUP, &group).at("setsockopt")?;
    let sources = spelled::<16>(&scene.token);
    let count = u32::try_from(sources.len()).expect("a few");
    let sources = sources.into_iter().map(|source| storage(&v6(source, 0))).collect::<Vec<_>>().concat();
    let filter = [&group[..], &MCAST_INCLUDE.to_ne_bytes(), &count.to_ne_bytes(), &sources].concat();
    set_option(&udp, IPV6, MCAST_MSFILTER, &filter).at("choosing sources")?;
    thread::sleep(REPORTED);
    Ok(Vec::new())
}

/// Waits for an ICMP error, and reads what it quotes.
fn hear(scene: &Scene, domain: i32, connected: bool) -> Outcome {
    let udp = udp(domain)?;
    let (level, errors, own, to) = if domain == INET {
        (IP, libc::IP_RECVERR, v4(LOOPBACK, scene.served), v4(TO, DISCARD))
    } else {
        (IPV6, libc::IPV6_RECVERR, v6(LOOPBACK6, scene.served), v6(LOOPBACK6, DISCARD))
    };
    bind(&udp, &own).at("bind")?;
    if connected {
        connect(&udp, &to).at("connect")?;
    }
    set_option(&udp, level, errors, &1_i32.to_ne_bytes()).at("setsockopt")?;
    let mut buffer = [0; 256];
    // Reading errors never waits.
    for _ in 0..200 {
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        match recv(std::os::fd::AsRawFd::as_raw_fd(&udp), &mut buffer, flags) {
            Ok(length) => return Ok(buffer[..length].to_vec()),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
    Err(Stop::because("no error came"))
}

fn send(socket: &OwnedFd, data: &[u8], address: &[u8]) -> Outcome {
    send_to(socket, data, 0, address).at("sendto")?;
    Ok(Vec::new())
}

/// A UDP header and the token, without a checksum.
fn datagram(scene: &Scene) -> Vec<u8> {
    let data = scene.token.as_bytes();
    let length = u16::try_from(8 + data.len()).expect("short").to_be_bytes();
    [&[0, 7][..], &DISCARD.to_be_bytes(), &length, &[0, 0], data].concat()
}

/// A packet for the host that is allowed, as its header says.
fn packet4(scene: &Scene) -> Vec<u8> {
    let udp = datagram(scene);
    let length = u16::try_from(20 + udp.len()).expect("short").to_be_bytes();
    let mut header = [&[0x45, 0][..], &length, &[0, 0, 0, 0, 64, 17, 0, 0], &OWN, &ALLOWED].concat();
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    [header, udp].concat()
}

/// Like [`packet4`], by IPv6.
fn packet6(scene: &Scene) -> Vec<u8> {
    let udp = datagram(scene);
    let length = u16::try_from(udp.len()).expect("short").to_be_bytes();
    [&[0x60, 0, 0, 0][..], &length, &[17, 64], &ALLOWED6, &ALLOWED6, &udp].concat()
}

/// A routing header by the denied host, with nothing left of it.
fn route6() -> Vec<u8> {
    [&[0, 2, 4, 0, 0, 0, 0, 0], &DENIED6[..]].concat()
}
