//! Makes a program's calls, in the process that is guarded or not.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::Relaxed},
    thread,
};

use crate::{
    address::{self, Port, Slot, Target},
    memory::Memory,
    program::{Ask, Call, Program, SLOTS, Setting, Way},
    sys::{self, Message, Outcome},
    token::Token,
    wire::{self, Received, Refusal, Request},
};

/// How long a connection may take, in milliseconds: peers answer at once.
const CONNECTING: i32 = 5;
/// How much is sent where it must not fit into a packet: three fragments.
const LARGE: usize = 4000;
/// The flags of all that is sent.
const NO_WAIT: i32 = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
/// How long those outside may take to do what is asked.
const ASKING: i32 = 1500;

/// A running program.
struct Machine {
    memory: Memory,
    token: [u8; crate::token::LENGTH],
    slots: [AtomicI32; SLOTS],
    /// The port of each place's socket, when that was last known.
    ports: [AtomicU32; SLOTS],
    streams: [AtomicBool; SLOTS],
    unix: [AtomicBool; SLOTS],
    /// Beside which program those outside have the files of Unix sockets.
    program: PathBuf,
}

/// Makes all calls of a program.
pub fn run(program: &Program, memory: Memory) {
    let machine = Machine {
        memory,
        token: Token { run: program.token, from: None, port: 0, to: 0 }.bytes(),
        slots: [const { AtomicI32::new(-1) }; SLOTS],
        ports: [const { AtomicU32::new(0) }; SLOTS],
        streams: [const { AtomicBool::new(false) }; SLOTS],
        unix: [const { AtomicBool::new(false) }; SLOTS],
        program: std::env::current_exe().unwrap_or_default(),
    };
    machine.list(&program.calls, 0, false);
    for slot in 0..SLOTS {
        if machine.slots[slot].load(Relaxed) >= 0 {
            machine.drain(slot);
        }
    }
    memory.finish();
}

impl Machine {
    /// Makes these calls, of which the first has this number.
    fn list(&self, calls: &[Call], first: usize, racing: bool) {
        let mut number = first;
        for call in calls {
            let outcome = self.call(call, number, racing);
            self.memory.outcome(number, outcome);
            number += call.numbers();
        }
    }

    fn call(&self, call: &Call, number: usize, racing: bool) -> Outcome {
        self.memory.count();
        match call {
            Call::Socket { slot, kind } => {
                let fd = sys::socket(kind.family, kind.kind | libc::SOCK_NONBLOCK, kind.protocol);
                self.streams[usize::from(*slot)].store(kind.is_stream(), Relaxed);
                self.unix[usize::from(*slot)].store(kind.is_unix(), Relaxed);
                // Nothing is in the place if that failed.
                self.put(*slot, fd.unwrap_or(-1));
                self.refused(Refusal::Socket, fd).map(|_| 0)
            }
            Call::Bind { slot, to } => {
                let outcome = sys::bind(self.fd(*slot), &self.bytes(to));
                self.remember(*slot);
                self.refused(Refusal::Bind, outcome)
            }
            Call::Connect { slot, to } => self.connect(*slot, to, racing),
            Call::Disconnect { slot } => sys::connect(self.fd(*slot), &[0; 16]),
            Call::Listen { slot } => {
                let fd = self.fd(*slot);
                let before = sys::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN);
                let outcome = sys::listen(fd, 16);
                // One that listens already doesn't begin to; while threads race, that may change in between.
                if outcome.is_ok() && (racing || before == Ok(0)) {
                    self.note_listening(*slot);
                }
                self.remember(*slot);
                outcome
            }
            Call::Accept { slot, into } => self.accept(*slot, *into),
            Call::Shutdown { slot, how } => sys::shutdown(self.fd(*slot), *how),
            Call::Close { slot } => {
                let fd = self.slots[usize::from(*slot)].swap(-1, Relaxed);
                if fd > 2 { sys::close(fd) } else { Err(libc::EBADF) }
            }
            Call::Dup { slot, into } => sys::dup(self.fd(*slot)).map(|fd| self.put_like(*slot, *into, fd)),
            Call::Pass { slot, into } => sys::pass(self.fd(*slot)).map(|fd| self.put_like(*slot, *into, fd)),
            Call::Reopen { slot, into } => {
                let path = format!("/proc/self/fd/{}", self.fd(*slot));
                sys::open(&path, libc::O_RDWR).map(|fd| self.put_like(*slot, *into, fd))
            }
            Call::Send { slot, way, to, control, flags } => {
                let outcome = self.send(*slot, *way, to.as_ref(), control, *flags);
                if !racing {
                    self.remember(*slot);
                }
                outcome
            }
            Call::Packet { slot, to, head } => {
                let packet = [head.as_slice(), &self.token].concat();
                let outcome = sys::sendto(self.fd(*slot), &packet, libc::MSG_DONTWAIT, &self.bytes(to));
                self.refused(Refusal::Send, outcome)
            }
            Call::ConnectUnix { slot, to } => {
                let kind = if self.is_unix(*slot) { Refusal::ConnectUnix } else { Refusal::Connect };
                self.refused(kind, sys::connect(self.fd(*slot), &to.bytes(&self.program)))
            }
            Call::SendUnix { slot, way, to } => {
                let kind = if self.is_unix(*slot) { Refusal::SendUnix } else { Refusal::Send };
                let outcome = self.send_message(self.fd(*slot), *way, &to.bytes(&self.program), &[], NO_WAIT);
                self.refused(kind, outcome)
            }
            Call::Receive { slot } => {
                Self::ask(&Request::Answer);
                Ok(self.drain(usize::from(*slot)))
            }
            Call::Set { slot, setting } => {
                let outcome = sys::setsockopt(self.fd(*slot), setting.level, setting.option, &setting.value);
                self.refused(if setting.is_everybodys() { Refusal::Set } else { Refusal::SetUnclear }, outcome)
            }
            Call::Get { slot, level, option } => {
                self.refused(Refusal::Get, sys::getsockopt(self.fd(*slot), *level, *option))
            }
            Call::Fork { .. } | Call::Race { .. } | Call::Ask(_) if racing => Err(libc::ENOSYS),
            Call::Fork { calls } => self.fork(calls, number + 1),
            Call::Race { loops, ask, times } => {
                self.race(loops, ask.as_ref(), *times, number + 1);
                Ok(0)
            }
            Call::Ask(ask) => self.outside(ask),
            Call::File { path, write, twice } => self.file(path, write.as_deref(), *twice),
        }
    }

    fn fd(&self, slot: Slot) -> i32 {
        self.slots[usize::from(slot) % SLOTS].load(Relaxed)
    }

    /// Puts a descriptor into a place, and closes the one that was there.
    fn put(&self, slot: Slot, fd: i32) {
        let old = self.slots[usize::from(slot)].swap(fd, Relaxed);
        if old > 2 {
            let _ = sys::close(old);
        }
    }

    fn put_like(&self, like: Slot, slot: Slot, fd: i32) -> i32 {
        let (like, place) = (usize::from(like), usize::from(slot));
        self.streams[place].store(self.streams[like].load(Relaxed), Relaxed);
        self.unix[place].store(self.unix[like].load(Relaxed), Relaxed);
        self.ports[place].store(self.ports[like].load(Relaxed), Relaxed);
        self.put(slot, fd);
        0
    }

    fn refused(&self, kind: Refusal, outcome: Outcome) -> Outcome {
        if outcome == Err(libc::EPERM) {
            self.memory.refuse(kind);
        }
        outcome
    }

    fn bytes(&self, target: &Target) -> Vec<u8> {
        target.bytes(self.port(target.port))
    }

    fn port(&self, port: Port) -> u16 {
        match port {
            Port::Fixed(port) => port,
            Port::Of(slot) => u16::try_from(self.ports[usize::from(slot) % SLOTS].load(Relaxed)).unwrap_or(0),
        }
    }

    /// Where a socket is bound.
    fn local(&self, slot: Slot) -> Option<SocketAddr> {
        sys::name_of(self.fd(slot), false).ok().and_then(|name| address::parse(&name))
    }

    fn is_unix(&self, slot: Slot) -> bool {
        self.unix[usize::from(slot)].load(Relaxed)
    }

    /// Notes that a socket of the internet's families listens. Another thread may have closed it, or shut it down, before it says where.
    fn note_listening(&self, slot: Slot) {
        match self.local(slot).filter(|local| local.port() != 0) {
            Some(local) => self.memory.listen(local.ip(), local.port()),
            None => self.memory.listen_elsewhere(),
        }
    }

    fn remember(&self, slot: Slot) {
        if let Some(local) = self.local(slot).filter(|local| local.port() != 0) {
            self.ports[usize::from(slot)].store(local.port().into(), Relaxed);
        }
    }

    fn connect(&self, slot: Slot, to: &Target, racing: bool) -> Outcome {
        let fd = self.fd(slot);
        let kind = if self.is_unix(slot) { Refusal::ConnectUnix } else { Refusal::Connect };
        let mut outcome = self.refused(kind, sys::connect(fd, &self.bytes(to)));
        if outcome == Err(libc::EINPROGRESS) && !racing && sys::ready(fd, libc::POLLOUT, CONNECTING) {
            outcome = match sys::pending_error(fd) {
                0 => Ok(0),
                error => Err(error),
            };
        }
        if !racing {
            self.remember(slot);
        }
        outcome
    }

    fn accept(&self, slot: Slot, into: Slot) -> Outcome {
        let fd = self.fd(slot);
        let (accepted, peer) = sys::accept(fd)?;
        self.note_accepted(accepted, &peer);
        self.streams[usize::from(into)].store(true, Relaxed);
        self.unix[usize::from(into)].store(self.is_unix(slot), Relaxed);
        self.put(into, accepted);
        Ok(0)
    }

    fn note_accepted(&self, fd: i32, peer: &[u8]) {
        let local = sys::name_of(fd, false).ok().and_then(|name| address::parse(&name));
        if let (Some(peer), Some(local)) = (address::parse(peer), local) {
            let (local, peer) = ((local.ip(), local.port()), (peer.ip(), peer.port()));
            self.memory.receive(&Received { accepted: true, local, peer, from: None });
        }
    }

    fn send(&self, slot: Slot, way: Way, to: Option<&Target>, control: &[Setting], flags: i32) -> Outcome {
        let fd = self.fd(slot);
        let to = to.map(|to| self.bytes(to)).unwrap_or_default();
        let control: Vec<u8> = control.iter().flat_map(|one| sys::control(one.level, one.option, &one.value)).collect();
        let outcome = self.send_message(fd, way, &to, &control, flags | NO_WAIT);
        let stream = self.streams[usize::from(slot)].load(Relaxed);
        let kind = match (control.is_empty(), stream) {
            // The kernel itself refuses some messages.
            (false, _) => Refusal::Unclear,
            (true, true) => Refusal::Connect,
            (true, false) => Refusal::Send,
        };
        self.refused(kind, outcome)
    }

    fn send_message(&self, fd: i32, way: Way, to: &[u8], control: &[u8], flags: i32) -> Outcome {
        let message = || Message { to, data: &self.token, control };
        let outcome = match way {
            Way::Sendto => sys::sendto(fd, &self.token, flags, to),
            Way::Sendmsg => sys::sendmsg(fd, &message(), flags),
            Way::Sendmmsg => sys::sendmmsg(fd, &[message(), message(), message()], flags),
            Way::Write => sys::write(fd, &self.token),
            Way::Sendfile => sys::sendfile(fd, &self.token),
            Way::Splice => sys::splice(fd, &self.token),
            Way::Large => {
                let mut data = self.token.to_vec();
                data.resize(LARGE, 0);
                sys::sendto(fd, &data, flags, to)
            }
        };
        if way == Way::Sendmmsg && matches!(outcome, Ok(1 | 2)) {
            self.memory.refuse(Refusal::Unclear);
        }
        outcome
    }

    /// Takes all that has come to a socket: datagrams, or connections.
    fn drain(&self, slot: usize) -> i32 {
        let fd = self.slots[slot].load(Relaxed);
        let mut buffer = [0; 2048];
        let mut count = 0;
        for _ in 0..600 {
            self.memory.count();
            match sys::recvfrom(fd, &mut buffer) {
                Ok((0, _)) if self.streams[slot].load(Relaxed) || self.unix[slot].load(Relaxed) => break,
                Ok((length, peer)) => {
                    count += 1;
                    self.note(fd, &buffer[..length], &peer);
                }
                Err(_) => break,
            }
        }
        while let Ok((accepted, peer)) = sys::accept(fd) {
            count += 1;
            self.note_accepted(accepted, &peer);
            let _ = sys::close(accepted);
        }
        count
    }

    fn note(&self, fd: i32, data: &[u8], peer: &[u8]) {
        let peer = if address::parse(peer).is_some() { Ok(peer.to_vec()) } else { sys::name_of(fd, true) };
        let local = sys::name_of(fd, false).ok().and_then(|name| address::parse(&name));
        let (Some(peer), Some(local)) = (peer.ok().and_then(|name| address::parse(&name)), local) else { return };
        let Some(token) = Token::find(data).filter(|token| token.bytes()[..8] == self.token[..8]) else { return };
        // Raw sockets tell of no ports, and others of those that they have now.
        let raw = local.port() <= 255;
        let ports = if token.from.is_some() { (token.to, token.port) } else { (local.port(), peer.port()) };
        let ports = if raw { (local.port(), ports.1) } else { ports };
        let (local, peer) = ((local.ip(), ports.0), (peer.ip(), ports.1));
        if self.is_datagram(fd) {
            self.memory.receive(&Received { accepted: false, local, peer, from: token.from });
        }
    }

    fn is_datagram(&self, fd: i32) -> bool {
        (0..SLOTS).any(|slot| self.slots[slot].load(Relaxed) == fd && !self.streams[slot].load(Relaxed))
    }

    fn fork(&self, calls: &[Call], first: usize) -> Outcome {
        match sys::fork()? {
            None => {
                self.list(calls, first, false);
                sys::exit(0)
            }
            Some(child) => {
                if let Ok(waiter) = sys::pidfd(child) {
                    sys::ready(waiter, libc::POLLIN, ASKING);
                    let _ = sys::close(waiter);
                }
                sys::ended(child);
                Ok(0)
            }
        }
    }

    fn race(&self, loops: &[Vec<Call>], ask: Option<&Ask>, times: u32, first: usize) {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let mut number = first;
            for calls in loops {
                let (begin, over) = (number, &over);
                scope.spawn(move || {
                    // While those outside are at it, until they are done; but not for ever.
                    let most = if ask.is_some() { 20 * times } else { times };
                    for round in 0..most {
                        if over.load(Relaxed) && round >= 8 {
                            break;
                        }
                        self.list(calls, begin, true);
                    }
                });
                number += calls.iter().map(Call::numbers).sum::<usize>();
            }
            if let Some(ask) = ask {
                let _ = self.outside(ask);
                over.store(true, Relaxed);
            }
        });
        (0..SLOTS).filter(|slot| self.slots[*slot].load(Relaxed) >= 0).for_each(|slot| {
            self.remember(Slot::try_from(slot).unwrap_or(0));
        });
    }

    fn outside(&self, ask: &Ask) -> Outcome {
        let (Ask::Datagrams { to, .. } | Ask::Connections { to, .. }) = ask;
        let Some(local) = self.local(*to).filter(|local| local.port() != 0) else { return Err(libc::ENOTCONN) };
        let v6 = sys::name_of(self.fd(*to), false).is_ok_and(|name| name.first() == Some(&10));
        Self::ask(&match ask {
            Ask::Datagrams { from, port, count, .. } => {
                let port = self.port(*port);
                Request::Datagrams { from: from.clone(), port, to: local, v6, count: *count }
            }
            Ask::Connections { from, .. } => Request::Connections { from: from.clone(), to: local, v6 },
        });
        Ok(0)
    }

    /// Has those outside do something, and waits until it is done.
    fn ask(request: &Request) {
        let message = wire::frame(wire::ASK, request);
        if sys::write(1, &message).is_ok() && sys::ready(0, libc::POLLIN, ASKING) {
            let _ = sys::read(0, &mut [0]);
        }
    }

    fn file(&self, path: &str, text: Option<&str>, twice: bool) -> Outcome {
        let is_sysctl = path.contains("/sys/");
        let kind = if is_sysctl { Refusal::Sysctl } else { Refusal::Device };
        let flags = if text.is_some() { libc::O_WRONLY } else { libc::O_RDONLY };
        let first = if twice { Some(sys::open(path, libc::O_PATH)?) } else { None };
        let again = first.map(|fd| format!("/proc/self/fd/{fd}"));
        let fd = self.refused(kind, sys::open(again.as_deref().unwrap_or(path), flags));
        let _ = first.map(sys::close);
        let fd = fd?;
        let done = match text {
            Some(text) => sys::write(fd, text.as_bytes()),
            None => sys::read(fd, &mut [0; 64]),
        };
        let device = sys::device_of(fd);
        let _ = sys::close(fd);
        // Which device it was: its minor number, among those of memory.
        let done = self.refused(kind, done)?;
        Ok(device
            .filter(|(character, major, _)| *character && *major == 1)
            .map_or(done, |(_, _, minor)| i32::try_from(minor).unwrap_or(0)))
    }
}
