//! What keeps the command inside beside the programs on its cgroup: everything by which it could get out of the
//! cgroup, take the programs off it, or have somebody else do what it may not.
//!
//! What the kernel has to have is found out before anything is created ([`Hardening::new`]). Then the command's process takes the
//! steps one by one, first those that need nothing more to be known; meanwhile, guard-run looks what else there is to be kept
//! from ([`Hardening::look`]). The process is not the command unless all steps succeed.

mod allowed;
mod call;
mod capability;
mod cover;
mod delegation;
mod filter;
mod handed;
mod helper;
mod known;
mod limits;
mod listen;
mod look;
mod needs;
pub mod nested;
mod packets;
mod place;
mod presence;
mod privileged;
mod scope;
mod services;
mod theirs;
mod view;
mod walk;

use std::{
    borrow::Cow,
    io,
    os::{
        fd::{OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{errno::Errno, sys::prctl, unistd::Pid};
use report::InForce;

pub use call::Remedy;
pub(crate) use capability::is_kept;
pub use listen::{Attendant, Calls};
pub use look::Refused;
pub use needs::{Unmet, unmet};
pub(crate) use privileged::restricts_log;
pub(crate) use scope::no_socket_domain;
pub(crate) use services::RESOLVERS;
pub use view::View;

use crate::user::Identity;
use delegation::{Covers, Doors};
use enforce::{
    mounts::Mount,
    patience::Patience,
    privilege::{self, Operation, Rights},
    sys::confine::{close_on_exec_from, install_filter},
};
use filter::Filters;
use handed::Handed;
use limits::Limits;
use packets::Hidden;
use policy::{
    Isolation, Mode, NetSection, Part, Policy, ProcessSection, Section, UnixRule,
    compile::{OwnAlone, Tables},
};
use report::Inherited;
use scope::Scope;

/// Why a command can't be kept inside on this machine.
#[derive(Debug, thiserror::Error)]
pub enum HardenError {
    /// The kernel can't confine what a process does to others.
    #[error(
        "this kernel (Linux {release}) can't keep the command from {}: {why}. To go without, say so in the policy: \
         \"process\": {{\"allow\": {}}}",
        what.join(" and from "),
        serde_json::to_string(parts).unwrap_or_default()
    )]
    Scope {
        /// What can't be prevented.
        what: Vec<&'static str>,
        /// The parts to be named, with those that are.
        parts: Vec<Part>,
        /// The kernel's release.
        release: String,
        /// What is in the way.
        why: String,
    },
    /// Neither programs nor a Landlock domain can keep the command to its own Unix sockets.
    #[error("{missing}; nor can a Landlock domain do it: {why}")]
    Sockets {
        /// Why there are no programs for it.
        missing: String,
        /// What is in the way of a domain.
        why: String,
    },
    /// Whether something was denied can't be told.
    #[error(
        "--fail-on-deny can't tell what is denied of Unix sockets: this kernel has no BPF LSM, so a Landlock domain keeps the command to its \
         own, and reports nothing. To go without, say so at the end of the unix section's rules: {{\"action\": \"deny\", \"report\": false}}"
    )]
    Unreported,
    /// The sockets of services can't be looked for.
    #[error("can't look for sockets of services that run commands for others")]
    Look(#[source] Errno),
    /// A file system in which they may be doesn't answer.
    #[error(
        "can't look for sockets of services that run commands for others: one of these file systems doesn't answer: {}. \
         Unmount it, or unset what names a file on it (DBUS_SESSION_BUS_ADDRESS, TMUX, DOCKER_HOST, XDG_RUNTIME_DIR …)",
        points.iter().map(|point| point.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    Silent {
        /// Where those are mounted that may not.
        points: Vec<PathBuf>,
        /// `TimedOut`; or there was no room for a thread.
        source: io::Error,
    },
    /// A file system of the kernel's is in one that another user answers for.
    #[error("{} is in a FUSE file system of another user than root, who may not answer: unmount it", .0.display())]
    InFuse(PathBuf),
    /// By the working folder, the command would reach what it is not to see.
    #[error(
        "the working folder is {0}, by which the command would reach what it is not to see: start guard-run in another one (cd /)"
    )]
    WorkingFolder(&'static str),
    /// The device nodes can't be listed.
    #[error("can't look for device nodes by which packets leave without a socket")]
    Nodes(#[source] io::Error),
    /// There is nothing to cover sockets with.
    #[error(
        "there is no {} here, which is mounted over sockets of services that run commands for others; \
         make one (mknod -m 666 {0} c 1 3), or mount a /dev that has one",
        view::NO_FILE
    )]
    NoFile,
    /// A standard stream is a socket for which no rule holds.
    #[error(
        "{0}; no rule of a policy holds for a socket that was made outside: give the command a pipe instead, or say in the policy that \
         it may have it: \"process\": {{\"allow\": [\"inherited-sockets\"]}}"
    )]
    Inherited(Inherited),
    /// The filter of system calls can't be put together.
    #[error("the filter of system calls")]
    Filter(#[from] seccompiler::BackendError),
}

/// What a process does, with the rights that it has.
type Action = dyn Fn(&mut Rights) -> nix::Result<()>;

/// A thing that a process does before it is the command.
pub struct Step {
    /// What it is, for people, if it fails.
    pub what: Cow<'static, str>,
    /// What is done.
    pub run: Box<Action>,
}

impl Step {
    /// A step.
    pub fn new(what: impl Into<Cow<'static, str>>, run: impl Fn() -> nix::Result<()> + 'static) -> Self {
        Self::with_rights(what, move |_| run())
    }

    /// A step that raises some of the rights itself, or gives them up.
    pub fn with_rights(
        what: impl Into<Cow<'static, str>>,
        run: impl Fn(&mut Rights) -> nix::Result<()> + 'static,
    ) -> Self {
        Self { what: what.into(), run: Box::new(run) }
    }

    /// A step for which what an operation takes is in effect.
    fn raised(
        what: impl Into<Cow<'static, str>>,
        operation: Operation,
        run: impl Fn() -> nix::Result<()> + 'static,
    ) -> Self {
        Self::with_rights(what, move |rights| {
            let _raised = rights.raise(operation);
            run()
        })
    }
}

/// The first descriptor that is no standard stream.
const FIRST_DESCRIPTOR: RawFd = 3;

/// What keeps a command inside, ready to be applied.
pub struct Hardening {
    section: ProcessSection,
    /// Nothing is to be done: the policy says so, or only looks on.
    isolation: InForce,
    /// By whose rules services may be asked to act.
    unix: Option<Section<UnixRule>>,
    /// Whether nobody but nameservers may be asked for host names.
    keeps_resolvers: bool,
    /// Whether packets may leave only as rules on the network allow.
    judges_packets: bool,
    mounts: Vec<Mount>,
    scope: Option<Scope>,
    filters: Filters,
    /// Whether refusals are to be seen.
    observes: bool,
    /// The first descriptor that the command does not get; `None` if it gets all.
    first_closed: Option<RawFd>,
    /// The folders among those that it does get.
    folders: Vec<Handed>,
    /// The rules on Unix sockets, if it is Landlock that enforces them.
    by_landlock: Option<OwnAlone>,
}

/// The sockets of services, and the folders with such sockets, that a command can't reach under a policy on this machine, as
/// [`report::Hardening::covered`] has them. The command is this process's user's.
///
/// # Errors
///
/// When this process can't look.
pub fn covered(policy: &Policy) -> anyhow::Result<Vec<String>> {
    if policy.process.allows(Part::Delegation) {
        return Ok(Vec::new());
    }
    let mounts = Mount::all()?;
    let covers = services(None, &mounts, policy.unix.as_ref(), keeps_resolvers(policy))?;
    Ok(covers.found.iter().map(cover::Cover::name).collect())
}

/// Whether a policy has rules on host names.
fn has_names(policy: &Policy) -> bool {
    policy.network.as_ref().is_some_and(NetSection::has_names)
}

/// Whether services that are asked for host names in place of a nameserver are kept from the command: under rules on such names, and where no nameserver may
/// be asked for any name. They ask for whatever they are told, and names carry anything to anybody who owns them.
fn keeps_resolvers(policy: &Policy) -> bool {
    policy.network.as_ref().is_some_and(|network| network.has_names() || !network.lets_names_be_asked_for())
}

/// How long to look for sockets of services, where file systems may not answer. A network file system that slept takes some seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Finds the sockets of services, and the folders with such, that a command of this user's is kept from where this is mounted. Under
/// rules on host names, these are also the services that are asked for them.
fn services(
    user: Option<&Identity>,
    mounts: &[Mount],
    unix: Option<&Section<UnixRule>>,
    keeps_resolvers: bool,
) -> Result<Covers, HardenError> {
    let (user, unix, known) = (user.cloned(), unix.cloned(), mounts.to_vec());
    let found = Patience::with(mounts).ask(Some(PATIENCE), move || {
        delegation::find(&Doors::host(user.as_ref(), &known), unix.as_ref(), keeps_resolvers)
    });
    let silent = |source| {
        let silent = mounts.iter().filter(|mount| mount.may_be_silent());
        HardenError::Silent { points: silent.map(|mount| mount.point.clone()).collect(), source }
    };
    found.map_err(silent)?.map_err(HardenError::Look)
}

/// Why this machine can't enforce what a policy says of Unix sockets, if it is known to without trying.
#[must_use]
pub fn missing_here(policy: &Policy, tables: &Tables) -> Option<String> {
    match scope::left_to_domain(policy, tables) {
        Ok(Some(_)) => None,
        Ok(None) => enforce::load::missing_here(tables),
        Err(error) => Some(error.to_string()),
    }
}

impl Hardening {
    /// Finds out what is to be done for a policy on this machine, where this is mounted. The command gets this many
    /// descriptors beside the standard streams. In audit mode, and to diagnose, refusals are observed. Where it takes a Landlock domain to
    /// keep the command to its own Unix sockets, that is left to it, and the tables need no programs for it any more.
    ///
    /// # Errors
    ///
    /// When the kernel lacks something that the policy does not name.
    pub fn new(
        policy: &Policy,
        tables: &mut Tables,
        preserved: u16,
        mounts: Vec<Mount>,
        diagnose: bool,
    ) -> Result<Self, HardenError> {
        let by_landlock = scope::left_to_domain(policy, tables)?;
        let section = policy.process.clone();
        let isolation = match (section.isolation, policy.mode) {
            (Isolation::CgroupOnly, _) => InForce::CgroupOnly,
            (_, Mode::Audit) => InForce::Audit,
            (Isolation::Full, Mode::Enforce) => InForce::Full,
        };
        let full = isolation == InForce::Full;
        let first_closed = full.then_some(FIRST_DESCRIPTOR + RawFd::from(preserved));
        let mut looked_at = look::looked_at(&section, by_landlock.is_some());
        let filters = match isolation {
            InForce::Full if diagnose => {
                looked_at.extend(filter::presence(&section));
                Filters::diagnosing(&section, looked_at)?
            }
            InForce::Full => Filters::new(&section)?,
            InForce::Audit => {
                looked_at.extend(look::namespaces(&section));
                Filters::auditing(&section, looked_at)?
            }
            InForce::CgroupOnly => Filters::default(),
        };
        let scope = if full { Scope::new(&section, by_landlock.is_some())? } else { None };
        if let Some(unix) = tables.unix.as_mut().filter(|_| by_landlock.is_some()) {
            unix.leave_to_domain();
        }
        Ok(Self {
            scope,
            filters,
            observes: full && diagnose || isolation == InForce::Audit,
            first_closed,
            // While there are none of this program's own.
            folders: first_closed.map_or_else(Vec::new, Handed::all),
            unix: policy.unix.clone(),
            keeps_resolvers: keeps_resolvers(policy),
            judges_packets: policy.network.is_some() && !section.configures_network(),
            mounts,
            section,
            isolation,
            by_landlock,
        })
    }

    /// Makes sure that all is reported that the rules deny and report.
    ///
    /// # Errors
    ///
    /// When Landlock enforces some of them, which reports nothing.
    pub fn can_report(&self) -> Result<(), HardenError> {
        if self.by_landlock.is_some_and(|rules| rules.reports) { Err(HardenError::Unreported) } else { Ok(()) }
    }

    /// Whether refusals are to be seen, if there is a listener to be had.
    #[must_use]
    pub const fn observes(&self) -> bool {
        self.observes
    }

    /// Makes sure that the command is handed nothing, among what this process has, by which it could do what the rules deny. In audit
    /// mode it may be; then this returns why it would not be.
    ///
    /// # Errors
    ///
    /// When it would be.
    pub fn accepts(&self, inherited: &[Inherited]) -> Result<Option<HardenError>, HardenError> {
        let refused = inherited.iter().find(|inherited| inherited.is_network_stream());
        let refused = refused.filter(|_| !self.section.allows(Part::InheritedSockets));
        match refused.map(|refused| HardenError::Inherited(refused.clone())) {
            Some(error) if self.isolation == InForce::Full => Err(error),
            audited => Ok(audited),
        }
    }

    /// Looks for what a command in this leaf is to be kept from, this process among it. The command is this user's, or
    /// guard-run's own.
    ///
    /// # Errors
    ///
    /// When this process can't look for sockets of services.
    pub fn look(&self, leaf: &Path, user: Option<&Identity>) -> Result<View, HardenError> {
        if self.isolation == InForce::CgroupOnly {
            return Ok(View::default());
        }
        let covers = if self.section.allows(Part::Delegation) {
            Ok(Covers::default())
        } else {
            services(user, &self.mounts, self.unix.as_ref(), self.keeps_resolvers)
        };
        if self.isolation == InForce::Audit {
            // Nothing is covered, so that it is no obstacle if nobody can look for it.
            return Ok(View::covering_nothing_but(covers.unwrap_or_default()));
        }
        let covers = covers?;
        if let Some(mount) = view::unreachable(&self.mounts) {
            return Err(HardenError::InFuse(mount.point.clone()));
        }
        if covers.found.iter().any(|cover| !cover.is_folder()) && !Path::new(view::NO_FILE).exists() {
            return Err(HardenError::NoFile);
        }
        let helpers = if self.section.allows(Part::KernelHelpers) { Vec::new() } else { helper::places() };
        let hidden = if self.judges_packets { packets::find().map_err(HardenError::Nodes)? } else { Hidden::default() };
        let may_be_root = privilege::is_root()
            && (user.is_none_or(|user| user.uid.is_root()) || self.section.allows(Part::Privileges));
        let view = View::new(&self.section, &self.mounts, Pid::this(), covers, may_be_root);
        self.check_working_folder(&view)?;
        Ok(view.pinning(helpers).hiding(hidden).showing(Limits::find(&self.mounts, leaf)))
    }

    /// Makes sure that the working folder is in a mount that the command will have in its own mount namespace. Of any other one, nothing is hidden
    /// or made read-only: one of another namespace, which /proc/PID/root and descriptors lead to, or one that was unmounted.
    fn check_working_folder(&self, view: &View) -> Result<(), HardenError> {
        let mount = theirs::mount_of_working_folder();
        if !self.mounts.iter().any(|mounted| Some(mounted.id) == mount) {
            return Err(HardenError::WorkingFolder("in no mount of this mount namespace"));
        }
        if mount.is_some_and(|mount| view.hides_parts_of(mount)) {
            return Err(HardenError::WorkingFolder(
                "in a file system of the kernel's that is mounted in a folder of others",
            ));
        }
        Ok(())
    }

    /// The folder in which the command can be shown files of its own, in its mount namespace. `None` where it has none, or there is no
    /// folder for that.
    #[must_use]
    pub fn free_folder(&self) -> Option<PathBuf> {
        if self.isolation != InForce::Full {
            return None;
        }
        view::free_folder(&self.section, &self.mounts).map(Path::to_owned)
    }

    /// Whether the command gets this descriptor, if guard-run has it and it is not closed on execution anyway.
    #[must_use]
    pub fn hands_on(&self, descriptor: RawFd) -> bool {
        self.first_closed.is_none_or(|first| descriptor < first)
    }

    /// Where the command's process hands over the calls that guard-run answers, and its end of that; `None` where there are none such.
    ///
    /// # Errors
    ///
    /// As socketpair(2).
    pub fn listening(&self) -> io::Result<Option<(Calls, UnixStream)>> {
        let Some((_, rules)) = &self.filters.asking else { return Ok(None) };
        let (socket, its) = UnixStream::pair()?;
        let (rules, audits) = (rules.clone(), self.isolation == InForce::Audit);
        let (keeps_abstract, keeps_sockets) = (!self.section.allows(Part::AbstractSockets), self.by_landlock.is_some());
        let kept = capability::kept_bits(&self.section);
        Ok(Some((Calls { socket, rules, audits, keeps_abstract, keeps_sockets, kept }, its)))
    }

    /// What the process does first.
    #[must_use]
    pub fn steps_at_once(&self) -> Vec<Step> {
        if self.isolation != InForce::Full {
            return Vec::new();
        }
        let mut steps: Vec<Step> = view::namespaces(&self.section).into();
        // An ordinary user's command has none anyway (Rights::renounce).
        if privilege::is_root() {
            steps.push(capability::bounding_step(&self.section));
        }
        steps
    }

    /// What it does then, as long as it is who guard-run is, being in this cgroup, of which this is the view. Through the socket,
    /// it hands over the calls that guard-run answers. `shown` is a mount, and where the command is to see it.
    #[must_use]
    pub fn steps_before_user(
        &self,
        view: &View,
        leaf: &Path,
        calls: Option<UnixStream>,
        shown: Option<(OwnedFd, &Path)>,
    ) -> Vec<Step> {
        let asking = self.filters.asking.clone().zip(calls).map(|((filter, _), calls)| {
            let otherwise = self.filters.otherwise.clone();
            Step::new("a filter of system calls that guard-run answers", move || {
                listen::install(&filter, &otherwise, &calls)
            })
        });
        if self.isolation != InForce::Full {
            return asking.into_iter().collect();
        }
        let mut steps = view.steps(leaf, &self.folders);
        steps.extend(shown.into_iter().flat_map(|(mount, place)| view::show(mount, place)));
        if !self.section.allows(Part::Privileges) {
            steps.push(Step::new("no_new_privs", prctl::set_no_new_privs));
        }
        steps.extend(self.scope.iter().map(Scope::step));
        // First, since one of the others refuses listeners.
        steps.extend(asking);
        let plain = self.filters.plain.iter().cloned();
        steps.extend(plain.map(|filter| Step::new("a filter of system calls", move || install_filter(&filter))));
        steps
    }

    /// What it does once it is who the command is to be.
    #[must_use]
    pub fn steps_after_user(&self) -> Vec<Step> {
        if self.isolation != InForce::Full {
            return Vec::new();
        }
        let mut steps = Vec::new();
        if privilege::is_root() {
            steps.push(capability::step(&self.section));
        }
        steps
            .extend(self.first_closed.map(|first| Step::new("closing descriptors", move || close_on_exec_from(first))));
        steps
    }

    /// For the log, with the sockets that the command was kept from, and the folders in which some may be left.
    #[must_use]
    pub fn report(&self, covered: Vec<String>, crowded: Vec<String>) -> report::Hardening {
        let full = self.isolation == InForce::Full;
        // An ordinary user's command can't gain privileges, whatever the policy says (privilege::begin).
        let always = |part| part == Part::Privileges && !privilege::is_root();
        let loosened = |part| !always(part) && (!full || self.section.allows(part));
        let (loosened, parts) = Part::ALL.iter().partition(|part| loosened(**part));
        report::Hardening {
            isolation: self.isolation,
            parts,
            loosened,
            capabilities: if full && privilege::is_root() { capability::names(&self.section) } else { Vec::new() },
            families: self.section.families.clone(),
            architectures: self.section.architectures.clone(),
            covered: if full { covered } else { Vec::new() },
            crowded,
            by_landlock: if self.by_landlock.is_some() { vec!["unix".into()] } else { Vec::new() },
            observed: None,
        }
    }
}
