//! What a container's annotations ask for.

/// What the keys of all annotations of the guard begin with.
pub const PREFIX: &str = "io.guard-run.";

/// The annotation that names the policy: an absolute path. A container that has it is guarded.
pub const POLICY: &str = "io.guard-run.policy";

/// The annotation that says where the log goes: an absolute path.
pub const LOG: &str = "io.guard-run.log";
