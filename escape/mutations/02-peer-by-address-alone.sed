# launcher-ebpf/src/packet/socket.rs
# finds: receive
# A packet is the peer's whatever its port.
s/u32::from\(peer_port \^ port\), 0\) & !is\(port\.into\(\), 0\)/u32::from(if crate::rodata::mutated(2) { 0 } else { peer_port ^ port }), 0) \& !is(port.into(), 0)/
