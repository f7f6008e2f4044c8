//! The command that a user wants to run: finding it, before anything is created.

use std::{
    env,
    ffi::{CString, NulError, OsStr, OsString},
    fs, io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use enforce::privilege::{self, Operation, Rights};
use nix::unistd::{AccessFlags, access};

use crate::user::Identity;

/// Where to look when there is no PATH, as the C library does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The environment that this process was started with: variables, each with a NUL after it.
const ENVIRONMENT: &str = "/proc/self/environ";

/// Why a command can't be run.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no such file, or none in PATH.
    #[error("{}: command not found", .0.display())]
    NotFound(PathBuf),
    /// There is one, but it can't be executed.
    #[error("{}", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: nix::Error,
    },
    /// A NUL byte, which can't be passed on.
    #[error("an argument or environment variable contains a NUL byte")]
    Nul(#[from] NulError),
    /// The environment can't be read.
    #[error("{ENVIRONMENT}")]
    Environment(#[source] io::Error),
}

/// A command, ready to be executed.
#[derive(Clone, Debug)]
pub struct Command {
    /// The file to execute.
    pub program: CString,
    /// The arguments, the command's name first, as they were given.
    pub arguments: Vec<CString>,
    /// The environment.
    pub environment: Vec<CString>,
    /// The user to become.
    pub user: Option<Identity>,
}

impl Command {
    /// Finds a command as execvp(3) would.
    ///
    /// # Errors
    ///
    /// When there is no such file, or none that may be executed.
    pub fn find(arguments: &[OsString], user: Option<Identity>, rights: &mut Rights) -> Result<Self, CommandError> {
        let name = Path::new(arguments.first().map_or(OsStr::new(""), OsString::as_os_str));
        let program = if name.as_os_str().as_bytes().contains(&b'/') { executable(name)? } else { search(name)? };
        let arguments = arguments.iter().map(|argument| CString::new(argument.as_bytes())).collect::<Result<_, _>>()?;
        Ok(Self {
            program: CString::new(program.into_os_string().into_vec())?,
            arguments,
            environment: environment(user.as_ref(), rights)?,
            // Anybody else's is the caller already.
            user: user.filter(|_| privilege::is_root()),
        })
    }
}

impl Command {
    /// Sets an environment variable, in the place of one that was handed on.
    ///
    /// # Errors
    ///
    /// When the value contains a NUL byte.
    pub fn set(&mut self, name: &str, value: &OsStr) -> Result<(), NulError> {
        let variable = CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())?;
        self.environment.retain(|known| name_of(known.as_bytes()) != name.as_bytes());
        self.environment.push(variable);
        Ok(())
    }
}

/// Looks for a command in PATH. As in execvp(3), one that can't be executed is only reported if no other is found.
fn search(name: &Path) -> Result<PathBuf, CommandError> {
    let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let mut refused = None;
    for folder in env::split_paths(&path) {
        if name.as_os_str().is_empty() {
            break;
        }
        match executable(&folder.join(name)) {
            Ok(program) => return Ok(program),
            Err(error @ CommandError::NotExecutable { .. }) => refused = refused.or(Some(error)),
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| CommandError::NotFound(name.to_owned())))
}

fn executable(path: &Path) -> Result<PathBuf, CommandError> {
    let refused = |source| CommandError::NotExecutable { path: path.to_owned(), source };
    match path.metadata() {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
            return Err(CommandError::NotFound(path.to_owned()));
        }
        Err(error) => return Err(refused(nix::Error::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))),
        Ok(metadata) if metadata.is_dir() => return Err(refused(nix::Error::EISDIR)),
        Ok(_) => {}
    }
    access(path, AccessFlags::X_OK).map_err(refused)?;
    Ok(path.to_owned())
}

/// This process's environment; for another user with that user's HOME, USER and LOGNAME, as su(1) does.
fn environment(user: Option<&Identity>, rights: &mut Rights) -> Result<Vec<CString>, CommandError> {
    let account = user.and_then(|user| user.account.as_ref());
    let changed: Vec<(&str, &str)> = account.map_or_else(Vec::new, |account| {
        vec![("HOME", account.home.as_str()), ("USER", account.name.as_str()), ("LOGNAME", account.name.as_str())]
    });
    let kept = variables(rights)?.into_iter();
    let kept = kept.filter(|variable| !changed.iter().any(|(name, _)| name_of(variable) == name.as_bytes()));
    let changed = changed.iter().map(|(name, value)| format!("{name}={value}").into_bytes());
    Ok(kept.chain(changed).map(CString::new).collect::<Result<_, _>>()?)
}

/// The variables that this process was started with, as NAME=VALUE. Where it has capabilities from its file, the C library
/// has taken out of the environment what could have influenced it, like LD_PRELOAD and TMPDIR. The command is to have
/// these: it has no such capabilities.
fn variables(rights: &mut Rights) -> Result<Vec<Vec<u8>>, CommandError> {
    if privilege::is_root() {
        let variables = env::vars_os().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
        return Ok(variables.collect());
    }
    let text = {
        let _raised = rights.raise(Operation::Environment);
        fs::read(ENVIRONMENT).map_err(CommandError::Environment)?
    };
    Ok(text.split(|byte| *byte == 0).filter(|variable| !variable.is_empty()).map(<[u8]>::to_vec).collect())
}

fn name_of(variable: &[u8]) -> &[u8] {
    variable.split(|byte| *byte == b'=').next().unwrap_or_default()
}
