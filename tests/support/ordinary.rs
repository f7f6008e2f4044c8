//! Ordinary users, and `guard-run` as they get it from their administrator.

use std::{ffi::OsString, os::unix::fs::chown, path::Path, process::Command};

use crate::run::{Run, guard_run};

/// What makes a command an ordinary user's, of that user's group alone: for [`Run::through`].
#[must_use]
pub fn become_user(uid: u32) -> Vec<OsString> {
    let ids = [format!("--reuid={uid}"), format!("--regid={uid}")];
    ["setpriv".into(), "--clear-groups".into()].into_iter().chain(ids.map(OsString::from)).collect()
}

/// The capabilities that `guard-run doctor` tells the administrator to give to its file.
///
/// # Panics
///
/// When it doesn't.
#[must_use]
pub fn file_capabilities() -> String {
    let output = Command::new(guard_run()).arg("doctor").output().expect("guard-run doctor can be run");
    let said = String::from_utf8(output.stdout).expect("doctor writes text");
    let line = said.lines().find_map(|line| line.split_once("sudo setcap ")).unwrap_or_else(|| panic!("{said}"));
    line.1.split(' ').next().expect("there is always a first").to_owned()
}

/// Gives capabilities to a file, as setcap(8) writes them.
///
/// # Panics
///
/// When that can't be done.
pub fn give_capabilities(file: &Path, capabilities: &str) {
    let status = Command::new("setcap").arg(capabilities).arg(file).status().expect("setcap is there");
    assert!(status.success(), "setcap {capabilities} {}", file.display());
}

impl Run {
    /// Runs a copy of `guard-run` as the administrator has installed it for ordinary users, as the user of this number, to
    /// whom the folder of this run belongs then.
    ///
    /// # Panics
    ///
    /// When that can't be done.
    #[must_use]
    pub fn as_ordinary(self, uid: u32) -> Self {
        let run = self.for_everyone();
        give_capabilities(run.program(), &file_capabilities());
        chown(run.folder(), Some(uid), Some(uid)).expect("tests run as root");
        run.through(become_user(uid))
    }
}
