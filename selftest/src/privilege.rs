//! Getting capabilities (back), and what can be done with them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::wait::waitpid,
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

use crate::sys::{
    Call, call, clone3, exit_now, fork, keep_host_name, keep_tick, offer_module, open_by, raise_capabilities,
    set_file_capability,
};

use super::{
    attempt::{At as _, Outcome, Scene, Stop, c_string, own_mounts},
    policies::NOTHING,
    vector::{Evidence, Layer, Vector},
};

const SYS_ADMIN: u32 = 21;
/// A group that nobody is in, so that nobody else can execute what it may.
const NOBODYS_GROUP: u32 = 0x5e1f_7e57;
const NOBODY: u32 = 65534;

const fn vector(name: &'static str, shows: &'static str, layer: Layer, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, NOTHING, attempt).seen_by(Evidence::Word).stopped_by(layer)
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    vector("user-namespace", "becomes root of a user namespace (unshare)", Layer::Seccomp, |_| {
        unshare(CloneFlags::CLONE_NEWUSER).at("unshare")?;
        holds(SYS_ADMIN)
    }),
    vector("user-namespace-clone", "has a child that is (clone)", Layer::Seccomp, |_| {
        child(fork(libc::CLONE_NEWUSER).at("clone")?)
    }),
    vector("user-namespace-clone3", "has a child that is (clone3)", Layer::Seccomp, |_| {
        child(clone3(u64::from(libc::CLONE_NEWUSER.cast_unsigned())).at("clone3")?)
    }),
    vector("other-namespaces", "makes namespaces (mount, network, IPC, pid)", Layer::Seccomp, |_| {
        let namespaces =
            CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWPID;
        unshare(namespaces).at("unshare").map(|()| Vec::new())
    }),
    vector("network-of-other", "joins the network namespace of a process outside", Layer::Seccomp, |s| {
        let pidfd = open_by(Call::PidfdOpen, [s.outsider()?.pid.into(), 0, 0]).at("pidfd_open")?;
        setns(pidfd, CloneFlags::CLONE_NEWNET).at("setns").map(|()| Vec::new())
    })
    .with_outsider(),
    vector("mount", "mounts a file system", Layer::Seccomp, |s| {
        own_mounts(s)?;
        mount(Some("none"), &s.work(), Some("tmpfs"), MsFlags::empty(), None::<&str>).at("mount").map(|()| Vec::new())
    }),
    vector("capset", "raises capabilities that were dropped", Layer::Capabilities, |_| {
        raise_capabilities(1 << SYS_ADMIN).at("capset")?;
        holds(SYS_ADMIN)
    }),
    vector("execve-as-root", "gets root's capabilities back by executing a program", Layer::Capabilities, |_| {
        shows(Command::new(CAT).arg(STATUS))
    }),
    vector("set-uid", "an ordinary user executes a set-uid program of root", Layer::NoNewPrivs, |s| {
        let program = program(s, |path| fs::set_permissions(path, fs::Permissions::from_mode(0o4710)).at("chmod"))?;
        become_nobody()?;
        shows(Command::new(program).arg(STATUS))
    }),
    vector("file-capabilities", "an ordinary user executes a program with capabilities", Layer::Capabilities, |s| {
        let program = program(s, |path| {
            set_file_capability(&c_string(path), SYS_ADMIN).at("setxattr")?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o710)).at("chmod")
        })?;
        become_nobody()?;
        shows(Command::new(program).arg(STATUS))
    }),
    vector("module", "offers the kernel a module", Layer::Capabilities, |_| match offer_module() {
        // The kernel has looked at what it was offered.
        Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => Ok(Vec::new()),
        other => other.at("init_module").map(|()| Vec::new()),
    }),
    vector("clock", "sets the clock's tick (to what it is)", Layer::Capabilities, |_| {
        keep_tick().at("adjtimex").map(|()| Vec::new())
    }),
    vector("host-name", "sets the host's name (to what it is)", Layer::Capabilities, |_| {
        keep_host_name().at("sethostname").map(|()| Vec::new())
    }),
    vector("ports", "asks for the machine's I/O ports (iopl)", Layer::Capabilities, |_| {
        call(Call::Iopl, [3, 0, 0]).at("iopl").map(|_| Vec::new())
    }),
];

/// Whether this process has a capability, as evidence.
pub(super) fn holds(bit: u32) -> Outcome {
    is_capable(&fs::read_to_string(STATUS).at("reading its capabilities")?, bit)
}

const CAT: &str = "/bin/cat";

/// Where a process finds its capabilities.
const STATUS: &str = "/proc/self/status";

/// Whether a process of such a status has a capability.
fn is_capable(status: &str, bit: u32) -> Outcome {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap_or_default();
    let effective = u64::from_str_radix(effective, 16).unwrap_or_default();
    if effective & 1 << bit == 0 { Err(Stop::because("without the capability")) } else { Ok(Vec::new()) }
}

/// Goes on in a child, if this is one.
fn child(child: Option<nix::unistd::Pid>) -> Outcome {
    match child {
        None => holds(SYS_ADMIN),
        Some(child) => {
            let _ = waitpid(child, None);
            exit_now(0)
        }
    }
}

/// Whether a command that prints its status has the capability.
fn shows(command: &mut Command) -> Outcome {
    let output = command.output().at("execve")?;
    is_capable(&String::from_utf8_lossy(&output.stdout), SYS_ADMIN)
}

/// A copy of a program that prints files, which only one group may execute, in the attempt's own folder. (guard-run itself gives
/// up at its start what it may have gained.)
fn program(scene: &Scene, mark: impl FnOnce(&Path) -> Result<(), Stop>) -> Result<PathBuf, Stop> {
    let program = scene.work().join("program");
    fs::copy(CAT, &program).at("copying a program")?;
    chown(&program, Some(0), Some(NOBODYS_GROUP)).at("chown")?;
    // After chown(2), which takes these away.
    mark(&program)?;
    for folder in [&scene.work(), &scene.folder] {
        chown(folder, None, Some(NOBODYS_GROUP)).at("chown")?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o710)).at("chmod")?;
    }
    Ok(program)
}

fn become_nobody() -> Result<(), Stop> {
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODYS_GROUP));
    setgroups(&[]).at("setgroups")?;
    setresgid(gid, gid, gid).at("setresgid")?;
    setresuid(uid, uid, uid).at("setresuid")
}
