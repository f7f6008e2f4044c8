//! Guards for containers, by hooks and by guard-runtime, and guard-run inside of them.

mod bundles;
mod docker;
mod folder;
mod held;
mod inside;
mod kernel;
mod life;
mod names;
mod oci;
mod runtime;
mod systemd;
mod trust;

/// Denies a port, a device and a tunable.
const POLICY: &str = r#"{
    "version": 1,
    "network": {"default": "allow", "rules": [{"action": "deny", "ops": ["connect"], "ports": [9090]}]},
    "devices": {"default": "allow", "rules": [{"action": "deny", "type": "c", "major": 1, "minor": 7}]},
    "sysctls": {"default": "allow", "rules": [{"action": "deny", "names": ["kernel/hostname"]}]}
}"#;
