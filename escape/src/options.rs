//! The grammar of socket options and control messages, with values that the kernel is likely to take.

use std::net::IpAddr;

use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP, SOL_SOCKET};

use crate::{
    address::{CHOSEN, CHOSEN_DENIED, MANY, OWN, any_ip, peer4, peer6},
    program::Setting,
    random::Random,
};

/// `SOL_MPTCP`, `SOL_UDPLITE` (include/linux/socket.h)
const SOL_MPTCP: i32 = 284;
const SOL_UDPLITE: i32 = 136;

/// What kind of value an option takes.
#[derive(Clone, Copy)]
enum Value {
    /// Any of these numbers.
    Number(&'static [i32]),
    /// The name of a device.
    Device,
    /// The index of a device.
    Index,
    /// The index of a device, in network byte order.
    IndexBig,
    /// An IPv4 address, twice, and a device's index: `ip_mreqn`, or `in_pktinfo` the other way round.
    Group4,
    /// An IPv6 address and a device's index: `in6_pktinfo` and `ipv6_mreq`.
    Group6,
    /// `in_pktinfo`: a device's index, the source address, any address.
    PacketInfo,
    /// IPv4 options, a route among them.
    Options,
    /// A routing header.
    Route,
    /// A header of options for the destination or each hop.
    Extension,
    /// Control messages that IPv6 takes as an option's value.
    Messages,
    /// A range of ports, as `IP_LOCAL_PORT_RANGE` takes it.
    Range,
    /// Two numbers: `SO_LINGER`, `SO_TXTIME`.
    Pair,
    /// A multicast address of IPv4, the own address on a device and its index: `ip_mreqn`.
    Member4,
    /// A multicast address of IPv6 and a device's index: `ipv6_mreq`.
    Member6,
    /// A multicast address of IPv4, the own address, and that of the sender: `ip_mreq_source`.
    Source4,
    /// What cookies are made with: `TCP_FASTOPEN_KEY`.
    Key,
    /// An IPv6 address with its family, as `IPV6_NEXTHOP` takes it.
    Name6,
    /// A flow label's request, with control messages behind it.
    FlowLabel,
    /// An address of either family in a `sockaddr_storage` behind a device's index: `MCAST_JOIN_GROUP`.
    GroupAny,
}

use Value::{
    Device, Extension, FlowLabel, Group4, Group6, GroupAny, Index, IndexBig, Key, Member4, Member6, Messages, Name6,
    Number, Options, PacketInfo, Pair, Range, Route, Source4,
};

const FLAG: Value = Number(&[1, 1, 0]);
const SMALL: Value = Number(&[0, 1, 2, 3, 16, 64, 255]);

/// How often, level, number, name, value.
const OPTIONS: &[(usize, i32, i32, &str, Value)] = &[
    (3, SOL_SOCKET, libc::SO_REUSEADDR, "SO_REUSEADDR", FLAG),
    (3, SOL_SOCKET, libc::SO_REUSEPORT, "SO_REUSEPORT", FLAG),
    (3, SOL_SOCKET, libc::SO_BROADCAST, "SO_BROADCAST", FLAG),
    (6, SOL_SOCKET, libc::SO_BINDTODEVICE, "SO_BINDTODEVICE", Device),
    (3, SOL_SOCKET, 62, "SO_BINDTOIFINDEX", Index),
    (1, SOL_SOCKET, libc::SO_DONTROUTE, "SO_DONTROUTE", FLAG),
    (1, SOL_SOCKET, libc::SO_KEEPALIVE, "SO_KEEPALIVE", FLAG),
    (1, SOL_SOCKET, libc::SO_LINGER, "SO_LINGER", Pair),
    (1, SOL_SOCKET, libc::SO_MARK, "SO_MARK", SMALL),
    (1, SOL_SOCKET, libc::SO_PRIORITY, "SO_PRIORITY", SMALL),
    (1, SOL_SOCKET, libc::SO_INCOMING_CPU, "SO_INCOMING_CPU", SMALL),
    (1, SOL_SOCKET, libc::SO_TIMESTAMP, "SO_TIMESTAMP", FLAG),
    (1, SOL_SOCKET, libc::SO_ZEROCOPY, "SO_ZEROCOPY", FLAG),
    (1, SOL_SOCKET, libc::SO_PEEK_OFF, "SO_PEEK_OFF", SMALL),
    (1, SOL_SOCKET, libc::SO_RXQ_OVFL, "SO_RXQ_OVFL", FLAG),
    (1, SOL_SOCKET, libc::SO_OOBINLINE, "SO_OOBINLINE", FLAG),
    (1, SOL_SOCKET, libc::SO_NO_CHECK, "SO_NO_CHECK", FLAG),
    (1, SOL_SOCKET, 74, "SO_TXREHASH", FLAG),
    (1, SOL_SOCKET, 37, "SO_TIMESTAMPING", SMALL),
    (1, SOL_SOCKET, 61, "SO_TXTIME", Pair),
    (1, SOL_SOCKET, 47, "SO_MAX_PACING_RATE", Number(&[1000, -1])),
    (1, SOL_SOCKET, 46, "SO_BUSY_POLL", SMALL),
    (1, SOL_SOCKET, 69, "SO_PREFER_BUSY_POLL", FLAG),
    (1, SOL_SOCKET, 53, "SO_CNX_ADVICE", FLAG),
    (1, SOL_SOCKET, 44, "SO_LOCK_FILTER", FLAG),
    (1, SOL_SOCKET, libc::SO_SNDBUF, "SO_SNDBUF", Number(&[0, 4096])),
    (1, SOL_SOCKET, libc::SO_RCVBUF, "SO_RCVBUF", Number(&[0, 4096])),
    (1, SOL_SOCKET, libc::SO_RCVLOWAT, "SO_RCVLOWAT", SMALL),
    (2, IPPROTO_IP, libc::IP_TOS, "IP_TOS", SMALL),
    (2, IPPROTO_IP, libc::IP_TTL, "IP_TTL", SMALL),
    (4, IPPROTO_IP, libc::IP_OPTIONS, "IP_OPTIONS", Options),
    (1, IPPROTO_IP, libc::IP_RETOPTS, "IP_RETOPTS", FLAG),
    (1, IPPROTO_IP, libc::IP_PKTINFO, "IP_PKTINFO", FLAG),
    (1, IPPROTO_IP, libc::IP_MTU_DISCOVER, "IP_MTU_DISCOVER", Number(&[0, 1, 2, 3, 4, 5])),
    (1, IPPROTO_IP, libc::IP_RECVERR, "IP_RECVERR", FLAG),
    (2, IPPROTO_IP, libc::IP_FREEBIND, "IP_FREEBIND", FLAG),
    (1, IPPROTO_IP, libc::IP_TRANSPARENT, "IP_TRANSPARENT", FLAG),
    (1, IPPROTO_IP, libc::IP_MINTTL, "IP_MINTTL", SMALL),
    (1, IPPROTO_IP, libc::IP_NODEFRAG, "IP_NODEFRAG", FLAG),
    (2, IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, "IP_BIND_ADDRESS_NO_PORT", FLAG),
    (1, IPPROTO_IP, libc::IP_MULTICAST_IF, "IP_MULTICAST_IF", Group4),
    (1, IPPROTO_IP, libc::IP_MULTICAST_TTL, "IP_MULTICAST_TTL", SMALL),
    (1, IPPROTO_IP, libc::IP_MULTICAST_LOOP, "IP_MULTICAST_LOOP", FLAG),
    (1, IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, "IP_ADD_MEMBERSHIP", Member4),
    (1, IPPROTO_IP, 42, "MCAST_JOIN_GROUP", GroupAny),
    (1, IPPROTO_IP, libc::IP_MULTICAST_ALL, "IP_MULTICAST_ALL", FLAG),
    (6, IPPROTO_IP, 50, "IP_UNICAST_IF", IndexBig),
    (2, IPPROTO_IP, 51, "IP_LOCAL_PORT_RANGE", Range),
    (1, IPPROTO_IP, libc::IP_HDRINCL, "IP_HDRINCL", FLAG),
    (1, IPPROTO_IP, 39, "IP_ADD_SOURCE_MEMBERSHIP", Source4),
    (1, IPPROTO_IP, 36, "IP_DROP_MEMBERSHIP", Member4),
    (1, IPPROTO_IP, 5, "IP_ROUTER_ALERT", FLAG),
    (1, IPPROTO_IP, 6, "IP_RECVOPTS", FLAG),
    (1, IPPROTO_IP, 20, "IP_RECVORIGDSTADDR", FLAG),
    (1, IPPROTO_IP, 23, "IP_CHECKSUM", FLAG),
    (2, IPPROTO_IPV6, libc::IPV6_V6ONLY, "IPV6_V6ONLY", FLAG),
    (1, IPPROTO_IPV6, 1, "IPV6_ADDRFORM", Number(&[libc::AF_INET])),
    (1, IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, "IPV6_UNICAST_HOPS", SMALL),
    (2, IPPROTO_IPV6, 76, "IPV6_UNICAST_IF", IndexBig),
    (1, IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, "IPV6_MULTICAST_IF", Index),
    (1, IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, "IPV6_MULTICAST_LOOP", FLAG),
    (1, IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, "IPV6_ADD_MEMBERSHIP", Member6),
    (1, IPPROTO_IPV6, 42, "MCAST_JOIN_GROUP", GroupAny),
    (1, IPPROTO_IPV6, 29, "IPV6_MULTICAST_ALL", FLAG),
    (3, IPPROTO_IPV6, libc::IPV6_PKTINFO, "IPV6_PKTINFO", Group6),
    (1, IPPROTO_IPV6, 2, "IPV6_2292PKTINFO", FLAG),
    (3, IPPROTO_IPV6, 6, "IPV6_2292PKTOPTIONS", Messages),
    (1, IPPROTO_IPV6, libc::IPV6_HOPOPTS, "IPV6_HOPOPTS", Extension),
    (2, IPPROTO_IPV6, libc::IPV6_DSTOPTS, "IPV6_DSTOPTS", Extension),
    (2, IPPROTO_IPV6, libc::IPV6_RTHDRDSTOPTS, "IPV6_RTHDRDSTOPTS", Extension),
    (20, IPPROTO_IPV6, libc::IPV6_RTHDR, "IPV6_RTHDR", Route),
    (1, IPPROTO_IPV6, libc::IPV6_TCLASS, "IPV6_TCLASS", SMALL),
    (1, IPPROTO_IPV6, 24, "IPV6_MTU", Number(&[1280, 1400])),
    (1, IPPROTO_IPV6, 78, "IPV6_FREEBIND", FLAG),
    (1, IPPROTO_IPV6, 75, "IPV6_TRANSPARENT", FLAG),
    (2, IPPROTO_IPV6, 32, "IPV6_FLOWLABEL_MGR", FlowLabel),
    (1, IPPROTO_IPV6, 9, "IPV6_NEXTHOP", Name6),
    (1, IPPROTO_IPV6, 7, "IPV6_CHECKSUM", Number(&[-1, 6])),
    (1, IPPROTO_IPV6, 22, "IPV6_ROUTER_ALERT", SMALL),
    (1, IPPROTO_IPV6, 23, "IPV6_MTU_DISCOVER", Number(&[0, 1, 2, 3, 4, 5])),
    (1, IPPROTO_IPV6, 25, "IPV6_RECVERR", FLAG),
    (1, IPPROTO_IPV6, 27, "IPV6_JOIN_ANYCAST", Group6),
    (1, IPPROTO_IPV6, 36, "IPV6_HDRINCL", FLAG),
    (1, IPPROTO_IPV6, 56, "IPV6_RECVRTHDR", FLAG),
    (1, IPPROTO_IPV6, 62, "IPV6_DONTFRAG", FLAG),
    (1, IPPROTO_IPV6, 73, "IPV6_MINHOPCOUNT", SMALL),
    (1, IPPROTO_IPV6, 33, "IPV6_FLOWINFO_SEND", FLAG),
    (1, IPPROTO_IPV6, 70, "IPV6_AUTOFLOWLABEL", FLAG),
    (1, IPPROTO_IPV6, 72, "IPV6_ADDR_PREFERENCES", SMALL),
    (2, IPPROTO_TCP, libc::TCP_FASTOPEN, "TCP_FASTOPEN", Number(&[5])),
    (3, IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, "TCP_FASTOPEN_CONNECT", FLAG),
    (1, IPPROTO_TCP, 34, "TCP_FASTOPEN_NO_COOKIE", FLAG),
    (1, IPPROTO_TCP, libc::TCP_NODELAY, "TCP_NODELAY", FLAG),
    (1, IPPROTO_TCP, libc::TCP_CORK, "TCP_CORK", FLAG),
    (1, IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, "TCP_DEFER_ACCEPT", SMALL),
    (1, IPPROTO_TCP, libc::TCP_SYNCNT, "TCP_SYNCNT", SMALL),
    (1, IPPROTO_TCP, libc::TCP_SAVE_SYN, "TCP_SAVE_SYN", FLAG),
    (1, IPPROTO_TCP, libc::TCP_REPAIR, "TCP_REPAIR", FLAG),
    (1, IPPROTO_TCP, libc::TCP_USER_TIMEOUT, "TCP_USER_TIMEOUT", SMALL),
    (1, IPPROTO_TCP, 33, "TCP_FASTOPEN_KEY", Key),
    (1, IPPROTO_TCP, 37, "TCP_TX_DELAY", SMALL),
    (1, IPPROTO_UDP, 100, "UDP_ENCAP", Number(&[1, 2, 3, 4, 5, 6])),
    (1, IPPROTO_UDP, 102, "UDP_NO_CHECK6_RX", FLAG),
    (1, IPPROTO_UDP, libc::UDP_CORK, "UDP_CORK", FLAG),
    (1, IPPROTO_UDP, libc::UDP_SEGMENT, "UDP_SEGMENT", Number(&[16, 32, 64])),
    (1, IPPROTO_UDP, libc::UDP_GRO, "UDP_GRO", FLAG),
    (1, IPPROTO_UDP, 101, "UDP_NO_CHECK6_TX", FLAG),
    (1, SOL_UDPLITE, 10, "UDPLITE_SEND_CSCOV", Number(&[0, 8])),
    (1, SOL_MPTCP, 1, "MPTCP_INFO", SMALL),
];

/// How often, level, number, name, value.
const MESSAGES: &[(usize, i32, i32, &str, Value)] = &[
    (8, IPPROTO_IP, libc::IP_PKTINFO, "IP_PKTINFO", PacketInfo),
    (2, IPPROTO_IP, libc::IP_TTL, "IP_TTL", SMALL),
    (1, IPPROTO_IP, libc::IP_TOS, "IP_TOS", SMALL),
    (4, IPPROTO_IP, libc::IP_RETOPTS, "IP_RETOPTS", Options),
    (1, IPPROTO_IP, 52, "IP_PROTOCOL", SMALL),
    (4, IPPROTO_IPV6, libc::IPV6_PKTINFO, "IPV6_PKTINFO", Group6),
    (1, IPPROTO_IPV6, 2, "IPV6_2292PKTINFO", Group6),
    (20, IPPROTO_IPV6, libc::IPV6_RTHDR, "IPV6_RTHDR", Route),
    (2, IPPROTO_IPV6, 5, "IPV6_2292RTHDR", Route),
    (2, IPPROTO_IPV6, libc::IPV6_DSTOPTS, "IPV6_DSTOPTS", Extension),
    (1, IPPROTO_IPV6, libc::IPV6_HOPOPTS, "IPV6_HOPOPTS", Extension),
    (1, IPPROTO_IPV6, libc::IPV6_HOPLIMIT, "IPV6_HOPLIMIT", SMALL),
    (1, IPPROTO_IPV6, libc::IPV6_TCLASS, "IPV6_TCLASS", SMALL),
    (1, IPPROTO_UDP, libc::UDP_SEGMENT, "UDP_SEGMENT", Number(&[16])),
    (1, IPPROTO_IPV6, 9, "IPV6_NEXTHOP", Name6),
    (1, IPPROTO_IPV6, libc::IPV6_RTHDRDSTOPTS, "IPV6_RTHDRDSTOPTS", Extension),
    (1, IPPROTO_IPV6, 3, "IPV6_2292HOPOPTS", Extension),
    (1, IPPROTO_IPV6, 4, "IPV6_2292DSTOPTS", Extension),
    (1, IPPROTO_IPV6, 11, "IPV6_FLOWINFO", SMALL),
    (1, IPPROTO_IPV6, 62, "IPV6_DONTFRAG", FLAG),
    (1, SOL_SOCKET, 37, "SO_TIMESTAMPING", SMALL),
    (1, SOL_SOCKET, libc::SO_MARK, "SO_MARK", SMALL),
];

/// Levels at which options are tried by their number, without a name.
const LEVELS: [i32; 6] = [SOL_SOCKET, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP, SOL_MPTCP];
/// By these, the kernel would look for modules to load: congestion control and upper layers. They are not tried.
const LOADING: [i32; 2] = [libc::TCP_CONGESTION, libc::TCP_ULP];

/// An option and its value.
pub fn any_option(random: &mut Random) -> Setting {
    if random.percent(5) {
        let (level, option) = (random.one(&LEVELS), i32::try_from(random.below(100)).unwrap_or(0));
        if level != IPPROTO_TCP || !LOADING.contains(&option) {
            let value = value(random, random.clone().one(&[SMALL, Group4, Group6, Pair, Index]));
            return Setting { level, option, name: String::from("option"), value };
        }
    }
    setting(random, OPTIONS)
}

/// What makes a connected socket of IPv6 one of IPv4.
pub fn as_ipv4() -> Setting {
    let value = libc::AF_INET.to_ne_bytes().to_vec();
    Setting { level: IPPROTO_IPV6, option: 1, name: String::from("IPV6_ADDRFORM"), value }
}

/// A route by one or two of those outside, of a form that the kernel takes: as a socket's option, or as a control message.
pub fn route_by_peers(random: &mut Random, family: i32, as_message: bool) -> Setting {
    let hops = random.weighted(&[(3, 1), (1, 2)]);
    if family == libc::AF_INET {
        let hops: Vec<_> = (0..hops).map(|_| peer4(random).octets()).collect();
        let (option, name) =
            if as_message { (libc::IP_RETOPTS, "IP_RETOPTS") } else { (libc::IP_OPTIONS, "IP_OPTIONS") };
        let value = ip_route(random.one(&[131, 137]), &hops);
        return Setting { level: IPPROTO_IP, option, name: String::from(name), value };
    }
    // Type 2 has one address, which is left, and is the only one that messages take; of type 4, nothing need be left.
    let often = usize::from(!as_message);
    let (kind, left) = random.weighted(&[(1, (2, 1)), (3 * often, (4, 0)), (often, (4, 1))]);
    let hops: Vec<_> = (0..if kind == 2 { 1 } else { hops }).map(|_| peer6(random).octets()).collect();
    let last = u8::try_from(hops.len() - 1).unwrap_or(0);
    let value = routing_header(kind, left, if kind == 4 { last } else { 0 }, &hops);
    Setting { level: IPPROTO_IPV6, option: libc::IPV6_RTHDR, name: String::from("IPV6_RTHDR"), value }
}

/// Options that are read, by level and number: every socket of IPv4 has them, and hardly any other has not. Policies like to deny the first two.
pub const READ: [(i32, i32); 4] = [
    (SOL_SOCKET, libc::SO_REUSEADDR),
    (IPPROTO_IP, libc::IP_TTL),
    (SOL_SOCKET, libc::SO_TYPE),
    (IPPROTO_IP, libc::IP_TOS),
];

/// A control message.
pub fn any_message(random: &mut Random) -> Setting {
    setting(random, MESSAGES)
}

fn setting(random: &mut Random, table: &[(usize, i32, i32, &str, Value)]) -> Setting {
    let weights: Vec<_> = table.iter().enumerate().map(|(place, row)| (row.0, place)).collect();
    let (_, level, option, name, kind) = table[random.weighted(&weights)];
    Setting { level, option, name: String::from(name), value: value(random, kind) }
}

/// The devices of the program's host: loopback, to the allowed peer, to the denied one.
const DEVICES: [&[u8]; 3] = [b"lo\0", b"allowed\0", b"denied\0"];

fn index(random: &mut Random) -> u32 {
    random.weighted(&[(1, 0), (2, 1), (3, 2), (3, 3)])
}

fn ip4(random: &mut Random) -> [u8; 4] {
    loop {
        if let IpAddr::V4(ip) = any_ip(random) {
            return ip.octets();
        }
    }
}

fn ip6(random: &mut Random) -> [u8; 16] {
    match any_ip(random) {
        IpAddr::V4(ip) if random.percent(50) => ip.to_ipv6_mapped().octets(),
        IpAddr::V4(_) => ip6(random),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// A multicast address, mostly.
fn group4(random: &mut Random) -> [u8; 4] {
    match random.one(&MANY) {
        IpAddr::V4(ip) if ip.is_multicast() => ip.octets(),
        _ if random.percent(10) => ip4(random),
        _ => group4(random),
    }
}

/// Like [`group4`], by IPv6.
fn group6(random: &mut Random) -> [u8; 16] {
    match random.one(&MANY) {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(_) if random.percent(5) => ip6(random),
        IpAddr::V4(_) => group6(random),
    }
}

/// An address of the program's own host, or none.
fn own4(random: &mut Random) -> [u8; 4] {
    match random.one(&OWN[..3]) {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(_) => [0; 4],
    }
}

fn value(random: &mut Random, kind: Value) -> Vec<u8> {
    match kind {
        Number(of) => random.one(of).to_ne_bytes().to_vec(),
        Device => random.one(&DEVICES).to_vec(),
        Index => index(random).to_ne_bytes().to_vec(),
        IndexBig => index(random).to_be_bytes().to_vec(),
        Group4 => [ip4(random), ip4(random), index(random).to_ne_bytes()].concat(),
        PacketInfo => [index(random).to_ne_bytes(), ip4(random), [0; 4]].concat(),
        Group6 => [ip6(random).as_slice(), &index(random).to_ne_bytes()].concat(),
        Options => ip_options(random),
        Route => route(random),
        Extension => vec![0, 0, 1, 4, 0, 0, 0, 0],
        Messages => messages(random),
        Range => {
            let (first, last) = random.one(&[CHOSEN, CHOSEN_DENIED, (6003, 6003), (0, 0)]);
            (u32::from(last) << 16 | u32::from(first)).to_ne_bytes().to_vec()
        }
        Member4 => [group4(random), own4(random), index(random).to_ne_bytes()].concat(),
        Member6 => [group6(random).as_slice(), &index(random).to_ne_bytes()].concat(),
        Source4 => [group4(random), own4(random), ip4(random)].concat(),
        Key => vec![7; 16],
        Name6 => [&[10, 0, 0, 0, 0, 0, 0, 0], ip6(random).as_slice(), &index(random).to_ne_bytes()].concat(),
        Pair => [random.one(&[0_i32, 1]).to_ne_bytes(), random.one(&[0_i32, 1]).to_ne_bytes()].concat(),
        FlowLabel => {
            // struct in6_flowlabel_req: destination, label, get, exclusive, create, linger, expires.
            let label = [0, 0, 0, u8::try_from(1 + random.below(3)).unwrap_or(1)];
            let mut bytes = [ip6(random).as_slice(), &label, &[0, 1, 1, 0], &[0; 8]].concat();
            if random.percent(50) {
                bytes.extend(messages(random));
            }
            bytes
        }
        GroupAny => {
            // struct group_req: the device's index, four bytes unused, then a sockaddr_storage.
            let mut bytes = [index(random).to_ne_bytes(), [0; 4]].concat();
            if random.percent(50) {
                bytes.extend([2, 0, 0, 0]);
                bytes.extend(group4(random));
            } else {
                bytes.extend([10, 0, 0, 0, 0, 0, 0, 0]);
                bytes.extend(group6(random));
            }
            bytes.resize(8 + 128, 0);
            bytes
        }
    }
}

/// IPv4 options: loose or strict source route, record route, padding.
pub fn ip_options(random: &mut Random) -> Vec<u8> {
    let kind = random.weighted(&[(4, 131_u8), (2, 137), (1, 7), (1, 148)]);
    if kind == 148 {
        return vec![148, 4, 0, 0];
    }
    let hops: Vec<_> = (0..=random.below(3)).map(|_| ip4(random)).collect();
    ip_route(kind, &hops)
}

/// An IPv4 option that has these addresses, behind one byte of padding.
fn ip_route(kind: u8, hops: &[[u8; 4]]) -> Vec<u8> {
    let length = u8::try_from(3 + 4 * hops.len()).unwrap_or(7);
    [&[1, kind, length, 4], hops.as_flattened()].concat()
}

/// A routing header of type 0, 2, 3 or 4, with mostly consistent lengths.
pub fn route(random: &mut Random) -> Vec<u8> {
    let kind = random.weighted(&[(1, 0_u8), (2, 2), (1, 3), (6, 4)]);
    let hops = if kind == 2 { 1 } else { random.weighted(&[(4, 1_u8), (3, 2), (1, 3)]) };
    let left = random.one(&[0, 0, hops - 1, hops, 1]);
    let first = if kind == 4 { random.one(&[hops - 1, hops - 1, 0]) } else { 0 };
    let hops: Vec<_> = (0..hops).map(|_| ip6(random)).collect();
    routing_header(kind, left, first, &hops)
}

/// A routing header. `first`: of type 4, the place of its last address.
fn routing_header(kind: u8, left: u8, first: u8, hops: &[[u8; 16]]) -> Vec<u8> {
    let length = u8::try_from(2 * hops.len()).unwrap_or(2);
    [&[0, length, kind, left, first, 0, 0, 0], hops.as_flattened()].concat()
}

fn messages(random: &mut Random) -> Vec<u8> {
    let (option, value) = match random.below(3) {
        0 => (libc::IPV6_PKTINFO, [ip6(random).as_slice(), &index(random).to_ne_bytes()].concat()),
        1 => (libc::IPV6_DSTOPTS, vec![0, 0, 1, 4, 0, 0, 0, 0]),
        _ => (random.one(&[libc::IPV6_RTHDR, 5]), route(random)),
    };
    crate::sys::control(IPPROTO_IPV6, option, &value)
}
