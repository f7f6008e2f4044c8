# launcher-ebpf/src/record.rs
# finds: counted
# Denials of options are not counted.
s/pub fn of\(hook: Hook\) -> Option<Self> \{/pub fn of(hook: Hook) -> Option<Self> { let hook = if hook as u8 == Hook::Setsockopt as u8 { Hook::Getsockopt } else { hook };/
