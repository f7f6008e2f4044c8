//! eBPF programs and maps as the build script leaves them, and getting those that are wanted into the kernel.

use std::{
    collections::BTreeMap,
    ffi::CStr,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use aya::maps::MapData;
use aya_obj::{
    Map,
    generated::{
        BPF_F_NO_PREALLOC, BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, bpf_attach_type, bpf_map_type, bpf_prog_type,
    },
};
use nix::sys::utsname::uname;
use sha2::{Digest as _, Sha256};

use super::{LoadError, MapContent};
use crate::sys::{bpf, storage::create_socket_storage};

/// BPF_LD | BPF_DW | BPF_IMM: the instruction that loads a map's address.
const LOAD_IMMEDIATE_64: u64 = 0x18;

/// The addresses that answers had for names. One answer may have a thousand.
const LEARNED: &str = "NAME_LEARNED";

/// Whether this is a kernel with PREEMPT_RT. What programs get for new entries of a map is renewed by a thread there, and not at once
/// (kernel/bpf/memalloc.c): some hundred entries that one program makes may be too many, unless they are there from the beginning.
fn is_preempt_rt() -> bool {
    uname().is_ok_and(|kernel| kernel.version().to_string_lossy().contains("PREEMPT_RT"))
}

/// A linked object file. Where a program refers to a map, it has the map's position in `maps` instead of a file
/// descriptor: so only the maps that a wanted program refers to need ever be made.
#[derive(Debug)]
pub struct Image {
    /// What the kernel is told.
    pub license: &'static CStr,
    /// The image's maps.
    pub maps: &'static [MapImage],
    /// Global variables, which the launcher fills in.
    pub variables: &'static [Variable],
    /// The image's programs.
    pub programs: &'static [ProgramImage],
    /// SHA-256 of all of the above.
    pub digest: [u8; 32],
}

/// A map of an [`Image`]; sizes in bytes.
#[derive(Debug)]
#[allow(missing_docs)] // as in bpf_attr, include/uapi/linux/bpf.h
pub struct MapImage {
    pub name: &'static str,
    pub kind: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
    /// The initial value, if this map holds global variables.
    pub data: &'static [u8],
}

/// A global variable of an [`Image`].
#[derive(Debug)]
pub struct Variable {
    /// The variable's name.
    pub name: &'static str,
    /// The position of the map that holds it.
    pub map: usize,
    /// Where in the map's value it is.
    pub offset: usize,
    /// How many bytes it has.
    pub size: usize,
}

/// A program of an [`Image`].
#[derive(Debug)]
pub struct ProgramImage {
    /// The program's name.
    pub name: &'static str,
    /// The program's instructions, 8 bytes each.
    pub instructions: &'static [u64],
    /// Where its functions begin, if the kernel calls one back; else none.
    pub functions: &'static [u32],
}

impl Image {
    /// Begins to load the image, with these values for global variables and these contents for maps. Maps that
    /// are `unused` are never made: programs refer to them, but only where they never get.
    ///
    /// # Errors
    ///
    /// When there is no such variable, of that size.
    pub fn begin(
        &'static self,
        globals: &[(&'static str, &[u8])],
        contents: Vec<MapContent>,
        unused: Vec<&'static str>,
    ) -> Result<LoadedImage, LoadError> {
        let mut contents: BTreeMap<&str, MapContent> =
            contents.into_iter().map(|content| (content.name, content)).collect();
        let mut data: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        for (number, map) in self.maps.iter().enumerate().filter(|(_, map)| !map.data.is_empty()) {
            data.insert(number, map.data.to_vec());
        }
        for (name, value) in globals {
            let variable =
                self.variables.iter().find(|variable| variable.name == *name && variable.size == value.len());
            let place = variable
                .and_then(|Variable { map, offset, size, .. }| data.get_mut(map)?.get_mut(*offset..offset + size));
            place.ok_or(LoadError::NotInImage { name })?.copy_from_slice(value);
        }
        for (number, value) in data {
            let name = self.maps[number].name;
            contents.insert(name, MapContent::table(name, &value));
        }
        Ok(LoadedImage { image: self, contents, unused, maps: BTreeMap::new(), placeholder: None })
    }
}

/// A program that refers to maps of the kernel's.
pub struct PreparedProgram {
    name: &'static str,
    instructions: Vec<u64>,
    functions: &'static [u32],
    license: &'static CStr,
}

impl PreparedProgram {
    /// Loads the program.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub fn load(&self, kind: bpf_prog_type, attach_type: Option<bpf_attach_type>) -> Result<OwnedFd, LoadError> {
        self.load_for(kind, attach_type, 0)
    }

    /// Loads a program that is attached to a function of the kernel, by the number that the kernel's BTF has for that.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub fn load_for(
        &self,
        kind: bpf_prog_type,
        attach_type: Option<bpf_attach_type>,
        function: u32,
    ) -> Result<OwnedFd, LoadError> {
        let place = bpf::Place { kind, attach_type, function };
        bpf::load_program(self.name, place, &self.instructions, self.functions, self.license)
            .map_err(|(error, log)| LoadError::program(self.name, error, log))
    }
}

/// An [`Image`] of which programs are made ready, with the maps that these need.
pub struct LoadedImage {
    image: &'static Image,
    contents: BTreeMap<&'static str, MapContent>,
    unused: Vec<&'static str>,
    maps: BTreeMap<usize, MapData>,
    placeholder: Option<MapData>,
}

impl LoadedImage {
    /// How many bytes go into its maps.
    #[must_use]
    pub fn size(&self) -> usize {
        self.contents.values().map(|content| content.keys.len() + content.values.len()).sum()
    }

    /// SHA-256 of all that tells these programs from others, and the unchangeable part of their maps from others'. To be
    /// asked before any program is prepared.
    #[must_use]
    pub fn digest(&self) -> Sha256 {
        let mut digest = Sha256::new_with_prefix(self.image.digest);
        // What is hashed begins with how long it is: so no two lists look alike.
        let mut add = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        for MapContent { name, keys, values, count } in self.contents.values() {
            add(name.as_bytes());
            add(keys);
            add(values);
            add(&count.to_le_bytes());
        }
        self.unused.iter().for_each(|name| add(name.as_bytes()));
        digest
    }

    /// Makes a program ready to be loaded, and the maps that it refers to unless they already are. These must be kept
    /// until it is loaded.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map.
    pub fn prepare(&mut self, name: &'static str) -> Result<PreparedProgram, LoadError> {
        let program = self.image.programs.iter().find(|program| program.name == name);
        let ProgramImage { instructions, functions, .. } = program.ok_or(LoadError::NotInImage { name })?;
        let mut instructions = instructions.to_vec();
        let mut index = 0;
        while let Some(instruction) = instructions.get_mut(index) {
            if *instruction & 0xff != LOAD_IMMEDIATE_64 {
                index += 1;
                continue;
            }
            let source = (*instruction >> 12 & 0xf) as u32;
            if [BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE].contains(&source) {
                let number = (*instruction >> 32) as usize;
                let fd = self.map(number)?.fd().as_fd().as_raw_fd();
                *instruction = *instruction & 0xffff_ffff | u64::from(fd.cast_unsigned()) << 32;
            }
            // The second half of the instruction holds the upper 32 bits.
            index += 2;
        }
        Ok(PreparedProgram { name, instructions, functions, license: self.image.license })
    }

    /// Stands for maps that are not used. Of this type, so that the verifier refuses a program that uses it after all.
    fn placeholder(&mut self) -> Result<&MapData, LoadError> {
        const NAME: &str = "UNUSED";
        if self.placeholder.is_none() {
            let definition = Map::new_from_params(bpf_map_type::BPF_MAP_TYPE_CGROUP_ARRAY as u32, 4, 4, 1, 0);
            let map = MapData::create(definition, NAME, None).map_err(|error| LoadError::map(NAME, error))?;
            self.placeholder = Some(map);
        }
        Ok(self.placeholder.as_ref().expect("it has just been made"))
    }

    /// The map of that number, made and filled unless it already is.
    fn map(&mut self, number: usize) -> Result<&MapData, LoadError> {
        if self.unused.contains(&self.image.maps[number].name) {
            return self.placeholder();
        }
        if !self.maps.contains_key(&number) {
            let MapImage { name, kind, mut key_size, mut value_size, mut max_entries, mut flags, .. } =
                self.image.maps[number];
            if name == LEARNED && is_preempt_rt() {
                flags &= !BPF_F_NO_PREALLOC;
            }
            let refused = |source| LoadError::Map { name: name.to_owned(), source };
            let content = self.contents.remove(name);
            if let Some(content) = &content {
                (key_size, value_size, max_entries) = (content.key_size(), content.value_size(), content.count);
            }
            let map = if kind == bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as u32 {
                let fd = create_socket_storage(name, value_size, flags).map_err(refused)?;
                MapData::from_fd(fd)
            } else {
                MapData::create(Map::new_from_params(kind, key_size, value_size, max_entries, flags), name, None)
            };
            let map = map.map_err(|error| LoadError::map(name, error))?;
            if let Some(content) = content {
                let fd = map.fd().as_fd();
                bpf::fill_map(fd, &content.keys, &content.values, content.count).map_err(refused)?;
                // Nobody may change the policy afterwards, not even root inside.
                bpf::freeze_map(fd).map_err(refused)?;
            }
            self.maps.insert(number, map);
        }
        Ok(&self.maps[&number])
    }

    /// Takes a map that a loaded program refers to. `None` if none does.
    pub fn take_map(&mut self, name: &str) -> Option<MapData> {
        let number = self.image.maps.iter().position(|map| map.name == name)?;
        self.maps.remove(&number)
    }
}
