//! eBPF programs and maps as the build script leaves them, and getting those that are wanted into the kernel.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::CStr,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use aya::maps::MapData;
use aya_obj::{
    Map,
    generated::{BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, bpf_attach_type, bpf_prog_type},
};

use super::{LoadError, MapContent};
use crate::sys::bpf;

/// BPF_LD | BPF_DW | BPF_IMM: the instruction that loads a map's address.
const LOAD_IMMEDIATE_64: u64 = 0x18;

/// A linked object file. Where a program refers to a map, it has the map's position in `maps` instead of a file
/// descriptor: so only the maps that a wanted program refers to need ever be made.
#[derive(Debug)]
pub struct Image {
    /// What the kernel is told.
    pub license: &'static CStr,
    /// Its maps.
    pub maps: &'static [MapImage],
    /// Its global variables, which the launcher fills in.
    pub variables: &'static [Variable],
    /// Its programs.
    pub programs: &'static [ProgramImage],
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
    /// Its name.
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
    /// Its name.
    pub name: &'static str,
    /// Its instructions, 8 bytes each.
    pub instructions: &'static [u64],
}

impl Image {
    /// Begins to load the image, with these values for global variables and these contents for maps.
    ///
    /// # Errors
    ///
    /// When there is no such variable, of that size.
    pub fn begin(
        &'static self,
        globals: &[(&'static str, &[u8])],
        contents: Vec<MapContent>,
    ) -> Result<LoadedImage, LoadError> {
        let mut contents: HashMap<&str, MapContent> =
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
        Ok(LoadedImage { image: self, contents, maps: BTreeMap::new() })
    }
}

/// An [`Image`] of which programs have been loaded, with the maps that these needed.
pub struct LoadedImage {
    image: &'static Image,
    contents: HashMap<&'static str, MapContent>,
    maps: BTreeMap<usize, MapData>,
}

impl LoadedImage {
    /// Loads one program, and the maps that it refers to unless they already are.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map or the program.
    pub fn load(
        &mut self,
        name: &'static str,
        kind: bpf_prog_type,
        attach_type: Option<bpf_attach_type>,
    ) -> Result<OwnedFd, LoadError> {
        self.load_for(name, kind, attach_type, 0)
    }

    /// The same for a program that is attached to a function of the kernel, by the number that its BTF has for that.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map or the program.
    pub fn load_for(
        &mut self,
        name: &'static str,
        kind: bpf_prog_type,
        attach_type: Option<bpf_attach_type>,
        function: u32,
    ) -> Result<OwnedFd, LoadError> {
        let program = self.image.programs.iter().find(|program| program.name == name);
        let mut instructions = program.ok_or(LoadError::NotInImage { name })?.instructions.to_vec();
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
        bpf::load_program(name, kind, attach_type, function, &instructions, self.image.license)
            .map_err(|(error, log)| LoadError::program(name, error, log))
    }

    /// The map of that number, made and filled unless it already is.
    fn map(&mut self, number: usize) -> Result<&MapData, LoadError> {
        if !self.maps.contains_key(&number) {
            let MapImage { name, kind, key_size, mut value_size, mut max_entries, flags, .. } = self.image.maps[number];
            let refused = |source| LoadError::Map { name: name.to_owned(), source };
            let content = self.contents.remove(name);
            if let Some(content) = &content {
                (value_size, max_entries) = (content.value_size(), content.count);
            }
            let definition = Map::new_from_params(kind, key_size, value_size, max_entries, flags);
            let map = MapData::create(definition, name, None).map_err(|error| LoadError::map(name, error))?;
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
