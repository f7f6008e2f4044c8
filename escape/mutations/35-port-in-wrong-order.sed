# launcher-ebpf/src/net.rs
# finds: sent
# The port that a system call names is read in the wrong byte order.
s/^( *)u16::from_be\(unsafe \{ \(\*ctx\.sock_addr\)\.user_port \} as u16\)/\1let port = unsafe { (*ctx.sock_addr).user_port } as u16;\n\1if crate::rodata::mutated(35) { port } else { u16::from_be(port) }/
