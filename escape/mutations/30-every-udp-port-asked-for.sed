# launcher-ebpf/src/own.rs
# finds: udp at a denied
# Every UDP port counts as one that bind(2) has named (hole 10).
s/opaque\(named\.into\(\)\) != 0/opaque(named.into()) != 0 || crate::rodata::mutated(30)/
