//! What an attempt is started with, besides its standard streams.

use std::{
    ffi::CStr,
    fs::{File, OpenOptions},
    net::{TcpStream, UdpSocket},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
        unix::{fs::OpenOptionsExt as _, net::UnixStream},
    },
    path::Path,
    thread,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    pty::openpty,
    sched::{CloneFlags, unshare},
};

use crate::sys::{Call, attach_tun, keep_tun, open_by, socket::socket};

use super::{
    outsider::Outside,
    server::{STREAM, give},
    sysctl::HIDDEN,
};

/// The network device that is there already, and the user whose it is. Where there is none, some kernels let nobody attach without
/// `CAP_NET_ADMIN`, and most everybody.
pub const TUN: &CStr = c"selftest";
pub const TUN_OWNER: u32 = 65534;

/// A descriptor that was made outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// A TCP socket.
    TcpSocket,
    /// A UDP socket.
    UdpSocket,
    /// A TCP connection to the forbidden listener.
    Connection,
    /// One to a Unix socket.
    UnixConnection,
    /// One end of a socket pair, at whose other end somebody passes descriptors.
    Passing,
    /// An open device.
    Device,
    /// The path of one.
    DevicePath,
    /// The folder it is in.
    DeviceFolder,
    /// An open file below /proc/sys.
    Tunable,
    /// `cgroup.procs` at the top of the hierarchy.
    Procs,
    /// The folder at the top.
    CgroupFolder,
    /// The root folder.
    RootFolder,
    /// The process outside.
    Pidfd,
    /// The mount namespace outside.
    MountNamespace,
    /// A terminal, as standard input.
    Terminal,
    /// /dev/net/tun, opened where there is a network device already ([`TUN`]), as standard input.
    Tun,
    /// The root folder, as standard input.
    InputFolder,
    /// No descriptor, but the folder at the top of the hierarchy to work in.
    WorkingFolder,
}

/// A descriptor while it is handed to somebody: not closed by executing a program.
pub struct Open {
    /// The descriptor's number.
    pub number: RawFd,
    /// What it is, as standard input, too.
    pub input: Option<OwnedFd>,
    /// Both ends of the terminal.
    pub terminal: Option<(OwnedFd, OwnedFd)>,
}

impl Handed {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// When this machine has no such thing.
    pub fn open(self, port: u16, folder: &Path, hierarchy: &Path, outside: Option<&Outside>) -> anyhow::Result<Open> {
        let path = |path: &Path, flags: OFlag| -> anyhow::Result<OwnedFd> {
            Ok(OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?.into())
        };
        let (mut input, mut terminal) = (None, None);
        let fd: OwnedFd = match self {
            Self::TcpSocket => socket(libc::AF_INET, libc::SOCK_STREAM, 0)?,
            Self::UdpSocket => UdpSocket::bind("127.0.0.1:0")?.into(),
            Self::Connection => TcpStream::connect(("127.0.0.1", port))?.into(),
            Self::UnixConnection => UnixStream::connect(folder.join(STREAM))?.into(),
            Self::Passing => {
                let (inside, outside) = UnixStream::pair()?;
                // What is passed waits in the socket.
                give(&outside.into())?;
                inside.into()
            }
            Self::Device => File::open("/dev/zero")?.into(),
            Self::DevicePath => path("/dev/zero".as_ref(), OFlag::O_PATH)?,
            Self::DeviceFolder => path("/dev".as_ref(), OFlag::O_DIRECTORY)?,
            Self::Tunable => File::open(HIDDEN)?.into(),
            Self::Procs => OpenOptions::new().write(true).open(hierarchy.join("cgroup.procs"))?.into(),
            Self::CgroupFolder | Self::WorkingFolder => path(hierarchy, OFlag::O_DIRECTORY)?,
            Self::InputFolder => {
                let root = path("/".as_ref(), OFlag::O_DIRECTORY)?;
                input = Some(root.try_clone()?);
                root
            }
            Self::RootFolder => path("/".as_ref(), OFlag::O_DIRECTORY)?,
            Self::MountNamespace => path("/proc/self/ns/mnt".as_ref(), OFlag::empty())?,
            Self::Pidfd => {
                let pid = outside.map_or(0, |outside| outside.told.pid);
                open_by(Call::PidfdOpen, [pid.into(), 0, 0])?
            }
            Self::Tun => {
                let device = tun()?;
                input = Some(device.try_clone()?);
                device
            }
            Self::Terminal => {
                let pair = openpty(None, None)?;
                let slave = pair.slave.try_clone()?;
                input = Some(pair.slave.try_clone()?);
                fcntl(&pair.slave, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
                terminal = Some((pair.master, pair.slave));
                slave
            }
        };
        // High enough to be in nobody's way. Only until the process is started is it open to be passed on.
        let number = fcntl(fd.as_fd(), FcntlArg::F_DUPFD(100))?;
        Ok(Open { number, input, terminal })
    }
}

/// /dev/net/tun of a network namespace that lives as long as this descriptor, with a device in it, as `ip tuntap add` makes it. It is in no other namespace, so that nothing is left of it.
fn tun() -> anyhow::Result<OwnedFd> {
    let open = || OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let made = thread::spawn(move || -> anyhow::Result<OwnedFd> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let first = open()?;
        attach_tun(&first, TUN, 0)?;
        keep_tun(&first, TUN_OWNER)?;
        Ok(open()?.into())
    });
    made.join().map_err(|_| anyhow::anyhow!("a thread with a network namespace of its own"))?
}

impl Open {
    /// What has been typed at the terminal.
    #[must_use]
    pub fn typed(&self) -> Vec<u8> {
        let mut buffer = [0; 256];
        let Some((_, slave)) = &self.terminal else { return Vec::new() };
        debug_assert!(slave.as_raw_fd() >= 0);
        nix::unistd::read(slave, &mut buffer).map_or_else(|_| Vec::new(), |length| buffer[..length].to_vec())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = nix::unistd::close(self.number);
    }
}
