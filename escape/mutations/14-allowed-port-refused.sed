# launcher-ebpf/src/net.rs
# finds: fails although it is allowed
# The first port of an interval belongs to the one before.
s/first\.wrapping_sub\(u32::from\(port\) \+ 1\) >> 31/first.wrapping_sub(u32::from(port) + u32::from(!crate::rodata::mutated(14))) >> 31/
