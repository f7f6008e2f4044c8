//! `check` says what a policy allows in vain, and what to add: without that, it doesn't work, and with it, there is no note.

use serde_json::{Value, json};
use support::{
    PYTHON, Run,
    kernel::{Feature, lacks},
};

/// What `check` notes about a policy.
fn notes(policy: &Value) -> Vec<String> {
    // As it is written: what this kernel lacks is nothing to `check`.
    let output = Run::new(policy.to_string(), ["true"]).subcommand("check", &[]).success();
    let printed: Value = serde_json::from_str(&output.stdout).unwrap();
    let notes = printed["notes"].as_array().cloned().unwrap_or_default();
    notes.iter().map(|note| note.as_str().unwrap().to_owned()).collect()
}

/// The policy's section `process`, as the only note says that it has to be.
fn asked_for(policy: &Value, place: &str) -> Value {
    let said = notes(policy);
    let [note] = &said[..] else { panic!("{policy}: {said:?}") };
    assert!(note.starts_with(place), "{note}");
    serde_json::from_str(note.split_once("\"process\": ").unwrap().1).unwrap()
}

#[test]
fn whatever_a_rule_names_that_takes_more_than_a_rule_is_noted() {
    let devices = |rule: &Value| json!({"version": 1, "devices": {"default": "deny", "rules": [rule]}});
    let node = |major: u32, minor: u32| json!({"action": "allow", "type": "c", "major": major, "minor": minor});
    let table = [
        (devices(&node(1, 1)), "/devices/rules/0", "CAP_SYS_RAWIO"),
        (devices(&node(1, 4)), "/devices/rules/0", "CAP_SYS_RAWIO"),
        (devices(&node(10, 200)), "/devices/rules/0", "CAP_NET_ADMIN"),
        (
            json!({"version": 1, "sockets": {"default": "deny", "rules": [{"action": "allow", "protocol": 255}]}}),
            "/sockets/rules/0",
            "CAP_NET_RAW",
        ),
    ];
    for (mut policy, place, capability) in table {
        policy["process"] = asked_for(&policy, place);
        assert_eq!(policy["process"], json!({"capabilities": [capability]}));
        assert_eq!(notes(&policy), Vec::<String>::new());
    }
    for fine in [node(1, 3), json!({"action": "deny", "type": "c", "major": 1, "minor": 1}), json!({"action": "allow"})]
    {
        assert_eq!(notes(&devices(&fine)), Vec::<String>::new(), "{fine}");
    }
}

#[test]
fn a_rule_on_abstract_names_of_others_names_the_part_that_it_needs() {
    let name = format!("guard-needs-{}", std::process::id());
    let mut policy = json!({"version": 1, "unix": {"default": "deny", "rules": [
        {"action": "allow", "paths": [format!("@{name}")]}]}});
    let server = format!(
        "import socket, sys\nserver = socket.socket(socket.AF_UNIX)\nserver.bind('\\0{name}')\nserver.listen()\n\
         print('ready', flush=True)\nsys.stdin.read()"
    );
    let (end, writer) = std::io::pipe().unwrap();
    let mut outside = Run::new(json!({"version": 1}), [PYTHON, "-c", &server]).stdin(end).start_bare();
    outside.wait_for("ready");
    let client = format!("import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}')");
    let reaches = |policy: &Value| Run::python(policy, &client, &[]).output().code() == Some(0);
    // Where the kernel can't keep them apart, all policies of these tests have the part.
    assert_eq!(reaches(&policy), lacks(Feature::LandlockScopes));
    policy["process"] = asked_for(&policy, "/unix/rules/0");
    assert!(reaches(&policy) && notes(&policy).is_empty(), "{policy}");
    drop(writer);
    let _ = outside.wait();
}

/// In a network namespace, so that the device goes away with it.
#[test]
fn a_network_device_is_made_with_the_capability_that_check_names() {
    const MAKE: &str = "import fcntl, struct
fcntl.ioctl(open('/dev/net/tun', 'rb+', buffering=0), 0x400454ca, struct.pack('16sH22x', b'guard0', 0x1001))";
    let mut policy = json!({"version": 1, "devices": {"default": "allow", "rules": [
        {"action": "allow", "type": "c", "major": 10, "minor": 200}]}});
    let makes = |policy: &Value| {
        let run = Run::python(policy, MAKE, &[]).through(["unshare", "--net"]);
        (run.output().code() == Some(0), run.bare().code() == Some(0))
    };
    assert_eq!(makes(&policy), (false, true));
    policy["process"] = asked_for(&policy, "/devices/rules/0");
    assert_eq!(makes(&policy), (true, true));
}
