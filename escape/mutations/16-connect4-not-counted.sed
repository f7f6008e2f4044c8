# launcher-ebpf/src/record.rs
# finds: counted
# Denials of connects by IPv4 are not counted.
s/pub fn of\(hook: Hook\) -> Option<Self> \{/pub fn of(hook: Hook) -> Option<Self> { let hook = if hook as u8 == Hook::Connect4 as u8 { Hook::Getsockopt } else { hook };/
