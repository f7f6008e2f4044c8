//! What of guard-run is seen from outside: the cgroups that it makes.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Context as _;

/// How long a cgroup may take to have no processes after all have been killed.
const LIMIT: Duration = Duration::from_secs(2);

/// Where the cgroup v2 hierarchy is mounted.
///
/// # Errors
///
/// When it isn't.
pub fn hierarchy() -> anyhow::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    // proc_pid_mountinfo(5): the root is field 4, the mount point field 5, and the type comes after a hyphen.
    let whole = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        (after.starts_with("cgroup2 ") && fields.next() == Some("/"))
            .then(|| fields.next())
            .flatten()
            .map(PathBuf::from)
    };
    mounts.lines().find_map(whole).context("no cgroup v2 hierarchy is mounted")
}

/// Removes the cgroup that a launcher has left behind, which was killed: what still runs in it is killed, too.
pub fn reap(hierarchy: &Path, launcher: u32) {
    let start = format!("guard-run.{launcher}.");
    let is_left = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start));
    for leaf in folders(hierarchy).into_iter().filter(|path| is_left(path)) {
        let _ = fs::write(leaf.join("cgroup.kill"), "1");
        let end = Instant::now() + LIMIT;
        // What can't be removed now is some other run's to reap.
        while fs::remove_dir(&leaf).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
            && Instant::now() < end
        {
            sleep(Duration::from_millis(2));
        }
    }
}

/// All folders below one.
fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
    below.flat_map(|folder| [folders(&folder), vec![folder]].concat()).collect()
}
