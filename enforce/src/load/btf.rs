//! The running kernel's own description of its types (Documentation/bpf/btf.rst): where a structure's fields are, and by
//! which number the kernel knows a function.
//!
//! aya-obj's parser takes 20 ms for the 5 MB of it. This one only looks for a few names, which takes
//! 1 ms, or 4 ms before Linux 6.16.

use std::{collections::HashMap, io, path::Path};

use crate::sys::btf::Bytes;

/// Where the kernel shows it, if it was built with `CONFIG_DEBUG_INFO_BTF`.
const KERNEL: &str = "/sys/kernel/btf/vmlinux";

// include/uapi/linux/btf.h
const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FUNC: u32 = 12;

/// Why the kernel's types are of no use.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// There are none to be read.
    #[error("{KERNEL} (it needs CONFIG_DEBUG_INFO_BTF)")]
    Unreadable(#[from] io::Error),
    /// The kernel's types are in a format that is not known.
    #[error("{KERNEL}: not in a format that guard-run knows")]
    Malformed,
    /// A type, field or function is missing.
    #[error("{KERNEL}: this kernel has no {0}")]
    Missing(String),
}

/// The kernel's types, and where those are that were wanted.
pub struct Btf {
    bytes: Bytes,
    /// Where the strings begin.
    strings: usize,
    /// Where the types end.
    end: usize,
    /// Where type 1 is, and then each [`MARKED`]th.
    marks: Vec<usize>,
    /// The numbers of structures and functions, by name.
    found: HashMap<&'static str, u32>,
}

/// The distance of types whose places are remembered. From there, others are found by walking.
const MARKED: usize = 64;

impl Btf {
    /// Reads them, looking for structures and functions of these names.
    ///
    /// # Errors
    ///
    /// When the kernel shows none, or not as is documented.
    pub fn of_kernel(wanted: &[&'static str]) -> Result<Self, BtfError> {
        Self::parse(Bytes::of_kernel(Path::new(KERNEL))?, wanted).ok_or(BtfError::Malformed)
    }

    fn parse(bytes: Bytes, wanted: &[&'static str]) -> Option<Self> {
        let mut btf = Self { bytes, strings: 0, end: 0, marks: Vec::new(), found: HashMap::new() };
        if btf.word(0)? & 0xffff != u32::from(MAGIC) || btf.number(4)? < HEADER {
            return None;
        }
        let body = btf.number(4)?;
        let mut place = body + btf.number(8)?;
        btf.end = place + btf.number(12)?;
        btf.strings = body + btf.number(16)?;
        // Whether a wanted name begins with a byte: most others are ruled out by that.
        let mut initials = [false; 256];
        for name in wanted {
            initials[usize::from(name.as_bytes()[0])] = true;
        }
        // Type 0 is void, and not written down.
        let mut id = 1;
        while place < btf.end {
            if id as usize % MARKED == 1 {
                btf.marks.push(place);
            }
            let (kind, members) = btf.kind(place)?;
            if kind == STRUCT || kind == FUNC {
                let name = btf.bytes.get(btf.strings + btf.number(place)?..)?;
                if initials[usize::from(*name.first()?)]
                    && let Some(wanted) = wanted.iter().find(|wanted| is_name(name, wanted.as_bytes()))
                {
                    btf.found.insert(wanted, id);
                }
            }
            place += size(kind, members)?;
            id += 1;
        }
        Some(btf)
    }

    /// Where a type is.
    fn place(&self, id: u32) -> Option<usize> {
        let index = (id as usize).checked_sub(1)?;
        let mark = (index / MARKED).min(self.marks.len().checked_sub(1)?);
        let mut place = self.marks[mark];
        for _ in mark * MARKED..index {
            let (kind, members) = self.kind(place)?;
            place += size(kind, members)?;
        }
        (place < self.end).then_some(place)
    }

    /// The number of a function that was wanted.
    ///
    /// # Errors
    ///
    /// When the kernel has no function of that name.
    pub fn function(&self, name: &'static str) -> Result<u32, BtfError> {
        self.found.get(name).copied().ok_or_else(|| BtfError::Missing(format!("function {name}")))
    }

    /// Where a field is in a structure that was wanted, in bytes. Members without a name are looked into.
    ///
    /// # Errors
    ///
    /// When the kernel has no such structure or field.
    pub fn offset(&self, structure: &'static str, field: &str) -> Result<u32, BtfError> {
        let missing = || BtfError::Missing(format!("struct {structure} with a field {field}"));
        let id = self.found.get(structure).ok_or_else(missing)?;
        self.member(*id, field.as_bytes()).and_then(|bits| u32::try_from(bits / 8).ok()).ok_or_else(missing)
    }

    /// A member's offset, in bits.
    fn member(&self, id: u32, field: &[u8]) -> Option<usize> {
        let place = self.place(id)?;
        let (kind, members) = self.kind(place)?;
        if kind != STRUCT && kind != UNION {
            return None;
        }
        // With this flag, an offset's upper byte is the width of a bit field.
        let mask = if self.word(place + 4)? >> 31 == 1 { 0x00ff_ffff } else { usize::MAX };
        (0..members).find_map(|index| {
            let member = place + 12 + 12 * index;
            let name = self.name(self.number(member)?)?;
            let offset = self.number(member + 8)? & mask;
            if name.is_empty() {
                return Some(offset + self.member(self.word(member + 4)?, field)?);
            }
            (name == field).then_some(offset)
        })
    }

    /// A type's kind, and how many members it has.
    fn kind(&self, place: usize) -> Option<(u32, usize)> {
        let info = self.word(place + 4)?;
        Some((info >> 24 & 0x1f, (info & 0xffff) as usize))
    }

    fn name(&self, offset: usize) -> Option<&[u8]> {
        self.bytes.get(self.strings + offset..)?.split(|byte| *byte == 0).next()
    }

    fn number(&self, place: usize) -> Option<usize> {
        Some(self.word(place)? as usize)
    }

    fn word(&self, place: usize) -> Option<u32> {
        let bytes = self.bytes.get(place..place + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().expect("four bytes")))
    }
}

/// How long a type's description is, in bytes.
fn size(kind: u32, members: usize) -> Option<usize> {
    // What follows the 12 bytes that every type has.
    Some(
        12 + match kind {
            1 | 14 | 17 => 4,
            3 => 12,
            STRUCT | UNION | 15 | 19 => 12 * members,
            6 | 13 => 8 * members,
            2 | 7..=12 | 16 | 18 => 0,
            _ => return None,
        },
    )
}

/// Whether the string that begins there is that name.
fn is_name(strings: &[u8], name: &[u8]) -> bool {
    strings.starts_with(name) && strings.get(name.len()) == Some(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct pair { int first; union { struct { long a; }; char b; }; }` and a function, by hand.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0pair\0first\0a\0b\0run\0";
        let at = |name: &str| {
            let needle = [b"\0", name.as_bytes(), b"\0"].concat();
            u32::try_from(strings.windows(needle.len()).position(|window| window == needle).unwrap() + 1).unwrap()
        };
        let types = [
            // 1: int
            vec![at("int"), 1 << 24, 4, 32],
            // 2: the inner structure
            vec![0, 4 << 24 | 1, 8, at("a"), 1, 0],
            // 3: the union
            vec![0, 5 << 24 | 2, 8, 0, 2, 0, at("b"), 1, 0],
            // 4: the outer structure, whose offsets have widths of bit fields
            vec![at("pair"), 1 << 31 | 4 << 24 | 2, 16, at("first"), 1, 8 << 24 | 16, 0, 3, 64],
            // 5: a function
            vec![at("run"), 12 << 24, 1],
        ];
        let types: Vec<u8> = types.concat().into_iter().flat_map(u32::to_ne_bytes).collect();
        let length = u32::try_from(types.len()).unwrap();
        let header = [0x0001_eb9f, 24, 0, length, length, u32::try_from(strings.len()).unwrap()];
        [header.into_iter().flat_map(u32::to_ne_bytes).collect(), types, strings.to_vec()].concat()
    }

    #[test]
    fn fields_and_functions_are_found_by_name() {
        let btf = Btf::parse(Bytes::Read(sample()), &["pair", "run", "no"]).unwrap();
        let offset = |field| btf.offset("pair", field).ok();
        assert_eq!([offset("first"), offset("a"), offset("b"), offset("c")], [Some(2), Some(8), Some(8), None]);
        assert_eq!((btf.function("run").ok(), btf.function("no").ok()), (Some(5), None));
        assert!(btf.offset("run", "a").is_err());
    }

    #[test]
    fn what_is_cut_or_damaged_is_refused() {
        let whole = sample();
        for length in 0..whole.len() - 1 {
            let btf = Btf::parse(Bytes::Read(whole[..length].to_vec()), &["pair", "run"]);
            let offset = btf.and_then(|btf| btf.offset("pair", "a").ok());
            assert!(offset.is_none_or(|offset| offset == 8), "{length}: {offset:?}");
        }
        assert!(Btf::parse(Bytes::Read(whole[1..].to_vec()), &[]).is_none());
    }
}
