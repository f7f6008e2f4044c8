//! Keeping the command from processes outside: Landlock's domains. A process in a domain can't trace one outside it, nor
//! read its memory, descriptors or root directory, whatever its capabilities; nor, where the domain is scoped, send
//! it signals or connect to its abstract Unix sockets. From Linux 7.1 on, a domain can also keep it from Unix sockets with paths that were
//! made outside, which does for some policies where there is no BPF LSM.
//!
//! A pid namespace would do the same but for the sockets. It was not chosen because its first process has duties (it
//! inherits orphans, default actions of signals don't hold for it), process ids inside would differ from those in the log,
//! and a shell's job control across its border does not work.

use std::error::Error;

use enforce::load::missing_here;
use landlock::{
    AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreated,
    RulesetCreatedAttr as _,
};
use nix::{errno::Errno, sys::utsname::uname};
use policy::{
    Isolation, Mode, Part, Policy, ProcessSection,
    compile::{OwnAlone, Tables},
};

use super::{HardenError, Step};

/// What Landlock confines, by the parts of the policy.
const CONFINED: [(Part, &str); 3] = [
    (Part::Signals, "sending signals to processes outside"),
    (Part::AbstractSockets, "connecting to abstract Unix sockets of processes outside"),
    (Part::Tracing, "tracing processes outside"),
];

/// A domain to be entered.
pub(super) struct Scope(RulesetCreated);

impl Scope {
    /// The domain for a policy; `None` if it disables all that Landlock does. With `paths`, it is also one for the policy's rules on Unix
    /// sockets, which needs its scope for abstract ones, too.
    pub(super) fn new(section: &ProcessSection, paths: bool) -> Result<Option<Self>, HardenError> {
        let wanted: Vec<(Part, &str)> = CONFINED.into_iter().filter(|(part, _)| !section.allows(*part)).collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let wants = |part| wanted.iter().any(|(wanted, _)| *wanted == part);
        match ruleset(wants(Part::Signals), wants(Part::AbstractSockets), paths) {
            Ok(ruleset) => Ok(Some(Self(ruleset))),
            Err(error) => {
                // Without scopes, there is still something that an older Landlock can do.
                let (missing, why) = match ruleset(false, false, false) {
                    Ok(_) => (&wanted[..wanted.len() - 1], "its Landlock has no scopes, Linux 6.12 has".to_owned()),
                    Err(_) => (
                        &wanted[..],
                        format!("{error}; Landlock (Linux 5.19) must be among its active security modules, lsm=…"),
                    ),
                };
                Err(HardenError::Scope {
                    what: missing.iter().map(|(_, what)| *what).collect(),
                    parts: section.allow.iter().chain(missing.iter().map(|(part, _)| part)).copied().collect(),
                    release: uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default(),
                    why,
                })
            }
        }
    }

    /// Entering it.
    pub(super) fn step(&self) -> Step {
        let ruleset = self.0.try_clone();
        Step::new("a Landlock domain", move || {
            let ruleset = ruleset.as_ref().ok().and_then(|ruleset| ruleset.try_clone().ok()).ok_or(Errno::EMFILE)?;
            ruleset.no_new_privs(false).restrict_self().map(drop).map_err(|_| Errno::EPERM)
        })
    }
}

/// The rules on Unix sockets that a Landlock domain has to enforce, since this kernel lacks the programs that would.
///
/// # Errors
///
/// When a domain would do for these rules, but can't be had, or does not go with the rest of the policy.
pub(super) fn left_to_domain(policy: &Policy, tables: &Tables) -> Result<Option<OwnAlone>, HardenError> {
    let Some(rules) = tables.unix.as_ref().and_then(|unix| unix.own_alone) else { return Ok(None) };
    let Some(missing) = missing_here(tables) else { return Ok(None) };
    let refused = |why| Err(HardenError::Sockets { missing, why });
    if let Some(why) = no_socket_domain() {
        return refused(why);
    }
    if policy.mode == Mode::Audit {
        return refused("in audit mode, nothing is to be refused".to_owned());
    }
    if policy.process.isolation != Isolation::Full {
        return refused("\"isolation\" is \"cgroup-only\"".to_owned());
    }
    if policy.process.allows(Part::AbstractSockets) {
        return refused("\"process\" allows \"abstract-sockets\", others' among them".to_owned());
    }
    if policy.process.allows(Part::Namespaces) {
        // Its hooks refuse to change mounts as soon as a domain judges files (security/landlock/fs.c).
        return refused("\"process\" allows \"namespaces\", and in such a domain nobody can mount".to_owned());
    }
    Ok(Some(rules))
}

/// Why there can't be a domain here that keeps the command to its own Unix sockets, if there can't.
pub(crate) fn no_socket_domain() -> Option<String> {
    ruleset(false, true, true).err()?;
    Some(match ruleset(false, false, false) {
        Ok(_) => "its Landlock does not judge their paths, that of Linux 7.1 does (ABI 9)".to_owned(),
        Err(error) => format!("{error}; Landlock (Linux 7.1) must be among its active security modules, lsm=…"),
    })
}

/// A domain with these scopes, and, with `paths`, one in which no path leads to a Unix socket that was made outside. Each call is required to
/// work: what the kernel can't do is an error.
fn ruleset(signals: bool, abstract_sockets: bool, paths: bool) -> Result<RulesetCreated, Box<dyn Error>> {
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    if signals {
        ruleset = ruleset.scope(landlock::Scope::Signal)?;
    }
    if abstract_sockets {
        ruleset = ruleset.scope(landlock::Scope::AbstractUnixSocket)?;
    }
    if paths {
        ruleset = ruleset.handle_access(AccessFs::ResolveUnix)?;
    } else if signals || abstract_sockets {
        return Ok(ruleset.create()?);
    }
    // A domain that judges files lets none be moved or linked from folder to folder unless that is granted (Linux 5.19): here it is,
    // everywhere. And one without scopes has to have something to say.
    let everywhere = PathBeneath::new(PathFd::new("/")?, AccessFs::Refer);
    Ok(ruleset.handle_access(AccessFs::Refer)?.create()?.add_rule(everywhere)?)
}
