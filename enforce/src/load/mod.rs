//! From compiled tables to programs and maps in the kernel. Nothing is attached yet, and all of it goes away with this
//! process if nothing ever is, but for what is kept for the next run ([`CacheEntry`]).

mod btf;
mod cache;
mod denials;
mod flow;
mod hook;
mod image;
mod maps;
mod pin;
mod unix;

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    panic::resume_unwind,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use aya::maps::MapError;
use common::record::Hook;
use nix::{
    sched::{CpuSet, sched_getaffinity},
    sys::utsname::uname,
    unistd::Pid,
};
use sha2::Digest as _;

pub use btf::BtfError;
pub use cache::{CacheEntry, Removed, cache_is_there, clear_cache};
pub use denials::{Denials, Tallies, Visitor};
pub use flow::Flows;
pub use hook::{HookSpec, spec};
pub use image::{Image, LoadedImage, MapImage, PreparedProgram, ProgramImage, Variable};
pub use maps::{Learned, MapContent, Records, contents, globals, unused};
pub use pin::{Link, RecordMaps, pin_note, read_note};

use self::unix::{Facts, inactive_lsm, lsm_function};
use crate::{
    cgroup::Leaf,
    privilege::{Operation, Rights},
    sys::bpf,
};
use policy::compile::Tables;
use report::ProgramIdentity;

/// Which eBPF programs these are: the beginning of a hash of all of them, and whether they were compiled together with this crate.
pub const PROGRAMS: &str = env!("GUARD_RUN_PROGRAMS");

/// The eBPF programs.
#[allow(clippy::unreadable_literal)] // generated
static GUARD: Image = include!(concat!(env!("OUT_DIR"), "/guard.rs"));

/// The programs for policies with host names.
#[allow(clippy::unreadable_literal)] // generated
static NAMED: Image = include!(concat!(env!("OUT_DIR"), "/named.rs"));

/// The programs for policies that ask nothing of sockets but who made them ([`Tables::asks_only_who_made_a_socket`]): smaller, so that they
/// are verified sooner.
#[allow(clippy::unreadable_literal)] // generated
static PLAIN: Image = include!(concat!(env!("OUT_DIR"), "/plain.rs"));

/// Why programs could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Launcher and programs do not belong together: guard-run was built wrong.
    #[error("the eBPF programs have no {name}")]
    NotInImage {
        /// Name of the program, map or variable.
        name: &'static str,
    },
    /// This process may not use bpf(2).
    #[error(
        "not permitted to load eBPF programs: run guard-run as root (it needs CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and \
         CAP_SYS_ADMIN, also inside a container), or see `guard-run doctor`"
    )]
    NotPermitted,
    /// The kernel has no bpf(2).
    #[error("this kernel has no eBPF; it needs CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF")]
    NoBpf(#[source] io::Error),
    /// The kernel refuses a map.
    #[error("eBPF map {name}")]
    Map {
        /// The map's name.
        name: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// aya can't use a map.
    #[error("eBPF map {name}")]
    UnusableMap {
        /// The map's name.
        name: String,
        /// aya's reason.
        source: MapError,
    },
    /// The kernel knows no such hook.
    #[error(
        "this policy needs the {} hook, which Linux {release} does not have; the smallest kernel known to have it is {}",
        .hook.name(),
        spec(*.hook).since
    )]
    NoHook {
        /// The hook.
        hook: Hook,
        /// The kernel's release.
        release: String,
    },
    /// The kernel has no BPF LSM, or does not let it do anything.
    #[error(
        "this policy needs the {} hook of BPF LSM, which this kernel (Linux {release}) does not have to offer: {why}; \
         the smallest kernel known to have it is {}, with CONFIG_BPF_LSM and \"bpf\" in its lsm= list. {}",
        .hook.name(),
        spec(*.hook).since,
        "Without it, all paths of Unix sockets can only be allowed or denied alike, whoever has made them; or, in a Landlock domain (Linux 7.1), \
         the command's own alone be allowed"
    )]
    NoLsm {
        /// The hook.
        hook: Hook,
        /// The kernel's release.
        release: String,
        /// What is in the way.
        why: String,
    },
    /// Neither of two ways to enforce something is to be had.
    #[error("{first}; nor can it be done in another way: {second}")]
    Neither {
        /// Why not in the way that is tried first.
        first: Box<LoadError>,
        /// Why not in the other.
        second: Box<LoadError>,
    },
    /// The kernel doesn't say how its structures are laid out.
    #[error("this policy needs to know the kernel's types")]
    NoTypes(#[from] BtfError),
    /// The kernel refuses a program.
    #[error("eBPF program {name}: {error}{}", verifier_said(.log))]
    Program {
        /// The program's name.
        name: String,
        /// The kernel's reason. (Not as `source`: it stands before the verifier's explanation.)
        error: io::Error,
        /// The verifier's explanation, if it had one.
        log: String,
    },
}

impl LoadError {
    fn program(name: &str, source: io::Error, log: String) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM) if log.is_empty() => Self::NotPermitted,
            Some(libc::ENOSYS) => Self::NoBpf(source),
            _ => Self::Program { name: name.to_owned(), error: source, log },
        }
    }

    /// The error, when it is a program for this hook that could not be loaded: the kernel refuses a type of program, or
    /// a place to attach it, that it does not know with `EINVAL`, before its verifier has anything to say.
    fn at(self, hook: Hook) -> Self {
        match self {
            // With the privileges for any other program, only the kernel itself can be in the way of these.
            Self::NotPermitted if lsm_function(hook).is_some() => {
                Self::no_lsm(hook, "it does not permit such programs, or this process lacks CAP_PERFMON".to_owned())
            }
            Self::Program { error, log, .. } if error.raw_os_error() == Some(libc::EINVAL) && log.is_empty() => {
                Self::no_hook(hook)
            }
            error => error,
        }
    }

    fn no_hook(hook: Hook) -> Self {
        Self::NoHook { hook, release: release() }
    }

    fn no_lsm(hook: Hook, why: String) -> Self {
        Self::NoLsm { hook, release: release(), why }
    }

    /// Whether it is about a hook that this kernel lacks.
    fn is_missing_hook(&self) -> bool {
        matches!(self, Self::NoHook { .. } | Self::NoLsm { .. } | Self::NoTypes(BtfError::Missing(_)))
    }

    fn map(name: &str, error: MapError) -> Self {
        match error {
            MapError::CreateError { io_error, .. } => match io_error.raw_os_error() {
                Some(libc::EPERM) => Self::NotPermitted,
                Some(libc::ENOSYS) => Self::NoBpf(io_error),
                _ => Self::Map { name: name.to_owned(), source: io_error },
            },
            source => Self::UnusableMap { name: name.to_owned(), source },
        }
    }
}

fn release() -> String {
    uname().map(|kernel| kernel.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// What this machine lacks for rules that tell paths of Unix sockets apart, if it is known to without trying.
#[must_use]
pub fn missing_here(tables: &Tables) -> Option<String> {
    let hook = tables.hooks().into_iter().find(|hook| lsm_function(*hook).is_some())?;
    let why = inactive_lsm().filter(|_| tables.other_hooks().is_none())?;
    Some(LoadError::no_lsm(hook, why).to_string())
}

/// The end of the verifier's log, where its reason stands: nothing where the program was not at fault, and there are only its figures.
fn verifier_said(log: &str) -> String {
    let is_figures =
        |line: &&str| ["processed ", "verification time ", "stack depth "].iter().any(|start| line.starts_with(start));
    let lines: Vec<&str> = log.lines().filter(|line| !is_figures(line)).collect();
    let last = lines.len().saturating_sub(8);
    lines[last..].iter().fold(String::new(), |said, line| said + "; " + line.trim())
}

/// A program in the kernel, not attached to anything yet.
#[derive(Debug)]
pub struct LoadedProgram {
    /// Where it will be attached.
    pub hook: Hook,
    fd: OwnedFd,
}

impl LoadedProgram {
    fn load(hook: Hook, program: &PreparedProgram, facts: &Facts) -> Result<Self, LoadError> {
        let HookSpec { kind, attach_type, .. } = spec(hook);
        let fd = program.load_for(kind, Some(attach_type), facts.function(hook)).map_err(|error| error.at(hook))?;
        if let Some(why) = lsm_function(hook).and_then(|_| inactive_lsm()) {
            return Err(LoadError::no_lsm(hook, why));
        }
        Ok(Self { hook, fd })
    }

    /// Attaches the program to a cgroup, which owns it from then on.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn attach(&self, cgroup: &OwnedFd) -> io::Result<()> {
        bpf::attach(&self.fd, cgroup, spec(self.hook).attach_type)
    }

    /// Takes the program off a cgroup again that it was attached to so.
    ///
    /// # Errors
    ///
    /// When it isn't attached there (`ENOENT`), or the kernel refuses.
    pub fn detach(&self, cgroup: &OwnedFd) -> io::Result<()> {
        bpf::detach(&self.fd, cgroup, spec(self.hook).attach_type)
    }

    /// Attaches the program to a cgroup, and returns the ids of programs of ancestor cgroups that are not asked any more.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn attach_displacing(&self, cgroup: &OwnedFd) -> io::Result<Vec<u32>> {
        let attach = || self.attach(cgroup);
        bpf::displacing(cgroup, spec(self.hook).attach_type, attach).map(|((), displaced)| displaced)
    }

    /// What the kernel knows the program by.
    ///
    /// # Errors
    ///
    /// When the kernel doesn't say.
    pub fn identify(&self) -> io::Result<ProgramIdentity> {
        bpf::identify(self.fd.as_fd())
    }
}

/// All programs of a policy, in the kernel, and the maps of their records.
pub struct Loaded {
    /// One program for each hook.
    pub programs: Vec<LoadedProgram>,
    /// Where they leave their records. `None` where there are no programs.
    pub records: Option<Records>,
    /// Where they are kept for the next run.
    pub cache: Option<CacheEntry>,
}

impl Loaded {
    /// Loads the programs that these tables need, and no others.
    ///
    /// # Errors
    ///
    /// When this process may not, or the kernel can't.
    pub fn new(tables: &Tables, rights: &mut Rights) -> Result<Self, LoadError> {
        in_one_way_or_another(tables, |hooks| {
            Self::of(Fresh::at(tables, hooks, WORTH_A_THREAD_BESIDE_A_CHILD, rights)?)
        })
    }

    /// Takes programs for a leaf that an earlier run under the same policy has kept, or else loads new ones that will
    /// be kept ([`CacheEntry`]).
    ///
    /// # Errors
    ///
    /// As [`Loaded::new`].
    pub fn cached_or_new(tables: &Tables, leaf: &mut Leaf) -> Result<Self, LoadError> {
        in_one_way_or_another(tables, |hooks| {
            let facts = Facts::of(tables, hooks)?;
            let mut image = begin(tables, &facts)?;
            let name = name(&image, hooks, &facts);
            let cache = if hooks.is_empty() { None } else { CacheEntry::reserve(&mut image, &name, leaf) };
            if let Some(mut kept) = cache.as_ref().and_then(|cache| Self::of(cache.open(hooks)?).ok())
                && kept.forget().is_ok()
            {
                return Ok(Self { cache, ..kept });
            }
            let fresh = Fresh::load(image, hooks, &facts, WORTH_A_THREAD_BESIDE_A_CHILD, leaf.rights())?;
            let cache = cache.and_then(|cache| cache.expecting(&fresh.maps).ok());
            Ok(Self { cache, ..Self::of(fresh)? })
        })
    }

    fn of(Fresh { programs, maps }: Fresh) -> Result<Self, LoadError> {
        let records = if programs.is_empty() { None } else { Some(Records::of(maps)?) };
        Ok(Self { programs, records, cache: None })
    }

    /// Empties the records of an earlier run.
    fn forget(&mut self) -> Result<(), MapError> {
        self.records.iter_mut().try_for_each(Records::empty)
    }
}

/// The name of these programs: what goes into the kernel is the same if it is.
fn name(image: &LoadedImage, hooks: &[Hook], facts: &Facts) -> String {
    let mut digest = image.digest();
    for hook in hooks {
        digest.update([*hook as u8]);
        digest.update(facts.function(*hook).to_le_bytes());
    }
    format!("{:x}", digest.finalize())
}

/// Loads the programs at the hooks that these tables need, or, if this kernel lacks one, at others that do as well.
fn in_one_way_or_another<T>(
    tables: &Tables,
    mut load: impl FnMut(&[Hook]) -> Result<T, LoadError>,
) -> Result<T, LoadError> {
    match (load(&tables.hooks()), tables.other_hooks()) {
        (Err(first), Some(hooks)) if first.is_missing_hook() => {
            load(&hooks).map_err(|second| LoadError::Neither { first: Box::new(first), second: Box::new(second) })
        }
        (loaded, _) => loaded,
    }
}

/// All programs of a policy, in the kernel, and the maps of their records, which nobody reads yet.
pub struct Fresh {
    /// One program for each hook.
    pub programs: Vec<LoadedProgram>,
    /// Where they leave their records. There are none where there are no programs.
    pub maps: RecordMaps,
}

impl Fresh {
    /// Loads the programs that these tables need, and no others.
    ///
    /// # Errors
    ///
    /// When this process may not, or the kernel can't.
    pub fn new(tables: &Tables, rights: &mut Rights) -> Result<Self, LoadError> {
        in_one_way_or_another(tables, |hooks| Self::at(tables, hooks, WORTH_A_THREAD, rights))
    }

    /// Loads the programs for these hooks, with a second thread from this many programs on.
    fn at(tables: &Tables, hooks: &[Hook], worth_a_thread: usize, rights: &mut Rights) -> Result<Self, LoadError> {
        let facts = Facts::of(tables, hooks)?;
        Self::load(begin(tables, &facts)?, hooks, &facts, worth_a_thread, rights)
    }

    fn load(
        mut image: LoadedImage,
        hooks: &[Hook],
        facts: &Facts,
        worth_a_thread: usize,
        rights: &mut Rights,
    ) -> Result<Self, LoadError> {
        let _raised = rights.raise(Operation::Load);
        let prepared = hooks.iter().map(|hook| Ok((*hook, image.prepare(facts.program(*hook))?)));
        let prepared = prepared.collect::<Result<Vec<_>, LoadError>>()?;
        let programs = load_all(&prepared, facts, worth_a_thread)?;
        Ok(Self { programs, maps: RecordMaps::of(&mut image) })
    }
}

/// Loads programs, on two processors if there are: the kernel's verifier takes its time for each, and that is the largest
/// part of launching. The other thread is gone when this returns.
fn load_all(
    prepared: &[(Hook, PreparedProgram)],
    facts: &Facts,
    worth_a_thread: usize,
) -> Result<Vec<LoadedProgram>, LoadError> {
    let next = AtomicUsize::new(0);
    let load = || {
        let mut outcomes = Vec::new();
        // Each takes the next that nobody has taken, until one fails.
        loop {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some((hook, program)) = prepared.get(position) else { break };
            outcomes.push((position, LoadedProgram::load(*hook, program, facts)));
            if outcomes.last().is_some_and(|(_, outcome)| outcome.is_err()) {
                break;
            }
        }
        outcomes
    };
    let mut outcomes = if prepared.len() < worth_a_thread || processors() < 2 {
        load()
    } else {
        thread::scope(|scope| {
            // Where there may be no more threads, or there is no memory for one, this one does all.
            let other = thread::Builder::new().spawn_scoped(scope, load);
            let mut outcomes = load();
            outcomes
                .extend(other.into_iter().flat_map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic))));
            outcomes
        })
    };
    // In their order, so that of several that fail the same one is always reported: all before it have been tried.
    outcomes.sort_by_key(|(position, _)| *position);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// From this many programs on, a second thread makes up for the time that it takes to start one: verifying takes longer.
const WORTH_A_THREAD: usize = 2;

/// From this many programs on, a second thread is worth it where the command's process has the other processor to itself
/// meanwhile (`child::prepare`).
const WORTH_A_THREAD_BESIDE_A_CHILD: usize = 8;

/// How many processors this process may run on.
fn processors() -> usize {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return 1 };
    (0..CpuSet::count()).filter(|processor| set.is_set(*processor).unwrap_or(false)).count()
}

/// Loads the program for one hook, with its maps, and lets go of it.
///
/// # Errors
///
/// When this process may not, or the kernel can't.
pub fn load_one(tables: &Tables, hook: Hook, rights: &mut Rights) -> Result<(), LoadError> {
    let facts = Facts::of(tables, &[hook])?;
    let _raised = rights.raise(Operation::Load);
    let mut image = begin(tables, &facts)?;
    LoadedProgram::load(hook, &image.prepare(facts.program(hook))?, &facts).map(drop)
}

/// Begins to load the programs of these tables.
fn begin(tables: &Tables, facts: &Facts) -> Result<LoadedImage, LoadError> {
    let globals = globals(tables).into_iter().chain(facts.globals()).collect::<Vec<_>>();
    let image = match tables.names() {
        Some(_) => &NAMED,
        None if tables.asks_only_who_made_a_socket() => &PLAIN,
        None => &GUARD,
    };
    image.begin(&globals, contents(tables), unused(tables))
}

#[cfg(test)]
mod tests {
    use super::{pin::record_maps, *};

    /// The policy's tables, and what belongs to the programs alone: variables, what is kept with a socket, and room to put a path together.
    const OTHERS: [&str; 12] = [
        "NET_HOSTS",
        "NET_PORTS",
        "NET_LOCAL_PORTS",
        "UNIX_STATES",
        "SYSCTL_NAMES",
        "SYSCTL_STATES",
        ".rodata",
        "NAMES",
        "SOCKETS",
        "ASKED",
        "HELD",
        "UNIX_SCRATCH",
    ];

    /// Programs of policies without names have nothing to do with them: no map, no variable, and no function that is called back.
    #[test]
    fn policies_without_names_pay_nothing_for_them() {
        let of_names = |name: &str| name.starts_with("NAME") || ["ASKED", "HELD"].contains(&name);
        let count = |image: &Image| {
            let maps = image.maps.iter().filter(|map| of_names(map.name)).count();
            let variables = image.variables.iter().filter(|variable| of_names(variable.name)).count();
            let functions = image.programs.iter().filter(|program| !program.functions.is_empty()).count();
            [maps, variables, functions]
        };
        assert_eq!((count(&GUARD), count(&PLAIN)), ([0; 3], [0; 3]));
        assert!(count(&NAMED).iter().all(|count| *count > 0));
    }

    /// A map of records that is not known as one would never be read, nor emptied for the next run.
    #[test]
    fn every_map_is_known() {
        for image in [&GUARD, &NAMED, &PLAIN] {
            for MapImage { name, .. } in image.maps {
                assert!(record_maps().any(|known| known == *name) || OTHERS.contains(name), "{name}");
            }
        }
        for name in record_maps() {
            let has = |image: &Image| image.maps.iter().any(|map| map.name == name);
            assert!(has(&GUARD) || has(&NAMED), "{name}");
        }
    }
}
