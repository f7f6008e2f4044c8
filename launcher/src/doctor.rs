//! `guard-run doctor`: can guard-run work here, and if not, what is missing? Found out by doing, not by version numbers.

mod containers;
mod names;

use std::{fmt, path::Path};

use enforce::{
    attach::Attached,
    bpffs::{self, MOUNT},
    cgroup::{Hierarchy, Leaf},
    exit,
    load::{Loaded, cache_is_there, load_one},
    machine::ThisMachine,
    mounts::Mount,
    privilege::{self, Rights},
    sys::process::{Side, exit_now},
};
use nix::sys::{
    utsname::uname,
    wait::{WaitStatus, waitpid},
};
use policy::{
    Document, PolicyError, Resolved,
    compile::{Tables, UnixTables},
};
use report::text::{OneLine, lines};

use crate::{
    destination::{Destination, log_folder},
    harden::{Hardening, no_socket_domain},
};

/// A policy that needs every program there is.
const EVERYTHING: &str = r#"{
    "version": 1,
    "record": "flows",
    "network": {"default": "allow", "rules": [{"action": "deny", "hosts": ["192.0.2.0/24", "sandbox"], "ports": [9]}]},
    "sockets": {"default": "allow", "rules": [{"action": "allow", "type": "raw"}]},
    "unix": {"default": "deny", "rules": [{"action": "allow"}]},
    "devices": {"default": "allow", "rules": [{"action": "deny", "major": 4095}]},
    "sysctls": {"default": "allow", "rules": [{"action": "deny", "names": ["guard-run/*/doctor"]}]},
    "sockopts": {"default": "allow", "rules": [{"action": "deny", "level": 2147483647, "option": 1}]}
}"#;

/// A policy that leaves everything as it is.
const NOTHING: &str = r#"{"version": 1}"#;

/// What it has to say on kernels before Linux 6.12.
const NO_SCOPES: &str = r#"{"version": 1, "process": {"allow": ["signals", "abstract-sockets"]}}"#;

/// What only some policies need, and what is good enough for the others.
const MORE: [(&str, &str); 2] = [
    (
        "rules on Unix sockets, all alike, by address (without it, by BPF LSM)",
        r#"{"version": 1, "unix": {"default": "deny"}}"#,
    ),
    (
        "rules on Unix sockets, path by path (BPF LSM; only policies with such rules need it)",
        r#"{"version": 1, "unix": {"default": "deny", "rules": [{"action": "allow", "paths": ["*/guard-run/doctor"]}]}}"#,
    ),
];

/// What was found out about one thing that guard-run needs.
struct Finding {
    what: String,
    /// Why it is missing, and how to get it.
    missing: Option<String>,
    /// Whether only some policies need it.
    optional: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.missing {
            None => write!(f, "ok       {}", self.what),
            Some(why) if self.optional => write!(f, "no       {}\n         {why}", self.what),
            Some(why) => write!(f, "MISSING  {}\n         {why}", self.what),
        }
    }
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    /// Adds a finding; returns what was found, if it was.
    fn add<T, E: Into<anyhow::Error>>(&mut self, what: impl Into<String>, found: Result<T, E>) -> Option<T> {
        let (found, missing) = match found {
            Ok(found) => (Some(found), None),
            // The policy in question is one of the doctor's own.
            Err(error) => (None, Some(format!("{:#}", error.into()).replacen("this policy needs ", "needs ", 1))),
        };
        self.0.push(Finding { what: what.into(), missing, optional: false });
        found
    }

    /// Adds a finding that only some users need; what is missing comes with what to do.
    fn add_optional(&mut self, what: impl Into<String>, missing: Option<String>) {
        self.0.push(Finding { what: what.into(), missing, optional: true });
    }

    /// Prints them, and what follows.
    fn conclude(&self) -> u8 {
        let missing = self.0.iter().filter(|finding| finding.missing.is_some() && !finding.optional).count();
        let lacking = self.0.iter().filter(|finding| finding.missing.is_some() && finding.optional).count();
        for finding in &self.0 {
            println!("{}", lines(&finding.to_string()));
        }
        println!();
        if privilege::is_root() {
            println!("To let ordinary users run guard-run without sudo: {}", OneLine(privilege::set_up()));
        }
        if missing > 0 {
            println!("guard-run can't work here: what is MISSING, every run needs.");
            return exit::NO;
        }
        let but = if lacking > 0 { " A \"no\" matters only for what its line says." } else { "" };
        println!("guard-run can work here.{but}");
        exit::OK
    }
}

/// Tries everything that a run needs and prints what works. Leaves nothing behind.
///
/// # Errors
///
/// When not even that could be tried.
pub fn doctor(mut rights: Rights) -> anyhow::Result<u8> {
    println!("guard-run {} on Linux {}", env!("CARGO_PKG_VERSION"), uname()?.release().to_string_lossy());
    let policy = parse(EVERYTHING)?;
    let tables = Tables::compile(&policy)?;
    let mut findings = Findings::default();
    let whose = if privilege::is_root() {
        "rights: run by root"
    } else {
        "rights: run by an ordinary user, with capabilities of guard-run's file"
    };
    if findings.add(whose, privilege::require()).is_none() {
        // All that could be tried would fail for this reason.
        return Ok(findings.conclude());
    }
    let unix = tables.unix.iter().flat_map(UnixTables::hooks).collect::<Vec<_>>();
    let mut accepted = Vec::new();
    for hook in tables.hooks().into_iter().filter(|hook| !unix.contains(hook)) {
        match load_one(&tables, hook, &mut rights) {
            Ok(()) => accepted.push(hook.name()),
            refused => drop(findings.add(format!("an eBPF program at the {} hook", hook.name()), refused)),
        }
    }
    if !accepted.is_empty() {
        findings.add(format!("eBPF programs at the hooks {}", accepted.join(", ")), anyhow::Ok(()));
    }
    let alike = parse(MORE[0].1)?;
    findings
        .add("eBPF programs for rules on Unix sockets", Loaded::new(&Tables::compile(&alike)?, &mut rights).map(drop));
    for (what, policy) in MORE {
        let tables = Tables::compile(&parse(policy)?)?;
        findings.add(what, tables.hooks().into_iter().try_for_each(|hook| load_one(&tables, hook, &mut rights)));
        findings.0.last_mut().expect("it has just been added").optional = true;
    }
    findings.add_optional(
        "rules on Unix sockets, the command's own alone, by Landlock (only where there is no BPF LSM)",
        no_socket_domain(),
    );
    let hierarchy = findings.add("a cgroup v2 hierarchy", Hierarchy::find());
    let leaf = hierarchy
        .as_ref()
        .and_then(|hierarchy| findings.add("making a cgroup in it, as each run does", Leaf::create(hierarchy, rights)));
    if let Some(mut leaf) = leaf
        && let Ok(loaded) = Loaded::new(&tables, leaf.rights())
    {
        let attached = findings.add("attaching programs to that cgroup", Attached::new(loaded, leaf));
        if let Some(mut attached) = attached {
            findings.add("starting a process in that cgroup (clone3, Linux 5.7)", born_in(&mut attached));
            let inside = "keeping a command inside (namespaces, capabilities, seccomp, Landlock)";
            if findings.add(inside, kept_inside(&mut attached, NOTHING)).is_none() {
                findings.0.last_mut().expect("it has just been added").optional = true;
                findings.add(
                    "the same for policies with \"process\": {\"allow\": [\"signals\", \"abstract-sockets\"]}",
                    kept_inside(&mut attached, NO_SCOPES),
                );
            }
            findings.add("killing all that is in a cgroup (cgroup.kill, Linux 5.14)", attached.leaf.kill());
        }
    }
    let folder = log_folder().map(|folder| folder.display().to_string()).unwrap_or_default();
    findings.add(format!("a folder for logs ({folder})"), Destination::open(None, jiff::Timestamp::now()));
    findings.add_optional(
        format!("a bpf file system at {MOUNT}: containers need it, and root's runs start in half the time with it"),
        no_folder(),
    );
    if let Some(hierarchy) = &hierarchy {
        names::look(&mut findings, hierarchy);
    }
    containers::look(&mut findings);
    Ok(findings.conclude())
}

/// A policy of the doctor's own.
fn parse(policy: &str) -> Result<Resolved, PolicyError> {
    Document::new(Path::new("doctor"), policy.into()).resolve(&ThisMachine)
}

/// Why nothing can be kept in the kernel.
fn no_folder() -> Option<String> {
    if !bpffs::is_mounted() {
        return Some(format!("not mounted; type: mount -t bpf bpf {MOUNT} -o mode=700"));
    }
    cache_is_there().err().map(|error| format!("{:#}", anyhow::Error::from(error)))
}

/// Has a process born in the leaf that takes all steps to keep itself there, and does nothing then.
fn kept_inside(attached: &mut Attached, policy: &str) -> anyhow::Result<()> {
    let policy = parse(policy)?;
    let hardening = Hardening::new(&policy, &mut Tables::compile(&policy)?, 0, Mount::all()?, false)?;
    let view = hardening.look(attached.leaf.path(), None)?;
    let mut steps = hardening.steps_at_once();
    steps.extend(hardening.steps_before_user(&view, attached.leaf.path(), None, None));
    steps.extend(hardening.steps_after_user());
    match attached.leaf.fork()? {
        Side::Child => {
            let failed = steps.iter().position(|step| (step.run)(attached.leaf.rights()).is_err());
            exit_now(failed.map_or(0, |step| i32::try_from(step + 1).unwrap_or(i32::MAX)));
        }
        Side::Parent { pid, .. } => match waitpid(pid, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, step) => {
                let what = usize::try_from(step - 1).ok().and_then(|step| steps.get(step)).map(|step| &*step.what);
                anyhow::bail!("{} is not possible", what.unwrap_or("one of its steps"))
            }
            other => anyhow::bail!("the process ended: {other:?}"),
        },
    }
}

/// Has a process born in the leaf, which does nothing.
fn born_in(attached: &mut Attached) -> anyhow::Result<()> {
    match attached.leaf.fork()? {
        Side::Child => exit_now(0),
        Side::Parent { pid, .. } => Ok(waitpid(pid, None).map(drop)?),
    }
}
