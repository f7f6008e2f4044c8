# launcher-ebpf/src/packet/plain.rs
# finds: with a route of its own
# What leaves by IPv6 goes straight whatever header comes next.
s/let plain6 = is\(next, protocol::TCP\)/let plain6 = (if crate::rodata::mutated(4) { u32::MAX } else { 0 }) | is(next, protocol::TCP)/
