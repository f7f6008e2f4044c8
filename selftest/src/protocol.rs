//! Sockets that no address hook sees, or sees otherwise than TCP and UDP.

use std::{fs::OpenOptions, io, os::fd::OwnedFd};

use nix::unistd::{Uid, setresuid};

use crate::sys::{
    attach_tun, keep_line_discipline, own_vhost,
    socket::{bind, connect, receive, send_to, set_option, socket, socket_of_words},
};

use super::{
    attempt::{At as _, LOOPBACK, LOOPBACK6, MAPPED, Outcome, Scene, Stop, patient, tcp, v4, v6},
    handed::{Handed, TUN, TUN_OWNER},
    policies::NETWORK,
    vector::{Evidence, Layer, Vector},
};

const INET: i32 = libc::AF_INET;
const INET6: i32 = libc::AF_INET6;
const RAW: i32 = libc::SOCK_RAW;
const DGRAM: i32 = libc::SOCK_DGRAM;
const PACKET: i32 = libc::AF_PACKET;
/// The kind of socket that was there for packets before Linux 2.2.
const SOCK_PACKET: i32 = 10;
/// The loopback interface's number, in every network namespace.
pub(super) const LO: i32 = 1;
const ETH_IPV6: u16 = 0x86dd;
const ETH_ALL: u16 = 3;

const fn vector(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, NETWORK, attempt)
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    vector("mptcp4", "MPTCP to 127.0.0.1", |s| s.tell_by(&tcp(INET, libc::IPPROTO_MPTCP)?, &v4(LOOPBACK, s.port)))
        .stopped_by(Layer::Hook),
    vector("mptcp6-mapped", "MPTCP to ::ffff:127.0.0.1", |s| {
        s.tell_by(&tcp(INET6, libc::IPPROTO_MPTCP)?, &v6(MAPPED, s.port))
    })
    .stopped_by(Layer::Hook),
    vector("udplite4", "UDP-Lite", |s| send(&lite(INET)?, s.token.as_bytes(), &v4(LOOPBACK, s.port)))
        .stopped_by(Layer::Hook),
    vector("udplite4-connected", "connected UDP-Lite", |s| s.tell_by(&lite(INET)?, &v4(LOOPBACK, s.port)))
        .stopped_by(Layer::Hook),
    vector("udplite6-mapped", "UDP-Lite to ::ffff:127.0.0.1", |s| {
        send(&lite(INET6)?, s.token.as_bytes(), &v6(MAPPED, s.port))
    })
    .stopped_by(Layer::Hook),
    vector("ping4", "an echo request by a raw socket", |s| echo(s, INET, RAW))
        .stopped_by(Layer::Capabilities)
        .seen_by(Evidence::Told),
    vector("ping6", "an ICMPv6 echo request by a raw socket", |s| echo(s, INET6, RAW))
        .stopped_by(Layer::Capabilities)
        .seen_by(Evidence::Told),
    vector("ping4-datagram", "an echo request by a ping socket", |s| echo(s, INET, DGRAM))
        .stopped_by(Layer::Capabilities)
        .seen_by(Evidence::Told),
    vector("raw-udp4", "a UDP packet by a raw socket", |s| {
        let raw = socket(INET, RAW, libc::IPPROTO_UDP).at("socket")?;
        send(&raw, &udp_packet(s), &v4(LOOPBACK, 0))
    })
    .stopped_by(Layer::Capabilities),
    vector("raw-ip4", "a packet with a header of its own (IPPROTO_RAW)", |s| {
        let raw = socket(INET, RAW, libc::IPPROTO_RAW).at("socket")?;
        send(&raw, &ip_packet(s), &v4(LOOPBACK, 0))
    })
    .stopped_by(Layer::Capabilities),
    vector("raw-udp6", "a UDP packet by a raw IPv6 socket", |s| {
        const IPV6_CHECKSUM: i32 = 7;
        let raw = socket(INET6, RAW, libc::IPPROTO_UDP).at("socket")?;
        set_option(&raw, libc::IPPROTO_IPV6, IPV6_CHECKSUM, &6_i32.to_ne_bytes()).at("setsockopt")?;
        send(&raw, &udp_packet(s), &v6(LOOPBACK6, 0))
    })
    .stopped_by(Layer::Capabilities),
    vector("raw-listen", "reading others' packets by a raw socket", |s| {
        overhear(s, &patient(socket(INET, RAW, libc::IPPROTO_UDP).at("socket")?)?)
    })
    .stopped_by(Layer::Capabilities)
    .seen_by(Evidence::Told),
    vector("packet", "a frame by a packet socket", |s| {
        let packet = socket(PACKET, RAW, 0).at("socket")?;
        send(&packet, &frame(s), &link_address(ETH_IPV6))
    })
    .stopped_by(Layer::Seccomp),
    vector("packet-cooked", "a packet whose frame the kernel makes (AF_PACKET, SOCK_DGRAM)", |s| {
        let packet = socket(PACKET, DGRAM, 0).at("socket")?;
        send(&packet, &ip6_packet(s), &link_address(ETH_IPV6))
    })
    .stopped_by(Layer::Seccomp),
    vector("packet-old", "a frame by the packet sockets of Linux 2.0 (SOCK_PACKET)", |s| {
        let packet = socket(INET, SOCK_PACKET, i32::from(ETH_IPV6.to_be())).at("socket")?;
        send(&packet, &frame(s), &[&17_u16.to_ne_bytes()[..], b"lo", &[0; 12], &ETH_IPV6.to_be_bytes()].concat())
    })
    .stopped_by(Layer::Seccomp),
    vector("packet-listen", "reading all packets of an interface", |s| {
        let packet = patient(socket(PACKET, RAW, i32::from(ETH_ALL.to_be())).at("socket")?)?;
        bind(&packet, &link_address(ETH_ALL)).at("bind")?;
        overhear(s, &packet)
    })
    .stopped_by(Layer::Seccomp)
    .seen_by(Evidence::Told),
    vector("xdp", "a socket that shares its memory with a network card (AF_XDP)", |_| {
        socket(libc::AF_XDP, RAW, 0).at("socket").map(|_| Vec::new())
    })
    .stopped_by(Layer::Seccomp)
    .seen_by(Evidence::Word),
    vector("tun", "a network interface of its own", |_| {
        let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun").at("open")?;
        attach_tun(&device, c"", 0).at("TUNSETIFF").map(|()| Vec::new())
    })
    .stopped_by(Layer::Seccomp)
    .seen_by(Evidence::Word),
    vector("tun-existing", "a network interface that is there already", |_| attach(0))
        .handed(Handed::Tun)
        .stopped_by(Layer::Seccomp)
        .seen_by(Evidence::Word),
    vector("tun-existing-upper-half", "the same by a number with more bits than the kernel looks at", |_| attach(1))
        .handed(Handed::Tun)
        .stopped_by(Layer::Seccomp)
        .seen_by(Evidence::Word),
    vector("tun-existing-user", "the same by the ordinary user whose it is", |_| {
        let owner = Uid::from_raw(TUN_OWNER);
        setresuid(owner, owner, owner).at("setresuid")?;
        attach(0)
    })
    .handed(Handed::Tun)
    .stopped_by(Layer::Seccomp)
    .seen_by(Evidence::Word),
    vector("line-discipline", "what a terminal's bytes are (the kernel may take them for packets)", |_| {
        keep_line_discipline(&io::stdin()).at("TIOCSETD").map(|()| Vec::new())
    })
    .handed(Handed::Terminal)
    .stopped_by(Layer::Seccomp)
    .seen_by(Evidence::Word),
    vector("vhost", "the hypervisor's end of vsock sockets, or of a network card", |_| {
        let open = |name: &str| OpenOptions::new().read(true).write(true).open(name);
        let device = open("/dev/vhost-vsock").or_else(|_| open("/dev/vhost-net")).at("open")?;
        own_vhost(&device).at("VHOST_SET_OWNER").map(|()| Vec::new())
    })
    .stopped_by(Layer::Seccomp)
    .seen_by(Evidence::Word),
    vector("rdma", "connections that a network card makes (RDMA)", |_| {
        OpenOptions::new().read(true).write(true).open("/dev/infiniband/rdma_cm").at("open").map(|_| Vec::new())
    })
    .stopped_by(Layer::Mounts)
    .seen_by(Evidence::Word),
    vector("vsock", "the hypervisor's sockets", |_| {
        socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0).at("socket").map(|_| Vec::new())
    })
    .stopped_by(Layer::Seccomp)
    .seen_by(Evidence::Word),
    vector("netlink-interfaces", "changing an interface (NETLINK_ROUTE): loopback up, which it is", |_| interface_up())
        .stopped_by(Layer::Capabilities)
        .seen_by(Evidence::Word),
    vector("netlink-audit", "the kernel's audit (NETLINK_AUDIT)", |_| netlink(libc::NETLINK_AUDIT))
        .stopped_by(Layer::Seccomp)
        .seen_by(Evidence::Word),
    vector("netlink-netfilter", "the kernel's packet filter (NETLINK_NETFILTER)", |_| netlink(libc::NETLINK_NETFILTER))
        .stopped_by(Layer::Seccomp)
        .seen_by(Evidence::Word),
    vector("netlink-xfrm", "the kernel's IPsec (NETLINK_XFRM)", |_| netlink(libc::NETLINK_XFRM))
        .stopped_by(Layer::Seccomp)
        .seen_by(Evidence::Word),
    vector("packet-upper-half", "a packet socket by a number with more bits than the kernel looks at", |s| {
        let packet = socket_of_words(wide(PACKET), wide(RAW), wide(0)).at("socket")?;
        send(&packet, &frame(s), &link_address(ETH_IPV6))
    })
    .stopped_by(Layer::Seccomp),
    vector("netlink-process", "a message to a process outside (NETLINK_USERSOCK)", |s| {
        tell_by_netlink(s, libc::NETLINK_USERSOCK, s.netlink, 0)
    })
    .stopped_by(Layer::Seccomp),
    vector("netlink-process-upper-half", "the same by a number with more bits than the kernel looks at", |s| {
        let netlink = socket_of_words(wide(libc::AF_NETLINK), wide(RAW), wide(libc::NETLINK_USERSOCK)).at("socket")?;
        send(&netlink, &message(s), &netlink_address(s.netlink, 0))
    })
    .stopped_by(Layer::Seccomp),
    vector("netlink-devices", "a message to those who wait for devices (NETLINK_KOBJECT_UEVENT)", |s| {
        tell_by_netlink(s, libc::NETLINK_KOBJECT_UEVENT, 0, UDEV)
    })
    .stopped_by(Layer::Capabilities),
    vector("crypto", "the kernel's cryptography (AF_ALG)", |_| {
        socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0).at("socket").map(|_| Vec::new())
    })
    .stopped_by(Layer::Seccomp)
    .seen_by(Evidence::Word),
];

/// Attaches to the network interface that is there.
fn attach(upper_half: u32) -> Outcome {
    attach_tun(&io::stdin(), TUN, upper_half).at("TUNSETIFF").map(|()| Vec::new())
}

fn send(socket: &OwnedFd, data: &[u8], address: &[u8]) -> Outcome {
    send_to(socket, data, 0, address).at("sendto")?;
    Ok(Vec::new())
}

fn lite(domain: i32) -> Result<OwnedFd, Stop> {
    socket(domain, DGRAM, libc::IPPROTO_UDPLITE).at("socket")
}

/// A number with bits that the kernel does not look at.
fn wide(number: i32) -> u64 {
    u64::from(number.cast_unsigned()) | 0x1_0000_0000
}

fn netlink(family: i32) -> Outcome {
    socket(libc::AF_NETLINK, RAW, family).at("socket").map(|_| Vec::new())
}

/// The group of those that udev tells of devices. The kernel itself uses group 1.
pub(super) const UDEV: u32 = 2;

/// A `struct sockaddr_nl`.
pub(super) fn netlink_address(port: u32, groups: u32) -> Vec<u8> {
    [&16_u16.to_ne_bytes()[..], &[0, 0], &port.to_ne_bytes(), &groups.to_ne_bytes()].concat()
}

/// A netlink message of the token.
fn message(scene: &Scene) -> Vec<u8> {
    let data = scene.token.as_bytes();
    let length = u32::try_from(16 + data.len()).expect("short");
    [&length.to_ne_bytes()[..], &[0; 12], data].concat()
}

fn tell_by_netlink(scene: &Scene, family: i32, port: u32, groups: u32) -> Outcome {
    let netlink = socket(libc::AF_NETLINK, RAW, family).at("socket")?;
    send(&netlink, &message(scene), &netlink_address(port, groups))
}

/// A UDP packet with the token for the forbidden listener, without a checksum.
fn udp_packet(scene: &Scene) -> Vec<u8> {
    let data = scene.token.as_bytes();
    let length = u16::try_from(8 + data.len()).expect("short");
    [&[0, 7][..], &scene.port.to_be_bytes(), &length.to_be_bytes(), &[0, 0], data].concat()
}

/// The packet of [`udp_packet`] behind an IPv4 header.
fn ip_packet(scene: &Scene) -> Vec<u8> {
    let udp = udp_packet(scene);
    let length = u16::try_from(20 + udp.len()).expect("short");
    let mut header =
        [&[0x45, 0][..], &length.to_be_bytes(), &[0, 0, 0, 0, 64, 17, 0, 0], &LOOPBACK, &LOOPBACK].concat();
    let checksum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&checksum);
    [header, udp].concat()
}

/// The packet of [`udp_packet`], with a checksum, behind an IPv6 header. From packet sockets, the kernel takes no packets of 127.0.0.1.
fn ip6_packet(scene: &Scene) -> Vec<u8> {
    let mut udp = udp_packet(scene);
    let length = u16::try_from(udp.len()).expect("short").to_be_bytes();
    let pseudo = [&LOOPBACK6[..], &LOOPBACK6, &[0, 0], &length, &[0, 0, 0, 17], &udp].concat();
    udp[6..8].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    [&[0x60, 0, 0, 0][..], &length, &[17, 64], &LOOPBACK6, &LOOPBACK6, &udp].concat()
}

/// The packet of [`ip6_packet`] behind an Ethernet header.
fn frame(scene: &Scene) -> Vec<u8> {
    [&[0; 12][..], &ETH_IPV6.to_be_bytes(), &ip6_packet(scene)].concat()
}

/// A `struct sockaddr_ll` of the loopback interface.
fn link_address(protocol: u16) -> Vec<u8> {
    [&17_u16.to_ne_bytes()[..], &protocol.to_be_bytes(), &LO.to_ne_bytes(), &[0, 0, 0, 6], &[0; 8]].concat()
}

/// RFC 1071.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("16 bits")
}

/// Sends an echo request and returns what the answer carries, which is the secret that was sent.
fn echo(scene: &Scene, domain: i32, kind: i32) -> Outcome {
    let (protocol, request, to) = match domain {
        INET6 => (libc::IPPROTO_ICMPV6, 128, v6(LOOPBACK6, 0)),
        _ => (libc::IPPROTO_ICMP, 8, v4(LOOPBACK, 0)),
    };
    let socket = patient(socket(domain, kind, protocol).at("socket")?)?;
    let mut packet = [&[request, 0, 0, 0, 0x67, 0x72, 0, 1], scene.secret.as_bytes()].concat();
    if domain == INET {
        let checksum = checksum(&packet).to_be_bytes();
        packet[2..4].copy_from_slice(&checksum);
    }
    connect(&socket, &to).at("connect")?;
    send_to(&socket, &packet, 0, &[]).at("send")?;
    let answer = request_to_answer(request);
    // The request itself comes by, too.
    for _ in 0..16 {
        let mut buffer = [0; 256];
        let got = receive(&socket, &mut buffer).at("recv")?;
        let header = if domain == INET && kind == RAW { 20 } else { 0 };
        if got.get(header) == Some(&answer) {
            return Ok(got.to_vec());
        }
    }
    Err(Stop::because("no answer"))
}

const fn request_to_answer(request: u8) -> u8 {
    if request == 8 { 0 } else { 129 }
}

/// Reads packets until one has the secret in it, which somebody outside sends to somebody outside all the time.
fn overhear(scene: &Scene, socket: &OwnedFd) -> Outcome {
    for _ in 0..500 {
        let mut buffer = [0; 512];
        let got = receive(socket, &mut buffer).at("recv")?;
        if super::contains(got, scene.secret.as_bytes()) {
            return Ok(got.to_vec());
        }
    }
    Err(Stop::because("nothing of interest was heard"))
}

/// Asks the kernel to put the loopback interface up, which it is.
fn interface_up() -> Outcome {
    let up = 1_u32.to_ne_bytes();
    // struct ifinfomsg (RTM_NEWLINK)
    request(16, &[&[0; 4][..], &LO.to_ne_bytes(), &up, &up].concat()).at("RTM_NEWLINK").map(|()| Vec::new())
}

/// Asks the kernel to change something of its network (NETLINK_ROUTE), and waits for its answer. `kind`: `RTM_*`.
///
/// # Errors
///
/// What the kernel answers, or as socket(2).
pub(super) fn request(kind: u16, body: &[u8]) -> io::Result<()> {
    /// NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, of which the last is none for what can't be made.
    const FLAGS: u16 = 0x0405;
    let socket = socket(libc::AF_NETLINK, RAW, libc::NETLINK_ROUTE)?;
    let length = u32::try_from(16 + body.len()).expect("short");
    let header = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &FLAGS.to_ne_bytes(), &1_u32.to_ne_bytes(), &[0; 4]];
    send_to(&socket, &[&header.concat(), body].concat(), 0, &[])?;
    let mut buffer = [0; 256];
    let got = receive(&socket, &mut buffer)?;
    match got.get(16..20).map_or(-libc::EIO, |bytes| i32::from_ne_bytes(bytes.try_into().expect("4 bytes"))) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}
