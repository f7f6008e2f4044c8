//! What an attempt is told and what it tells; and what many of them do.

use std::{
    borrow::Cow,
    ffi::CString,
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType},
    unistd::{Pid, getppid},
};
use serde::{Deserialize, Serialize};

use crate::sys::socket;

/// The environment variable in which an attempt finds its [`Scene`].
pub const SCENE: &str = "GUARD_SELFTEST_SCENE";

/// What an attempt has got hold of (nothing, where the evidence is elsewhere), or what stopped it.
pub type Outcome = Result<Vec<u8>, Stop>;

/// What stopped an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// What it was doing.
    pub step: Cow<'static, str>,
    /// The error's name, if the kernel said one.
    pub errno: Option<String>,
}

impl Stop {
    /// A stop that is no error of the kernel.
    pub fn because(why: impl Into<Cow<'static, str>>) -> Self {
        Self { step: why.into(), errno: None }
    }
}

/// Says at which step something failed.
pub trait At<T> {
    /// Says it.
    ///
    /// # Errors
    ///
    /// The failure, with the step.
    fn at(self, step: &'static str) -> Result<T, Stop>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: &'static str) -> Result<T, Stop> {
        self.map_err(|error| {
            let error = error.into();
            let name =
                error.raw_os_error().map_or_else(|| error.to_string(), |raw| format!("{:?}", Errno::from_raw(raw)));
            Stop { step: step.into(), errno: Some(name) }
        })
    }
}

/// A process outside the guard, for attempts on it, and what it holds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Outsider {
    /// The process's id.
    pub pid: i32,
    /// Where in its memory the secret is.
    pub secret: u64,
    /// The process's descriptor of a TCP socket.
    pub socket: i32,
    /// The process's descriptor of a device.
    pub device: i32,
    /// The process's descriptor of a pipe with the secret in it.
    pub pipe: i32,
    /// The process's descriptor of the file by which processes are moved to the cgroup at the top.
    pub procs: i32,
}

/// What an attempt is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scene {
    /// What somebody outside has to hear for the attempt to have got out.
    pub token: String,
    /// What only somebody outside knows.
    pub secret: String,
    /// Where there are listeners outside, on loopback, which the policy forbids.
    pub port: u16,
    /// The address of a nameserver outside, if there is one.
    pub nameserver: Option<[u8; 4]>,
    /// A port that the policy forbids to serve, and at which somebody outside knocks.
    pub served: u16,
    /// A folder that the self-test removes: Unix sockets, a device node, and `work`, which is the attempt's own.
    pub folder: PathBuf,
    /// Where the cgroup v2 hierarchy is mounted outside.
    pub hierarchy: PathBuf,
    /// The key of the System V objects outside, and part of the names of others.
    pub key: i32,
    /// The netlink port of somebody outside.
    pub netlink: u32,
    /// Where the POSIX message queues outside are mounted.
    pub queues: PathBuf,
    /// A block device outside, with nothing on it.
    pub disk: Option<PathBuf>,
    /// The mount namespace outside.
    pub mounts: PathBuf,
    /// The descriptor that the attempt is started with.
    pub handed: Option<i32>,
    /// The process outside.
    pub outsider: Option<Outsider>,
    /// The cgroup that a control runs in, with nothing but a guard's programs on it.
    pub control: Option<PathBuf>,
}

impl Scene {
    /// The attempt's own folder.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    /// The process outside.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn outsider(&self) -> Result<Outsider, Stop> {
        self.outsider.ok_or_else(|| Stop::because("no process outside"))
    }

    /// The descriptor that the attempt was started with.
    ///
    /// # Errors
    ///
    /// If it isn't there.
    pub fn handed(&self) -> Result<OwnedFd, Stop> {
        let number = self.handed.ok_or_else(|| Stop::because("nothing was handed in"))?;
        crate::sys::take_descriptor(number).at("using the descriptor")
    }

    /// Sends the token to the forbidden listener, by the plainest of means: the last step of those who got out.
    ///
    /// # Errors
    ///
    /// If it can't be sent.
    pub fn tell(&self) -> Outcome {
        let socket = tcp(libc::AF_INET, 0)?;
        self.tell_by(&socket, &v4(LOOPBACK, self.port))
    }

    /// Connects a socket and sends the token.
    ///
    /// # Errors
    ///
    /// If it can't be connected.
    pub fn tell_by(&self, socket: &impl AsFd, address: &[u8]) -> Outcome {
        socket::connect(socket, address).at("connect")?;
        self.send(socket)
    }

    /// Sends the token over a connected socket.
    ///
    /// # Errors
    ///
    /// If it can't be sent.
    pub fn send(&self, socket: &impl AsFd) -> Outcome {
        socket::send_to(socket, self.token.as_bytes(), 0, &[]).at("send")?;
        Ok(Vec::new())
    }

    /// In the control: makes sure that there is a guard to get out of.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn is_guarded(&self) -> Result<(), Stop> {
        if self.control.is_none() {
            return Ok(());
        }
        let socket = tcp(libc::AF_INET, 0)?;
        match socket::connect(&socket, &v4(LOOPBACK, self.port)) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
            _ => Err(Stop::because("the control's guard does not work")),
        }
    }
}

/// The launcher: who started this attempt.
#[must_use]
pub fn launcher() -> Pid {
    getppid()
}

/// 127.0.0.1.
pub const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
/// ::1.
pub const LOOPBACK6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// ::ffff:127.0.0.1.
pub const MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];

/// A `struct sockaddr_in` of the family AF_INET.
#[must_use]
pub fn v4(address: [u8; 4], port: u16) -> Vec<u8> {
    of_family(AddressFamily::Inet as i32, address, port)
}

/// A `struct sockaddr_in` with any family in it.
#[must_use]
pub fn of_family(family: i32, address: [u8; 4], port: u16) -> Vec<u8> {
    let family = u16::try_from(family).expect("a small number");
    [&family.to_ne_bytes()[..], &port.to_be_bytes(), &address, &[0; 8]].concat()
}

/// A `struct sockaddr_in6`.
#[must_use]
pub fn v6(address: [u8; 16], port: u16) -> Vec<u8> {
    let family = u16::try_from(libc::AF_INET6).expect("a small number");
    [&family.to_ne_bytes()[..], &port.to_be_bytes(), &[0; 4], &address, &[0; 4]].concat()
}

/// A `struct sockaddr_un` of a path, without a NUL at its end.
#[must_use]
pub fn path_address(path: &Path) -> Vec<u8> {
    [&1_u16.to_ne_bytes()[..], path.as_os_str().as_bytes()].concat()
}

/// A `struct sockaddr_un` with an abstract name.
#[must_use]
pub fn abstract_address(name: &str) -> Vec<u8> {
    [&1_u16.to_ne_bytes()[..], b"\0", name.as_bytes()].concat()
}

/// A TCP socket that gives up soon.
///
/// # Errors
///
/// As socket(2).
pub fn tcp(domain: i32, protocol: i32) -> Result<OwnedFd, Stop> {
    patient(socket::socket(domain, libc::SOCK_STREAM, protocol).at("socket")?)
}

/// A UDP socket.
///
/// # Errors
///
/// As socket(2).
pub fn udp(domain: i32) -> Result<OwnedFd, Stop> {
    socket::socket(domain, libc::SOCK_DGRAM, 0).at("socket")
}

/// Lets a socket wait for an answer, but not for long.
///
/// # Errors
///
/// As setsockopt(2).
pub fn patient(socket: OwnedFd) -> Result<OwnedFd, Stop> {
    let half_a_second: Vec<u8> = [0_i64, 500_000].into_iter().flat_map(i64::to_ne_bytes).collect();
    for option in [libc::SO_SNDTIMEO, libc::SO_RCVTIMEO] {
        socket::set_option(&socket, libc::SOL_SOCKET, option, &half_a_second).at("setsockopt")?;
    }
    Ok(socket)
}

/// A Unix socket.
///
/// # Errors
///
/// As socket(2).
pub fn unix(kind: SockType) -> Result<OwnedFd, Stop> {
    nix::sys::socket::socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).at("socket")
}

/// A path as a string of C.
///
/// # Panics
///
/// When there is a NUL in it.
#[must_use]
pub fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL in our paths")
}

/// Makes sure that this process's mounts are its own, so that nothing it mounts stays behind.
///
/// # Errors
///
/// Where they are not and can't be made so.
pub fn own_mounts(scene: &Scene) -> Result<(), Stop> {
    match unshare(CloneFlags::CLONE_NEWNS) {
        Ok(()) => mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .at("making mounts private"),
        // A guard that gives its command mounts of its own: there is more to try.
        Err(_) if fs::read_link("/proc/self/ns/mnt").is_ok_and(|own| own != scene.mounts) => Ok(()),
        Err(error) => Err(error).at("unshare"),
    }
}

/// Reads the first bytes of an open file.
///
/// # Errors
///
/// As read(2).
pub fn read(file: &impl AsFd) -> Outcome {
    let mut buffer = [0; 64];
    let length = nix::unistd::read(file, &mut buffer).at("read")?;
    if length == 0 { Err(Stop::because("nothing to read")) } else { Ok(buffer[..length].to_vec()) }
}

/// Opens a file and reads its first bytes.
///
/// # Errors
///
/// As open(2) and read(2).
pub fn open_and_read(path: &Path) -> Outcome {
    read(&fs::File::open(path).at("open")?)
}
