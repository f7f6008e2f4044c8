//! What the command sees of the limits that it is under. Programs that adapt to them (Java, Go, Node.js, .NET) look for them in
//! their own cgroup, where it is mounted. In a cgroup namespace, what is mounted of version 1 does not fit the paths in
//! /proc/self/cgroup any more; and in version 2, a leaf has no limits but those of the cgroups above it, which it does not show.

use std::{
    fs,
    path::{Path, PathBuf},
};

use enforce::{cgroup::CGROUP2, mounts::Mount};
use serde::{Deserialize, Serialize};

use super::place::Place;

/// The type of a mount of version 1.
pub(super) const CGROUP1: &str = "cgroup";

/// The controllers of version 1 that have limits to adapt to, and the files that say what the processes in a cgroup get. Other
/// controllers are left as they are: each one takes time.
const CONTROLLERS: [(&str, &[&str]); 3] = [
    ("cpu", &["cpu.cfs_quota_us", "cpu.shares"]),
    ("cpuset", &["cpuset.cpus"]),
    ("memory", &["memory.limit_in_bytes", "memory.soft_limit_in_bytes"]),
];

/// The files of version 2, of the controllers cpu and memory, that say what the processes below get.
const FILES: [&str; 4] = ["cpu.max", "memory.high", "memory.max", "memory.swap.max"];

/// The limits on the cgroups of the command: of version 1, these are guard-run's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limits {
    /// Cgroups of version 1 that are to be shown where their hierarchy is mounted: the cgroup, and the mount.
    pub(super) legacy: Vec<(Place, Place)>,
    /// What the files of version 2 are to say. None, if there is no limit.
    pub(super) unified: Vec<(String, String)>,
}

impl Limits {
    /// What can be found of them. All of this is only to be looked at, so nothing of it is worth failing for.
    pub(super) fn find(mounts: &[Mount], leaf: &Path) -> Self {
        let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        // Showing another cgroup in a mount's place takes time, so it is done where there is something to see.
        let limited = legacy(mounts, &cgroups)
            .into_iter()
            .filter(|(own, mount, files)| own.is_dir() && files.iter().any(|file| differs(own, mount, file)));
        let mut limits =
            Self { legacy: limited.map(|(own, mount, _)| (own.into(), mount.into())).collect(), unified: Vec::new() };
        // Where neither controller is version 2's, none of the files is there, at no level.
        let has_controllers = |point: &Path| {
            let list = fs::read_to_string(point.join("cgroup.controllers")).unwrap_or_default();
            list.split_whitespace().any(|controller| ["cpu", "memory"].contains(&controller))
        };
        let mut unified = mounts.iter().filter(|mount| mount.kind == CGROUP2).map(|mount| &mount.point);
        if let Some(point) = unified.find(|point| leaf.starts_with(point) && has_controllers(point)) {
            let levels: Vec<&Path> = leaf.ancestors().take_while(|level| level.starts_with(point)).collect();
            limits.unified =
                effective(|file| levels.iter().filter_map(|level| fs::read_to_string(level.join(file)).ok()).collect());
        }
        limits
    }
}

/// Whether a file that there may be says something else in one folder than in another.
fn differs(one: &Path, other: &Path, file: &str) -> bool {
    fs::read(one.join(file)).is_ok_and(|text| fs::read(other.join(file)).ok() != Some(text))
}

/// The cgroups of version 1 that are not what their mount shows, their mounts, and the files to look at. `cgroups` is a cgroup
/// file (cgroups(7)).
fn legacy(mounts: &[Mount], cgroups: &str) -> Vec<(PathBuf, PathBuf, Vec<&'static str>)> {
    let hierarchies: Vec<(Vec<&str>, &str)> = cgroups
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?.split(',').collect(), fields.next()?))
        })
        .collect();
    let mounts = mounts.iter().filter(|mount| mount.kind == CGROUP1);
    let of = |mount: &Mount| {
        let options: Vec<&str> = mount.options.split(',').collect();
        let is_mounted = |controllers: &[&str]| controllers.iter().all(|controller| options.contains(controller));
        let (controllers, own) = hierarchies.iter().find(|(controllers, _)| is_mounted(controllers))?;
        let limiting = CONTROLLERS.into_iter().filter(|(name, _)| controllers.contains(name));
        let files: Vec<_> = limiting.flat_map(|(_, files)| files).copied().collect();
        let below = Path::new(own).strip_prefix(&mount.root).ok().filter(|below| *below != "" && !files.is_empty())?;
        Some((mount.point.join(below), mount.point.clone(), files))
    };
    mounts.filter_map(of).collect()
}

/// The least of what a file says in a cgroup and those above it, for each file. `read` returns what it says there.
fn effective(read: impl Fn(&str) -> Vec<String>) -> Vec<(String, String)> {
    let least = |file: &'static str| {
        let said = read(file);
        let least = said.iter().min_by(|one, other| share(one).total_cmp(&share(other)))?;
        Some((file.to_owned(), least.clone()))
    };
    let files: Vec<_> = FILES.into_iter().filter_map(least).collect();
    if files.iter().all(|(_, text)| share(text).is_infinite()) { Vec::new() } else { files }
}

/// What a limit is to be compared by: bytes, or processors.
fn share(text: &str) -> f64 {
    let mut numbers = text.split_whitespace().map(|number| number.parse::<f64>().unwrap_or(f64::INFINITY));
    let quota = numbers.next().unwrap_or(f64::INFINITY);
    quota / numbers.next().unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_shown_where_a_mount_shows_others_too() {
        let mounts = Mount::parse(
            b"30 20 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
              31 20 0:27 /docker/1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
              32 20 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
              33 20 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
              34 20 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n",
        );
        let cgroups = "6:memory:/docker/1\n5:cpu,cpuacct:/a/b\n4:pids:/f\n1:name=systemd:/c\n0::/d/e\n";
        let path = |text: &str| PathBuf::from(text);
        assert_eq!(
            legacy(&mounts, cgroups),
            [(
                path("/sys/fs/cgroup/cpu,cpuacct/a/b"),
                path("/sys/fs/cgroup/cpu,cpuacct"),
                vec!["cpu.cfs_quota_us", "cpu.shares"]
            )]
        );
    }

    #[test]
    fn the_least_limit_of_all_levels_counts() {
        let levels = |file: &str| -> Vec<String> {
            let said: &[&str] = match file {
                "cpu.max" => &["150000 100000\n", "max 100000\n", "50000 10000\n"],
                "memory.max" => &["max\n", "1073741824\n", "8589934592\n"],
                "memory.high" => &["max\n"],
                _ => &[],
            };
            said.iter().map(ToString::to_string).collect()
        };
        let expected = [("cpu.max", "150000 100000\n"), ("memory.high", "max\n"), ("memory.max", "1073741824\n")];
        assert_eq!(effective(levels), expected.map(|(file, text)| (file.to_owned(), text.to_owned())));
        assert_eq!(effective(|_| vec!["max\n".to_owned()]), []);
        assert_eq!(effective(|_| Vec::new()), []);
    }
}
