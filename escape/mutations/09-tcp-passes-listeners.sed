# launcher-ebpf/src/packet.rs
# finds: accepted by tcp
# Each plain TCP packet belongs to a connection.
s/&& socket\.is_peer\(address, u16::from_be\(port\)\) & /\&\& (socket.is_peer(address, u16::from_be(port)) | u32::MAX) \& /
