//! Programs on a leaf: from here on, whatever runs there is guarded.

use std::io;

use crate::{
    cgroup::Leaf,
    load::{Loaded, LoadedProgram, Records},
    privilege::{self, Operation},
};

/// A program can't be attached.
#[derive(Debug, thiserror::Error)]
#[error(
    "can't attach the {hook} program to {cgroup}{}",
    if source.raw_os_error() == Some(libc::EPERM) {
        " (a cgroup further up may have a program that allows none below it: bpftool cgroup tree)"
    } else {
        ""
    }
)]
pub struct AttachError {
    hook: &'static str,
    cgroup: String,
    source: io::Error,
}

/// A leaf with all of a policy's programs on it. Only this can start a command: nothing can run unguarded by mistake.
pub struct Attached {
    /// The leaf, which owns the programs.
    pub leaf: Leaf,
    /// The programs.
    pub programs: Vec<LoadedProgram>,
    /// Their records.
    pub records: Option<Records>,
}

impl Attached {
    /// Attaches all programs to a leaf. If one can't be, the leaf is removed, and the others with it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses one.
    pub fn new(loaded: Loaded, leaf: Leaf) -> Result<Self, AttachError> {
        let Loaded { programs, records } = loaded;
        for program in &programs {
            let _raised = privilege::raise(Operation::Attach);
            program.attach(leaf.folder()).map_err(|source| AttachError {
                hook: program.hook.name(),
                cgroup: leaf.path().display().to_string(),
                source,
            })?;
        }
        Ok(Self { leaf, programs, records })
    }
}
