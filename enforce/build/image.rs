//! From an object file to Rust source: see `enforce::load::Image` for what it holds.

use std::{
    collections::{BTreeSet, HashSet},
    error::Error,
    fmt::Write as _,
    fs,
    path::Path,
};

use aya_obj::{
    Map, Object,
    generated::{BPF_CALL, BPF_DW, BPF_IMM, BPF_JMP, BPF_LD, BPF_PSEUDO_CALL, BPF_PSEUDO_FUNC, bpf_insn},
};
use object::{Object as _, ObjectSymbol as _};
use sha2::{Digest as _, Sha256};

/// Links an object file and writes it as an expression of type `enforce::load::Image`.
pub fn link(path: &Path) -> Result<String, Box<dyn Error>> {
    let file = fs::read(path)?;
    let mut object = Object::parse(&file)?;
    let mut maps: Vec<(String, Map)> = std::mem::take(&mut object.maps).into_iter().collect();
    maps.sort_by(|(one, _), (other, _)| one.cmp(other));
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    // In place of a file descriptor, each reference to a map gets the map's position in the list.
    object.relocate_maps(maps.iter().zip(0..).map(|((name, map), number)| (name.as_str(), number, map)), &text)?;
    object.relocate_calls(&text)?;
    let mut source = format!("Image {{\n    license: c{:?},\n    maps: &[\n", object.license);
    for (name, map) in &maps {
        writeln!(
            source,
            "        MapImage {{ name: {name:?}, kind: {}, key_size: {}, value_size: {}, max_entries: {}, flags: {}, \
             data: &{:?} }},",
            map.map_type(),
            map.key_size(),
            map.value_size(),
            map.max_entries(),
            map.map_flags(),
            map.data(),
        )?;
    }
    source.push_str("    ],\n    variables: &[\n");
    for symbol in object::File::parse(&*file)?.symbols() {
        let map = maps.iter().position(|(_, map)| {
            !map.data().is_empty() && symbol.section_index().is_some_and(|section| section.0 == map.section_index())
        });
        if let (Some(map), true, name) = (map, symbol.is_global(), symbol.name()?) {
            let (offset, size) = (symbol.address(), symbol.size());
            writeln!(source, "        Variable {{ name: {name:?}, map: {map}, offset: {offset}, size: {size} }},")?;
        }
    }
    source.push_str("    ],\n    programs: &[\n");
    for (name, program) in &object.programs {
        let function = object.functions.get(&program.function_key()).ok_or("a program without instructions")?;
        let words: Vec<u64> = function.instructions.iter().copied().map(word).collect();
        let functions = functions(&function.instructions);
        writeln!(
            source,
            "        ProgramImage {{ name: {name:?}, instructions: &{words:?}, functions: &{functions:?} }},"
        )?;
    }
    source.push_str("    ],\n");
    let digest: [u8; 32] = Sha256::digest(&source).into();
    writeln!(source, "    digest: {digest:?},\n}}")?;
    Ok(source)
}

/// Where each function of a program begins, if it has one that is called back; else none.
fn functions(instructions: &[bpf_insn]) -> Vec<usize> {
    const CALL: u32 = BPF_JMP | BPF_CALL;
    const LOAD_IMMEDIATE_64: u32 = BPF_LD | BPF_DW | BPF_IMM;
    let (mut begins, mut called_back) = (BTreeSet::from([0]), false);
    for (index, instruction) in instructions.iter().enumerate() {
        let (code, source) = (u32::from(instruction.code), u32::from(instruction.src_reg()));
        let by_address = code == LOAD_IMMEDIATE_64 && source == BPF_PSEUDO_FUNC;
        if by_address || code == CALL && source == BPF_PSEUDO_CALL {
            // From the next instruction on.
            begins
                .insert(index.checked_add_signed(instruction.imm as isize + 1).expect("a function is in its program"));
        }
        called_back |= by_address;
    }
    if called_back { begins.into_iter().collect() } else { Vec::new() }
}

/// An instruction as the kernel lays it out (include/uapi/linux/bpf.h, `struct bpf_insn`), on a little-endian machine.
fn word(instruction: bpf_insn) -> u64 {
    u64::from(instruction.code)
        | u64::from(instruction.dst_reg()) << 8
        | u64::from(instruction.src_reg()) << 12
        | u64::from(instruction.off.cast_unsigned()) << 16
        | u64::from(instruction.imm.cast_unsigned()) << 32
}
