//! Programs on a leaf: from here on, all that runs there is guarded.

use std::{io, os::fd::OwnedFd, path::Path};

use crate::{
    cgroup::Leaf,
    load::{CacheEntry, Loaded, LoadedProgram, Records},
    privilege::{self, Operation},
};

/// A program can't be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel refuses it.
    #[error(
        "can't attach the {hook} program to {cgroup}{}",
        if source.raw_os_error() == Some(libc::EPERM) {
            " (an ancestor cgroup may have a program that allows none below it: bpftool cgroup tree)"
        } else {
            ""
        }
    )]
    Refused {
        /// The hook.
        hook: &'static str,
        /// The leaf.
        cgroup: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The programs can't be told where the sandbox is.
    #[error("can't tell the programs which cgroup {cgroup} is")]
    Untold {
        /// The leaf.
        cgroup: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Programs of cgroups further up, by which somebody may have restricted the user, would not be asked any more.
    #[error(
        "the {hook} program on {cgroup} would put out of force {} on an ancestor cgroup (bpftool prog show id {}), \
         attached with BPF_F_ALLOW_OVERRIDE: only root may do that",
        if programs.len() == 1 { "a program" } else { "programs" },
        programs[0]
    )]
    Displaces {
        /// The hook.
        hook: &'static str,
        /// The leaf.
        cgroup: String,
        /// The programs' ids.
        programs: Vec<u32>,
    },
}

/// A leaf with all of a policy's programs on it. Only this can have a command started: nothing can run unguarded by mistake.
pub struct Attached {
    /// The leaf, which owns the programs.
    pub leaf: Leaf,
    /// The programs.
    pub programs: Vec<LoadedProgram>,
    /// The programs' records.
    pub records: Option<Records>,
    /// Where the programs are kept for the next run.
    pub cache: Option<CacheEntry>,
}

impl Attached {
    /// Attaches all programs to a leaf. If one can't be, the leaf is removed, and the others with it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses one.
    pub fn new(loaded: Loaded, mut leaf: Leaf) -> Result<Self, AttachError> {
        let Loaded { programs, mut records, cache } = loaded;
        let told = records.iter_mut().try_for_each(|records| records.tell_cgroup(leaf.folder()));
        told.map_err(|source| AttachError::Untold { cgroup: leaf.path().display().to_string(), source })?;
        for program in &programs {
            let _raised = leaf.rights.raise(Operation::Attach);
            attach(program, &leaf.cgroup.path, &leaf.cgroup.folder)?;
        }
        Ok(Self { leaf, programs, records, cache })
    }
}

fn attach(program: &LoadedProgram, path: &Path, folder: &OwnedFd) -> Result<(), AttachError> {
    let (hook, cgroup) = (program.hook.name(), || path.display().to_string());
    let refused = |source| AttachError::Refused { hook, cgroup: cgroup(), source };
    if privilege::is_root() {
        return program.attach(folder).map_err(refused);
    }
    let displaced = program.attach_displacing(folder).map_err(refused)?;
    if displaced.is_empty() {
        Ok(())
    } else {
        Err(AttachError::Displaces { hook, cgroup: cgroup(), programs: displaced })
    }
}
