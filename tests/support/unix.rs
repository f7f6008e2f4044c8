//! Unix sockets, as tests/probes/unix.py tries them.

/// Every way to use a socket's path.
pub const SPELLINGS: [&str; 12] = [
    "path",
    "relative",
    "dots",
    "symlink",
    "folderlink",
    "hardlink",
    "bindmount",
    "folderfd",
    "fd",
    "procroot",
    "long",
    "chroot",
];

/// Every kind of socket and system call.
pub const WAYS: [&str; 6] = ["stream", "stream_uring", "seqpacket", "dgram", "dgram_connect", "dgram_sendmmsg"];
