//! Requests by the system calls of other architectures (int 0x80, x32), which have other numbers.

use std::fs::File;

use crate::sys::foreign::{connect, connect_x32, open, read, send_to, set_option, socket, socketcall};

use super::{
    attempt::{At as _, LOOPBACK, LOOPBACK6, path_address, tcp, udp, unix, v4, v6},
    policies::{DEVICES, PORT, PORT_SERVED, SYSCTLS, UNIX},
    port,
    server::STREAM,
    sysctl::HIDDEN,
    vector::{Evidence, Layer, Vector},
};

const INET: i32 = libc::AF_INET;

const fn vector(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, PORT, attempt).stopped_by(Layer::Seccomp)
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    vector("i386-connect", "makes a socket and connects it", |s| {
        let socket = socket(INET, libc::SOCK_STREAM).at("i386 socket")?;
        connect(&socket, &v4(LOOPBACK, s.port)).at("i386 connect")?;
        s.send(&socket)
    }),
    vector("i386-connect6", "connects to ::1", |s| {
        let socket = tcp(libc::AF_INET6, 0)?;
        connect(&socket, &v6(LOOPBACK6, s.port)).at("i386 connect")?;
        s.send(&socket)
    }),
    vector("i386-socketcall", "connects by i386's oldest way (socketcall)", |s| {
        let socket = tcp(INET, 0)?;
        socketcall(&socket, &v4(LOOPBACK, s.port)).at("i386 socketcall")?;
        s.send(&socket)
    }),
    vector("i386-send", "sends a datagram", |s| {
        send_to(&udp(INET)?, s.token.as_bytes(), &v4(LOOPBACK, s.port)).at("i386 sendto").map(|()| Vec::new())
    }),
    vector("i386-unix", "connects to a Unix socket", |s| {
        let socket = unix(nix::sys::socket::SockType::Stream)?;
        connect(&socket, &path_address(&s.folder.join(STREAM))).at("i386 connect")?;
        s.send(&socket)
    })
    .under(UNIX),
    vector("i386-device", "opens a device", |_| super::attempt::read(&open(c"/dev/zero").at("i386 open")?))
        .under(DEVICES)
        .seen_by(Evidence::Word),
    vector("i386-tunable", "reads a tunable", |_| read(&File::open(HIDDEN).at("open")?, 64).at("i386 read"))
        .under(SYSCTLS)
        .seen_by(Evidence::Tunable),
    vector("i386-port-range", "a listener that was never bound (IP_LOCAL_PORT_RANGE, set where no hook looks)", |s| {
        let socket = tcp(INET, 0)?;
        set_option(&socket, libc::IPPROTO_IP, port::IP_LOCAL_PORT_RANGE, &port::range(s)).at("i386 setsockopt")?;
        port::answer(s, &socket)
    })
    .under(PORT_SERVED)
    .knocked_at(),
    vector("x32-connect", "connects by x32's number", |s| {
        let socket = tcp(INET, 0)?;
        connect_x32(&socket, &v4(LOOPBACK, s.port)).at("x32 connect")?;
        s.send(&socket)
    }),
];
