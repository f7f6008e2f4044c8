# launcher-ebpf/src/net.rs
# finds: sent udp
# A datagram is judged as a connection would be.
s/judge\(ctx, hook, Op::SEND\.or_connect\(is_peer\(ctx, destination\)\), family, destination\)/judge(ctx, hook, Op::SEND.or_connect(is_peer(ctx, destination) | u32::MAX), family, destination)/
