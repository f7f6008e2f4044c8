//! Mounts below folders of other users, who exchange these while a run begins.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::json;
use support::{Run, ordinary::ALICE};

/// Mounts what root's command is not to write to, or not to see, and what it may, in a mount namespace of its own: what follows sees it.
/// Meanwhile nothing is exchanged.
const MOUNT: &str = r#"
    exec 9< "$0/bait" && flock 9 &&
    mount -t sysfs none "$0/here/one" && mount -t bpf none "$0/here/two" && mount -t proc none "$0/here/three" &&
    mount --bind "$0/bait" "$0/there/one" && mount -t sysfs none "$0/there/two" && mount -t proc none "$0/there/three" &&
    mount -t cgroup2 none "$0/here/four" && mount -t tmpfs none "$0/there/four" && mount -t proc none "$0/there/four" &&
    mount --bind /proc/irq "$0/there/five" && mount --bind /proc/irq/default_smp_affinity "$0/here/six" &&
    exec 9<&- && exec "$@"
"#;

/// How all of it is mounted, wherever it is by now: type, what of it, whether read-only, and on what.
const LOOK: &str = r#"
    cat /proc/self/mountinfo | awk -v folder="$FOLDER/" '
        index($5, folder) == 1 {
            for (i = 7; $i != "-"; i++);
            of[$1] = $(i + 1); on[$1] = $2; sub("^/[0-9]+$", "/PID", $4)
            what[$1] = $(i + 1) " " $4 " " substr($6, 1, 2)
        }
        END { for (id in of) print what[id], "on", (on[id] in of) ? of[on[id]] : "nothing" }' | sort
"#;

/// Exchanges a folder for a link and back, and two folders, as their owner can.
fn exchange(folder: &Path, ends: &AtomicBool) {
    let [here, there, away, bait] = ["here", "there", "away", "bait"].map(|name| folder.join(name));
    let lock = fs::File::open(bait).unwrap();
    while !ends.load(Ordering::Relaxed) {
        thread::yield_now();
        lock.lock().unwrap();
        fs::rename(&here, &away).unwrap();
        symlink("bait", &here).unwrap();
        fs::remove_file(&here).unwrap();
        fs::rename(&there, &here).unwrap();
        fs::rename(&away, &there).unwrap();
        lock.unlock().unwrap();
    }
}

#[test]
fn mounts_below_folders_of_others_are_dealt_with_wherever_these_go() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    for part in ["one", "two", "three", "four", "five"] {
        for place in ["here", "there", "bait"] {
            fs::create_dir_all(folder.join(place).join(part)).unwrap();
        }
    }
    for place in ["here/six", "there/six"] {
        fs::write(folder.join(place), "").unwrap();
    }
    chown(folder, Some(ALICE), None).unwrap();
    let words = ["unshare", "--mount", "sh", "-c", MOUNT].map(OsString::from).to_vec();
    let words = [words, vec![folder.into()]].concat();
    let run = Run::shell(json!({"version": 1}), LOOK, &[]).environment("FOLDER", folder).through(words);
    let (bare, guarded) = (run.bare().success().stdout, run.output().success().stdout);
    let count = |text: &str, of: &str| text.lines().filter(|line| *line == of).count();
    for (line, times) in [("sysfs / rw on nothing", 2), ("proc / rw on nothing", 2), ("proc /irq rw on nothing", 1)] {
        assert_eq!(count(&bare, line), times, "{line}: {bare}");
    }
    for (line, times) in [
        ("sysfs / ro on nothing", 2),
        ("tmpfs / ro on bpf", 1),
        ("tmpfs / ro on cgroup2", 1),
        ("proc /irq ro on proc", 3),
        ("proc / rw on nothing", 2),
        ("proc / rw on tmpfs", 1),
        ("proc /irq ro on nothing", 1),
        ("proc /irq/default_smp_affinity ro on nothing", 1),
    ] {
        assert_eq!(count(&guarded, line), times, "{line}: {guarded}");
    }
    let hiding = guarded.lines().filter(|line| line.starts_with("tmpfs / ro")).count();
    assert_eq!(hiding, 2 + count(&guarded, "tmpfs / ro on proc"), "{guarded}");

    let ends = AtomicBool::new(false);
    let outcomes: Vec<_> = thread::scope(|scope| {
        scope.spawn(|| exchange(folder, &ends));
        let outcomes = (0..40).map(|_| run.output()).collect();
        ends.store(true, Ordering::Relaxed);
        outcomes
    });
    for output in outcomes {
        let refused = output.code() == Some(125) && output.stderr.contains("where others than root can move it");
        assert!(refused || output.stdout == guarded, "{output:?}");
    }
}

/// By a working folder in a mount of another namespace, or one that was unmounted, root's command would reach what is hidden in its own.
#[test]
fn a_working_folder_in_a_foreign_mount_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let enter = |script: &str| {
        let words = ["unshare", "--mount", "sh", "-c", script].map(OsString::from).to_vec();
        Run::shell(json!({"version": 1}), "echo ran", &[])
            .through([words, vec![folder.path().into()]].concat())
            .output()
    };
    let stays = enter(r#"mount -t sysfs none "$0" && cd "$0" && exec "$@""#).success();
    assert_eq!(stays.stdout, "ran\n");
    let output = enter(r#"mount -t sysfs none "$0" && cd "$0" && umount --lazy "$0" && exec "$@""#).exits(125);
    assert!(output.stderr.contains("in no mount of this mount namespace") && output.stdout.is_empty(), "{output:?}");
    let output = enter(
        r#"unshare --mount sh -c 'mount -t sysfs none "$0"; echo; exec sleep 30' "$0" > "$0/ready" &
        until [ -s "$0/ready" ]; do :; done; cd /proc/$!/root/"$0" && "$@"; code=$?; kill $!; exit $code"#,
    )
    .exits(125);
    assert!(output.stderr.contains("in no mount of this mount namespace") && output.stdout.is_empty(), "{output:?}");
}
