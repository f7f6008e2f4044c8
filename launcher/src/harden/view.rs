//! What the command sees of the system: its own cgroup, mount and IPC namespace, and in it nothing by which the kernel or
//! other cgroups could be changed.

use std::{
    ffi::CString,
    fs, io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    rc::Rc,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, ResolveFlag},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{Pid, fchdir},
};

use serde::{Deserialize, Serialize};

use super::{
    Step,
    cover::Cover,
    delegation::Covers,
    handed::Handed,
    limits::{CGROUP1, Limits},
    packets::Hidden,
    place::Place,
    theirs::{Theirs, Treatment, in_fuse_of_theirs, is_theirs},
    walk::open_without_links,
};
use enforce::{
    cgroup::CGROUP2,
    mounts::Mount,
    privilege::{self, Operation},
    sys::confine::{attach_mount, make_read_only, make_writable, mount_instead},
};
use policy::{Part, ProcessSection};

/// File systems by which anybody who may write their files changes the kernel, or cgroups.
const READ_ONLY: [&str; 12] = [
    CGROUP1,
    CGROUP2,
    "sysfs",
    "configfs",
    "efivarfs",
    "fusectl",
    "nfsd",
    "pstore",
    "resctrl",
    "securityfs",
    "selinuxfs",
    "smackfs",
];

/// The types of file systems that are cgroup hierarchies.
const CGROUPS: [&str; 2] = [CGROUP1, CGROUP2];

/// File systems that show the kernel's inside, or eBPF programs and maps by name; or by which the kernel is told what to execute
/// in the place of a program.
const HIDDEN: [&str; 4] = [BPFFS, "debugfs", "tracefs", "binfmt_misc"];

/// Where guards are kept: of containers, and those that are for the next run. Anybody who may rename files there could put one
/// in another's place, so seeing it takes more than the others.
const BPFFS: &str = "bpf";

/// The message queues of the namespace that they were mounted in, which is another one than the command's.
const QUEUES: &str = "mqueue";

/// Where processes, and much of the machine, are to be seen.
const PROC: &str = "proc";

/// Where in /proc the last of these may be mounted later: systemd does so when somebody looks there.
const FORMATS: &str = "sys/fs/binfmt_misc";

/// What of /proc is about the whole machine, and may be written by root without any capability: by /proc/scsi/scsi, disks are taken
/// from the machine (`proc_scsi_write`). /proc/sys is not here: the sysctl hook judges it.
const MACHINE: [&str; 16] = [
    "sysrq-trigger",
    "irq",
    "bus",
    "fs",
    "acpi",
    "mtrr",
    "dynamic_debug",
    "scsi",
    "asound",
    "driver",
    "ide",
    "xen",
    "spl",
    "cio_ignore",
    "latency_stats",
    "lock_stat",
];

/// Folders to mount something over that the command is to see: the first in which nobody else has something. They are there for mounting
/// file systems of the kernel's, and empty without (`sysfs_create_mount_point`, fs/sysfs/dir.c).
const FREE: [&str; 3] = ["/sys/fs/bpf", "/sys/kernel/debug", "/sys/kernel/tracing"];

/// What is mounted over a folder: nothing, in as little memory as can be.
pub(super) const EMPTY: &str = "mode=0555,size=4k,nr_inodes=1";

/// Where it has to have some short files.
const SMALL: &str = "mode=0555,size=64k,nr_inodes=16";

/// Over a file.
pub(super) const NO_FILE: &str = "/dev/null";

/// What is done in the mount namespace.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Where the command's own cgroup is shown instead of all of them.
    cgroups: Vec<Place>,
    /// What it shows there of the limits that the command is under.
    limits: Limits,
    /// What is made read-only, with all that is mounted below.
    read_only: Vec<Place>,
    /// Where the own cgroup can be written all the same, as it was before.
    writable: Vec<Place>,
    /// Single files and folders that are.
    pinned: Vec<Place>,
    /// Folders that seem empty.
    hidden: Vec<Place>,
    /// Device nodes that seem to be /dev/null.
    masked: Vec<Place>,
    /// Sockets that can't be connected to.
    covered: Vec<Cover>,
    /// Folders that had so much in them that sockets in them may be left.
    crowded: Vec<Place>,
    /// Mounts below folders that others can change. Nothing else is about these.
    theirs: Vec<Theirs>,
}

impl View {
    /// What is to be done, given what is mounted. `launcher` is this program's own process, `covers` is what is to be covered. Whether the
    /// command is root, or may become it, is of interest where it may make namespaces.
    pub(super) fn new(
        section: &ProcessSection,
        mounts: &[Mount],
        launcher: Pid,
        covers: Covers,
        may_be_root: bool,
    ) -> Self {
        // Of these kinds alone: a file system of another user's, asked for anything, need not answer.
        let (theirs, ours): (Vec<&Mount>, Vec<&Mount>) = mounts
            .iter()
            .filter(|mount| is_of_interest(mount) && !is_out_of_reach(&mount.point))
            .partition(|mount| is_theirs(mount, mounts));
        let covered = covers.found.into_iter().collect();
        let crowded = covers.crowded.into_iter().map(Place::from).collect();
        let mut view = Self { covered, crowded, ..Self::default() };
        // And guard-run's own files there, which root may write, too: oom_score_adj would have the kernel kill it first.
        let mut machine: Vec<String> = MACHINE.into_iter().map(str::to_owned).chain([launcher.to_string()]).collect();
        // In a user namespace, the kernel mounts procfs only for who sees all of one (`mount_too_revealing`, fs/namespace.c). Who is not root
        // has no right to write these files anyway. They are root's, guard-run's own among them, since it can't be dumped; nothing makes the
        // command root; and being root in a namespace gives a capability only over files whose owner has a number there
        // (`privileged_wrt_inode_uidgid`, kernel/capability.c), which root outside has not for a user's namespace (tests/hardening/proc.rs).
        machine.retain(|_| may_be_root || !section.allows(Part::Namespaces));
        let mut seeming_empty = Vec::new();
        for mount in ours {
            // What is below another one is dealt with when that one is.
            let add = |points: &mut Vec<Place>| {
                if !points.iter().any(|point| mount.is_in(point)) {
                    points.push(mount.point.clone().into());
                }
            };
            let there = |parts: Vec<String>| {
                let paths = parts.into_iter().map(|part| mount.point.join(part));
                paths.filter(|path| path.exists()).map(Place::from)
            };
            match treatment(section, mount, &machine) {
                // The command's own one is shown there.
                Some(Treatment::Hidden) if CGROUPS.contains(&mount.kind.as_str()) => {
                    if mount.kind == CGROUP2 {
                        view.cgroups.push(mount.point.clone().into());
                    }
                    add(&mut view.read_only);
                }
                Some(Treatment::Hidden) => add(&mut view.hidden),
                Some(Treatment::ReadOnly) => add(&mut view.read_only),
                Some(Treatment::Parts(pinned, hidden)) => {
                    view.pinned.extend(there(pinned));
                    seeming_empty.extend(there(hidden));
                }
                None => {}
            }
        }
        seeming_empty.retain(|path| !view.hidden.contains(path));
        view.hidden.extend(seeming_empty);
        if section.allows(Part::Cgroups) {
            view.writable.clone_from(&view.cgroups);
        }
        // Of those at one place, only the last one is to be reached.
        let is_covered = |mount: &Mount| {
            mounts.iter().rfind(|other| other.point == mount.point).is_some_and(|last| last.id != mount.id)
        };
        view.theirs = theirs
            .into_iter()
            .filter(|mount| !is_covered(mount))
            .filter_map(|mount| Some(Theirs::new(mount, treatment(section, mount, &machine)?)))
            .collect();
        view
    }

    /// Nothing is done. This is only what would be covered.
    pub(super) fn covering_nothing_but(covers: Covers) -> Self {
        Self { covered: covers.found.into_iter().collect(), ..Self::default() }
    }

    /// Whether this is a mount in a folder of others of which something is hidden or pinned: by a folder in it, all of it could be reached.
    pub(super) fn hides_parts_of(&self, mount: u32) -> bool {
        self.theirs.iter().any(|theirs| theirs.id == mount && theirs.treatment != Treatment::ReadOnly)
    }

    /// The sockets and folders that are covered, and which of them are folders.
    pub(super) fn covers(&self) -> Vec<(PathBuf, bool)> {
        self.covered.iter().map(|cover| (cover.path().to_owned(), cover.is_folder())).collect()
    }

    /// Like this one, with more files and folders that can only be read.
    pub(super) fn pinning(mut self, places: Vec<Place>) -> Self {
        self.pinned.extend(places);
        self
    }

    /// Like this one, without these device nodes, and those in these folders.
    pub(super) fn hiding(mut self, Hidden { folders, nodes }: Hidden) -> Self {
        self.hidden.extend(folders);
        self.masked.extend(nodes);
        self
    }

    /// Like this one, with these limits to be seen.
    pub(super) fn showing(self, mut limits: Limits) -> Self {
        limits.legacy.retain(|(_, point)| self.theirs.iter().all(|mount| mount.point != *point));
        Self { limits, ..self }
    }

    /// The sockets that can't be connected to, and the folders that seem empty for such sockets, for the log.
    #[must_use]
    pub fn covered(&self) -> Vec<String> {
        self.covered.iter().map(Cover::name).collect()
    }

    /// The folders in which such sockets may be left, for the log.
    #[must_use]
    pub fn crowded(&self) -> Vec<String> {
        self.crowded.iter().map(|folder| folder.to_string_lossy().into_owned()).collect()
    }

    /// What a process in this cgroup does to see no more. The folders that are handed on as descriptors are opened anew: by one
    /// from outside, everything outside could be reached.
    pub(super) fn steps(&self, leaf: &Path, handed_on: &[Handed]) -> Vec<Step> {
        let mut steps = Vec::new();
        // The first of them hides the path of the leaf, and is the leaf from then on.
        let mut shown = leaf;
        for point in &self.cgroups {
            steps.push(on("showing no cgroup but its own at", point, bind(shown, point)));
            shown = point;
        }
        let limits = &self.limits;
        for (own, point) in &limits.legacy {
            steps.push(on("showing no cgroup but its own instead of all at", point, instead(own, point)));
        }
        for point in self.cgroups.iter().filter(|_| !limits.unified.is_empty()) {
            steps.push(on("showing the limits at", point, files(&limits.unified, point)));
        }
        steps.extend(self.hidden.iter().map(|point| on("hiding", point, empty(point))));
        steps.extend(self.masked.iter().map(|path| on("hiding", path, mask(path))));
        for path in &self.pinned {
            steps.push(on("mounting read-only", path, bind(path, path)));
            steps.push(on("making read-only", path, read_only(path)));
        }
        steps.extend(self.read_only.iter().map(|point| on("making read-only", point, read_only(point))));
        steps.extend(self.writable.iter().map(|point| on("making writable", point, writable(point))));
        if !self.theirs.is_empty() {
            let points: Vec<String> = self.theirs.iter().map(|mount| mount.point.display().to_string()).collect();
            let what = format!(
                "finding again what is mounted where others than root can move it, to make it read-only or hide it ({})",
                points.join(", ")
            );
            let theirs = self.theirs.clone();
            steps.push(Step::raised(what, Operation::View, move || Theirs::treat(&theirs)));
        }
        // These take CAP_SYS_ADMIN; what follows is opened with the user's own rights.
        steps.extend(self.covered.iter().cloned().map(|cover| {
            let what = format!("covering {}", cover.name());
            Step::with_rights(what, move |rights| cover.apply(rights))
        }));
        let own: Vec<Place> = self.cgroups.iter().chain(&self.hidden).cloned().collect();
        let own: Rc<[Place]> = own.into_iter().chain(limits.legacy.iter().map(|(_, point)| point.clone())).collect();
        steps.extend(handed_on.iter().cloned().map(|folder| {
            let own = Rc::clone(&own);
            let what = format!("finding the folder of descriptor {} again at {}", folder.number, folder.path.display());
            Step::new(what, move || folder.open_anew(own.iter().map(|place| &**place)))
        }));
        // What is mounted over it now is not what the process is in.
        let covered = self.covered.iter().filter(|cover| cover.is_folder()).map(Cover::path);
        let mut mounted =
            [&self.cgroups, &self.hidden, &self.pinned].into_iter().flatten().map(|point| &**point).chain(covered);
        let own = std::env::current_dir().ok().filter(|own| mounted.any(|point| own.starts_with(point)));
        steps.extend(own.map(|own| {
            let to = own.clone();
            Step::new(format!("returning to {}", own.display()), move || {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
                fchdir(open_without_links(AT_FDCWD, &to, flags, ResolveFlag::empty())?)
            })
        }));
        steps
    }
}

/// Whether a mount is of a kind that something is done to.
fn is_of_interest(mount: &Mount) -> bool {
    let kind = mount.kind.as_str();
    READ_ONLY.contains(&kind) || HIDDEN.contains(&kind) || [QUEUES, PROC].contains(&kind)
}

/// What is done to a mount, and of a procfs to the files of `machine`. Cgroups stay out of reach whatever the section allows.
fn treatment(section: &ProcessSection, Mount { kind, root, .. }: &Mount, machine: &[String]) -> Option<Treatment> {
    let (kernel_files, bpf) = (section.allows(Part::KernelFiles), section.allows(Part::Bpf));
    match kind.as_str() {
        CGROUP1 | CGROUP2 => Some(Treatment::Hidden),
        BPFFS => (!kernel_files || !bpf).then_some(Treatment::Hidden),
        QUEUES => (!section.allows(Part::Ipc)).then_some(Treatment::Hidden),
        _ if kernel_files => None,
        PROC => {
            let parts = parts_in(root, machine);
            let is_part = parts.iter().any(String::is_empty);
            let formats = parts_in(root, &[FORMATS.to_owned()]).into_iter().filter(|part| !part.is_empty()).collect();
            Some(if is_part { Treatment::ReadOnly } else { Treatment::Parts(parts, formats) })
        }
        kind if HIDDEN.contains(&kind) => Some(Treatment::Hidden),
        _ => Some(Treatment::ReadOnly),
    }
}

/// Where these files are in a mount of this part of their file system; empty for one that all of the mount is in.
fn parts_in(root: &Path, files: &[String]) -> Vec<String> {
    let root = root.strip_prefix("/").unwrap_or(root);
    let part = |file: &String| {
        let below = Path::new(file).strip_prefix(root).ok().and_then(Path::to_str);
        below.map(str::to_owned).or_else(|| root.starts_with(file).then(String::new))
    };
    files.iter().filter_map(part).collect()
}

/// A mount in a file system that another user answers for, and may never answer.
pub(super) fn unreachable(mounts: &[Mount]) -> Option<&Mount> {
    mounts.iter().find(|mount| is_of_interest(mount) && in_fuse_of_theirs(mount, mounts))
}

/// Where the command can be shown files of its own: in the place of something that it would not see anyway, or of nothing.
pub(super) fn free_folder(section: &ProcessSection, mounts: &[Mount]) -> Option<&'static Path> {
    let is_free = |place: &&Path| {
        let mut here = mounts.iter().filter(|mount| mount.point.starts_with(place));
        let is_hidden = |mount: &Mount| HIDDEN.contains(&mount.kind.as_str()) && !section.allows(Part::KernelFiles);
        // In a guard that may use eBPF, programs expect to find the file system of that kind at its usual place.
        let is_wanted = section.allows(Part::Bpf) && *place == Path::new(FREE[0]);
        !is_wanted && here.all(is_hidden) && place.is_dir()
    };
    FREE.into_iter().map(Path::new).find(is_free)
}

/// What a process in its cgroup does to see a mount that is nowhere yet, at a place, and only to read.
pub(super) fn show(mount: OwnedFd, place: &Path) -> [Step; 3] {
    let point = CString::new(place.as_os_str().as_bytes());
    [
        on("mounting the file of denials at", place, move || {
            attach_mount(&mount, point.as_ref().map_err(|_| Errno::EINVAL)?)
        }),
        // Of the first, guard-run has a file open for writing, so that it can't be made read-only itself.
        on("mounting the file of denials once more at", place, bind(place, place)),
        on("making the file of denials read-only at", place, read_only(place)),
    ]
}

/// What a process in its cgroup does to have namespaces of its own. Needs `CAP_SYS_ADMIN`.
pub(super) fn namespaces(section: &ProcessSection) -> [Step; 2] {
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP;
    // Then processes outside share no System V IPC with the command.
    flags.set(CloneFlags::CLONE_NEWIPC, !section.allows(Part::Ipc));
    [
        Step::raised("namespaces of its own", Operation::View, move || unshare(flags)),
        // What is unmounted outside goes away inside, too, so that nothing is kept busy; but nothing gets out.
        Step::raised("a mount namespace of its own", Operation::View, || {
            change(None, "/", MsFlags::MS_SLAVE | MsFlags::MS_REC)
        }),
    ]
}

/// Whether an ordinary user can't get there, for want of rights to a folder on the way. Neither can the user's command.
fn is_out_of_reach(point: &Path) -> bool {
    !privilege::is_root()
        && point.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// What is done to a place, which takes `CAP_SYS_ADMIN`.
fn on(what: &str, path: &Path, run: impl Fn() -> nix::Result<()> + 'static) -> Step {
    Step::raised(format!("{what} {}", path.display()), Operation::View, run)
}

fn change(source: Option<&Path>, target: impl AsRef<Path>, flags: MsFlags) -> nix::Result<()> {
    mount(source, target.as_ref(), None::<&str>, flags, None::<&str>)
}

fn bind(source: &Path, target: &Path) -> impl Fn() -> nix::Result<()> + 'static {
    let (source, target) = (source.to_owned(), target.to_owned());
    move || change(Some(&source), &target, MsFlags::MS_BIND)
}

/// Nothing in the place of a device node. Its device may have gone away by now.
fn mask(node: &Path) -> impl Fn() -> nix::Result<()> + 'static {
    let mount = bind(Path::new(NO_FILE), node);
    move || match mount() {
        Err(Errno::ENOENT) => Ok(()),
        mounted => mounted,
    }
}

fn instead(folder: &Path, point: &Path) -> impl Fn() -> nix::Result<()> + 'static {
    let [folder, point] = [folder, point].map(|path| CString::new(path.as_os_str().as_bytes()));
    move || {
        let (Ok(folder), Ok(point)) = (&folder, &point) else { return Err(Errno::EINVAL) };
        mount_instead(folder, point)
    }
}

fn empty(point: &Path) -> impl Fn() -> nix::Result<()> + 'static {
    let point = point.to_owned();
    move || memory(&point, MsFlags::MS_RDONLY, EMPTY)
}

/// Files with these contents, and nothing else. The mount is still writable then.
fn files(files: &[(String, String)], point: &Path) -> impl Fn() -> nix::Result<()> + 'static {
    let (files, point) = (files.to_vec(), point.to_owned());
    move || {
        memory(&point, MsFlags::empty(), SMALL)?;
        files.iter().try_for_each(|(name, text)| {
            fs::write(point.join(name), text).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))
        })
    }
}

/// Mounts a file system in memory.
pub(super) fn memory(point: &Path, flags: MsFlags, options: &str) -> nix::Result<()> {
    let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("none"), point, Some("tmpfs"), flags, Some(options))
}

fn read_only(point: &Path) -> impl Fn() -> nix::Result<()> + 'static {
    let point = CString::new(point.as_os_str().as_bytes());
    move || make_read_only(point.as_ref().map_err(|_| Errno::EINVAL)?)
}

fn writable(point: &Path) -> impl Fn() -> nix::Result<()> + 'static {
    let point = CString::new(point.as_os_str().as_bytes());
    move || make_writable(point.as_ref().map_err(|_| Errno::EINVAL)?)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// Not looked for without a /proc.
    const LAUNCHER: Pid = Pid::from_raw(1);

    fn mounts(list: &[(&str, &str)]) -> Vec<Mount> {
        let mount = |(point, kind): &(&str, &str)| Mount {
            id: 0,
            root: "/".into(),
            point: point.into(),
            kind: (*kind).into(),
            options: String::new(),
        };
        list.iter().map(mount).collect()
    }

    fn paths(list: &[&str]) -> Vec<Place> {
        list.iter().map(|path| PathBuf::from(path).into()).collect()
    }

    #[test]
    fn each_layout_is_dealt_with_from_its_topmost_mounts() {
        let pure = mounts(&[
            ("/", "ext4"),
            ("/sys", "sysfs"),
            ("/sys/fs/cgroup", "cgroup2"),
            ("/sys/fs/bpf", "bpf"),
            ("/sys/kernel/debug", "debugfs"),
            ("/sys/kernel/debug/tracing", "tracefs"),
        ]);
        let view = View::new(&ProcessSection::default(), &pure, LAUNCHER, Covers::default(), true);
        assert_eq!(view.cgroups, paths(&["/sys/fs/cgroup"]));
        assert_eq!(view.read_only, paths(&["/sys"]));
        assert_eq!(view.hidden, paths(&["/sys/fs/bpf", "/sys/kernel/debug"]));

        let hybrid = mounts(&[
            ("/sys/fs/cgroup", "tmpfs"),
            ("/sys/fs/cgroup/memory", "cgroup"),
            ("/sys/fs/cgroup/unified", "cgroup2"),
            ("/elsewhere", "cgroup2"),
            ("/elsewhere2", "sysfs"),
        ]);
        let view = View::new(&ProcessSection::default(), &hybrid, LAUNCHER, Covers::default(), true);
        assert_eq!(view.cgroups, paths(&["/sys/fs/cgroup/unified", "/elsewhere"]));
        assert_eq!(
            view.read_only,
            paths(&["/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified", "/elsewhere", "/elsewhere2"])
        );
        assert!(view.hidden.is_empty());
    }

    #[test]
    fn what_of_proc_is_the_machines_is_made_read_only_where_it_is_there() {
        let proc = mounts(&[("/proc", "proc")]);
        let pinned_for = |parts: &[Part], may_be_root| {
            let section = ProcessSection { allow: parts.to_vec(), ..ProcessSection::default() };
            View::new(&section, &proc, LAUNCHER, Covers::default(), may_be_root).pinned
        };
        let pinned = |parts: &[Part]| pinned_for(parts, true);
        let there =
            MACHINE.into_iter().chain(["1"]).map(|name| Path::new("/proc").join(name)).filter(|file| file.exists());
        let expected: Vec<Place> = there.map(Place::from).collect();
        assert!(pinned(&[]) == expected && expected.len() > 2, "{expected:?}");
        assert_eq!(pinned(&[Part::KernelFiles]), []);
        assert_eq!((pinned_for(&[], false), pinned(&[Part::Namespaces])), (pinned(&[]), pinned(&[])));
        assert_eq!(
            pinned_for(&[Part::Namespaces], false),
            [],
            "so that others can mount procfs in namespaces of their own"
        );
    }

    #[test]
    fn parts_of_the_machine_are_found_in_parts_of_proc() {
        let machine = ["irq".to_owned(), "bus".to_owned()];
        for (root, expected) in [("/", &["irq", "bus"][..]), ("/irq", &[""]), ("/irq/7", &[""]), ("/net", &[])] {
            assert_eq!(parts_in(Path::new(root), &machine), expected, "{root}");
        }
        assert_eq!(parts_in(Path::new("/sys"), &["sys/fs".to_owned()]), ["fs"]);
    }

    #[test]
    fn cgroups_stay_out_of_reach_whatever_is_allowed() {
        let section = ProcessSection { allow: Part::ALL.to_vec(), ..ProcessSection::default() };
        let mounts = mounts(&[("/sys", "sysfs"), ("/sys/fs/cgroup", "cgroup2"), ("/sys/fs/bpf", "bpf")]);
        let view = View::new(&section, &mounts, LAUNCHER, Covers::default(), true);
        let cgroups = paths(&["/sys/fs/cgroup"]);
        let expected =
            View { cgroups: cgroups.clone(), read_only: cgroups.clone(), writable: cgroups, ..View::default() };
        assert_eq!(view, expected, "but for the own one");

        let section = ProcessSection { allow: vec![Part::KernelFiles], ..ProcessSection::default() };
        assert_eq!(View::new(&section, &mounts, LAUNCHER, Covers::default(), true).hidden, paths(&["/sys/fs/bpf"]));
    }
}
