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
