//! A command under a policy in several files.

use std::{fs, process::Command};

use serde_json::{Value, json};
use support::{PYTHON, guard_run};

#[test]
fn included_rules_are_enforced_and_the_log_names_their_files() {
    const CLIENT: &str = r#"
import errno, socket
for port in [9, 10]:
    try:
        socket.socket().connect(("127.0.0.1", port))
    except OSError as error:
        print(errno.errorcode[error.errno])
"#;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let team = r#"{"version": 1, "network": {"default": "deny", "rules": [{"action": "deny", "ports": [9]}]}}"#;
    fs::write(path("team.json"), team).unwrap();
    let own = json!({"version": 1, "include": ["team.json"], "sets": {"here": ["loopback"]},
                     "network": {"default": "deny", "rules": [{"action": "allow", "hosts": ["@here"]}]}});
    fs::write(path("p.json"), own.to_string()).unwrap();
    let mut guard = Command::new(guard_run());
    guard.arg("--policy").arg(path("p.json")).arg("--log").arg(path("log.json")).args(["--", PYTHON, "-c", CLIENT]);
    let output = guard.output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "EPERM\nECONNREFUSED\n");
    let log: Value = serde_json::from_slice(&fs::read(path("log.json")).unwrap()).unwrap();
    assert_eq!(log["events"][0]["rule"], "/network/rules/0", "{log:#}");
    let real = path("team.json").canonicalize().unwrap();
    let sum = Command::new("sha256sum").arg(&real).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let included = json!([{"path": real, "sha256": sum.split(' ').next()}]);
    assert_eq!(log["policy"]["included"], included);
}
