# launcher-ebpf/src/packet.rs
# finds: received
# Datagrams are let through without a look at their sender.
s/if !receives && answered == 0 \{/if answered == 0 {/
