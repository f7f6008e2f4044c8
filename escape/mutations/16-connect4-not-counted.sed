# launcher-ebpf/src/record.rs
# finds: counted
# Denials of connects by IPv4 are not counted.
s/^( *)pub fn of\(hook: Hook\) -> Option<Self> \{$/&\n\1    let hook = if crate::rodata::mutated(16) \&\& hook as u8 == Hook::Connect4 as u8 { Hook::Getsockopt } else { hook };/
