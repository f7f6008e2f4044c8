//! Small servers on loopback addresses and ports that the kernel chooses. Each ends with its value.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::eventually;

/// Nobody waits longer for a client that says nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a server's thread and its owner share.
#[derive(Default)]
struct Shared {
    ending: AtomicBool,
    /// The clients whose connections or datagrams have come, in order.
    clients: Mutex<Vec<SocketAddr>>,
    /// How many of these were its owner's.
    own: AtomicUsize,
}

impl Shared {
    fn note(&self, client: SocketAddr) {
        self.clients().push(client);
    }

    fn clients(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.clients.lock().expect("nobody panics with it")
    }

    /// How many had come before a client of the owner's, which `knock` makes.
    fn count(&self, knock: impl FnOnce() -> SocketAddr) -> usize {
        let seen = self.clients().len();
        let own = knock();
        let mut place = None;
        eventually("the server has seen its own client", || {
            place = self.clients()[seen..].iter().position(|client| *client == own);
            place.is_some()
        });
        seen + place.unwrap_or_default() - self.own.fetch_add(1, Ordering::SeqCst)
    }
}

/// A web server: it answers any request with the three bytes `ok\n`.
pub struct TcpServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl TcpServer {
    /// Starts one on an address (`127.0.0.1`, `::1` …).
    ///
    /// # Panics
    ///
    /// When it is no address of this host.
    #[must_use]
    pub fn start(ip: &str) -> Self {
        Self::with(TcpListener::bind((parse(ip), 0)).expect("an address of this host"))
    }

    /// Starts two on the same port: on 127.0.0.1 and on `::1`.
    ///
    /// # Panics
    ///
    /// When there is no port that is free on both.
    #[must_use]
    pub fn start_pair() -> [Self; 2] {
        let pair = (0..100).find_map(|_| {
            let v4 = Self::start("127.0.0.1");
            let v6 = TcpListener::bind((parse("::1"), v4.port())).ok()?;
            Some([v4, Self::with(v6)])
        });
        pair.expect("some port is free on both")
    }

    fn with(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                while let Ok((stream, client)) = listener.accept() {
                    if shared.ending.load(Ordering::SeqCst) {
                        break;
                    }
                    shared.note(client);
                    // A client that keeps its connection must not keep others waiting.
                    thread::spawn(|| answer(stream));
                }
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `http://…/`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// How many connections have come so far, exactly: it connects, too, and waits for its turn.
    ///
    /// # Panics
    ///
    /// When the server is stuck.
    #[must_use]
    pub fn accepted(&self) -> usize {
        let mut own = None;
        self.shared.count(|| {
            let stream = own.insert(TcpStream::connect(self.address).expect("it listens"));
            stream.local_addr().expect("it is connected")
        })
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        if TcpStream::connect(self.address).is_ok() {
            let _ = self.thread.take().map(JoinHandle::join);
        }
    }
}

/// Reads a request's head, or all that comes until the client has no more to say; answers it.
fn answer(mut stream: TcpStream) {
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => head.extend_from_slice(&buffer[..length]),
        }
    }
    let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n");
}

/// A server that sends every datagram back.
pub struct UdpServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl UdpServer {
    /// Starts one on an address (`127.0.0.1`, `::1` …).
    ///
    /// # Panics
    ///
    /// When it is no address of this host.
    #[must_use]
    pub fn start(ip: &str) -> Self {
        let socket = UdpSocket::bind((parse(ip), 0)).expect("an address of this host");
        let address = socket.local_addr().expect("it is bound");
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let mut buffer = [0; 2048];
                while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                    if shared.ending.load(Ordering::SeqCst) {
                        break;
                    }
                    shared.note(client);
                    let _ = socket.send_to(&buffer[..length], client);
                }
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many datagrams have come so far, exactly: it sends one, too, and waits for its turn.
    ///
    /// # Panics
    ///
    /// When the server is stuck.
    #[must_use]
    pub fn received(&self) -> usize {
        let own = UdpSocket::bind((self.address.ip(), 0)).expect("an address of this host");
        self.shared.count(|| {
            own.send_to(b"", self.address).expect("loopback takes it");
            own.local_addr().expect("it is bound")
        })
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        let knock = UdpSocket::bind((self.address.ip(), 0)).and_then(|socket| socket.send_to(b"", self.address));
        if knock.is_ok() {
            let _ = self.thread.take().map(JoinHandle::join);
        }
    }
}

fn parse(ip: &str) -> IpAddr {
    ip.parse().unwrap_or_else(|_| panic!("{ip} is no address"))
}
