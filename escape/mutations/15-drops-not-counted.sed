# launcher-ebpf/src/record.rs
# finds: counted
# Packets that are refused when they arrive are not counted.
s/^( *)pub fn of\(hook: Hook\) -> Option<Self> \{$/&\n\1    let hook = if crate::rodata::mutated(15) \&\& hook as u8 == Hook::Ingress as u8 { Hook::Getsockopt } else { hook };/
