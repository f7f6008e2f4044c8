//! What users see of a run: exit statuses, the line at the end, other users, and what is said where it can't work.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::{Value, json};
use support::{Output, Run};

/// Reads a tunable that the policy denies, then exits with a status.
const DENIED: &str = "cat /proc/sys/kernel/hostname 2>&-; exit $1";

fn policy() -> Value {
    json!({"version": 1, "sysctls": {"default": "allow", "rules": [{"action": "deny", "names": ["kernel/hostname"]}]}})
}

fn shell(script: &str, arguments: &[&str], flags: &[&str]) -> Output {
    Run::shell(policy(), script, arguments).flags(flags).output()
}

/// The one line on standard error.
fn line(output: &Output) -> &str {
    let line = output.stderr.strip_suffix('\n').unwrap_or_default();
    assert!(line.starts_with("guard-run: ") && !line.contains('\n'), "not one line: {output:?}");
    line
}

#[test]
fn the_exit_status_is_the_commands() {
    for status in [0, 1, 42, 120, 125, 255] {
        let output = shell("exit $1", &[&status.to_string()], &[]).exits(status);
        assert_eq!(output.stdout, "");
        // A command that failed may have been refused something that is not recorded.
        match status {
            0 => assert_eq!(output.stderr, ""),
            _ => assert!(line(&output).contains("--diagnose"), "{output:?}"),
        }
        assert_eq!(shell("exit $1", &[&status.to_string()], &["--quiet"]).exits(status).stderr, "");
    }
    for (name, number) in [("TERM", 15), ("KILL", 9), ("SEGV", 11), ("USR1", 10), ("RTMAX", 64)] {
        let _ = shell("ulimit -c 0; kill -$1 $$", &[name], &[]).exits(128 + number);
    }
}

#[test]
fn a_command_that_cant_be_executed_is_told_from_one_that_isnt_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, text: &str, mode: u32| {
        fs::write(path(name), text).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    write("plain", "#!/bin/sh\n", 0o644);
    write("strange", "#!/no/such/interpreter\n", 0o755);
    write("script", "echo \"script $1\"\n", 0o755);
    fs::create_dir(path("folder")).unwrap();
    let table = [
        ("no-such-command".to_owned(), 127),
        ("/no/such/command".to_owned(), 127),
        (path("missing"), 127),
        (path("plain/below"), 127),
        (String::new(), 127),
        (path("plain"), 126),
        (path("folder"), 126),
        (path("strange"), 127),
    ];
    for (command, status) in table {
        let output = Run::new(policy(), [&command]).output().exits(status);
        assert!(line(&output).contains(&command) && output.stdout.is_empty(), "{output:?}");
        assert!(output.log.is_null(), "nothing was run, so there is no log");
    }
    // A file without a first line for the kernel is the shell's, as with execvp(3).
    let output = Run::new(policy(), [path("script").as_str(), "argument"]).output().success();
    assert_eq!(output.stdout, "script argument\n");
    // The search goes on behind a file that can't be executed.
    let search = format!("{}:/usr/bin:/bin", folder.path().display());
    write("true", "", 0o644);
    let _ = Run::new(policy(), ["true"]).environment("PATH", &search).output().success();
    let output = Run::new(policy(), ["plain"]).environment("PATH", &search).output().exits(126);
    assert!(line(&output).contains("plain"));
}

#[test]
fn a_command_that_swallows_a_denial_can_be_made_to_fail() {
    let table: [(&str, &[&str], i32); 7] = [
        ("0", &[], 0),
        ("0", &["--fail-on-deny"], 120),
        ("0", &["--fail-on-deny=7"], 7),
        ("0", &["--fail-on-deny=255", "--quiet"], 255),
        // A command that fails keeps its own status.
        ("3", &["--fail-on-deny"], 3),
        ("3", &["--fail-on-deny=7"], 3),
        ("3", &[], 3),
    ];
    for (status, flags, expected) in table {
        let output = shell(DENIED, &[status], flags).exits(expected);
        assert_eq!(output.log["exit"]["code"], status.parse::<i32>().unwrap(), "the log has the command's own");
    }
    let _ = shell("kill $$", &[], &["--fail-on-deny"]).exits(128 + 15);
    let _ = shell("cat /proc/sys/kernel/ostype", &[], &["--fail-on-deny"]).success();
}

#[test]
fn there_is_one_line_at_the_end_if_something_was_denied() {
    let output = shell(DENIED, &["0"], &[]).success();
    assert_eq!(output.stdout, "");
    for word in ["denied 1", "kernel/hostname", "/sysctls/rules/0", "log.json"] {
        assert!(line(&output).contains(word), "{word} is missing: {output:?}");
    }
    let output = shell("for i in 1 2 3; do read -r _ < /proc/sys/kernel/hostname; done 2>&-; true", &[], &[]);
    assert!(line(&output).contains("denied 3") && line(&output).contains("×3"), "{output:?}");
    for flag in ["--quiet", "-q"] {
        assert_eq!(shell(DENIED, &["0"], &[flag]).success().stderr, "");
    }
    assert_eq!(shell("true", &[], &[]).success().stderr, "");
    for flag in ["--verbose", "-v"] {
        let output = shell("true", &[], &[flag]).success();
        assert!(line(&output).contains("nothing was denied") && line(&output).contains("log.json"), "{output:?}");
        assert!(line(&shell(DENIED, &["0"], &[flag]).success()).contains("denied 1"));
    }
    let audit = json!({"version": 1, "mode": "audit", "sysctls": {"default": "deny"}});
    let output = Run::shell(audit, "cat /proc/sys/kernel/ostype", &[]).output().success();
    assert!(line(&output).contains("would have denied ") && output.stdout == "Linux\n", "{output:?}");
}

#[test]
fn a_command_runs_as_another_user_with_that_users_groups() {
    let script = "echo $(id -u) $(id -g) $(id -G) \"$HOME\" \"${USER-}\" \"${LOGNAME-}\"";
    let as_user = |user: &str| {
        let run = Run::shell(policy(), script, &[]).flags(["--user", user]);
        run.environment("HOME", "/h").environment("USER", "u").environment("LOGNAME", "l").output().success()
    };
    let table = [
        (
            "nobody",
            "65534 65534 65534 /nonexistent nobody nobody",
            json!({"uid": 65534, "gid": 65534, "name": "nobody"}),
        ),
        (
            "65534",
            "65534 65534 65534 /nonexistent nobody nobody",
            json!({"uid": 65534, "gid": 65534, "name": "nobody"}),
        ),
        (
            "65534:65534",
            "65534 65534 65534 /nonexistent nobody nobody",
            json!({"uid": 65534, "gid": 65534, "name": "nobody"}),
        ),
        ("nobody:daemon", "65534 1 1 /nonexistent nobody nobody", json!({"uid": 65534, "gid": 1, "name": "nobody"})),
        ("54321:54322", "54321 54322 54322 /h u l", json!({"uid": 54321, "gid": 54322, "name": null})),
        ("root", "0 0 0 /root root root", json!({"uid": 0, "gid": 0, "name": "root"})),
    ];
    for (user, expected, logged) in table {
        let output = as_user(user);
        assert_eq!((output.stdout.trim(), &output.log["user"]), (expected, &logged), "{user}");
    }
    // The guard holds for them, too, and the log says who it was.
    let output = shell(DENIED, &["0"], &["--user", "nobody"]).success();
    assert_eq!(output.events()[0]["process"]["uid"], 65534);
}

#[test]
fn users_that_there_are_not_are_refused() {
    for user in [
        "no-such-user",
        "",
        ":",
        "54321",
        "-1",
        "0:no-such-group",
        "0:",
        ":0",
        "4294967295:0",
        "4294967296:0",
        "0:4294967296",
    ] {
        let run = Run::shell(policy(), "touch \"$STARTED\"", &[]).flags([format!("--user={user}")]);
        let marker = run.folder().join("started");
        let output = run.environment("STARTED", &marker).output();
        assert_eq!((output.code(), output.stdout.as_str()), (Some(125), ""), "{user}: {output:?}");
        assert!(output.stderr.contains("--user") && !marker.exists(), "{user}: {output:?}");
    }
    // A user who may not execute the command is told so.
    let folder = tempfile::tempdir().unwrap();
    let command = folder.path().join("true");
    fs::copy("/bin/true", &command).unwrap();
    fs::set_permissions(&command, fs::Permissions::from_mode(0o700)).unwrap();
    let output = Run::new(policy(), [&command]).flags(["--user", "nobody"]).output().exits(126);
    assert!(line(&output).contains(command.to_str().unwrap()), "{output:?}");
}

/// Becomes an unprivileged user.
const UNPRIVILEGED: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

#[test]
fn without_root_it_says_that_it_needs_root() {
    let run = Run::new(policy(), ["true"]).for_everyone().without_log().flags(["--log", "-"]).through(UNPRIVILEGED);
    let output = run.output().exits(125);
    assert!(line(&output).contains("root") && output.stdout.is_empty(), "{output:?}");
    // That is so where the log could not be written either.
    let output = Run::new(policy(), ["true"]).for_everyone().through(UNPRIVILEGED).output().exits(125);
    assert!(line(&output).contains("root"), "{output:?}");
    // Root without capabilities is no root.
    let powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let output = Run::new(policy(), ["true"]).through(powerless).output().exits(125);
    assert!(line(&output).contains("root"), "{output:?}");
}

#[test]
fn without_root_it_says_so_also_where_no_program_would_be_loaded() {
    for log in ["-", "log.json"] {
        let run = Run::new(json!({"version": 1}), ["true"]).for_everyone().without_log().flags(["--log", log]);
        let output = run.through(UNPRIVILEGED).output().exits(125);
        assert!(line(&output).contains("root"), "{output:?}");
    }
}

#[test]
fn check_and_explain_need_no_root() {
    let run = Run::new(policy(), ["true"]).for_everyone().through(UNPRIVILEGED);
    let _ = run.subcommand("check", &[]).success();
    let output = run.subcommand("explain", &["sysctl", "kernel.hostname", "r"]).exits(1);
    assert!(output.stdout.contains("/sysctls/rules/0"), "{output:?}");
    fs::set_permissions(run.policy(), fs::Permissions::from_mode(0o600)).unwrap();
    let output = run.subcommand("check", &[]).exits(125);
    assert!(line(&output).contains("policy.json") && line(&output).contains("Permission denied"), "{output:?}");
}

#[test]
fn without_cgroup2_it_says_what_is_missing() {
    let script = "umount --all --lazy --types cgroup2 && exec \"$@\"";
    let run = Run::shell(policy(), "touch \"$STARTED\"", &[]);
    let marker = run.folder().join("started");
    let run = run.environment("STARTED", &marker).through(["unshare", "--mount", "sh", "-c", script, "sh"]);
    let output = run.output().exits(125);
    assert!(line(&output).contains("cgroup2") && output.stdout.is_empty(), "{output:?}");
    assert!(!marker.exists(), "the command has run");
    let _ = run.bare().success();
    assert!(marker.exists());
}
