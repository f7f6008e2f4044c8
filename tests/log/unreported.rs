//! What a rule with `"report": false` denies is denied and counted, and nothing else is made of it.

use serde_json::{Value, json};
use support::{Output, Run};

/// Tries one thing of every kind that has rules, each several times, and says what came of it.
const EVERYTHING: &str = r#"
import os, socket
def attempt(name, act):
    outcomes = set()
    for _ in range(3):
        try: act(); outcomes.add("ok")
        except OSError as error: outcomes.add(error.strerror)
    print(name, *sorted(outcomes))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
attempt("network", lambda: udp.connect(("192.0.2.1", 9)))
attempt("unix", lambda: socket.socket(socket.AF_UNIX).connect("/nowhere/nscd/socket"))
attempt("devices", lambda: open("/dev/full"))
attempt("sysctls", lambda: open("/proc/sys/kernel/pid_max").read())
attempt("sockets", lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
attempt("sockopts", lambda: udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1))
"#;

/// The sections whose rules the program runs into.
const SECTIONS: [&str; 6] = ["network", "unix", "devices", "sysctls", "sockets", "sockopts"];

/// A policy whose rules deny all of that, those of some sections without a report.
fn policy(mode: &str, unreported: &[&str]) -> Value {
    let mut policy = json!({"version": 1, "mode": mode,
        "network": {"default": "allow", "rules": [{"action": "deny", "hosts": ["192.0.2.1"]}]},
        "unix": {"default": "deny", "rules": [{"action": "deny", "paths": ["*/nscd/socket"]}]},
        "devices": {"default": "allow", "rules": [{"action": "deny", "path": "/dev/full"}]},
        "sysctls": {"default": "allow", "rules": [{"action": "deny", "names": ["kernel.pid_max"]}]},
        "sockets": {"default": "allow", "rules": [{"action": "deny", "family": "inet6"}]},
        "sockopts": {"default": "allow", "rules": [{"action": "deny", "option": "SO_BROADCAST"}]}});
    for section in unreported {
        policy[section]["rules"][0]["report"] = json!(false);
    }
    policy
}

fn run(mode: &str, unreported: &[&str]) -> Output {
    Run::python(policy(mode, unreported), EVERYTHING, &[]).flags(["--fail-on-deny", "--events", "-"]).output()
}

/// What there are events of, as the program calls it.
fn sections(output: &Output) -> Vec<&str> {
    let section = |event: &Value| match event["op"].as_str().unwrap() {
        "unix" => "unix",
        "device" => "devices",
        "sysctl" => "sysctls",
        "socket" => "sockets",
        "sockopt" => "sockopts",
        _ => "network",
    };
    let mut sections: Vec<_> = output.events().iter().map(section).collect();
    sections.sort_unstable();
    sections.dedup();
    sections
}

#[test]
fn every_kind_of_rule_can_deny_without_a_report() {
    let loud = run("enforce", &[]).exits(120);
    assert_eq!(sections(&loud), ["devices", "network", "sockets", "sockopts", "sysctls", "unix"], "the control");
    assert_eq!(loud.sum("unreported"), 0);

    let silent = run("enforce", &SECTIONS).success();
    assert_eq!(silent.stdout, loud.stdout, "denied as ever");
    assert_eq!((silent.events(), silent.stderr.as_str()), (&[][..], ""), "{:#}", silent.log);
    // As often as they were tried, and by the programs that they were tried at.
    assert_eq!(
        (silent.denied(), silent.sum("unreported"), silent.sum("unrecorded")),
        (loud.denied(), loud.denied(), 0)
    );
}

#[test]
fn a_rule_that_says_nothing_keeps_no_other_from_saying_it() {
    for section in SECTIONS {
        let others: Vec<&str> = SECTIONS.into_iter().filter(|other| *other != section).collect();
        let output = run("enforce", &others).exits(120);
        assert_eq!(sections(&output), [section], "{:#}", output.log);
        let count: u64 = output.events().iter().map(|event| event["count"].as_u64().unwrap()).sum();
        assert_eq!(count, 3, "{section}");
        assert_eq!(output.denied() - output.sum("unreported"), count, "{section}: {:#}", output.log);
        assert!(output.stderr.contains(&format!("denied {count}: ")), "{}", output.stderr);
    }
}

#[test]
fn what_the_default_denies_is_reported_although_a_rule_says_nothing() {
    let policy = json!({"version": 1, "unix": {"default": "deny", "rules": [
        {"action": "deny", "paths": ["/nowhere/*", "@quiet"], "report": false}]}});
    let program = r#"
import socket
for name in ["/nowhere/socket", "/elsewhere/socket", "\0quiet", "\0loud"]:
    try: socket.socket(socket.AF_UNIX).connect(name)
    except OSError as error: print(error.strerror)
"#;
    let output = Run::python(&policy, program, &[]).flags(["--fail-on-deny"]).output().exits(120);
    let told: Vec<_> = output.events().iter().map(|event| event["unix"]["path"].as_str().unwrap()).collect();
    // Where the peers themselves are asked for, nobody is denied what isn't there.
    let by_peer = output.stdout.contains("No such file");
    assert_eq!(told, if by_peer { vec![] } else { vec!["/elsewhere/socket", "@loud"] }, "{:#}", output.log);
    assert_eq!(output.sum("unreported"), if by_peer { 0 } else { 2 });
}

/// The C library asks for nscd before it looks a user up, and goes on without.
#[test]
fn a_clients_probe_of_a_daemon_can_be_silenced() {
    let deny = |rules: Value| json!({"version": 1, "unix": {"default": "deny", "rules": rules}});
    let quiet = deny(json!([{"action": "deny", "paths": ["*/run/nscd/socket"], "report": false}]));
    let run = |policy: &Value| Run::new(policy, ["getent", "passwd", "root"]).flags(["--fail-on-deny"]).output();
    let output = run(&quiet).success();
    assert!(output.stdout.starts_with("root:") && output.stderr.is_empty(), "{output:?}");
    assert!(output.events().is_empty(), "{:#}", output.log);
    if output.sum("unreported") > 0 {
        let loud = run(&deny(json!([]))).exits(120);
        assert_eq!(loud.denied(), output.sum("unreported"), "the control");
    } else {
        // Where the peers themselves are asked for, nobody is denied what isn't there.
        assert_eq!(output.denied(), 0);
    }
}

#[test]
fn audit_mode_says_nothing_of_it_either() {
    let output = run("audit", &SECTIONS).success();
    assert!(!output.stdout.contains("not permitted"), "{}", output.stdout);
    assert_eq!((output.events(), output.stderr.as_str()), (&[][..], ""), "{:#}", output.log);
    assert!(output.sum("audited") > 0 && output.sum("audited") == output.sum("unreported"), "{:#}", output.log);
}

/// More identities than the maps have room for: what isn't reported takes no room from what is.
#[test]
fn what_is_not_reported_takes_no_room() {
    let policy = json!({"version": 1, "network": {"default": "allow", "rules": [
        {"action": "deny", "hosts": ["192.0.2.0/24"], "report": false},
        {"action": "deny", "hosts": ["198.51.100.1"]}]}});
    let program = r#"
import socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def attempt(host, port):
    try: udp.connect((host, port))
    except PermissionError: pass
for port in range(1, 6001): attempt("192.0.2.1", port)
attempt("198.51.100.1", 1)
"#;
    let output = Run::python(&policy, program, &[]).output().success();
    assert_eq!((output.denied(), output.sum("unreported"), output.sum("unrecorded")), (6001, 6000, 0));
    assert_eq!(output.events().len(), 1);
    let loud = policy.to_string().replace(r#","report":false"#, "");
    assert!(Run::python(loud, program, &[]).output().success().sum("unrecorded") > 0, "the control");
}

#[test]
fn check_and_explain_tell_which_rules_say_nothing() {
    let run = Run::new(policy("enforce", &["unix", "sysctls"]), ["true"]);
    let checked: Value = serde_json::from_str(&run.subcommand("check", &[]).success().stdout).unwrap();
    assert_eq!(checked["sysctls"]["rules"][0]["report"], json!(false));
    assert_eq!(checked["network"]["rules"][0].get("report"), None);
    let notes = checked["notes"].to_string();
    assert!(notes.contains("what /unix/rules/0, /sysctls/rules/0 denies is counted"), "{notes}");
    let explained = run.subcommand("explain", &["sysctl", "kernel.pid_max", "r"]).exits(1).stdout;
    assert!(explained.contains("denied by /sysctls/rules/0 (counted, but not reported)"), "{explained}");
}

#[test]
fn a_rule_that_allows_has_nothing_to_report() {
    let policy = json!({"version": 1, "network": {"default": "deny", "rules": [
        {"action": "deny", "report": true, "ports": [25]}, {"action": "allow", "report": false}]}});
    let output = Run::new(&policy, ["true"]).subcommand("check", &[]).exits(125);
    assert!(output.stderr.contains("/network/rules/1") && output.stderr.contains("\"report\""), "{}", output.stderr);
}
