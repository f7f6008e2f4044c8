//! Calls that fail for what keeps the command inside, though no filter refuses them: they are looked at before the kernel makes them,
//! to say by what they will be refused. Nothing is refused here, so a mistake costs an event and no more; what the arguments point to
//! may change after it was read.

use std::{
    ffi::OsStr,
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
use policy::{Architecture, Part, ProcessSection};
use report::Refusal;

use super::{
    call::{Is, Look, Remedy, Rule, What, Whom, Word, Words},
    filter::{NAMESPACES, NEWTIME, of_namespace},
    known::{
        MOST_DESCRIPTORS, NUMBER_OF_FILES, all_processes, bound_sockets, hard_limit, has_socket, is_in_our_network,
        is_of_other_user, limit, most_files, niceness, processes, shown_abstract,
    },
    presence::may_signal,
    privileged,
};

/// `PTRACE_ATTACH` and `PTRACE_SEIZE`.
const TRACING: [u32; 2] = [libc::PTRACE_ATTACH, libc::PTRACE_SEIZE];

/// Lengths of addresses that are no Unix socket's with a path, in nearly all programs: IPv4's and IPv6's.
const OTHER_ADDRESSES: [u32; 2] = [16, 28];

/// Whose folder of sockets has an older name, which is a link: /var/run.
const OLD_RUN: (&str, &str) = ("/var/run", "/run");

/// The signal by which Go's runtime interrupts its own threads, a hundred times a second: each would wait for guard-run.
const INTERRUPTING: u32 = libc::SIGURG.cast_unsigned();

/// What is looked at, if the command's process is root's or another user's. What takes a capability is of interest only for root's. Connecting
/// is looked at where something is covered, or where Landlock keeps the command to its own Unix sockets.
pub(super) fn looked_at(section: &ProcessSection, keeps_sockets: bool) -> Vec<Rule> {
    let mut rules = Vec::new();
    if !section.allows(Part::Signals) {
        rules.extend(signalling());
    }
    if !section.allows(Part::Tracing) {
        rules.extend(tracing());
    }
    if !section.allows(Part::Delegation) || !section.allows(Part::AbstractSockets) || keeps_sockets {
        rules.extend(naming_sockets());
    }
    if privilege::is_root() {
        rules.extend(privileged::rules(section));
    }
    rules
}

fn look(number: libc::c_long, name: &'static str, look: Look) -> Rule {
    Rule::new(number, name, What::Look(look))
}

/// Naming a Unix socket as the peer, in registers.
fn naming_sockets() -> [Rule; 2] {
    [(libc::SYS_connect, "connect", 1), (libc::SYS_sendto, "sendto", 4)].map(|(number, name, address)| {
        let length = address + 1;
        let rule = look(number, name, Look::Peer(address.into())).when(length, Is::Gt(2));
        OTHER_ADDRESSES.iter().fold(rule, |rule, other| rule.when(length, Is::Ne(*other)))
    })
}

/// Sending a signal. The question whether a process is there, which is signal 0, is presence.rs's.
fn signalling() -> Vec<Rule> {
    let by_number = |number, name, process: u8, signal: u8| {
        let rule = look(number, name, Look::Signal(Whom::Number(process.into()))).when(signal, Is::Ne(0));
        rule.when(process, Is::Gt(0)).when(process, Is::Le(i32::MAX.cast_unsigned()))
    };
    // Of information that is not a process's own to give, the kernel lets nobody send any (`do_rt_sigqueueinfo`, kernel/signal.c): what it
    // came by (si_code) is a negative int.
    let own = |argument| Word { argument, offset: 8, mask: 1 << 31, is: Words::Of(&[1 << 31]) };
    vec![
        by_number(libc::SYS_kill, "kill", 0, 1),
        // But for -1, which is everybody, below 0 are groups.
        look(libc::SYS_kill, "kill", Look::Signal(Whom::Group(0)))
            .when(1, Is::Ne(0))
            .when(0, Is::Gt(i32::MIN.cast_unsigned()))
            .when(0, Is::Ne(u32::MAX)),
        by_number(libc::SYS_tkill, "tkill", 0, 1).when(1, Is::Ne(INTERRUPTING)),
        by_number(libc::SYS_tgkill, "tgkill", 1, 2).when(2, Is::Ne(INTERRUPTING)),
        by_number(libc::SYS_rt_sigqueueinfo, "rt_sigqueueinfo", 0, 1).reading(own(2)),
        by_number(libc::SYS_rt_tgsigqueueinfo, "rt_tgsigqueueinfo", 1, 2).reading(own(3)),
        look(libc::SYS_pidfd_send_signal, "pidfd_send_signal", Look::Signal(Whom::Descriptor(0))).when(1, Is::Ne(0)),
    ]
}

/// Tracing a process, and what else the kernel lets those do who may trace it.
fn tracing() -> Vec<Rule> {
    let trace = |number, name, whom| look(number, name, Look::Trace(whom, Errno::EPERM));
    let by_number = |number, name, argument| trace(number, name, Whom::Number(argument));
    let mut rules = vec![
        by_number(libc::SYS_process_vm_readv, "process_vm_readv", 0),
        by_number(libc::SYS_process_vm_writev, "process_vm_writev", 0),
        by_number(libc::SYS_kcmp, "kcmp", 0),
        by_number(libc::SYS_kcmp, "kcmp", 1),
        by_number(libc::SYS_move_pages, "move_pages", 0),
        by_number(libc::SYS_migrate_pages, "migrate_pages", 0),
        by_number(libc::SYS_get_robust_list, "get_robust_list", 0),
        trace(libc::SYS_pidfd_getfd, "pidfd_getfd", Whom::Descriptor(0)),
        look(libc::SYS_perf_event_open, "perf_event_open", Look::Trace(Whom::Number(1), Errno::EACCES))
            .when(1, Is::Gt(0))
            .when(1, Is::Le(i32::MAX.cast_unsigned())),
    ];
    rules.extend(TRACING.map(|request| by_number(libc::SYS_ptrace, "ptrace", 1).when(0, Is::Eq(request))));
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
    /// With which error. `None`: the process is ended by SIGSYS.
    pub error: Option<Errno>,
    /// What would allow it.
    pub remedy: Remedy,
}

impl Refused {
    /// A call of another architecture, of which nothing more is known.
    pub(super) const FOREIGN: Self = Self {
        name: "x86",
        of: None,
        measure: "seccomp",
        error: None,
        remedy: Remedy::architecture(Architecture::X86),
    };
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let Refused { name, of, measure, error, remedy } = refused;
        let error = error.map_or_else(|| "SIGSYS".to_owned(), |error| format!("{error:?}"));
        let call = report::Call { name: name.into(), path: of, error, wants: remedy.short() };
        Self { call, measure: measure.into(), remedy: remedy.text() }
    }
}

/// What has to be known of a run to look at its calls.
#[derive(Debug)]
pub(super) struct Scene {
    /// The name of the leaf's folder: so processes inside are told from others.
    pub(super) leaf: String,
    /// Whether Landlock keeps the command to its own Unix sockets.
    pub(super) keeps_sockets: bool,
    /// The sockets that are covered, and the folders.
    pub(super) covered: Vec<(PathBuf, bool)>,
    /// Whether nothing is refused, so that the command has what it would not have.
    pub(super) audits: bool,
    /// Whether the abstract sockets of others are out of reach.
    pub(super) keeps_abstract: bool,
    /// The capabilities that a root command keeps, as bits.
    pub(super) kept: u64,
}

impl Scene {
    /// By what a call will be refused that a rule is about, if it will.
    pub(super) fn look(&self, call: &Call, rule: &Rule) -> Option<Refused> {
        let What::Look(look) = rule.what else { return None };
        if let Some(word) = rule.word
            && !word.holds(read(call, word.argument, word.offset, 8)?.try_into().ok()?)
        {
            return None;
        }
        let (caller, name) = (Status::read(call.thread)?, rule.name);
        let refused = |measure, error, remedy, of| Some(Refused { name, of, measure, error: Some(error), remedy });
        match look {
            Look::Signal(whom) => {
                self.keeps_all(&caller, &processes(call, whom))?;
                refused("landlock", Errno::EPERM, Remedy::parts(&[Part::Signals]), None)
            }
            Look::Trace(whom, error) => {
                self.keeps_all(&caller, &processes(call, whom))?;
                refused("landlock", error, to_trace(&caller), None)
            }
            Look::Peer(address) => {
                let name = address_of(call, address)?;
                if let Some(name) = name.strip_prefix(b"\0") {
                    (self.keeps_abstract && caller.levels == 1).then_some(())?;
                    self.is_elsewhere(call, &shown_abstract(name))?;
                    let shown = format!("@{}", String::from_utf8_lossy(name));
                    return refused("landlock", Errno::EPERM, Remedy::parts(&[Part::AbstractSockets]), Some(shown));
                }
                let path = path_of(call, &name)?;
                let shown = Some(path.to_string_lossy().into_owned());
                if let Some(is_folder) = self.covers(&path) {
                    let error = if is_folder { Errno::ENOENT } else { Errno::ECONNREFUSED };
                    return refused("mounts", error, Remedy::parts(&[Part::Delegation]), shown);
                }
                self.keeps_sockets.then_some(())?;
                self.is_elsewhere(call, path.as_os_str().as_bytes())?;
                refused("landlock", Errno::EACCES, Remedy::unix(), shown)
            }
            Look::Capability(_, error) => refused("capabilities", error, self.wanting(&caller, rule)?, None),
            Look::Nice(whom) => {
                let error =
                    processes(call, whom).into_iter().find_map(|pid| self.not_nice(&caller, pid, call.int(2)))?;
                refused("capabilities", error, self.wanting(&caller, rule)?, None)
            }
            Look::Scheduling(whom) => {
                let read = |pid: i32| Status::read(pid.cast_unsigned());
                let others = processes(call, whom).into_iter().filter_map(read);
                others.into_iter().find(|other| is_of_other_user(&caller, other) || self.has_more(other))?;
                refused("capabilities", Errno::EPERM, self.wanting(&caller, rule)?, None)
            }
            Look::HardLimit(resource) => {
                let wanted = u64::from_ne_bytes(read(call, resource + 1, 8, 8)?.try_into().ok()?);
                let resource = call.int(resource);
                let is_beyond_all = resource == NUMBER_OF_FILES && wanted > most_files()?;
                if wanted <= hard_limit(call.thread, resource)? || is_beyond_all {
                    return None;
                }
                refused("capabilities", Errno::EPERM, self.wanting(&caller, rule)?, None)
            }
            Look::Lock(length) => {
                let limit = limit(call.thread, "Max locked memory")?;
                let locked = match length {
                    Some(length) => kibibytes(call.thread, "VmLck")?.saturating_add(call.arguments[length]),
                    None => kibibytes(call.thread, "VmSize")?,
                };
                if i64::try_from(locked).is_ok_and(|locked| locked <= limit) {
                    return None;
                }
                let error = if limit == 0 { Errno::EPERM } else { Errno::ENOMEM };
                refused("capabilities", error, self.wanting(&caller, rule)?, None)
            }
            Look::Namespaces => {
                let flags = u64::from_ne_bytes(read(call, 0, 0, 8)?.try_into().ok()?);
                let names = |namespace: &&libc::c_int| flags & u64::from(namespace.cast_unsigned()) != 0;
                let namespace = NAMESPACES.iter().chain([&NEWTIME]).find(names)?;
                refused("seccomp", Errno::EPERM, of_namespace(*namespace), None)
            }
        }
    }

    /// Whether a process is outside and has capabilities that none has inside, so that changing how it is scheduled takes one as well
    /// (`cap_safe_nice`, security/commoncap.c).
    fn has_more(&self, other: &Status) -> bool {
        other.permitted & !self.kept != 0 && self.is_inside(other.thread.cast_signed()) == Some(false)
    }

    /// With which error a process is not preferred to others as is wanted (`set_one_prio`, kernel/sys.c), if it is not.
    fn not_nice(&self, caller: &Status, pid: i32, wanted: i32) -> Option<Errno> {
        let (thread, wanted) = (pid.cast_unsigned(), wanted.clamp(-20, 19));
        let other = Status::read(thread)?;
        if is_of_other_user(caller, &other) {
            return Some(Errno::EPERM);
        }
        let is_granted = wanted >= niceness(thread)? || i64::from(20 - wanted) <= limit(thread, "Max nice priority")?;
        if !is_granted {
            return Some(Errno::EACCES);
        }
        self.has_more(&other).then_some(Errno::EPERM)
    }

    /// Finds out that all these processes are outside, and that the caller could send a signal to one if Landlock didn't keep it from that.
    fn keeps_all(&self, caller: &Status, pids: &[i32]) -> Option<()> {
        // What reaches one of a group has succeeded.
        let reaches_one = pids.len() > 1 && pids.iter().any(|pid| self.is_inside(*pid) == Some(true));
        (!reaches_one && pids.iter().any(|pid| self.keeps(caller, *pid).is_some())).then_some(())
    }

    /// Finds out that a process is outside, and that the caller could send it signals if Landlock didn't keep it from that.
    fn keeps(&self, caller: &Status, pid: i32) -> Option<()> {
        // In a pid namespace that was made inside, all are inside.
        let other = Status::read(pid.cast_unsigned()).filter(|_| caller.levels == 1)?;
        // Most signals to threads are for the own process (raise(3)).
        if other.process == caller.process {
            return None;
        }
        (!self.is_inside(pid)? && may_signal(caller, &other)).then_some(())
    }

    /// Whether a process is in the leaf, or in a cgroup that was made there.
    fn is_inside(&self, pid: i32) -> Option<bool> {
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let own = Path::new(cgroups.lines().find_map(|line| line.strip_prefix("0::"))?);
        Some(own.components().any(|part| part.as_os_str() == self.leaf.as_str()))
    }

    /// Finds out that a Unix socket was bound to this name, and that no process inside has one. (Landlock asks who has made it, which the kernel tells
    /// nobody.)
    fn is_elsewhere(&self, call: &Call, shown: &[u8]) -> Option<()> {
        let sockets = bound_sockets(shown).filter(|sockets| !sockets.is_empty() && is_in_our_network(call.thread))?;
        let mut room = MOST_DESCRIPTORS;
        for pid in all_processes()?.into_iter().filter(|pid| self.is_inside(*pid) == Some(true)) {
            // Where that can't be told, nothing is.
            if has_socket(pid, &sockets, &mut room)? {
                return None;
            }
        }
        Some(())
    }

    /// Finds out that root's process has none of the capabilities that a rule is about, and would have them without the guard; and which to
    /// name.
    fn wanting(&self, caller: &Status, rule: &Rule) -> Option<Remedy> {
        let capabilities = rule.what.takes();
        let has = capabilities.iter().any(|capability| caller.capabilities & capability.bitmask() != 0);
        let is_wanting = if self.audits { has } else { !has && caller.effective == 0 };
        capabilities.first().filter(|_| is_wanting).map(|capability| Remedy::capability(*capability))
    }

    /// Whether a socket's path is covered, and then, whether its folder is what is.
    fn covers(&self, path: &Path) -> Option<bool> {
        let is_covered = |(covered, is_folder): &&(PathBuf, bool)| {
            if *is_folder { path.starts_with(covered) } else { path == *covered }
        };
        self.covered.iter().find(is_covered).map(|(_, is_folder)| *is_folder)
    }
}

/// The path that a call names as a Unix socket's, as it is spelled.
fn path_of(call: &Call, name: &[u8]) -> Option<PathBuf> {
    let path = name.split(|byte| *byte == 0).next().filter(|path| !path.is_empty())?;
    let process = |name: &str| fs::read_link(format!("/proc/{}/{name}", call.thread)).ok();
    if process("root")?.as_path() != Path::new("/") {
        return None;
    }
    let path = plain(&process("cwd")?.join(Path::new(OsStr::from_bytes(path))));
    Some(path.strip_prefix(OLD_RUN.0).map(|below| Path::new(OLD_RUN.1).join(below)).unwrap_or(path))
}

/// What allows a process to trace others outside. Those of root have capabilities that root's command hasn't, so that it takes another one
/// (`__ptrace_may_access` and `cap_ptrace_access_check` in the kernel's ptrace.c and commoncap.c).
fn to_trace(caller: &Status) -> Remedy {
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

/// What is in the caller's memory so many bytes behind the address that an argument is. Who keeps this process waiting for it gets no answer that is worth
/// anything: the kernel makes the call anyway.
fn read(call: &Call, argument: usize, offset: u64, length: usize) -> Option<Vec<u8>> {
    let base = usize::try_from(call.arguments[argument].checked_add(offset)?).ok()?;
    let thread = Pid::from_raw(call.thread.cast_signed());
    let read = ask_process(READ, move || {
        let mut bytes = vec![0; length];
        let there = [RemoteIoVec { base, len: length }];
        let read = process_vm_readv(thread, &mut [IoSliceMut::new(&mut bytes)], &there);
        (read == Ok(length)).then_some(bytes)
    });
    read.ok().flatten()
}

/// The name of the Unix socket that an address is about: a path, or, after a NUL, an abstract name.
fn address_of(call: &Call, argument: usize) -> Option<Vec<u8>> {
    let length = usize::try_from(call.int(argument + 1)).ok()?.min(size_of::<libc::sockaddr_un>());
    let address = read(call, argument, 0, length)?;
    let (family, name) = address.split_first_chunk()?;
    (i32::from(u16::from_ne_bytes(*family)) == libc::AF_UNIX).then(|| name.to_owned())
}

/// Bytes of a thread's memory, by a field of its status that is in KiB (proc_pid_status(5)).
fn kibibytes(thread: u32, name: &str) -> Option<u64> {
    let text = fs::read(format!("/proc/{thread}/status")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let number: u64 = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().nth(1)?.parse().ok())?;
    number.checked_mul(1 << 10)
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
        assert!(kibibytes(own, "VmSize").expect("it is there") >= 1 << 20);
        assert_eq!(kibibytes(own, "VmNone"), None);
        let word = 0x1234_5678_9abc_def0_u64;
        let call = Call {
            id: 0,
            thread: own,
            number: 0,
            arguments: [&raw const word as u64, 0, 0, 0, 0, 0],
            is_foreign: false,
        };
        assert_eq!((read(&call, 0, 0, 8), read(&call, 1, 0, 8)), (Some(word.to_ne_bytes().to_vec()), None));
    }
}
