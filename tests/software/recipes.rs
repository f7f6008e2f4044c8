//! What the documents tell people to type works, with the programs that it is about; and `check` says what a policy allows in vain.

use std::fs;

use serde_json::{Value, json};
use support::{
    Output, Run,
    kernel::{Feature, lacks},
};

/// A file of the repository.
fn repository(name: &str) -> String {
    let path = format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A policy that denies a device, and disables parts of what keeps a command inside.
fn policy(process: &Value) -> Value {
    let mut process = process.clone();
    // A Landlock without scopes can't keep a domain apart without refusing to mount, too.
    if let (true, Some(parts)) = (lacks(Feature::LandlockScopes), process["allow"].as_array_mut()) {
        parts.push("tracing".into());
    }
    let rules = json!([{"action": "deny", "type": "c", "major": 1, "minor": 5}]);
    json!({"version": 1, "devices": {"default": "allow", "rules": rules}, "process": process})
}

#[test]
fn bubblewrap_works_inside_with_what_the_documents_name_and_stays_guarded() {
    let with_proc = ["--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--proc", "/proc", "--unshare-pid"];
    let all = [&with_proc[..], &["--unshare-all"]].concat();
    let run = |process: &Value, flags: &[&str], words: &[&str]| {
        let script = ["sh", "-c", "head -c 0 /dev/zero || readlink /proc/self | grep -q . && echo inside"];
        Run::new(policy(process), [&["bwrap"], words, &script].concat()).flags(flags).output()
    };
    let (namespaces, nobody) = (json!({"allow": ["namespaces"]}), ["--user", "nobody"]);
    let as_root = json!({"allow": ["namespaces"], "capabilities": ["CAP_SYS_ADMIN"]});
    let as_root_in_its_own = json!({"allow": ["namespaces", "kernel-files"]});
    let table: [(&Value, &[&str], &[&str]); 5] = [
        (&namespaces, &nobody, &with_proc),
        (&namespaces, &nobody, &all),
        (&as_root, &[], &["--dev-bind", "/", "/"]),
        (&as_root, &[], &with_proc),
        (&as_root_in_its_own, &[], &all),
    ];
    for (process, flags, words) in table {
        let output = run(process, flags, words).success();
        assert_eq!((output.stdout.as_str(), output.denied()), ("inside\n", 1), "{process} {flags:?} {words:?}");
    }
    // The control: without what is named, it doesn't.
    assert_ne!(run(&namespaces, &[], &with_proc).code(), Some(0));
    assert_ne!(run(&json!({}), &nobody, &with_proc).code(), Some(0));
}

#[test]
fn ping_works_under_its_example_and_reaches_nobody_else() {
    // A network namespace with addresses inside and outside of what the example allows.
    let network =
        "ip link set lo up && ip addr add 10.77.0.1/32 dev lo && ip addr add 192.0.2.77/32 dev lo && exec \"$@\"";
    let run = |policy: String, address: &str| -> Output {
        let command = ["ping", "-c", "1", "-W", "2", address];
        Run::new(policy, command).through(["unshare", "--net", "sh", "-c", network, "sh"]).output()
    };
    let example = repository("examples/ping.json");
    let _ = run(example.clone(), "10.77.0.1").success();
    let denied = run(example.clone(), "192.0.2.77");
    assert!(denied.code() != Some(0) && denied.denied() > 0, "{denied:?}");
    // The control: without the capability, there is no raw socket for a ping that wants one.
    let mut without: Value = serde_json::from_str(&example).unwrap();
    without.as_object_mut().unwrap().remove("process");
    let diagnosed = Run::python(without, "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", &[]);
    assert_eq!(diagnosed.output().code(), Some(1));
}

#[test]
fn a_device_node_is_made_with_the_capability_that_check_names() {
    let rules = json!([{"action": "allow", "type": "c", "major": 1, "minor": 7, "access": "m"}]);
    let mut policy = json!({"version": 1, "devices": {"default": "deny", "rules": rules}});
    let folder = tempfile::tempdir().unwrap();
    let node = folder.path().join("node").display().to_string();
    let make = |policy: &Value| Run::shell(policy, "mknod \"$1\" c 1 7 && rm \"$1\"", &[&node]).output().code();
    assert_eq!(make(&policy), Some(1));
    let said = notes(&policy).pop().expect("a note");
    let section = said.split_once("\"process\": ").unwrap().1;
    policy["process"] = serde_json::from_str(section).unwrap();
    assert_eq!((make(&policy), notes(&policy)), (Some(0), Vec::<String>::new()));
}

/// What `check` notes about a policy.
fn notes(policy: &Value) -> Vec<String> {
    let output = Run::new(policy.clone(), ["true"]).subcommand("check", &[]).success();
    let printed: Value = serde_json::from_str(&output.stdout).unwrap();
    let notes = printed["notes"].as_array().cloned().unwrap_or_default();
    notes.iter().map(|note| note.as_str().unwrap().to_owned()).collect()
}

#[test]
fn check_says_which_capability_is_missing_for_what_a_policy_allows() {
    let table = [
        (json!({"process": {"allow": ["namespaces"]}}), "/process/allow", "CAP_SYS_ADMIN"),
        (json!({"process": {"allow": ["bpf"]}}), "/process/allow", "CAP_BPF"),
        (json!({"process": {"families": ["packet"]}}), "/process/families", "CAP_NET_RAW"),
        (
            json!({"sockets": {"default": "deny", "rules": [{"action": "allow", "type": "raw"}]}}),
            "/sockets/rules/0",
            "CAP_NET_RAW",
        ),
    ];
    for (mut policy, place, capability) in table {
        policy["version"] = 1.into();
        let said = notes(&policy);
        let [note] = &said[..] else { panic!("{policy}: {said:?}") };
        assert!(note.starts_with(place) && note.contains(capability), "{note}");
        policy["process"]["capabilities"] = json!([capability]);
        assert_eq!(notes(&policy), Vec::<String>::new());
    }
    let in_vain = json!({"version": 1, "process": {"isolation": "cgroup-only"},
        "sockets": {"default": "deny", "rules": [{"action": "allow", "type": "raw"}]}});
    assert_eq!(notes(&in_vain), Vec::<String>::new(), "then it keeps all that it has");
}
