//! Unix rules by which all paths have one verdict hold for every kind of socket and every spelling of an address. Every
//! attempt that is denied succeeds without the guard.

use std::{
    io::ErrorKind,
    os::unix::net::{UnixDatagram, UnixListener},
};

use serde_json::{Value, json};
use support::{
    Output, Probe, Run,
    kernel::{self, Feature},
    unix::{SPELLINGS, WAYS},
};
use tempfile::TempDir;

/// What no default concerns.
const PAIRS: [&str; 3] = ["stream pair -", "seqpacket pair -", "dgram pair -"];

fn policy(default: &str, rules: &Value) -> Value {
    json!({"version": 1, "unix": {"default": default, "rules": rules}})
}

/// Attempts to reach a server by its path, in all ways and spellings.
fn every_spelling(server: &str) -> Vec<String> {
    let spellings = |way| SPELLINGS.map(|spelling| format!("{way} {spelling} {server}"));
    WAYS.into_iter().flat_map(spellings).collect()
}

/// Attempts to reach a server by its abstract name.
fn abstracts(server: &str) -> Vec<String> {
    WAYS.map(|way| format!("{way} abstract {server}")).into()
}

/// Attempts on servers `yes`, `no` and those named, in a mount namespace of their own.
fn probe(folder: &TempDir, more: &str) -> Probe {
    let probe = Probe::unix().argument(folder.path().to_str().unwrap()).argument(format!("yes,no{more}"));
    probe.through(&["unshare", "--mount"])
}

/// A folder of which even the longest spelling fits an address.
fn folder() -> TempDir {
    tempfile::Builder::new().prefix("guard").tempdir_in("/tmp").unwrap()
}

/// Names of the abstract namespace are every test's; so each has its own.
fn unique(name: &str) -> String {
    format!("@{name}-{}", std::process::id())
}

fn paths_of(output: &Output) -> Vec<&str> {
    output.events().iter().filter_map(|event| event["unix"]["path"].as_str()).collect()
}

fn hooks_of(output: &Output) -> Vec<&str> {
    let hooks = output.log["enforced"]["hooks"].as_array().unwrap();
    hooks.iter().map(|hook| hook["hook"].as_str().unwrap()).collect()
}

/// Whether addresses are judged as they are spelled, or peers by their names.
fn by_spelling() -> bool {
    !kernel::lacks(Feature::ConnectUnix)
}

/// A policy for which neither of two mechanisms is to be had is refused. True if it was.
fn is_refused(policy: &Value) -> bool {
    if by_spelling() || !kernel::lacks(Feature::BpfLsm) {
        return false;
    }
    let output = Run::new(policy, ["true"]).output().exits(125);
    for word in ["connect_unix", "6.7", "unix_stream_connect", "6.0", &kernel::release()] {
        assert!(output.stderr.contains(word), "{word} is missing: {}", output.stderr);
    }
    true
}

#[test]
fn denying_all_holds_for_every_socket_and_every_spelling() {
    let deny = policy("deny", &json!([]));
    if is_refused(&deny) {
        return;
    }
    let (folder, name) = (folder(), unique("deny-all"));
    let output = probe(&folder, &format!(",{name}"))
        .denied(every_spelling("yes"))
        .denied(abstracts(&name))
        .allowed(PAIRS)
        .check(&deny);
    let hooks = if by_spelling() { ["connect_unix", "sendmsg_unix"] } else { ["unix_stream_connect", "unix_may_send"] };
    assert_eq!(hooks_of(&output), hooks);
    let folder = folder.path().to_str().unwrap();
    let paths = paths_of(&output);
    assert!(paths.contains(&format!("{folder}/yes.stream").as_str()), "{paths:?}");
    assert!(paths.contains(&format!("{name}.stream").as_str()), "{paths:?}");
    assert_eq!(paths.contains(&"yes.stream"), by_spelling(), "the path as it was spelled: {paths:?}");
    let connect = output.events().iter().find(|event| event["unix"]["path"].as_str() == Some(paths[0])).unwrap();
    assert_eq!((&connect["op"], &connect["rule"]), (&json!("unix"), &json!("default")));
    let operations = output.events().iter().map(|event| event["unix"]["operation"].as_str().unwrap());
    assert!(operations.clone().any(|operation| operation == "connect") && operations.clone().any(|o| o == "send"));
}

#[test]
fn a_rule_that_covers_all_paths_is_told() {
    let rules = json!([{"action": "deny", "paths": ["/run/docker.sock"]}, {"action": "deny"}]);
    let deny = policy("allow", &rules);
    if is_refused(&deny) {
        return;
    }
    let output = probe(&folder(), "").denied(["stream path yes", "dgram relative yes"]).check(&deny);
    assert!(output.events().iter().all(|event| event["rule"] == "/unix/rules/1"), "{:#}", output.log);
}

#[test]
fn allowing_all_changes_nothing() {
    // With a default that denies, there are programs to be in the way.
    let allow = policy("deny", &json!([{"action": "allow"}]));
    if is_refused(&allow) {
        return;
    }
    let (folder, name) = (folder(), unique("allow-all"));
    let probe = probe(&folder, &format!(",{name}"));
    let output = probe.allowed(every_spelling("yes")).allowed(abstracts(&name)).allowed(PAIRS).check(&allow);
    assert!(output.sum("allowed") >= 78, "{:#}", output.log);
}

#[test]
fn audit_mode_lets_everything_go_on_and_records_it() {
    let audit = json!({"version": 1, "mode": "audit", "unix": {"default": "deny"}});
    if is_refused(&audit) {
        return;
    }
    let folder = folder();
    let probe = probe(&folder, "").allowed(["stream path yes", "dgram path yes", "stream pair -"]);
    let output = probe.audited(2).check(&audit);
    assert!(output.events().iter().all(|event| event["verdict"] == "audited"));
}

#[test]
fn abstract_names_are_told_apart() {
    let (folder, yes, no) = (folder(), unique("yes"), unique("no"));
    let only_yes = policy("deny", &json!([{"action": "allow", "paths": [format!("{yes}*")]}]));
    if is_refused(&only_yes) {
        return;
    }
    let probe = || probe(&folder, &format!(",{yes},{no}"));
    let output = probe()
        .denied(every_spelling("yes"))
        .denied(abstracts(&no))
        .allowed(abstracts(&yes))
        .allowed(PAIRS)
        .check(&only_yes);
    assert!(output.events().iter().all(|event| event["rule"] == "default"));
    let all_but_no = policy("allow", &json!([{"action": "deny", "paths": [format!("{no}.*")]}]));
    let probe = probe().denied(abstracts(&no)).allowed(every_spelling("no")).allowed(abstracts(&yes));
    let output = probe.allowed(PAIRS).check(&all_but_no);
    assert!(output.events().iter().all(|event| event["rule"] == "/unix/rules/0"));
}

#[test]
fn a_relative_path_that_begins_like_an_abstract_name_is_a_path() {
    const PROGRAM: &str = "import os, socket, sys
os.chdir(sys.argv[1])
if os.path.exists('@x'): os.unlink('@x')
s = socket.socket(socket.AF_UNIX); s.bind('@x'); s.listen()
socket.socket(socket.AF_UNIX).connect('@x')";
    let only_abstract = policy("deny", &json!([{"action": "allow", "paths": ["@*"]}]));
    if is_refused(&only_abstract) {
        return;
    }
    let folder = folder();
    let run = Run::python(&only_abstract, PROGRAM, &[folder.path().to_str().unwrap()]);
    let _ = run.bare().success();
    let output = run.output().exits(1);
    assert!(output.stderr.contains("PermissionError"), "{output:?}");
    let real = format!("{}/@x", folder.path().display());
    assert_eq!(paths_of(&output), [if by_spelling() { "./@x" } else { &real }]);
}

#[test]
fn a_denied_server_outside_never_hears_of_the_attempts() {
    let deny = policy("deny", &json!([]));
    if is_refused(&deny) {
        return;
    }
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (stream, dgram) = (UnixListener::bind(path("x.stream")).unwrap(), UnixDatagram::bind(path("x.dgram")).unwrap());
    stream.set_nonblocking(true).unwrap();
    dgram.set_nonblocking(true).unwrap();
    let attempts = ["stream path x", "stream relative x", "dgram path x", "dgram_sendmmsg long x"];
    let arguments = [&[folder.path().to_str().unwrap(), "-"], &attempts[..]].concat();
    let run = Run::python(&deny, include_str!("../probes/unix.py"), &arguments);
    let output = run.output().success();
    assert!(output.stdout.lines().count() == 4 && output.stdout.lines().all(|line| line.ends_with(": EPERM")));
    assert_eq!(stream.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(dgram.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let _ = run.bare().success();
    assert!(stream.accept().is_ok() && stream.accept().is_ok(), "the controls reached it");
    assert!(dgram.recv(&mut [0]).is_ok() && dgram.recv(&mut [0]).is_ok());
}

#[test]
fn many_names_are_many_events_and_one_name_is_one() {
    const PROGRAM: &str = "import socket, sys
for i in range(300):
    socket.socket(socket.AF_UNIX).connect_ex(b'/none/\\xff\\n%d' % (i % 3) + b'\\0waste %d' % i)";
    let deny = policy("deny", &json!([]));
    if !by_spelling() {
        // By the peer: there is none, so the kernel has its own error for it.
        return assert!(!kernel::lacks(Feature::BpfLsm) || is_refused(&deny));
    }
    let output = Run::python(&deny, PROGRAM, &[]).output().success();
    let mut paths = paths_of(&output);
    paths.sort_unstable();
    assert_eq!(paths, ["/none/\\xff\\n0", "/none/\\xff\\n1", "/none/\\xff\\n2"]);
    assert!(output.events().iter().all(|event| event["count"] == 100), "{:#}", output.log);
}

/// A socket that the command is handed was made outside. By address, the kernel asks the cgroup of the socket; by peer, that
/// of the process (what `bpf_lsm_find_cgroup_shim` comes to in Linux 6.0 to 6.12).
#[test]
fn an_inherited_socket_is_outside_the_guard_by_address_only() {
    const PROGRAM: &str = "import socket, sys
socket.socket(fileno=0).sendto(b'x', sys.argv[1])";
    let deny = policy("deny", &json!([]));
    if is_refused(&deny) {
        return;
    }
    let folder = folder();
    let path = folder.path().join("x");
    let server = UnixDatagram::bind(&path).unwrap();
    server.set_nonblocking(true).unwrap();
    let run = Run::python(&deny, PROGRAM, &[path.to_str().unwrap()]).stdin(UnixDatagram::unbound().unwrap());
    let output = run.output().exits(i32::from(!by_spelling()));
    assert_eq!(server.recv(&mut [0]).is_ok(), by_spelling(), "{output:?}");
    let inherited = &output.log["enforced"]["inherited"][0];
    assert_eq!((&inherited["fd"], &inherited["family"]), (&json!(0), &json!("unix")), "the log names it");
}
