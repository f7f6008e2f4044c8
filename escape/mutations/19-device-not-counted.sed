# launcher-ebpf/src/record.rs
# finds: counted
# Denials of devices are not counted.
s/pub fn of\(hook: Hook\) -> Option<Self> \{/pub fn of(hook: Hook) -> Option<Self> { let hook = if hook as u8 == Hook::Device as u8 { Hook::Getsockopt } else { hook };/
