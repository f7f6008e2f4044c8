//! Cgroups: for each of a fuzzer's workers one, in which the worker itself is in one, and its containers are in others.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use anyhow::Context as _;

/// What the names of the fuzzers' cgroups, and the ids of their containers, begin with; the fuzzer's process id follows.
const PREFIX: &str = "guard-fuzz-";

/// What the names of the cgroups begin with that guard-hook makes.
const OF_HOOKS: &str = "guard-hook.";

/// How often it is tried to remove a cgroup whose processes have been killed, and how long it is waited in between.
const ATTEMPTS: u32 = 500;
const PAUSE: Duration = Duration::from_millis(2);

/// The cgroups of a worker.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where the cgroup2 hierarchy is mounted.
    pub mount: PathBuf,
    name: String,
}

impl Place {
    /// Those of a worker of the fuzzer whose main process has this id.
    ///
    /// # Errors
    ///
    /// Where no cgroup2 file system is mounted.
    pub fn of(fuzzer: &str, worker: &str) -> anyhow::Result<Self> {
        let mount = mounts("cgroup2")?.into_iter().next().context("no cgroup2 is mounted")?;
        Ok(Self { mount, name: format!("{PREFIX}{fuzzer}-{worker}") })
    }

    /// The name of the cgroup. Ids of containers may begin with it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cgroup of all that the worker starts.
    #[must_use]
    pub fn base(&self) -> PathBuf {
        self.mount.join(&self.name)
    }

    /// Makes a cgroup in it.
    ///
    /// # Errors
    ///
    /// As mkdir(2).
    pub fn make(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.base().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// The leaf of a guard-run that the worker has started, if it is still there.
    #[must_use]
    pub fn leaf(&self, process: i32) -> Option<PathBuf> {
        let start = format!("guard-run.{process}.");
        let own = folders(&self.base());
        own.iter().flat_map(|folder| folders(folder)).find(|path| name_of(path).starts_with(&start))
    }

    /// Removes the cgroups that guard-hook has made at the top for containers whose ids begin so.
    pub fn remove_made_by_hooks(&self, ids: &str) {
        let start = format!("{OF_HOOKS}{ids}");
        folders(&self.mount).iter().filter(|folder| name_of(folder).starts_with(&start)).for_each(|folder| end(folder));
    }
}

/// Removes all cgroups of the fuzzer whose main process has this id, with what is in them: also those of version 1, which a
/// container's runtime makes, and those that guard-hook makes at the top.
pub fn remove(fuzzer: &str) {
    let start = format!("{PREFIX}{fuzzer}-");
    let hierarchies = ["cgroup", "cgroup2"].into_iter().flat_map(|kind| mounts(kind).unwrap_or_default());
    for folder in hierarchies.flat_map(|hierarchy| folders(&hierarchy)) {
        let name = name_of(&folder);
        if name.strip_prefix(OF_HOOKS).unwrap_or(&name).starts_with(&start) {
            end(&folder);
        }
    }
}

/// Removes what fuzzers that were killed have left.
///
/// # Errors
///
/// When it isn't known what is mounted.
pub fn remove_abandoned() -> anyhow::Result<()> {
    for folder in mounts("cgroup2")?.iter().flat_map(|mount| folders(mount)) {
        let name = name_of(&folder);
        let fuzzer = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if let Some(fuzzer) = fuzzer.filter(|fuzzer| !Path::new("/proc").join(fuzzer).exists()) {
            remove(fuzzer);
        }
    }
    Ok(())
}

/// The cgroup of version 2 that a process is in, as /proc has it.
#[must_use]
pub fn cgroup_of(process: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// Moves a process to a cgroup.
///
/// # Errors
///
/// As write(2).
pub fn enter(cgroup: &Path, process: u32) -> anyhow::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), process.to_string()).with_context(|| cgroup.display().to_string())
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Where file systems of a type are mounted.
fn mounts(kind: &str) -> anyhow::Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    let mut found: Vec<PathBuf> = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ').skip(1);
        if let (Some(point), Some(of)) = (words.next(), words.next())
            && of == kind
        {
            found.push(point.into());
        }
    }
    Ok(found)
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Kills what is in a cgroup, and removes it.
pub fn end(cgroup: &Path) {
    // Cgroups of version 1 have no such file; what is in them is in one of version 2 as well.
    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
    for folder in folders(cgroup) {
        end(&folder);
    }
    for _ in 0..ATTEMPTS {
        match fs::remove_dir(cgroup) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => sleep(PAUSE),
            _ => return,
        }
    }
}
