# launcher-ebpf/src/record.rs
# finds: not counted exactly: sendmsg_unix
# Denials of datagrams to Unix sockets are not counted.
s/^( *)pub fn of\(hook: Hook\) -> Option<Self> \{$/&\n\1    let hook = if crate::rodata::mutated(25) \&\& hook as u8 == Hook::SendmsgUnix as u8 { Hook::Getsockopt } else { hook };/
