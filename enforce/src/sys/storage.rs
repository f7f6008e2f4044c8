//! Maps that keep a value with each socket. The kernel wants their types described by BTF.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use aya_obj::generated::{bpf_cmd, bpf_map_type};

use super::{
    bpf::{address, attributes, bpf, descriptor, write_name},
    plain::bytes_of,
};

/// The least BTF that describes such a map (Documentation/bpf/btf.rst), in words: an `int` as the key, an array of
/// 32-bit integers of that size as the value.
fn description(value_size: u32) -> Vec<u32> {
    const KIND_INT: u32 = 1 << 24;
    const KIND_ARRAY: u32 = 3 << 24;
    const INT: u32 = 1;
    const SIGNED_32_BITS: u32 = 1 << 24 | 32;
    // Strings: an empty one, then "int" at offset 1, filled up to whole words.
    let strings = [u32::from_ne_bytes([0, b'i', b'n', b't']), 0];
    let types = [1, KIND_INT, 4, SIGNED_32_BITS, 0, KIND_ARRAY, 0, INT, INT, value_size / 4];
    let size = |words: &[u32]| u32::try_from(size_of_val(words)).expect("a few words");
    // Magic number, version 1 and no flags; the lengths of this header, then offset and length of both sections.
    let header = [0x0001_eb9f, 24, 0, size(&types), size(&types), size(&strings)];
    [&header[..], &types, &strings].concat()
}

/// Makes a map that keeps a value with each socket (`BPF_MAP_TYPE_SK_STORAGE`, Linux 5.2).
///
/// # Errors
///
/// As bpf(2) for `BPF_BTF_LOAD` and `BPF_MAP_CREATE`.
pub fn create_socket_storage(name: &str, value_size: u32, flags: u32) -> io::Result<OwnedFd> {
    let description = description(value_size);
    let mut load = attributes();
    let bytes = bytes_of(&description);
    load.__bindgen_anon_7.btf = address(bytes.as_ptr());
    load.__bindgen_anon_7.btf_size = u32::try_from(bytes.len()).expect("a few words");
    let types = descriptor(bpf(bpf_cmd::BPF_BTF_LOAD, &mut load)?);
    let mut create = attributes();
    // SAFETY: writing a union's field; the others stay zero.
    let map = unsafe { &mut create.__bindgen_anon_1 };
    map.map_type = bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as u32;
    map.key_size = 4;
    map.value_size = value_size;
    map.map_flags = flags;
    map.btf_fd = types.as_raw_fd().cast_unsigned();
    (map.btf_key_type_id, map.btf_value_type_id) = (1, 2);
    write_name(&mut map.map_name, name);
    bpf(bpf_cmd::BPF_MAP_CREATE, &mut create).map(descriptor)
}
