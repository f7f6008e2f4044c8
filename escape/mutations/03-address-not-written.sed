# launcher-ebpf/src/net.rs
# finds: to own device's address
# The address that was judged is not written into the system call.
s/unsafe \{ \(\*ctx\.sock_addr\)\.user_ip4 = word \};/if !crate::rodata::mutated(3) { unsafe { (*ctx.sock_addr).user_ip4 = word } };/
