//! `guard-runtime`: an OCI runtime for engines that read no hooks.d. It adds the guard's hooks to the bundle of a container
//! that asks for a guard, and becomes the real runtime: the process, its arguments, environment, descriptors and signals
//! stay what the engine made them, so that exit statuses and speed are the runtime's own.
//!
//! guard-runtime fails closed: where it can't tell whether a container asks for a guard, or can't add the hooks, there is no container.

mod arguments;
mod bundle;
mod complaint;
pub(crate) mod find;

use std::{
    convert::Infallible,
    env,
    ffi::{CString, NulError, OsString},
    os::unix::ffi::OsStrExt as _,
    path::{self, Path, PathBuf},
    process::ExitCode,
};

use common::record::Hook;
use enforce::{sys::start, trusted};
use nix::unistd::execv;
use policy::{Architecture, Mode, Resolved, compile::Tables};

use crate::{
    annotations::POLICY,
    capabilities::{Apart, evading, require_acceptance},
    container_policy,
    inside::Inside,
    settings::Settings,
};

use self::{
    arguments::{ArgumentsError, CommandLine, Order},
    bundle::{Bundle, BundleError},
    find::FindError,
};

/// What containerd gives the container that holds a pod's namespaces, and a guard must not leave it.
const SANDBOX_DROPS: &str = "CAP_NET_RAW";

/// Architectures whose system calls a machine of this one offers beside its own, as filters of system calls name them, and as policies do, if they can.
#[cfg(target_arch = "x86_64")]
const FOREIGN: [(&str, Option<Architecture>); 2] =
    [("SCMP_ARCH_X86", Some(Architecture::X86)), ("SCMP_ARCH_X32", None)];
#[cfg(not(target_arch = "x86_64"))]
const FOREIGN: [(&str, Option<Architecture>); 1] = [("SCMP_ARCH_ARM", None)];

/// The annotation by which crun takes a filter of system calls in the place of the one that config.json describes.
const FILTER: &str = "run.oci.seccomp_bpf_data";

/// What the runtimes exit with when they can't make a container.
const FAILURE: u8 = 1;

/// Why a container isn't made.
#[derive(Debug, thiserror::Error)]
enum RuntimeError {
    #[error(transparent)]
    Arguments(#[from] ArgumentsError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Find(#[from] FindError),
    #[error("{0:#}")]
    Guard(#[from] anyhow::Error),
    #[error(
        "--config: the file of a container that is guarded has to be its bundle's config.json, which guard-hook reads, too"
    )]
    Elsewhere,
    #[error(
        "a checkpoint can't be restored under a guard: what it has open was opened outside; start the container anew"
    )]
    Restore,
    #[error(
        "annotation {FILTER}: its filter of system calls would take the place of the one in config.json, and the policy's rules on hosts need one \
         without foreign architectures; write it into config.json"
    )]
    Filter,
    #[error("an argument contains a NUL byte")]
    Nul(#[from] NulError),
    #[error("can't execute {}: {source}", runtime.display())]
    Execute { runtime: PathBuf, source: nix::Error },
}

/// Adds the hooks where they are asked for, then becomes the real runtime. Returns only if there is to be no container.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    let (name, rest) = arguments.split_first().map_or((Path::new(""), &[][..]), |(name, rest)| (Path::new(name), rest));
    let command_line = CommandLine::parse(rest);
    let Err(error) = run(name, rest, &command_line);
    complaint::complain(&command_line.log, &error.to_string());
    ExitCode::from(FAILURE)
}

fn run(name: &Path, arguments: &[OsString], command_line: &CommandLine) -> Result<Infallible, RuntimeError> {
    let order = command_line.order()?;
    let runtime = find::runtime(name)?;
    if let Some(order) = order {
        prepare(&order, &runtime)?;
    }
    let program = CString::new(runtime.as_os_str().as_bytes())?;
    let arguments = arguments.iter().map(|argument| CString::new(argument.as_bytes()));
    let arguments = std::iter::once(Ok(program.clone())).chain(arguments).collect::<Result<Vec<_>, _>>()?;
    // Nothing may be said on the standard streams from here on if they were closed: hence the last moment.
    let Err(source) = start::restore().and_then(|()| execv(&program, &arguments));
    Err(RuntimeError::Execute { runtime, source })
}

/// Adds the hooks to the bundle, if its container is to have a guard.
fn prepare(order: &Order, runtime: &Path) -> Result<(), RuntimeError> {
    let Some(mut bundle) = Bundle::read(&order.config)? else {
        // There is none; let the runtime say so.
        return Ok(());
    };
    let settings = Settings::read().map_err(anyhow::Error::from)?;
    let guards = bundle.guards()?;
    let Some(wanted) = settings.wanted(&guards).map_err(anyhow::Error::from)? else { return Ok(()) };
    if order.restores {
        return Err(RuntimeError::Restore);
    }
    if !order.bundled {
        return Err(RuntimeError::Elsewhere);
    }
    // The runtime opens the file by its name once more, and so does the hook.
    let path = path::absolute(&order.config).map_err(anyhow::Error::from)?;
    trusted::open(&path).map_err(anyhow::Error::from)?;
    // The hook will judge all of it again. But what it says then, neither crun nor youki hands on to the engine.
    let folder = order.config.parent().unwrap_or(Path::new("."));
    let (_, policy) = container_policy::read(&wanted.policy, &Inside::new(&bundle.config()?, folder))?;
    if bundle.is_sandbox()? {
        // It does nothing but hold the namespaces, nothing is executed in it later, and no pod can say which capabilities it has.
        bundle.drop_capability(SANDBOX_DROPS)?;
    }
    let config = bundle.config()?;
    let evading = evading(&config, &policy, Apart::by(&config));
    require_acceptance(&evading, &config, &policy)?;
    keep_own_calls(&mut bundle, &policy)?;
    find::check(runtime, &settings.runtimes)?;
    find::check_handler(bundle.annotation(find::HANDLER)?.as_deref(), &settings.runtimes)?;
    if !guards.contains_key(POLICY) {
        bundle.set_policy(&wanted.policy)?;
    }
    bundle.add_hooks(&find::hook()?)?;
    Ok(bundle.write()?)
}

/// Has a container killed that makes system calls of another architecture, where its policy judges socket options: of such calls, the kernel asks no
/// program (`do_sock_setsockopt`, net/socket.c).
fn keep_own_calls(bundle: &mut Bundle, policy: &Resolved) -> Result<(), RuntimeError> {
    // What enforces it will say why it can't be compiled.
    let judges = Tables::compile(policy).is_ok_and(|tables| tables.hooks().contains(&Hook::Setsockopt));
    if !judges || policy.mode == Mode::Audit {
        return Ok(());
    }
    if bundle.annotation(FILTER)?.is_some() {
        return Err(RuntimeError::Filter);
    }
    let is_allowed =
        |named: Option<Architecture>| named.is_some_and(|named| policy.process.architectures.contains(&named));
    let (allowed, dropped): (Vec<_>, Vec<_>) = FOREIGN.iter().partition(|(_, named)| is_allowed(*named));
    let names = |list: Vec<(&'static str, _)>| list.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    Ok(bundle.limit_architectures(&names(allowed), &names(dropped))?)
}
