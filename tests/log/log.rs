//! What the log says: what was enforced, by which programs, how often, and each denial with its process and rule.

use std::{io, process::Command};

use serde_json::{Value, json};
use support::{Output, PYTHON, Run, TcpServer, cgroup_only, eventually, leaves_of};

/// Connects TCP sockets to a port of 127.0.0.1, so often: "PORT TIMES" for each pair of arguments. Errors don't matter.
const CONNECT: &str = "import socket, sys
for port, times in zip(sys.argv[1::2], sys.argv[2::2]):
    for _ in range(int(times)):
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).connect_ex(('127.0.0.1', int(port)))";

fn deny_port_9() -> Value {
    json!({"version": 1, "network": {"default": "allow", "rules": [{"action": "deny", "ports": [9]}]}})
}

fn text_of(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether a time is RFC 3339 in UTC with nine digits of a second; such times sort as text.
fn is_time(value: &Value) -> bool {
    let shape = "0000-00-00T00:00:00.000000000Z";
    let digit = |byte: u8| if byte.is_ascii_digit() { b'0' } else { byte };
    value.as_str().is_some_and(|text| text.bytes().map(digit).eq(shape.bytes()))
}

#[test]
fn the_top_level_says_what_was_run_and_what_was_enforced() {
    let run = Run::python(deny_port_9(), CONNECT, &["9", "1"]);
    let output = run.output().success();
    let log = &output.log;
    let keys: Vec<&String> = log.as_object().unwrap().keys().collect();
    let expected = ["command", "ended", "enforced", "events", "exit", "lost", "policy", "schema", "started", "user"];
    assert_eq!(keys, expected);
    assert_eq!((&log["schema"], &log["lost"]), (&json!(1), &json!(0)));
    let program = run.folder().join("program.py");
    assert_eq!(log["command"], json!([PYTHON, program, "9", "1"]));
    assert_eq!(log["user"], json!({"uid": 0, "gid": 0, "name": "root"}));
    assert_eq!(log["exit"], json!({"code": 0, "killed": 0}));

    let mut sha256sum = Command::new("sha256sum");
    sha256sum.arg(run.policy());
    let sum = text_of(sha256sum);
    let sum = sum.split(' ').next().unwrap();
    assert_eq!(log["policy"], json!({"path": run.policy(), "sha256": sum, "mode": "enforce"}));

    let enforced = &log["enforced"];
    let mut uname = Command::new("uname");
    uname.arg("-r");
    assert_eq!(enforced["kernel"], text_of(uname).trim());
    let cgroup = enforced["cgroup"].as_str().unwrap();
    assert!(cgroup.starts_with(support::cgroup2_mount().to_str().unwrap()), "{cgroup}");
    assert!(cgroup.contains(&format!("/guard-run.{}.", output.pid)), "{cgroup}");
    assert_eq!(enforced["unrestricted"], json!(["unix", "devices", "sysctls", "sockopts"]));
    let hardening = &enforced["hardening"];
    assert_eq!(hardening["isolation"], "full");
    assert!(hardening["parts"].as_array().unwrap().contains(&json!("namespaces")), "{hardening}");
    let kept = hardening["capabilities"].as_array().unwrap();
    assert!(kept.contains(&json!("CAP_CHOWN")) && !kept.contains(&json!("CAP_SYS_ADMIN")), "{hardening}");
}

#[test]
fn hooks_are_named_with_the_programs_that_the_kernel_has_attached() {
    let policy = json!({"version": 1, "network": {"default": "deny"}, "devices": {"default": "allow", "rules": [
                            {"action": "deny", "major": 4095}]}, "sysctls": {"default": "deny"},
                        "sockopts": {"default": "deny"}});
    let (end, writer) = io::pipe().unwrap();
    let mut running = Run::shell(&policy, "echo ready; read -r _; true", &[]).flags(["--fresh"]).stdin(end).start();
    running.wait_for("ready");
    let [leaf] = &leaves_of(running.pid())[..] else { panic!("one leaf") };
    let mut attached = Command::new(PYTHON);
    attached.args(["-c", include_str!("../probes/attached.py")]).arg(leaf);
    let attached = text_of(attached);
    drop(writer);
    let output = running.wait().success();
    let hooks = output.log["enforced"]["hooks"].as_array().unwrap();
    let named: Vec<String> = hooks
        .iter()
        .map(|hook| {
            format!("{} {} {}", hook["hook"].as_str().unwrap(), hook["program_id"], hook["tag"].as_str().unwrap())
        })
        .collect();
    assert_eq!(named, attached.lines().collect::<Vec<_>>());
    assert_eq!(named.len(), 13);
}

#[test]
fn sections_that_are_left_out_have_no_hooks_and_are_called_unrestricted() {
    let network = [
        "connect4",
        "connect6",
        "bind4",
        "bind6",
        "sendmsg4",
        "sendmsg6",
        "ingress",
        "sock_create",
        "sock_ops",
        "setsockopt",
    ];
    let all = [&network[..9], &["device", "sysctl", "setsockopt"]].concat();
    let table: [(Value, &[&str], &[&str]); 6] = [
        (json!({"version": 1}), &[], &["network", "unix", "devices", "sysctls", "sockets", "sockopts"]),
        (json!({"version": 1, "network": {"default": "deny"}}), &network, &["unix", "devices", "sysctls", "sockopts"]),
        (
            json!({"version": 1, "devices": {"default": "deny", "rules": [{"action": "allow"}]}}),
            &["device"],
            &["network", "unix", "sysctls", "sockets", "sockopts"],
        ),
        (
            json!({"version": 1, "sysctls": {"default": "deny", "rules": [{"action": "allow"}]}}),
            &["sysctl"],
            &["network", "unix", "devices", "sockets", "sockopts"],
        ),
        // A section that denies nothing is as good as none.
        (
            json!({"version": 1, "network": {"default": "allow"}, "devices": {"default": "allow"}, "sysctls": {"default":
            "allow", "rules": [{"action": "allow"}]}, "sockets": {"default": "allow"}}),
            &[],
            &["network", "unix", "devices", "sysctls", "sockets", "sockopts"],
        ),
        (
            json!({"version": 1, "network": {"default": "deny"}, "devices": {"default": "deny", "rules": [{"action": "allow"}]},
                "sysctls": {"default": "allow", "rules": [{"action": "deny", "names": ["kernel/none"]}]}}),
            &all,
            &["unix", "sockopts"],
        ),
    ];
    for (policy, expected, unrestricted) in table {
        let output = Run::new(cgroup_only(&policy), ["true"]).output().success();
        let enforced = &output.log["enforced"];
        let hooks: Vec<&Value> = enforced["hooks"].as_array().unwrap().iter().map(|hook| &hook["hook"]).collect();
        assert_eq!(
            (hooks, &enforced["unrestricted"]),
            (expected.iter().map(|name| json!(name)).collect::<Vec<_>>().iter().collect(), &json!(unrestricted))
        );
        assert!(output.events().is_empty());
    }
}

#[test]
fn requests_are_counted_exactly() {
    const PROGRAM: &str = "import os, socket
def times(count, function):
    for _ in range(count):
        try: function()
        except (PermissionError, ConnectionRefusedError): pass
def connect(family, address, port):
    with socket.socket(family, socket.SOCK_STREAM) as s: s.connect((address, port))
times(11, lambda: connect(socket.AF_INET, '127.0.0.1', 9))
times(12, lambda: connect(socket.AF_INET, '127.0.0.1', 10))
times(13, lambda: connect(socket.AF_INET6, '::1', 9))
times(14, lambda: connect(socket.AF_INET6, '::ffff:127.0.0.1', 9))
times(15, lambda: connect(socket.AF_INET6, '::1', 10))
times(16, lambda: os.close(os.open('/dev/full', os.O_RDONLY)))
times(17, lambda: os.close(os.open('/dev/zero', os.O_RDONLY)))
times(18, lambda: open('/proc/sys/kernel/hostname').read())
times(19, lambda: os.read(os.open('/proc/sys/kernel/ostype', os.O_RDONLY), 100))";
    let policy = json!({"version": 1,
        "network": {"default": "allow", "rules": [{"action": "deny", "ports": [9]}]},
        "devices": {"default": "allow", "rules": [{"action": "deny", "type": "c", "major": 1, "minor": 7}]},
        "sysctls": {"default": "allow", "rules": [{"action": "deny", "names": ["kernel/hostname"]}]}});
    let output = Run::python(&policy, PROGRAM, &[]).output().success();
    for (hook, denied, allowed) in [("connect4", 11, 12), ("connect6", 27, 15), ("device", 16, 17), ("sysctl", 18, 19)]
    {
        let counters = output.hook(hook);
        assert_eq!((&counters["denied"], &counters["allowed"]), (&json!(denied), &json!(allowed)), "{counters:#}");
        assert_eq!((&counters["audited"], &counters["unrecorded"]), (&json!(0), &json!(0)));
    }
    let counts: Vec<&Value> = output.events().iter().map(|event| &event["count"]).collect();
    assert_eq!(counts, [&json!(11), &json!(13), &json!(14), &json!(16), &json!(18)]);
}

#[test]
fn each_process_has_events_of_its_own_and_they_are_in_order() {
    let script = "for times in 3 5 7; do \"$1\" -c \"$2\" 9 $times 10 1; done";
    let output = Run::shell(deny_port_9(), script, &[PYTHON, CONNECT]).output().success();
    let counts: Vec<&Value> = output.events().iter().map(|event| &event["count"]).collect();
    assert_eq!(counts, [&json!(3), &json!(5), &json!(7)]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut times = vec![text(&output.log["started"])];
    for event in output.events() {
        assert!(["time", "first", "last"].iter().all(|key| is_time(&event[*key])), "{event:#}");
        assert_eq!(event["time"], event["first"]);
        times.extend([text(&event["first"]), text(&event["last"])]);
    }
    times.push(text(&output.log["ended"]));
    assert!(is_time(&output.log["started"]) && is_time(&output.log["ended"]));
    assert!(times.is_sorted(), "{times:?}");
}

/// A process that is denied something and then waits for its standard input to end, so that there is all the time in the
/// world to look at it; as another user, and the child of a shell.
#[test]
fn an_event_tells_who_did_what_and_which_rule_decided() {
    const PROGRAM: &str = "import os, socket, sys
print(os.getpid(), os.getppid(), flush=True)
socket.socket(socket.AF_INET, socket.SOCK_STREAM).connect_ex(('127.0.0.1', 9))
sys.stdin.read()";
    let (end, writer) = io::pipe().unwrap();
    let run = Run::shell(deny_port_9(), "\"$1\" -c \"$2\" 'an argument'; true", &[PYTHON, PROGRAM]).stdin(end);
    let live = run.folder().join("events.jsonl");
    let run = run.flags(["--user", "nobody", "--events", live.to_str().unwrap()]);
    let running = run.start();
    let lines = || std::fs::read_to_string(&live).unwrap_or_default();
    eventually("the event is in the file while the command runs", || lines().ends_with('\n'));
    let early: Value = serde_json::from_str(&lines()).unwrap();
    drop(writer);
    let output = running.wait().success();
    let [event] = output.events() else { panic!("{:#}", output.log) };
    assert_eq!(*event, early);

    let ids: Vec<u32> = output.stdout.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let executable = std::fs::canonicalize(PYTHON).unwrap();
    assert_eq!(
        event["process"],
        json!({
            "pid": ids[0], "uid": 65534, "comm": "python3", "exe": executable,
            "argv": [PYTHON, "-c", PROGRAM, "an argument"],
            "parent": {"pid": ids[1], "comm": "bash"}
        })
    );
    let keys: Vec<&String> = event.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["count", "first", "hook", "last", "network", "op", "process", "rule", "time", "verdict"]);
    assert_eq!(event["network"], json!({"address": "127.0.0.1", "port": 9, "protocol": "tcp", "host": null}));
    let rest = ["op", "hook", "verdict", "rule", "count"].map(|key| &event[key]);
    assert_eq!(rest, [&json!("connect"), &json!("connect4"), &json!("denied"), &json!("/network/rules/0"), &json!(1)]);
    assert_eq!(output.log["user"], json!({"uid": 65534, "gid": 65534, "name": "nobody"}));
}

#[test]
fn the_end_of_the_command_is_its_status_or_signal_and_what_was_killed() {
    let end = |script: &str, flags: &[&str]| -> Output { Run::shell(deny_port_9(), script, &[]).flags(flags).output() };
    assert_eq!(end("exit 3", &[]).exits(3).log["exit"], json!({"code": 3, "killed": 0}));
    assert_eq!(end("kill -USR1 $$", &[]).exits(128 + 10).log["exit"], json!({"signal": 10, "killed": 0}));
    let left = end("sleep 1000 & sleep 1000 & exit 3", &["--wait", "child"]).exits(3);
    assert_eq!(left.log["exit"], json!({"code": 3, "killed": 2}));
}

#[test]
fn sockets_that_the_command_inherits_are_named() {
    let server = TcpServer::start("127.0.0.1");
    let (stdin, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let open = format!("exec 7<>/dev/tcp/127.0.0.1/{}; exec \"$@\"", server.port());
    let run = Run::new(deny_port_9(), ["true"]).stdin(stdin).through(["bash", "-c", &open, "bash"]);
    let closed = run.output().success();
    let named: Vec<&Value> =
        closed.log["enforced"]["inherited"].as_array().unwrap().iter().map(|one| &one["fd"]).collect();
    assert_eq!(named, [&json!(0)], "the other one is closed");
    let run = run.flags(["--preserve-fds", "5"]);
    let output = run.output().success();
    let inherited = output.log["enforced"]["inherited"].as_array().unwrap();
    let by_fd = |fd: u32| inherited.iter().find(|socket| socket["fd"] == fd).unwrap_or(&Value::Null);
    assert_eq!((&by_fd(7)["family"], &by_fd(7)["peer"]), (&json!("inet"), &json!(server.address().to_string())));
    assert_eq!(by_fd(0)["family"], "unix");
    assert!(by_fd(7)["socket"].as_str().unwrap().starts_with("socket:["));
    // The server's own socket is closed when something is executed, so nobody inherits it.
    assert!(inherited.iter().all(|socket| socket["local"] != server.address().to_string()), "{inherited:#?}");
}
