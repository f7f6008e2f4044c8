//! A network of the self-test's own: a host with a device, and two others at its other end, who are nobody. What is sent to the one that
//! policies deny is heard, and what is sent to groups, as routers would. It is in a network namespace that goes away with the self-test.

use std::{
    fs::{self, File, OpenOptions},
    io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command},
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns, unshare},
    unistd::read,
};

use super::protocol::{LO, request};
use crate::sys::attach_tap;

/// The device.
pub const DEVICE: &std::ffi::CStr = c"outer";
/// The device's address.
pub const OWN: [u8; 4] = [10, 9, 0, 1];
/// Like [`OWN`], by IPv6.
const OWN6: [u8; 16] = address6(1);
/// The host that policies allow.
pub const ALLOWED: [u8; 4] = [10, 9, 0, 2];
/// Like [`ALLOWED`], by IPv6.
pub const ALLOWED6: [u8; 16] = address6(2);
/// The host that policies deny, and that hears.
pub const DENIED: [u8; 4] = [10, 9, 0, 3];
/// Like [`DENIED`], by IPv6.
pub const DENIED6: [u8; 16] = address6(3);

/// What clients and servers may do with the first packet: all of it, 0x603.
const FAST_OPEN: &str = "1539";

/// fd09::NUMBER.
const fn address6(number: u8) -> [u8; 16] {
    [0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number]
}

/// The hardware address of the host whose addresses have this number at their end.
const fn card(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

/// The network.
pub struct Wire(File);

/// Who hears in it.
pub struct Hearing {
    /// At the host's own address by TCP, at all of its addresses by UDP.
    pub own: (OwnedFd, OwnedFd),
    /// The other end of the device.
    pub frames: OwnedFd,
}

impl Wire {
    /// Makes it, with listeners at this port.
    ///
    /// # Errors
    ///
    /// Without /dev/net/tun, or IPv6.
    pub fn new(port: u16) -> anyhow::Result<(Self, Hearing)> {
        let made = thread::spawn(move || -> anyhow::Result<(Self, Hearing)> {
            unshare(CloneFlags::CLONE_NEWNET).context("a network namespace")?;
            let frames = OpenOptions::new().read(true).write(true).open("/dev/net/tun").context("/dev/net/tun")?;
            attach_tap(&frames, DEVICE).context("a network device")?;
            configure(if_nametoindex(DEVICE)?).context("the addresses of a network device")?;
            // Servers take data in the first packet, without a cookie, if they ask for that (`TFO_SERVER_ENABLE`, include/net/tcp.h).
            fs::write("/proc/sys/net/ipv4/tcp_fastopen", FAST_OPEN).context("net/ipv4/tcp_fastopen")?;
            // By UDP at all addresses: so it hears what is for others and comes here, too.
            let own = (
                TcpListener::bind((Ipv4Addr::from(OWN), port))?.into(),
                UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?.into(),
            );
            Ok((Self(File::open("/proc/thread-self/ns/net")?), Hearing { own, frames: frames.into() }))
        });
        made.join().map_err(|_| anyhow::anyhow!("a thread with a network namespace of its own"))?
    }

    /// Does something in it, in a thread of its own.
    ///
    /// # Errors
    ///
    /// As setns(2).
    pub fn enter(&self, does: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
        let namespace = self.0.try_clone()?;
        Ok(thread::spawn(move || {
            if setns(&namespace, CloneFlags::CLONE_NEWNET).is_ok() {
                does();
            }
        }))
    }

    /// Starts a command in it.
    ///
    /// # Errors
    ///
    /// As setns(2) and execve(2).
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        thread::scope(|scope| {
            let spawned = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET)?;
                command.spawn()
            });
            spawned.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
        })
    }
}

/// The next frame, if it is for the denied host, or for a group.
///
/// # Errors
///
/// As read(2).
pub fn heard<'a>(frames: &impl AsFd, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
    let length = read(frames, buffer)?;
    let frame = &buffer[..length];
    let is_group = frame.first().is_some_and(|first| first & 1 != 0);
    Ok((is_group || frame.starts_with(&card(3))).then_some(frame))
}

/// An attribute of a netlink message (`struct rtattr`, include/uapi/linux/rtnetlink.h).
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("short");
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Has this thread's loopback and this device be up, and the device have its addresses, neighbours and the route to groups.
fn configure(device: u32) -> io::Result<()> {
    // include/uapi/linux/rtnetlink.h
    const NEW_LINK: u16 = 16;
    const NEW_ADDRESS: u16 = 20;
    const NEW_ROUTE: u16 = 24;
    const NEW_NEIGHBOUR: u16 = 28;
    const INET: u8 = 2;
    const INET6: u8 = 10;
    /// `IFA_F_NODAD`: nobody is asked whether it is taken.
    const AT_ONCE: u8 = 2;
    const PERMANENT: u16 = 0x80;
    let index = device.to_ne_bytes();
    for link in [LO.to_ne_bytes(), index] {
        let up = 1_u32.to_ne_bytes();
        request(NEW_LINK, &[&[0; 4], &link[..], &up, &up].concat())?;
    }
    for (family, bits, address) in [(INET, 24, &OWN[..]), (INET6, 64, &OWN6)] {
        let head = [&[family, bits, AT_ONCE, 0][..], &index].concat();
        request(NEW_ADDRESS, &[head, attribute(1, address), attribute(2, address)].concat())?;
    }
    for (number, address, address6) in [(2, &ALLOWED, &ALLOWED6), (3, &DENIED, &DENIED6)] {
        for (family, address) in [(INET, &address[..]), (INET6, &address6[..])] {
            let head = [&[family, 0, 0, 0][..], &index, &PERMANENT.to_ne_bytes(), &[0, 0]].concat();
            request(NEW_NEIGHBOUR, &[head, attribute(1, address), attribute(2, &card(number))].concat())?;
        }
    }
    // 224.0.0.0/4, by table 254 (main), by somebody (RTPROT_STATIC), on this link (RT_SCOPE_LINK), of type RTN_UNICAST.
    let head = vec![INET, 4, 0, 0, 254, 4, 253, 1, 0, 0, 0, 0];
    request(NEW_ROUTE, &[head, attribute(1, &[224, 0, 0, 0]), attribute(4, &index)].concat())
}
