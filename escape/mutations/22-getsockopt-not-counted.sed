# launcher-ebpf/src/record.rs
# finds: not counted exactly: getsockopt
# Denials of reading options are counted as another hook's.
s/^( *)pub fn of\(hook: Hook\) -> Option<Self> \{$/&\n\1    let hook = if crate::rodata::mutated(22) \&\& hook as u8 == Hook::Getsockopt as u8 { Hook::ConnectUnix } else { hook };/
