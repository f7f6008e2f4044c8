//! Requests through io_uring, in which a thread of the kernel may make them.

use std::fs::File;

use crate::sys::uring::{Taker, connect, open, read, send_message, send_to, send_without_copy, socket};

use super::{
    attempt::{At as _, LOOPBACK, LOOPBACK6, path_address, tcp, udp, unix, v4, v6},
    policies::{DEVICES, PORT, SYSCTLS, UNIX},
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
    vector("connect4", "connects to 127.0.0.1", |s| {
        let socket = tcp(INET, 0)?;
        connect(Taker::Caller, &socket, &v4(LOOPBACK, s.port)).at("io_uring connect")?;
        s.send(&socket)
    }),
    vector("connect6", "connects to ::1", |s| {
        let socket = tcp(libc::AF_INET6, 0)?;
        connect(Taker::Caller, &socket, &v6(LOOPBACK6, s.port)).at("io_uring connect")?;
        s.send(&socket)
    }),
    vector("connect-by-thread", "connects by a thread of the kernel (SQPOLL)", |s| {
        let socket = tcp(INET, 0)?;
        connect(Taker::Thread, &socket, &v4(LOOPBACK, s.port)).at("io_uring connect")?;
        s.send(&socket)
    }),
    vector("socket", "makes a socket, and connects it", |s| {
        let socket = socket(INET, libc::SOCK_STREAM).at("io_uring socket")?;
        s.tell_by(&socket, &v4(LOOPBACK, s.port))
    }),
    vector("send", "sends a datagram", |s| {
        send_to(&udp(INET)?, s.token.as_bytes(), &v4(LOOPBACK, s.port)).at("io_uring send").map(|()| Vec::new())
    }),
    vector("send-without-copy", "sends a datagram without copying it (SEND_ZC)", |s| {
        let to = v4(LOOPBACK, s.port);
        send_without_copy(&udp(INET)?, s.token.as_bytes(), &to).at("io_uring send").map(|()| Vec::new())
    }),
    vector("send-message", "sends a datagram (SENDMSG)", |s| {
        let to = v4(LOOPBACK, s.port);
        send_message(&udp(INET)?, s.token.as_bytes(), &to).at("io_uring sendmsg").map(|()| Vec::new())
    }),
    vector("unix", "connects to a Unix socket", |s| {
        let socket = unix(nix::sys::socket::SockType::Stream)?;
        connect(Taker::Caller, &socket, &path_address(&s.folder.join(STREAM))).at("io_uring connect")?;
        s.send(&socket)
    })
    .under(UNIX),
    vector("device", "opens a device", |_| super::attempt::read(&open(c"/dev/zero").at("io_uring openat")?))
        .under(DEVICES)
        .seen_by(Evidence::Word),
    vector("tunable", "reads a tunable", |_| {
        let file = File::open(HIDDEN).at("open")?;
        read(Taker::Caller, &file, &mut [0; 64]).map(<[u8]>::to_vec).at("io_uring read")
    })
    .under(SYSCTLS)
    .seen_by(Evidence::Tunable),
    vector("tunable-by-thread", "reads a tunable by a thread of the kernel (SQPOLL)", |_| {
        let file = File::open(HIDDEN).at("open")?;
        read(Taker::Thread, &file, &mut [0; 64]).map(<[u8]>::to_vec).at("io_uring read")
    })
    .under(SYSCTLS)
    .seen_by(Evidence::Tunable),
];
