# launcher-ebpf/src/packet.rs
# finds: listens by tcp
# The port of a listener, and of a UDP socket that was never bound, is not judged when something arrives.
s/if binds && !is_peer & \(tcp \| udp\) != 0 \{/if binds \&\& !is_peer \& (tcp | udp) != 0 \&\& !crate::rodata::mutated(1) {/
