//! The guard for containers: what an OCI runtime calls when it makes one and when it has removed it.
//!
//! Nothing of ours runs between the two. What the second has to know is kept by the kernel, in one folder of a bpf file
//! system ([`pins`]): the programs on the container's cgroup, their records, and a note of what was done.
#![forbid(unsafe_code)]

pub mod annotations;
pub mod capabilities;
pub mod cgroup;
pub mod cli;
pub mod config;
pub mod container;
pub mod container_policy;
pub mod create;
pub mod gc;
pub mod guard;
pub mod inside;
pub mod log;
pub mod note;
pub mod pins;
pub mod process;
pub mod records;
pub mod runtime;
pub mod settings;
pub mod stop;
pub mod trusted;
