# launcher-ebpf/src/record.rs
# finds: counted
# Denials of devices are not counted.
s/^( *)pub fn of\(hook: Hook\) -> Option<Self> \{$/&\n\1    let hook = if crate::rodata::mutated(19) \&\& hook as u8 == Hook::Device as u8 { Hook::Getsockopt } else { hook };/
