# launcher-ebpf/src/net.rs
# finds: sent udp6
# Datagrams by IPv6 are not judged.
s/^    send\(ctx, Hook::Sendmsg6, /    if crate::rodata::mutated(34) {\n        return 1;\n    }\n&/
