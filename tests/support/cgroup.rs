//! The cgroup v2 hierarchy, seen from outside.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where cgroup2 is mounted.
///
/// # Panics
///
/// When it isn't.
#[must_use]
pub fn cgroup2_mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let mount = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4))?
    });
    PathBuf::from(mount.expect("cgroup2 is mounted; if it isn't: mount -t cgroup2 none /sys/fs/cgroup"))
}

/// The leaves of the `guard-run` that has, or had, this process id.
#[must_use]
pub fn leaves_of(guard_run: u32) -> Vec<PathBuf> {
    let prefix = format!("guard-run.{guard_run}.");
    let mut found = Vec::new();
    let mut folders = vec![cgroup2_mount()];
    while let Some(folder) = folders.pop() {
        // What vanishes meanwhile is somebody else's.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(&prefix) {
                    found.push(entry.path());
                }
                folders.push(entry.path());
            }
        }
    }
    found
}

/// Checks that the `guard-run` that had this process id left no leaf behind.
///
/// # Panics
///
/// When it did.
pub fn assert_no_leaf(guard_run: u32) {
    let leaves = leaves_of(guard_run);
    assert!(leaves.is_empty(), "left behind: {leaves:?}");
}

/// Kills all processes in the leaves of a `guard-run`: for clean-up after a test that kills it.
pub fn kill_leaves(guard_run: u32) {
    for leaf in leaves_of(guard_run) {
        // It may have gone in the meantime.
        let _ = fs::write(Path::new(&leaf).join("cgroup.kill"), "1");
    }
}
