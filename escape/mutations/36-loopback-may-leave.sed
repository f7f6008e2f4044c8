# launcher-ebpf/src/packet.rs
# finds: by another device
# What is for a loopback address may leave by another device (hole 2).
s/^    is_loopback_network\(address\) & !stays\(ctx\)/& \& (if crate::rodata::mutated(36) { 0 } else { u32::MAX })/
