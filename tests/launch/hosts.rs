//! Hosts that are set up oddly: guard-run works there, or one line says what to do. docs/platforms.md has the same table.

use std::{fs, path::Path, process::Command};

use serde_json::json;
use support::guard_run;

/// What becomes of a run.
enum Outcome {
    /// The command runs, and is denied what the policy denies.
    Works,
    /// One line says this.
    Refused(&'static str),
}
use Outcome::{Refused, Works};

/// What root does to the mounts of a shell's own, and what becomes of a run then.
const HOSTS: [(&str, Outcome); 13] = [
    ("true", Works),
    ("mount -o remount,ro,bind /", Works),
    ("mount -t tmpfs -o noexec,nosuid none /tmp", Works),
    // Containers and odd distributions have the hierarchy elsewhere.
    ("mkdir /mnt/cgroup && mount -t cgroup2 none /mnt/cgroup && umount -lR /sys/fs/cgroup", Works),
    ("umount -lR /sys/fs/cgroup", Refused("no cgroup2 file system is mounted; mount one: mount -t cgroup2 none")),
    ("umount -lR /sys", Refused("no cgroup2 file system is mounted")),
    ("mount -t tmpfs -o ro none /proc/sys", Works),
    ("mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys", Works),
    ("mount -t tmpfs none /proc", Refused("/proc/self/mountinfo: nothing is there; mount the proc file system")),
    ("mount -t proc -o hidepid=2 none /proc", Works),
    ("mount -t tmpfs -o ro none /var", Works),
    ("mount -t tmpfs -o ro none /run", Works),
    ("mount -t tmpfs none /etc", Works),
];

#[test]
fn an_odd_host_is_no_hindrance_or_says_what_is_wrong() {
    let policy = tempfile::NamedTempFile::new().unwrap();
    fs::write(&policy, json!({ "version": 1, "network": { "default": "deny" } }).to_string()).unwrap();
    for (set_up, outcome) in HOSTS {
        // Program and policy are where nothing will be mounted over them.
        let script = format!(
            "mount -t tmpfs none /mnt && touch /mnt/guard-run /mnt/policy.json \
             && mount --bind \"$0\" /mnt/guard-run && mount --bind \"$2\" /mnt/policy.json \
             && {set_up} && exec /mnt/guard-run --policy /mnt/policy.json --log - -- python3 -c \"$1\""
        );
        let connect = Path::new("import socket; socket.create_connection(('127.0.0.1', 9))");
        let output = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .arg(guard_run())
            .args([connect, policy.path()])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        match outcome {
            Works => {
                assert!(
                    said.contains("PermissionError") && said.contains("denied 1: connect tcp 127.0.0.1:9"),
                    "{set_up}: {said}"
                );
            }
            Refused(why) => {
                assert!(
                    output.status.code() == Some(125) && said.contains(why) && said.lines().count() == 1,
                    "{set_up}: {said}"
                );
            }
        }
    }
}
