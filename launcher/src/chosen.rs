//! Which policy a command runs under: a file, one that is known by a name, or the one that is there for commands without any.
//!
//! Whose configuration it is, is a matter of whose rights guard-run acts with, not of who has set the environment. Root's is in root's
//! home, whatever HOME says: sudo may hand on its caller's. An ordinary user's is where HOME or XDG_CONFIG_HOME say, also where
//! guard-run's file has capabilities: none is in effect while files are opened, so a user names nothing there that couldn't be named by
//! `--policy`, too. The working folder is never looked at: it may be somebody else's.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use advice::Guard;
use anyhow::Context as _;
use enforce::{
    exit,
    include::{self, Included},
    machine::ThisMachine,
    privilege,
    trusted::{self, TrustError},
};
use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    unistd::{AccessFlags, faccessat},
};
use policy::{Document, Policy, PolicyError, Resolved, compile::Tables, did_you_mean};
use report::text::OneLine;

use crate::{linked, user::local_home};

/// The variable that names the policy of commands without one, by its absolute path or its name.
pub const VARIABLE: &str = "GUARD_RUN_POLICY";

/// The file in a user's folder for commands without a policy.
const DEFAULT: &str = "policy.json";

/// The file for commands without a policy whose user has none. It is the one for containers, too.
const SYSTEM_DEFAULT: &str = "/etc/guard-run/default-policy.json";

/// The administrator's folder of policies that are known by name.
const ADMINISTRATORS: &str = "/etc/guard-run/policies";

/// The folder of the installed examples, below where guard-run is installed.
const INSTALLED: &str = "share/guard-run/policies";

/// Where guard-run is installed as a rule.
const PREFIXES: [&str; 2] = ["/usr/local", "/usr"];

/// What files must be called that are known by a name.
const EXTENSION: &str = "json";

/// How many bytes a file's name can have (`NAME_MAX`, include/uapi/linux/limits.h).
const NAME_MAX: usize = 255;

/// A policy to run a command under.
#[derive(Debug)]
pub struct Chosen {
    /// The policy.
    pub policy: Policy,
    /// The policy's file.
    pub document: Document,
    /// Whether the file was found by guard-run, and not named on the command line.
    pub was_found: bool,
}

/// A chosen policy as it is on this machine, and its tables.
#[derive(Debug)]
pub struct Compiled {
    /// The policy.
    pub policy: Resolved,
    /// What it is compiled to.
    pub tables: Tables,
    /// The policy's file.
    pub document: Document,
    /// Whether the file was found by guard-run, and not named on the command line.
    pub was_found: bool,
}

impl Chosen {
    /// Looks up what depends on this machine, and compiles the policy.
    ///
    /// # Errors
    ///
    /// When this machine hasn't what a rule names, a path can never match, or the rules need larger tables than there can be.
    pub fn compile(self) -> anyhow::Result<Compiled> {
        let Self { policy, document, was_found } = self;
        let policy = policy.resolve(&document, &ThisMachine)?;
        let path = || document.path().display().to_string();
        let tables = Tables::compile(&policy).with_context(path)?;
        linked::check(&policy).with_context(path)?;
        Ok(Compiled { policy, tables, document, was_found })
    }
}

impl Compiled {
    /// The policy, to be advised on.
    #[must_use]
    pub fn guard(self) -> Guard {
        let Self { policy, tables, document, .. } = self;
        Guard::of(document, policy, tables)
    }
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    /// Nobody has named one, and none is there for such commands.
    #[error(
        "no policy: name one (--policy FILE, or --policy NAME: `guard-run policies` lists them), or have one written for commands \
         without: guard-run init{}",
        .0.as_ref().map(|path| format!(" (to {})", path.display())).unwrap_or_default()
    )]
    None(Option<PathBuf>),
    /// None is known by that name.
    #[error("no policy is named \"{name}\"{hint}{}; looked in {}", file_hint(.name, *.is_file), looked_in())]
    Unknown {
        /// The name.
        name: String,
        /// Which one may have been meant.
        hint: String,
        /// Whether a file in the working folder has that name.
        is_file: bool,
    },
    /// No file could have that name.
    #[error(
        "a policy's name of {0} bytes is too long: its file, NAME.{EXTENSION}, can have {NAME_MAX}; a policy that is elsewhere is named by its \
         path, with a slash"
    )]
    TooLong(usize),
    /// The variable says where, but not whose working folder is meant.
    #[error("{VARIABLE}={}: write an absolute path, or a policy's name", .0.display())]
    Relative(PathBuf),
    /// Somebody else could have written it.
    #[error(transparent)]
    Untrusted(#[from] TrustError),
    /// The policy isn't valid.
    #[error(transparent)]
    Invalid(#[from] PolicyError),
}

fn file_hint(name: &str, is_file: bool) -> String {
    if is_file { format!("; the file of that name here is ./{name}") } else { String::new() }
}

/// Finds the policy that is meant by a word on the command line, or by none.
///
/// # Errors
///
/// When there is none, it isn't valid, or others could have written one that nobody has named by its path.
pub fn choose(word: Option<&OsStr>) -> Result<Chosen, ChoiceError> {
    let path = match word.map(|word| (word, name_in(word))) {
        Some((path, None)) => {
            let document = Document::read(Path::new(path))?;
            return Ok(Chosen { policy: parse_named(&document)?, document, was_found: false });
        }
        Some((_, Some(name))) => by_name(name)?,
        None => default()?,
    };
    let (document, policy) = trusted_policy(&path)?;
    Ok(Chosen { policy, document, was_found: true })
}

/// The policy in a document that somebody has named, with the files that it includes.
///
/// # Errors
///
/// When it is no valid policy, or one of the files can't be used.
pub fn parse_named(document: &Document) -> Result<Policy, PolicyError> {
    document.parse_with(&Included(include::open))
}

/// The policy in a file that nobody has named, which nobody else may have written; nor what it includes.
fn trusted_policy(path: &Path) -> Result<(Document, Policy), ChoiceError> {
    let document = Document::of_file(path, trusted::open(path)?)?;
    let open = |path: &Path| trusted::open(path).map_err(|error| format!("{:#}", anyhow::Error::from(error)));
    Ok((document.clone(), document.parse_with(&Included(open))?))
}

/// The policy that is meant by a word on the command line, or else the one of logs, by its path.
///
/// # Errors
///
/// As [`choose`], and when neither says which.
pub fn choose_for(word: Option<&OsStr>, logged: Option<&Path>) -> anyhow::Result<Chosen> {
    match (word, logged) {
        (Some(word), _) => Ok(choose(Some(word))?),
        (None, Some(path)) => {
            let document = Document::read(path)?;
            Ok(Chosen { policy: parse_named(&document)?, document, was_found: false })
        }
        (None, None) => anyhow::bail!("events don't say by which policy they were denied; name it: --policy FILE"),
    }
}

/// The name that a word is, if it is none of a file: it has neither a slash nor a dot.
fn name_in(word: &OsStr) -> Option<&str> {
    word.to_str().filter(|word| !word.is_empty() && !word.contains(['/', '.']) && *word != "-")
}

/// Where the policy of that name is: the first file there is, also if it can't be used. Another one further on may allow more.
fn by_name(name: &str) -> Result<PathBuf, ChoiceError> {
    if name.len() + ".".len() + EXTENSION.len() > NAME_MAX {
        return Err(ChoiceError::TooLong(name.len()));
    }
    let mut files = folders().into_iter().map(|folder| folder.join(format!("{name}.{EXTENSION}")));
    files.find(|path| is_there(path)).ok_or_else(|| {
        let known = known();
        let known: Vec<&str> = known.keys().map(String::as_str).collect();
        ChoiceError::Unknown {
            name: name.to_owned(),
            hint: did_you_mean(name, &known),
            is_file: Path::new(name).exists(),
        }
    })
}

/// Where the policy is for commands without.
fn default() -> Result<PathBuf, ChoiceError> {
    if let Some(word) = env::var_os(VARIABLE).filter(|word| !word.is_empty()) {
        return match name_in(&word) {
            Some(name) => by_name(name),
            None if Path::new(&word).is_absolute() => Ok(word.into()),
            None => Err(ChoiceError::Relative(word.into())),
        };
    }
    let users = user_default();
    let files = users.clone().into_iter().chain([SYSTEM_DEFAULT.into()]);
    files.into_iter().find(|path| is_there(path)).ok_or(ChoiceError::None(users))
}

/// Whether something is at a path, or it can't be said.
fn is_there(path: &Path) -> bool {
    let absent = |error: io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    !path.symlink_metadata().is_err_and(absent)
}

/// The user's file for commands without a policy, be it there or not. `None` where the user has no home.
#[must_use]
pub fn user_default() -> Option<PathBuf> {
    Some(user_folder()?.join(DEFAULT))
}

/// The user's folder for guard-run.
fn user_folder() -> Option<PathBuf> {
    let absolute = |path: PathBuf| Some(path).filter(|path| path.is_absolute());
    let variable = |name| absolute(env::var_os(name)?.into());
    let configuration = if privilege::is_root() {
        local_home(0).and_then(absolute).unwrap_or_else(|| "/root".into()).join(".config")
    } else {
        variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?
    };
    Some(configuration.join("guard-run"))
}

/// Where policies are looked for by their names, in this order.
fn folders() -> Vec<PathBuf> {
    let installed = installed();
    user_folder().into_iter().chain([PathBuf::from(ADMINISTRATORS)]).chain(installed).collect()
}

/// The folders of the installed examples, which are known by name, too.
fn installed() -> Vec<PathBuf> {
    let own = installed_below().filter(|own| PREFIXES.iter().all(|prefix| own != Path::new(prefix)));
    let prefixes = own.into_iter().chain(PREFIXES.map(PathBuf::from));
    prefixes.map(|prefix| prefix.join(INSTALLED)).collect()
}

/// The folder that has this program in its `bin`: a Python environment has all that belongs to a program below one of its own.
fn installed_below() -> Option<PathBuf> {
    let bin = env::current_exe().ok()?;
    let bin = bin.parent().filter(|folder| folder.ends_with("bin"))?;
    bin.parent().map(Path::to_path_buf)
}

/// Makes sure that a policy's file may be changed: this user can write it, and it is no installed example, which the next version of
/// guard-run replaces.
///
/// # Errors
///
/// When it may not: what to do instead.
pub fn changeable(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let real = fs::canonicalize(path).with_context(|| shown.to_string())?;
    let copy = || {
        let name = path.file_name().unwrap_or_default();
        let copy = user_folder().unwrap_or_else(|| ".".into()).join(name);
        let copy = if copy == path { Path::new(".").join(name) } else { copy };
        format!("change a copy: install -Dm644 {} {}", real.display(), copy.display())
    };
    let is_below = |folder: PathBuf| fs::canonicalize(folder).is_ok_and(|folder| real.starts_with(folder));
    anyhow::ensure!(
        !installed().into_iter().any(is_below),
        "{shown}: it came with guard-run, and the next version replaces it; {}, or begin with another: guard-run init",
        copy()
    );
    let may = |path: &Path, flags| faccessat(AT_FDCWD, path, flags, AtFlags::AT_EACCESS);
    let folder = real.parent().unwrap_or(Path::new("/"));
    may(&real, AccessFlags::W_OK)
        .and_then(|()| may(folder, AccessFlags::W_OK | AccessFlags::X_OK))
        .map_err(|error| anyhow::anyhow!("{shown}: this user can't change it ({}); {}", error.desc(), copy()))
}

/// Makes sure that a new file can be made in a path's folder.
///
/// # Errors
///
/// When that can't be.
pub fn creatable(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    // One without a name is made there, and goes away.
    tempfile::tempfile_in(folder)
        .map(drop)
        .with_context(|| format!("{}: no file can be made there; name another one: --output FILE", folder.display()))
}

fn looked_in() -> String {
    folders().iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// All policies that are known by name, and their files.
fn known() -> BTreeMap<String, PathBuf> {
    let mut known = BTreeMap::new();
    for folder in folders() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.file_stem().and_then(name_in).filter(|_| path.extension() == Some(EXTENSION.as_ref()));
            if let Some(name) = name {
                known.entry(name.to_owned()).or_insert(path);
            }
        }
    }
    known
}

/// Prints the policies that are known by name, what they are for, and which one commands have that run without.
///
/// # Errors
///
/// Never.
pub fn policies() -> anyhow::Result<u8> {
    let known = known();
    let width = known.keys().map(|name| name.chars().count()).max().unwrap_or(0).max(4);
    for (name, path) in &known {
        let (what, whence) = match trusted_policy(path) {
            Ok((_, policy)) => {
                (policy.description.unwrap_or_else(|| "no description".to_owned()), format!(" ({})", path.display()))
            }
            Err(error) => (format!("can't be used: {:#}", anyhow::Error::from(error)), String::new()),
        };
        let name = OneLine(name).to_string();
        println!("{name:width$}  {}{}", OneLine(what), OneLine(whence));
    }
    if known.is_empty() {
        println!("No policy is known by a name; looked in {}.", OneLine(looked_in()));
    }
    let without = match default() {
        Ok(path) => path.display().to_string(),
        Err(ChoiceError::None(_)) => "none; `guard-run init` writes one".to_owned(),
        Err(error) => format!("{:#}", anyhow::Error::from(error)),
    };
    println!("Without --policy: {}", OneLine(without));
    Ok(exit::OK)
}
