//! Killing, stopping, starving and looking into the launcher. The guard must hold whatever becomes of it; and nobody inside
//! should be able to do anything to it. In the control, a process of the self-test stands in for it.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::fd::AsRawFd as _,
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::{
        ptrace,
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{Pid, setsid},
};
use policy::Part;

use crate::sys::{Call, call, exit_now, fork, keep_limit, open_by, send_signal, set_idle, set_idle_by_attributes};

use super::{
    attempt::{At as _, LOOPBACK, Outcome, Scene, Stop, launcher, tcp, udp, v4},
    policies::NETWORK,
    vector::{Control, Evidence, Layer, Vector},
};

const fn vector(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, NETWORK, attempt).control(Control::StandIn).stopped_by(Layer::Landlock)
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    vector("kill", "kills it, and goes on", |s| survive(s, |it| kill(it, Signal::SIGKILL).at("kill"))),
    vector("kill-by-pidfd", "kills it by a descriptor of it", |s| {
        survive(s, |it| {
            let pidfd = open_by(Call::PidfdOpen, [it.as_raw().into(), 0, 0]).at("pidfd_open")?;
            send_signal(&pidfd, Signal::SIGKILL).at("pidfd_send_signal")
        })
    }),
    vector("crash", "has it crash", |s| survive(s, |it| kill(it, Signal::SIGABRT).at("kill"))),
    vector("stop", "stops it, and goes on", |s| {
        let it = launcher();
        kill(it, Signal::SIGSTOP).at("kill")?;
        let told = s.tell();
        let _ = kill(it, Signal::SIGCONT);
        told
    }),
    vector("trace", "traces it", |_| {
        ptrace::seize(launcher(), ptrace::Options::empty()).at("ptrace").map(|()| Vec::new())
    })
    .seen_by(Evidence::Word),
    vector("memory", "reads its memory", |_| memory()).seen_by(Evidence::Word),
    vector("descriptors", "takes its descriptors (pidfd_getfd)", |_| {
        let pidfd = open_by(Call::PidfdOpen, [launcher().as_raw().into(), 0, 0]).at("pidfd_open")?;
        call(Call::PidfdGetfd, [pidfd.as_raw_fd().into(), 0, 0]).at("pidfd_getfd").map(|_| Vec::new())
    })
    .seen_by(Evidence::Word),
    vector("files", "looks at its descriptors (/proc/PID/fd)", |_| {
        let mut fds = fs::read_dir(format!("/proc/{}/fd", launcher())).at("opendir")?;
        let first = fds.find_map(Result::ok).ok_or_else(|| Stop::because("no descriptor is shown"))?;
        fs::read_link(first.path()).at("readlink").map(|_| Vec::new())
    })
    .seen_by(Evidence::Word),
    vector("limit", "sets its limits (prlimit)", |_| keep_limit(launcher()).at("prlimit").map(|_| Vec::new()))
        .seen_by(Evidence::Word)
        .stopped_by(Layer::Seccomp)
        .unless(Part::Signals),
    vector("idle", "lets it run only when nobody else does (SCHED_IDLE)", |_| {
        set_idle(launcher()).at("sched_setscheduler").map(|()| Vec::new())
    })
    .seen_by(Evidence::Word)
    .stopped_by(Layer::Capabilities),
    vector("idle-by-attributes", "the same by the newer call (sched_setattr)", |_| {
        set_idle_by_attributes(launcher()).at("sched_setattr").map(|()| Vec::new())
    })
    .seen_by(Evidence::Word)
    .stopped_by(Layer::Capabilities),
    vector("nice", "gives it the lowest priority", |_| {
        call(Call::Setpriority, [0, launcher().as_raw().into(), 19]).at("setpriority").map(|_| Vec::new())
    })
    .seen_by(Evidence::Word)
    .stopped_by(Layer::Capabilities),
    vector("nice-group", "gives the process group that it shares with it another priority", |_| {
        const GROUP: i64 = 1;
        let before = nice(launcher())?;
        // Another one, in any case.
        let priority = if before == "19" { 18 } else { 19 };
        call(Call::Setpriority, [GROUP, 0, priority]).at("setpriority")?;
        if nice(launcher())? == before {
            Err(Stop::because("only its own priority is changed"))
        } else {
            Ok(Vec::new())
        }
    })
    .seen_by(Evidence::Word)
    .stopped_by(Layer::Capabilities),
    vector("disk-priority", "gives it the lowest priority for disks", |_| {
        const PROCESS: i64 = 1;
        const IDLE: i64 = 3 << 13;
        let it = launcher().as_raw().into();
        call(Call::IoprioSet, [PROCESS, it, IDLE]).at("ioprio_set").map(|_| Vec::new())
    })
    .seen_by(Evidence::Word)
    .stopped_by(Layer::Capabilities),
    vector("processors", "says on which processors it may run", |_| {
        let allowed: CpuSet = sched_getaffinity(Pid::from_raw(0)).at("sched_getaffinity")?;
        sched_setaffinity(launcher(), &allowed).at("sched_setaffinity").map(|()| Vec::new())
    })
    .seen_by(Evidence::Word)
    .stopped_by(Layer::Capabilities),
    vector("memory-shortage", "has the kernel kill it first when memory is short (oom_score_adj)", |_| {
        let path = format!("/proc/{}/oom_score_adj", launcher());
        let value = fs::read(&path).at("read")?;
        OpenOptions::new().write(true).open(path).at("open")?.write_all(&value).at("write").map(|()| Vec::new())
    })
    .seen_by(Evidence::Word)
    .stopped_by(Layer::Mounts),
    vector("flood", "is denied so much that nobody could write it down, and goes on", |s| {
        let socket = udp(libc::AF_INET)?;
        for port in 10_000..30_000_u16 {
            if port != s.port {
                let _ = crate::sys::socket::connect(&socket, &v4([127, 9, 9, 9], port));
            }
        }
        s.tell()
    })
    .control(Control::Bare)
    .stopped_by(Layer::Hook),
    vector("daemon", "goes into the background, and lets its parent end", |s| {
        // The outcome is the grandchild's.
        if fork(0).at("fork")?.is_some() {
            exit_now(0);
        }
        setsid().at("setsid")?;
        if fork(0).at("fork")?.is_some() {
            exit_now(0);
        }
        std::thread::sleep(Duration::from_millis(20));
        s.tell()
    })
    .control(Control::Bare)
    .stopped_by(Layer::Hook),
    vector("thread", "has another thread do it", |s| {
        std::thread::scope(|scope| scope.spawn(|| s.tell_by(&tcp(libc::AF_INET, 0)?, &v4(LOOPBACK, s.port))).join())
            .unwrap_or_else(|_| Err(Stop::because("the thread panicked")))
    })
    .control(Control::Bare)
    .stopped_by(Layer::Hook),
];

/// Does away with the launcher. A child that outlives it tells those outside.
fn survive(scene: &Scene, end: impl FnOnce(Pid) -> Result<(), Stop>) -> Outcome {
    let it = launcher();
    let Some(child) = fork(0).at("fork")? else {
        setsid().at("setsid")?;
        let limit = Instant::now() + Duration::from_secs(2);
        while Instant::now() < limit && is_there(it) {
            std::thread::sleep(Duration::from_millis(2));
        }
        if is_there(it) {
            // It was not done away with; the parent says why.
            exit_now(0);
        }
        return scene.tell();
    };
    if let Err(stop) = end(it) {
        let _ = kill(child, Signal::SIGKILL);
        let _ = waitpid(child, None);
        return Err(stop);
    }
    let _ = waitpid(child, None);
    exit_now(0)
}

/// A process's nice value.
fn nice(process: Pid) -> Result<String, Stop> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).at("reading its priority")?;
    let nice = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(16));
    nice.map(ToOwned::to_owned).ok_or_else(|| Stop::because("its priority is not told"))
}

/// Whether a process runs, and is not only waited for.
fn is_there(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])))
}

/// Reads the first bytes of the launcher's first mapping.
fn memory() -> Outcome {
    use std::os::unix::fs::FileExt as _;
    let it = launcher();
    let maps = fs::read_to_string(format!("/proc/{it}/maps")).at("open maps")?;
    let start = maps.split('-').next().and_then(|start| u64::from_str_radix(start, 16).ok());
    let start = start.ok_or_else(|| Stop::because("no mappings"))?;
    let mut bytes = [0; 16];
    let file = fs::File::open(Path::new(&format!("/proc/{it}/mem"))).at("open mem")?;
    file.read_exact_at(&mut bytes, start).at("read")?;
    Ok(bytes.to_vec())
}
