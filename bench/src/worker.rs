//! What is measured: small loops in a process of their own, which may be guarded.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    libc::linger,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, bind, connect, sendto, setsockopt, socket, sockopt,
        },
        stat::Mode,
    },
    unistd::read,
};
use serde::{Deserialize, Serialize};

use crate::{setup::pin_worker, stats::median};

/// The argument that makes this program a worker.
pub const WORKER: &str = "worker";
/// The argument that makes it a storm of denials.
pub const STORM: &str = "storm";

/// How much is handed to the kernel at once.
pub const BLOCK: u32 = 128 * 1024;

/// What to do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Connect a datagram socket to a port of 127.0.0.1, again and again.
    UdpConnect { port: u16 },
    /// Connect a datagram socket to a port that is denied, again and again.
    UdpConnectDenied { port: u16 },
    /// Connect a stream socket to a port of 127.0.0.1 and reset the connection.
    TcpConnect { port: u16 },
    /// Bind a datagram socket to a port of 127.0.0.1, and close it.
    Bind { port: u16 },
    /// Send a datagram from a socket that is not connected to one of the worker's own, and receive it.
    SendTo,
    /// Connect a stream socket to a path, accept the connection, and close both ends.
    UnixConnect,
    /// Connect a stream socket on 127.0.0.1, accept the connection, and reset it.
    Accept,
    /// Set `SO_REUSEADDR`.
    SetSockOpt,
    /// Open and close /dev/zero.
    Open,
    /// Open, read and close /proc/sys/kernel/ostype.
    ReadSysctl,
    /// Send for so long to a port of 127.0.0.1, and wait until a byte acknowledges it all. The result is for a
    /// [`BLOCK`].
    Stream { port: u16, milliseconds: u32 },
}

/// How often to do it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Task {
    pub operation: Operation,
    /// In one measurement.
    pub repeat: u32,
    /// Measurements, of which the median counts. Short ones, so that few of them are interrupted.
    pub batches: u32,
}

/// Does one task after the other, until there are no more. One JSON line for each, in and out.
pub fn serve() -> anyhow::Result<()> {
    pin_worker()?;
    for task in io::stdin().lines() {
        let task = serde_json::from_str(&task?)?;
        let reply = measure(task).map_err(|error| format!("{error:#}"));
        println!("{}", serde_json::to_string(&reply)?);
    }
    Ok(())
}

/// Nanoseconds per operation.
fn measure(task: Task) -> anyhow::Result<f64> {
    match task.operation {
        Operation::UdpConnect { port } => {
            let (socket, peer) = (udp()?, loopback(port));
            in_batches(task, || Ok(connect(socket.as_raw_fd(), &peer)?))
        }
        Operation::UdpConnectDenied { port } => {
            let (socket, peer) = (udp()?, loopback(port));
            in_batches(task, || denied_connect(&socket, &peer))
        }
        Operation::TcpConnect { port } => {
            let peer = loopback(port);
            in_batches(task, || tcp_connect(&peer).map(drop))
        }
        Operation::Bind { port } => in_batches(task, || Ok(bind(udp()?.as_raw_fd(), &loopback(port))?)),
        Operation::SendTo => {
            let (sender, receiver) = (udp()?, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
            let peer = loopback(receiver.local_addr()?.port());
            in_batches(task, || {
                sendto(sender.as_raw_fd(), b"x", &peer, MsgFlags::empty())?;
                receiver.recv(&mut [0])?;
                Ok(())
            })
        }
        Operation::UnixConnect => {
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("socket");
            let listener = UnixListener::bind(&path)?;
            in_batches(task, || {
                let _client = UnixStream::connect(&path)?;
                listener.accept()?;
                Ok(())
            })
        }
        Operation::Accept => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let peer = loopback(listener.local_addr()?.port());
            in_batches(task, || {
                let _client = tcp_connect(&peer)?;
                listener.accept()?;
                Ok(())
            })
        }
        Operation::SetSockOpt => {
            let socket = udp()?;
            in_batches(task, || Ok(setsockopt(&socket, sockopt::ReuseAddr, &true)?))
        }
        Operation::Open => in_batches(task, || {
            open(c"/dev/zero", OFlag::O_RDONLY, Mode::empty())?;
            Ok(())
        }),
        Operation::ReadSysctl => in_batches(task, || {
            let file = open(c"/proc/sys/kernel/ostype", OFlag::O_RDONLY, Mode::empty())?;
            ensure!(read(&file, &mut [0; 64])? > 0, "nothing to read");
            Ok(())
        }),
        Operation::Stream { port, milliseconds } => stream(port, Duration::from_millis(milliseconds.into())),
    }
}

fn in_batches(task: Task, mut operation: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut results = Vec::new();
    for _ in 0..task.batches {
        let start = Instant::now();
        for _ in 0..task.repeat {
            operation()?;
        }
        results.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(task.repeat));
    }
    Ok(median(&results))
}

fn loopback(port: u16) -> SockaddrIn {
    let [a, b, c, d] = Ipv4Addr::LOCALHOST.octets();
    SockaddrIn::new(a, b, c, d, port)
}

fn udp() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
}

fn denied_connect(socket: &OwnedFd, peer: &SockaddrIn) -> anyhow::Result<()> {
    match connect(socket.as_raw_fd(), peer) {
        Err(Errno::EPERM) => Ok(()),
        other => bail!("connect: {other:?} where EPERM was expected"),
    }
}

/// Connects. Closing the socket resets the connection, since tens of thousands in TIME_WAIT would use up the ports.
fn tcp_connect(peer: &SockaddrIn) -> anyhow::Result<OwnedFd> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })?;
    connect(socket.as_raw_fd(), peer)?;
    Ok(socket)
}

fn stream(port: u16, duration: Duration) -> anyhow::Result<f64> {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let block = vec![0; BLOCK as usize];
    let mut blocks = 0;
    let start = Instant::now();
    while start.elapsed() < duration {
        socket.write_all(&block)?;
        blocks += 1;
    }
    socket.shutdown(Shutdown::Write)?;
    socket.read_exact(&mut [0]).context("the receiver did not acknowledge")?;
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(blocks))
}

/// Connects that are denied, from several processes at the same time. Prints how many seconds it took.
pub fn storm(processes: &str, connects: &str) -> anyhow::Result<()> {
    let processes: u32 = processes.parse()?;
    if processes == 0 {
        let (socket, peer) = (udp()?, loopback(9));
        let connects: u32 = connects.parse()?;
        return (0..connects).try_for_each(|_| denied_connect(&socket, &peer));
    }
    let start = Instant::now();
    let own = std::env::current_exe()?;
    let children = (0..processes).map(|_| Command::new(&own).args([STORM, "0", connects]).spawn());
    for mut child in children.collect::<io::Result<Vec<_>>>()? {
        ensure!(child.wait()?.success(), "a process of the storm failed");
    }
    println!("{}", start.elapsed().as_secs_f64());
    Ok(())
}
