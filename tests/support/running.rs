//! A run that was started, and what came out of it.

use std::{
    fs,
    process::{Child, ExitStatus},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::cgroup::kill_leaves;

/// The name of a run's log in its folder.
pub(crate) const LOG: &str = "log.json";

/// A run that was started. It is killed with this value, and all in its leaf.
pub struct Running {
    child: Child,
    streams: TempDir,
    /// Kept for as long as this run may need the files in it.
    folder: Arc<TempDir>,
    end: Instant,
}

impl Running {
    /// A child whose standard output and error are files of these names in `streams`.
    pub(crate) fn new(child: Child, folder: Arc<TempDir>, streams: TempDir, limit: Duration) -> Self {
        Self { child, streams, folder, end: Instant::now() + limit }
    }

    /// The process id of `guard-run` (of the command, where it runs without).
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to that process.
    ///
    /// # Panics
    ///
    /// When it is gone.
    pub fn signal(&self, signal: i32) {
        // SAFETY: takes two numbers; the process is our child and not waited for yet, so the number is its.
        let result = unsafe { libc::kill(self.pid().cast_signed(), signal) };
        assert_eq!(result, 0, "signal {signal} to {}", self.pid());
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    fn read(&self, name: &str) -> String {
        let text = fs::read(self.streams.path().join(name)).expect("the file was made before");
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits until it has written `text` to standard output.
    ///
    /// # Panics
    ///
    /// When it ends or exceeds its time limit before.
    pub fn wait_for(&mut self, text: &str) {
        self.wait_until(&format!("it writes {text:?}"), |running| running.stdout().contains(text));
    }

    /// Waits until something holds, which `what` names.
    ///
    /// # Panics
    ///
    /// When it ends or exceeds its time limit before.
    pub fn wait_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut ended = false;
        while !holds(self) {
            assert!(!ended, "it ended before {what}; it wrote {:?}; {}", self.stdout(), self.stderr());
            ended = self.pause().is_some();
        }
    }

    /// Waits for its end. Leaves are not looked at (see [`assert_no_leaf`]).
    ///
    /// # Panics
    ///
    /// When it exceeds its time limit.
    #[must_use]
    pub fn wait(mut self) -> Output {
        let status = loop {
            if let Some(status) = self.pause() {
                break status;
            }
        };
        let log = fs::read(self.folder.path().join(LOG))
            .map_or(Value::Null, |text| serde_json::from_slice(&text).expect("a log is JSON"));
        Output { pid: self.pid(), status, stdout: self.stdout(), stderr: self.stderr(), log }
    }

    /// Lets a moment pass. Its status if it has ended.
    fn pause(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("it is our child");
        if status.is_none() {
            if Instant::now() >= self.end {
                self.kill();
                panic!("exceeded its time limit; it wrote {:?}; {}", self.stdout(), self.stderr());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        status
    }

    fn kill(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            kill_leaves(self.pid());
            let _ = self.child.wait();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What came out of a run.
#[derive(Debug)]
pub struct Output {
    /// The process id of `guard-run` (of the command, where it ran without).
    pub pid: u32,
    /// How it ended.
    pub status: ExitStatus,
    /// What was written to standard output.
    pub stdout: String,
    /// What was written to standard error.
    pub stderr: String,
    /// The log. `Null` if there is none.
    pub log: Value,
}

impl Output {
    /// The exit status; of a process that a signal ended, `None`.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The events of the log.
    ///
    /// # Panics
    ///
    /// When there is no log.
    #[must_use]
    pub fn events(&self) -> &[Value] {
        self.log["events"].as_array().unwrap_or_else(|| panic!("no log: {self:?}"))
    }

    /// A hook's part of the log, e.g. `hook("connect4")["denied"]`. `Null` if there is no such hook.
    ///
    /// # Panics
    ///
    /// When there is no log.
    #[must_use]
    pub fn hook(&self, name: &str) -> &Value {
        let hooks = self.log["enforced"]["hooks"].as_array().unwrap_or_else(|| panic!("no log: {self:?}"));
        hooks.iter().find(|hook| hook["hook"] == name).unwrap_or(&Value::Null)
    }

    /// How many requests the hooks have denied together, by the log.
    ///
    /// # Panics
    ///
    /// When there is no log.
    #[must_use]
    pub fn denied(&self) -> u64 {
        self.sum("denied")
    }

    /// The sum of a counter of all hooks, by the log.
    ///
    /// # Panics
    ///
    /// When there is no log.
    #[must_use]
    pub fn sum(&self, counter: &str) -> u64 {
        let hooks = self.log["enforced"]["hooks"].as_array().unwrap_or_else(|| panic!("no log: {self:?}"));
        hooks.iter().filter_map(|hook| hook[counter].as_u64()).sum()
    }

    /// Passes itself on if the exit status was 0.
    ///
    /// # Panics
    ///
    /// When it was not.
    #[must_use]
    pub fn success(self) -> Self {
        self.exits(0)
    }

    /// Passes itself on if the exit status was this one.
    ///
    /// # Panics
    ///
    /// When it was not.
    #[must_use]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "{self:#?}");
        self
    }
}
