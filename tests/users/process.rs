//! What an ordinary user may try on the process of guard-run, which has more rights: look into it, trace it, take what it has.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown},
    process::{Command, Stdio},
};

use support::{
    PYTHON, eventually, guard_run,
    ordinary::{ALICE, alice, as_user, become_user, file_capabilities, give_capabilities},
    status_of,
};

/// Runs the program that tries to look into a process as a user; what worked.
fn look(uid: u32, pid: u32) -> String {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/probes/look.py");
    // Where the sources are, not everybody may read.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("look.py");
    fs::copy(program, &copy).unwrap();
    as_user(uid, [PYTHON.as_ref(), copy.as_os_str(), pid.to_string().as_ref()])
}

#[test]
fn nobody_can_look_into_guard_run_or_take_what_it_has() {
    let mut running = alice("echo $$; exec sleep 1000").start();
    running.wait_for("\n");
    assert_eq!(look(ALICE, running.pid()), "");
    // The control: the command is the user's own.
    let command = running.stdout().trim().parse().unwrap();
    let ways = "attach\ndescriptor\nmemory\nmem\nenviron\nmaps\nfd\nexe\nroot\nkcmp\nseize\n";
    assert_eq!(look(ALICE, command), ways);
    running.signal(libc::SIGTERM);
    assert_eq!(running.wait().code(), Some(128 + 15));
}

#[test]
fn guard_run_keeps_no_more_than_it_needs_to_clean_up() {
    let mut running = alice("echo ready; exec sleep 1000").start();
    running.wait_for("ready");
    let status = |field| status_of(running.pid(), field).unwrap();
    // CAP_DAC_OVERRIDE, to remove the leaf.
    eventually("it has given up the rest", || status("CapPrm") == "0000000000000002");
    for field in ["CapEff", "CapInh", "CapAmb"] {
        assert_eq!(status(field), "0000000000000000", "{field}");
    }
    assert_eq!((status("NoNewPrivs").as_str(), status("Uid").as_str()), ("1", "54321\t54321\t54321\t54321"));
    running.signal(libc::SIGTERM);
    let _ = running.wait();
}

/// CAP_DAC_READ_SEARCH.
const READING: &str = "0000000000000004";
const NOTHING: &str = "0000000000000000";

#[test]
fn what_reads_a_users_file_has_given_up_everything_before() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (program, policy) = (folder.path().join("guard-run"), folder.path().join("policy.json"));
    fs::copy(guard_run(), &program).unwrap();
    give_capabilities(&program, &file_capabilities());
    assert!(Command::new("mkfifo").arg(&policy).status().unwrap().success());
    chown(&policy, Some(ALICE), None).unwrap();
    for (user, kept) in [(become_user(ALICE), NOTHING), (vec!["env".into()], READING)] {
        for words in [vec!["check"], vec!["explain"], vec!["why"], vec!["suggest"], vec!["report"], vec!["compare"]] {
            let request: &[&str] = match words[0] {
                "explain" => &["connect", "tcp", "127.0.0.1:80"],
                "compare" => &["tests"],
                _ => &[],
            };
            let mut command = Command::new(&user[0]);
            command.args(&user[1..]).arg(&program).args(&words).arg(&policy).args(request);
            let mut child = command.stderr(Stdio::null()).spawn().unwrap();
            // It is there as soon as somebody waits for the FIFO to be opened.
            let mut writer = None;
            eventually("it opens the policy", || {
                writer = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&policy).ok();
                writer.is_some()
            });
            for field in ["CapPrm", "CapEff"] {
                assert_eq!(status_of(child.id(), field).unwrap(), kept, "{words:?} {user:?}: {field}");
            }
            for field in ["CapInh", "CapAmb"] {
                assert_eq!(status_of(child.id(), field).unwrap(), NOTHING, "{words:?} {user:?}: {field}");
            }
            drop(writer);
            // Nothing is no policy.
            assert_eq!(child.wait().unwrap().code(), Some(125), "{words:?}");
        }
    }
}

/// Starts a program again and again, and traces it from a moment that is a little later each time.
const TRACER: &str = r#"
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
TRACEME, CONT, DETACH, SEIZE = 0, 7, 17, 0x4206

def status(pid):
    fields = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
    return int(fields["CapPrm"], 16)

# From its very start: the kernel gives it no capabilities.
child = os.fork()
if child == 0:
    libc.ptrace(TRACEME, 0, None, None)
    os.execv(sys.argv[1], sys.argv[1:])
os.waitpid(child, 0)
print("from the start", status(child), flush=True)
libc.ptrace(DETACH, child, None, None)
print("it ends with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

seized, refused, gained = 0, 0, 0
for step in range(150):
    child = os.fork()
    if child == 0:
        os.execv(sys.argv[1], sys.argv[1:])
    end = time.monotonic() + step * 0.0001
    while time.monotonic() < end:
        pass
    # Until it is seized, or ends. Before it has become the program, it can be, but then it gains nothing.
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if libc.ptrace(SEIZE, child, None, None) == 0:
            seized += 1
            before = step
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            gained += code != 125
            break
        refused += 1
print("seized", seized > 0, "refused", refused > 0, "gained", gained)
"#;

#[test]
fn whoever_traces_guard_run_gains_nothing_by_it() {
    let run = alice("true");
    let tracer = run.folder().join("tracer.py");
    fs::write(&tracer, TRACER).unwrap();
    let policy = run.policy();
    let words =
        [PYTHON.as_ref(), tracer.as_os_str(), run.program().as_os_str(), "--quiet".as_ref(), "--policy".as_ref()];
    let words = words.into_iter().chain([policy.as_os_str()]);
    let said = as_user(ALICE, words.chain(["--log", "-", "--", "true"].map(AsRef::as_ref)));
    assert_eq!(said, "from the start 0\nit ends with 125\nseized True refused True gained 0\n");
}
