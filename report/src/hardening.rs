//! What kept a command inside beside the guard's programs.

use policy::{Architecture, Part, SocketFamily};
use serde::{Deserialize, Serialize};

use crate::Word;

/// What was in force, for the log.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Hardening {
    /// How much.
    pub isolation: InForce,
    /// The parts.
    pub parts: Vec<Part>,
    /// The parts that the policy disables.
    pub loosened: Vec<Part>,
    /// The capabilities that a root command kept.
    pub capabilities: Vec<String>,
    /// The families of sockets that it could use beside those that it can in any case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<SocketFamily>,
    /// The architectures beside the machine's own whose system calls it could use. No filter saw these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<Architecture>,
    /// The sockets of services that run commands for others, from which it was kept, and the folders with such sockets. These
    /// have a slash at their end.
    pub covered: Vec<String>,
    /// The folders in which other users had so many folders of their own that not all were covered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crowded: Vec<String>,
    /// The policy's sections that Landlock enforced in the place of programs, of which nothing is counted, and no denial is an event: `unix`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_landlock: Vec<Word>,
    /// What was refused by these; `None` where nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
}

/// How many calls were refused, or, in audit mode, would have been.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// All of them.
    pub refused: u64,
    /// How many refusals are in no event.
    pub unrecorded: u64,
}

/// How much was in force.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InForce {
    /// All but what the policy names.
    Full,
    /// The programs on the cgroup alone. No boundary.
    CgroupOnly,
    /// The programs on the cgroup alone, since audit mode refuses nothing. No boundary.
    Audit,
}
