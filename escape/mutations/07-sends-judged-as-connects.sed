# launcher-ebpf/src/net.rs
# finds: sent udp
# A datagram is judged as a connection would be.
s/Op::SEND\.or_connect\(is_peer\(ctx, destination\)\)/Op::SEND.or_connect(is_peer(ctx, destination) | (if crate::rodata::mutated(7) { u32::MAX } else { 0 }))/
