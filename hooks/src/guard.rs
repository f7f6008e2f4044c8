//! The programs on a container's cgroup, and what keeps them there.
//!
//! A program that is attached to the cgroup itself stays for as long as the cgroup does, whatever becomes of the bpf file system. But
//! runtimes take *device* programs that are attached so for their own, and detach them when they rewrite what devices a container may
//! use (`runc update`). They can't detach a link; that goes with its last pin instead. So devices are guarded twice: by a program at a
//! link, which also records, and by one on the cgroup itself, whose records nobody reads. Neither an update nor the loss of the bpf
//! file system frees the container.

use std::{io, os::fd::OwnedFd, path::Path};

use anyhow::Context as _;
use common::record::Hook;
use enforce::{
    bpffs,
    load::{Fresh, Link, LoadedProgram},
    privilege::Rights,
};
use nix::errno::Errno;
use policy::compile::Tables;

use crate::{cgroup::Place, note::Program};

/// The folder, in a container's, of programs that are attached to the cgroup itself: by these they can be taken off again.
const ATTACHED: &str = "ATTACHED";

/// The programs of a policy, in the kernel, on no cgroup yet.
pub struct Ready {
    recording: Vec<LoadedProgram>,
    devices: Option<LoadedProgram>,
}

impl Ready {
    /// Joins a policy's programs with what holds its devices when their link is gone.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the latter.
    pub fn new(recording: Vec<LoadedProgram>, tables: Tables, rights: &mut Rights) -> anyhow::Result<Self> {
        let devices = tables.devices_alone().map(|tables| Fresh::new(&tables, rights)).transpose()?;
        let devices = devices.into_iter().flat_map(|fresh| fresh.programs).find(|program| program.hook == Hook::Device);
        Ok(Self { recording, devices })
    }

    /// Attaches all of them to a cgroup, and pins in `folder` what can take them off again. What is attached is noted in `programs`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses. Then none is left on the cgroup once the folder is removed.
    pub fn attach<'a>(
        self,
        cgroup: &'a OwnedFd,
        folder: &Path,
        programs: &mut Vec<Program>,
    ) -> anyhow::Result<Guard<'a>> {
        let attached = folder.join(ATTACHED);
        bpffs::make(&attached).with_context(|| attached.display().to_string())?;
        let mut guard = Guard { cgroup, programs: Vec::new() };
        for program in self.recording {
            let hook = program.hook;
            let identity = program.identify().context("asking for a program's id")?;
            programs.push(Program { hook: hook as u8, id: identity.id, tag: identity.tag });
            if hook == Hook::Device {
                let link = Link::create(&program, cgroup).with_context(|| refused(hook))?;
                link.pin(folder, hook).context("pinning a program")?;
            } else {
                guard.attach(program, &attached)?;
            }
        }
        self.devices.map_or(Ok(()), |program| guard.attach(program, &attached))?;
        if let Some(witness) = Link::witness(cgroup)? {
            witness.pin_witness(folder).context("pinning a program")?;
        }
        Ok(guard)
    }
}

fn refused(hook: Hook) -> String {
    format!("can't attach the {} program to the container's cgroup", hook.name())
}

/// Programs that are attached to a container's cgroup itself. They are taken off with this value, unless they are kept.
pub struct Guard<'a> {
    cgroup: &'a OwnedFd,
    programs: Vec<LoadedProgram>,
}

impl Guard<'_> {
    fn attach(&mut self, program: LoadedProgram, folder: &Path) -> anyhow::Result<()> {
        program.attach(self.cgroup).with_context(|| refused(program.hook))?;
        // From here on it is taken off if anything fails.
        self.programs.push(program);
        self.programs.iter().next_back().map_or(Ok(()), |program| program.pin(folder)).context("pinning a program")
    }

    /// Leaves them to the cgroup.
    pub fn keep(mut self) {
        self.programs.clear();
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        for program in &self.programs {
            // The container is about to be aborted, and its cgroup removed.
            let _ = program.detach(self.cgroup);
        }
    }
}

/// Takes those programs off the cgroup of a container that are attached to it itself, where it is still there: another run may be in
/// it by now.
///
/// # Errors
///
/// When the kernel refuses.
pub fn take_off(place: &Place, folder: &Path, programs: &[Program]) -> anyhow::Result<()> {
    let Some(cgroup) = place.open() else { return Ok(()) };
    for hook in programs.iter().filter_map(|program| Hook::from_number(program.hook)) {
        // Of an earlier guard-hook's programs, there are only links.
        let Ok(program) = LoadedProgram::open(&folder.join(ATTACHED), hook) else { continue };
        match program.detach(&cgroup) {
            Err(error) if error.raw_os_error() != Some(Errno::ENOENT as i32) => {
                return Err(error).with_context(|| format!("can't take the {} program off", hook.name()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether all links in a container's folder have lost their end at the cgroup, which is so some time after that is gone, but then
/// wherever this process sees cgroups from. One of several can also have been cut by hand.
#[must_use]
pub fn is_cut(folder: &Path) -> bool {
    let links = [Link::open_witness(folder), Link::open(folder, Hook::Device)];
    let mut there = links.into_iter().filter(|link| !is_absent(link)).peekable();
    let is_cut = |link: io::Result<Link>| link.and_then(|link| link.ends()).is_ok_and(|ends| ends.cgroup == 0);
    there.peek().is_some() && there.all(is_cut)
}

fn is_absent(link: &io::Result<Link>) -> bool {
    link.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}
