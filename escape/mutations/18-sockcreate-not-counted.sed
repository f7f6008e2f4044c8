# launcher-ebpf/src/record.rs
# finds: counted
# Denials of sockets are not counted.
s/^( *)pub fn of\(hook: Hook\) -> Option<Self> \{$/&\n\1    let hook = if crate::rodata::mutated(18) \&\& hook as u8 == Hook::SockCreate as u8 { Hook::Getsockopt } else { hook };/
