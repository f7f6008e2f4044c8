//! What outlives the process that made it: programs on a cgroup, the maps of their records, and a note beside them, by
//! their names in a bpf file system.

use std::{
    collections::BTreeMap,
    ffi::CString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::maps::{MapData, MapError};
use aya_obj::{Map, generated::bpf_map_type};
use common::record::Hook;

use super::{Denials, LoadError, LoadedImage, LoadedProgram, cache::sentinel, spec};
use crate::sys::bpf::{self, LinkEnds};

/// The maps in which programs leave their records, but for those of [`Denials`], and the one that says where the sandbox is, which is another
/// one's with each run.
const OTHERS: [&str; 7] = ["COUNTERS", "IN_ROOM", "NEWS", "NAME_LEARNED", "FLOWS", "FLOWS_LOST", "OWN_CGROUP"];

/// The maps in which programs leave their records: all that there may be.
pub(super) fn record_maps() -> impl Iterator<Item = &'static str> {
    OTHERS.iter().chain(Denials::MAPS).copied()
}

/// The name of the link that tells whether a cgroup still is. No map and no hook has it.
const WITNESS: &str = "WITNESS";

/// The maps in which the programs of a policy leave their records, by their names.
#[derive(Debug)]
pub struct RecordMaps(BTreeMap<&'static str, MapData>);

impl RecordMaps {
    /// Takes those that the image's loaded programs refer to.
    pub(super) fn of(image: &mut LoadedImage) -> Self {
        Self(record_maps().filter_map(|name| Some((name, image.take_map(name)?))).collect())
    }

    /// Opens those that are pinned in a folder.
    ///
    /// # Errors
    ///
    /// When one is there but can't be opened.
    pub fn open(folder: &Path) -> Result<Self, LoadError> {
        let mut maps = BTreeMap::new();
        for name in record_maps() {
            match open(&folder.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => {
                    let map = opened.map_err(|source| LoadError::Map { name: name.to_owned(), source })?;
                    maps.insert(name, MapData::from_fd(map).map_err(|error| LoadError::map(name, error))?);
                }
            }
        }
        Ok(Self(maps))
    }

    /// Pins all of them in a folder.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn pin(&self, folder: &Path) -> io::Result<()> {
        self.0.iter().try_for_each(|(name, map)| pin(map.fd(), &folder.join(name)))
    }

    /// What the kernel knows them by, in the order of their names.
    pub(super) fn ids(&self) -> Result<Vec<u32>, MapError> {
        self.0.values().map(|map| Ok(map.info()?.id())).collect()
    }

    /// Further descriptors of these maps.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        let again = |map: &MapData| MapData::from_fd(map.fd().as_fd().try_clone_to_owned()?).map_err(io::Error::other);
        Ok(Self(self.0.iter().map(|(name, map)| Ok((*name, again(map)?))).collect::<io::Result<_>>()?))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes one of them.
    pub(super) fn take(&mut self, name: &str) -> Option<MapData> {
        self.0.remove(name)
    }
}

impl LoadedProgram {
    /// Opens the program of a hook that is pinned in a folder.
    ///
    /// # Errors
    ///
    /// When there is none, or the kernel refuses.
    pub fn open(folder: &Path, hook: Hook) -> io::Result<Self> {
        Ok(Self { hook, fd: open(&folder.join(hook.name()))? })
    }

    /// Pins the program in a folder.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn pin(&self, folder: &Path) -> io::Result<()> {
        pin(&self.fd, &folder.join(self.hook.name()))
    }
}

/// A program on a cgroup, for as long as there is a reference to this link, or the cgroup.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl Link {
    /// Attaches a program to a cgroup.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn create(program: &LoadedProgram, cgroup: &OwnedFd) -> io::Result<Self> {
        bpf::link(&program.fd, cgroup, spec(program.hook).attach_type).map(Self)
    }

    /// Opens a hook's link that is pinned in a folder.
    ///
    /// # Errors
    ///
    /// When there is none, or the kernel refuses.
    pub fn open(folder: &Path, hook: Hook) -> io::Result<Self> {
        open(&folder.join(hook.name())).map(Self)
    }

    /// Pins the link of a hook in a folder.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn pin(&self, folder: &Path, hook: Hook) -> io::Result<()> {
        pin(&self.0, &folder.join(hook.name()))
    }

    /// Attaches a program that allows everything to a cgroup, to learn from the link when the cgroup is gone, wherever cgroups are
    /// seen from. `None` where that would put a program of an ancestor cgroup out of force.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn witness(cgroup: &OwnedFd) -> Result<Option<Self>, LoadError> {
        sentinel(cgroup).map(|link| link.map(Self))
    }

    /// Opens the link of [`Link::witness`] that is pinned in a folder.
    ///
    /// # Errors
    ///
    /// When there is none, or the kernel refuses.
    pub fn open_witness(folder: &Path) -> io::Result<Self> {
        open(&folder.join(WITNESS)).map(Self)
    }

    /// Pins the link of [`Link::witness`] in a folder.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn pin_witness(&self, folder: &Path) -> io::Result<()> {
        pin(&self.0, &folder.join(WITNESS))
    }

    /// What it connects.
    ///
    /// # Errors
    ///
    /// When the kernel doesn't say.
    pub fn ends(&self) -> io::Result<LinkEnds> {
        bpf::link_ends(self.0.as_fd())
    }
}

/// Pins bytes, as the only element of a map that nobody can change.
///
/// # Errors
///
/// When the kernel refuses.
pub fn pin_note(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let map = one_element("NOTE", bytes)?;
    bpf::freeze_map(map.fd().as_fd())?;
    pin(map.fd(), path)
}

/// An array map with one element.
fn one_element(name: &str, bytes: &[u8]) -> io::Result<MapData> {
    let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let definition = Map::new_from_params(bpf_map_type::BPF_MAP_TYPE_ARRAY as u32, 4, size, 1, 0);
    let map = MapData::create(definition, name, None).map_err(io::Error::other)?;
    bpf::fill_map(map.fd().as_fd(), &0_u32.to_ne_bytes(), bytes, 1)?;
    Ok(map)
}

/// A number in a map, which only bpf(2) can change: not who may rename and remove what is pinned.
pub(super) struct Number(MapData);

impl Number {
    const SIZE: u32 = u32::BITS / 8;

    pub(super) fn new(name: &str, number: u32) -> io::Result<Self> {
        one_element(name, &number.to_ne_bytes()).map(Self)
    }

    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let map = MapData::from_fd(open(path)?).map_err(io::Error::other)?;
        let size = map.info().map_err(io::Error::other)?.value_size();
        if size == Self::SIZE { Ok(Self(map)) } else { Err(io::Error::other("no number")) }
    }

    pub(super) fn pin(&self, path: &Path) -> io::Result<()> {
        pin(self.0.fd(), path)
    }

    /// What the kernel knows the map by.
    pub(super) fn id(&self) -> io::Result<u32> {
        Ok(self.0.info().map_err(io::Error::other)?.id())
    }

    pub(super) fn get(&self) -> io::Result<u32> {
        let bytes = bpf::first_element(self.0.fd().as_fd(), Self::SIZE)?;
        bytes.try_into().map(u32::from_ne_bytes).map_err(|_| io::Error::other("no number"))
    }

    pub(super) fn set(&self, number: u32) -> io::Result<()> {
        bpf::fill_map(self.0.fd().as_fd(), &0_u32.to_ne_bytes(), &number.to_ne_bytes(), 1)
    }
}

/// Reads bytes that were pinned.
///
/// # Errors
///
/// When there are none, or the kernel refuses.
pub fn read_note(path: &Path) -> io::Result<Vec<u8>> {
    let map = MapData::from_fd(open(path)?).map_err(io::Error::other)?;
    let size = map.info().map_err(io::Error::other)?.value_size();
    bpf::first_element(map.fd().as_fd(), size)
}

pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    bpf::open_pinned(&c_path(path)?)
}

pub(super) fn pin(object: &impl AsFd, path: &Path) -> io::Result<()> {
    bpf::pin(object.as_fd(), &c_path(path)?)
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
