//! The attacker: a process of an ordinary user, who replaces what is in folders of his own when he is told to.
//!
//! What can be done is what that user may do. So nothing here runs with the fuzzer's rights but [`Attacker::start`].

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::{fs::symlink, net::UnixListener, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::Context as _;
use nix::{sys::stat::Mode, unistd::mkfifo};
use serde::{Deserialize, Serialize};

use crate::world::VICTIM;

/// The attacker's user and group.
pub const ATTACKER: u32 = 54_321;

/// The first word of this program's arguments when it is the attacker.
pub const ROLE: &str = "attacker";

/// What is put in the place of a file or folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Replacement {
    /// A symbolic link to this.
    Link(PathBuf),
    /// Nothing.
    Nothing,
    /// An empty file.
    File,
    /// A folder, with empty folders of these names in one another.
    Folder(PathBuf),
    /// A FIFO that nobody has open.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A folder with so many sockets in it.
    Crowd(u32),
    /// What was there before it was replaced.
    Former,
}

impl Replacement {
    /// Whether somebody who looks it up could find something else than before, and not just nothing.
    #[must_use]
    pub fn leads(&self) -> bool {
        match self {
            Self::Link(to) => to.starts_with(VICTIM),
            Self::Folder(_) | Self::Nothing => true,
            Self::File | Self::Fifo | Self::Socket | Self::Crowd(_) | Self::Former => false,
        }
    }
}

/// One replacement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Replace {
    /// The path of what is replaced.
    pub what: PathBuf,
    /// By what.
    pub by: Replacement,
}

/// The attacker's process.
#[derive(Debug)]
pub struct Attacker {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Attacker {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// When this program can't be executed once more.
    pub fn start(program: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.arg(ROLE).uid(ATTACKER).gid(ATTACKER).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting the attacker")?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let answers = BufReader::new(answers.context("a pipe from the attacker")?);
        Ok(Self { child, orders: orders.context("a pipe to the attacker")?, answers })
    }

    /// The attacker's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Has something replaced. Whether that was possible.
    ///
    /// # Errors
    ///
    /// When the attacker has ended.
    pub fn replace(&mut self, order: &Replace) -> anyhow::Result<bool> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.orders.write_all(&line).context("the attacker has ended")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).context("the attacker has ended")?;
        anyhow::ensure!(!answer.is_empty(), "the attacker has ended");
        Ok(answer.trim_end() == "done")
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        // It ends by itself with its orders.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the attacker's process does: replaces what standard input says, and says on standard output whether it could.
///
/// # Errors
///
/// When the orders are none.
pub fn serve() -> anyhow::Result<()> {
    for line in io::stdin().lines() {
        let order: Replace = serde_json::from_str(&line?)?;
        let answer = if replace(&order).is_ok() { "done" } else { "impossible" };
        println!("{answer}");
    }
    Ok(())
}

fn replace(Replace { what, by }: &Replace) -> io::Result<()> {
    let (Some(folder), Some(name)) = (what.parent(), what.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut aside = std::ffi::OsString::from(".former-");
    aside.push(name);
    let aside = folder.join(aside);
    if aside.symlink_metadata().is_ok() {
        // It has been replaced before.
        remove(what)?;
    } else {
        match fs::rename(what, &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved?,
        }
    }
    match by {
        Replacement::Link(to) => symlink(to, what),
        Replacement::Nothing => Ok(()),
        Replacement::File => fs::write(what, ""),
        Replacement::Folder(inside) => fs::create_dir_all(what.join(inside)),
        Replacement::Fifo => Ok(mkfifo(what, Mode::from_bits_truncate(0o644))?),
        Replacement::Socket => UnixListener::bind(what).map(drop),
        Replacement::Crowd(count) => {
            fs::create_dir(what)?;
            let first = what.join("0");
            drop(UnixListener::bind(&first)?);
            // A link each: so many sockets would take much more memory.
            (1..*count).try_for_each(|number| fs::hard_link(&first, what.join(number.to_string())))
        }
        Replacement::Former => match fs::rename(&aside, what) {
            // There was none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            moved => moved,
        },
    }
}

fn remove(what: &Path) -> io::Result<()> {
    match what.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(what),
        Ok(_) => fs::remove_file(what),
    }
}
