//! A guard in a guard: it says what it needs, and works where it has that; and it only tightens.

use std::fs;

use serde_json::{Value, json};
use support::{
    Output, Run, cgroup2_mount, guard_run,
    kernel::{Feature, lacks},
};

/// Denies one device of memory (mem(4)): null is 3, zero is 5.
fn denying(minor: u32) -> Value {
    json!({"version": 1, "devices": {"default": "allow", "rules": [{"action": "deny", "type": "c", "major": 1, "minor": minor}]}})
}

/// Disables what this kernel lacks.
fn for_this_kernel(mut policy: Value) -> Value {
    if lacks(Feature::LandlockScopes) {
        let parts = policy["process"]["allow"].as_array().cloned().unwrap_or_default();
        let lacking = ["signals", "abstract-sockets", "tracing"].map(Value::from);
        policy["process"]["allow"] = parts.into_iter().chain(lacking).collect();
    }
    policy
}

/// What it reads of both, in this shell.
const READ: &str = "head -c 0 /dev/null && echo null; head -c 0 /dev/zero && echo zero; exit 0";

/// A guard that denies null, in one with this policy.
fn nested(outer: Value) -> (Output, Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("inner.json"), for_this_kernel(denying(3)).to_string()).unwrap();
    let inner = ["--policy".to_owned(), path("inner.json"), "--log".into(), path("log.json"), "--".into()];
    let guard = guard_run().display().to_string();
    let command = [&[guard], &inner[..], &["bash".into(), "-c".into(), READ.into()]].concat();
    let output = Run::new(for_this_kernel(outer), command).output();
    let log = fs::read(path("log.json")).map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap());
    (output, log)
}

#[test]
fn a_guard_in_a_guard_says_what_the_outer_policy_needs_and_works_with_that() {
    let mut outer = denying(5);
    let (refused, log) = nested(outer.clone());
    assert_eq!((refused.code(), refused.stdout.as_str(), &log), (Some(125), "", &Value::Null));
    let line = refused.stderr.lines().next().unwrap();
    assert!(line.contains("inside another guard-run"), "{line}");
    // What it says is what to write.
    let text = line.split_once("\"process\": ").unwrap().1.split_once(" for one").unwrap().0;
    outer["process"] = serde_json::from_str(text).unwrap();
    let (output, log) = nested(outer.clone());
    let output = output.success();
    assert_eq!(output.stdout, "", "both deny: {output:?}");
    let denied = |log: &Value| -> Vec<Value> {
        log["events"].as_array().unwrap().iter().map(|event| event["device"]["minor"].clone()).collect()
    };
    assert_eq!((denied(&output.log), denied(&log)), (vec![json!(5)], vec![json!(3)]));
    assert_eq!(log["enforced"]["hardening"]["isolation"], "full");
    // The control: what the outer one lets go on is denied by the inner one alone.
    outer["devices"] = json!({"default": "allow"});
    assert_eq!(nested(outer).0.success().stdout, "zero\n");
}

#[test]
fn a_cgroup_in_the_own_one_is_guarded_as_well() {
    let script =
        "mkdir \"$1/part\" && echo $$ >\"$1/part/cgroup.procs\" && grep ^0:: /proc/self/cgroup; ".to_owned() + READ;
    let mount = cgroup2_mount().display().to_string();
    let run = |policy: Value| Run::shell(policy, &script, &[&mount]).output().success();
    let mut policy = denying(3);
    assert_eq!(run(policy.clone()).stdout, "zero\n", "the control: it can't be made");
    policy["process"] = json!({"allow": ["cgroups"]});
    assert_eq!(run(policy).stdout, "0::/part\nzero\n");
}
