//! Calls that fail for what keeps the command inside, though no filter refuses them: they are looked at before the kernel makes them,
//! to say by what they will be refused. Nothing is refused here, so a mistake costs an event and no more; what the arguments point to
//! may change after it was read.

use std::{
    fs,
    io::IoSliceMut,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use caps::Capability;
use enforce::{patience::ask_process, privilege, process::Status, sys::notify::Call};
use nix::{
    errno::Errno,
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};
use policy::{Part, ProcessSection};
use report::Refusal;

use super::{
    call::{Is, Look, Remedy, Rule, What},
    capability,
    filter::{NAMESPACES, NEWTIME, of_namespace},
    presence::may_signal,
};

/// `PTRACE_ATTACH` and `PTRACE_SEIZE`.
const TRACING: [u32; 2] = [libc::PTRACE_ATTACH, libc::PTRACE_SEIZE];

/// Lengths of addresses that are no Unix socket's with a path, in nearly all programs: IPv4's and IPv6's.
const OTHER_ADDRESSES: [u32; 2] = [16, 28];

/// Whose folder of sockets has an older name, which is a link: /var/run.
const OLD_RUN: (&str, &str) = ("/var/run", "/run");

/// What is looked at, if the command's process is root's or another user's. What takes a capability is of interest only for root's.
pub(super) fn looked_at(section: &ProcessSection) -> Vec<Rule> {
    let look = |number, name, look| Rule::new(number, name, What::Look(look));
    let mut rules = Vec::new();
    if !section.allows(Part::Signals) {
        let kill = look(libc::SYS_kill, "kill", Look::Signal);
        rules.push(kill.when(0, Is::Gt(0)).when(0, Is::Le(i32::MAX.cast_unsigned())).when(1, Is::Ne(0)));
    }
    if !section.allows(Part::Tracing) {
        rules.extend(TRACING.map(|request| look(libc::SYS_ptrace, "ptrace", Look::Trace(1)).when(0, Is::Eq(request))));
        rules.push(look(libc::SYS_process_vm_readv, "process_vm_readv", Look::Trace(0)));
        rules.push(look(libc::SYS_process_vm_writev, "process_vm_writev", Look::Trace(0)));
    }
    if !section.allows(Part::Delegation) {
        let connect = look(libc::SYS_connect, "connect", Look::Connect).when(2, Is::Gt(2));
        rules.push(OTHER_ADDRESSES.iter().fold(connect, |rule, length| rule.when(2, Is::Ne(*length))));
    }
    if privilege::is_root() {
        let is_wanting = |rule: &Rule| {
            let capability = match rule.what {
                What::Look(Look::Capability(capability, _)) => capability,
                _ => Capability::CAP_SYS_NICE,
            };
            !capability::is_kept(section, capability)
        };
        rules.extend(privileged().into_iter().filter(is_wanting));
    }
    rules
}

/// What takes a capability that a root command doesn't keep: as far as users miss it.
fn privileged() -> Vec<Rule> {
    use Capability::{
        CAP_MKNOD, CAP_NET_RAW, CAP_SYS_ADMIN, CAP_SYS_BOOT, CAP_SYS_MODULE, CAP_SYS_NICE, CAP_SYS_PACCT, CAP_SYS_TIME,
    };
    let takes =
        |number, name, capability| Rule::new(number, name, What::Look(Look::Capability(capability, Errno::EPERM)));
    let device = |rule: Rule, mode, kind: libc::mode_t| rule.when(mode, Is::Masked(libc::S_IFMT, kind));
    let mut rules = vec![
        Rule::new(libc::SYS_setpriority, "setpriority", What::Look(Look::Nice)).when(0, Is::Eq(0)),
        takes(libc::SYS_sethostname, "sethostname", CAP_SYS_ADMIN),
        takes(libc::SYS_setdomainname, "setdomainname", CAP_SYS_ADMIN),
        takes(libc::SYS_swapon, "swapon", CAP_SYS_ADMIN),
        takes(libc::SYS_swapoff, "swapoff", CAP_SYS_ADMIN),
        takes(libc::SYS_settimeofday, "settimeofday", CAP_SYS_TIME),
        takes(libc::SYS_clock_settime, "clock_settime", CAP_SYS_TIME),
        takes(libc::SYS_reboot, "reboot", CAP_SYS_BOOT),
        takes(libc::SYS_init_module, "init_module", CAP_SYS_MODULE),
        takes(libc::SYS_finit_module, "finit_module", CAP_SYS_MODULE),
        takes(libc::SYS_delete_module, "delete_module", CAP_SYS_MODULE),
        takes(libc::SYS_acct, "acct", CAP_SYS_PACCT),
    ];
    #[cfg(target_arch = "x86_64")]
    rules.extend(
        [(libc::SYS_iopl, "iopl"), (libc::SYS_ioperm, "ioperm")]
            .map(|(number, name)| takes(number, name, Capability::CAP_SYS_RAWIO)),
    );
    for family in [libc::AF_INET, libc::AF_INET6] {
        let raw = takes(libc::SYS_socket, "socket", CAP_NET_RAW).when(0, Is::Eq(family.cast_unsigned()));
        rules.push(raw.when(1, Is::Masked(0xf, libc::SOCK_RAW.cast_unsigned())));
    }
    for policy in [libc::SCHED_FIFO, libc::SCHED_RR] {
        let real_time = takes(libc::SYS_sched_setscheduler, "sched_setscheduler", CAP_SYS_NICE);
        rules.push(real_time.when(1, Is::Masked(7, policy.cast_unsigned())));
    }
    for kind in [libc::S_IFCHR, libc::S_IFBLK] {
        #[cfg(target_arch = "x86_64")]
        rules.push(device(takes(libc::SYS_mknod, "mknod", CAP_MKNOD), 1, kind));
        rules.push(device(takes(libc::SYS_mknodat, "mknodat", CAP_MKNOD), 2, kind));
    }
    rules
}

/// clone3(2) with namespaces among its flags, which audit mode lets go on. Otherwise it fails whatever they are, and programs fall back.
pub(super) fn namespaces(section: &ProcessSection) -> Option<Rule> {
    let rule = Rule::new(libc::SYS_clone3, "clone3", What::Look(Look::Namespaces));
    (!section.allows(Part::Namespaces)).then_some(rule)
}

/// A call that was refused, or would have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What it is called.
    pub name: &'static str,
    /// What it was about, where that is known.
    pub of: Option<String>,
    /// What refuses it: `seccomp`, `landlock`, `capabilities` or `mounts`.
    pub measure: &'static str,
    /// With which error.
    pub error: Errno,
    /// What would allow it.
    pub remedy: Remedy,
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let Refused { name, of, measure, error, remedy } = refused;
        let call = report::Call { name: name.into(), path: of, error: format!("{error:?}"), wants: remedy.short() };
        Self { call, measure: measure.into(), remedy: remedy.text() }
    }
}

/// What has to be known of a run to look at its calls.
#[derive(Debug)]
pub(super) struct Scene {
    /// The name of the leaf's folder: so processes inside are told from others.
    pub(super) leaf: String,
    /// The sockets that are covered, and the folders.
    pub(super) covered: Vec<(PathBuf, bool)>,
    /// Whether nothing is refused, so that the command has what it would not have.
    pub(super) audits: bool,
}

impl Scene {
    /// By what a call will be refused that a rule is about, if it will.
    pub(super) fn look(&self, call: &Call, name: &'static str, look: Look) -> Option<Refused> {
        let caller = Status::read(call.thread)?;
        let refused = |measure, error, remedy, of| Some(Refused { name, of, measure, error, remedy });
        match look {
            Look::Signal => {
                self.is_kept_from(&caller, call.int(0))?;
                refused("landlock", Errno::EPERM, Remedy::parts(&[Part::Signals]), None)
            }
            Look::Trace(argument) => {
                self.is_kept_from(&caller, call.int(argument))?;
                refused("landlock", Errno::EPERM, tracing(&caller), None)
            }
            Look::Connect => {
                let covered = self.covered(call)?;
                let error = if covered.1 { Errno::ENOENT } else { Errno::ECONNREFUSED };
                refused("mounts", error, Remedy::parts(&[Part::Delegation]), Some(covered.0))
            }
            Look::Capability(capability, error) => {
                self.is_wanting(&caller, capability)?;
                refused("capabilities", error, Remedy::capability(capability), None)
            }
            Look::Nice => {
                let who = if call.int(1) == 0 { call.thread } else { call.int(1).cast_unsigned() };
                let wanted = call.int(2).clamp(-20, 19);
                let is_granted = i64::from(20 - wanted) <= limit(call.thread, "Max nice priority")?;
                if wanted >= niceness(who)? || is_granted {
                    return None;
                }
                let capability = Capability::CAP_SYS_NICE;
                self.is_wanting(&caller, capability)?;
                refused("capabilities", Errno::EACCES, Remedy::capability(capability), None)
            }
            Look::Namespaces => {
                let flags = u64::from_ne_bytes(read(call, 0, 8)?.try_into().ok()?);
                let names = |namespace: &&libc::c_int| flags & u64::from(namespace.cast_unsigned()) != 0;
                let namespace = NAMESPACES.iter().chain([&NEWTIME]).find(names)?;
                refused("seccomp", Errno::EPERM, of_namespace(*namespace), None)
            }
        }
    }

    /// Finds out that a process is outside, and that the caller could send it signals if Landlock didn't keep it from that.
    fn is_kept_from(&self, caller: &Status, pid: i32) -> Option<()> {
        // In a pid namespace that was made inside, all are inside.
        let other = Status::read(pid.cast_unsigned()).filter(|_| caller.levels == 1)?;
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let own = Path::new(cgroups.lines().find_map(|line| line.strip_prefix("0::"))?);
        let is_inside = own.components().any(|part| part.as_os_str() == self.leaf.as_str());
        (!is_inside && may_signal(caller, &other)).then_some(())
    }

    /// Finds out that root's process has not a capability that it would have without the guard.
    fn is_wanting(&self, caller: &Status, capability: Capability) -> Option<()> {
        let has = caller.capabilities & capability.bitmask() != 0;
        (if self.audits { has } else { !has && caller.effective == 0 }).then_some(())
    }

    /// The covered socket that a connect(2) is about, as its path is spelled, and whether its folder is what is covered.
    fn covered(&self, call: &Call) -> Option<(String, bool)> {
        let length = usize::try_from(call.int(2)).ok()?.min(size_of::<libc::sockaddr_un>());
        let address = read(call, 1, length)?;
        let (family, path) = address.split_first_chunk()?;
        if i32::from(u16::from_ne_bytes(*family)) != libc::AF_UNIX {
            return None;
        }
        // A name that begins with a NUL is an abstract one.
        let path = path.split(|byte| *byte == 0).next().filter(|path| !path.is_empty())?;
        let process = |name: &str| fs::read_link(format!("/proc/{}/{name}", call.thread)).ok();
        if process("root")?.as_path() != Path::new("/") {
            return None;
        }
        let path = plain(&process("cwd")?.join(Path::new(std::ffi::OsStr::from_bytes(path))));
        let path = path.strip_prefix(OLD_RUN.0).map(|below| Path::new(OLD_RUN.1).join(below)).unwrap_or(path);
        let is_covered = |(covered, is_folder): &&(PathBuf, bool)| {
            if *is_folder { path.starts_with(covered) } else { path == *covered }
        };
        let (_, is_folder) = self.covered.iter().find(is_covered)?;
        Some((path.to_string_lossy().into_owned(), *is_folder))
    }
}

/// What allows a process to trace others outside. Those of root have capabilities that root's command hasn't, so that it takes another one
/// (`__ptrace_may_access` and `cap_ptrace_access_check` in the kernel's ptrace.c and commoncap.c).
fn tracing(caller: &Status) -> Remedy {
    let parts = Remedy::parts(&[Part::Tracing, Part::Signals, Part::AbstractSockets]);
    if caller.effective == 0 { parts.and(Capability::CAP_SYS_PTRACE) } else { parts }
}

/// A path without `.` and `..`. Links are left as they are: nobody's file system is asked here, since it may never answer.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

/// How long reading the caller's memory may take.
const READ: Duration = Duration::from_millis(200);

/// What is in the caller's memory at the address that an argument is. Who keeps this process waiting for it gets no answer that is worth
/// anything: the kernel makes the call anyway.
fn read(call: &Call, argument: usize, length: usize) -> Option<Vec<u8>> {
    let base = usize::try_from(call.arguments[argument]).ok()?;
    let thread = Pid::from_raw(call.thread.cast_signed());
    let read = ask_process(READ, move || {
        let mut bytes = vec![0; length];
        let there = [RemoteIoVec { base, len: length }];
        let read = process_vm_readv(thread, &mut [IoSliceMut::new(&mut bytes)], &there);
        (read == Ok(length)).then_some(bytes)
    });
    read.ok().flatten()
}

/// How nice a thread is (proc_pid_stat(5)).
fn niceness(thread: u32) -> Option<i32> {
    let text = fs::read(format!("/proc/{thread}/stat")).ok()?;
    // Field 19; the first one after the name is the third.
    String::from_utf8_lossy(&text).rsplit_once(')')?.1.split_whitespace().nth(16)?.parse().ok()
}

/// A limit of a thread's (proc_pid_limits(5)).
fn limit(thread: u32, name: &str) -> Option<i64> {
    let text = fs::read_to_string(format!("/proc/{thread}/limits")).ok()?;
    let soft = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next())?;
    if soft == "unlimited" { Some(i64::MAX) } else { soft.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_what_they_are_spelled() {
        for (spelled, expected) in
            [("/a/./b/../c", "/a/c"), ("/../a", "/a"), ("/a//b/", "/a/b"), ("/run/../var/run/x", "/var/run/x")]
        {
            assert_eq!(plain(Path::new(spelled)), Path::new(expected));
        }
    }

    #[test]
    fn what_is_known_of_this_process_is_found() {
        let own = std::process::id();
        assert!((-20..20).contains(&niceness(own).expect("it is there")));
        assert!(limit(own, "Max nice priority").expect("it is there") >= 0);
        assert_eq!((niceness(0), limit(own, "no such limit")), (None, None));
        let word = 0x1234_5678_9abc_def0_u64;
        let call = Call { id: 0, thread: own, number: 0, arguments: [&raw const word as u64, 0, 0, 0, 0, 0] };
        assert_eq!((read(&call, 0, 8), read(&call, 1, 8)), (Some(word.to_ne_bytes().to_vec()), None));
    }
}
