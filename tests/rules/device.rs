//! Device rules hold for the device, by whatever node, in whatever way it is opened. The nodes are made by the test,
//! outside the guard and under names of their own; what is denied succeeds without the guard.

use std::{path::Path, process::Command};

use serde_json::{Value, json};
use support::{Output, PolicyText, Probe};
use tempfile::TempDir;

/// Devices that every kernel has: null, zero and full, whose use has no effect; and a block device, for which a node
/// can be made and permission to open it be had even if it has no driver.
const NODES: [&str; 5] = ["c:1:3", "c:1:5", "c:1:7", "c:5:0", "b:1:3"];

/// A folder with a node for each of [`NODES`].
fn nodes() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for node in NODES {
        let mut command = Command::new("mknod");
        command.arg("--mode=0666").arg(folder.path().join(node)).args(node.split(':'));
        assert!(command.status().unwrap().success(), "mknod {node}");
    }
    folder
}

fn check(policy: &Value, denied: &[&str], allowed: &[&str]) -> Output {
    let folder = nodes();
    let probe = Probe::device().argument(folder.path().to_str().unwrap());
    probe.denied(denied.iter().copied()).allowed(allowed.iter().copied()).check(policy)
}

fn devices(default: &str, rules: &Value) -> Value {
    json!({"version": 1, "devices": {"default": default, "rules": rules}})
}

/// A policy that denies accesses to /dev/null and allows all else.
fn deny_null(access: &str) -> Value {
    devices("allow", &json!([{"action": "deny", "type": "c", "major": 1, "minor": 3, "access": access}]))
}

/// Every way to use a device for reading, writing and making.
const READING: [&str; 4] = ["r", "fd", "link", "nonblocking"];
const WRITING: [&str; 2] = ["w", "truncate"];
const BOTH: [&str; 2] = ["rw", "3"];

fn by_all<const N: usize>(ways: [&str; N], node: &str) -> Vec<String> {
    ways.iter().map(|way| format!("{way} {node}")).collect()
}

#[test]
fn a_device_is_denied_in_every_way_to_open_it_and_under_every_name() {
    let folder = nodes();
    let ways = [&READING[..], &WRITING, &BOTH, &["m"]].concat();
    let all = |node: &str| ways.iter().map(|way| format!("{way} {node}")).collect::<Vec<_>>();
    let probe = Probe::device().argument(folder.path().to_str().unwrap());
    let output = probe.denied(all("c:1:3")).allowed(all("c:1:5")).allowed(all("c:1:7")).check(&deny_null("rwm"));
    for event in output.events() {
        let device = &event["device"];
        assert_eq!(
            (&device["path"], &device["type"], &device["major"], &device["minor"], &event["rule"]),
            (&json!("/dev/null"), &json!("c"), &json!(1), &json!(3), &json!("/devices/rules/0"))
        );
    }
}

#[test]
fn a_rule_on_a_character_device_leaves_the_block_device_of_its_numbers_alone() {
    let (null, ram) = (["r c:1:3", "w c:1:3", "m c:1:3"], ["r b:1:3", "w b:1:3", "m b:1:3"]);
    let rule = |kind: &str| devices("allow", &json!([{"action": "deny", "type": kind, "major": 1, "minor": 3}]));
    let _ = check(&rule("c"), &null, &ram);
    let output = check(&rule("b"), &ram, &null);
    assert_eq!(output.events()[0]["device"]["type"], "b");
    let _ = check(&rule("a"), &[null, ram].concat(), &["r c:1:5"]);
    // The type left out means both, too; and so do the numbers.
    let _ = check(&devices("allow", &json!([{"action": "deny", "major": 1, "minor": 3}])), &[null, ram].concat(), &[]);
    let _ = check(&devices("allow", &json!([{"action": "deny", "type": "b"}])), &ram, &null);
    let _ = check(
        &devices("allow", &json!([{"action": "deny", "major": 1}])),
        &["r c:1:3", "r c:1:5", "m b:1:3"],
        &["m c:5:0"],
    );
    let _ = check(
        &devices("allow", &json!([{"action": "deny", "minor": 3}])),
        &["r c:1:3", "m b:1:3"],
        &["r c:1:5", "m c:5:0"],
    );
}

#[test]
fn a_rule_by_path_is_a_rule_on_the_device() {
    let folder = nodes();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::os::unix::fs::symlink("c:1:7", path("link")).unwrap();
    std::os::unix::fs::symlink(path("link"), path("link-to-link")).unwrap();
    let by_path = |path: &str| devices("allow", &json!([{"action": "deny", "path": path, "access": "rw"}]));
    // Under its usual name, under that of another node, and by way of links; the event has the usual name.
    let table = [
        ("/dev/null".to_owned(), "c:1:3", "/dev/null"),
        (path("c:1:3"), "c:1:3", "/dev/null"),
        (path("link"), "c:1:7", "/dev/full"),
        (path("link-to-link"), "c:1:7", "/dev/full"),
        ("/dev/../dev//zero".to_owned(), "c:1:5", "/dev/zero"),
        ("/dev/tty".to_owned(), "c:5:0", "/dev/tty"),
    ];
    for (named, node, usual) in table {
        let denied = [format!("w {node}"), format!("nonblocking {node}")];
        let others = NODES[..3].iter().filter(|other| **other != node).map(|other| format!("rw {other}"));
        let allowed = others.chain([format!("m {node}"), "m b:1:3".to_owned()]);
        let probe = Probe::device().argument(folder.path().to_str().unwrap());
        let output = probe.denied(denied).allowed(allowed).check(&by_path(&named));
        assert!(output.events().iter().all(|event| event["device"]["path"] == usual), "{named}: {:#}", output.log);
    }
    // A block device, too, although it has no driver, and so no usual name; unless the kernel had one to load.
    let output = check(&by_path(&path("b:1:3")), &["r b:1:3"], &["r c:1:3"]);
    let device = &output.events()[0]["device"];
    let usual = Some("/dev/ram3").filter(|path| Path::new(path).exists());
    assert_eq!(*device, json!({"path": usual, "type": "b", "major": 1, "minor": 3, "access": "r"}));
    // What the rule means is what is there when the policy is read.
    let printed = support::Run::new(by_path(&path("link")), ["true"]).subcommand("check", &[]).success();
    let printed: Value = serde_json::from_str(&printed.stdout).unwrap();
    let expected = json!({"action": "deny", "type": "c", "major": 1, "minor": 7, "access": "rw"});
    assert_eq!(printed["devices"]["rules"], json!([expected]));
}

#[test]
fn reading_writing_and_making_a_node_are_told_apart() {
    let node = "c:1:3";
    let (reading, writing, both, making) =
        (by_all(READING, node), by_all(WRITING, node), by_all(BOTH, node), by_all(["m"], node));
    let table = [
        ("r", [&reading, &both].map(Clone::clone).concat(), [&writing, &making].map(Clone::clone).concat()),
        ("w", [&writing, &both].map(Clone::clone).concat(), [&reading, &making].map(Clone::clone).concat()),
        ("m", making.clone(), [&reading, &writing, &both].map(Clone::clone).concat()),
        ("rw", [&reading, &writing, &both].map(Clone::clone).concat(), making.clone()),
        ("wm", [&writing, &both, &making].map(Clone::clone).concat(), reading.clone()),
    ];
    for (access, denied, allowed) in table {
        let folder = nodes();
        let probe = Probe::device().argument(folder.path().to_str().unwrap());
        let _ = probe.denied(denied).allowed(allowed).check(&deny_null(access));
    }
}

#[test]
fn a_request_for_two_accesses_is_denied_if_one_of_them_is() {
    let output = check(&deny_null("w"), &["rw c:1:3"], &["r c:1:3", "rw c:1:5"]);
    assert_eq!(output.events()[0]["device"]["access"], "rw", "the log has what was asked for");
    // Each of them may be decided by another rule.
    let policy = devices(
        "deny",
        &json!([
            {"action": "allow", "type": "c", "major": 1, "minor": 3, "access": "r"},
            {"action": "deny", "type": "c", "major": 1, "minor": 3, "access": "m"},
            {"action": "allow", "type": "c", "major": 1, "minor": 3, "access": "w"}
        ]),
    );
    let output = check(&policy, &["m c:1:3", "r c:1:5"], &["rw c:1:3", "r c:1:3", "w c:1:3"]);
    let rules: Vec<&Value> = output.events().iter().map(|event| &event["rule"]).collect();
    assert_eq!(rules, ["/devices/rules/1", "default"]);
}

#[test]
fn what_no_rule_allows_is_denied_by_default() {
    let rules = json!([
        {"action": "allow", "type": "c", "major": 1, "minor": 3, "access": "rw"},
        {"action": "allow", "type": "c", "major": 1, "minor": 5, "access": "r"}
    ]);
    let output = check(
        &devices("deny", &rules),
        &["m c:1:3", "w c:1:5", "rw c:1:5", "r c:1:7", "r b:1:3", "m b:1:3", "m c:5:0"],
        &["r c:1:3", "w c:1:3", "rw c:1:3", "r c:1:5"],
    );
    assert!(output.events().iter().all(|event| event["rule"] == "default"));
    let _ = check(&devices("deny", &json!([])), &["r c:1:3", "w c:1:5", "m b:1:3"], &[]);
    let _ = check(&json!({"version": 1, "devices": {"default": "allow"}}), &[], &["r c:1:3", "w c:1:5", "m b:1:3"]);
}

#[test]
fn the_first_matching_rule_wins() {
    let (allow, deny) = (json!({"action": "allow", "minor": 3}), json!({"action": "deny", "type": "c", "major": 1}));
    let _ = check(&devices("allow", &json!([allow, deny])), &["r c:1:5", "m c:1:7"], &["r c:1:3", "m c:5:0"]);
    let _ = check(&devices("allow", &json!([deny, allow])), &["r c:1:5", "r c:1:3"], &["m b:1:3", "m c:5:0"]);
}

#[test]
fn audit_mode_lets_everything_go_on_and_records_it() {
    let folder = nodes();
    let policy = json!({"version": 1, "mode": "audit", "devices": {"default": "deny"}});
    let probe = Probe::device().argument(folder.path().to_str().unwrap());
    let output = probe.allowed(["rw c:1:3", "m b:1:3"]).audited(2).check(&policy);
    assert!(output.events().iter().all(|event| event["verdict"] == "audited"));
}

#[test]
fn the_last_of_256_rules_decides_like_the_first() {
    let mut rules: Vec<Value> =
        (0..255).map(|minor| json!({"action": "allow", "major": 4000, "minor": minor})).collect();
    rules.push(json!({"action": "deny", "type": "c", "major": 1, "minor": 3}));
    let output = check(&devices("allow", &json!(rules)), &["r c:1:3"], &["r c:1:5"]);
    assert_eq!(output.events()[0]["rule"], "/devices/rules/255");
}

/// Makes a network device with a node of its own (macvtap), runs guard-run under each of these policies, and then the shell: each prints
/// the numbers of the device that it finds at that node. The network is a new one, which goes away with the shell.
fn tap_seen_under(policies: &[Value]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let seen = "stat -L -c %t:%T /dev/tap$n";
    let make = "set -e; ip link add va type veth peer name vb; ip link add link va name vt type macvtap; \
                n=$(ip -o link show vt | cut -d: -f1)";
    let mut script = vec![make.to_owned()];
    for (number, policy) in policies.iter().enumerate() {
        let file = folder.path().join(number.to_string());
        std::fs::write(&file, PolicyText::from(policy).to_string()).unwrap();
        let (file, guard_run) = (file.display(), support::guard_run().display().to_string());
        script.push(format!("{guard_run} --quiet --policy {file} --log {file}.log -- {seen}"));
    }
    script.push(seen.to_owned());
    let output = Command::new("unshare").args(["-n", "sh", "-c", &script.join("\n")]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// What reads and writes there is packets that no rule on the network is asked about.
#[test]
fn nodes_of_network_devices_are_hidden_where_there_are_rules_on_the_network() {
    const NULL: &str = "1:3";
    let network = json!({"default": "deny"});
    let seen = tap_seen_under(&[
        json!({"version": 1, "network": network}),
        json!({"version": 1}),
        json!({"version": 1, "network": network, "process": {"capabilities": ["CAP_NET_ADMIN"]}}),
    ]);
    let [hidden, without_rules, named, bare] = &seen[..] else { panic!("{seen:?}") };
    assert_ne!(bare, NULL);
    assert_eq!([hidden.as_str(), without_rules, named], [NULL, bare, bare]);
}
