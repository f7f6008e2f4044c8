//! Exit statuses of `guard-run`, as documented in its man page. Any other status is the command's own.

/// Everything went well (for the subcommands: the answer is yes).
pub const OK: u8 = 0;
/// The answer of a subcommand is no: `explain` says "denied", `doctor` found something missing.
pub const NO: u8 = 1;
/// The default of `--fail-on-deny`: the command succeeded, but something was denied.
pub const DENIED: u8 = 120;
/// guard-run itself failed: bad usage, bad policy, no root, no cgroup v2, no eBPF …
pub const FAILURE: u8 = 125;
/// The command was found but could not be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
pub const NOT_FOUND: u8 = 127;
/// Added to the number of the signal that ended the command.
pub const SIGNALED: u8 = 128;
/// Nobody reads what a subcommand prints: what SIGPIPE makes of other programs, 128+13.
pub const UNREAD: u8 = SIGNALED + 13;
