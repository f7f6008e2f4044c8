# launcher-ebpf/src/record.rs
# finds: not counted exactly: connect_unix
# Denials of connects to Unix sockets are not counted.
s/^( *)pub fn of\(hook: Hook\) -> Option<Self> \{$/&\n\1    let hook = if crate::rodata::mutated(24) \&\& hook as u8 == Hook::ConnectUnix as u8 { Hook::Getsockopt } else { hook };/
