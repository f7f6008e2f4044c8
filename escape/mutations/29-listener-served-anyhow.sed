# launcher-ebpf/src/net.rs
# finds: listens by tcp
# A listener is served at a port that was judged and denied (hole 4).
s/verdict\.cast_unsigned\(\) as u16\)/verdict.cast_unsigned() as u16 | u16::from(crate::rodata::mutated(29)))/
