# launcher-ebpf/src/net.rs
# finds: sent udp4
# A program of IPv4 leaves alone what says that it is of another family (AF_UNSPEC).
s/^    send\(ctx, Hook::Sendmsg4, /    if crate::rodata::mutated(27) \&\& unsafe { (*ctx.sock_addr).user_family } != socket::INET {\n        return 1;\n    }\n&/
