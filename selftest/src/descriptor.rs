//! Descriptors that the command is started with, or that somebody outside passes it. A socket belongs to the cgroup in
//! which it was made, and an open device is not asked about again.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    fcntl::{OFlag, openat},
    sched::{CloneFlags, setns},
    sys::{socket::SockType, stat::Mode},
};

use crate::sys::{
    Call, call, push_input,
    socket::{connect, receive_descriptors, send_to},
};

use super::{
    attempt::{At as _, LOOPBACK, Outcome, Scene, Stop, abstract_address, path_address, read, unix, v4},
    cgroup::leave_by,
    handed::Handed,
    policies::{DEVICES, NETWORK, NOTHING, SYSCTLS, UNIX},
    server::{GIVER, giver_name},
    vector::{Control, Evidence, Layer, Vector},
};

const fn vector(
    name: &'static str,
    shows: &'static str,
    policy: &'static str,
    attempt: super::vector::Attempt,
) -> Vector {
    Vector::new(name, shows, policy, attempt).stopped_by(Layer::Closed)
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    vector("tcp", "a TCP socket made outside", NETWORK, |s| s.tell_by(&s.handed()?, &v4(LOOPBACK, s.port)))
        .handed(Handed::TcpSocket),
    vector("udp", "a UDP socket made outside", NETWORK, |s| {
        send_to(&s.handed()?, s.token.as_bytes(), 0, &v4(LOOPBACK, s.port)).at("sendto")?;
        Ok(Vec::new())
    })
    .handed(Handed::UdpSocket),
    vector("connection", "a connection made outside", NETWORK, |s| s.send(&s.handed()?)).handed(Handed::Connection),
    vector("unix-connection", "a Unix connection made outside", UNIX, |s| s.send(&s.handed()?))
        .handed(Handed::UnixConnection),
    vector("passed-through-pair", "a TCP socket passed over a socket pair from outside", NETWORK, |s| {
        passed_socket(s, &s.handed()?)
    })
    .handed(Handed::Passing),
    vector("device", "an open device", DEVICES, |s| read(&s.handed()?)).handed(Handed::Device).seen_by(Evidence::Word),
    vector("device-path", "a device opened only for its path (O_PATH)", DEVICES, |s| {
        let path = s.handed()?;
        read(&File::open(format!("/proc/self/fd/{}", path.as_raw_fd())).at("open")?)
    })
    .handed(Handed::DevicePath)
    .seen_by(Evidence::Word),
    vector("folder", "the folder of devices", DEVICES, |s| {
        read(&openat(s.handed()?, "zero", OFlag::O_RDONLY, Mode::empty()).at("openat")?)
    })
    .handed(Handed::DeviceFolder)
    .seen_by(Evidence::Word),
    vector("tunable", "an open file below /proc/sys", SYSCTLS, |s| read(&s.handed()?))
        .handed(Handed::Tunable)
        .seen_by(Evidence::Tunable),
    vector("procs", "an open cgroup.procs of the cgroup at the top", NETWORK, |s| {
        leave_by(s, || File::from(s.handed()?).write_all(b"0").at("write cgroup.procs"))
    })
    .handed(Handed::Procs)
    .control(Control::Guard),
    vector("cgroup-folder", "an open folder of the cgroup hierarchy", NETWORK, |s| {
        leave_by(s, || {
            let file = openat(s.handed()?, "cgroup.procs", OFlag::O_WRONLY, Mode::empty()).at("openat")?;
            File::from(file).write_all(b"0").at("write cgroup.procs")
        })
    })
    .handed(Handed::CgroupFolder)
    .control(Control::Guard),
    vector("pidfd", "a descriptor of a process outside, which takes its socket", NETWORK, |s| {
        let socket = i64::from(s.outsider()?.socket);
        let pidfd = s.handed()?;
        let fd = call(Call::PidfdGetfd, [pidfd.as_raw_fd().into(), socket, 0]).at("pidfd_getfd")?;
        s.tell_by(&taken(fd)?, &v4(LOOPBACK, s.port))
    })
    .handed(Handed::Pidfd)
    .with_outsider(),
    vector("namespace", "a descriptor of the mount namespace outside", NETWORK, |s| {
        leave_by(s, || {
            setns(s.handed()?, CloneFlags::CLONE_NEWNS).at("setns")?;
            std::fs::write(s.hierarchy.join("cgroup.procs"), "0").at("write cgroup.procs")
        })
    })
    .handed(Handed::MountNamespace)
    .control(Control::Guard),
    vector("root-folder", "the root folder outside, to change root to", NETWORK, |s| {
        leave_by(s, || {
            nix::unistd::fchdir(s.handed()?).at("fchdir")?;
            nix::unistd::chroot(".").at("chroot")?;
            std::fs::write(s.hierarchy.join("cgroup.procs"), "0").at("write cgroup.procs")
        })
    })
    .handed(Handed::RootFolder)
    .control(Control::Guard),
    vector(
        "input-folder",
        "a folder as standard input, from which all of the file system outside is reached",
        NETWORK,
        |s| {
            leave_by(s, || {
                let path = s.hierarchy.strip_prefix("/").unwrap_or(&s.hierarchy).join("cgroup.procs");
                let file = openat(std::io::stdin(), &path, OFlag::O_WRONLY, Mode::empty()).at("open cgroup.procs")?;
                File::from(file).write_all(b"0").at("write cgroup.procs")
            })
        },
    )
    .handed(Handed::InputFolder)
    .control(Control::Guard)
    .stopped_by(Layer::Mounts),
    vector("working-folder", "a working folder in the cgroup hierarchy", NETWORK, |s| {
        leave_by(s, || {
            let file = OpenOptions::new().write(true).open("cgroup.procs");
            file.at("open cgroup.procs")?.write_all(b"0").at("write cgroup.procs")
        })
    })
    .handed(Handed::WorkingFolder)
    .control(Control::Guard)
    .stopped_by(Layer::Mounts),
    vector("passed-by-path", "a TCP socket passed by a server at a path", UNIX, |s| {
        let giver = unix(SockType::Stream)?;
        connect(&giver, &path_address(&s.folder.join(GIVER))).at("connect to the server")?;
        passed_socket(s, &giver)
    })
    .stopped_by(Layer::Hook),
    vector("passed-by-name", "a TCP socket passed by a server with an abstract name", UNIX, |s| {
        let giver = unix(SockType::Stream)?;
        connect(&giver, &abstract_address(&giver_name(s.key))).at("connect to the server")?;
        passed_socket(s, &giver)
    })
    .stopped_by(Layer::Hook),
    vector("passed-device", "an open device passed by a server", UNIX, |s| {
        let giver = unix(SockType::Stream)?;
        connect(&giver, &path_address(&s.folder.join(GIVER))).at("connect to the server")?;
        let device = receive_descriptors(&giver).at("recvmsg")?.into_iter().nth(1);
        read(&device.ok_or_else(|| Stop::because("no descriptor was passed"))?)
    })
    .stopped_by(Layer::Hook)
    .seen_by(Evidence::Word),
    vector("terminal", "the caller's terminal, into which a command is typed (TIOCSTI)", NOTHING, |s| type_in(s, 0))
        .handed(Handed::Terminal)
        .stopped_by(Layer::Seccomp),
    vector("terminal-upper-half", "the same by a number with more bits than the kernel looks at", NOTHING, |s| {
        type_in(s, 1)
    })
    .handed(Handed::Terminal)
    .stopped_by(Layer::Seccomp),
];

/// Receives descriptors and uses the first one, a TCP socket.
fn passed_socket(scene: &Scene, from: &OwnedFd) -> Outcome {
    let socket = receive_descriptors(from).at("recvmsg")?.into_iter().next();
    scene.tell_by(&socket.ok_or_else(|| Stop::because("no descriptor was passed"))?, &v4(LOOPBACK, scene.port))
}

/// Types the token.
fn type_in(scene: &Scene, upper_half: u32) -> Outcome {
    for byte in scene.token.bytes().chain([b'\n']) {
        push_input(&std::io::stdin(), byte, upper_half).at("TIOCSTI")?;
    }
    Ok(Vec::new())
}

/// A descriptor that a system call has made.
pub(super) fn taken(number: i64) -> Result<OwnedFd, Stop> {
    let number = i32::try_from(number).map_err(|_| Stop::because("not a descriptor"))?;
    crate::sys::take_descriptor(number).at("using the descriptor")
}
