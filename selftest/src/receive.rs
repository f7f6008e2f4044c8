//! Ways to hear somebody from whom nothing may come: somebody outside, who knocks by UDP and by TCP.

use std::{thread, time::Duration};

use crate::sys::socket::{bind, connect, receive, send_to};

use super::{
    Evidence, Layer, NOTHING_RECEIVED, Vector,
    attempt::{At as _, LOOPBACK, MAPPED, Outcome, Scene, Stop, of_family, patient, tcp, udp, v4, v6},
    port::answer,
};

const INET: i32 = libc::AF_INET;
const INET6: i32 = libc::AF_INET6;
/// A port at which nobody listens.
const DISCARD: u16 = 9;

const fn vector(name: &'static str, shows: &'static str, attempt: super::Attempt) -> Vector {
    Vector::new(name, shows, NOTHING_RECEIVED, attempt).stopped_by(Layer::Hook).seen_by(Evidence::Heard).knocked_at()
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
];

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
