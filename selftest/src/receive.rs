//! Ways to hear somebody from whom nothing may come: somebody outside, who knocks by UDP and by TCP.

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{Backlog, SockFlag, accept4, listen};

use crate::sys::socket::{bind, connect, local_port, receive, send_to, set_option, socket};

use super::{
    attempt::{At as _, LOOPBACK, LOOPBACK6, MAPPED, Outcome, Scene, Stop, of_family, patient, tcp, udp, v4, v6},
    heir,
    policies::{CALLER_NOT_RECEIVED, NOTHING_RECEIVED, ONLY_OWN},
    port::answer,
    vector::{Evidence, Layer, Vector},
};

const INET: i32 = libc::AF_INET;
const INET6: i32 = libc::AF_INET6;
/// A port at which nobody listens.
const DISCARD: u16 = 9;
/// What an attempt says to itself.
const OWN: &[u8] = b"own";
/// For how long an attempt changes what its socket is: without the guard, somebody comes in sooner.
const CHANGING: Duration = Duration::from_secs(4);

const fn vector(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, NOTHING_RECEIVED, attempt).stopped_by(Layer::Hook).seen_by(Evidence::Heard).knocked_at()
}

const fn heir(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, ONLY_OWN, attempt).seen_by(Evidence::Told).inherited()
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    vector("tcp4", "a listener", |s| {
        let socket = tcp(INET, 0)?;
        bind(&socket, &v4(LOOPBACK, s.served)).at("bind")?;
        answer(s, &socket)
    }),
    vector("udp4", "a UDP socket that is connected to nobody", |s| hear(s, INET, |_| Ok(()))),
    vector("udp6-mapped", "an IPv6 UDP socket that is connected to nobody", |s| hear(s, INET6, |_| Ok(()))),
    vector("udp4-port-0", "a UDP socket that is connected to port 0, so that the kernel compares no port", |s| {
        hear(s, INET, |socket| connect(socket, &v4(LOOPBACK, 0)).at("connect"))
    }),
    vector("udp6-mapped-port-0", "an IPv6 UDP socket that is connected to port 0", |s| {
        hear(s, INET6, |socket| connect(socket, &v6(MAPPED, 0)).at("connect"))
    }),
    vector("udp4-again", "a UDP socket that is connected and disconnected all the time", |s| {
        hear(s, INET, |socket| {
            let socket = socket.try_clone().at("dup")?;
            thread::spawn(move || {
                loop {
                    let _ = connect(&socket, &v4([127, 0, 0, 2], DISCARD));
                    let _ = connect(&socket, &of_family(libc::AF_UNSPEC, [0; 4], 0));
                }
            });
            Ok(())
        })
    }),
    heir("udp4-heir", "a UDP socket whose peer has gone, and its port is another process's", |s| hear_heir(s, INET)),
    heir("udp4-heir-user", "the same by an ordinary user", |s| hear_heir(s, INET)).by_user(),
    heir("udp6-heir", "an IPv6 UDP socket whose peer has gone", |s| hear_heir(s, INET6)),
    Vector::new(
        "tcp4-caller",
        "a listener that becomes a client and back, all the time",
        CALLER_NOT_RECEIVED,
        hear_caller,
    )
    .seen_by(Evidence::Told)
    .on_the_wire()
    .called(),
];

/// Hears whoever has the port of its peer, which was another of this process's sockets, and has gone.
fn hear_heir(scene: &Scene, domain: i32) -> Outcome {
    let address = |port| if domain == INET6 { v6(LOOPBACK6, port) } else { v4(LOOPBACK, port) };
    let (peer, socket) = (udp(domain)?, patient(udp(domain)?)?);
    bind(&peer, &address(0)).at("bind")?;
    bind(&socket, &address(scene.served)).at("bind")?;
    connect(&socket, &address(local_port(&peer).at("getsockname")?)).at("connect")?;
    // Both are this process's own, so they hear each other.
    send_to(&peer, OWN, 0, &address(scene.served)).at("sendto")?;
    let mut buffer = [0; 64];
    if receive(&socket, &mut buffer).at("recv of what it has sent itself")? != OWN {
        return Err(Stop::because("not what it has sent itself"));
    }
    drop(peer);
    Ok(receive(&socket, &mut buffer).at("recv")?.to_vec())
}

/// Hears who asks for a connection, while another thread has a listener become a client of that very address and port, and back.
fn hear_caller(scene: &Scene) -> Outcome {
    let socket = socket(INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0).at("socket")?;
    set_option(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, &5_i32.to_ne_bytes()).at("setsockopt")?;
    bind(&socket, &v4(LOOPBACK, scene.served)).at("bind")?;
    let (listener, until) = (socket.try_clone().at("dup")?, Instant::now() + CHANGING);
    let changes = thread::spawn(move || {
        let (peer, nobody) = (v4(heir::CALLER, heir::CALLING), of_family(libc::AF_UNSPEC, [0; 4], 0));
        let backlog = Backlog::new(5).expect("small");
        while Instant::now() < until {
            let _ = listen(&listener.as_fd(), backlog);
            let _ = connect(&listener, &nobody);
            let _ = connect(&listener, &peer);
            let _ = connect(&listener, &nobody);
            let _ = listen(&listener.as_fd(), backlog);
            // Time to come in.
            thread::sleep(Duration::from_micros(500));
        }
    });
    while !changes.is_finished() {
        let Ok(guest) = accept4(socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC) else { continue };
        let guest = patient(crate::sys::take_descriptor(guest).at("accept")?)?;
        let mut buffer = [0; 64];
        if let Ok(said @ [_, ..]) = receive(&guest, &mut buffer) {
            return Ok(said.to_vec());
        }
    }
    Err(Stop::because("nobody came in"))
}

/// Waits for the knock, by a socket that is made ready, and says the token to the one who knocks.
fn hear(scene: &Scene, domain: i32, ready: impl FnOnce(&std::os::fd::OwnedFd) -> Result<(), Stop>) -> Outcome {
    let mapped = domain == INET6;
    let socket = patient(udp(domain)?)?;
    let own = if mapped { v6([0; 16], scene.served) } else { v4(LOOPBACK, scene.served) };
    bind(&socket, &own).at("bind")?;
    ready(&socket)?;
    let mut buffer = [0; 64];
    receive(&socket, &mut buffer).at("recv")?;
    let knock = String::from_utf8_lossy(&buffer).trim_end_matches('\0').to_owned();
    let back: u16 = knock.parse().map_err(|_| Stop::because("not the knock"))?;
    let speaker = udp(INET)?;
    send_to(&speaker, scene.token.as_bytes(), 0, &v4(LOOPBACK, back)).at("sendto")?;
    // Time for the other side to hear it.
    thread::sleep(Duration::from_millis(20));
    Ok(Vec::new())
}
