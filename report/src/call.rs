//! System calls that were refused by what keeps the command inside beside the programs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Word;

/// A system call that was refused.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Call {
    /// What it is called.
    pub name: Word,
    /// The path that it was about, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The error with which it fails. `SIGSYS`: this signal ends the process.
    pub error: String,
    /// What of the policy's process section would allow it, in short. Not written: the event's reason says it in full.
    #[serde(skip)]
    pub wants: String,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(path) = &self.path {
            write!(f, " {path}")?;
        }
        if self.wants.is_empty() { Ok(()) } else { write!(f, " ({})", self.wants) }
    }
}

/// What is known of a refusal beside who was refused, and when.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// The call.
    pub call: Call,
    /// What refuses it: `seccomp`, `landlock`, `capabilities` or `mounts`.
    pub measure: Word,
    /// What to write in the policy to allow it.
    pub remedy: String,
}
