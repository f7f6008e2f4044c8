# launcher-ebpf/src/packet/plain.rs
# finds: with a route of its own
# What leaves by IPv4 goes straight whatever options it has (hole 5).
s/let plain4 = is\(first\.into\(\), FIRST4\.into\(\)\);/let unlooked = if crate::rodata::mutated(33) { 0x0f } else { 0 };\n    let plain4 = is(u32::from(first | unlooked), u32::from(FIRST4 | unlooked));/
