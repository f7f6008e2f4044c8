# launcher-ebpf/src/packet/socket.rs
# finds: receive
# A socket that is connected to port 0 has all ports of that address as its peer (hole 3).
s/is\(self\.peer\(\)\.difference\(address\) \| u32::from\(/is(self.peer().difference(address) | (if crate::rodata::mutated(28) { !is(peer_port.into(), 0) } else { u32::MAX }) \& u32::from(/
