//! The cache: programs that the kernel has verified, and their maps, kept for the next run under the same policy. Verifying takes
//! most of the time of a launch, and comes to the same each time.
//!
//! A cache entry is a folder in a bpf file system, known by the hash of all that goes into the kernel, the policy included, which is
//! in maps that nobody can change. Only one run has it at a time, and nothing of a run is there for the next, since the maps of
//! records are emptied before. So a run with a cache entry differs in nothing but time from one without.
//!
//! While its guard-run is alive, the folder is locked. What it guards may live longer: processes, if guard-run was killed, or
//! sockets in other hands. So a *sentinel* is attached to the leaf beside the programs, which allows everything, by a link that
//! is pinned in the folder. The kernel takes all programs off a cgroup at once, when it is removed and neither process nor
//! socket is left that belongs to it (`cgroup_bpf_release`). When the sentinel's link leads nowhere, nobody is guarded by this
//! cache entry any more.
//!
//! That must be the link to the leaf of the latest run. Its id stands in a map beside the programs; where there is no link of that
//! id, somebody has removed or renamed it, and whether anybody is guarded by these programs is not known. Then they are not taken.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use aya_obj::generated::{bpf_attach_type, bpf_prog_type};
use common::record::Hook;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::{
    Fresh, LoadError, LoadedImage, LoadedProgram, PLAIN, RecordMaps,
    pin::{Number, open, pin, pin_note, read_note},
};
use crate::{
    bpffs::{self, FolderError},
    cgroup::Leaf,
    privilege,
    sys::{bpf, plain::bytes_of},
};

/// The folder of all cache entries, for root's eyes only.
const FOLDER: &str = "/sys/fs/bpf/guard-run-cache";

/// How many cache entries there may be. Most take less than a megabyte.
const MOST: usize = 32;

/// How many of one policy: for runs at the same time, and for those shortly after one another, since the kernel takes its time
/// (some 20 ms) to find that a cgroup is gone.
const MOST_ALIKE: usize = 16;

/// From this many bytes of tables on, there is one cache entry of a policy.
const LARGE: usize = 1 << 20;

/// How many of such there may be, and what their names begin with.
const MOST_LARGE: usize = 4;
const LARGE_NAME: &str = "large-";

/// From this many bytes on, there is none: filling maps takes most of the time then, and the kernel's memory is scarcer than that.
const TOO_LARGE: usize = 16 << 20;

/// The program that tells whether a leaf still is, and where it is attached: where programs are hardly ever asked.
const SENTINEL: &str = "guard_sentinel";
const SENTINEL_KIND: bpf_prog_type = bpf_prog_type::BPF_PROG_TYPE_CGROUP_SYSCTL;
const SENTINEL_PLACE: bpf_attach_type = bpf_attach_type::BPF_CGROUP_SYSCTL;

/// The name of its link to the leaf of the latest run.
const LEAF: &str = "leaf";

/// The folder of programs and maps in a cache entry's. It has all of them, or isn't there.
const KEPT: &str = "kept";

/// The name of that folder while it is being made, or removed.
const UNFINISHED: &str = "unfinished";

/// What says there which programs and maps these are, in a map that nobody can change.
const NOTE: &str = "note";

/// And the map with the id of the link to the leaf of the latest run.
const LATEST: &str = "LATEST";

/// A cache entry that this run has, or is about to make. It is nobody else's until this process ends, and what it guards.
#[derive(Debug)]
pub struct CacheEntry {
    folder: PathBuf,
    lock: Flock<OwnedFd>,
    /// The id of the sentinel's link to this run's leaf.
    link: u32,
    /// The maps of records, where they are not kept yet.
    unkept: Option<RecordMaps>,
}

impl CacheEntry {
    /// Finds a cache entry of this name that nobody has, or else a place to make one, and puts its sentinel on a leaf. `None` where
    /// nothing can be kept: that takes root, and a bpf file system.
    pub(super) fn reserve(image: &mut LoadedImage, name: &str, leaf: &Leaf) -> Option<Self> {
        if !privilege::is_root() || !is_usable() {
            return None;
        }
        let (start, alike) = match image.size() {
            TOO_LARGE.. => return None,
            LARGE.. => (LARGE_NAME, 1),
            _ => ("", MOST_ALIKE),
        };
        let entry =
            (0..alike).find_map(|number| Self::at(&Path::new(FOLDER).join(format!("{start}{name}-{number}"))))?;
        let link = entry.attach_sentinel(image, leaf).ok()?;
        Some(Self { link, ..entry })
    }

    /// The cache entry in a folder, which is made if it isn't there. `None` if somebody has it.
    fn at(folder: &Path) -> Option<Self> {
        match Self::unused(folder) {
            Err(Errno::ENOENT) => {
                make_room_for(folder).then_some(())?;
                bpffs::make(folder).ok()?;
                Self::unused(folder).ok()?
            }
            found => found.ok()?,
        }
    }

    /// The cache entry in a folder, unless somebody has it.
    fn unused(folder: &Path) -> nix::Result<Option<Self>> {
        Ok(Self::take(folder)?.ok())
    }

    /// The cache entry in a folder, or who has it.
    fn take(folder: &Path) -> nix::Result<Result<Self, Holder>> {
        let lock = match bpffs::lock(folder, FlockArg::LockExclusiveNonblock) {
            Err(Errno::EWOULDBLOCK) => None,
            lock => lock?,
        };
        // Another one may have taken its place before it was locked: that is somebody else's, too.
        let Some(lock) = lock else { return Ok(Err(Holder::Run)) };
        let entry = Self { folder: folder.to_owned(), lock, link: 0, unkept: None };
        Ok(if entry.guards_nobody().unwrap_or(false) { Ok(entry) } else { Err(Holder::Guarded) })
    }

    /// Whether nobody is guarded by what is kept in it. Where that isn't known, what is kept is removed, by which nobody loses a
    /// guard.
    fn guards_nobody(&self) -> io::Result<bool> {
        let latest = Number::open(&self.inside(KEPT).join(LATEST)).and_then(|latest| latest.get());
        let link = open(&self.inside(LEAF)).and_then(|link| bpf::link_ends(link.as_fd()));
        match (latest, link) {
            (Ok(latest), Ok(ends)) if ends.link == latest => Ok(ends.cgroup == 0),
            _ => self.discard().map(|()| true),
        }
    }

    /// The path of something in it: in this very folder, whatever has its name by now.
    fn inside(&self, name: &str) -> PathBuf {
        Path::new("/proc/self/fd").join(self.lock.as_raw_fd().to_string()).join(name)
    }

    /// Puts the sentinel on a leaf. From then on, nobody else has this cache entry until the leaf is gone. Returns the link's id.
    fn attach_sentinel(&self, image: &mut LoadedImage, leaf: &Leaf) -> Result<u32, LoadError> {
        let refused = |error| LoadError::program(SENTINEL, error, String::new());
        let (program, link) = (self.inside(SENTINEL), self.inside(LEAF));
        let sentinel = match open(&program) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let sentinel = image.prepare(SENTINEL)?.load(SENTINEL_KIND, Some(SENTINEL_PLACE))?;
                pin(&sentinel, &program).map_err(refused)?;
                sentinel
            }
            opened => opened.map_err(refused)?,
        };
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
            _ => {}
        }
        let attach = || bpf::link(&sentinel, leaf.folder(), SENTINEL_PLACE);
        let (tied, displaced) = bpf::displacing(leaf.folder(), SENTINEL_PLACE, attach).map_err(refused)?;
        if !displaced.is_empty() {
            // The policy has nothing to put in their place.
            return Err(refused(Errno::EBUSY.into()));
        }
        pin(&tied, &link).map_err(refused)?;
        Ok(bpf::link_ends(tied.as_fd()).map_err(refused)?.link)
    }

    /// What is kept in it: the programs of these hooks, and their maps. `None` if there is nothing that can be used.
    pub(super) fn open(&self, hooks: &[Hook]) -> Option<Fresh> {
        let kept = self.inside(KEPT);
        let programs =
            hooks.iter().map(|hook| LoadedProgram::open(&kept, *hook)).collect::<io::Result<Vec<_>>>().ok()?;
        let maps = RecordMaps::open(&kept).ok()?;
        let latest = Number::open(&kept.join(LATEST)).ok()?;
        let note = self.note(&programs, &maps, &latest).ok()?;
        if read_note(&kept.join(NOTE)).ok()? != note {
            return None;
        }
        latest.set(self.link).ok()?;
        Some(Fresh { programs, maps })
    }

    /// Returns itself, with the maps that are to be kept together with the programs.
    pub(super) fn expecting(self, maps: &RecordMaps) -> io::Result<Self> {
        Ok(Self { unkept: Some(maps.try_clone()?), ..self })
    }

    /// Keeps programs and their maps for the next run, unless they already are.
    ///
    /// # Errors
    ///
    /// When the kernel refuses. Then there is nothing for the next run.
    pub fn keep(&mut self, programs: &[LoadedProgram]) -> io::Result<()> {
        let Some(maps) = self.unkept.take() else { return Ok(()) };
        self.discard()?;
        let unfinished = self.inside(UNFINISHED);
        bpffs::make(&unfinished)?;
        let latest = Number::new(LATEST, self.link)?;
        pin_note(&unfinished.join(NOTE), &self.note(programs, &maps, &latest)?)?;
        latest.pin(&unfinished.join(LATEST))?;
        maps.pin(&unfinished)?;
        programs.iter().try_for_each(|program| program.pin(&unfinished))?;
        fs::rename(&unfinished, self.inside(KEPT))
    }

    /// What is noted beside programs and maps that are kept: which these are, and where. So what was removed, renamed or
    /// moved there from another cache entry is found out.
    fn note(&self, programs: &[LoadedProgram], maps: &RecordMaps, latest: &Number) -> io::Result<Vec<u8>> {
        let programs = programs.iter().map(|program| Ok(program.identify()?.id)).collect::<io::Result<Vec<u32>>>()?;
        let mut maps = maps.ids().map_err(io::Error::other)?;
        maps.push(latest.id()?);
        let name = self.folder.file_name().unwrap_or_default().as_encoded_bytes();
        Ok([name, bytes_of(&programs), bytes_of(&maps)].concat())
    }

    /// Removes what is kept.
    fn discard(&self) -> io::Result<()> {
        let (kept, unfinished) = (self.inside(KEPT), self.inside(UNFINISHED));
        let there = |outcome: io::Result<()>| match outcome {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        there(fs::remove_dir_all(&unfinished))?;
        there(fs::rename(kept, &unfinished))?;
        there(fs::remove_dir_all(&unfinished))
    }

    /// Removes the cache entry.
    fn remove(self) -> io::Result<()> {
        self.discard()?;
        fs::remove_dir_all(&self.folder)
    }
}

/// Puts a sentinel on a cgroup, by a link. `None` where that would put a program of an ancestor cgroup out of force.
pub(super) fn sentinel(cgroup: &OwnedFd) -> Result<Option<OwnedFd>, LoadError> {
    let sentinel = PLAIN.begin(&[], Vec::new(), Vec::new())?.prepare(SENTINEL)?;
    let sentinel = sentinel.load(SENTINEL_KIND, Some(SENTINEL_PLACE))?;
    let attach = || bpf::link(&sentinel, cgroup, SENTINEL_PLACE);
    let (link, displaced) = bpf::displacing(cgroup, SENTINEL_PLACE, attach)
        .map_err(|error| LoadError::program(SENTINEL, error, String::new()))?;
    Ok(displaced.is_empty().then_some(link))
}

/// Whether there is a folder of cache entries.
///
/// # Errors
///
/// When others than root could put something in its place.
pub fn cache_is_there() -> Result<bool, FolderError> {
    bpffs::is_there(Path::new(FOLDER))
}

/// Whether there is one now: it is made where there is a bpf file system.
fn is_usable() -> bool {
    bpffs::is_mounted() && bpffs::make_at_top(Path::new(FOLDER)).is_ok()
}

/// Makes room for another cache entry, by removing those that were not used for longest if there are as many as may be. Returns
/// whether there is room.
fn make_room_for(folder: &Path) -> bool {
    let is_large =
        |entry: &Path| entry.file_name().is_some_and(|name| name.as_bytes().starts_with(LARGE_NAME.as_bytes()));
    let there_is_room = !is_large(folder) || {
        let large = all().into_iter().filter(|entry| is_large(entry)).collect();
        leave_fewer_than(MOST_LARGE, large)
    };
    there_is_room && leave_fewer_than(MOST, all())
}

/// Removes those of these cache entries that were not used for longest if there are so many. Returns whether there are fewer now.
fn leave_fewer_than(most: usize, mut entries: Vec<PathBuf>) -> bool {
    let Some(surplus) = (entries.len() + 1).checked_sub(most).filter(|surplus| *surplus > 0) else { return true };
    entries.sort_by_cached_key(|folder| folder.metadata().map(|folder| (folder.mtime(), folder.mtime_nsec())).ok());
    entries.iter().filter_map(|folder| remove(folder)).take(surplus).count() == surplus
}

fn all() -> Vec<PathBuf> {
    fs::read_dir(FOLDER).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Removes the cache entry in a folder, unless somebody has it.
fn remove(folder: &Path) -> Option<()> {
    CacheEntry::unused(folder).ok()??.remove().ok()
}

/// Who has a cache entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// A guard-run that is alive.
    Run,
    /// Somebody whom it guards, although that guard-run has ended; or the kernel has not found yet that nobody is left.
    Guarded,
}

/// What became of the cache entries that there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// These are gone.
    pub removed: usize,
    /// A guard-run that is alive has these.
    pub in_use: usize,
    /// These still guard somebody whose guard-run has ended.
    pub guarding: usize,
    /// These can't be removed.
    pub failed: usize,
}

/// How often to ask the kernel whether a cgroup is gone, of which it tells by no event.
const PAUSE: Duration = Duration::from_millis(5);

/// Removes all cache entries that nobody has. The kernel takes its time to find that a cgroup is gone: it is waited for, this long at the
/// most.
#[must_use]
pub fn clear_cache(patience: Duration) -> Removed {
    let mut outcome = Removed::default();
    if !cache_is_there().unwrap_or(false) {
        return outcome;
    }
    let end = Instant::now() + patience;
    let mut left = all();
    loop {
        (outcome.in_use, outcome.guarding) = (0, 0);
        left.retain(|folder| match CacheEntry::take(folder) {
            Ok(Ok(entry)) => {
                if entry.remove().is_ok() {
                    outcome.removed += 1;
                } else {
                    outcome.failed += 1;
                }
                false
            }
            Ok(Err(Holder::Guarded)) => {
                outcome.guarding += 1;
                true
            }
            Ok(Err(Holder::Run)) => {
                outcome.in_use += 1;
                true
            }
            Err(Errno::ENOENT) => false,
            Err(_) => {
                outcome.failed += 1;
                false
            }
        });
        if outcome.guarding == 0 || Instant::now() >= end {
            return outcome;
        }
        sleep(PAUSE);
    }
}
