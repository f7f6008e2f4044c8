//! Tracing a process outside, looking into it, taking what it holds, and sending it signals. It is of the same user.

use std::{
    fs::{self, OpenOptions},
    io,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::PathBuf,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::{
        ptrace,
        signal::{Signal, kill},
        uio::{RemoteIoVec, process_vm_readv, process_vm_writev},
    },
    unistd::Pid,
};
use policy::Part;

use crate::sys::{Call, advise, call, open_by, open_counter, queue_signal, send_signal};

use super::{
    attempt::{At as _, LOOPBACK, Scene, Stop, open_and_read, v4},
    descriptor::taken,
    policies::{NETWORK, NOTHING},
    vector::{Evidence, Layer, Vector},
};

const fn vector(
    name: &'static str,
    shows: &'static str,
    evidence: Evidence,
    attempt: super::vector::Attempt,
) -> Vector {
    Vector::new(name, shows, NOTHING, attempt).seen_by(evidence).with_outsider().stopped_by(Layer::Landlock)
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    vector("seize", "traces it (PTRACE_SEIZE)", Evidence::Word, |s| {
        ptrace::seize(pid(s)?, ptrace::Options::empty()).at("ptrace").map(|()| Vec::new())
    }),
    vector("attach", "stops and traces it (PTRACE_ATTACH)", Evidence::Word, |s| {
        ptrace::attach(pid(s)?).at("ptrace").map(|()| Vec::new())
    }),
    vector("read-memory", "reads its memory (process_vm_readv)", Evidence::Told, |s| {
        let mut bytes = vec![0; s.secret.len()];
        let base = address(s)?;
        let remote = RemoteIoVec { base, len: bytes.len() };
        process_vm_readv(pid(s)?, &mut [io::IoSliceMut::new(&mut bytes)], &[remote]).at("process_vm_readv")?;
        Ok(bytes)
    }),
    vector("write-memory", "writes its memory (process_vm_writev)", Evidence::Changed, |s| {
        let remote = RemoteIoVec { base: address(s)?, len: s.token.len() };
        let local = [io::IoSlice::new(s.token.as_bytes())];
        process_vm_writev(pid(s)?, &local, &[remote]).at("process_vm_writev").map(|_| Vec::new())
    }),
    vector("read-mem-file", "reads its memory (/proc/PID/mem)", Evidence::Told, |s| {
        let mut bytes = vec![0; s.secret.len()];
        let file = fs::File::open(of(s, "mem")?).at("open")?;
        file.read_exact_at(&mut bytes, s.outsider()?.secret).at("read")?;
        Ok(bytes)
    }),
    vector("write-mem-file", "writes its memory (/proc/PID/mem)", Evidence::Changed, |s| {
        let file = OpenOptions::new().write(true).open(of(s, "mem")?).at("open")?;
        file.write_all_at(s.token.as_bytes(), s.outsider()?.secret).at("write").map(|()| Vec::new())
    }),
    vector("environment", "reads its environment", Evidence::Told, |s| fs::read(of(s, "environ")?).at("read")),
    vector("maps", "reads where everything is in its memory", Evidence::Word, |s| open_and_read(&of(s, "maps")?)),
    vector("stack", "reads where it is in the kernel (/proc/PID/syscall)", Evidence::Word, |s| {
        open_and_read(&of(s, "syscall")?)
    }),
    vector("take-socket", "takes its socket (pidfd_getfd)", Evidence::Heard, |s| {
        let pidfd = open_by(Call::PidfdOpen, [s.outsider()?.pid.into(), 0, 0]).at("pidfd_open")?;
        let socket = i64::from(s.outsider()?.socket);
        let fd = call(Call::PidfdGetfd, [pidfd.as_raw_fd().into(), socket, 0]).at("pidfd_getfd")?;
        s.tell_by(&taken(fd)?, &v4(LOOPBACK, s.port))
    })
    .under(NETWORK),
    vector("take-device", "takes its open device (pidfd_getfd)", Evidence::Word, |s| {
        let pidfd = open_by(Call::PidfdOpen, [s.outsider()?.pid.into(), 0, 0]).at("pidfd_open")?;
        let device = i64::from(s.outsider()?.device);
        let fd = call(Call::PidfdGetfd, [pidfd.as_raw_fd().into(), device, 0]).at("pidfd_getfd")?;
        super::attempt::read(&taken(fd)?)
    })
    .under(super::policies::DEVICES),
    vector("open-pipe", "reads its pipe (/proc/PID/fd)", Evidence::Told, |s| {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = of(s, &format!("fd/{}", s.outsider()?.pipe))?;
        let pipe = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).at("open")?;
        super::attempt::read(&pipe)
    }),
    vector("counter", "counts what it does (perf_event_open)", Evidence::Word, |s| {
        open_counter(pid(s)?).at("perf_event_open").map(|_| Vec::new())
    }),
    vector("advise", "pushes its memory out (process_madvise)", Evidence::Word, |s| {
        let pidfd = open_by(Call::PidfdOpen, [s.outsider()?.pid.into(), 0, 0]).at("pidfd_open")?;
        advise(&pidfd, s.outsider()?.secret).at("process_madvise").map(|()| Vec::new())
    }),
    vector("kill", "kills it (kill)", Evidence::Killed, |s| {
        kill(pid(s)?, Signal::SIGKILL).at("kill").map(|()| Vec::new())
    })
    .unless(Part::Signals),
    vector("kill-thread", "kills its thread (tgkill)", Evidence::Killed, |s| {
        let pid = i64::from(s.outsider()?.pid);
        call(Call::Tgkill, [pid, pid, libc::SIGKILL.into()]).at("tgkill").map(|_| Vec::new())
    })
    .unless(Part::Signals),
    vector("kill-group", "kills its process group", Evidence::Killed, |s| {
        nix::sys::signal::killpg(pid(s)?, Signal::SIGKILL).at("kill").map(|()| Vec::new())
    })
    .unless(Part::Signals),
    vector("kill-by-pidfd", "kills it (pidfd_send_signal)", Evidence::Killed, |s| {
        let pidfd = open_by(Call::PidfdOpen, [s.outsider()?.pid.into(), 0, 0]).at("pidfd_open")?;
        send_signal(&pidfd, Signal::SIGKILL).at("pidfd_send_signal").map(|()| Vec::new())
    })
    .unless(Part::Signals),
    vector("kill-by-queue", "kills it (rt_sigqueueinfo)", Evidence::Killed, |s| {
        queue_signal(pid(s)?, libc::SIGKILL).at("rt_sigqueueinfo").map(|()| Vec::new())
    })
    .unless(Part::Signals),
    vector(
        "kill-by-file",
        "has the kernel send it a signal when a pipe can be read (F_SETOWN)",
        Evidence::Killed,
        |s| {
            let (reader, writer) = nix::unistd::pipe().at("pipe")?;
            crate::sys::set_owner(&reader, pid(s)?).at("F_SETOWN")?;
            crate::sys::set_signal(&reader, libc::SIGKILL).at("F_SETSIG")?;
            fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_ASYNC)).at("F_SETFL")?;
            nix::unistd::write(&writer, b"x").at("write").map(|_| Vec::new())
        },
    )
    .unless(Part::Signals),
];

/// The process outside.
fn pid(scene: &Scene) -> Result<Pid, Stop> {
    Ok(Pid::from_raw(scene.outsider()?.pid))
}

fn address(scene: &Scene) -> Result<usize, Stop> {
    usize::try_from(scene.outsider()?.secret).map_err(|_| Stop::because("an address that is too large"))
}

/// A file of it in /proc.
fn of(scene: &Scene, name: &str) -> Result<PathBuf, Stop> {
    Ok(format!("/proc/{}/{name}", scene.outsider()?.pid).into())
}
