//! Keeping the command from processes outside: Landlock's domains. A process in a domain can't trace one outside it, nor
//! read its memory, descriptors or root directory, whatever its capabilities; nor, where the domain is scoped, send
//! it signals or connect to its abstract Unix sockets.
//!
//! A pid namespace would do the same but for the sockets. It was not chosen because its first process has duties (it
//! inherits orphans, default actions of signals don't hold for it), process ids inside would differ from those in the log,
//! and a shell's job control across its border does not work.

use std::error::Error;

use landlock::{
    AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreated,
    RulesetCreatedAttr as _,
};
use nix::{errno::Errno, sys::utsname::uname};
use policy::{Part, ProcessSection};

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
    /// The domain for a policy; `None` if it disables all that Landlock does.
    pub(super) fn new(section: &ProcessSection) -> Result<Option<Self>, HardenError> {
        let wanted: Vec<(Part, &str)> = CONFINED.into_iter().filter(|(part, _)| !section.allows(*part)).collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let wants = |part| wanted.iter().any(|(wanted, _)| *wanted == part);
        match ruleset(wants(Part::Signals), wants(Part::AbstractSockets)) {
            Ok(ruleset) => Ok(Some(Self(ruleset))),
            Err(error) => {
                // Without scopes, there is still something that an older Landlock can do.
                let (missing, why) = match ruleset(false, false) {
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

/// A domain with these scopes. Each call is required to work: what the kernel can't do is an error.
fn ruleset(signals: bool, abstract_sockets: bool) -> Result<RulesetCreated, Box<dyn Error>> {
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    if signals {
        ruleset = ruleset.scope(landlock::Scope::Signal)?;
    }
    if abstract_sockets {
        ruleset = ruleset.scope(landlock::Scope::AbstractUnixSocket)?;
    }
    if signals || abstract_sockets {
        return Ok(ruleset.create()?);
    }
    // A domain has to have something to say: that files may be moved and linked from folder to folder, everywhere. (The one
    // right that is refused unless it is granted, from Linux 5.19 on.)
    let everywhere = PathBeneath::new(PathFd::new("/")?, AccessFs::Refer);
    Ok(ruleset.handle_access(AccessFs::Refer)?.create()?.add_rule(everywhere)?)
}
