//! A cgroup without a policy, beside those of guard-run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

const PREFIX: &str = "guard-bench.";

/// A leaf of our own; removed with this value, when its processes have ended.
pub struct Leaf(PathBuf);

impl Leaf {
    /// Makes one where guard-run makes its own: below this process's cgroup.
    pub fn create() -> anyhow::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
        let mount = mount.context("no cgroup2 file system is mounted")?;
        let cgroups = fs::read_to_string("/proc/self/cgroup")?;
        let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/")).context("this process has no cgroup")?;
        let parent = Path::new(mount).join(own);
        // A bench that was killed can't tidy up.
        for entry in fs::read_dir(&parent)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                let _ = fs::remove_dir(entry.path());
            }
        }
        let path = parent.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// Moves a process there.
    pub fn enter(&self, pid: u32) -> anyhow::Result<()> {
        let file = self.0.join("cgroup.procs");
        fs::write(&file, pid.to_string()).with_context(|| file.display().to_string())
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        // What stays behind is empty, and the next bench removes it.
        let _ = fs::remove_dir(&self.0);
    }
}
