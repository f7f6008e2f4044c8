# launcher-ebpf/src/packet/socket.rs
# finds: sent udp
# What a UDP socket sends after a denied connect(2) is not refused.
s/if !deferred::matters\(\) \|\| self\.is_udp\(\) == 0 \{/if crate::rodata::mutated(38) || !deferred::matters() || self.is_udp() == 0 {/
