# launcher-ebpf/src/packet/socket.rs
# finds: sent tcp4
# A packet of another version of IP than its peer's passes.
s/^        (by_v4 \| !v4 & peer_v4 .*)$/        (\1) \& (if crate::rodata::mutated(32) { 0 } else { u32::MAX })/
