//! Interlocks between a command and processes outside: a server that finds out whether another one works on its files has to be
//! told the truth.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::PathBuf,
    process::{self, Command, Stdio},
};

use serde_json::{Value, json};
use support::{
    Output, Run, become_user, eventually,
    kernel::{Feature, lacks},
    kill_leaves,
    ordinary::{ALICE, BOB},
};

/// Asks by signals, `NUMBER:SIGNAL` each, and says what comes of it.
const ASK: &str = "import errno, os, sys
for word in sys.argv[1:]:
    pid, signal = map(int, word.split(':'))
    try: os.kill(pid, signal); print('ok')
    except OSError as error: print(errno.errorcode[error.errno])";

/// The highest number that a process can have is below this one (`PID_MAX_LIMIT`).
const NOBODY: u32 = 1 << 22;

fn policy() -> Value {
    json!({"version": 1})
}

fn said(output: &Output) -> Vec<&str> {
    output.stdout.lines().collect()
}

/// A process of a user's, outside, until it is dropped.
struct Outsider(process::Child);

impl Outsider {
    fn of(user: u32) -> Self {
        let words = become_user(user);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["sh", "-c", "echo; read line"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Now it is that user's.
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        Self(child)
    }

    fn asked(&self, signal: i32) -> String {
        format!("{}:{signal}", self.0.id())
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn signal_0_says_the_same_as_without_the_guard_and_no_other_signal_gets_out() {
    let (alice, bob) = (Outsider::of(ALICE), Outsider::of(BOB));
    let own = format!("{}:0", process::id());
    let nobody = format!("{NOBODY}:0");
    let signals = [alice.asked(0), bob.asked(0), own, "1:0".into(), nobody, "0:0".into()];
    let words: Vec<&str> = signals.iter().map(String::as_str).collect();
    let alices = |run: Run| run.through(become_user(ALICE));
    // Root's, with and without the capability, and a user's command that root starts.
    for (flags, control, expected) in [
        (vec![], Run::python(policy(), ASK, &words), ["ok", "ok", "ok", "ok", "ESRCH", "ok"]),
        (
            vec!["--user".to_owned(), format!("{ALICE}:{ALICE}")],
            alices(Run::python(policy(), ASK, &words)),
            ["ok", "EPERM", "EPERM", "EPERM", "ESRCH", "ok"],
        ),
    ] {
        assert_eq!(said(&control.bare().success()), expected, "the control");
        assert_eq!(said(&Run::python(policy(), ASK, &words).flags(flags).output().success()), expected);
    }
    // SIGCONT does nothing to who isn't stopped.
    let continued = alice.asked(libc::SIGCONT);
    let run = Run::python(policy(), ASK, &[&continued]);
    assert_eq!(said(&run.bare().success()), ["ok"], "the control");
    if !lacks(Feature::LandlockScopes) {
        assert_eq!(said(&run.output().success()), ["EPERM"]);
    }
}

#[test]
fn an_ordinary_users_guard_answers_as_well() {
    let (alice, bob) = (Outsider::of(ALICE), Outsider::of(BOB));
    let words = [alice.asked(0), bob.asked(0), format!("{NOBODY}:0")];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let yard = support::Yard::new();
    let run = Run::python(policy(), ASK, &words).as_ordinary(ALICE).through(support::ordinary::in_yard(&yard, ALICE));
    assert_eq!(said(&run.bare().success()), ["ok", "EPERM", "ESRCH"], "the control");
    assert_eq!(said(&run.output().success()), ["ok", "EPERM", "ESRCH"]);
}

#[test]
fn in_namespaces_of_its_own_a_command_learns_nothing_of_those_outside() {
    let outsider = Outsider::of(ALICE);
    let process = json!({"allow": ["namespaces"], "capabilities": ["CAP_SYS_ADMIN"]});
    let policy = json!({"version": 1, "process": process});
    let run = |words: &[&str], asked: &[&str]| {
        let command = [words, &[support::PYTHON, "-c", ASK], asked].concat();
        said(&Run::new(&policy, command).output().success()).join(" ")
    };
    let asked = outsider.asked(0);
    // There, 1 is the process itself, and nobody has the other one's number.
    assert_eq!(run(&["unshare", "--pid", "--fork"], &["1:0", &asked]), "ok ESRCH");
    // Anybody who is root in a user namespace of Bob's own has no more rights outside than Bob.
    let bob = format!("setpriv --reuid {BOB} --regid {BOB} --clear-groups unshare --user --map-root-user");
    let words: Vec<&str> = bob.split(' ').collect();
    assert_eq!(run(&words, &[&asked]), "EPERM");
}

#[test]
fn a_question_fails_once_guard_run_is_dead() {
    const WAIT: &str = "import ctypes, errno, os, sys, time
ctypes.CDLL(None).prctl(1, 0)  # PR_SET_PDEATHSIG
parent = os.getppid()
print('ready', flush=True)
while os.getppid() == parent: time.sleep(0.001)
try: os.kill(1, 0); said = 'ok'
except OSError as error: said = errno.errorcode[error.errno]
with open(sys.argv[1] + '~', 'w') as file: file.write(said)
os.rename(sys.argv[1] + '~', sys.argv[1])";
    if lacks(Feature::LandlockScopes) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("said");
    let mut running = Run::python(policy(), WAIT, &[file.to_str().unwrap()]).start();
    running.wait_for("ready");
    running.signal(libc::SIGKILL);
    eventually("it has asked", || file.exists());
    kill_leaves(running.pid());
    assert_eq!(fs::read_to_string(file).unwrap(), "ENOSYS");
}

/// Where Debian has PostgreSQL's programs.
fn postgres() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed: tools/setup.sh test");
    versions.map(|version| version.unwrap().path().join("bin")).max().expect("a version")
}

/// The number of a user.
fn number(name: &str) -> u32 {
    let output = Command::new("id").args(["-u", name]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().expect("there is such a user")
}

#[test]
fn postgresql_does_not_start_on_the_files_of_a_server_outside() {
    let (bin, user) = (postgres(), number("postgres"));
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    chown(&data, Some(user), Some(user)).unwrap();
    let text = data.to_str().unwrap();
    let program = |name: &str| bin.join(name).to_str().unwrap().to_owned();
    let initdb = [program("initdb"), "-D".into(), text.into(), "--no-sync".into(), "-A".into(), "trust".into()];
    let _ = Run::new("", initdb).through(become_user(user)).bare().success();
    let server = [program("postgres"), "-D".into(), text.into(), "-k".into(), text.into(), "-h".into(), String::new()];
    let run = |policy: Value| Run::new(policy, &server).flags(["--user", "postgres"]);
    let ready = |running: &support::Running| running.stderr().contains("ready to accept connections");
    let mut outside = Run::new("", &server).through(become_user(user)).start_bare();
    outside.wait_until("the server is ready", ready);
    let refused = run(policy()).output().exits(1);
    assert!(refused.stderr.contains("\"postmaster.pid\" already exists"), "{}", refused.stderr);
    outside.signal(libc::SIGINT);
    let _ = outside.wait().success();
    // The control: once that one is gone, it starts, and then nobody does outside.
    let mut inside = run(policy()).start();
    inside.wait_until("the server is ready", ready);
    let refused = Run::new("", &server).through(become_user(user)).bare().exits(1);
    assert!(refused.stderr.contains("\"postmaster.pid\" already exists"), "{}", refused.stderr);
    inside.signal(libc::SIGINT);
    let _ = inside.wait().success();
}

#[test]
fn programs_inside_can_have_a_listener_of_their_own_only_where_guard_run_has_none() {
    // A filter that allows everything, with a listener (seccomp_unotify(2)).
    const LISTEN: &str = "import ctypes, errno, struct
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
class Program(ctypes.Structure): _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_char_p)]
program = Program(1, struct.pack('=HBBI', 6, 0, 0, 0x7fff0000))
listener = libc.syscall(317, 1, 8, ctypes.byref(program))
print('ok' if listener >= 0 else errno.errorcode[ctypes.get_errno()])";
    let run = |policy: Value| Run::python(policy, LISTEN, &[]);
    assert_eq!(said(&run(policy()).bare().success()), ["ok"], "the control");
    if !lacks(Feature::LandlockScopes) {
        assert_eq!(said(&run(policy()).output().success()), ["EBUSY"]);
    }
    let allowed = json!({"version": 1, "process": {"allow": ["signals"]}});
    assert_eq!(said(&run(allowed).output().success()), ["ok"]);
}
