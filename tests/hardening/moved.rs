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
    for part in ["here/one", "here/two", "here/three", "there/one", "there/two", "there/three", "bait/one", "bait/two"]
    {
        fs::create_dir_all(folder.join(part)).unwrap();
    }
    chown(folder, Some(ALICE), None).unwrap();
    let words = ["unshare", "--mount", "sh", "-c", MOUNT].map(OsString::from).to_vec();
    let words = [words, vec![folder.into()]].concat();
    let run = Run::shell(json!({"version": 1}), LOOK, &[]).environment("FOLDER", folder).through(words);
    let (bare, guarded) = (run.bare().success().stdout, run.output().success().stdout);
    let count = |text: &str, of: &str| text.lines().filter(|line| *line == of).count();
    assert_eq!((count(&bare, "sysfs / rw on nothing"), count(&bare, "proc / rw on nothing")), (2, 2), "{bare}");
    for (line, times) in [
        ("sysfs / ro on nothing", 2),
        ("tmpfs / ro on bpf", 1),
        ("proc /irq ro on proc", 2),
        ("proc / rw on nothing", 2),
    ] {
        assert_eq!(count(&guarded, line), times, "{line}: {guarded}");
    }
    assert_eq!(
        guarded.lines().filter(|line| line.starts_with("tmpfs")).count(),
        1 + count(&guarded, "tmpfs / ro on proc")
    );

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
