//! `"paths": ["sandbox"]`: Unix sockets that the command has made itself can be reached, and nobody else's, by any name
//! and no matter which process holds them. Programs of BPF LSM enforce it, or else a Landlock domain.

use std::{
    fs,
    io::{ErrorKind, Read as _},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
    },
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use support::{
    Output, Run,
    kernel::{self, Feature},
};
use tempfile::TempDir;

/// Emulated machines take their time for programs that start others.
const LIMIT: Duration = Duration::from_secs(300);

/// Everything is denied but the sandbox's own.
fn own_only() -> Value {
    json!({"version": 1, "unix": {"default": "deny", "rules": [{"action": "allow", "paths": ["sandbox"]}]}})
}

/// What enforces it on this kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Programs,
    Landlock,
}

impl By {
    /// The one for this kernel. `None` where it has neither: then the policy is refused, with the reason.
    fn this_kernel(policy: &Value) -> Option<Self> {
        match (kernel::lacks(Feature::BpfLsm), kernel::lacks(Feature::LandlockUnix)) {
            (false, _) => return Some(Self::Programs),
            (true, false) => return Some(Self::Landlock),
            (true, true) => {}
        }
        let output = Run::new(policy, ["true"]).output().exits(125);
        for word in ["unix_stream_connect", "BPF LSM", "6.0", "Landlock", "7.1", &kernel::release()] {
            assert!(output.stderr.contains(word), "{word} is missing: {}", output.stderr);
        }
        None
    }

    /// What comes of reaching for somebody else's socket file.
    const fn no(self) -> &'static str {
        match self {
            Self::Programs => "Operation not permitted",
            Self::Landlock => "Permission denied",
        }
    }

    /// Checks that the log says what has enforced it, and that so many denials are events as there can be.
    fn check(self, output: &Output, denials: usize) {
        let (by_landlock, events) = match self {
            Self::Programs => (Value::Null, denials),
            Self::Landlock => (json!(["unix"]), 0),
        };
        assert_eq!(output.log["enforced"]["hardening"]["by_landlock"], by_landlock, "{:#}", output.log);
        assert_eq!(output.denied(), events as u64, "{:#}", output.log);
        assert!(output.events().iter().all(|event| event["rule"] == "default"), "{:#}", output.log);
    }
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("guard").tempdir_in("/tmp").unwrap()
}

/// Names of the abstract namespace are every test's; so each has its own.
fn unique(name: &str) -> String {
    format!("@guard-{name}-{}", std::process::id())
}

/// Runs a program of which both sides are Python: `reach(kind, name)` says what came of it.
fn python(policy: &Value, program: &str, arguments: &[&str], stdin: Option<OwnedFd>) -> Output {
    const REACH: &str = r#"
import array, multiprocessing, os, socket, sys, threading
KINDS = {"stream": socket.SOCK_STREAM, "seqpacket": socket.SOCK_SEQPACKET, "dgram": socket.SOCK_DGRAM}
def address(name): return "\0" + name[1:] if name.startswith("@") else name
def serve(kind, name):
    server = socket.socket(socket.AF_UNIX, KINDS[kind])
    server.bind(address(name))
    if kind != "dgram": server.listen()
    return server
def reach(kind, name):
    client = socket.socket(socket.AF_UNIX, KINDS[kind])
    try:
        if kind == "dgram": client.sendto(b"x", address(name))
        else: client.connect(address(name))
        return "ok"
    except OSError as error:
        return error.strerror
    finally:
        client.close()
"#;
    let run = Run::python(policy, &format!("{REACH}\n{program}"), arguments).limit(LIMIT);
    match stdin {
        Some(stdin) => run.stdin(stdin).output(),
        None => run.output(),
    }
}

#[test]
fn own_sockets_are_reached_by_every_kind_and_name() {
    let Some(by) = By::this_kernel(&own_only()) else { return };
    let program = r#"
servers = []
for kind in KINDS:
    for name in [f"{sys.argv[1]}/{kind}", f"{sys.argv[2]}.{kind}"]:
        servers.append(serve(kind, name))
        pid = os.fork()
        if pid == 0:
            print(kind, name[0], reach(kind, name), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
"#;
    let (folder, name) = (folder(), unique("own"));
    let arguments = [folder.path().to_str().unwrap(), &name];
    let output = python(&own_only(), program, &arguments, None).success();
    let expected = ["stream", "seqpacket", "dgram"].map(|kind| format!("{kind} / ok\n{kind} @ ok\n")).concat();
    assert_eq!(output.stdout, expected, "{:#}", output.log);
    by.check(&output, 0);

    let folder = self::folder();
    let deny = json!({"version": 1, "unix": {"default": "deny"}});
    let denied = python(&deny, program, &[folder.path().to_str().unwrap(), &unique("denied")], None).success();
    assert_eq!(denied.stdout, expected.replace("ok", "Operation not permitted"), "the control");
}

#[test]
fn nobody_elses_socket_is_reached_whatever_its_name() {
    let Some(by) = By::this_kernel(&own_only()) else { return };
    let (folder, name) = (folder(), unique("others"));
    let path = |kind: &str| folder.path().join(kind);
    let stream = UnixListener::bind(path("stream")).unwrap();
    let datagram = UnixDatagram::bind(path("dgram")).unwrap();
    // Another sandbox under the very same policy is somebody else, too.
    let other = Run::python(
        own_only(),
        r#"
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("ready", flush=True)
sys.stdin.read()
"#,
        &[path("other").to_str().unwrap()],
    );
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut other = other.stdin(theirs).start();
    other.wait_for("ready");
    let program = r#"
for kind, name in [("stream", "stream"), ("dgram", "dgram"), ("stream", "other")]:
    print(reach(kind, f"{sys.argv[1]}/{name}"))
own = serve("stream", f"{sys.argv[1]}/own")
os.rename(f"{sys.argv[1]}/own", f"{sys.argv[1]}/mine")
os.symlink("mine", f"{sys.argv[1]}/own")
os.symlink("stream", f"{sys.argv[1]}/link")
for name in ["own", "link"]: print(reach("stream", f"{sys.argv[1]}/{name}"))
"#;
    let arguments = [folder.path().to_str().unwrap(), &name];
    let output = python(&own_only(), program, &arguments, None).success();
    let no = by.no();
    assert_eq!(output.stdout, format!("{no}\n{no}\n{no}\nok\n{no}\n"));
    by.check(&output, 4);
    for waits in [stream.set_nonblocking(true), datagram.set_nonblocking(true)] {
        waits.unwrap();
    }
    assert_eq!(stream.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(datagram.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(ours);
    let _ = other.wait().success();
}

/// Who made a socket counts, not who has it.
#[test]
fn a_listener_that_is_handed_in_is_nobodys_and_one_that_is_handed_on_stays_ones_own() {
    let Some(by) = By::this_kernel(&own_only()) else { return };
    let folder = folder();
    let path = folder.path().join("inherited");
    let listener = UnixListener::bind(&path).unwrap();
    let program = "print(reach('stream', sys.argv[1]))";
    let output = python(&own_only(), program, &[path.to_str().unwrap()], Some(listener.into())).success();
    assert_eq!(output.stdout.trim(), by.no());
    by.check(&output, 1);

    let program = r#"
server = serve("stream", sys.argv[1])
socket.socket(fileno=0).sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [server.fileno()]))])
print(reach("stream", sys.argv[1]))
"#;
    let (ours, theirs) = UnixStream::pair().unwrap();
    let path = folder.path().join("handed-on");
    let output = python(&own_only(), program, &[path.to_str().unwrap()], Some(theirs.into())).success();
    assert_eq!(output.stdout, "ok\n");
    by.check(&output, 0);
    let mut byte = [0];
    (&ours).read_exact(&mut byte).unwrap();
}

/// Ends what goes on beside a test, also when that fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An outsider puts a socket of his in the place of the sandbox's, again and again.
#[test]
fn a_path_that_is_replaced_meanwhile_leads_to_nobody_else() {
    let Some(by) = By::this_kernel(&own_only()) else { return };
    let (folder, is_over) = (folder(), AtomicBool::new(false));
    let path = |name: &str| folder.path().join(name);
    let listener = UnixListener::bind(path("theirs")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let replace = |from: &Path, through: &str| {
        let through = path(through);
        // It stays where it is a link to what is in that place already: then rename(2) does nothing.
        let _ = fs::remove_file(&through);
        if fs::hard_link(from, &through).is_ok() {
            fs::rename(&through, path("place")).unwrap();
        }
    };
    let output = thread::scope(|scope| {
        let _over = Over(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                replace(&path("theirs"), "a");
                replace(&path("own"), "b");
                thread::yield_now();
            }
        });
        let program = r#"
server = serve("stream", f"{sys.argv[1]}/own")
server.listen(4096)
outcomes = {}
while len(outcomes.keys() & {"ok", sys.argv[2]}) < 2 or sum(outcomes.values()) < 200:
    outcome = reach("stream", f"{sys.argv[1]}/place")
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
    if outcome == "ok": server.accept()[0].close()
print(sorted(outcomes))
"#;
        python(&own_only(), program, &[folder.path().to_str().unwrap(), by.no()], None).success()
    });
    assert!(output.stdout.contains(&format!("'{}', 'ok'", by.no())), "{}", output.stdout);
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "an outsider was reached");
}

/// Names of the abstract namespace are kept inside by Landlock as well, where its domain is scoped.
#[test]
fn nobody_elses_abstract_socket_is_reached() {
    if By::this_kernel(&own_only()).is_none() {
        return;
    }
    let name = unique("abstract");
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name[1..]).unwrap()).unwrap();
    let program = "print(reach('stream', sys.argv[1]))";
    let run = |policy: &Value| python(policy, program, &[&name], None).success().stdout;
    assert_eq!(run(&own_only()), "Operation not permitted\n");
    let open = json!({"version": 1, "process": {"allow": ["signals", "abstract-sockets"]}});
    assert_eq!(run(&open), "ok\n", "the control");
    drop(listener);
}

/// A Landlock domain that judges files would refuse to move them from folder to folder.
#[test]
fn files_are_moved_and_linked_as_ever() {
    if By::this_kernel(&own_only()).is_none() {
        return;
    }
    let program = r#"
os.chdir(sys.argv[1])
for folder in "ab": os.mkdir(folder)
open("a/file", "w").close()
server = serve("stream", "a/socket")
for name in ["file", "socket"]:
    os.rename(f"a/{name}", f"b/{name}")
    os.link(f"b/{name}", f"a/{name}")
print(reach("stream", "a/socket"), reach("stream", "b/socket"))
"#;
    let folder = folder();
    let output = python(&own_only(), program, &[folder.path().to_str().unwrap()], None).success();
    assert_eq!(output.stdout, "ok ok\n");
}

/// What a Landlock domain can't keep to, or would refuse beside, is refused before anything starts.
#[test]
fn policies_that_a_landlock_domain_does_not_fit_are_refused() {
    let Some(by) = By::this_kernel(&own_only()) else { return };
    let with = |key: &str, value: Value| {
        let mut policy = own_only();
        policy[key] = value;
        policy
    };
    let rules = |rules: Value| with("unix", json!({"default": "deny", "rules": rules}));
    let own = json!({"action": "allow", "paths": ["sandbox"]});
    let table = [
        (with("mode", json!("audit")), "audit mode"),
        (with("process", json!({"isolation": "cgroup-only"})), "cgroup-only"),
        (with("process", json!({"allow": ["abstract-sockets"]})), "abstract-sockets"),
        (with("process", json!({"allow": ["namespaces"]})), "nobody can mount"),
        (rules(json!([own, {"action": "allow", "paths": ["/run/guard-none"]}])), "the command's own alone"),
        (rules(json!([{"action": "deny", "paths": ["@guard-none"]}, own])), "the command's own alone"),
    ];
    for (policy, word) in table {
        let output = Run::new(&policy, ["true"]).output();
        if by == By::Programs {
            assert_eq!(output.code(), Some(0), "{policy}: {}", output.stderr);
            continue;
        }
        let output = output.exits(125);
        assert!(output.stderr.contains("BPF LSM") && output.stderr.contains(word), "{policy}: {}", output.stderr);
        let checked = Run::new(&policy, ["true"]).subcommand("check", &[]).success();
        assert!(checked.stderr.contains("can't enforce it") && checked.stderr.contains(word), "{}", checked.stderr);
    }
}

#[test]
fn who_asks_for_it_is_told_of_denials_by_landlock_too() {
    let Some(by) = By::this_kernel(&own_only()) else { return };
    let folder = folder();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let _listener = UnixListener::bind(path("theirs")).unwrap();
    let program = "import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
for path in sys.argv[1:]: print(socket.socket(socket.AF_UNIX).connect_ex(path))";
    let run = Run::python(own_only(), program, &[&path("own"), &path("theirs"), &path("none")]).flags(["--diagnose"]);
    let output = run.limit(LIMIT).output().success();
    let (hook, error) = match by {
        By::Programs => ("unix_stream_connect", libc::EPERM),
        By::Landlock => ("landlock", libc::EACCES),
    };
    assert_eq!(output.stdout, format!("0\n{error}\n{}\n", libc::ENOENT));
    let [event] = output.events() else { panic!("{:#}", output.log) };
    assert_eq!(event["hook"], hook, "{event:#}");
    if by == By::Landlock {
        assert_eq!(event["call"], json!({"name": "connect", "path": path("theirs"), "error": "EACCES"}), "{event:#}");
        assert!(event["reason"].as_str().unwrap().contains("own sockets alone"), "{event:#}");
    }
}

/// Landlock reports nothing, so nothing can depend on what it denies, unless the policy says that it need not be reported.
#[test]
fn failing_on_denials_takes_a_policy_that_reports_none_where_landlock_denies() {
    let Some(by) = By::this_kernel(&own_only()) else { return };
    let folder = folder();
    let path = folder.path().join("theirs");
    let _listener = UnixListener::bind(&path).unwrap();
    let program = "import socket, sys\nprint(socket.socket(socket.AF_UNIX).connect_ex(sys.argv[1]))";
    let run =
        |policy: &Value| Run::python(policy, program, &[path.to_str().unwrap()]).flags(["--fail-on-deny"]).output();
    let output = run(&own_only());
    match by {
        By::Programs => drop(output.exits(120)),
        By::Landlock => assert!(output.exits(125).stderr.contains("--fail-on-deny can't tell")),
    }
    let mut quiet = own_only();
    quiet["unix"]["rules"].as_array_mut().unwrap().push(json!({"action": "deny", "report": false}));
    assert_ne!(run(&quiet).success().stdout, "0\n");
}

#[test]
fn real_programs_talk_to_themselves() {
    if By::this_kernel(&own_only()).is_none() {
        return;
    }
    let manager = r#"
if __name__ == "__main__":
    with multiprocessing.Manager() as manager:
        shared = manager.dict()
        worker = multiprocessing.Process(target=shared.__setitem__, args=("answer", 42))
        worker.start(); worker.join()
        print(dict(shared))
"#;
    let output = python(&own_only(), manager, &[], None).success();
    assert_eq!((output.stdout.as_str(), output.events()), ("{'answer': 42}\n", &[][..]), "{:#}", output.log);
    // As tsx does: a parent that listens at a path, and a child that reports to it.
    let ipc = r#"
const net = require("net"), { spawn } = require("child_process"), path = process.argv[1];
net.createServer(socket => socket.on("data", data => { console.log(String(data)); process.exit(0) })).listen(path, () =>
    spawn(process.execPath, ["-e", 'require("net").connect(process.argv[1]).write("hello")', path], { stdio: "inherit" }));
"#;
    let folder = folder();
    let path = folder.path().join("ipc");
    let output = Run::new(own_only(), ["node", "-e", ipc, path.to_str().unwrap()]).output().success();
    assert_eq!((output.stdout.as_str(), output.events()), ("hello\n", &[][..]), "{:#}", output.log);
}

#[test]
fn rules_on_own_sockets_come_in_their_order() {
    let run = |rules: Value| Run::new(json!({"version": 1, "unix": {"default": "deny", "rules": rules}}), ["true"]);
    let run = run(json!([{"action": "deny", "paths": ["@no"]}, {"action": "allow", "paths": ["sandbox", "/run/yes"]}]));
    let explain = |peer: &str, flags: &[&str]| {
        let output = run.subcommand("explain", &[&["unix", "connect", peer], flags].concat());
        // What is denied is explained below that.
        (output.code(), output.stdout.lines().next().unwrap_or_default().to_owned())
    };
    assert_eq!(explain("/run/x", &[]), (Some(1), "unix connect /run/x: denied by default".to_owned()));
    for (peer, flags, rule) in [("/run/x", &["--sandbox"][..], 1), ("/run/yes", &[], 1), ("@yes", &["--sandbox"], 1)] {
        assert_eq!(explain(peer, flags), (Some(0), format!("unix connect {peer}: allowed by /unix/rules/{rule}")));
    }
    assert_eq!(explain("@no", &["--sandbox"]).0, Some(1));
    let checked: Value = serde_json::from_str(&run.subcommand("check", &[]).success().stdout).unwrap();
    assert_eq!(checked["unix"]["rules"][1]["paths"][0], "sandbox");
    assert_eq!(checked["hooks"], json!(["unix_stream_connect", "unix_may_send", "sysctl"]));
}
