//! Those outside who hear what attempts say: listeners on loopback, Unix sockets and others.

use std::{
    fs::File,
    io::{self, IoSlice},
    net::{TcpListener, UdpSocket},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
        unix::net::{UnixDatagram, UnixListener},
    },
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{Backlog, ControlMessage, MsgFlags, SockFlag, accept4, listen, sendmsg},
};

use crate::sys::{socket, take_descriptor};

use super::{
    attempt::{LOOPBACK, LOOPBACK6, abstract_address, path_address, v4, v6},
    nameserver::Listen,
    protocol::{UDEV, netlink_address},
    wire::{self, Hearing, Wire},
};

/// Names in the folder of the self-test.
pub const STREAM: &str = "stream";
/// A socket of type SOCK_SEQPACKET.
pub const SEQUENCE: &str = "sequence";
/// One for datagrams.
pub const DATAGRAMS: &str = "datagrams";
/// One whose server passes descriptors to anybody who connects: a TCP socket and an open device.
pub const GIVER: &str = "giver";
/// One that an environment variable of the commands names as their session's message bus, in a folder.
pub const BUS: &str = "session/bus";
/// A file that is there when that service has begun anew.
pub const RESTARTED: &str = "work/restarted";
/// One that a variable names as their editor's.
pub const EDITOR: &str = "editor";
/// A folder that a variable names as that of their keys, in which there is an agent's socket.
pub const KEYS: &str = "keys";
/// The agent's socket in [`KEYS`].
pub const AGENT: &str = "keys/S.gpg-agent";
/// The folder of the message bus.
pub const BUS_FOLDER: &str = "session";

/// As long as a path in an address can be (`sun_path` of unix(7)).
const LONGEST: usize = 108;

/// The name in the folder that leaves no room for a NUL.
#[must_use]
pub fn long_name() -> String {
    "l".repeat(LONGEST)
}

/// The abstract name of a stream listener.
#[must_use]
pub fn stream_name(key: i32) -> String {
    format!("guard-selftest-{key}-stream")
}

/// The abstract name of a socket for datagrams.
#[must_use]
pub fn datagrams_name(key: i32) -> String {
    format!("guard-selftest-{key}-datagrams")
}

/// The abstract name of the socket that passes descriptors.
#[must_use]
pub fn giver_name(key: i32) -> String {
    format!("guard-selftest-{key}-giver")
}

/// Who listens.
enum Listener {
    /// Reads from anybody who connects.
    Hears(OwnedFd),
    /// Passes descriptors to anybody who connects.
    Gives(OwnedFd),
    /// Reads what arrives.
    Reads(OwnedFd),
    /// Reads the frames of a network device.
    Frames(OwnedFd),
}

impl Listener {
    fn fd(&self) -> &OwnedFd {
        match self {
            Self::Hears(fd) | Self::Gives(fd) | Self::Reads(fd) | Self::Frames(fd) => fd,
        }
    }
}

/// All that was heard. The thread that listens ends with this value.
pub struct Ear {
    heard: Arc<Mutex<Vec<u8>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// The port on loopback, of TCP, UDP and UDP-Lite.
    pub port: u16,
    /// The netlink port, of NETLINK_USERSOCK.
    pub netlink: u32,
    /// The network of its own in which it listens, too; or why there is none.
    pub wire: Result<Wire, String>,
    /// A socket to make sure that all that was sent before has been heard.
    marker: UdpSocket,
}

impl Ear {
    /// Starts to listen, on loopback and in a folder.
    ///
    /// # Errors
    ///
    /// When that isn't possible. IPv6 and UDP-Lite may be missing; those who need them find out.
    pub fn new(folder: &Path, key: i32) -> anyhow::Result<Self> {
        let first = TcpListener::bind("127.0.0.1:0").context("listening on loopback")?;
        let port = first.local_addr()?.port();
        let udp = UdpSocket::bind(("127.0.0.1", port)).context("a UDP socket on loopback")?;
        let mut listeners = vec![Listener::Hears(first.into()), Listener::Reads(udp.into())];
        if let Ok(listener) = listener6(port) {
            listeners.push(Listener::Hears(listener));
        }
        if let Ok(socket) = datagrams6(port) {
            listeners.push(Listener::Reads(socket));
        }
        if let Ok(socket) = lite(port) {
            listeners.push(Listener::Reads(socket));
        }
        listeners.push(Listener::Hears(UnixListener::bind(folder.join(STREAM))?.into()));
        std::fs::create_dir(folder.join(BUS_FOLDER))?;
        std::fs::create_dir(folder.join(KEYS))?;
        for service in [BUS, EDITOR, AGENT] {
            listeners.push(Listener::Hears(UnixListener::bind(folder.join(service))?.into()));
        }
        listeners.push(Listener::Hears(sequence(&folder.join(SEQUENCE))?));
        listeners.push(Listener::Reads(UnixDatagram::bind(folder.join(DATAGRAMS))?.into()));
        listeners.push(Listener::Gives(UnixListener::bind(folder.join(GIVER))?.into()));
        for (name, gives) in [(stream_name(key), false), (giver_name(key), true)] {
            let listener = unix(libc::SOCK_STREAM, &abstract_address(&name))?;
            listen(&listener, Backlog::new(16)?)?;
            listeners.push(if gives { Listener::Gives(listener) } else { Listener::Hears(listener) });
        }
        listeners.push(Listener::Reads(unix(libc::SOCK_DGRAM, &abstract_address(&datagrams_name(key)))?));
        listeners.push(Listener::Hears(longest(folder)?));
        let user = socket::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_USERSOCK)?;
        let netlink = key.cast_unsigned();
        socket::bind(&user, &netlink_address(netlink, 0))?;
        listeners.push(Listener::Reads(user));
        let devices = socket::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT)?;
        socket::bind(&devices, &netlink_address(0, UDEV))?;
        listeners.push(Listener::Reads(devices));
        let wire = Wire::new(port).map(|(wire, Hearing { own: (tcp, udp), frames })| {
            listeners.extend([Listener::Hears(tcp), Listener::Reads(udp), Listener::Frames(frames)]);
            wire
        });
        let wire = wire.map_err(|error| format!("{error:#}"));
        let (heard, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (heard_there, over_there) = (Arc::clone(&heard), Arc::clone(&over));
        let thread = thread::spawn(move || serve(&listeners, &heard_there, &over_there));
        let marker = UdpSocket::bind("127.0.0.1:0")?;
        marker.connect(("127.0.0.1", port))?;
        Ok(Self { heard, over, thread: Some(thread), port, netlink, wire, marker })
    }

    /// Adds what was heard elsewhere.
    pub fn add(&self, bytes: &[u8]) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    }

    /// Adds what is heard elsewhere, from now on.
    pub fn listen(&self) -> Listen {
        let heard = Arc::clone(&self.heard);
        Arc::new(move |bytes| heard.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes))
    }

    /// Forgets everything.
    pub fn forget(&self) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Says something to itself, for those who listen to others' packets.
    pub fn mutter(&self, what: &str) {
        let _ = self.marker.send(what.as_bytes());
    }

    /// Whether it has heard something, after all that was sent so far.
    pub fn has_heard(&self, what: &str) -> bool {
        static MARKS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        for _ in 0..2 {
            // Twice, since a round of the thread may have passed a listener by when something came there.
            let mark = format!("<mark {}>", MARKS.fetch_add(1, Ordering::Relaxed));
            self.mutter(&mark);
            for _ in 0..1000 {
                if self.contains(&mark) {
                    break;
                }
                thread::sleep(Duration::from_micros(200));
            }
        }
        self.contains(what)
    }

    fn contains(&self, what: &str) -> bool {
        super::contains(&self.heard.lock().unwrap_or_else(PoisonError::into_inner), what.as_bytes())
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.mutter("over");
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listener6(port: u16) -> io::Result<OwnedFd> {
    let listener = socket::socket(libc::AF_INET6, libc::SOCK_STREAM, 0)?;
    only6(&listener)?;
    socket::bind(&listener, &v6(LOOPBACK6, port))?;
    listen(&listener, Backlog::new(16)?)?;
    Ok(listener)
}

fn datagrams6(port: u16) -> io::Result<OwnedFd> {
    let datagrams = socket::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)?;
    only6(&datagrams)?;
    socket::bind(&datagrams, &v6(LOOPBACK6, port))?;
    Ok(datagrams)
}

fn only6(socket: &OwnedFd) -> io::Result<()> {
    socket::set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &1_i32.to_ne_bytes())
}

fn lite(port: u16) -> io::Result<OwnedFd> {
    let lite = socket::socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)?;
    socket::bind(&lite, &v4(LOOPBACK, port))?;
    Ok(lite)
}

fn unix(kind: i32, address: &[u8]) -> io::Result<OwnedFd> {
    let bound = socket::socket(libc::AF_UNIX, kind, 0)?;
    socket::bind(&bound, address)?;
    Ok(bound)
}

fn sequence(path: &Path) -> io::Result<OwnedFd> {
    let listener = unix(libc::SOCK_SEQPACKET, &path_address(path))?;
    listen(&listener, Backlog::new(16)?)?;
    Ok(listener)
}

/// A listener whose path fills its address. The path is relative, so a thread goes to the folder for that: without taking the
/// others along.
fn longest(folder: &Path) -> anyhow::Result<OwnedFd> {
    thread::scope(|scope| {
        let bound = scope.spawn(|| -> anyhow::Result<OwnedFd> {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
            nix::unistd::chdir(folder)?;
            let listener = unix(libc::SOCK_STREAM, &path_address(Path::new(&long_name())))?;
            listen(&listener, Backlog::new(16)?)?;
            Ok(listener)
        });
        bound.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))
    })
}

/// Listens until it is over.
fn serve(listeners: &[Listener], heard: &Mutex<Vec<u8>>, over: &AtomicBool) {
    let mut guests: Vec<OwnedFd> = Vec::new();
    let mut buffer = [0; 4096];
    let note = |bytes: &[u8]| heard.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    while !over.load(Ordering::Relaxed) {
        let fds = listeners.iter().map(Listener::fd).chain(&guests);
        let mut polled: Vec<PollFd> = fds.map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
        let _ = poll(&mut polled, PollTimeout::from(100_u8));
        let ready: Vec<bool> = polled.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        drop(polled);
        let (ready, ready_guests) = ready.split_at(listeners.len());
        // Guests first, so that there are as many as were asked about.
        let mut stay = ready_guests.iter().map(|ready| !ready);
        guests.retain(|guest| {
            if stay.next().unwrap_or(true) {
                return true;
            }
            match socket::receive(guest, &mut buffer) {
                Ok([]) | Err(_) => false,
                Ok(bytes) => {
                    note(bytes);
                    true
                }
            }
        });
        for (listener, _) in listeners.iter().zip(ready).filter(|(_, ready)| **ready) {
            match listener {
                Listener::Reads(fd) => {
                    if let Ok(bytes) = socket::receive(fd, &mut buffer) {
                        note(bytes);
                    }
                }
                Listener::Frames(fd) => {
                    if let Ok(Some(frame)) = wire::heard(fd, &mut buffer) {
                        note(frame);
                    }
                }
                Listener::Hears(fd) => guests.extend(accept(fd)),
                Listener::Gives(fd) => {
                    if let Some(guest) = accept(fd) {
                        let _ = give(&guest);
                    }
                }
            }
        }
    }
}

fn accept(listener: &OwnedFd) -> Option<OwnedFd> {
    let guest = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC).ok()?;
    let copy = take_descriptor(guest).ok();
    let _ = nix::unistd::close(guest);
    copy
}

/// Passes a TCP socket and an open device.
///
/// # Errors
///
/// When they can't be had or passed.
pub fn give(guest: &OwnedFd) -> io::Result<()> {
    let tcp = socket::socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    let device = File::open("/dev/zero")?;
    let fds: [RawFd; 2] = [tcp.as_raw_fd(), device.as_raw_fd()];
    let message = [IoSlice::new(b"here")];
    sendmsg::<()>(guest.as_raw_fd(), &message, &[ControlMessage::ScmRights(&fds)], MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// The service at [`BUS`], begun anew.
pub struct Restarted(UnixListener);

impl Restarted {
    /// Begins it anew.
    ///
    /// # Errors
    ///
    /// When its socket can't be made.
    pub fn new(folder: &Path) -> io::Result<Self> {
        std::fs::remove_file(folder.join(BUS))?;
        let listener = UnixListener::bind(folder.join(BUS))?;
        listener.set_nonblocking(true)?;
        std::fs::write(folder.join(RESTARTED), "")?;
        Ok(Self(listener))
    }

    /// Hears who has come.
    pub fn listen(&self, ear: &Ear) {
        let mut buffer = [0; 256];
        while let Ok((guest, _)) = self.0.accept() {
            let _ = guest.set_read_timeout(Some(Duration::from_millis(300)));
            if let Ok(bytes) = socket::receive(&guest, &mut buffer) {
                ear.add(bytes);
            }
        }
    }
}
