//! The rights by which an ordinary user's guard-run can do its work: file capabilities (setcap(8)), of which each is in
//! effect only while it is used.
//!
//! User and group ids stay the user's; only while a leaf is made, what is made belongs to root. The effective set is empty, so the kernel opens
//! whatever the user names with the user's own rights; it is raised for one [`Operation`] at a time, and no operation reads or writes
//! anything that the user has named. For root, nothing of this changes anything.
//!
//! [`Rights`] is what a thread has; an operation borrows it for as long as its part is in effect.

use std::{cell::Cell, collections::BTreeSet, env, fmt, fs, marker::PhantomData, path::PathBuf, sync::LazyLock};

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use nix::{
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow},
        statvfs::FsFlags,
    },
    unistd::{ROOT, Uid, getegid, geteuid, getgid, getuid, setfsuid},
};

use crate::sys::confine::reduce_bounding_set;

/// Why this process can't have, or mustn't use, what it needs.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// This process would act for somebody else than its caller.
    #[error(
        "guard-run must not be set-user-ID or set-group-ID: it would open the caller's files with its owner's rights; \
         remove that, and see `guard-run doctor`: chmod ug-s {}",
        program().display()
    )]
    SetId,
    /// This process is not root, and has not all capabilities.
    #[error("needs root's rights, or {}: run guard-run as root, or have an administrator type: {}{}",
        Names(.missing), set_up(), .why.map(|why| format!("; {why}")).unwrap_or_default())]
    Missing {
        /// The capabilities that are missing.
        missing: Vec<Capability>,
        /// Why those that its file may have don't count.
        why: Option<&'static str>,
    },
    /// The kernel refuses to give something up.
    #[error("can't give up what is not needed")]
    GiveUp(#[from] CapsError),
    /// The kernel refuses to set no_new_privs or what else a process gives up by itself.
    #[error("can't give up what is not needed")]
    Process(#[from] nix::Error),
}

/// What takes more than an ordinary user's rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Making maps and loading programs.
    Load,
    /// Attaching programs to a leaf.
    Attach,
    /// Making a leaf of root's below the user's own cgroup.
    Make,
    /// Opening a leaf, being born in it, killing what is in it, and removing it.
    Leaf,
    /// Reading the environment that this process was started with.
    Environment,
    /// Namespaces of the command's own, and mounts in them.
    View,
    /// Taking from the command what it could gain.
    Bound,
}

impl Operation {
    /// All of them.
    const ALL: [Self; 7] =
        [Self::Load, Self::Attach, Self::Make, Self::Leaf, Self::Environment, Self::View, Self::Bound];

    /// What it takes.
    const fn capabilities(self) -> &'static [Capability] {
        match self {
            // The second for programs at hooks of the network and cgroups, the third for those that read the kernel's
            // memory, and for the verifier to treat them as it treats root's.
            Self::Load => &[Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON],
            // For filters of packets; the kernel asks for nothing more than a program to attach others.
            Self::Attach => &[Capability::CAP_NET_ADMIN],
            // The second for what is made to belong to root: whoever could write to a leaf's files could move other programs into it.
            Self::Make => &[Capability::CAP_DAC_OVERRIDE, Capability::CAP_SETUID],
            // A session's cgroup belongs to root. The file of the environment does, too, for a process like this.
            Self::Leaf | Self::Environment => &[Capability::CAP_DAC_OVERRIDE],
            Self::View => &[Capability::CAP_SYS_ADMIN],
            Self::Bound => &[Capability::CAP_SETPCAP],
        }
    }
}

/// What some operations take.
fn capabilities(operations: &[Operation]) -> CapsHashSet {
    operations.iter().flat_map(|operation| operation.capabilities()).copied().collect()
}

/// Whether guard-run was started by root, whose rights are not touched. Also in a process that is the command of another
/// user soon.
#[must_use]
pub fn is_root() -> bool {
    static STARTED_BY_ROOT: LazyLock<bool> = LazyLock::new(|| geteuid().is_root());
    *STARTED_BY_ROOT
}

/// What this thread may do beyond its user's rights, none of it in effect. There is one for a thread, since capabilities are a
/// thread's, so no two operations have their parts in effect at a time. Anybody who lends it to a function lets that raise them, and what
/// [`Rights::give_up`] has consumed raises nothing any more.
#[derive(Debug)]
pub struct Rights(PhantomData<*const ()>);

thread_local! {
    /// Whether this thread has its [`Rights`].
    static TAKEN: Cell<bool> = const { Cell::new(false) };
}

impl Drop for Rights {
    fn drop(&mut self) {
        TAKEN.set(false);
    }
}

/// Begins a program that may have file capabilities, before it does anything else: none is in effect, nobody can look
/// into the process, and nothing that it executes gains anything by that.
///
/// # Errors
///
/// When the program is set-user-ID or set-group-ID, or something can't be given up.
///
/// # Panics
///
/// When this thread has its rights already.
pub fn begin() -> Result<Rights, PrivilegeError> {
    assert!(!TAKEN.replace(true), "the rights of a thread are there once");
    let rights = Rights(PhantomData);
    if getuid() != geteuid() || getgid() != getegid() {
        return Err(PrivilegeError::SetId);
    }
    if is_root() || caps::read(None, CapSet::Permitted)?.is_empty() {
        return Ok(rights);
    }
    caps::clear(None, CapSet::Effective)?;
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    rights.keep(&Operation::ALL)?;
    // The kernel has done so already, unless fs.suid_dumpable says otherwise.
    prctl::set_dumpable(false)?;
    // Otherwise a set-user-ID program could be run under a policy that makes it fail where nobody has ever expected it to.
    prctl::set_no_new_privs()?;
    Ok(rights)
}

/// Makes sure that this process can have what a run needs.
///
/// # Errors
///
/// When it can't; it says what to type.
pub fn require() -> Result<(), PrivilegeError> {
    let mut permitted = caps::read(None, CapSet::Permitted)?;
    let why = if permitted.is_empty() { ineffective() } else { in_user_namespace() };
    if is_root() && why.is_none() {
        // What else may be in the way of root's shows when they are needed.
        return Ok(());
    }
    if why.is_some() {
        permitted.clear();
    }
    let mut missing: Vec<Capability> = capabilities(&Operation::ALL).difference(&permitted).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    missing.sort_unstable_by_key(Capability::index);
    Err(PrivilegeError::Missing { missing, why })
}

/// The initial user namespace (`PROC_USER_INIT_INO`, include/linux/proc_ns.h).
const INITIAL_USER_NAMESPACE: &str = "user:[4026531837]";

/// Why capabilities that the kernel does give there are worth nothing.
fn in_user_namespace() -> Option<&'static str> {
    let namespace = fs::read_link("/proc/self/ns/user").ok()?;
    let other = namespace.as_os_str() != INITIAL_USER_NAMESPACE;
    other.then_some("in a user namespace, capabilities count for nothing outside it")
}

/// Why a file's capabilities would not count for this process.
fn ineffective() -> Option<&'static str> {
    if prctl::get_no_new_privs().unwrap_or(false) {
        return Some(
            "where no_new_privs is set, as in a container or inside another guard, no file's capabilities count",
        );
    }
    let file_system = nix::sys::statvfs::statvfs(&program()).ok()?;
    let ignored = file_system.flags().contains(FsFlags::ST_NOSUID);
    ignored.then_some("its file system is mounted nosuid, so its capabilities don't count there")
}

/// Capabilities that are in effect for as long as this value lives.
#[must_use]
pub struct Raised<'a>(PhantomData<&'a mut Rights>);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        lower();
    }
}

/// Takes out of effect what this thread has in effect.
///
/// It can't say if that fails, which it does for nobody: every process may give up what it has in effect, and take its own id.
pub fn lower() {
    if !is_root() {
        own_files_as(geteuid());
        let _ = caps::clear(None, CapSet::Effective);
    }
}

/// Has what this thread makes belong to this user, if it may. Unless it does already, the kernel makes the process as dumpable as
/// fs.suid_dumpable says (`commit_creds`), so that is taken back; no signal ends the process with a core dump in between.
fn own_files_as(user: Uid) {
    let held = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    if setfsuid(user) != user {
        let _ = prctl::set_dumpable(false);
    }
    if let Ok(held) = held {
        let _ = held.thread_set_mask();
    }
}

/// Panics on request, for tests of what becomes of them. A build for anything but development has none of this: there, the environment
/// has no say in what a program with capabilities does.
#[cfg(debug_assertions)]
mod provoked {
    use std::{
        env, process,
        sync::{
            OnceLock,
            atomic::{AtomicU32, Ordering},
        },
    };

    /// At which of guard-run's raises, from 1.
    const AT: &str = "GUARD_RUN_PANIC_AT_RAISE";
    /// At which of those of the command's process, before it is the command.
    const AT_CHILDS: &str = "GUARD_RUN_PANIC_AT_CHILDS_RAISE";

    pub(super) fn panic_if_asked() {
        static FIRST: OnceLock<u32> = OnceLock::new();
        static COUNTS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
        let is_child = process::id() != *FIRST.get_or_init(process::id);
        let count = COUNTS[usize::from(is_child)].fetch_add(1, Ordering::Relaxed) + 1;
        let asked = env::var(if is_child { AT_CHILDS } else { AT }).is_ok_and(|at| at.parse() == Ok(count));
        assert!(!asked, "asked to at raise {count}");
    }
}

impl Rights {
    /// Puts into effect what an operation takes. What this process may not have stays out of effect: then the operation
    /// fails, and says so.
    pub fn raise(&mut self, operation: Operation) -> Raised<'_> {
        if !is_root() {
            let permitted = caps::read(None, CapSet::Permitted).unwrap_or_default();
            let raised: CapsHashSet = capabilities(&[operation]).intersection(&permitted).copied().collect();
            // As above: if it fails, the operation does.
            let _ = caps::set(None, CapSet::Effective, &raised);
            if operation == Operation::Make {
                own_files_as(ROOT);
            }
        }
        let raised = Raised(PhantomData);
        #[cfg(debug_assertions)]
        provoked::panic_if_asked();
        raised
    }

    /// Gives up for good all that these operations don't take.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn keep(&self, operations: &[Operation]) -> Result<(), PrivilegeError> {
        if is_root() {
            return Ok(());
        }
        let permitted = caps::read(None, CapSet::Permitted)?;
        let kept = capabilities(operations).intersection(&permitted).copied().collect();
        Ok(caps::set(None, CapSet::Permitted, &kept)?)
    }

    /// Gives up everything for good, also what could be gained: for an ordinary user's command, which must not have any more
    /// than its user. Anybody who has no capabilities anyway can't take the latter from themselves, and doesn't gain it either:
    /// [`begin`] has set `no_new_privs`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn renounce(&mut self) -> Result<(), PrivilegeError> {
        if is_root() {
            return Ok(());
        }
        if !caps::read(None, CapSet::Permitted)?.is_empty() {
            let _raised = self.raise(Operation::Bound);
            reduce_bounding_set(&BTreeSet::new())?;
        }
        caps::clear(None, CapSet::Ambient)?;
        caps::clear(None, CapSet::Inheritable)?;
        self.keep(&[])
    }

    /// Gives up all capabilities for good, before something is read that a user names and that no privilege is needed for. Root
    /// keeps one alone, by which it may read other users' files as it is used to.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn give_up(mut self) -> Result<(), PrivilegeError> {
        let permitted = caps::read(None, CapSet::Permitted)?;
        if permitted.is_empty() {
            return Ok(());
        }
        if !is_root() {
            return self.renounce();
        }
        let kept = [Capability::CAP_DAC_READ_SEARCH].into_iter().filter(|it| permitted.contains(it)).collect();
        caps::clear(None, CapSet::Ambient)?;
        caps::clear(None, CapSet::Inheritable)?;
        caps::set(None, CapSet::Effective, &kept)?;
        Ok(caps::set(None, CapSet::Permitted, &kept)?)
    }
}

/// What guard-run's file needs for ordinary users, as setcap(8) takes it. Permitted, not effective.
#[must_use]
pub fn file_capabilities() -> String {
    let mut needed: Vec<Capability> = capabilities(&Operation::ALL).into_iter().collect();
    needed.sort_unstable_by_key(Capability::index);
    format!("{}=p", Names(&needed).to_string().replace(", ", ","))
}

/// The command by which an administrator has this guard-run work for ordinary users.
#[must_use]
pub fn set_up() -> String {
    format!("sudo setcap {} {}", file_capabilities(), program().display())
}

/// This program's file.
fn program() -> PathBuf {
    env::current_exe().unwrap_or_else(|_| "guard-run".into())
}

/// Capabilities as setcap(8) and capabilities(7) write them.
struct Names<'a>(&'a [Capability]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, capability) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", capability.to_string().to_lowercase())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capabilities_are_those_that_administrators_are_told_of() {
        assert!(include_str!("../../Makefile").contains(&format!("FILE_CAPABILITIES = {}\n", file_capabilities())));
        for text in [include_str!("../../docs/tutorial.md"), include_str!("../../docs/guard-run.1.md")] {
            assert!(text.contains(&format!("setcap {} /", file_capabilities())));
        }
    }
}
