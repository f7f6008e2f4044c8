# launcher-ebpf/src/record.rs
# finds: counted
# Denials by the bind hooks are not counted.
s/^( *)pub fn of\(hook: Hook\) -> Option<Self> \{$/&\n\1    let hook = if crate::rodata::mutated(10) \&\& hook as u8 == Hook::Bind4 as u8 { Hook::Getsockopt } else { hook };/
