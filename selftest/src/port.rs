//! Ways to serve a port that may not be served. Somebody outside knocks there all the time.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{Backlog, SockFlag, accept4, listen},
};

use crate::sys::{
    socket::{bind, connect, local_port, receive, send_to, set_option},
    uring,
};

use super::{
    attempt::{At as _, LOOPBACK, LOOPBACK6, MAPPED, Outcome, Scene, Stop, of_family, patient, tcp, udp, v4, v6},
    policies::{NOTHING_SERVED, PORT_SERVED, PORT_SERVED_NOWHERE},
    vector::{Evidence, Layer, Vector},
};

const INET: i32 = libc::AF_INET;
const INET6: i32 = libc::AF_INET6;
/// The port that may be served.
const DISCARD: u16 = 9;
/// Addresses for documentation, which no host has (RFC 5737, RFC 3849).
const NOWHERE: [u8; 4] = [192, 0, 2, 1];
const NOWHERE6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

const fn vector(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, PORT_SERVED, attempt).stopped_by(Layer::Hook).seen_by(Evidence::Heard).knocked_at()
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    vector("bind4", "a listener on 127.0.0.1", |s| serve(s, tcp(INET, 0)?, &v4(LOOPBACK, s.served))),
    vector("bind4-any", "a listener on 0.0.0.0", |s| serve(s, tcp(INET, 0)?, &v4([0; 4], s.served))),
    vector("bind4-unspecified", "a listener on an address of no family (AF_UNSPEC)", |s| {
        serve(s, tcp(INET, 0)?, &of_family(libc::AF_UNSPEC, [0; 4], s.served))
    }),
    vector("bind6", "a listener on ::1", |s| serve(s, tcp(INET6, 0)?, &v6(LOOPBACK6, s.served))),
    vector("bind6-dual", "a listener on ::, for IPv4, too", |s| serve(s, tcp(INET6, 0)?, &v6([0; 16], s.served))),
    vector("bind6-mapped", "a listener on ::ffff:127.0.0.1", |s| serve(s, tcp(INET6, 0)?, &v6(MAPPED, s.served))),
    vector("bind4-shared", "a listener beside others (SO_REUSEPORT)", |s| {
        let socket = tcp(INET, 0)?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, &1_i32.to_ne_bytes()).at("setsockopt")?;
        serve(s, socket, &v4(LOOPBACK, s.served))
    }),
    vector("bind4-mptcp", "an MPTCP listener", |s| serve(s, tcp(INET, libc::IPPROTO_MPTCP)?, &v4(LOOPBACK, s.served))),
    vector("bind4-uring", "a listener bound through io_uring", |s| {
        let socket = tcp(INET, 0)?;
        uring::bind(&socket, &v4(LOOPBACK, s.served)).at("io_uring bind")?;
        answer(s, &socket)
    }),
    vector("port-range", "a listener that was never bound (IP_LOCAL_PORT_RANGE)", |s| {
        let socket = tcp(INET, 0)?;
        set_option(&socket, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, &range(s)).at("setsockopt")?;
        answer(s, &socket)
    }),
    vector("bind4-failed", "a listener after a bind(2) that failed, to a port that it may have", |s| {
        fail_and_listen(s, INET)
    })
    .under(NOTHING_SERVED)
    .seen_by(Evidence::Word),
    vector("bind6-failed", "an IPv6 listener after a bind(2) that failed", |s| fail_and_listen(s, INET6))
        .under(NOTHING_SERVED)
        .seen_by(Evidence::Word),
    vector("udp4", "a UDP server", |s| serve_datagrams(s, INET, &v4(LOOPBACK, s.served))),
    vector("udp4-range", "a UDP server that was never bound (IP_LOCAL_PORT_RANGE)", |s| serve_unbound(s, &udp(INET)?)),
    vector("udp4-range-user", "the same by an ordinary user", |s| serve_unbound(s, &udp(INET)?)).by_user(),
    vector("udp4-failed", "a UDP server after a bind(2) that failed, to a port that it may have there", |s| {
        let socket = udp(INET)?;
        match bind(&socket, &v4(NOWHERE, s.served)) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => serve_unbound(s, &socket),
            Err(error) => Err(error).at("bind"),
            Ok(()) => Err(Stop::because("this host has an address of a documentation network")),
        }
    })
    .under(PORT_SERVED_NOWHERE),
    vector("udp6-dual", "a UDP server on ::, for IPv4, too", |s| serve_datagrams(s, INET6, &v6([0; 16], s.served))),
];

/// linux/in.h.
pub(super) const IP_LOCAL_PORT_RANGE: i32 = 51;

/// The range that has only the forbidden port in it.
pub(super) fn range(scene: &Scene) -> [u8; 4] {
    (u32::from(scene.served) << 16 | u32::from(scene.served)).to_ne_bytes()
}

fn serve(scene: &Scene, socket: impl AsFd, address: &[u8]) -> Outcome {
    set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32.to_ne_bytes()).at("setsockopt")?;
    bind(&socket, address).at("bind")?;
    answer(scene, &socket)
}

/// Listens, and says the token to anybody who comes.
pub(super) fn answer(scene: &Scene, socket: &impl AsFd) -> Outcome {
    listen(&socket.as_fd(), Backlog::new(8).expect("small")).at("listen")?;
    if local_port(socket).at("getsockname")? != scene.served {
        return Err(Stop::because("the kernel chose another port"));
    }
    let raw = std::os::fd::AsRawFd::as_raw_fd(&socket.as_fd());
    // A ring that is being closed interrupts what its process waits for.
    let mut guest = accept4(raw, SockFlag::SOCK_CLOEXEC);
    while guest == Err(Errno::EINTR) {
        guest = accept4(raw, SockFlag::SOCK_CLOEXEC);
    }
    let guest = guest.at("accept")?;
    let guest = crate::sys::take_descriptor(guest).at("accept")?;
    scene.send(&guest)?;
    // Time for the other side to read it, before this process' end closes it.
    std::thread::sleep(Duration::from_millis(20));
    Ok(Vec::new())
}

/// Asks for a port at an address that this host does not have, listens all the same, and is its own client.
fn fail_and_listen(_: &Scene, domain: i32) -> Outcome {
    let (server, client) = (tcp(domain, 0)?, tcp(domain, 0)?);
    let v6_only = domain == INET6;
    match bind(&server, &if v6_only { v6(NOWHERE6, DISCARD) } else { v4(NOWHERE, DISCARD) }) {
        Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {}
        Err(error) => return Err(error).at("bind"),
        Ok(()) => return Err(Stop::because("this host has an address of a documentation network")),
    }
    listen(&server.as_fd(), Backlog::new(8).expect("small")).at("listen")?;
    let port = local_port(&server).at("getsockname")?;
    connect(&client, &if v6_only { v6(LOOPBACK6, port) } else { v4(LOOPBACK, port) }).at("connect")?;
    Ok(Vec::new())
}

fn serve_datagrams(scene: &Scene, domain: i32, address: &[u8]) -> Outcome {
    let socket = udp(domain)?;
    bind(&socket, address).at("bind")?;
    answer_datagram(scene, &patient(socket)?, domain)
}

/// By a socket that gets the port by sending, which is the only one that it may get.
fn serve_unbound(scene: &Scene, socket: &OwnedFd) -> Outcome {
    set_option(socket, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, &range(scene)).at("setsockopt")?;
    send_to(socket, b"x", 0, &v4(LOOPBACK, DISCARD)).at("sendto")?;
    answer_datagram(scene, &patient(socket.try_clone().at("dup")?)?, INET)
}

/// Waits for the knock, and says the token to the one who knocks.
fn answer_datagram(scene: &Scene, socket: &OwnedFd, domain: i32) -> Outcome {
    let mut buffer = [0; 64];
    receive(socket, &mut buffer).at("recv")?;
    // The knock is answered by a socket that may send: what counts is that it was heard at this port.
    let knock = String::from_utf8_lossy(&buffer).trim_end_matches('\0').to_owned();
    let back: u16 = knock.parse().map_err(|_| Stop::because("not the knock"))?;
    let to = if domain == INET6 { v6(MAPPED, back) } else { v4(LOOPBACK, back) };
    send_to(socket, scene.token.as_bytes(), 0, &to).at("sendto")?;
    Ok(Vec::new())
}
