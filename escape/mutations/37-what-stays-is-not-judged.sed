# launcher-ebpf/src/packet.rs
# finds: by the loopback device
# What is sent by the loopback device to another host's address comes to this host's own servers (2026-47).
s/^    stays\(ctx\) & !is_loopback_network\(destination\) & \(unsure/    let judged = if crate::rodata::mutated(37) { 0 } else { u32::MAX };\n    judged \& stays(ctx) \& !is_loopback_network(destination) \& (unsure/
