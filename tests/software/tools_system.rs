//! Tools that look at processes, change users, keep files as they are, or have terminals: the default hardening is
//! about just these things, and stays out of their way. tests/tools has what each of them works on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::id,
};

use serde_json::json;
use support::{Task, cgroup2_mount, denied};

#[test]
fn gdb_debugs_what_it_starts_and_what_runs_beside_it() {
    let output = Task::new("gdb").works();
    assert!(output.stdout.contains("$2 = 42\nworked on 42\n"), "{output:#?}");
    assert!(output.stdout.contains("work (number=7, forever=1)\n"), "{output:#?}");
}

#[test]
fn strace_traces() {
    let output = Task::new("strace").ignoring(&["/log", "/trace", "/counts"]).works();
    assert!(output.stdout.ends_with("+++ killed by SIGTERM +++\n"), "{output:#?}");
}

#[test]
fn root_becomes_other_users() {
    let output = Task::new("su").works();
    assert!(output.stdout.starts_with("uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)\n"), "{output:#?}");
}

#[test]
fn files_keep_their_owners_modes_and_capabilities() {
    let output = Task::new("files").ignoring(&["/tree.tar"]).works();
    assert_eq!(output.stdout.matches(" is alike\n").count(), 3, "{output:#?}");
}

#[test]
fn script_and_tmux_have_terminals() {
    assert_eq!(Task::new("terminals").ignoring(&["/log"]).works().stdout, "a terminal\r\nin tmux\n1 window, 80x24\n");
}

#[test]
fn ssh_keys_are_made_held_and_used() {
    let output = Task::new("ssh").ignoring(&["/key", "/signature", "/signers"]).works();
    assert!(output.stdout.contains("Good \"test\" signature"), "{output:#?}");
}

#[test]
fn what_is_refused_fails_with_an_error_that_says_so() {
    let policy = json!({"version": 1});
    let unshare = "unshare: unshare failed: Operation not permitted";
    for (command, code, message) in [
        (&["unshare", "--mount", "true"][..], 1, unshare),
        (&["unshare", "--map-root-user", "true"], 1, unshare),
        (&["mknod", "/tmp/guard-run-node", "c", "1", "3"], 1, "Operation not permitted"),
        (&["dmesg"], 1, "read kernel buffer failed: Operation not permitted"),
        (&["kill", "-URG", "1"], 1, "Operation not permitted"),
    ] {
        let _ = denied(&policy, command, code, message, &[]);
    }
}

/// Cgroups with limits, of whichever version has the controllers for them.
struct Limited(Vec<PathBuf>);

impl Limited {
    /// One processor, and 512 MiB.
    fn new() -> Self {
        let (version1, version2) = (Path::new("/sys/fs/cgroup/memory"), cgroup2_mount());
        let limits: &[(&Path, &str, &str)] = if version1.is_dir() {
            &[
                (version1, "memory.limit_in_bytes", "512M"),
                (Path::new("/sys/fs/cgroup/cpu"), "cpu.cfs_quota_us", "100000"),
            ]
        } else {
            fs::write(version2.join("cgroup.subtree_control"), "+memory +cpu").expect("controllers");
            &[(&version2, "memory.max", "512M"), (&version2, "cpu.max", "100000 100000")]
        };
        let limit = |(root, file, limit): &(&Path, &str, &str)| {
            let cgroup = root.join(format!("guard-tests.{}", id()));
            fs::create_dir_all(&cgroup).expect("a cgroup");
            fs::write(cgroup.join(file), limit).expect("the controller is there");
            cgroup
        };
        let mut cgroups: Vec<_> = limits.iter().map(limit).collect();
        cgroups.dedup();
        Self(cgroups)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        for cgroup in &self.0 {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

#[test]
fn java_and_node_adapt_to_the_limits_that_they_are_under() {
    let limited = Limited::new();
    let output = Task::new("java").script("limits").within(&limited.0).works();
    assert!(output.stdout.starts_with("1 processors, "), "{output:?}");
    let output = Task::new("java").script("limits-node").within(&limited.0).works_guarded();
    assert_eq!(output.stdout, "536870912 bytes\n");
}
