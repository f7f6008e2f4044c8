//! Ways to another cgroup. The programs are on the leaf: who leaves it is free.

use std::{
    fs::{self, File},
    io::Write as _,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use nix::{
    fcntl::{OFlag, open, openat},
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::{stat::Mode, wait::waitpid},
};

use crate::sys::{
    Call, clone_mount, exit_now, fork_into, handle_of, make_writable, mount_nowhere, open_by, open_by_handle,
};

use super::{
    attempt::{At as _, Outcome, Scene, Stop, c_string, own_mounts},
    policies::NETWORK,
    vector::{Control, Layer, Vector},
};

const PROCS: &str = "cgroup.procs";

const fn vector(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, NETWORK, attempt).control(Control::Guard).stopped_by(Layer::Mounts)
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    vector("top", "moves itself to the cgroup at the top", |s| leave_by(s, || enter(&s.hierarchy))),
    vector("sibling", "makes a cgroup beside its own, and moves there", |s| {
        leave_by(s, || {
            let sibling = s.hierarchy.join(format!("guard-selftest.{}", std::process::id()));
            fs::create_dir(&sibling).at("mkdir")?;
            let moved = enter(&sibling);
            let told = moved.and_then(|()| s.tell());
            // Back, so that the cgroup can be removed.
            let _ = enter(&s.hierarchy);
            let _ = fs::remove_dir(&sibling);
            told.map(drop)
        })
    }),
    vector("clone", "a child that is born in another cgroup (CLONE_INTO_CGROUP)", |s| {
        s.is_guarded()?;
        let top = OwnedFd::from(File::open(&s.hierarchy).at("open the top")?);
        match fork_into(&top).at("clone3")? {
            None => s.tell(),
            Some(child) => {
                let _ = waitpid(child, None);
                exit_now(0)
            }
        }
    })
    .stopped_by(Layer::Seccomp),
    vector("mount", "mounts the hierarchy anew", |s| {
        leave_by(s, || {
            own_mounts(s)?;
            mount(None::<&str>, &s.work(), Some("cgroup2"), MsFlags::empty(), None::<&str>).at("mount")?;
            enter(&s.work())
        })
    })
    .stopped_by(Layer::Seccomp),
    vector("mount-nowhere", "mounts the hierarchy anew, but nowhere (fsmount)", |s| {
        leave_by(s, || enter_at(&mount_nowhere(c"cgroup2").at("fsopen")?))
    })
    .stopped_by(Layer::Seccomp),
    vector("clone-mount", "copies the mount without what covers it (open_tree)", |s| {
        leave_by(s, || enter_at(&clone_mount(&c_string(&s.hierarchy)).at("open_tree")?))
    })
    .stopped_by(Layer::Seccomp),
    vector("remount", "makes the mount writable again", |s| {
        leave_by(s, || {
            own_mounts(s)?;
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
            mount(None::<&str>, &s.hierarchy, None::<&str>, flags, None::<&str>).at("remount")?;
            enter(&s.hierarchy)
        })
    })
    .stopped_by(Layer::Seccomp),
    vector("set-mount", "makes the mount writable again (mount_setattr)", |s| {
        leave_by(s, || {
            own_mounts(s)?;
            make_writable(&c_string(&s.hierarchy)).at("mount_setattr")?;
            enter(&s.hierarchy)
        })
    })
    .stopped_by(Layer::Seccomp),
    vector("unmount", "takes away a mount that covers the hierarchy", |s| {
        leave_by(s, || {
            own_mounts(s)?;
            // In the control there is nothing to take away, so something is put there before.
            if s.control.is_some() {
                mount(Some("none"), &s.hierarchy, Some("tmpfs"), MsFlags::empty(), None::<&str>).at("mount")?;
            }
            umount2(&s.hierarchy, MntFlags::MNT_DETACH).at("umount")?;
            enter(&s.hierarchy)
        })
    })
    .stopped_by(Layer::Seccomp),
    vector("bind", "mounts a part of the hierarchy elsewhere", |s| {
        leave_by(s, || {
            own_mounts(s)?;
            mount(Some(&s.hierarchy), &s.work(), None::<&str>, MsFlags::MS_BIND, None::<&str>).at("mount")?;
            enter(&s.work())
        })
    })
    .stopped_by(Layer::Seccomp),
    vector("handle", "opens the top by its file handle", |s| {
        leave_by(s, || {
            let (kind, mut handle) = handle_of(&c_string(&s.hierarchy)).at("name_to_handle_at")?;
            // The top is number 1, whatever is shown at the mount point.
            handle[..8].copy_from_slice(&1_u64.to_ne_bytes());
            let mount = File::open(&s.hierarchy).at("open")?;
            enter_at(
                &open_by_handle(&mount, kind, &handle, libc::O_RDONLY | libc::O_DIRECTORY).at("open_by_handle_at")?,
            )
        })
    })
    .stopped_by(Layer::Seccomp),
    vector("root-of-other", "by the root folder of a process outside (/proc/PID/root)", |s| {
        leave_by(s, || {
            let root = format!("/proc/{}/root", s.outsider()?.pid);
            enter(&Path::new(&root).join(s.hierarchy.strip_prefix("/").unwrap_or(&s.hierarchy)))
        })
    })
    .with_outsider()
    .stopped_by(Layer::Landlock),
    vector("folder-of-other", "by the working folder of a process outside (/proc/PID/cwd)", |s| {
        leave_by(s, || enter(Path::new(&format!("/proc/{}/cwd", s.outsider()?.pid))))
    })
    .with_outsider()
    .stopped_by(Layer::Landlock),
    vector("file-of-other", "by an open cgroup.procs of a process outside (/proc/PID/fd)", |s| {
        leave_by(s, || {
            let other = s.outsider()?;
            fs::write(format!("/proc/{}/fd/{}", other.pid, other.procs), "0").at("write cgroup.procs")
        })
    })
    .with_outsider()
    .stopped_by(Layer::Landlock),
    vector("mounts-of-other", "joins the mount namespace of a process outside", |s| {
        leave_by(s, || {
            let pidfd = open_by(Call::PidfdOpen, [s.outsider()?.pid.into(), 0, 0]).at("pidfd_open")?;
            setns(pidfd, CloneFlags::CLONE_NEWNS).at("setns")?;
            enter(&s.hierarchy)
        })
    })
    .with_outsider()
    .stopped_by(Layer::Seccomp),
    vector("namespace-of-other", "joins the cgroup namespace of a process outside, and mounts", |s| {
        leave_by(s, || {
            let pidfd = open_by(Call::PidfdOpen, [s.outsider()?.pid.into(), 0, 0]).at("pidfd_open")?;
            setns(pidfd, CloneFlags::CLONE_NEWCGROUP).at("setns")?;
            own_mounts(s)?;
            mount(None::<&str>, &s.work(), Some("cgroup2"), MsFlags::empty(), None::<&str>).at("mount")?;
            enter(&s.work())
        })
    })
    .with_outsider()
    .stopped_by(Layer::Seccomp),
    vector("user-namespace", "mounts the hierarchy as root of a user namespace of its own", |s| {
        leave_by(s, || {
            let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).at("unshare")?;
            fs::write("/proc/self/setgroups", "deny").at("setgroups")?;
            fs::write("/proc/self/uid_map", format!("0 {uid} 1")).at("uid_map")?;
            fs::write("/proc/self/gid_map", format!("0 {gid} 1")).at("gid_map")?;
            let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(&s.hierarchy), &s.work(), None::<&str>, bind, None::<&str>).at("mount")?;
            enter(&s.work())
        })
    })
    .stopped_by(Layer::Seccomp),
    // A cgroup below the guard's own is guarded, too: here the control is a process that nobody guards.
    vector("below", "moves to a cgroup below its own, which must not free it", |s| {
        let cgroups = fs::read_to_string("/proc/self/cgroup").at("reading its cgroup")?;
        let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let shown = s.hierarchy.join(own);
        let own = if shown.is_dir() { shown } else { s.hierarchy.clone() };
        let below = own.join(format!("guard-selftest.{}", std::process::id()));
        fs::create_dir(&below).at("mkdir")?;
        let told = enter(&below).and_then(|()| s.tell());
        let _ = enter(&own);
        let _ = fs::remove_dir(&below);
        told
    })
    .control(Control::Bare),
];

/// Leaves by some way, and then tells those outside.
pub(super) fn leave_by(scene: &Scene, way: impl FnOnce() -> Result<(), Stop>) -> Outcome {
    scene.is_guarded()?;
    way()?;
    scene.tell()
}

fn enter(cgroup: &Path) -> Result<(), Stop> {
    fs::OpenOptions::new()
        .write(true)
        .open(cgroup.join(PROCS))
        .at("open cgroup.procs")?
        .write_all(b"0")
        .at("write cgroup.procs")
}

fn enter_at(folder: &OwnedFd) -> Result<(), Stop> {
    let file = openat(folder, PROCS, OFlag::O_WRONLY, Mode::empty()).at("open cgroup.procs")?;
    File::from(file).write_all(b"0").at("write cgroup.procs")
}

/// The folder of the control's cgroup, or of the cgroup that is shown in its place.
pub(super) fn own_folder(scene: &Scene) -> Result<OwnedFd, Stop> {
    let shown = scene.control.clone().unwrap_or_else(|| {
        let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().to_owned();
        scene.hierarchy.join(own)
    });
    let fd =
        open(&shown, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).at("open its cgroup")?;
    debug_assert!(fd.as_raw_fd() >= 0);
    Ok(fd)
}
