//! Ordinary users, and `guard-run` as they get it from their administrator.

use std::{
    ffi::{OsStr, OsString},
    os::unix::fs::chown,
    path::Path,
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    run::{Run, guard_run},
    running::Output,
    yard::Yard,
};

/// A user whom nobody knows.
pub const ALICE: u32 = 54_321;
/// Another.
pub const BOB: u32 = 54_322;

/// What [`policy`] forbids to read.
pub const SECRET: &str = "/proc/sys/kernel/hostname";

/// Forbids to read [`SECRET`].
#[must_use]
pub fn policy() -> Value {
    let rules = json!([{"action": "deny", "names": ["kernel/hostname"], "access": "r"}]);
    json!({"version": 1, "sysctls": {"default": "allow", "rules": rules}})
}

/// Alice's run of a shell script.
#[must_use]
pub fn alice(script: &str) -> Run {
    Run::shell(policy(), script, &[]).as_ordinary(ALICE)
}

/// Alice's run of a shell script in a yard.
#[must_use]
pub fn alice_in(yard: &Yard, script: &str) -> Run {
    alice(script).through(in_yard(yard, ALICE))
}

/// What makes a command a user's, in a yard: for [`Run::through`].
#[must_use]
pub fn in_yard(yard: &Yard, uid: u32) -> Vec<OsString> {
    [yard.wrapper(), become_user(uid)].concat()
}

/// The only line that it has written to standard error.
///
/// # Panics
///
/// When there are others, or none.
#[must_use]
pub fn line(output: &Output) -> &str {
    let mut lines = output.stderr.lines();
    match (lines.next(), lines.next()) {
        (Some(line), None) => line,
        _ => panic!("not one line: {output:?}"),
    }
}

/// Runs a command as a user to its end; what it writes to standard output.
///
/// # Panics
///
/// When it can't be run.
#[must_use]
pub fn as_user<A: AsRef<OsStr>>(uid: u32, command: impl IntoIterator<Item = A>) -> String {
    let words: Vec<_> =
        become_user(uid).into_iter().chain(command.into_iter().map(|word| word.as_ref().into())).collect();
    let output = Command::new(&words[0]).args(&words[1..]).output().expect("setpriv is there");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

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
