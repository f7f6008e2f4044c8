# launcher-ebpf/src/packet.rs
# finds: received
# Datagrams are let through without a look at their sender.
s/if !receives && answered == 0 \{/if (!receives || crate::rodata::mutated(8)) \&\& answered == 0 {/
