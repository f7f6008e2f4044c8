//! Containers under the guard: what their policy denies is denied in them, by every engine, and is in their log.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use serde_json::{Value, json};
use support::{
    TcpServer,
    container::{Cgroups, ENGINES, Engine, Machine, Root, Said, guarded},
    guard_run,
};

/// Denies a port, a device and a tunable.
fn policy() -> Value {
    json!({
        "version": 1,
        "network": {
            "default": "allow",
            "rules": [{"action": "deny", "ops": ["connect"], "protocols": ["tcp"], "hosts": ["any"], "ports": [9090]}]
        },
        "devices": {"default": "allow", "rules": [{"action": "deny", "type": "c", "major": 1, "minor": 7}]},
        "sysctls": {"default": "allow", "rules": [{"action": "deny", "names": ["kernel/hostname"], "access": "r"}]}
    })
}

/// Does all of that, and what is beside it. Full paths, since not every engine sets PATH for a root file system without an image.
const ATTEMPTS: &str = "/bin/nc 127.0.0.1 9090; /bin/nc 127.0.0.1 9091; /bin/cat /proc/sys/kernel/hostname; \
                        /bin/cat /proc/sys/kernel/ostype; /bin/cat /dev/full | /bin/wc -c; echo done";

fn assert_denied(said: &Said) {
    let lines: Vec<&str> = said.stderr.lines().collect();
    let refused = |what: &str, why: &str| lines.iter().any(|line| line.contains(what) && line.contains(why));
    assert!(refused("127.0.0.1", "Operation not permitted"), "{said:?}");
    assert!(refused("127.0.0.1", "Connection refused"), "the port beside it is not denied: {said:?}");
    assert!(lines.iter().filter(|line| line.contains("Operation not permitted")).count() >= 3, "{said:?}");
    assert!(refused("/dev/full", "Operation not permitted"), "{said:?}");
    assert_eq!(said.stdout, "Linux\n0\ndone\n", "{said:?}");
}

/// What was denied, in order. (How often is up to the client: cat(1) reads again in another way.)
fn denials(log: &Value) -> Vec<&str> {
    let events = log["events"].as_array().expect("a log has events");
    events.iter().map(|event| event["op"].as_str().expect("an event has an op")).collect()
}

/// A machine with a policy file, and the flags for it. The log is `log.json`.
fn machine(engine: Engine) -> (Machine, [String; 2]) {
    let machine = Machine::new(engine);
    let policy = machine.write("policy.json", &policy().to_string());
    let flags = guarded(&policy, &machine.folder().join("log.json"));
    (machine, flags)
}

fn each(engines: &[Engine], test: impl Fn(&Machine, &[&str])) {
    for engine in engines {
        eprintln!("{engine:?}");
        let (machine, flags) = machine(*engine);
        test(&machine, &[&flags[0], &flags[1]]);
    }
}

/// Nothing is left of a container that has been removed.
fn assert_nothing_left(machine: &Machine, id: &str) {
    assert_eq!(machine.pins(), Vec::<String>::new());
    assert_eq!(machine.cgroups(id), Vec::<std::path::PathBuf>::new());
}

const CRUN: Engine = (Root::Newer, Cgroups::Pure, "crun");
const RUNC: Engine = (Root::Own, Cgroups::Pure, "runc");

#[test]
fn what_a_policy_denies_is_denied_inside_and_in_the_log() {
    each(&ENGINES, |machine, flags| {
        let flags = [flags, &["--rm", "--name=c1"]].concat();
        let said = machine.script(&flags, ATTEMPTS).good();
        assert_denied(&said);
        let log = machine.log("log.json");
        assert_eq!(denials(&log), ["connect", "sysctl", "device"], "{log:#}");
        let id = log["container"]["id"].as_str().unwrap();
        let command = log["command"].as_array().unwrap();
        assert!(command[2].as_str().unwrap().ends_with(ATTEMPTS) && command.len() == 3, "{log:#}");
        assert!(log["container"]["bundle"].as_str().unwrap().contains(id), "{log:#}");
        let policy = machine.folder().join("policy.json");
        assert_eq!(log["container"]["annotations"]["io.guard-run.policy"], json!(policy));
        assert_eq!(log["policy"]["path"], json!(policy));
        assert_eq!((&log["policy"]["mode"], &log["lost"]), (&json!("enforce"), &json!(0)));
        assert_eq!((log.get("exit"), &log["enforced"]["exec"]), (None, &json!(true)), "{log:#}");
        assert_eq!(log["enforced"]["hardening"], "container engine");
        assert!(log["enforced"]["cgroup"].as_str().unwrap().contains(id), "{log:#}");
        let connect = &log["events"][0];
        assert_eq!((&connect["process"]["comm"], &connect["process"]["uid"]), (&json!("nc"), &json!(0)));
        assert_eq!((&connect["rule"], &connect["network"]["port"]), (&json!("/network/rules/0"), &json!(9090)));
        let hooks = log["enforced"]["hooks"].as_array().unwrap();
        let connect4 = hooks.iter().find(|hook| hook["hook"] == "connect4").unwrap();
        assert_eq!((&connect4["allowed"], &connect4["denied"]), (&json!(1), &json!(1)), "{log:#}");
        let schema = serde_json::from_str(include_str!("../../schema/log.schema.json")).unwrap();
        jsonschema::draft202012::new(&schema).unwrap().validate(&log).expect("the log is what its schema says");
        assert_nothing_left(machine, id);
    });
}

#[test]
fn a_container_without_an_annotation_is_left_alone() {
    each(&[CRUN, RUNC], |machine, _| {
        let said = machine.script(&["--rm"], "/bin/nc 127.0.0.1 9090; /bin/cat /proc/sys/kernel/hostname");
        assert!(said.good().stderr.contains("Connection refused"));
        assert_eq!(machine.pins(), Vec::<String>::new());
        assert!(!machine.folder().join("log.json").exists());
    });
}

#[test]
fn what_is_executed_in_a_container_later_is_guarded_too() {
    each(&ENGINES, |machine, flags| {
        let flags = [flags, &["--detach", "--name=c1"]].concat();
        let _ = machine.container(&flags, &["/bin/sleep", "1000"]).good();
        let id = machine.id("c1");
        for _ in 0..2 {
            assert_denied(&machine.exec("c1", ATTEMPTS).good());
        }
        let _ = machine.podman(&["rm", "--force", "--time=0", "c1"]).good();
        let log = machine.log("log.json");
        assert_eq!(denials(&log), ["connect", "sysctl", "device"].repeat(2), "{log:#}");
        assert_nothing_left(machine, &id);
    });
}

#[test]
fn namespaces_and_privileges_make_no_difference() {
    let server = TcpServer::start("127.0.0.1");
    let port = server.port().to_string();
    for engine in [CRUN, RUNC] {
        let (machine, flags) = machine(engine);
        let mut narrower = policy();
        narrower["network"]["rules"][0]["ports"] = json!([server.port()]);
        narrower["process"] = json!({"capabilities": [
            "CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF", "CAP_SYS_ADMIN", "CAP_SYS_MODULE"
        ]});
        machine.write("policy.json", &narrower.to_string());
        for more in [
            &["--pid=host"][..],
            &["--privileged"],
            &["--network=host"],
            &["--userns=host", "--ipc=host", "--cgroupns=host"],
        ] {
            let flags = [&[flags[0].as_str(), &flags[1], "--rm"], more].concat();
            let script =
                format!("/bin/nc {} {port}; /bin/cat /dev/full /proc/sys/kernel/hostname", server.address().ip());
            let said = machine.script(&flags, &script);
            let refused = said.stderr.matches("Operation not permitted").count();
            assert_eq!(refused, 3, "{engine:?} {more:?} {said:?}");
            let log = machine.log("log.json");
            assert_eq!(denials(&log), ["connect", "device", "sysctl"], "{more:?} {log:#}");
            assert_eq!(machine.pins(), Vec::<String>::new(), "{more:?}");
        }
    }
}

#[test]
fn one_policy_serves_commands_and_containers_and_the_log_says_what_was_left_to_the_engine() {
    for engine in [CRUN, RUNC] {
        let (machine, flags) = machine(engine);
        let mut both = policy();
        both["process"] =
            json!({"isolation": "full", "allow": ["namespaces", "sysctls"], "families": ["vsock"], "capabilities": []});
        let file = machine.write("policy.json", &both.to_string());
        let command =
            Command::new(guard_run()).arg("--policy").arg(&file).args(["--log", "/dev/null", "--", "true"]).status();
        assert!(command.unwrap().success());
        let said = machine.script(&[&flags[0], &flags[1], "--rm"], ATTEMPTS).good();
        assert_denied(&said);
        let log = machine.log("log.json");
        let left = ["/process/allow", "/process/families", "/process/isolation"];
        assert_eq!(log["enforced"]["left_to_engine"], json!(left), "{log:#}");
        let schema = serde_json::from_str(include_str!("../../schema/log.schema.json")).unwrap();
        jsonschema::draft202012::new(&schema).unwrap().validate(&log).expect("the log is what its schema says");
    }
}

/// What must keep a container from starting, and words of the message for it.
fn faults(machine: &Machine) -> Vec<(Vec<String>, &'static str)> {
    let policy = |path: &Path| format!("--annotation=io.guard-run.policy={}", path.display());
    let good = policy(&machine.write("good.json", r#"{"version": 1, "network": {"default": "deny"}}"#));
    let log = |path: &str| format!("--annotation=io.guard-run.log={path}");
    let open = machine.write("open.json", r#"{"version": 1}"#);
    fs::set_permissions(&open, fs::Permissions::from_mode(0o666)).unwrap();
    let theirs = machine.write("theirs.json", r#"{"version": 1}"#);
    std::os::unix::fs::chown(&theirs, Some(4242), None).unwrap();
    vec![
        (vec![policy(&machine.folder().join("absent.json"))], "absent.json: there is no such file"),
        (vec![policy(&machine.write("wrong.json", "{\"version\": 1, \"netwrok\": {}}"))], "did you mean \"network\"?"),
        (vec![policy(&machine.write("text.json", "no policy"))], "not JSON"),
        (
            vec![policy(&machine.write("process.json", r#"{"version": 1, "process": {"alow": []}}"#))],
            "unknown key \"alow\"",
        ),
        (vec![policy(Path::new("policy.json"))], "write an absolute path, not \"policy.json\""),
        (vec![policy(machine.folder())], "not a regular file"),
        (vec![policy(&open)], "others than root can write it"),
        (vec![policy(&theirs)], "others than root can write it"),
        (vec!["--annotation=io.guard-run.polcy=/x".to_owned()], "unknown annotation io.guard-run.polcy"),
        (vec![log("/x")], "no annotation io.guard-run.policy"),
        (vec![good.clone(), log("log")], "write an absolute path, not \"log\""),
        (vec![good.clone(), log("/absent/log")], "/absent/log is outside of /var/log/guard-run"),
        (vec![good, log("/dev/full")], "/dev/full is outside of /var/log/guard-run"),
    ]
}

#[test]
fn a_container_that_cant_be_guarded_does_not_start() {
    for engine in [RUNC, CRUN] {
        let machine = Machine::new(engine);
        for (flags, message) in faults(&machine) {
            let flags: Vec<&str> = flags.iter().map(String::as_str).chain(["--name=c1"]).collect();
            let said = machine.container(&flags, &["/bin/touch", "/started"]);
            assert_ne!(said.code, Some(0), "{flags:?} {said:?}");
            assert!(!machine.rootfs().join("started").exists(), "{flags:?} {said:?}");
            // crun throws away what hooks say.
            let expected = if engine == CRUN { "error executing hook" } else { message };
            assert!(said.stderr.contains(expected), "{flags:?} {said:?}");
            assert_eq!(said.stderr.trim().lines().count(), 1, "{flags:?} {said:?}");
            let id = machine.id("c1");
            let _ = machine.podman(&["rm", "c1"]).good();
            assert_nothing_left(&machine, &id);
        }
    }
}

#[test]
fn without_a_bpf_file_system_a_container_does_not_start_and_is_told_why() {
    let (machine, flags) = machine(RUNC);
    let _ = machine.run("umount", &["/sys/fs/bpf"]).good();
    let said = machine.container(&[&flags[0], &flags[1]], &["/bin/touch", "/started"]);
    assert!(said.stderr.contains("mount -t bpf bpf /sys/fs/bpf"), "{said:?}");
    assert!(!machine.rootfs().join("started").exists());
}

#[test]
fn each_of_two_containers_has_its_own_policy() {
    each(&[CRUN, RUNC], |machine, _| {
        for (name, port) in [("one", 9090), ("two", 9091)] {
            let mut own = policy();
            own["network"]["rules"][0]["ports"] = json!([port]);
            let own = machine.write(&format!("{name}.json"), &own.to_string());
            let flags = guarded(&own, &machine.folder().join(format!("{name}.log")));
            let name = format!("--name={name}");
            let _ = machine.container(&[&flags[0], &flags[1], &name, "--detach"], &["/bin/sleep", "1000"]).good();
        }
        for (name, denied, refused) in [("one", 9090, 9091), ("two", 9091, 9090)] {
            for (port, why) in [(denied, "Operation not permitted"), (refused, "Connection refused")] {
                let said = machine.exec(name, &format!("/bin/nc 127.0.0.1 {port}"));
                assert!(said.stderr.contains(why), "{name} {port} {said:?}");
            }
        }
        for name in ["one", "two"] {
            let _ = machine.podman(&["rm", "--force", "--time=0", name]).good();
            let log = machine.log(&format!("{name}.log"));
            assert_eq!(denials(&log), ["connect"], "{log:#}");
        }
        assert_eq!(machine.pins(), Vec::<String>::new());
    });
}

#[test]
fn a_hundred_containers_leave_nothing_behind() {
    let (machine, flags) = machine(CRUN);
    let logs = machine.folder().join("logs");
    fs::create_dir(&logs).unwrap();
    let log = format!("--annotation=io.guard-run.log={}", logs.display());
    for _ in 0..100 {
        let said = machine.script(&[&flags[0], &log, "--rm"], "/bin/nc 127.0.0.1 9090");
        assert!(said.stderr.contains("Operation not permitted"), "{said:?}");
    }
    assert_eq!(machine.pins(), Vec::<String>::new());
    let logs: Vec<_> = fs::read_dir(logs).unwrap().map(|log| log.unwrap().path()).collect();
    assert_eq!(logs.len(), 100, "a run adds its log to the folder");
    for log in logs {
        let log: Value = serde_json::from_slice(&fs::read(log).unwrap()).unwrap();
        assert_eq!(denials(&log), ["connect"], "{log:#}");
        assert_eq!(machine.cgroups(log["container"]["id"].as_str().unwrap()), Vec::<std::path::PathBuf>::new());
    }
}
