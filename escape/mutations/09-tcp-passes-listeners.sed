# launcher-ebpf/src/packet.rs
# finds: accepted by tcp
# Each plain TCP packet belongs to a connection.
s/^( *)&& (socket\.is_peer\(address, u16::from_be\(port\)\) & .* != 0)$/\1\&\& (crate::rodata::mutated(9) || \2)/
