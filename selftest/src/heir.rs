//! Those outside who are taken for somebody that they are not: who takes the port of a socket's peer when that is gone, and who asks for a
//! connection from where a socket is connecting to.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use crate::sys::socket::{bind, receive, send_to, set_option, socket};

use super::{
    attempt::{LOOPBACK, v4},
    beside::TCP_FASTOPEN_NO_COOKIE,
    wire::Wire,
};

/// From where somebody asks for connections.
pub const CALLER: [u8; 4] = [127, 0, 0, 2];
/// By which port.
pub const CALLING: u16 = 666;

/// Who takes the port of a UDP socket's peer, as soon as it is free.
#[derive(Default)]
pub struct Heir(Option<UdpSocket>);

impl Heir {
    /// Says something to the UDP socket that is bound to this port of 127.0.0.1 or [::1], from the port that it is connected to, if that
    /// can be had.
    pub fn tell(&mut self, port: u16, what: &str) {
        if self.0.is_none() {
            // Whoever has it gives it back.
            self.0 = peer(port).and_then(|peer| UdpSocket::bind(peer).ok());
        }
        if let Some(socket) = &self.0
            && let Ok(own) = socket.local_addr()
        {
            let _ = socket.send_to(what.as_bytes(), (own.ip(), port));
        }
    }
}

/// The peer of the UDP socket that is bound to this port.
fn peer(port: u16) -> Option<SocketAddr> {
    let sockets = |file: &str, ip: IpAddr| {
        let text = fs::read_to_string(file).ok()?;
        let found = text.lines().find_map(|line| peer_in(line, port))?;
        Some(SocketAddr::new(ip, found))
    };
    sockets("/proc/net/udp", Ipv4Addr::LOCALHOST.into())
        .or_else(|| sockets("/proc/net/udp6", Ipv6Addr::LOCALHOST.into()))
}

/// The port of the peer, in a line of proc_net(5) about a socket with this port that is connected.
fn peer_in(line: &str, port: u16) -> Option<u16> {
    let mut fields = line.split_whitespace().skip(1).map(|field| {
        let (_, port) = field.split_once(':')?;
        u16::from_str_radix(port, 16).ok()
    });
    let (local, peer) = (fields.next()??, fields.next()??);
    (local == port && peer != 0).then_some(peer)
}

/// Who asks for connections all the time, with data in the first packet, in the network of a [`Wire`]. It ends with this value.
pub struct Caller {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Caller {
    /// Says something in each packet that asks for a connection to this port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// When the network can't be entered.
    pub fn new(wire: &Wire, port: u16, what: String) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let thread = wire.enter(move || {
            while !is_over.load(Ordering::Relaxed) {
                // Nobody has to listen there.
                let _ = call(port, &what);
            }
        })?;
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn call(port: u16, what: &str) -> io::Result<()> {
    let on = 1_i32.to_ne_bytes();
    let socket = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &on)?;
    set_option(&socket, libc::IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, &on)?;
    let soon: Vec<u8> = [0_i64, 50_000].into_iter().flat_map(i64::to_ne_bytes).collect();
    for option in [libc::SO_SNDTIMEO, libc::SO_RCVTIMEO] {
        set_option(&socket, libc::SOL_SOCKET, option, &soon)?;
    }
    bind(&socket, &v4(CALLER, CALLING))?;
    send_to(&socket, what.as_bytes(), libc::MSG_FASTOPEN, &v4(LOOPBACK, port))?;
    receive(&socket, &mut [0; 1]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_of_a_connected_socket_is_found() {
        let (one, other) =
            (UdpSocket::bind("127.0.0.1:0").expect("bind"), UdpSocket::bind("127.0.0.1:0").expect("bind"));
        let port = one.local_addr().expect("bound").port();
        assert_eq!(peer(port), None);
        one.connect(other.local_addr().expect("bound")).expect("connect");
        assert_eq!(peer(port), other.local_addr().ok());
    }
}
