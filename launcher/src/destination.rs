//! Where a log goes.

use std::{
    env, fmt, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use enforce::{
    outlet::{Outlet, write_stderr},
    patience::Patience,
    privilege,
    target::{Found, Target},
};
use jiff::Timestamp;
use nix::sys::stat::SFlag;
use report::{LOG_FOLDER, text::pretty_json};
use serde::Serialize;

/// Where the log goes, known to be writable.
#[derive(Debug)]
pub enum Destination {
    /// To standard error.
    Stderr,
    /// To a file that appears, or replaces another, when it is whole. The path is for people.
    File(PathBuf, Arc<Target>),
    /// To something that must not be replaced: a device, a FIFO, what somebody has open.
    Stream(PathBuf, Outlet),
}

impl Destination {
    /// Makes sure that the log can be written at the end, by beginning to: to `given`, or to a new file in the folder for
    /// logs. What is begun has no name yet, so nothing stays behind if there is no end. The folder is the one that is found
    /// now, whatever becomes of its path.
    ///
    /// # Errors
    ///
    /// When it can't, and as [`Found::at`].
    pub fn open(given: Option<&Path>, started: Timestamp) -> io::Result<Self> {
        let Some(path) = given else {
            let name = format!("{}-{}.json", started.strftime("%Y%m%dT%H%M%S.%9fZ"), std::process::id());
            return Self::file(&make_log_folder()?.join(name));
        };
        if path == Path::new("-") {
            return Ok(Self::Stderr);
        }
        match Found::at(path)? {
            Found::Name(target) => Self::at(path, target),
            Found::Open(file) => Ok(Self::Stream(path.to_owned(), Outlet::of(file)?)),
        }
    }

    /// A file that can be made or replaced.
    ///
    /// # Errors
    ///
    /// When it can't, as [`Found::at`], and when something is there that is no regular file.
    pub fn file(path: &Path) -> io::Result<Self> {
        let destination = match Found::at(path)? {
            Found::Name(target) => Self::at(path, target)?,
            Found::Open(_) => return Err(io::Error::other("not a regular file")),
        };
        match destination {
            Self::File(..) => Ok(destination),
            _ => Err(io::Error::other("not a regular file")),
        }
    }

    fn at(path: &Path, target: Target) -> io::Result<Self> {
        match target.kind()? {
            None | Some(SFlag::S_IFREG | SFlag::S_IFDIR) => {
                target.probe()?;
                Ok(Self::File(path.to_owned(), Arc::new(target)))
            }
            Some(_) => Ok(Self::Stream(path.to_owned(), Outlet::at(&target)?)),
        }
    }

    /// Writes the log: to a file whole, or not at all. Waits for its file system, or for the reader of anything else, but not after a signal
    /// that asks guard-run to end.
    ///
    /// # Errors
    ///
    /// When it can't be.
    pub fn write(&mut self, report: &impl Serialize, patience: Patience) -> io::Result<()> {
        let mut text = pretty_json(report)?;
        text.push(b'\n');
        match self {
            Self::Stderr => write_stderr(&text, None),
            Self::Stream(_, outlet) => outlet.write_all(&text, None),
            Self::File(path, target) => {
                let (path, target) = (path.clone(), Arc::clone(target));
                patience.ask(None, move || put(&path, &target, &text))?
            }
        }
    }
}

/// Puts the log where it goes. A folder that has been removed, and perhaps made anew, is looked for again, and then no link is followed: the command may have
/// made one to where it can't write itself.
fn put(path: &Path, target: &Target, text: &[u8]) -> io::Result<()> {
    if target.is_removed()? { Target::without_links(path)?.put(text) } else { target.put(text) }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str("standard error"),
            Self::File(path, _) | Self::Stream(path, _) => path.display().fmt(f),
        }
    }
}

/// The folder for logs for which nobody has said where they go: [`LOG_FOLDER`] for root; for an ordinary user the one
/// where programs keep what they note down (`guard-run` in XDG_STATE_HOME, which is ~/.local/state unless set).
///
/// # Errors
///
/// When the environment doesn't tell.
pub fn log_folder() -> io::Result<PathBuf> {
    if privilege::is_root() {
        return Ok(LOG_FOLDER.into());
    }
    let variable = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
    Ok(state.ok_or_else(|| io::Error::other("neither XDG_STATE_HOME nor HOME is set"))?.join("guard-run"))
}

/// Makes the folder for logs if need be, with the user's own rights.
fn make_log_folder() -> io::Result<PathBuf> {
    let folder = log_folder()?;
    let mode = if privilege::is_root() { 0o755 } else { 0o700 };
    let created = std::fs::DirBuilder::new().recursive(true).mode(mode).create(&folder);
    created.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", folder.display())))?;
    Ok(folder)
}
