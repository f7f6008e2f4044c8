//! Tools of others at work in a folder: what they do under the guard has to be what they do without.

use std::{
    collections::BTreeMap,
    env, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Daemon, Output, Run, Transport, is_bound, run::PYTHON};

/// Compilers take their time on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);

/// The port of [`Task::serve`].
const PORT: u16 = 8000;

/// A folder of tests/tools: its script `run` is run by bash in a copy of it, at the same path each time, in an environment
/// of its own. What the script prints must not differ from run to run.
pub struct Task {
    name: &'static str,
    script: &'static str,
    policy: Value,
    arguments: Vec<String>,
    ignored: Vec<&'static str>,
    cgroups: Vec<PathBuf>,
    folder: TempDir,
}

/// What came out of it.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    files: BTreeMap<String, String>,
}

impl Task {
    /// The task of that name, under a policy that has nothing to say: what is left is what every command is subject to.
    ///
    /// # Panics
    ///
    /// When there is no place for its files.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Some tools do parts of their work as another user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        let policy = json!({"version": 1});
        Self { name, script: "run", policy, arguments: Vec::new(), ignored: Vec::new(), cgroups: Vec::new(), folder }
    }

    /// Allows it connections to these hosts (an address, or the name of a set), and no others.
    #[must_use]
    pub fn connecting_to(mut self, hosts: &str) -> Self {
        let allow = json!({"action": "allow", "ops": ["connect"], "hosts": [hosts]});
        self.policy["network"] = json!({"default": "allow", "rules": [allow, {"action": "deny", "ops": ["connect"]}]});
        self
    }

    /// Runs another script of the folder instead.
    #[must_use]
    pub fn script(mut self, name: &'static str) -> Self {
        self.script = name;
        self
    }

    /// Adds an argument of the script.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Doesn't look at files whose path, from a slash for the task's own folder on, has one of these in it: they differ
    /// from run to run.
    #[must_use]
    pub fn ignoring(mut self, parts: &[&'static str]) -> Self {
        self.ignored.extend(parts);
        self
    }

    /// Runs it, and `guard-run`, in these cgroups.
    #[must_use]
    pub fn within(mut self, cgroups: &[PathBuf]) -> Self {
        self.cgroups.extend_from_slice(cgroups);
        self
    }

    /// Where it works.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Starts a web server, without the guard, for the files of the folder.
    ///
    /// # Panics
    ///
    /// When it doesn't start.
    #[must_use]
    pub fn serve(&self, address: &str) -> Daemon {
        let (port, folder) = (PORT.to_string(), self.folder().display().to_string());
        let command = [PYTHON, "-m", "http.server", "--bind", address, "--directory", &folder, &port];
        Daemon::start(command, |_| is_bound(Transport::Tcp, address, PORT))
    }

    /// Runs it without the guard only.
    ///
    /// # Panics
    ///
    /// When it can't be run or exceeds its time limit.
    #[must_use]
    pub fn bare(&self) -> Output {
        self.prepare();
        self.run().bare()
    }

    fn run(&self) -> Run {
        let script = ["bash", "-euo", "pipefail", self.script].map(str::to_owned);
        let run = Run::new(&self.policy, script.iter().chain(&self.arguments)).limit(LIMIT);
        let enter = |cgroup: &PathBuf| format!("echo $$ >'{}/cgroup.procs' && ", cgroup.display());
        let enter = self.cgroups.iter().map(enter).collect::<String>() + "exec \"$@\"";
        let wrapper = ["sh", "-c", &enter, "sh", "env", "-i"].map(str::to_owned).to_vec();
        run.through([wrapper, self.environment()].concat())
    }

    /// Runs it without the guard and with it. Both succeed and come out alike, to the last file, and nothing is
    /// denied. Returns what came out of the guarded one.
    ///
    /// # Panics
    ///
    /// When that isn't so.
    #[must_use]
    pub fn works(&self) -> Output {
        let run = self.run();
        let bare = self.outcome(|| run.bare()).0;
        assert_eq!(bare.code, Some(0), "without the guard: {}\n{}", bare.stdout, bare.stderr);
        let (guarded, output) = self.outcome(|| run.output());
        assert_eq!(
            (guarded.code, &guarded.stdout, &guarded.stderr),
            (bare.code, &bare.stdout, &bare.stderr),
            "under {}",
            self.policy
        );
        let unlike = |one: &Outcome, other: &Outcome| -> BTreeMap<String, String> {
            let differs = |(path, file): &(&String, &String)| other.files.get(*path) != Some(file);
            one.files.iter().filter(differs).map(|(path, file)| (path.clone(), file.clone())).collect()
        };
        assert!(guarded == bare, "guarded {:#?}, bare {:#?}", unlike(&guarded, &bare), unlike(&bare, &guarded));
        assert_eq!((output.denied(), output.events()), (0, &[][..]), "under {}", self.policy);
        output
    }

    /// Works under the guard, whatever it does without.
    ///
    /// # Panics
    ///
    /// When it doesn't.
    #[must_use]
    pub fn works_guarded(&self) -> Output {
        let output = self.outcome(|| self.run().output()).1;
        assert_eq!((output.code(), output.denied(), output.events()), (Some(0), 0, &[][..]), "{output:?}");
        output
    }

    /// Makes the folder anew.
    fn prepare(&self) {
        let folder = self.folder();
        if folder.exists() {
            fs::remove_dir_all(&folder).expect("it is ours");
        }
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(self.name);
        let copied = Command::new("cp").arg("-rT").args([&original, &folder]).status().expect("cp");
        assert!(copied.success(), "{} can't be copied", original.display());
        for name in ["home", "tmp"] {
            fs::create_dir(folder.join(name)).expect("a folder");
        }
    }

    /// Has something done in a fresh folder, and looks at what is there then.
    fn outcome(&self, run: impl FnOnce() -> Output) -> (Outcome, Output) {
        self.prepare();
        let output = run();
        let mut files = BTreeMap::new();
        self.list(&self.folder(), "", &mut files);
        let outcome =
            Outcome { code: output.code(), stdout: output.stdout.clone(), stderr: output.stderr.clone(), files };
        (outcome, output)
    }

    /// Adds the files of a folder whose path in the task's own is `prefix`.
    fn list(&self, folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).expect("the folder is ours") {
            let path = entry.expect("an entry").path();
            let name = format!("{prefix}/{}", path.file_name().unwrap_or_default().display());
            let is_private = ["/home", "/tmp"].contains(&name.as_str());
            if is_private || self.ignored.iter().any(|part| name.contains(part)) {
                continue;
            }
            if path.is_dir() && !path.is_symlink() {
                self.list(&path, &name, files);
            }
            files.insert(name, state(&path));
        }
    }

    /// What it knows of the outside: where programs are, and nothing of who runs the tests.
    fn environment(&self) -> Vec<String> {
        let folder = self.folder();
        let home = PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into()));
        let path = env::var("PATH").expect("PATH is set");
        let variable = |name: &str, value: &str| format!("{name}={value}");
        let mut variables = vec![
            format!("--chdir={}", folder.display()),
            variable("PATH", &path),
            variable("HOME", &folder.join("home").display().to_string()),
            variable("TMPDIR", &folder.join("tmp").display().to_string()),
            variable("LC_ALL", "C.UTF-8"),
            variable("TERM", "xterm"),
        ];
        // Where Rust's tools are, if rustup(1) brought them.
        for (name, default) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            let place = env::var_os(name).map_or_else(|| home.join(default), PathBuf::from);
            variables.push(variable(name, &place.display().to_string()));
        }
        variables
    }
}

/// What a file is, whose, and what is in it.
fn state(path: &Path) -> String {
    let data = path.symlink_metadata().expect("it is there");
    let content = if data.is_symlink() {
        fs::read_link(path).expect("it is a link").into_os_string().into_encoded_bytes()
    } else if data.is_file() {
        fs::read(path).expect("it can be read")
    } else {
        Vec::new()
    };
    // Long or strange content would tell nobody anything.
    let content = match str::from_utf8(&content) {
        Ok(text) if text.len() <= 500 => format!("{text:?}"),
        _ => {
            let mut hasher = DefaultHasher::new();
            content.hash(&mut hasher);
            format!("{} bytes, hash {:x}", content.len(), hasher.finish())
        }
    };
    format!("{:o} {}:{} {content}", data.mode(), data.uid(), data.gid())
}
