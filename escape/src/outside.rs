//! Everybody outside the sandbox: peers that listen, answer, and reach for the program's sockets when it asks for that; and
//! those who watch the wires.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result};

use crate::{
    address::{self, CALLING, Host, OWN, Port, SERVED, STRANGE, Target},
    capture::{self, Seen},
    namespaces::Namespaces,
    policy::Protocol,
    sys,
    token::Token,
    unix,
    wire::Request,
};

/// How long a connection from outside may take, in milliseconds.
const CONNECTING: i32 = 4;

/// Something of the program's that somebody outside got, or a connection that somebody outside made to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Contact {
    pub host: Host,
    pub protocol: Protocol,
    /// Whether somebody outside began it.
    pub incoming: bool,
    /// Of the program's socket.
    pub program: (IpAddr, u16),
    /// Of the outsider's.
    pub outsider: (IpAddr, u16),
}

struct Server {
    host: Host,
    port: u16,
    socket: OwnedFd,
    stream: bool,
}

/// All of them.
pub struct Outside {
    namespaces: Namespaces,
    servers: Vec<Server>,
    captures: Vec<(Host, OwnedFd)>,
    /// Connections that were accepted, and by whom.
    connections: Vec<(Host, u16, OwnedFd)>,
    /// Connections that were made to the program, kept until it ends.
    callers: Vec<OwnedFd>,
    calling: u16,
    /// The program's number.
    run: u32,
    contacts: Vec<Contact>,
    seen: Vec<Seen>,
    unix: unix::Servers,
    /// The Unix sockets that the program has reached.
    reached: Vec<unix::Name>,
}

fn failed(what: &'static str) -> impl Fn(i32) -> anyhow::Error {
    move |errno| anyhow::Error::from(std::io::Error::from_raw_os_error(errno)).context(what)
}

fn any(port: u16) -> Vec<u8> {
    let ip = Ipv6Addr::UNSPECIFIED.into();
    Target { family: libc::AF_INET6, ip, port: Port::Fixed(port), scope: 0 }.bytes(port)
}

/// A socket of both families, bound to a port.
fn bound(kind: i32, port: u16) -> Result<OwnedFd, i32> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let socket = sys::owned(sys::socket(libc::AF_INET6, kind | flags, 0)?);
    let on = 1_i32.to_ne_bytes();
    let fd = socket.as_raw_fd();
    sys::setsockopt(fd, libc::SOL_SOCKET, libc::SO_BROADCAST, &on)?;
    if kind == libc::SOCK_STREAM {
        sys::setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &on)?;
        // Ends with a reset, so that nothing is left of it.
        sys::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, &[on, [0; 4]].concat())?;
    }
    sys::bind(fd, &any(port))?;
    Ok(socket)
}

impl Outside {
    /// How many servers there always are.
    const SERVERS: usize = Host::ALL.len() * (2 * SERVED.len() + 1);

    /// Makes the world, with Unix sockets beside that program. The calling thread is in the program's namespace afterwards.
    ///
    /// # Errors
    ///
    /// When the kernel refuses something, or ip(8) is missing.
    pub fn new(program: &Path) -> Result<Self> {
        let namespaces = Namespaces::new()?;
        let (mut servers, mut captures) = (Vec::new(), Vec::new());
        for host in Host::ALL {
            namespaces.of(host).enter()?;
            for port in SERVED {
                let socket = bound(libc::SOCK_STREAM, port).map_err(failed("listening by TCP"))?;
                sys::listen(socket.as_raw_fd(), 128).map_err(failed("listen"))?;
                let fast = 5_i32.to_ne_bytes();
                let _ = sys::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN, &fast);
                servers.push(Server { host, port, socket, stream: true });
            }
            for port in SERVED.into_iter().chain([STRANGE]) {
                let socket = bound(libc::SOCK_DGRAM, port).map_err(failed("listening by UDP"))?;
                servers.push(Server { host, port, socket, stream: false });
            }
            let device = if host == Host::Local { "lo" } else { "host" };
            let index = nix::net::if_::if_nametoindex(device).context("a device's index")?;
            captures.push((host, sys::capture(index).map_err(failed("capturing"))?));
        }
        namespaces.own.enter()?;
        let (connections, callers) = (Vec::new(), Vec::new());
        let (contacts, seen) = (Vec::new(), Vec::new());
        let unix = unix::Servers::new(program).context("listening by Unix sockets")?;
        let reached = Vec::new();
        Ok(Self {
            namespaces,
            servers,
            captures,
            connections,
            callers,
            calling: 0,
            run: 0,
            contacts,
            seen,
            unix,
            reached,
        })
    }

    /// Has everything from now on belong to the program of this number.
    pub fn begin(&mut self, run: u32) {
        self.run = run;
        self.watch();
        self.serve();
        self.seen.clear();
        self.contacts.clear();
        self.reached.clear();
    }

    /// What was seen of the program since it began, and who had to do with it.
    pub fn end(&mut self) -> (Vec<Seen>, Vec<Contact>, Vec<unix::Name>) {
        self.serve();
        self.watch();
        self.connections.clear();
        self.callers.clear();
        self.servers.truncate(Self::SERVERS);
        let (seen, contacts) = (std::mem::take(&mut self.seen), std::mem::take(&mut self.contacts));
        (seen, contacts, std::mem::take(&mut self.reached))
    }

    /// The descriptors that become readable when there is something to do.
    pub fn descriptors(&self) -> Vec<i32> {
        let servers = self.servers.iter().map(|server| server.socket.as_raw_fd());
        let connections = self.connections.iter().map(|(_, _, socket)| socket.as_raw_fd());
        servers.chain(self.unix.descriptors()).chain(connections).collect()
    }

    /// Accepts, reads and answers all that has come.
    pub fn serve(&mut self) {
        for _ in 0..64 {
            let ready = sys::readable(&self.descriptors(), 0);
            if ready.is_empty() {
                return;
            }
            for place in ready.into_iter().rev() {
                let (unix, connections) = (self.servers.len(), self.servers.len() + self.unix.descriptors().count());
                if place >= connections {
                    self.read(place - connections);
                } else if place >= unix {
                    self.reached.extend(self.unix.take(place - unix, self.run));
                } else if self.servers[place].stream {
                    self.accept(place);
                } else {
                    self.answer(place);
                }
            }
            // A program may send faster than it is answered.
            self.watch();
        }
    }

    fn token(&self, from: Host, port: u16, to: u16) -> [u8; crate::token::LENGTH] {
        Token { run: self.run, from: Some(from), port, to }.bytes()
    }

    fn contact(&mut self, host: Host, protocol: Protocol, incoming: bool, fd: i32, program: &[u8]) {
        let outsider = sys::name_of(fd, false).ok().and_then(|name| address::parse(&name));
        if let (Some(program), Some(outsider)) = (address::parse(program), outsider) {
            let (program, outsider) = ((program.ip(), program.port()), (outsider.ip(), outsider.port()));
            let contact = Contact { host, protocol, incoming, program, outsider };
            if !self.contacts.contains(&contact) {
                self.contacts.push(contact);
            }
        }
    }

    fn accept(&mut self, place: usize) {
        let Server { host, port, ref socket, .. } = self.servers[place];
        let Ok((fd, peer)) = sys::accept(socket.as_raw_fd()) else { return };
        let socket = sys::owned(fd);
        self.contact(host, Protocol::Tcp, false, fd, &peer);
        let _ = sys::sendto(fd, &self.token(host, port, 0), libc::MSG_NOSIGNAL, &[]);
        self.connections.push((host, port, socket));
    }

    fn read(&mut self, place: usize) {
        let (host, port, ref socket) = self.connections[place];
        let fd = socket.as_raw_fd();
        match sys::recvfrom(fd, &mut [0; 4096]) {
            Ok((0, _)) | Err(_) => drop(self.connections.swap_remove(place)),
            Ok(_) => {
                let _ = sys::sendto(fd, &self.token(host, port, 0), libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT, &[]);
            }
        }
    }

    fn answer(&mut self, place: usize) {
        let Server { host, port, ref socket, .. } = self.servers[place];
        let fd = socket.as_raw_fd();
        let mut buffer = [0; 4096];
        for _ in 0..256 {
            let Ok((length, peer)) = sys::recvfrom(fd, &mut buffer) else { return };
            let token = Token::find(&buffer[..length]);
            if token.is_some_and(|token| token.run == self.run && token.from.is_none()) {
                self.contact(host, Protocol::Udp, false, fd, &peer);
                let to = address::parse(&peer).map_or(0, |peer| peer.port());
                let _ = sys::sendto(fd, &self.token(host, port, to), libc::MSG_DONTWAIT, &peer);
            }
        }
    }

    /// Takes what has come by the wires.
    fn watch(&mut self) {
        let mut buffer = [0; 2048];
        for (host, socket) in &self.captures {
            while let Ok((length, _)) = sys::recvfrom(socket.as_raw_fd(), &mut buffer) {
                let Some(seen) = capture::parse(*host, self.run, &buffer[..length]) else { continue };
                if !self.seen.contains(&seen) {
                    self.seen.push(seen);
                }
            }
        }
    }

    /// Does what the program asks for.
    pub fn fulfil(&mut self, request: &Request) {
        match request {
            Request::Answer => self.serve(),
            Request::Datagrams { from, port, to, v6, count } => {
                for _ in 0..*count {
                    for host in from {
                        self.datagram(*host, *port, *to, *v6);
                    }
                }
            }
            Request::Connections { from, to, v6 } => from.iter().for_each(|host| {
                for ip in reachable(*host, to.ip(), *v6) {
                    self.call(*host, SocketAddr::new(ip, to.port()));
                }
            }),
        }
    }

    fn datagram(&mut self, host: Host, port: u16, to: SocketAddr, v6: bool) {
        let server = self.servers.iter().find(|server| !server.stream && (server.host, server.port) == (host, port));
        let fd = if let Some(server) = server {
            server.socket.as_raw_fd()
        } else {
            let _ = self.namespaces.of(host).enter();
            let socket = bound(libc::SOCK_DGRAM, port);
            let _ = self.namespaces.own.enter();
            // Taken, perhaps by the program.
            let Ok(socket) = socket else { return };
            let fd = socket.as_raw_fd();
            // It goes on listening there.
            self.servers.push(Server { host, port, socket, stream: false });
            fd
        };
        let own = sys::name_of(fd, false).ok().and_then(|name| address::parse(&name));
        let port = own.map_or(port, |own| own.port());
        for ip in reachable(host, to.ip(), v6) {
            let name = Target { family: libc::AF_INET6, ip, port: Port::Fixed(0), scope: 0 }.bytes(to.port());
            let _ = sys::sendto(fd, &self.token(host, port, to.port()), libc::MSG_DONTWAIT, &name);
        }
    }

    fn call(&mut self, host: Host, to: SocketAddr) {
        self.calling = (self.calling + 1) % 100;
        let _ = self.namespaces.of(host).enter();
        let socket = bound(libc::SOCK_STREAM, CALLING + self.calling);
        let _ = self.namespaces.own.enter();
        let Ok(socket) = socket else { return };
        let fd = socket.as_raw_fd();
        let name = Target { family: libc::AF_INET6, ip: to.ip(), port: Port::Fixed(0), scope: 0 }.bytes(to.port());
        let begun = sys::connect(fd, &name);
        let connected = begun.is_ok() || begun == Err(libc::EINPROGRESS) && sys::ready(fd, libc::POLLOUT, CONNECTING);
        if connected && sys::pending_error(fd) == 0 && sys::name_of(fd, true).is_ok() {
            self.contact(host, Protocol::Tcp, true, fd, &name);
            let _ = sys::sendto(fd, &self.token(host, CALLING + self.calling, to.port()), libc::MSG_NOSIGNAL, &[]);
            self.callers.push(socket);
        }
    }
}

/// The addresses by which somebody reaches a socket that is bound to this one.
fn reachable(host: Host, bound: IpAddr, v6: bool) -> Vec<IpAddr> {
    if !bound.is_unspecified() {
        return vec![bound];
    }
    let (first, second): (IpAddr, IpAddr) = match host {
        Host::Allowed => (OWN[0], OWN[2]),
        Host::Denied => (OWN[1], OWN[3]),
        Host::Local => (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()),
    };
    if v6 { vec![second, first] } else { vec![first] }
}
