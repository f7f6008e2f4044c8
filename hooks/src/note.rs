//! The note that is pinned beside a container's programs: what the log will need and the kernel doesn't know.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use common::ABI_VERSION;
use enforce::load::{pin_note, read_note};
use jiff::Timestamp;
use policy::{Mode, Reasons, compile::Hosts, strict};
use serde::{Deserialize, Serialize};

use report::{Container, IncludedFile};

use crate::{cgroup::Place, log::LogFile};

/// The note's name in the container's folder. No map and no hook has it.
const NAME: &str = "NOTE";

/// Why a note can't be read.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// There is none, or the kernel refuses.
    #[error("{}", path.display())]
    Unreadable {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The records are not those of this version's programs.
    #[error(
        "{}: made by guard-hook {version}, whose records this one ({}) can't read; let that one remove it",
        path.display(),
        env!("CARGO_PKG_VERSION")
    )]
    OtherVersion {
        /// The note.
        path: PathBuf,
        /// Which version made it.
        version: String,
    },
}

/// Who made a note. This part is the same in all versions.
#[derive(Debug, Deserialize, Serialize)]
struct Maker {
    version: String,
    abi: u32,
}

/// What is known when a container is made.
#[derive(Debug, Deserialize, Serialize)]
pub struct Note {
    /// The container.
    pub container: Container,
    /// The container's command.
    pub command: Option<Vec<String>>,
    /// When it was made.
    pub started: Timestamp,
    /// The policy file.
    pub policy: PathBuf,
    /// SHA-256 of its text, as it was then.
    pub sha256: String,
    /// The files that it includes.
    pub included: Vec<IncludedFile>,
    /// Whether it is enforced or only recorded.
    pub mode: Mode,
    /// What the policy says of its rules.
    #[serde(default)]
    pub reasons: Reasons,
    /// The sections of the policy that restrict nothing.
    pub unrestricted: Vec<String>,
    /// The cgroup that it is guarded on.
    pub place: Place,
    /// The programs there.
    pub programs: Vec<Program>,
    /// The capabilities by which the container could evade its policy, and which that accepts.
    pub accepted: BTreeSet<String>,
    /// What the policy says that is the engine's business, as JSON pointers.
    pub left_to_engine: Vec<String>,
    /// The names of the policy's rules.
    pub hosts: Option<Hosts>,
    /// Where the log goes.
    pub log: LogFile,
}

/// A program on the container's cgroup.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Program {
    /// The number of its hook.
    pub hook: u8,
    /// The program's id.
    pub id: u32,
    /// The program's tag.
    pub tag: [u8; 8],
}

#[derive(Deserialize, Serialize)]
struct Signed<T> {
    #[serde(flatten, deserialize_with = "strict::object")]
    maker: Maker,
    note: T,
}

impl Note {
    /// Pins the note in a container's folder.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn pin(&self, folder: &Path) -> io::Result<()> {
        let maker = Maker { version: env!("CARGO_PKG_VERSION").to_owned(), abi: ABI_VERSION };
        pin_note(&folder.join(NAME), &serde_json::to_vec(&Signed { maker, note: self })?)
    }

    /// Reads the note in a container's folder.
    ///
    /// # Errors
    ///
    /// When there is none that this version could read.
    pub fn read(folder: &Path) -> Result<Self, NoteError> {
        let path = folder.join(NAME);
        let unreadable = |source| NoteError::Unreadable { path: path.clone(), source };
        let text = read_note(&path).map_err(unreadable)?;
        let Maker { version, abi } = strict::from_slice(&text).map_err(|error| unreadable(error.into()))?;
        if abi == ABI_VERSION
            && let Ok(Signed { note, .. }) = strict::from_slice(&text)
        {
            return Ok(note);
        }
        Err(NoteError::OtherVersion { path, version })
    }
}
