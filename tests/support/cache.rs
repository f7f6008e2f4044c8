//! A bpf file system for one test alone, so that what guard-run keeps there is this test's, and goes away with it.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{Output, Run, TcpServer, bpf::leads_to_a_cgroup, eventually};

/// Mounts it where everybody looks for it, and stays.
const PLACE: &str = "mount -t bpf -o mode=700 bpf /sys/fs/bpf && echo ready && exec cat";

/// A mount namespace with a bpf file system of its own, where guard-run keeps its cache entries.
pub struct Cache {
    place: Child,
}

impl Cache {
    /// Makes one.
    ///
    /// # Panics
    ///
    /// When that can't be done.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes something outside this process")]
    pub fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", PLACE]);
        let mut place = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare is there");
        let mut line = String::new();
        let said = place.stdout.take().expect("it was asked for");
        let _ = BufReader::new(said).read_line(&mut line).expect("it writes text");
        assert_eq!(line, "ready\n", "mounting a bpf file system");
        Self { place }
    }

    /// What executes a command there: for [`crate::Run::through`].
    #[must_use]
    pub fn wrapper(&self) -> Vec<OsString> {
        let target = format!("--target={}", self.place.id());
        ["nsenter", &target, "--mount", "--"].map(OsString::from).to_vec()
    }

    /// The bpf file system, as this process sees it.
    #[must_use]
    pub fn mount(&self) -> PathBuf {
        Path::new("/proc").join(self.place.id().to_string()).join("root/sys/fs/bpf")
    }

    /// The folder of all cache entries.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.mount().join("guard-run-cache")
    }

    /// The cache entries' folders, in the order of their names.
    #[must_use]
    pub fn all(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> =
            fs::read_dir(self.folder()).into_iter().flatten().flatten().map(|e| e.path()).collect();
        all.sort();
        all
    }

    /// Those that guard nobody, as the kernel tells.
    #[must_use]
    pub fn free(&self) -> Vec<PathBuf> {
        self.all().into_iter().filter(|entry| !leads_to_a_cgroup(&entry.join("leaf"))).collect()
    }

    /// A run that connects to a server by `storm`, where what is kept is kept here.
    #[must_use]
    pub fn connecting(&self, storm: &str, policy: &Value, server: &TcpServer) -> Run {
        Run::new(policy, [storm, "tcp", &server.port().to_string()]).through(self.wrapper())
    }

    /// A run that succeeds, when nobody has any of the cache entries.
    ///
    /// # Panics
    ///
    /// When it fails.
    #[must_use]
    pub fn alone(&self, run: &Run) -> Output {
        self.settle();
        run.output().success()
    }

    /// Runs it where there is a cache entry of these programs, which it has to take.
    ///
    /// # Panics
    ///
    /// When it has not.
    #[must_use]
    pub fn reusing(&self, run: &Run, expected: &[u64]) -> Output {
        let output = self.alone(run);
        assert_eq!(programs(&output), expected);
        output
    }

    /// Waits until all are free: the kernel takes its time to find that a cgroup is gone.
    ///
    /// # Panics
    ///
    /// When some go on guarding.
    pub fn settle(&self) {
        eventually("all cache are free", || self.free().len() == self.all().len());
    }
}

/// Forbids TCP connections to one port.
#[must_use]
pub fn without(port: u16) -> Value {
    json!({"version": 1, "network": {"default": "allow", "rules": [
        {"action": "deny", "ops": ["connect"], "protocols": ["tcp"], "ports": [port]}
    ]}})
}

/// The ids of a run's programs.
///
/// # Panics
///
/// When there is no log.
#[must_use]
pub fn programs(output: &Output) -> Vec<u64> {
    let hooks = output.log["enforced"]["hooks"].as_array().unwrap_or_else(|| panic!("no log: {output:?}"));
    hooks.iter().map(|hook| hook["program_id"].as_u64().expect("an id")).collect()
}

/// Whether any is in both.
#[must_use]
pub fn have_one_in_common(one: &[u64], other: &[u64]) -> bool {
    one.iter().any(|id| other.contains(id))
}

impl Drop for Cache {
    fn drop(&mut self) {
        let _ = self.place.kill();
        let _ = self.place.wait();
    }
}
