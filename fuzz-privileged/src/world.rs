//! Where the fuzzer works: file systems of its own over /tmp, /run, /etc, /var/log and /sys/fs/bpf, in a mount namespace of its
//! own, with an attacker's folders in some places and a victim's files in another. All of it goes away with the namespace.

use std::{
    collections::BTreeMap,
    fs::{self, File, Permissions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use nix::{
    mount::{MsFlags, mount},
    sys::stat::{Mode, SFlag, mknod},
};

use crate::{
    attacker::ATTACKER,
    probe::{Seen, look},
};

/// The fuzzer's own folder.
pub const OWN: &str = "/run/w";

/// The programs that are fuzzed.
pub const PROGRAMS: &str = "/run/w/bin";

/// What nobody but root may change: some of it nobody but root may even see.
pub const VICTIM: &str = "/run/w/victim";

/// The bundle of a container.
pub const BUNDLE: &str = "/run/w/container";
const CONFIGURATION: &str = r#"{"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"user": {"uid": 0, "gid": 0},
    "cwd": "/", "args": ["sleep"], "capabilities": {"bounding": [], "effective": [], "permitted": []}}}"#;

/// Where root has logs written to.
pub const OUT: &str = "/run/w/out";

/// A folder of the attacker's, as a container's volume is: root made it.
pub const VOLUME: &str = "/run/w/volume";

/// The attacker's home.
pub const HOME: &str = "/tmp/home";

/// Where the attacker's terminals are.
pub const TMUX: &str = "/tmp/tmux-54321";

/// The attacker's run-time folder.
pub const RUNTIME: &str = "/run/user/54321";

/// The policy of containers that name none.
pub const DEFAULT_POLICY: &str = "/etc/guard-run/default-policy.json";

/// What root settles for all containers: that logs may go to the attacker's volume, too, and that there is a runtime which only
/// notes what it reads.
const SETTINGS: &str = "/etc/guard-run/hook.json";
const SETTLED: &str = r#"{"version": 1, "logs": ["/var/log/guard-run", "/run/w/volume"], "runtimes": ["reader"]}"#;

/// A policy of root's that no container names.
pub const OTHER_POLICY: &str = "/etc/guard-run/open.json";

/// Where the logs of containers that name none go.
pub const LOGS: &str = "/var/log/guard-run";

/// The attacker's folders, and whether the attacker can put something else in the place of the folder itself.
pub const FOLDERS: [(&str, bool); 4] = [(TMUX, true), (HOME, true), (RUNTIME, false), (VOLUME, false)];

/// What can be read in the victim's private files.
pub const SECRET: &str = "the-victims-secret";

/// What policies here forbid to read.
pub const FORBIDDEN: &str = "/proc/sys/kernel/hostname";

/// Denies reading [`FORBIDDEN`].
const POLICY: &str = r#"{"version": 1, "sysctls": {"default": "allow", "rules": [{"action": "deny", "names": ["kernel/hostname"], "access": "r"}]}}"#;

/// What is denied by nobody but [`POLICY`].
const OPEN_POLICY: &str = r#"{"version": 1, "sysctls": {"default": "allow", "rules": [{"action": "deny", "names": ["kernel/domainname"], "access": "r"}]}}"#;

/// Names in the attacker's folders, which are also names of the victim's: so anybody who follows a link finds something.
const FILES: [&str; 9] =
    ["default", "bus", "podman.sock", "server", "log.json", "events.json", "policy.json", "file", "passwd"];

/// Makes the world in this process's mount namespace, which must be nobody else's. `own` is the folder of the fuzzer's program.
///
/// # Errors
///
/// When something can't be mounted.
pub fn make(programs: &Path, own: &Path) -> anyhow::Result<()> {
    let folders = [(programs, "bin"), (own, "fuzzer")].map(|(folder, name)| (File::open(folder), name));
    let tmpfs = |at: &str, options: &str| {
        mount(Some("none"), at, Some("tmpfs"), MsFlags::empty(), Some(options)).with_context(|| at.to_owned())
    };
    tmpfs("/run", "mode=755")?;
    tmpfs("/tmp", "mode=1777")?;
    tmpfs("/var/log", "mode=755")?;
    // What programs with root's rights are made to do must not reach the machine.
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context("making / read-only")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), flags, Some("mode=700")).context("/sys/fs/bpf")?;
    for folder in [OWN, OUT, "/run/etc", "/run/etc.work", "/run/user", "/run/lock"] {
        fs::create_dir_all(folder)?;
    }
    let options = "lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc.work";
    mount(Some("overlay"), "/etc", Some("overlay"), MsFlags::empty(), Some(options)).context("/etc")?;
    for (folder, name) in folders {
        let (folder, at) = (folder?, Path::new(OWN).join(name));
        fs::create_dir(&at)?;
        let from = format!("/proc/self/fd/{}", folder.as_raw_fd());
        mount(Some(from.as_str()), &at, None::<&str>, MsFlags::MS_BIND, None::<&str>).context("the programs")?;
    }
    fs::create_dir(BUNDLE)?;
    fs::write(Path::new(BUNDLE).join("config.json"), CONFIGURATION)?;
    // What guard-hook says to the kernel's log, nobody needs.
    mount(Some("/dev/null"), "/dev/kmsg", None::<&str>, MsFlags::MS_BIND, None::<&str>).context("/dev/kmsg")?;
    victim()
}

/// Makes the victim's files anew, the policies among them.
///
/// # Errors
///
/// When they can't be made.
pub fn victim() -> anyhow::Result<()> {
    let policies = Path::new(DEFAULT_POLICY).parent().unwrap_or(Path::new("/"));
    remove(policies)?;
    fs::create_dir(policies)?;
    for (file, text) in [(DEFAULT_POLICY, POLICY), (OTHER_POLICY, OPEN_POLICY), (SETTINGS, SETTLED)] {
        fs::write(file, text)?;
        fs::set_permissions(file, Permissions::from_mode(0o644))?;
    }
    let victim = Path::new(VICTIM);
    remove(victim)?;
    for folder in ["", "sub", "dir", "dir/inner", "podman", "emacs", "tmux-54321", "home"] {
        let folder = victim.join(folder);
        fs::create_dir(&folder)?;
        for (index, name) in FILES.into_iter().enumerate() {
            let file = folder.join(name);
            fs::write(&file, format!("{SECRET} {}\n", file.display()))?;
            fs::set_permissions(&file, Permissions::from_mode(if index % 2 == 0 { 0o644 } else { 0o600 }))?;
        }
    }
    fs::set_permissions(victim.join("dir"), Permissions::from_mode(0o700))?;
    let mode = Mode::from_bits_truncate(0o666);
    Ok(mknod(&victim.join("root.sock"), SFlag::S_IFSOCK, mode, 0)?)
}

/// Makes the attacker's folders anew, with sockets in them if that is wanted.
///
/// # Errors
///
/// When they can't be made.
pub fn attackers(with_sockets: bool) -> anyhow::Result<()> {
    for entry in fs::read_dir("/tmp")?.chain(fs::read_dir("/run/user")?) {
        remove(&entry?.path())?;
    }
    remove(Path::new(VOLUME))?;
    let folders = ["sub", "dir", "dir/inner"].map(|name| Path::new(HOME).join(name));
    let folders = [TMUX, HOME, VOLUME, RUNTIME].map(PathBuf::from).into_iter().chain(folders);
    let others = ["podman", "emacs"].map(|name| Path::new(RUNTIME).join(name));
    for folder in folders.chain(others).chain([Path::new(VOLUME).join("sub")]) {
        fs::create_dir(&folder)?;
        chown(&folder, Some(ATTACKER), Some(ATTACKER))?;
    }
    fs::set_permissions(TMUX, Permissions::from_mode(0o700))?;
    let sockets = [
        (TMUX, "default"),
        (HOME, "bus"),
        (RUNTIME, "bus"),
        (RUNTIME, "podman/podman.sock"),
        (RUNTIME, "emacs/server"),
    ];
    for (folder, name) in sockets.into_iter().filter(|_| with_sockets) {
        let socket = Path::new(folder).join(name);
        mknod(&socket, SFlag::S_IFSOCK, Mode::from_bits_truncate(0o600), 0)?;
        chown(&socket, Some(ATTACKER), Some(ATTACKER))?;
    }
    for (name, text) in [("sub/policy.json", POLICY), ("dir/file", "")] {
        let file = Path::new(HOME).join(name);
        fs::write(&file, text)?;
        chown(&file, Some(ATTACKER), Some(ATTACKER))?;
    }
    Ok(())
}

/// Removes a file, or a folder with all that is in it; nothing is fine.
///
/// # Errors
///
/// When it can't be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}

/// Where container runtimes note what they run.
const OF_RUNTIMES: [&str; 4] = ["/run/crun", "/run/runc", "/run/mount", "/run/containers"];

/// All that the attacker must not have changed, nor have had changed by others. What has been written to /etc is seen in the
/// upper layer of its overlay.
#[must_use]
pub fn snapshot() -> BTreeMap<PathBuf, Result<Seen, i32>> {
    let mut files = BTreeMap::new();
    for folder in [VICTIM, "/run/etc"] {
        look(Path::new(folder), &mut files);
    }
    // Of these, only what there is: they change with the attacker's own files.
    for folder in ["/tmp", "/run", OWN, "/var/log"] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let own = FOLDERS.iter().any(|(folder, _)| path.starts_with(folder));
            let aside = entry.file_name().to_string_lossy().starts_with(".former-");
            let expected = path == Path::new(LOGS) || OF_RUNTIMES.iter().any(|folder| path == Path::new(folder));
            if !own && !aside && !expected {
                files.insert(path, Err(0));
            }
        }
    }
    files
}

/// Removes what root's runs may leave behind: logs, and what is kept in the bpf file system for containers.
///
/// # Errors
///
/// When it can't be removed.
pub fn tidy() -> io::Result<()> {
    remove(Path::new(LOGS))?;
    remove(Path::new("/sys/fs/bpf/guard-run"))?;
    for entry in fs::read_dir(OUT)? {
        remove(&entry?.path())?;
    }
    Ok(())
}

/// What has changed between two snapshots, for people.
#[must_use]
pub fn differences(
    before: &BTreeMap<PathBuf, Result<Seen, i32>>,
    after: &BTreeMap<PathBuf, Result<Seen, i32>>,
) -> Vec<String> {
    let gone = before.keys().filter(|path| !after.contains_key(*path));
    let mut lines: Vec<String> = gone.map(|path| format!("{} was removed", path.display())).collect();
    for (path, now) in after {
        match before.get(path) {
            None => lines.push(format!("{} was created", path.display())),
            Some(was) if was != now => lines.push(format!("{} {}", path.display(), change(was, now))),
            Some(_) => {}
        }
    }
    lines
}

fn change(was: &Result<Seen, i32>, now: &Result<Seen, i32>) -> String {
    let (Ok(was), Ok(now)) = (was, now) else {
        let number = |seen: &Result<Seen, i32>| seen.as_ref().err().copied().unwrap_or_default();
        return format!("can be seen otherwise than before (error {} instead of {})", number(now), number(was));
    };
    let mut what = Vec::new();
    if was.file != now.file {
        what.push("is another file");
    }
    if was.mode != now.mode || was.owner != now.owner {
        what.push("has another type, mode or owner");
    }
    if was.content != now.content {
        what.push("has another content");
    }
    if what.is_empty() { "was changed and put back, or something in it was".to_owned() } else { what.join(" and ") }
}
