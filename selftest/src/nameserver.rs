//! A nameserver outside, on loopback, which knows a few names and hears what it is told.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::sys::socket;

use super::attempt::v4;

/// The port of nameservers.
pub const PORT: u16 = 53;

/// The names that it knows, with their addresses: the listeners outside are at loopback's first one.
const ZONE: [(&str, [u8; 4]); 5] = [
    (ALLOWED, [192, 0, 2, 1]),
    (ELSEWHERE, [127, 0, 0, 1]),
    (PRIVATE, [127, 0, 0, 1]),
    (SECURE, [127, 0, 0, 1]),
    ("other.selftest.test", [127, 0, 0, 1]),
];
/// A name that may be reached at the port of the listeners outside. It has another address than these.
pub const ALLOWED: &str = "allowed.selftest.test";
/// One that may be reached at another port.
pub const ELSEWHERE: &str = "elsewhere.selftest.test";
/// One that may be reached there, but not if it is on this host.
pub const PRIVATE: &str = "private.selftest.test";
/// One that may be reached there by TLS.
pub const SECURE: &str = "secure.selftest.test";

/// How long somebody may say nothing on a connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who is told what it hears.
pub type Listen = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// A nameserver, which serves for as long as this process is there.
#[derive(Clone, Debug)]
pub struct Nameserver {
    /// The nameserver's address, one of loopback that is this process's.
    pub address: [u8; 4],
    /// The number of the last mark that came as a datagram.
    mark: Arc<AtomicU32>,
    /// How many connections it has accepted that have not ended.
    open: Arc<AtomicU32>,
}

/// What a mark begins with; its number follows.
const MARK: &[u8] = b"<mark>";

impl Nameserver {
    /// Waits until it has heard what was sent so far by sockets that are closed, or has had time enough for that.
    pub fn settle(&self) {
        let place = SocketAddrV4::new(Ipv4Addr::from(self.address), PORT);
        let number = self.mark.load(Ordering::SeqCst).wrapping_add(1);
        // What comes later at a socket, or to be accepted, is read later.
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
            let _ = socket.send_to(&[MARK, &number.to_be_bytes()].concat(), place);
        }
        let connection = TcpStream::connect(place);
        let begun = Instant::now();
        let has_read = |mut connection: &TcpStream| {
            // It answers a mark by closing.
            let _ = connection.set_read_timeout(Some(PATIENCE));
            connection.write_all(MARK).and_then(|()| connection.read(&mut [0])).is_ok()
        };
        let _ = connection.as_ref().is_ok_and(has_read);
        drop(connection);
        let is_done = || self.mark.load(Ordering::SeqCst) == number && self.open.load(Ordering::SeqCst) == 0;
        while !is_done() && begun.elapsed() < PATIENCE {
            thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Starts a nameserver.
///
/// # Errors
///
/// When the address is taken, as by a nameserver for all of loopback.
pub fn start(listen: &Listen) -> anyhow::Result<Nameserver> {
    let [.., a, b] = std::process::id().to_be_bytes();
    let address = [127, 83, a, b];
    let place = SocketAddrV4::new(Ipv4Addr::from(address), PORT);
    let datagrams = socket::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    // As many nameservers do. So others can be bound there as well.
    socket::set_option(&datagrams.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32.to_ne_bytes())?;
    socket::bind(&datagrams, &v4(address, PORT)).with_context(|| format!("a nameserver at {place}"))?;
    let (datagrams, connections) = (UdpSocket::from(datagrams), TcpListener::bind(place)?);
    let nameserver = Nameserver { address, mark: Arc::default(), open: Arc::default() };
    let (heard, mark) = (Arc::clone(listen), Arc::clone(&nameserver.mark));
    thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        while let Ok((length, client)) = datagrams.recv_from(&mut buffer) {
            if let Some(number) = buffer[..length].strip_prefix(MARK).and_then(|number| number.try_into().ok()) {
                mark.store(u32::from_be_bytes(number), Ordering::SeqCst);
                continue;
            }
            hear(&buffer[..length], &heard);
            if let Some(answer) = answer(&buffer[..length]) {
                let _ = datagrams.send_to(&answer, client);
            }
        }
    });
    let (heard, open) = (Arc::clone(listen), Arc::clone(&nameserver.open));
    thread::spawn(move || {
        for connection in connections.incoming().flatten() {
            open.fetch_add(1, Ordering::SeqCst);
            let (heard, open) = (Arc::clone(&heard), Arc::clone(&open));
            thread::spawn(move || {
                serve(connection, &heard);
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    Ok(nameserver)
}

/// Answers the queries that come by a connection.
fn serve(mut connection: TcpStream, listen: &Listen) {
    let _ = connection.set_read_timeout(Some(PATIENCE));
    let (mut come, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = connection.read(&mut buffer) {
        come.extend_from_slice(&buffer[..length]);
        if come.starts_with(MARK) {
            return;
        }
        // All of it each time, since what is in one piece may come in several.
        hear(&come, listen);
        while let Some(length) = come.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)))
            && let Some(message) = come.get(2..2 + length)
        {
            let Some(answer) = answer(message) else { return };
            come.drain(..2 + length);
            if connection.write_all(&with_length(&answer)).is_err() {
                return;
            }
        }
    }
}

/// A message as it goes by TCP.
///
/// # Panics
///
/// When it is longer than any message.
#[must_use]
pub fn with_length(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).expect("messages are short").to_be_bytes(), message].concat()
}

/// Tells what was heard, also what labels spell in hexadecimal digits.
fn hear(bytes: &[u8], listen: &Listen) {
    listen(bytes);
    for digits in bytes.split(|byte| !byte.is_ascii_hexdigit()).filter(|digits| digits.len() > 16) {
        let pairs = digits.chunks_exact(2).map(|pair| std::str::from_utf8(pair).expect("these are digits"));
        listen(&pairs.map(|pair| u8::from_str_radix(pair, 16).expect("these, too")).collect::<Vec<u8>>());
    }
}

/// The labels of a name, as a message has them.
///
/// # Panics
///
/// When one is longer than a label can be.
#[must_use]
pub fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("labels are short"));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// A question for the IPv4 addresses of a name, which is written as a message has it.
#[must_use]
pub fn question(name: &[u8]) -> Vec<u8> {
    [name, &[0, 1, 0, 1]].concat()
}

/// An answer with one address.
#[must_use]
pub fn answer_to(id: [u8; 2], name: &str, address: [u8; 4]) -> Vec<u8> {
    let header = [&id[..], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]].concat();
    let record = [&[0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4][..], &address].concat();
    [header, question(&encoded(name)), record].concat()
}

/// What it answers to a query.
fn answer(message: &[u8]) -> Option<Vec<u8>> {
    let id = *message.first_chunk()?;
    let known = ZONE.iter().find(|(name, _)| {
        let asked = message.get(12..12 + encoded(name).len());
        asked.is_some_and(|asked| asked.eq_ignore_ascii_case(&encoded(name)))
    });
    Some(match known {
        Some((name, address)) => answer_to(id, name, *address),
        None => [&id[..], &[0x81, 0x83, 0, 0, 0, 0, 0, 0, 0, 0]].concat(),
    })
}
