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

/// Mounts what root's command is neither to write to nor to see, in a mount namespace of its own: what follows sees it. Meanwhile nothing is
/// exchanged.
const MOUNT: &str = r#"
    exec 9< "$0/bait" && flock 9 && mount -t sysfs none "$0/there/sys" && mount -t bpf none "$0/there/bpf" && exec 9<&- && exec "$@"
"#;

/// How the two are mounted, wherever they are by now; and whether the files in the other place are to be seen.
const LOOK: &str = r#"
    cat /proc/self/mountinfo | while read -r _ _ _ _ point options _ rest; do
        case "$point" in
        "$FOLDER"/*) echo "${point##*/} ${options%%,*} ${rest##*- }" | cut -d' ' -f1-3 ;;
        esac
    done
    cat "$FOLDER/bait/sys/file" "$FOLDER/bait/bpf/file"
    : > "$FOLDER/bait/sys/file" && echo written
"#;

/// The sysfs is read-only, over the other file system is an empty one that is, too, and nothing is over the bait.
const AS_IT_SHOULD_BE: &str = "sys ro sysfs\nbpf rw bpf\nbpf ro tmpfs\nbait\nbait\nwritten\n";

/// Exchanges the folder for a link and back, as its owner can.
fn exchange(folder: &Path, ends: &AtomicBool) {
    let [there, away, bait] = ["there", "away", "bait"].map(|name| folder.join(name));
    let lock = fs::File::open(bait).unwrap();
    while !ends.load(Ordering::Relaxed) {
        thread::yield_now();
        lock.lock().unwrap();
        fs::rename(&there, &away).unwrap();
        symlink("bait", &there).unwrap();
        fs::remove_file(&there).unwrap();
        fs::rename(&away, &there).unwrap();
        lock.unlock().unwrap();
    }
}

#[test]
fn mounts_below_folders_of_others_are_dealt_with_wherever_these_go() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    for part in ["there/sys", "there/bpf", "bait/sys", "bait/bpf"] {
        fs::create_dir_all(folder.join(part)).unwrap();
    }
    chown(folder, Some(ALICE), None).unwrap();
    let words = ["unshare", "--mount", "sh", "-c", MOUNT].map(OsString::from).to_vec();
    let words = [words, vec![folder.into()]].concat();
    let run = || {
        for part in ["sys", "bpf"] {
            fs::write(folder.join("bait").join(part).join("file"), "bait\n").unwrap();
        }
        Run::shell(json!({"version": 1}), LOOK, &[]).environment("FOLDER", folder).through(words.clone()).output()
    };
    assert_eq!(run().success().stdout, AS_IT_SHOULD_BE);

    let ends = AtomicBool::new(false);
    let outcomes: Vec<_> = thread::scope(|scope| {
        scope.spawn(|| exchange(folder, &ends));
        let outcomes = (0..40).map(|_| run()).collect();
        ends.store(true, Ordering::Relaxed);
        outcomes
    });
    for output in outcomes {
        let refused = output.code() == Some(125) && output.stderr.contains("others than root can change the way");
        assert!(refused || output.stdout == AS_IT_SHOULD_BE, "{output:?}");
    }
}
