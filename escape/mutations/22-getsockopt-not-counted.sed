# launcher-ebpf/src/record.rs
# finds: not counted exactly: getsockopt
# Denials of reading options are counted as another hook's.
s/pub fn of\(hook: Hook\) -> Option<Self> \{/pub fn of(hook: Hook) -> Option<Self> { let hook = if hook as u8 == Hook::Getsockopt as u8 { Hook::ConnectUnix } else { hook };/
