//! Generates programs. Most are made of small idioms: a few calls in an order in which something can happen at all. Which
//! addresses, options and peers they have is left to chance.

use crate::{
    address::{self, CALLING, Host, Port, SERVED, STRANGE, Slot},
    options, packets,
    program::{Ask, Call, Program, SocketKind, Way},
    random::Random,
    unix,
};

/// Makes the calls of one program, knowing what is in its places.
struct Maker {
    random: Random,
    calls: Vec<Call>,
    /// What each place last got.
    kinds: [Option<SocketKind>; 3],
}

/// A program by a seed.
pub fn program(seed: u64) -> Program {
    let mut maker = Maker { random: Random::new(seed), calls: Vec::new(), kinds: [None; 3] };
    for _ in 0..=maker.random.below(3) {
        maker.idiom();
    }
    Program { token: 0, calls: maker.calls }
}

#[derive(Clone, Copy)]
enum Idiom {
    /// Make a socket ready, and reach for somebody.
    Client,
    /// Make a socket ready, and have those outside reach for it.
    Server,
    /// Several threads make calls on one socket.
    Racing,
    /// A socket is connected to another of the program's, which goes away.
    Abandoned,
    /// Devices and tunables.
    Files,
    /// Any calls at all.
    Soup,
    /// A client and a server in the program.
    Both,
    /// Something changes between two parts of what is sent.
    Corked,
    /// A socket of IPv6 becomes one of IPv4.
    Converted,
    /// What goes to one peer has a route by another.
    Routed,
    /// Somebody outside is reached by a Unix socket.
    Unix,
    /// A UDP socket goes from one peer to another while it sends.
    Torn,
}

impl Maker {
    fn idiom(&mut self) {
        match self.random.weighted(&[
            (30, Idiom::Client),
            (22, Idiom::Server),
            (6, Idiom::Racing),
            (3, Idiom::Abandoned),
            (4, Idiom::Files),
            (16, Idiom::Soup),
            (6, Idiom::Both),
            (6, Idiom::Corked),
            (3, Idiom::Converted),
            (3, Idiom::Routed),
            (5, Idiom::Unix),
            (4, Idiom::Torn),
        ]) {
            Idiom::Client => self.client(),
            Idiom::Server => self.server(),
            Idiom::Racing => self.racing(),
            Idiom::Abandoned => self.abandoned(),
            Idiom::Files => self.file(),
            Idiom::Soup => (0..3 + self.random.below(8)).for_each(|_| {
                let call = self.any();
                self.calls.push(call);
            }),
            Idiom::Corked => self.corked(),
            Idiom::Converted => self.converted(),
            Idiom::Routed => self.routed(),
            Idiom::Unix => self.unix(),
            Idiom::Torn => self.torn(),
            Idiom::Both => {
                self.server();
                self.client();
            }
        }
    }

    fn slot(&mut self) -> Slot {
        self.random.weighted(&[(6, 0), (3, 1), (1, 2)])
    }

    fn family(&self, slot: Slot) -> i32 {
        // A Unix socket takes none of the addresses that this is for.
        self.kinds[usize::from(slot)].filter(|kind| !kind.is_unix()).map_or(libc::AF_INET, |kind| kind.family)
    }

    fn is_stream(&self, slot: Slot) -> bool {
        self.kinds[usize::from(slot)].is_some_and(SocketKind::is_stream)
    }

    fn socket(&mut self, slot: Slot) {
        let kind = self.kind();
        self.kinds[usize::from(slot)] = Some(kind);
        self.calls.push(Call::Socket { slot, kind });
    }

    fn kind(&mut self) -> SocketKind {
        let family = self.random.one(&[libc::AF_INET, libc::AF_INET6]);
        let ping = if family == libc::AF_INET { libc::IPPROTO_ICMP } else { libc::IPPROTO_ICMPV6 };
        let (kind, protocol) = self.random.weighted(&[
            (10, (libc::SOCK_STREAM, libc::IPPROTO_TCP)),
            (16, (libc::SOCK_DGRAM, libc::IPPROTO_UDP)),
            (2, (libc::SOCK_STREAM, libc::IPPROTO_MPTCP)),
            (1, (libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)),
            (1, (libc::SOCK_DGRAM, ping)),
            (1, (libc::SOCK_RAW, libc::IPPROTO_UDP)),
            (1, (libc::SOCK_RAW, libc::IPPROTO_RAW)),
        ]);
        SocketKind { family, kind, protocol }
    }

    fn options(&mut self, slot: Slot, often: usize) {
        while self.random.percent(often) {
            let setting = options::any_option(&mut self.random);
            self.calls.push(Call::Set { slot, setting });
        }
    }

    fn get(&mut self, slot: Slot) -> Call {
        let (level, option) = self.random.one(&options::READ);
        Call::Get { slot, level, option }
    }

    fn bind(&mut self, slot: Slot) -> Call {
        let family = self.family(slot);
        Call::Bind { slot, to: address::any_source(&mut self.random, family) }
    }

    fn connect(&mut self, slot: Slot) -> Call {
        let family = self.family(slot);
        Call::Connect { slot, to: address::any_destination(&mut self.random, family) }
    }

    fn send(&mut self, slot: Slot, named: bool) -> Call {
        let family = self.family(slot);
        let to = named.then(|| address::any_destination(&mut self.random, family));
        let way = if named {
            self.random.weighted(&[(4, Way::Sendto), (5, Way::Sendmsg), (2, Way::Sendmmsg), (1, Way::Large)])
        } else {
            self.random.weighted(&[
                (4, Way::Sendto),
                (4, Way::Sendmsg),
                (1, Way::Sendmmsg),
                (2, Way::Write),
                (1, Way::Sendfile),
                (1, Way::Splice),
                (1, Way::Large),
            ])
        };
        let mut control = Vec::new();
        while matches!(way, Way::Sendmsg | Way::Sendmmsg) && self.random.percent(45) {
            control.push(options::any_message(&mut self.random));
        }
        let flags = if self.is_stream(slot) && named {
            self.random.weighted(&[(3, libc::MSG_FASTOPEN), (1, 0)])
        } else {
            self.random.weighted(&[
                (20, 0),
                (1, libc::MSG_DONTROUTE),
                (1, libc::MSG_MORE),
                (1, libc::MSG_CONFIRM),
                (1, libc::MSG_OOB),
                (1, libc::MSG_ZEROCOPY),
            ])
        };
        Call::Send { slot, way, to, control, flags }
    }

    /// What begins with headers of the program's own, where the socket takes such.
    fn packet(&mut self, slot: Slot) -> Call {
        let kind = self.kinds[usize::from(slot)];
        let family = self.family(slot);
        let mut to = address::any_destination(&mut self.random, family);
        let Port::Fixed(port) = to.port else { return self.send(slot, true) };
        // Raw sockets of IPv6 take no port.
        to.port = Port::Fixed(0);
        let whole = kind.is_some_and(|kind| kind.protocol == libc::IPPROTO_RAW);
        // Mostly to where it says that it goes.
        let other = self.random.percent(30).then(|| address::any_destination(&mut self.random, family).ip);
        let destination = other.unwrap_or(to.ip);
        let head = packets::head(&mut self.random, family == libc::AF_INET6, whole, (destination, port));
        Call::Packet { slot, to, head }
    }

    fn client(&mut self) {
        let slot = self.slot();
        self.socket(slot);
        let raw = self.kinds[usize::from(slot)].is_some_and(|kind| kind.kind == libc::SOCK_RAW);
        if raw && self.random.percent(75) {
            self.options(slot, 10);
            for _ in 0..=self.random.below(2) {
                let packet = self.packet(slot);
                self.calls.push(packet);
            }
            return;
        }
        self.options(slot, 30);
        if self.random.percent(45) {
            let bind = self.bind(slot);
            self.calls.push(bind);
        }
        self.options(slot, 15);
        if self.random.percent(10) {
            self.hand_on(slot);
        }
        if self.is_stream(slot) && self.random.percent(80) || self.random.percent(45) {
            let connect = self.connect(slot);
            self.calls.push(connect);
            let send = self.send(slot, false);
            self.calls.push(send);
            if self.random.percent(30) {
                self.calls.push(Call::Disconnect { slot });
                let sends = self.is_stream(slot) && self.random.percent(30);
                let again = if sends { self.send(slot, true) } else { self.connect(slot) };
                self.calls.push(again);
                let send = self.send(slot, false);
                self.calls.push(send);
            }
        } else {
            let send = self.send(slot, true);
            self.calls.push(send);
        }
        if self.random.percent(25) {
            let ask = self.ask(slot, 1);
            self.calls.push(Call::Ask(ask));
        }
        self.calls.push(Call::Receive { slot });
    }

    /// Those outside reach for a socket.
    fn ask(&mut self, to: Slot, count: u16) -> Ask {
        let from = if self.random.percent(60) { Host::ALL.to_vec() } else { vec![self.random.one(&Host::ALL)] };
        if self.is_stream(to) {
            return Ask::Connections { from, to };
        }
        let port = self.random.weighted(&[
            (4, Port::Fixed(SERVED[0])),
            (3, Port::Fixed(SERVED[1])),
            (3, Port::Fixed(STRANGE)),
            (1, Port::Fixed(CALLING)),
        ]);
        Ask::Datagrams { from, port, to, count }
    }

    fn server(&mut self) {
        let slot = self.slot();
        self.socket(slot);
        self.options(slot, 20);
        for _ in 0..self.random.weighted(&[(2, 0), (6, 1), (1, 2)]) {
            let bind = self.bind(slot);
            self.calls.push(bind);
        }
        self.options(slot, 10);
        if self.random.percent(10) {
            self.hand_on(slot);
        }
        if self.is_stream(slot) {
            self.calls.push(Call::Listen { slot });
        } else if self.random.percent(40) {
            let named = self.random.percent(60);
            let call = if named { self.send(slot, true) } else { self.connect(slot) };
            self.calls.push(call);
        }
        let ask = self.ask(slot, 1);
        self.calls.push(Call::Ask(ask));
        if self.is_stream(slot) {
            self.calls.push(Call::Accept { slot, into: 2 });
            self.calls.push(Call::Receive { slot: 2 });
        } else {
            self.calls.push(Call::Receive { slot });
        }
    }

    /// The socket goes another way before it is used.
    fn hand_on(&mut self, slot: Slot) {
        let into = slot;
        let call = match self.random.below(3) {
            0 => Call::Dup { slot, into },
            1 => Call::Pass { slot, into },
            _ => Call::Reopen { slot, into: 2 },
        };
        self.calls.push(call);
    }

    fn racing(&mut self) {
        let slot = 0;
        self.socket(slot);
        self.options(slot, 15);
        if self.random.percent(60) {
            let bind = self.bind(slot);
            self.calls.push(bind);
        }
        if self.is_stream(slot) && self.random.percent(30) {
            self.calls.push(Call::Listen { slot });
        }
        let loops = (0..=self.random.below(2)).map(|_| (0..=self.random.below(2)).map(|_| self.moving(slot)).collect());
        let mut loops: Vec<Vec<Call>> = loops.collect();
        if self.random.percent(30) {
            // There and back.
            loops.truncate(1);
            let connect = self.connect(slot);
            loops.insert(0, vec![connect, Call::Disconnect { slot }]);
        }
        let ask = self.random.percent(75).then(|| {
            let count = self.random.one(&[50, 500, 1000]);
            self.ask(slot, count)
        });
        let times = self.random.one(&[20, 200, 1000]);
        self.calls.push(Call::Race { loops, ask, times });
        self.calls.push(Call::Receive { slot });
    }

    /// A call that changes what a socket is.
    fn moving(&mut self, slot: Slot) -> Call {
        match self.random.below(12) {
            0..=2 => self.connect(slot),
            3..=5 => Call::Disconnect { slot },
            6 => self.bind(slot),
            7 => Call::Listen { slot },
            8 => Call::Shutdown { slot, how: libc::SHUT_RDWR },
            9 if self.random.percent(30) => self.get(slot),
            9 => Call::Set { slot, setting: options::any_option(&mut self.random) },
            10 => self.send(slot, false),
            _ => self.send(slot, true),
        }
    }

    fn abandoned(&mut self) {
        self.socket(0);
        let kind = self.kinds[0];
        self.kinds[1] = kind;
        let bind = self.bind(0);
        self.calls.push(bind);
        self.calls.extend(kind.map(|kind| Call::Socket { slot: 1, kind }));
        let family = self.family(0);
        let own = address::any_destination(&mut self.random, family);
        self.calls.push(Call::Connect { slot: 1, to: address::Target { port: Port::Of(0), ..own } });
        if self.random.percent(30) {
            let send = self.send(1, false);
            self.calls.push(send);
        }
        self.calls.push(Call::Close { slot: 0 });
        let from = vec![self.random.weighted(&[(3, Host::Local), (1, Host::Allowed), (1, Host::Denied)])];
        self.calls.push(Call::Ask(Ask::Datagrams { from, port: Port::Of(0), to: 1, count: 1 }));
        self.calls.push(Call::Receive { slot: 1 });
        if self.random.percent(50) {
            let send = self.send(1, false);
            self.calls.push(send);
        }
    }

    fn corked(&mut self) {
        let slot = self.slot();
        self.socket(slot);
        self.options(slot, 15);
        if self.random.percent(30) {
            let connect = self.connect(slot);
            self.calls.push(connect);
        }
        let named = self.random.percent(70);
        let mut first = self.send(slot, named);
        if let Call::Send { flags, .. } = &mut first {
            *flags |= libc::MSG_MORE;
        }
        self.calls.push(first);
        for _ in 0..=self.random.below(2) {
            let change = self.moving(slot);
            self.calls.push(change);
        }
        let named = self.random.percent(30);
        let last = self.send(slot, named);
        self.calls.push(last);
    }

    /// What is sent may go to the address of the one and the port of the other, or where nobody has named. Among any calls that race, one
    /// thread that does nothing but send is drawn too seldom.
    fn torn(&mut self) {
        let slot = self.slot();
        let family = self.random.one(&[libc::AF_INET, libc::AF_INET, libc::AF_INET6]);
        let kind = SocketKind { family, kind: libc::SOCK_DGRAM, protocol: libc::IPPROTO_UDP };
        self.kinds[usize::from(slot)] = Some(kind);
        self.calls.push(Call::Socket { slot, kind });
        let peer = |random: &mut Random| Call::Connect { slot, to: address::any_peer(random, family) };
        let goes = peer(&mut self.random);
        let back = if self.random.percent(50) { Call::Disconnect { slot } } else { peer(&mut self.random) };
        let send = Call::Send { slot, way: Way::Sendto, to: None, control: Vec::new(), flags: 0 };
        let times = self.random.one(&[500, 2000]);
        self.calls.push(Call::Race { loops: vec![vec![goes, back], vec![send]], ask: None, times });
    }

    /// By IPV6_ADDRFORM, a socket that is connected to a mapped address.
    fn converted(&mut self) {
        let slot = self.slot();
        self.socket(slot);
        let Some(kind) = self.kinds[usize::from(slot)].as_mut() else { return };
        kind.family = libc::AF_INET6;
        let kind = *kind;
        self.calls.pop();
        self.calls.push(Call::Socket { slot, kind });
        let mapped = address::any_mapped(&mut self.random);
        self.calls.push(Call::Connect { slot, to: mapped });
        self.calls.push(Call::Set { slot, setting: options::as_ipv4() });
        if self.random.percent(80) {
            // What it is told from now on is read as IPv4's.
            self.kinds[usize::from(slot)] = Some(SocketKind { family: libc::AF_INET, ..kind });
        }
        self.options(slot, 20);
        let send = self.send(slot, false);
        self.calls.push(send);
        for _ in 0..=self.random.below(2) {
            let change = self.moving(slot);
            self.calls.push(change);
        }
        let named = self.random.percent(50);
        let send = self.send(slot, named);
        self.calls.push(send);
    }

    /// By a socket's option, or with one message. Among any options, a route from one peer to another is drawn once in some ten
    /// thousand programs.
    fn routed(&mut self) {
        let slot = self.slot();
        self.socket(slot);
        let family = self.family(slot);
        let to = address::any_peer(&mut self.random, family);
        let by_message = !self.is_stream(slot) && self.random.percent(40);
        let route = options::route_by_peers(&mut self.random, family, by_message);
        if !by_message {
            self.calls.push(Call::Set { slot, setting: route.clone() });
        }
        let connects = self.is_stream(slot) || self.random.percent(50);
        if connects {
            self.calls.push(Call::Connect { slot, to });
        }
        let control = if by_message { vec![route] } else { Vec::new() };
        self.calls.push(Call::Send { slot, way: Way::Sendmsg, to: (!connects).then_some(to), control, flags: 0 });
    }

    /// Mostly one socket that goes to one or two peers, and now and then several threads that do so with it.
    fn unix(&mut self) {
        let slot = self.slot();
        let kind = self.random.one(&unix::KINDS);
        let kind = SocketKind { family: libc::AF_UNIX, kind, protocol: 0 };
        self.kinds[usize::from(slot)] = Some(kind);
        self.calls.push(Call::Socket { slot, kind });
        if self.random.percent(10) {
            self.hand_on(slot);
        }
        let mut calls: Vec<Call> = (0..=self.random.below(3)).map(|_| self.unix_call(slot, kind)).collect();
        match self.random.below(10) {
            0 => self.calls.push(Call::Fork { calls }),
            1 => {
                let other = calls.split_off(calls.len() / 2);
                let loops = [calls, other].into_iter().filter(|calls| !calls.is_empty()).collect();
                let times = self.random.one(&[20, 200]);
                self.calls.push(Call::Race { loops, ask: None, times });
            }
            _ => self.calls.append(&mut calls),
        }
    }

    fn unix_call(&mut self, slot: Slot, kind: SocketKind) -> Call {
        let to = unix::any_name(&mut self.random, kind.kind);
        let datagrams = kind.kind == libc::SOCK_DGRAM;
        match self.random.below(10) {
            0 => Call::Disconnect { slot },
            1 => self.send(slot, false),
            2..=5 if datagrams => {
                let way = self.random.one(&[Way::Sendto, Way::Sendmsg, Way::Sendmmsg]);
                Call::SendUnix { slot, way, to }
            }
            _ => Call::ConnectUnix { slot, to },
        }
    }

    fn file(&mut self) {
        let prefix = self.random.weighted(&[
            (6, ""),
            (1, "/proc/self/root"),
            (1, "/proc/self/cwd/../../../../../.."),
            (1, "/proc/thread-self/root"),
            (1, "/."),
            (1, "//dev/.."),
        ]);
        let path = self.random.one(&[
            "/dev/null",
            "/dev//null",
            "/dev/./zero",
            "/dev/fd/../../../dev/null",
            "/dev/zero",
            "/dev/full",
            "/dev/urandom",
            "/proc/sys/kernel/hostname",
            "/proc/sys/kernel/../kernel/hostname",
            "/proc/sys//kernel/ostype",
            "/proc/sys/kernel/./osrelease",
            "/proc/sys/net/ipv4/ip_default_ttl",
            "/proc/self/net/../../sys/net/ipv4/ip_default_ttl",
            "/proc/self/task/../../sys/kernel/hostname",
            "/proc/sys/kernel/random/../ostype",
            "/dev/pts/../full",
        ]);
        let write = (path.contains("ttl") && self.random.percent(50)).then(|| String::from("63"));
        let twice = self.random.percent(20);
        self.calls.push(Call::File { path: format!("{prefix}{path}"), write, twice });
    }

    fn any(&mut self) -> Call {
        let slot = self.slot();
        match self.random.below(30) {
            0..=3 => {
                let kind = self.kind();
                self.kinds[usize::from(slot)] = Some(kind);
                Call::Socket { slot, kind }
            }
            4..=6 => self.bind(slot),
            7..=9 => self.connect(slot),
            10 => Call::Disconnect { slot },
            11 | 12 => Call::Listen { slot },
            13 => Call::Accept { slot, into: 2 },
            14 => Call::Shutdown { slot, how: self.random.one(&[0, 1, 2]) },
            15 => Call::Close { slot },
            16 => Call::Dup { slot, into: self.slot() },
            17 => Call::Pass { slot, into: self.slot() },
            18 => Call::Reopen { slot, into: self.slot() },
            19..=22 => {
                let named = self.random.percent(60);
                self.send(slot, named)
            }
            23 => Call::Set { slot, setting: options::any_option(&mut self.random) },
            24 => self.get(slot),
            25 => Call::Receive { slot },
            26 => Call::Fork { calls: vec![self.moving(slot), self.send(slot, true)] },
            _ => Call::Ask(self.ask(slot, 1)),
        }
    }
}
