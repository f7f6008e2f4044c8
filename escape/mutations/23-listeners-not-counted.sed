# launcher-ebpf/src/record.rs
# finds: not counted exactly: sock_ops
# Listeners at denied ports are not counted.
s/^( *)pub fn of\(hook: Hook\) -> Option<Self> \{$/&\n\1    let hook = if crate::rodata::mutated(23) \&\& hook as u8 == Hook::SockOps as u8 { Hook::Getsockopt } else { hook };/
