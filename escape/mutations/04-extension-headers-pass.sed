# launcher-ebpf/src/packet/plain.rs
# finds: with a route of its own
# What leaves by IPv6 goes straight whatever header comes next.
s/let is_last = next == protocol::TCP \|\|/let is_last = next != 1 ||/
