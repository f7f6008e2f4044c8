# launcher-ebpf/src/record.rs
# finds: counted
# Denials of options are not counted.
s/^( *)pub fn of\(hook: Hook\) -> Option<Self> \{$/&\n\1    let hook = if crate::rodata::mutated(21) \&\& hook as u8 == Hook::Setsockopt as u8 { Hook::Getsockopt } else { hook };/
