//! `"paths": ["sandbox"]`: Unix sockets that the command has made itself can be reached, and nobody else's, by any name
//! and no matter which process holds them.

use std::{
    fs,
    io::{ErrorKind, Read as _},
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixListener, UnixStream},
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

/// A policy that this kernel can't enforce is refused, with the reason. True if it was.
fn is_refused(policy: &Value) -> bool {
    if !kernel::lacks(Feature::BpfLsm) {
        return false;
    }
    let output = Run::new(policy, ["true"]).output().exits(125);
    for word in ["unix_stream_connect", "BPF LSM", "6.0", &kernel::release()] {
        assert!(output.stderr.contains(word), "{word} is missing: {}", output.stderr);
    }
    true
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
    if is_refused(&own_only()) {
        return;
    }
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
    assert_eq!((output.stdout.as_str(), output.events()), (expected.as_str(), &[][..]), "{:#}", output.log);

    let folder = self::folder();
    let deny = json!({"version": 1, "unix": {"default": "deny"}});
    let denied = python(&deny, program, &[folder.path().to_str().unwrap(), &unique("denied")], None).success();
    assert_eq!(denied.stdout, expected.replace("ok", "Operation not permitted"), "the control");
}

#[test]
fn nobody_elses_socket_is_reached_whatever_its_name() {
    if is_refused(&own_only()) {
        return;
    }
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
    let no = "Operation not permitted";
    assert_eq!(output.stdout, format!("{no}\n{no}\n{no}\nok\n{no}\n"));
    assert_eq!(output.denied(), 4);
    assert!(output.events().iter().all(|event| event["rule"] == "default"), "{:#}", output.log);
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
    if is_refused(&own_only()) {
        return;
    }
    let folder = folder();
    let path = folder.path().join("inherited");
    let listener = UnixListener::bind(&path).unwrap();
    let program = "print(reach('stream', sys.argv[1]))";
    let output = python(&own_only(), program, &[path.to_str().unwrap()], Some(listener.into())).success();
    assert_eq!((output.stdout.as_str(), output.denied()), ("Operation not permitted\n", 1));

    let program = r#"
server = serve("stream", sys.argv[1])
socket.socket(fileno=0).sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [server.fileno()]))])
print(reach("stream", sys.argv[1]))
"#;
    let (ours, theirs) = UnixStream::pair().unwrap();
    let path = folder.path().join("handed-on");
    let output = python(&own_only(), program, &[path.to_str().unwrap()], Some(theirs.into())).success();
    assert_eq!((output.stdout.as_str(), output.denied()), ("ok\n", 0));
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
    if is_refused(&own_only()) {
        return;
    }
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
while len(outcomes.keys() & {"ok", "Operation not permitted"}) < 2 or sum(outcomes.values()) < 200:
    outcome = reach("stream", f"{sys.argv[1]}/place")
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
    if outcome == "ok": server.accept()[0].close()
print(sorted(outcomes))
"#;
        python(&own_only(), program, &[folder.path().to_str().unwrap()], None).success()
    });
    assert!(output.stdout.contains("'Operation not permitted', 'ok'"), "{}", output.stdout);
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "an outsider was reached");
}

#[test]
fn real_programs_talk_to_themselves() {
    if is_refused(&own_only()) {
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
