//! Covering sockets and handing folders on while other users change what is on the way to them: nothing of theirs makes anything
//! else disappear, appear, or wait.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use support::{PYTHON, Run, become_user, ordinary::BOB};

/// How often a run is started while somebody changes something.
const RUNS: u32 = 40;

/// A mount namespace with a /tmp and a /run/user of its own: what tests do there, no other guard-run sees. Test files are elsewhere.
const NAMESPACE: &str = "mount -t tmpfs -o mode=1777 none /tmp && mount -t tmpfs -o mode=755 none /run/user &&
echo ready && exec sleep 300";

/// Exchanges two files, again and again.
const EXCHANGE: &str = "import ctypes, sys, time
libc, end = ctypes.CDLL(None), time.monotonic() + 240
one, other = [name.encode() for name in sys.argv[1:]]
if libc.renameat2(-100, one, -100, other, 2): sys.exit('renameat2')
print('ready', flush=True)
while time.monotonic() < end: libc.renameat2(-100, one, -100, other, 2)";

/// Opens a folder, if it is one, as a descriptor of this number, and becomes a command.
const HAND_ON: &str = "import os, sys
number, path = int(sys.argv[1]), sys.argv[2]
while True:
    try: folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError: continue
    break
os.dup2(folder, number)
os.set_inheritable(number, True)
os.environ['MARK'] = open(os.open('mark', os.O_RDONLY, dir_fd=folder)).read().strip()
if os.environ.get('MOUNT'): os.system(f'mount -t tmpfs none {path}')
os.execvp(sys.argv[3], sys.argv[3:])";

/// A process that is there until this value is dropped.
struct Helper(Child);

impl Helper {
    /// Starts a command, and waits until it says that it is ready.
    fn start<A: Into<OsString>>(words: impl IntoIterator<Item = A>) -> Self {
        let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
        let mut child = Command::new(&words[0]).args(&words[1..]).stdout(Stdio::piped()).spawn().expect("it is there");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("it writes text");
        let helper = Self(child);
        assert_eq!(line, "ready\n", "{words:?}");
        helper
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The namespace.
struct Machine(Helper);

impl Machine {
    fn new() -> Self {
        // The others of this test are here, too. Whoever comes second finds it set.
        let _ = tempfile::env::override_temp_dir(Path::new("/var/tmp"));
        Self(Helper::start(["unshare", "--mount", "sh", "-c", NAMESPACE]))
    }

    /// What has a command run in it.
    fn wrapper(&self) -> Vec<OsString> {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.0.0.id());
        ["nsenter".into(), namespace.into(), "--".into()].into()
    }

    /// A Python program of a user's in it.
    fn helper(&self, user: u32, program: &str, arguments: &[&str]) -> Helper {
        let words = [PYTHON, "-c", program].into_iter().chain(arguments.iter().copied()).map(OsString::from);
        Helper::start(self.wrapper().into_iter().chain(become_user(user)).chain(words))
    }

    /// Does something in it as a user.
    fn shell(&self, user: u32, script: &str) {
        let words: Vec<OsString> = self.wrapper().into_iter().chain(become_user(user)).collect();
        let status = Command::new(&words[0]).args(&words[1..]).args(["bash", "-ec", script]).status();
        assert!(status.expect("it is there").success(), "{script}");
    }
}

fn policy() -> Value {
    json!({"version": 1})
}

/// A folder below that of a run, which every user can reach.
fn folder(run: &Run, name: &str) -> PathBuf {
    let folder = run.folder().join(name);
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A run that is handed a folder of Bob's, in which there is a file `mark`.
fn handed(machine: &Machine, number: i32) -> (Run, PathBuf) {
    let script = format!("test \"$(cat /proc/self/fd/{number}/mark)\" = $MARK && echo same");
    let run = Run::shell(policy(), &script, &[]).flags(["--preserve-fds", "1"]);
    let bobs = folder(&run, "bobs");
    std::os::unix::fs::chown(&bobs, Some(BOB), Some(BOB)).unwrap();
    let folder = bobs.join("folder");
    machine.shell(BOB, &format!("mkdir {0}; echo own >{0}/mark", folder.display()));
    let (python, number) = (PYTHON.into(), number.to_string().into());
    let words: Vec<OsString> = vec![python, "-c".into(), HAND_ON.into(), number, folder.clone().into()];
    (run.through([machine.wrapper(), words].concat()), folder)
}

#[test]
fn a_folder_that_is_handed_on_becomes_no_other_while_its_owner_moves_it() {
    let machine = Machine::new();
    for number in [0, 3] {
        let (run, path) = handed(&machine, number);
        let secret = folder(&run, "secret");
        fs::write(secret.join("mark"), "secret\n").unwrap();
        let [link, another] = ["link", "another"].map(|name| path.with_file_name(name));
        symlink(&secret, &link).unwrap();
        machine.shell(BOB, &format!("mkdir {0}; echo another >{0}/mark", another.display()));
        let other = [&link, &another][usize::from(number != 0)];
        let bob = machine.helper(BOB, EXCHANGE, &[path.to_str().unwrap(), other.to_str().unwrap()]);
        for _ in 0..RUNS {
            let output = run.output();
            let refused =
                format!("finding the folder of descriptor {number} again at {}", path.parent().unwrap().display());
            let is_refused =
                output.status.code() == Some(125) && output.stderr.contains(&refused) && output.stdout.is_empty();
            assert!(is_refused || output.stdout == "same\n", "{output:?}");
        }
        drop(bob);
    }
}

#[test]
fn a_folder_that_is_handed_on_is_the_one_that_was_opened_or_the_run_is_refused() {
    let machine = Machine::new();
    for number in [0, 3] {
        let (run, path) = handed(&machine, number);
        assert_eq!(run.output().success().stdout, "same\n");
        // Another one is mounted there after it was opened.
        let output = run.environment("MOUNT", "1").output().exits(125);
        let refused = format!("finding the folder of descriptor {number} again at {}: ESTALE", path.display());
        assert!(output.stderr.contains(&refused), "{}", output.stderr);
    }
}
