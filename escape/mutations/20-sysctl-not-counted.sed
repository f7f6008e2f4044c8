# launcher-ebpf/src/record.rs
# finds: counted
# Denials of tunables are not counted.
s/^( *)pub fn of\(hook: Hook\) -> Option<Self> \{$/&\n\1    let hook = if crate::rodata::mutated(20) \&\& hook as u8 == Hook::Sysctl as u8 { Hook::Getsockopt } else { hook };/
