//! Covering sockets and handing folders on while other users change what is on the way to them: nothing of theirs makes anything
//! else disappear, appear, or wait.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use support::{
    PYTHON, Run, become_user,
    ordinary::{ALICE, BOB},
};

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

/// Makes sockets in a folder and removes them, again and again.
const COME_AND_GO: &str = "import os, stat, sys, time
end = time.monotonic() + 240
os.makedirs(sys.argv[1], mode=0o700, exist_ok=True)
names = [f'{sys.argv[1]}/{number}' for number in range(20)]
print('ready', flush=True)
while time.monotonic() < end:
    for name in names: os.mknod(name, stat.S_IFSOCK | 0o700)
    for name in names: os.unlink(name)";

/// Mounts file systems that never answer, where a user has folders.
const MUTE: &str = "import ctypes, os, sys, time
libc, user = ctypes.CDLL(None, use_errno=True), int(sys.argv[1])
for folder in sys.argv[2:]:
    os.makedirs(folder)
    os.chown(folder, user, user)
    options = f'fd={os.open(\"/dev/fuse\", os.O_RDWR)},rootmode=40000,user_id={user},group_id={user},allow_other'
    if libc.mount(b'mute', folder.encode(), b'fuse', 0, options.encode()): sys.exit(os.strerror(ctypes.get_errno()))
print('ready', flush=True)
time.sleep(240)";

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
        // The others of this test are here, too. The one that comes second finds it set.
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

fn covered(log: &Value) -> Vec<&str> {
    log["enforced"]["hardening"]["covered"].as_array().expect("a list").iter().filter_map(Value::as_str).collect()
}

/// A folder below that of a run, which every user can reach.
fn folder(run: &Run, name: &str) -> PathBuf {
    let folder = run.folder().join(name);
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn links_of_others_make_no_file_disappear() {
    let machine = Machine::new();
    let run = Run::shell(policy(), "cat victim/file", &[]);
    let victim = folder(&run, "victim");
    fs::write(victim.join("file"), "as it was").unwrap();
    let folder = format!("/tmp/tmux-{BOB}");
    let script = format!(
        "mkdir -m 700 {folder}; {PYTHON} -c 'import os, stat; os.mknod(\"{folder}/file\", stat.S_IFSOCK | 0o700)';
         ln -s {} /tmp/other",
        victim.display()
    );
    machine.shell(BOB, &script);
    let change = format!("cd {}; exec \"$@\"", run.folder().display());
    let wrapper = [machine.wrapper(), ["bash", "-c", &change, "bash"].map(OsString::from).to_vec()].concat();
    let run = run.through(wrapper);
    let _bob = machine.helper(BOB, EXCHANGE, &[&folder, "/tmp/other"]);
    for _ in 0..RUNS {
        assert_eq!(run.output().success().stdout, "as it was");
    }
}

#[test]
fn links_of_others_cut_off_no_socket() {
    let machine = Machine::new();
    let program = "import os, socket; socket.socket(socket.AF_UNIX).connect(os.environ['SOCKET'])";
    let run = Run::python(policy(), program, &[]);
    let path = folder(&run, "service").join("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    let run = run.through(machine.wrapper()).environment("SOCKET", &path);
    machine.shell(BOB, &format!("mkdir -m 700 /tmp/tmux-{BOB}; ln -s {} /tmp/tmux-{BOB}/link", path.display()));
    assert!(!covered(&run.output().success().log).contains(&path.to_str().unwrap()));
}

#[test]
fn sockets_that_come_and_go_keep_nothing_from_starting() {
    let machine = Machine::new();
    let run = Run::new(policy(), ["true"]).through(machine.wrapper());
    let _bob = machine.helper(BOB, COME_AND_GO, &[&format!("/tmp/tmux-{BOB}")]);
    let _own = machine.helper(0, COME_AND_GO, &["/tmp/tmux-0"]);
    for _ in 0..RUNS {
        let _ = run.output().success();
    }
}

#[test]
fn what_others_have_is_one_mount_for_each_user_or_none() {
    let machine = Machine::new();
    let make = format!(
        "mkdir -m 700 /tmp/tmux-{BOB}; cd /tmp/tmux-{BOB}
         {PYTHON} -c 'import os, stat; os.mknod(\"first\", stat.S_IFSOCK | 0o700); [os.link(\"first\", str(n)) for n in range(5000)]'
         mkdir /tmp/tmux-{{1..3000}} /tmp/emacs{{1..3000}}"
    );
    machine.shell(BOB, &make);
    let script = "grep -cE ' /tmp/(tmux|emacs)' /proc/self/mountinfo; ls /tmp/tmux-54322 | wc -l";
    let root = Run::shell(policy(), script, &[]).through(machine.wrapper()).output().success();
    assert_eq!(root.stdout, "1\n0\n");
    let of_bob = |path: &&str| path.starts_with(&format!("/tmp/tmux-{BOB}"));
    assert_eq!(covered(&root.log).into_iter().filter(of_bob).collect::<Vec<_>>(), [format!("/tmp/tmux-{BOB}/")]);
    // Alice couldn't get there anyway.
    let alice = Run::shell(policy(), "grep -cE ' /tmp/(tmux|emacs)' /proc/self/mountinfo", &[]).as_ordinary(ALICE);
    let wrapper = [machine.wrapper(), become_user(ALICE)].concat();
    let output = alice.through(wrapper).output().exits(1);
    assert_eq!((&*output.stdout, covered(&output.log).iter().filter(|path| of_bob(path)).count()), ("0\n", 0));
}

#[test]
fn there_is_a_limit_to_what_is_covered_of_others_and_the_log_says_so() {
    let machine = Machine::new();
    let make = format!(
        "for user in {{100001..100300}}; do mkdir /tmp/tmux-$user; chown $user /tmp/tmux-$user; done; mkdir /tmp/tmux-{BOB}; chown {BOB} /tmp/tmux-{BOB}"
    );
    machine.shell(0, &make);
    let output = Run::new(policy(), ["true"]).through(machine.wrapper()).output().success();
    let count = covered(&output.log).iter().filter(|path| path.starts_with("/tmp/tmux-")).count();
    assert_eq!(count, 256);
    // Users come before those that they can make themselves.
    assert!(covered(&output.log).contains(&&*format!("/tmp/tmux-{BOB}/")));
    assert_eq!(output.log["enforced"]["hardening"]["crowded"], json!(["/tmp"]));
    assert!(output.stderr.contains("too many users have folders in /tmp"), "{}", output.stderr);
}

#[test]
fn a_command_of_roots_reaches_no_session_of_others() {
    const PROGRAM: &str = "import errno, os, socket
for path in os.environ['SOCKETS'].split():
    try: socket.socket(socket.AF_UNIX).connect(path)
    except OSError as error: print(errno.errorcode[error.errno])
    else: print('ok')";
    let machine = Machine::new();
    let listen = format!(
        "import os, socket, sys, time
os.mkdir('/tmp/tmux-{BOB}', 0o700)
sockets = [socket.socket(socket.AF_UNIX) for _ in sys.argv[1:]]
for one, path in zip(sockets, sys.argv[1:]): one.bind(path); one.listen()
print('ready', flush=True)
time.sleep(240)"
    );
    machine.shell(0, &format!("mkdir /run/user/{BOB}; chown {BOB} /run/user/{BOB}"));
    let sockets = [format!("/run/user/{BOB}/bus"), format!("/tmp/tmux-{BOB}/default")];
    let _bob = machine.helper(BOB, &listen, &[&sockets[0], &sockets[1]]);
    let run = |policy: Value| {
        Run::python(policy, PROGRAM, &[]).through(machine.wrapper()).environment("SOCKETS", sockets.join(" "))
    };
    assert_eq!(run(policy()).bare().success().stdout, "ok\nok\n", "the control");
    assert_eq!(run(policy()).output().success().stdout, "ENOENT\nENOENT\n");
    let rules = json!([{"action": "allow", "paths": [sockets[0]]}]);
    let allowed = run(json!({"version": 1, "unix": {"default": "allow", "rules": rules}}));
    assert_eq!(allowed.output().success().stdout, "ok\nENOENT\n");
}

#[test]
fn file_systems_of_others_that_never_answer_are_not_asked() {
    let machine = Machine::new();
    let folders = [format!("/run/user/{BOB}"), format!("/tmp/tmux-{BOB}"), "/tmp/tmux-0".into(), "/tmp/hypr".into()];
    let bob = BOB.to_string();
    let arguments: Vec<&str> = [&bob].into_iter().chain(&folders).map(String::as_str).collect();
    let _bob = machine.helper(0, MUTE, &arguments);
    let run = || Run::new(policy(), ["true"]).limit(Duration::from_secs(20));
    let output = run().through(machine.wrapper()).output().success();
    assert!(covered(&output.log).contains(&&*format!("/run/user/{BOB}/")), "{:?}", covered(&output.log));
    let alice = run().as_ordinary(ALICE).through([machine.wrapper(), become_user(ALICE)].concat());
    let _ = alice.output().success();
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
