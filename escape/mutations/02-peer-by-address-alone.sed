# launcher-ebpf/src/packet.rs
# finds: receive
# A packet is the peer's whatever its port.
s/u32::from\(peer_port \^ port\), 0\) & !is\(port\.into\(\), 0\)/u32::from(peer_port ^ peer_port), 0) \& !is(port.into(), 0)/
