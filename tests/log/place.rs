//! Where log and events are put: in the folder that was meant when guard-run was started, whatever the command, or anybody else,
//! makes of its path; and nothing half-written stays behind.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
        process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use support::{Output, Run, leaves_of, ordinary::BOB};

const STORM: &str = env!("CARGO_BIN_EXE_storm");

fn policy() -> Value {
    let rules = json!([{"action": "deny", "names": ["kernel/hostname"], "access": "r"}]);
    json!({"version": 1, "sysctls": {"default": "allow", "rules": rules}})
}

const DENIED: &str = "read -r _ </proc/sys/kernel/hostname";

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut entries: Vec<String> = entries.collect();
    entries.sort();
    entries
}

fn log_at(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A folder of Bob's, `out`, and one of root's, `secret`, in which a log and events of the same names are.
struct Folders {
    run: Run,
    out: PathBuf,
    secret: PathBuf,
}

const TREASURE: &str = "root's\n";

impl Folders {
    /// For a run as Bob of a script in which `$OUT` and `$SECRET` are these folders.
    fn new(script: &str) -> Self {
        let run = Run::shell(policy(), script, &[]).without_log().flags(["--user".into(), format!("{BOB}:{BOB}")]);
        // Others look at it, too, so it is not the run's own folder that is Bob's.
        let home = run.folder().join("home");
        let (out, secret) = (home.join("out"), run.folder().join("secret"));
        for folder in [&home, &out, &secret] {
            fs::create_dir(folder).unwrap();
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for folder in [&home, &out] {
            chown(folder, Some(BOB), Some(BOB)).unwrap();
        }
        for name in ["log.json", "events.jsonl"] {
            fs::write(secret.join(name), TREASURE).unwrap();
        }
        let run = run.environment("OUT", &out).environment("SECRET", &secret);
        Self { run, out, secret }
    }

    fn assert_untouched(&self) {
        assert_eq!(entries(&self.secret), ["events.jsonl", "log.json"]);
        for name in entries(&self.secret) {
            assert_eq!(fs::read_to_string(self.secret.join(&name)).unwrap(), TREASURE, "{name}");
        }
    }
}

#[test]
fn a_folder_that_the_command_swaps_for_a_link_still_gets_the_log() {
    let script = format!("{DENIED}; mv $OUT $OUT.old && ln -s $SECRET $OUT");
    let Folders { run, out, secret } = Folders::new(&script);
    let log = out.join("log.json");
    let folders = Folders { run: run.flags(["--log", log.to_str().unwrap()]), out, secret };
    let output = folders.run.output().success();
    folders.assert_untouched();
    let old = folders.out.with_extension("old");
    assert_eq!(log_at(&old.join("log.json"))["events"].as_array().unwrap().len(), 1, "{output:?}");
    // The control: the path leads there now.
    assert_eq!(fs::read_to_string(&log).unwrap(), TREASURE);
}

/// A root command can make links that are root's, also where it can't write what they lead to.
#[test]
fn a_folder_that_was_removed_is_not_looked_for_by_a_link() {
    for script in [
        "rm -r $OUT; mkdir $OUT; ln -s $SECRET/log.json $OUT/log.json",
        "rm -r $OUT; ln -s $SECRET $OUT",
        "rm -r $OUT; mkdir -p $OUT/../real; ln -s ../real/none $OUT",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (out, secret) = (folder.path().join("out"), folder.path().join("secret"));
        fs::create_dir(&out).unwrap();
        fs::create_dir(&secret).unwrap();
        fs::write(secret.join("log.json"), TREASURE).unwrap();
        let run = Run::shell(policy(), &format!("{DENIED}; {script}"), &[]).without_log();
        let run = run.environment("OUT", &out).environment("SECRET", &secret);
        let output = run.flags(["--log", out.join("log.json").to_str().unwrap()]).output();
        assert_eq!(fs::read_to_string(secret.join("log.json")).unwrap(), TREASURE, "{script} {output:?}");
    }
}

#[test]
fn a_link_of_the_commands_user_is_not_followed() {
    for (option, name) in [("--log", "log.json"), ("--events", "events.jsonl")] {
        for folder_is_link in [false, true] {
            let Folders { run, out, secret } = Folders::new("touch $STARTED");
            let (link, path) = if folder_is_link {
                fs::remove_dir(&out).unwrap();
                symlink(&secret, &out).unwrap();
                (out.clone(), out.join(name))
            } else {
                symlink(secret.join(name), out.join(name)).unwrap();
                (out.join(name), out.join(name))
            };
            let set_owner = |uid: u32| {
                let status = Command::new("chown").arg("-h").arg(uid.to_string()).arg(&link).status().unwrap();
                assert!(status.success());
            };
            set_owner(BOB);
            let started = out.parent().unwrap().join("started");
            let mut run = run.environment("STARTED", &started).flags([option, path.to_str().unwrap()]);
            if option == "--events" {
                run = run.flags(["--log", "-"]);
            }
            let folders = Folders { run, out, secret };
            let output = folders.run.output().exits(125);
            let link = link.file_name().unwrap().to_str().unwrap();
            let said = format!("the symbolic link {link} belongs to user {BOB} and is not followed");
            assert!(output.stderr.contains(&said) && output.stderr.lines().count() == 1, "{output:?}");
            folders.assert_untouched();
            assert!(!started.exists());
            // The control: root's own link is followed, and stays one.
            set_owner(0);
            let _ = folders.run.output().success();
            assert_ne!(fs::read_to_string(folders.secret.join(name)).unwrap(), TREASURE);
            assert!(started.exists(), "it has run");
        }
    }
}

#[test]
fn events_are_not_written_to_a_file_that_somebody_else_may_have_given_its_name() {
    let Folders { run, out, secret } = Folders::new("true");
    let (path, treasure) = (out.join("events.jsonl"), secret.join("events.jsonl"));
    fs::hard_link(&treasure, &path).unwrap();
    let folders = Folders { run: run.flags(["--events", path.to_str().unwrap(), "--log", "-"]), out, secret };
    let output = folders.run.output().exits(125);
    assert!(output.stderr.contains("it has other names, too"), "{output:?}");
    folders.assert_untouched();
    // The control: in a folder of root's alone it may have as many names as root likes.
    let second = folders.secret.join("second");
    fs::hard_link(&treasure, &second).unwrap();
    let _ = Run::new(policy(), ["true"]).flags(["--events", second.to_str().unwrap()]).output().success();
    assert_eq!(fs::read_to_string(&treasure).unwrap(), "");
}

/// A file's owner can read what is written there, and events hold command lines.
#[test]
fn events_are_not_written_to_a_file_that_somebody_else_has_made() {
    let Folders { run, out, secret } = Folders::new("true");
    let path = out.join("events.jsonl");
    let run = run.flags(["--events", path.to_str().unwrap(), "--log", "-"]);
    fs::write(&path, "").unwrap();
    chown(&path, Some(BOB), Some(BOB)).unwrap();
    let folders = Folders { run, out, secret };
    let output = folders.run.output().exits(125);
    assert!(output.stderr.contains("another user has made it"), "{output:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
    // The control: root's own file there.
    chown(&path, Some(0), Some(0)).unwrap();
    let _ = folders.run.output().success();
}

#[test]
fn one_file_for_log_and_events_is_refused() {
    let run = Run::shell(policy(), "touch $MARKER", &[]);
    let (marker, same) = (run.folder().join("started"), run.folder().join("./same"));
    let log = run.folder().join("same");
    let (log, same) = (log.to_str().unwrap(), same.to_str().unwrap());
    let run = run.environment("MARKER", &marker).without_log().flags(["--log", log, "--events", same]);
    let output = run.output().exits(125);
    assert_eq!(output.stderr, format!("guard-run: --events and --log name the same file, {same}\n"));
    assert!(!marker.exists() && !Path::new(log).exists());
    // Two that are written as they come may be one.
    let run = Run::shell(policy(), DENIED, &[]).without_log().flags(["--log", "/dev/null", "--events", "/dev/null"]);
    let _ = run.output().exits(1);
}

#[test]
fn events_go_on_at_the_beginning_of_a_file_that_is_emptied_meanwhile() {
    // As logrotate's copytruncate does.
    let script =
        format!("{DENIED}; until [ -s $EVENTS ]; do sleep 0.01; done; : >$EVENTS; bash -c '{DENIED}; true'; true");
    let run = Run::shell(policy(), &script, &[]);
    let path = run.folder().join("events.jsonl");
    let run = run.environment("EVENTS", &path).flags(["--events", path.to_str().unwrap()]);
    let output = run.output().success();
    assert_eq!(output.events().len(), 2);
    let text = fs::read_to_string(&path).unwrap();
    let event: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    assert_eq!(event["process"]["pid"], output.events()[1]["process"]["pid"]);
}

/// Kills guard-run at a system call that renames something: when the log has been written.
fn killed_at_rename(run: Run) -> (Run, Output) {
    let run = run.through([STORM, "killed-at-rename"]);
    let output = run.start().wait();
    for leaf in leaves_of(output.pid) {
        fs::remove_dir(leaf).unwrap();
    }
    (run, output)
}

#[test]
fn nothing_half_written_stays_behind() {
    // A new log has its name at once; so there is nothing to be killed at.
    let (run, output) = killed_at_rename(Run::new(policy(), ["true"]).flags(["--fresh"]));
    let _ = output.success();
    let names = ["log.json", "policy.json"];
    assert_eq!(entries(run.folder()), names);
    // One that replaces another has another name for a moment. If that is the last one, the next run sees to it.
    let (run, output) = killed_at_rename(run);
    assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{output:?}");
    let left = entries(run.folder());
    assert!(left.len() == 3 && left[0].starts_with(".guard-run-"), "{left:?}");
    assert_eq!(fs::metadata(run.folder().join(&left[0])).unwrap().mode() & 0o7777, 0o600);
    // Names that only begin so are somebody's own.
    let own = run.folder().join(".guard-run-own");
    fs::write(&own, "").unwrap();
    let run = run.through(["env"]);
    let _ = run.output().success();
    assert_eq!(entries(run.folder()), [".guard-run-own", "log.json", "policy.json"]);
}

#[test]
fn gc_removes_what_is_half_written_in_the_folder_for_logs() {
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("guard-run");
    fs::create_dir(&logs).unwrap();
    for name in [".guard-run-0123456789abcdef", "20260101T000000.000000000Z-1.json", ".guard-run-0123"] {
        fs::write(logs.join(name), "").unwrap();
    }
    chown(logs.join(".guard-run-0123"), Some(BOB), None).unwrap();
    let gc = || {
        let script =
            format!("mount --bind {} /var/log && exec {} gc", folder.path().display(), support::guard_run().display());
        let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(gc().contains("\n1 half-written log removed\n"));
    assert_eq!(entries(&logs), [".guard-run-0123", "20260101T000000.000000000Z-1.json"]);
    assert!(!gc().contains("half-written"));
}

#[test]
fn a_folder_that_the_command_makes_anew_has_the_log() {
    let with_log = |script: &str| {
        let mut folders = Folders::new(script);
        let log = folders.out.join("log.json");
        folders.run = folders.run.flags(["--log".into(), log.into_os_string()]);
        folders
    };
    let folders = with_log("rm -rf \"$OUT\" && mkdir \"$OUT\"");
    let _ = folders.run.output().success();
    assert_eq!(log_at(&folders.out.join("log.json"))["exit"], json!({"code": 0, "killed": 0}));

    // Where there is a link to a folder of root's now, or nothing, the log is on standard error instead.
    for script in ["rm -rf \"$OUT\" && ln -s \"$SECRET\" \"$OUT\"", "rm -rf \"$OUT\""] {
        let folders = with_log(script);
        let output = folders.run.output().exits(125);
        assert!(output.stderr.contains("here it is instead"), "{output:?}");
        folders.assert_untouched();
    }
}
