# launcher-ebpf/src/net.rs
# finds: sent
# The address that was judged is not written into the system call.
s/unsafe \{ \(\*ctx\.sock_addr\)\.user_ip4 = word \};/let _ = word;/
