//! `guard-runtime`: an OCI runtime for engines that read no hooks.d. It adds the guard's hooks to the bundle of a container
//! that asks for a guard, and becomes the real runtime: the process, its arguments, environment, descriptors and signals
//! stay what the engine made them, so that exit statuses and speed are the runtime's own.
//!
//! It fails closed: where it can't tell whether a container asks for a guard, or can't add the hooks, there is no container.

mod arguments;
mod bundle;
mod complaint;
mod find;

use std::{
    convert::Infallible,
    env,
    ffi::{CString, NulError, OsString},
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use launcher::sys::start;
use nix::unistd::execv;

use crate::{
    annotations::{AnnotationError, POLICY, Wanted},
    cli::one_line,
    policy,
};

use self::{
    arguments::{ArgumentsError, CommandLine, Order},
    bundle::{Bundle, BundleError},
    find::FindError,
};

/// The policy of containers that name none. It is the administrator's choice whether there is one.
const DEFAULT_POLICY: &str = "/etc/guard-run/default-policy.json";

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
    #[error(transparent)]
    Annotations(#[from] AnnotationError),
    #[error("{0:#}")]
    Policy(anyhow::Error),
    #[error("{DEFAULT_POLICY}: {0}")]
    DefaultPolicy(io::Error),
    #[error(
        "a checkpoint can't be restored under a guard: what it has open was opened outside; start the container anew"
    )]
    Restore,
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
    complaint::complain(&command_line.log, &one_line(&error.to_string()));
    ExitCode::from(FAILURE)
}

fn run(name: &Path, arguments: &[OsString], command_line: &CommandLine) -> Result<Infallible, RuntimeError> {
    if let Some(order) = command_line.order()? {
        prepare(&order)?;
    }
    let runtime = find::runtime(name)?;
    let program = CString::new(runtime.as_os_str().as_bytes())?;
    let arguments = arguments.iter().map(|argument| CString::new(argument.as_bytes()));
    let arguments = std::iter::once(Ok(program.clone())).chain(arguments).collect::<Result<Vec<_>, _>>()?;
    // Nothing may be said on the standard streams from here on if they were closed: hence the last moment.
    let Err(source) = start::restore().and_then(|()| execv(&program, &arguments));
    Err(RuntimeError::Execute { runtime, source })
}

/// Adds the hooks to the bundle, if its container is to have a guard.
fn prepare(order: &Order) -> Result<(), RuntimeError> {
    let Some(mut bundle) = Bundle::read(&order.config)? else {
        // There is none; let the runtime say so.
        return Ok(());
    };
    let mut guards = bundle.guards()?;
    if !guards.contains_key(POLICY) && Path::new(DEFAULT_POLICY).try_exists().map_err(RuntimeError::DefaultPolicy)? {
        bundle.set_policy(DEFAULT_POLICY)?;
        guards.insert(POLICY.into(), DEFAULT_POLICY.into());
    }
    if guards.is_empty() {
        return Ok(());
    }
    if order.restores {
        return Err(RuntimeError::Restore);
    }
    // The hook will judge them again. But what it says then, neither crun nor youki hands on to the engine.
    policy::read(&Wanted::new(&guards)?.policy).map_err(RuntimeError::Policy)?;
    bundle.add_hooks(&find::hook()?)?;
    Ok(bundle.write()?)
}
