# launcher-ebpf/src/net.rs
# finds: sent udp
# Whom a UDP socket is connected to is not noted.
s/if own::note_peer\(socket, op, key\.subject\.address, port, found\) != 0/if !crate::rodata::mutated(31) \&\& own::note_peer(socket, op, key.subject.address, port, found) != 0/
