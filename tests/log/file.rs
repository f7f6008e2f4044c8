//! Where the log goes: to its file whole or not at all, to standard error, or to a file of its own in /var/log/guard-run;
//! and events as JSON lines. Nothing ever goes to standard output.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use serde_json::{Value, json};
use support::{Output, Run};

/// A run whose command is denied reading kernel/hostname, once, and succeeds anyway.
fn denied_once() -> Run {
    denied("cat /proc/sys/kernel/hostname 2>&-; true")
}

fn denied(script: &str) -> Run {
    let rules = json!([{"action": "deny", "names": ["kernel/hostname"], "access": "r"}]);
    Run::shell(json!({"version": 1, "sysctls": {"default": "allow", "rules": rules}}), script, &[])
}

/// Runs with a folder in the place of /var/log, so that nothing is left behind there.
fn with_var_log(run: Run, folder: &Path) -> Output {
    let script = format!("mount --bind {} /var/log && exec \"$@\"", folder.display());
    run.without_log().through(["unshare", "--mount", "sh", "-c", &script, "sh"]).output()
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut entries: Vec<String> = entries.collect();
    entries.sort();
    entries
}

#[test]
fn a_log_file_is_private_and_replaces_what_was_there_at_once() {
    let run = denied_once();
    let before = run.folder().join("before");
    fs::write(run.log(), "old").unwrap();
    fs::set_permissions(run.log(), fs::Permissions::from_mode(0o644)).unwrap();
    fs::hard_link(run.log(), &before).unwrap();
    let output = run.output().success();
    assert_eq!(output.events().len(), 1);
    assert_eq!(fs::metadata(run.log()).unwrap().mode() & 0o7777, 0o600);
    // Anybody who had opened the old log still reads that one, not half of the new one.
    assert_eq!(fs::read_to_string(&before).unwrap(), "old");
    assert_eq!(entries(run.folder()), ["before", "log.json", "policy.json"]);
    assert!(fs::read_to_string(run.log()).unwrap().ends_with("}\n"));
}

#[test]
fn a_dash_means_standard_error_and_standard_output_is_the_commands() {
    let run = denied("echo out; cat /proc/sys/kernel/hostname 2>&-; echo err >&2").without_log().flags(["--log", "-"]);
    let output = run.output().success();
    assert_eq!(output.stdout, "out\n");
    let text = output.stderr.strip_prefix("err\n").unwrap();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let log = values.next().unwrap().unwrap();
    assert_eq!(log["events"][0]["sysctl"]["name"], "kernel/hostname");
    let rest = text[values.byte_offset()..].trim();
    assert!(rest.starts_with("guard-run: denied 1") && rest.lines().count() == 1, "{rest}");
    assert_eq!(entries(run.folder()), ["policy.json"], "and there is no file");
}

#[test]
fn without_an_option_each_run_gets_a_file_of_its_own_in_var_log() {
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("guard-run");
    let first = with_var_log(denied_once(), folder.path()).success();
    assert_eq!(entries(&logs).len(), 1);
    let second = with_var_log(denied_once().flags(["--verbose"]), folder.path()).success();
    let names = entries(&logs);
    assert_eq!(names.len(), 2);
    for (name, output) in names.iter().zip([first, second]) {
        let path = logs.join(name);
        // The line at the end says where it is.
        assert!(output.stderr.contains(&format!("log: /var/log/guard-run/{name}")), "{names:?}: {output:?}");
        assert!(path.extension().is_some_and(|extension| extension == "json"), "{name}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let log: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(log["events"].as_array().unwrap().len(), 1);
    }
}

/// Checks that a run with this option is refused, in words that name the path, and that its command did not start.
fn assert_refused(option: &str, path: &str) {
    let folder = tempfile::tempdir().unwrap();
    let marker = folder.path().join("started");
    let run = denied(&format!("touch {}", marker.display())).without_log().flags([option, path]);
    let output = run.output();
    assert!(!marker.exists(), "{option} {path:?}: the command has run: {output:?}");
    assert_eq!((output.code(), output.stdout.as_str()), (Some(125), ""), "{option} {path:?}: {output:?}");
    assert!(output.stderr.contains(path) && output.stderr.lines().count() == 1, "{option} {path:?}: {output:?}");
    assert!(run.bare().success().log.is_null() && marker.exists(), "the control starts");
}

#[test]
fn a_log_that_cant_be_written_is_refused_before_the_command_starts() {
    let run = denied_once();
    let folder = run.folder().to_str().unwrap();
    for option in ["--log", "--events"] {
        assert_refused(option, &format!("{folder}/missing/log.json"));
        assert_refused(option, folder);
        assert_refused(option, &format!("{folder}/policy.json/log.json"));
        assert_refused(option, "/proc/log.json");
    }
}

#[test]
fn a_path_that_can_name_no_file_is_refused_before_the_command_starts() {
    let run = denied_once();
    for option in ["--log", "--events"] {
        assert_refused(option, &format!("{}/missing/", run.folder().display()));
        assert_refused(option, "");
        assert_refused(option, &format!("{}/{}", run.folder().display(), "x".repeat(256)));
    }
}

/// As with `--log /dev/null`: root may replace any file, but a log must not take a device's or FIFO's place.
#[test]
fn a_log_never_takes_the_place_of_a_device() {
    let run = denied_once();
    let null = run.folder().join("null");
    let made = std::process::Command::new("mknod").arg(&null).args(["c", "1", "3"]).status().unwrap();
    assert!(made.success());
    let run = run.without_log().flags(["--log", null.to_str().unwrap()]);
    let output = run.output();
    assert!(fs::symlink_metadata(&null).unwrap().file_type().is_char_device(), "replaced: {output:?}");
    assert!(matches!(output.code(), Some(0 | 125)), "{output:?}");
}

#[test]
fn json_lines_are_the_events_of_the_log() {
    let script =
        "for i in 1 2 3; do cat /proc/sys/kernel/hostname 2>&-; done; read -r _ < /proc/sys/kernel/hostname; true";
    let run = denied(script);
    let path = run.folder().join("events.jsonl");
    fs::write(&path, "what was there before\n").unwrap();
    let run = run.flags(["--events", path.to_str().unwrap()]);
    let output = run.output().success();
    let lines: Vec<Value> =
        fs::read_to_string(&path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(output.events().len(), 4);
    // An event that has gone on after its line has a second one at the end: the last line of each says it all.
    for event in output.events() {
        let same = |line: &&Value| ["process", "sysctl"].iter().all(|key| line[*key] == event[*key]);
        assert_eq!(lines.iter().rev().find(same), Some(event));
    }
}

#[test]
fn json_lines_tell_counts_that_have_grown_since() {
    let run = denied("for i in {1..50}; do read -r _ < /proc/sys/kernel/hostname; done 2>&-; true");
    let path = run.folder().join("events.jsonl");
    let run = run.flags(["--events", path.to_str().unwrap()]);
    let output = run.output().success();
    let [event] = output.events() else { panic!("{:#}", output.log) };
    assert_eq!(event["count"], 50);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(serde_json::from_str::<Value>(text.lines().last().unwrap()).unwrap(), *event);
}

#[test]
fn a_file_of_json_lines_is_private() {
    let run = denied_once();
    let path = run.folder().join("events.jsonl");
    let run = run.flags(["--events", path.to_str().unwrap()]);
    let _ = run.output().success();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn the_log_is_written_when_guard_run_is_terminated() {
    let run = denied("cat /proc/sys/kernel/hostname 2>&-; echo ready; exec sleep 1000");
    let mut running = run.start();
    running.wait_for("ready");
    assert!(!run.log().exists(), "there is no half log");
    running.signal(libc::SIGTERM);
    let output = running.wait().exits(128 + 15);
    assert_eq!(output.log["exit"], json!({"signal": 15, "killed": 0}));
    assert_eq!(output.events().len(), 1);
    support::assert_no_leaf(output.pid);
}
