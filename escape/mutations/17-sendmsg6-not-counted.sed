# launcher-ebpf/src/record.rs
# finds: counted
# Denials of datagrams by IPv6 are not counted.
s/^( *)pub fn of\(hook: Hook\) -> Option<Self> \{$/&\n\1    let hook = if crate::rodata::mutated(17) \&\& hook as u8 == Hook::Sendmsg6 as u8 { Hook::Getsockopt } else { hook };/
