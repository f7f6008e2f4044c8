//! Running `guard-run`, or the same command without it.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt,
    fs::{self, File},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    cgroup::assert_no_leaf,
    kernel::{Feature, lacks},
    running::{LOG, Output, Running},
};

/// How long a run may take, unless [`Run::limit`] says otherwise: longer than any does on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The Python that tests use: the system's, not a wrapper that happens to be first in PATH.
pub const PYTHON: &str = "/usr/bin/python3";

/// The path of the `guard-run` that was built together with the tests.
///
/// # Panics
///
/// When it wasn't.
#[must_use]
pub fn guard_run() -> PathBuf {
    let test = env::current_exe().expect("this test is a program");
    let folder = test.ancestors().nth(2).expect("tests are in target/…/deps");
    let program = folder.join("guard-run");
    assert!(program.exists(), "{} is missing: run `cargo build`", program.display());
    program
}

/// A policy file's content: JSON, or any text. A JSON policy disables what this kernel is declared to lack for keeping a
/// command inside.
pub struct PolicyText(String);

impl From<Value> for PolicyText {
    fn from(mut json: Value) -> Self {
        if json.is_object() && json["process"]["isolation"] != "cgroup-only" && lacks(Feature::LandlockScopes) {
            let given = json["process"]["allow"].as_array().cloned().unwrap_or_default();
            let lacking = ["signals", "abstract-sockets"].map(Value::from);
            let others = given.into_iter().filter(|part| !lacking.contains(part));
            json["process"]["allow"] = others.chain(lacking.clone()).collect();
        }
        Self(json.to_string())
    }
}

impl fmt::Display for PolicyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&Value> for PolicyText {
    fn from(json: &Value) -> Self {
        json.clone().into()
    }
}

/// A policy as it is, but enforced by its programs alone.
#[must_use]
pub fn cgroup_only(policy: &Value) -> Value {
    let mut policy = policy.clone();
    policy["process"] = json!({"isolation": "cgroup-only"});
    policy
}

impl From<&str> for PolicyText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for PolicyText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// A command to run under a policy: `guard-run --policy FILE --log FILE FLAGS -- COMMAND`. All files are in a folder of
/// its own ([`Run::folder`]), which goes away with this value and the [`Running`] ones that come from it.
pub struct Run {
    folder: Arc<TempDir>,
    program: PathBuf,
    wrapper: Vec<OsString>,
    flags: Vec<OsString>,
    command: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    stdin: Option<OwnedFd>,
    log: bool,
    own_group: bool,
    limit: Duration,
}

impl Run {
    /// A run of `command` under a policy.
    ///
    /// # Panics
    ///
    /// When the policy file can't be written.
    #[must_use]
    pub fn new<A: AsRef<OsStr>>(policy: impl Into<PolicyText>, command: impl IntoIterator<Item = A>) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        // Other users have to read the policy, too.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        fs::write(folder.path().join("policy.json"), policy.into().0).expect("the folder is writable");
        Self {
            folder,
            program: guard_run(),
            wrapper: Vec::new(),
            flags: Vec::new(),
            command: command.into_iter().map(|word| word.as_ref().to_owned()).collect(),
            environment: Vec::new(),
            stdin: None,
            log: true,
            own_group: false,
            limit: LIMIT,
        }
    }

    /// A run of a shell script (bash) under a policy. `$1` … are the arguments.
    #[must_use]
    pub fn shell(policy: impl Into<PolicyText>, script: &str, arguments: &[&str]) -> Self {
        Self::new(policy, [&["bash", "-c", script, "bash"], arguments].concat())
    }

    /// A run of a Python program under a policy. `sys.argv[1:]` are the arguments.
    ///
    /// # Panics
    ///
    /// When the program can't be written to a file.
    #[must_use]
    pub fn python(policy: impl Into<PolicyText>, program: &str, arguments: &[&str]) -> Self {
        let mut run = Self::new(policy, [PYTHON]);
        let file = run.folder().join("program.py");
        fs::write(&file, program).expect("the folder is writable");
        run.command.push(file.into());
        run.command.extend(arguments.iter().map(OsString::from));
        run
    }

    /// Adds options of `guard-run`.
    #[must_use]
    pub fn flags<A: AsRef<OsStr>>(mut self, flags: impl IntoIterator<Item = A>) -> Self {
        self.flags.extend(flags.into_iter().map(|flag| flag.as_ref().to_owned()));
        self
    }

    /// Leaves `--log` out, which is there by default.
    #[must_use]
    pub fn without_log(mut self) -> Self {
        self.log = false;
        self
    }

    /// Runs it all by another command, which must execute it in its own process (as setpriv does).
    #[must_use]
    pub fn through<A: AsRef<OsStr>>(mut self, wrapper: impl IntoIterator<Item = A>) -> Self {
        self.wrapper = wrapper.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// Runs a copy of `guard-run` that every user can execute; where it was built, only its builder may.
    ///
    /// # Panics
    ///
    /// When it can't be copied.
    #[must_use]
    pub fn for_everyone(mut self) -> Self {
        let copy = self.folder().join("guard-run");
        // By another process: what this one has open for writing, its other children have, too, for a moment, and nobody
        // can execute it meanwhile.
        let status = Command::new("cp").arg(&self.program).arg(&copy).status().expect("cp is there");
        assert!(status.success(), "the folder is writable");
        self.program = copy;
        self
    }

    /// The `guard-run` that is run.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Runs another `guard-run`.
    #[must_use]
    pub fn with_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn environment(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets standard input, which is /dev/null by default.
    #[must_use]
    pub fn stdin(mut self, input: impl Into<OwnedFd>) -> Self {
        self.stdin = Some(input.into());
        self
    }

    /// Gives it a process group of its own, as a shell with job control does. The kernel ignores SIGTSTP and the like for
    /// a group that nobody outside could continue, as the one of the tests may be.
    #[must_use]
    pub fn own_group(mut self) -> Self {
        self.own_group = true;
        self
    }

    /// Sets how long it may take before it is killed and the test fails.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The folder of this run's files: `policy.json`, `log.json`, and what the test puts there.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The policy file.
    #[must_use]
    pub fn policy(&self) -> PathBuf {
        self.folder().join("policy.json")
    }

    /// The log file.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder().join(LOG)
    }

    /// Runs it to the end, and checks that no leaf is left behind.
    ///
    /// # Panics
    ///
    /// When it can't be run, exceeds its time limit or leaves a leaf behind.
    #[must_use]
    pub fn output(&self) -> Output {
        let output = self.start().wait();
        assert_no_leaf(output.pid);
        output
    }

    /// The control: runs the command to its end, without `guard-run`.
    ///
    /// # Panics
    ///
    /// When it can't be run or exceeds its time limit.
    #[must_use]
    pub fn bare(&self) -> Output {
        self.start_bare().wait()
    }

    /// Starts the control.
    ///
    /// # Panics
    ///
    /// When it can't be started.
    #[must_use]
    pub fn start_bare(&self) -> Running {
        self.spawn(&self.command)
    }

    /// Starts it.
    ///
    /// # Panics
    ///
    /// When it can't be started.
    #[must_use]
    pub fn start(&self) -> Running {
        let mut words: Vec<OsString> = vec![self.program.clone().into(), "--policy".into(), self.policy().into()];
        if self.log {
            words.extend(["--log".into(), self.log().into()]);
        }
        words.extend(self.flags.iter().cloned());
        words.push("--".into());
        words.extend(self.command.iter().cloned());
        self.spawn(&words)
    }

    /// Runs a subcommand of `guard-run` with the policy: `guard-run NAME POLICY ARGUMENTS`.
    ///
    /// # Panics
    ///
    /// When it can't be run or exceeds its time limit.
    #[must_use]
    pub fn subcommand(&self, name: &str, arguments: &[&str]) -> Output {
        let mut words: Vec<OsString> = vec![self.program.clone().into(), name.into(), self.policy().into()];
        words.extend(arguments.iter().map(OsString::from));
        self.spawn(&words).wait()
    }

    fn spawn(&self, words: &[OsString]) -> Running {
        let words: Vec<&OsString> = self.wrapper.iter().chain(words).collect();
        // Files rather than pipes: anybody who still has them open can't block anybody.
        let streams = tempfile::tempdir_in(self.folder()).expect("a folder");
        let file = |name| File::create(streams.path().join(name)).expect("the folder is writable");
        let stdin = match &self.stdin {
            Some(input) => Stdio::from(input.try_clone().expect("a descriptor")),
            None => Stdio::null(),
        };
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(stdin).stdout(file("stdout")).stderr(file("stderr"));
        if self.own_group {
            command.process_group(0);
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", words[0].display()));
        Running::new(child, Arc::clone(&self.folder), streams, self.limit)
    }
}
