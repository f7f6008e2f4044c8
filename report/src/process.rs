//! Processes, as far as they are told of.

use serde::{Deserialize, Serialize};

/// A process's parent.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Parent {
    /// The parent's process id.
    pub pid: u32,
    /// The parent's name.
    pub comm: Option<String>,
}

/// What /proc tells of a process beyond what the kernel side has recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Details {
    /// The file that it executes.
    pub exe: Option<String>,
    /// The process's command line, cut after 1024 bytes.
    pub argv: Option<Vec<String>>,
    /// The process's parent.
    pub parent: Option<Parent>,
}
