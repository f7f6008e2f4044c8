//! Ways to send something by a UDP socket that is connected to a forbidden peer, which the guard lets happen as long as nothing is sent.

use std::{os::fd::OwnedFd, thread};

use nix::{
    fcntl::{SpliceFFlags, splice},
    unistd::{pipe, write},
};

use crate::{
    attempt::{At as _, LOOPBACK, LOOPBACK6, MAPPED, Outcome, Scene, Stop, of_family, udp, v4, v6},
    policies::{PORT, PORT_ON_LOOPBACK},
    sys::socket::{bind, connect, control, send_message, send_to, set_option},
    vector::{Attempt, Layer::Hook, Vector},
};

const INET: i32 = libc::AF_INET;
const INET6: i32 = libc::AF_INET6;
/// A port at which nobody listens, and which no policy of the self-test forbids.
const DISCARD: u16 = 9;
/// An option that makes an IPv6 socket one of IPv4 (include/uapi/linux/in6.h).
const IPV6_ADDRFORM: i32 = 1;

const fn vector(name: &'static str, shows: &'static str, attempt: Attempt) -> Vector {
    Vector::new(name, shows, PORT, attempt).stopped_by(Hook)
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    vector("write", "write(2)", |s| {
        write(connected(s)?, s.token.as_bytes()).at("write")?;
        Ok(Vec::new())
    }),
    vector("splice", "what is in a pipe", |s| {
        let (reader, writer) = pipe().at("pipe")?;
        write(writer, s.token.as_bytes()).at("write")?;
        splice(reader, None, connected(s)?, None, s.token.len(), SpliceFFlags::empty()).at("splice")?;
        Ok(Vec::new())
    }),
    vector("message", "a control message (IP_TTL), which has the kernel ask again", |s| {
        let control = control(libc::IPPROTO_IP, libc::IP_TTL, &5_i32.to_ne_bytes());
        send_message(&connected(s)?, s.token.as_bytes(), &[], &control).at("sendmsg")?;
        Ok(Vec::new())
    }),
    vector("options", "IP options, behind which the ports are elsewhere", |s| {
        let socket = connected(s)?;
        set_option(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &[1, 1, 1, 0]).at("setsockopt")?;
        s.send(&socket)
    }),
    vector("more", "a datagram put together from pieces (MSG_MORE)", |s| in_pieces(s, &connected(s)?)),
    vector("segments", "a datagram that the kernel cuts (UDP_SEGMENT)", |s| {
        let socket = connected(s)?;
        set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, &1000_i32.to_ne_bytes()).at("setsockopt")?;
        s.send(&socket)
    }),
    vector("after-allowed", "after another peer, which is allowed", |s| {
        let socket = udp(INET)?;
        connect(&socket, &v4(LOOPBACK, DISCARD)).at("connect to an allowed port")?;
        connect(&socket, &v4(LOOPBACK, s.port)).at("connect")?;
        s.send(&socket)
    }),
    vector("after-named", "after a datagram to another one, which is allowed", |s| {
        let socket = connected(s)?;
        send_to(&socket, b"x", 0, &v4(LOOPBACK, DISCARD)).at("sendto an allowed port")?;
        // What the kernel says of that port comes once.
        let _ = send_to(&socket, b"x", 0, &[]);
        s.send(&socket)
    }),
    vector("kept-back", "what was kept back for another peer (MSG_MORE)", |s| {
        let socket = udp(INET)?;
        connect(&socket, &v4(LOOPBACK, DISCARD)).at("connect to an allowed port")?;
        kept_back(s, &socket, &[v4(LOOPBACK, s.port)])
    }),
    vector("kept-back-mapped", "what was kept back, by an IPv6 socket", |s| {
        let socket = udp(INET6)?;
        connect(&socket, &v6(MAPPED, DISCARD)).at("connect to an allowed port")?;
        kept_back(s, &socket, &[v6(MAPPED, s.port)])
    }),
    vector("kept-back-crossed", "what was kept back, by an IPv6 socket that has an allowed IPv6 peer by now", |s| {
        let socket = udp(INET6)?;
        connect(&socket, &v6(MAPPED, DISCARD)).at("connect to an allowed port")?;
        let nobody = of_family(libc::AF_UNSPEC, [0; 4], 0);
        kept_back(s, &socket, &[v6(MAPPED, s.port), nobody, v6(LOOPBACK6, DISCARD)])
    }),
    vector("turned", "an IPv6 socket that becomes one of IPv4 (IPV6_ADDRFORM)", |s| {
        let socket = udp(INET6)?;
        connect(&socket, &v6(MAPPED, s.port)).at("connect")?;
        set_option(&socket, libc::IPPROTO_IPV6, IPV6_ADDRFORM, &INET.to_ne_bytes()).at("setsockopt")?;
        s.send(&socket)
    }),
    vector("any", "connected to 0.0.0.0, bound to the forbidden address", |s| {
        let socket = udp(INET)?;
        bind(&socket, &v4(LOOPBACK, 0)).at("bind")?;
        s.tell_by(&socket, &v4([0; 4], s.port))
    })
    .under(PORT_ON_LOOPBACK),
    vector("race", "another thread connects the socket to an allowed peer, again and again", race),
];

/// A UDP socket that is connected to the forbidden peer.
fn connected(scene: &Scene) -> Result<OwnedFd, Stop> {
    let socket = udp(INET)?;
    connect(&socket, &v4(LOOPBACK, scene.port)).at("connect")?;
    Ok(socket)
}

fn in_pieces(scene: &Scene, socket: &OwnedFd) -> Outcome {
    let (first, second) = scene.token.as_bytes().split_at(4);
    send_to(socket, first, libc::MSG_MORE, &[]).at("send")?;
    send_to(socket, second, 0, &[]).at("send")?;
    Ok(Vec::new())
}

/// Keeps a datagram back while the socket is connected to others, and then lets it go.
fn kept_back(scene: &Scene, socket: &OwnedFd, others: &[Vec<u8>]) -> Outcome {
    let (first, second) = scene.token.as_bytes().split_at(4);
    send_to(socket, first, libc::MSG_MORE, &[]).at("send")?;
    for other in others {
        connect(socket, other).at("connect")?;
    }
    send_to(socket, second, 0, &[]).at("send")?;
    Ok(Vec::new())
}

/// How often the race is run.
const RUNS: u32 = 3000;

fn race(scene: &Scene) -> Outcome {
    let socket = connected(scene)?;
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            for _ in 0..RUNS {
                let _ = connect(&socket, &v4(LOOPBACK, DISCARD));
                let _ = connect(&socket, &v4(LOOPBACK, scene.port));
            }
        });
        while !other.is_finished() {
            // Errors are also those of the other port, at which nobody is.
            let _ = send_to(&socket, scene.token.as_bytes(), 0, &[]);
        }
    });
    // What the kernel says of the other port comes once.
    let _ = send_to(&socket, b"x", 0, &[]);
    scene.send(&socket)
}
