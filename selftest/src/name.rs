//! Ways round rules on host names: to tell a nameserver something, to have an address learnt that it hasn't said, and to reach another
//! server at a learnt address.

use std::{io::Write as _, os::fd::OwnedFd, thread, time::Duration};

use crate::sys::socket::{bind, connect, control, local_port, receive, send_message, send_to, set_option};

use super::{
    attempt::{At as _, LOOPBACK, MAPPED, Outcome, Scene, Stop, of_family, patient, tcp, udp, v4, v6},
    nameserver::{ALLOWED, ELSEWHERE, PORT, PRIVATE, SECURE, answer_to, encoded, question, with_length},
    policies::NAMES,
    vector::{Layer::Hook, Vector},
};

const INET: i32 = libc::AF_INET;
/// The option by which pages are sent without a copy (asm-generic/socket.h).
const SO_ZEROCOPY: i32 = 60;
/// The numbers of queries.
const ID: [u8; 2] = [0, 7];
/// For how long the kernel tries to send what is dropped, and some more.
const SOON: Duration = Duration::from_millis(700);

const fn vector(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, NAMES, attempt).stopped_by(Hook)
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    vector("other", "a query for another name", |s| ask(s, &udp(INET)?, &query(&told(s, ".test")))),
    vector("other-unconnected", "a query for another name, by sendto", |s| {
        send_to(&udp(INET)?, &query(&told(s, ".test")), 0, &nameserver(s)?).at("sendto")?;
        Ok(Vec::new())
    }),
    vector("other-mapped", "a query for another name, to ::ffff:127.x.x.x", |s| {
        let to = [&MAPPED[..12], &address(s)?].concat().try_into().expect("16 bytes");
        send_to(&udp(libc::AF_INET6)?, &query(&told(s, ".test")), 0, &v6(to, PORT)).at("sendto")?;
        Ok(Vec::new())
    }),
    vector("other-upper", "a query for another name, in capital letters", |s| {
        ask(s, &udp(INET)?, &query(&told(s, ".test").to_ascii_uppercase()))
    }),
    vector("below", "a query for a name below an allowed one", |s| {
        ask(s, &udp(INET)?, &query(&told(s, ".allowed.selftest.test")))
    }),
    vector("above", "a query for a name that an allowed one ends", |s| {
        ask(s, &udp(INET)?, &query(&encoded(&format!("{ALLOWED}.{}", digits(s)))))
    }),
    vector("dot", "a label with dots in it", |s| {
        let length = |label: &str| [u8::try_from(label.len()).expect("it is short")];
        let label = digits(s);
        let name = [&length(&label)[..], label.as_bytes(), &length(ALLOWED), ALLOWED.as_bytes(), &[0]].concat();
        ask(s, &udp(INET)?, &query(&name))
    }),
    vector("nul", "a label with a NUL in it", |s| {
        let label = encoded(&digits(s).replacen('x', "\0", 1));
        let name = [&label[..label.len() - 1], &encoded(ALLOWED)].concat();
        ask(s, &udp(INET)?, &query(&name))
    }),
    vector("compressed", "a name that goes on behind the question", |s| {
        let name = [&b"\x07allowed"[..], &[0xc0, 26]].concat();
        ask(s, &udp(INET)?, &[query(&name), encoded(&digits(s))].concat())
    }),
    vector("trailing", "something behind a query", |s| {
        ask(s, &udp(INET)?, &[query(&encoded(ALLOWED)), s.token.clone().into_bytes()].concat())
    }),
    vector("behind-edns", "something behind what a query says of its sender (EDNS)", |s| {
        let edns = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
        let message =
            [message(0x0100, 1, &question(&encoded(ALLOWED)), 1), edns.to_vec(), s.token.clone().into_bytes()];
        ask(s, &udp(INET)?, &message.concat())
    }),
    vector("two-questions", "a query with a second question", |s| {
        let questions = [question(&encoded(ALLOWED)), question(&told(s, ".test"))].concat();
        ask(s, &udp(INET)?, &message(0x0100, 2, &questions, 0))
    }),
    vector("answer", "a message that is an answer", |s| {
        ask(
            s,
            &udp(INET)?,
            &[message(0x8180, 1, &question(&encoded(ALLOWED)), 0), s.token.clone().into_bytes()].concat(),
        )
    }),
    vector("update", "a message that is an update", |s| {
        ask(
            s,
            &udp(INET)?,
            &[message(0x2800, 1, &question(&encoded(ALLOWED)), 0), s.token.clone().into_bytes()].concat(),
        )
    }),
    vector("plain", "no message at all", |s| ask(s, &udp(INET)?, s.token.as_bytes())),
    vector("after", "something else after a query", |s| {
        let socket = udp(INET)?;
        ask(s, &socket, &query(&encoded(ALLOWED)))?;
        s.send(&socket)
    }),
    vector("after-elsewhere", "something else to the listener outside, by a socket that has asked", |s| {
        let socket = udp(INET)?;
        send_to(&socket, &query(&encoded(ALLOWED)), 0, &nameserver(s)?).at("sendto the nameserver")?;
        send_to(&socket, s.token.as_bytes(), 0, &v4(LOOPBACK, s.port)).at("sendto")?;
        Ok(Vec::new())
    }),
    vector("cork", "a query that is put together from pieces (MSG_MORE)", |s| {
        let (socket, to) = (udp(INET)?, nameserver(s)?);
        send_to(&socket, &query(&encoded(ALLOWED)), libc::MSG_MORE, &to).at("sendto")?;
        send_to(&socket, s.token.as_bytes(), 0, &to).at("sendto")?;
        Ok(Vec::new())
    }),
    vector("segments", "several datagrams of which the first is a query (UDP_SEGMENT)", |s| {
        let (socket, message) = (udp(INET)?, query(&encoded(ALLOWED)));
        let size = i32::try_from(message.len()).expect("it is short");
        set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes()).at("setsockopt")?;
        ask(s, &socket, &[message, s.token.clone().into_bytes()].concat())
    }),
    vector("options", "a query for another name, with IP options", |s| {
        let socket = udp(INET)?;
        set_option(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &[1, 1, 1, 0]).at("setsockopt")?;
        ask(s, &socket, &query(&told(s, ".test")))
    }),
    vector("zerocopy", "a query in the program's own memory (MSG_ZEROCOPY)", |s| {
        let socket = udp(INET)?;
        set_option(&socket, libc::SOL_SOCKET, SO_ZEROCOPY, &1_i32.to_ne_bytes()).at("setsockopt")?;
        send_to(&socket, &query(&told(s, ".test")), libc::MSG_ZEROCOPY, &nameserver(s)?).at("sendto")?;
        Ok(Vec::new())
    }),
    vector(
        "threads",
        "a query for another name while another thread asks for an allowed one by the same socket",
        threads,
    ),
    vector("tcp", "a query for another name by TCP", |s| stream(s, 0, &[&with_length(&query(&told(s, ".test")))])),
    vector("tcp-second", "a second query in the same packet", |s| {
        stream(s, 0, &[&[with_length(&query(&encoded(ALLOWED))), with_length(&query(&told(s, ".test")))].concat()])
    }),
    vector("tcp-later", "another query after an allowed one", |s| {
        stream(s, 0, &[&with_length(&query(&encoded(ALLOWED))), &with_length(&query(&told(s, ".test")))])
    }),
    vector("tcp-trailing", "something behind a query by TCP", |s| {
        stream(s, 0, &[&[with_length(&query(&encoded(ALLOWED))), s.token.clone().into_bytes()].concat()])
    }),
    vector("tcp-bytes", "byte by byte", |s| {
        let message = with_length(&query(&told(s, ".test")));
        stream(s, libc::MSG_EOR, &message.chunks(1).collect::<Vec<_>>())
    }),
    vector("tcp-fast-open", "a query in the first packet (MSG_FASTOPEN)", |s| {
        let message = with_length(&query(&told(s, ".test")));
        send_to(&tcp(INET, 0)?, &message, libc::MSG_FASTOPEN, &nameserver(s)?).at("sendto")?;
        thread::sleep(SOON);
        Ok(Vec::new())
    }),
    vector("tcp-file", "a query that is in a file (sendfile)", |s| {
        let socket = tcp(INET, 0)?;
        connect(&socket, &nameserver(s)?).at("connect")?;
        send_file(s, &socket, &with_length(&query(&told(s, ".test"))))
    }),
    vector("tcp-mptcp", "a query for another name by MPTCP", |s| {
        let socket = tcp(INET, libc::IPPROTO_MPTCP)?;
        connect(&socket, &nameserver(s)?).at("connect")?;
        send_to(&socket, &with_length(&query(&told(s, ".test"))), 0, &[]).at("send")?;
        thread::sleep(SOON);
        Ok(Vec::new())
    }),
    vector("forge", "an answer of a socket at the nameserver's address and port", |s| {
        forge(s, |liar| bind(liar, &nameserver(s)?).at("bind"), &[])
    }),
    vector("forge-source", "an answer from the nameserver's address, by a control message (IP_PKTINFO)", |s| {
        forge(s, |liar| bind(liar, &v4([0; 4], PORT)).at("bind"), &source(s)?)
    }),
    vector("forge-options", "an answer from there with IP options", |s| {
        let begin = |liar: &OwnedFd| {
            set_option(liar, libc::IPPROTO_IP, libc::IP_OPTIONS, &[1, 1, 1, 0]).at("setsockopt")?;
            bind(liar, &v4([0; 4], PORT)).at("bind")
        };
        forge(s, begin, &source(s)?)
    }),
    vector("forge-other-port", "an answer from the nameserver's address and another port", |s| {
        forge(s, |liar| bind(liar, &v4(address(s)?, 0)).at("bind"), &[])
    }),
    vector("forge-mine", "an answer of a nameserver of the sandbox's own", |s| {
        let (own, client) = (udp(INET)?, patient(udp(INET)?)?);
        bind(&own, &v4(LOOPBACK, 0)).at("bind")?;
        let to = v4(LOOPBACK, local_port(&own).at("getsockname")?);
        let _refused = send_to(&client, &query(&encoded(ALLOWED)), 0, &to);
        let back = v4(LOOPBACK, local_port(&client).at("getsockname")?);
        let _refused = send_to(&own, &answer_to(ID, ALLOWED, LOOPBACK), 0, &back);
        s.tell()
    }),
    vector("same-number", "two names asked for by one number, of which the other has the address", |s| {
        let socket = patient(udp(INET)?)?;
        connect(&socket, &nameserver(s)?).at("connect")?;
        for name in [ELSEWHERE, ALLOWED] {
            send_to(&socket, &query(&encoded(name)), 0, &[]).at("send")?;
        }
        let mut buffer = [0; 512];
        for _ in 0..2 {
            receive(&socket, &mut buffer).at("receive")?;
        }
        s.tell()
    }),
    vector("other-port", "the address of a name that is allowed at another port", |s| learn_and_tell(s, ELSEWHERE)),
    vector("not-private", "a name with an address of this host's, where that isn't meant", |s| {
        learn_and_tell(s, PRIVATE)
    }),
    vector("tcp-learn", "such a name, asked for by TCP", |s| {
        let socket = tcp(INET, 0)?;
        connect(&socket, &nameserver(s)?).at("connect")?;
        send_to(&socket, &with_length(&query(&encoded(PRIVATE))), 0, &[]).at("send")?;
        receive(&socket, &mut [0; 512]).at("receive")?;
        s.tell()
    }),
    vector("tls-none", "something else than TLS to a name that is allowed by it", |s| {
        secure(s, 0, 0, &[s.token.as_bytes()])
    }),
    vector("tls-other", "a TLS connection to another name at its address", |s| {
        secure(s, 0, 0, &[&[hello("other.selftest.test"), s.token.clone().into_bytes()].concat()])
    }),
    vector("tls-below", "a TLS connection to a name below it", |s| {
        secure(s, 0, 0, &[&[hello("x.secure.selftest.test"), s.token.clone().into_bytes()].concat()])
    }),
    vector("tls-behind", "TLS behind something else", |s| secure(s, 0, 0, &[s.token.as_bytes(), &hello(SECURE)])),
    vector("tls-bytes", "another name, byte by byte", |s| {
        let message = [hello("other.selftest.test"), s.token.clone().into_bytes()].concat();
        secure(s, 0, libc::MSG_EOR, &message.chunks(1).collect::<Vec<_>>())
    }),
    vector("tls-urgent", "an urgent byte in it, which the server does not read (MSG_OOB)", |s| {
        secure(s, 0, libc::MSG_OOB, &[&[hello(SECURE), s.token.clone().into_bytes(), vec![0]].concat()])
    }),
    vector("tls-file", "TLS out of a file that can still change (sendfile)", |s| {
        let socket = secured(s, 0)?;
        send_file(s, &socket, &[hello(SECURE), s.token.clone().into_bytes()].concat())
    }),
    vector("tls-mptcp", "something else by MPTCP", |s| secure(s, libc::IPPROTO_MPTCP, 0, &[s.token.as_bytes()])),
    vector("tls-fast-open", "something else in the first packet (MSG_FASTOPEN)", |s| {
        learn(s, SECURE)?;
        send_to(&tcp(INET, 0)?, s.token.as_bytes(), libc::MSG_FASTOPEN, &v4(LOOPBACK, s.port)).at("sendto")?;
        thread::sleep(SOON);
        Ok(Vec::new())
    }),
    vector("tls-again", "something else by a socket that was connected before", |s| {
        let socket = secured(s, 0)?;
        send_to(&socket, &hello(SECURE), 0, &[]).at("send a ClientHello")?;
        connect(&socket, &of_family(libc::AF_UNSPEC, [0; 4], 0)).at("disconnect")?;
        s.tell_by(&socket, &v4(LOOPBACK, s.port))?;
        thread::sleep(SOON);
        Ok(Vec::new())
    }),
    vector("tls-quic", "a datagram there", |s| {
        learn(s, SECURE)?;
        s.tell_by(&udp(INET)?, &v4(LOOPBACK, s.port))
    }),
];

/// The address of the nameserver outside.
fn address(scene: &Scene) -> Result<[u8; 4], Stop> {
    scene.nameserver.ok_or_else(|| Stop::because("no nameserver outside"))
}

fn nameserver(scene: &Scene) -> Result<Vec<u8>, Stop> {
    Ok(v4(address(scene)?, PORT))
}

/// The token as a label. It begins with what is no digit, since the length before it may look like one.
fn digits(scene: &Scene) -> String {
    scene.token.bytes().fold("x".to_owned(), |label, byte| label + &format!("{byte:02x}"))
}

/// A name that tells the token, as a message has it.
fn told(scene: &Scene, below: &str) -> Vec<u8> {
    encoded(&(digits(scene) + below))
}

fn message(flags: u16, questions: u8, body: &[u8], additional: u8) -> Vec<u8> {
    [&ID[..], &flags.to_be_bytes(), &[0, questions, 0, 0, 0, 0, 0, additional], body].concat()
}

/// A query for the IPv4 addresses of a name.
fn query(name: &[u8]) -> Vec<u8> {
    message(0x0100, 1, &question(name), 0)
}

/// Sends something to the nameserver by a socket that is connected to it.
fn ask(scene: &Scene, socket: &OwnedFd, message: &[u8]) -> Outcome {
    connect(socket, &nameserver(scene)?).at("connect")?;
    send_to(socket, message, 0, &[]).at("send")?;
    Ok(Vec::new())
}

/// Sends something to the nameserver by TCP, in so many pieces.
fn stream(scene: &Scene, flags: i32, pieces: &[&[u8]]) -> Outcome {
    let socket = tcp(INET, 0)?;
    connect(&socket, &nameserver(scene)?).at("connect")?;
    send_pieces(&socket, flags, pieces)
}

/// Sends pieces, and waits until they have left or never will.
fn send_pieces(socket: &OwnedFd, flags: i32, pieces: &[&[u8]]) -> Outcome {
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1_i32.to_ne_bytes()).at("setsockopt")?;
    for piece in pieces {
        send_to(socket, piece, flags, &[]).at("send")?;
    }
    thread::sleep(SOON);
    Ok(Vec::new())
}

/// Sends what is in a file.
fn send_file(scene: &Scene, socket: &OwnedFd, bytes: &[u8]) -> Outcome {
    let path = scene.work().join("sent");
    std::fs::File::create(&path).and_then(|mut file| file.write_all(bytes)).at("writing a file")?;
    let file = std::fs::File::open(&path).at("open")?;
    nix::sys::sendfile::sendfile(socket, &file, None, bytes.len()).at("sendfile")?;
    thread::sleep(SOON);
    Ok(Vec::new())
}

/// One thread sends other names while the other one asks for an allowed one, by the same socket.
fn threads(scene: &Scene) -> Outcome {
    const TIMES: u32 = 2000;
    let socket = udp(INET)?;
    connect(&socket, &nameserver(scene)?).at("connect")?;
    let (allowed, other) = (query(&encoded(ALLOWED)), query(&told(scene, ".test")));
    thread::scope(|scope| {
        let asking = scope.spawn(|| (0..TIMES).try_for_each(|_| send_to(&socket, &allowed, 0, &[])));
        let sent = (0..TIMES).filter(|_| send_to(&socket, &other, 0, &[]).is_ok()).count();
        let _all = asking.join();
        if sent == 0 { Err(Stop { step: "send".into(), errno: Some("EPERM".to_owned()) }) } else { Ok(Vec::new()) }
    })
}

/// A control message that sends from the nameserver's address.
fn source(scene: &Scene) -> Result<Vec<u8>, Stop> {
    let info: Vec<u8> = [0_u32.to_ne_bytes(), address(scene)?, [0; 4]].concat();
    Ok(control(libc::IPPROTO_IP, libc::IP_PKTINFO, &info))
}

/// Asks for the allowed name, and answers by another socket that it has the address of the listeners outside.
fn forge(scene: &Scene, begin: impl FnOnce(&OwnedFd) -> Result<(), Stop>, ancillary: &[u8]) -> Outcome {
    let (victim, liar) = (patient(udp(INET)?)?, udp(INET)?);
    connect(&victim, &nameserver(scene)?).at("connect")?;
    send_to(&victim, &query(&encoded(ALLOWED)), 0, &[]).at("send a query")?;
    let port = local_port(&victim).at("getsockname")?;
    set_option(&liar, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32.to_ne_bytes()).at("setsockopt")?;
    let answer = answer_to(ID, ALLOWED, LOOPBACK);
    // Whether anything of it is refused, or the answer comes too late, is seen by what is learnt.
    let _refused =
        begin(&liar).and_then(|()| send_message(&liar, &answer, &v4(LOOPBACK, port), ancillary).at("sendmsg"));
    thread::sleep(Duration::from_millis(50));
    scene.tell()
}

/// Asks for a name.
fn learn(scene: &Scene, name: &str) -> Outcome {
    let socket = patient(udp(INET)?)?;
    ask(scene, &socket, &query(&encoded(name)))?;
    receive(&socket, &mut [0; 512]).at("receive")?;
    Ok(Vec::new())
}

fn learn_and_tell(scene: &Scene, name: &str) -> Outcome {
    learn(scene, name)?;
    scene.tell()
}

/// A socket that is connected to the address of the name that may be reached by TLS.
fn secured(scene: &Scene, protocol: i32) -> Result<OwnedFd, Stop> {
    learn(scene, SECURE)?;
    let socket = tcp(INET, protocol)?;
    connect(&socket, &v4(LOOPBACK, scene.port)).at("connect")?;
    Ok(socket)
}

/// Sends something there, in so many pieces.
fn secure(scene: &Scene, protocol: i32, flags: i32, pieces: &[&[u8]]) -> Outcome {
    send_pieces(&secured(scene, protocol)?, flags, pieces)
}

/// The message by which a TLS connection to a server of this name begins (RFC 8446, section 4.1.2).
fn hello(name: &str) -> Vec<u8> {
    let sized = |bytes: &[u8]| with_length(bytes);
    // The name: a list of one host.
    let list = sized(&[&[0][..], &sized(name.as_bytes())].concat());
    let extensions = sized(&[&[0, 0][..], &sized(&list)].concat());
    let body = [&[3, 3][..], &[7; 32], &[0], &sized(&[0x13, 0x01]), &[1, 0], &extensions].concat();
    let length = u32::try_from(body.len()).expect("it is short").to_be_bytes();
    [&[22, 3, 1][..], &sized(&[&[1][..], &length[1..], &body].concat())].concat()
}
