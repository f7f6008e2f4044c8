//! The guard for containers: what an OCI runtime calls when it makes one and when it has removed it.
//!
//! Nothing of ours runs between the two. What the second has to know is kept by the kernel, in one folder of a bpf file
//! system ([`pins`]): the programs on the container's cgroup, their records, and a note of what was done.
#![forbid(unsafe_code)]

pub mod annotations;
pub mod cgroup;
pub mod cli;
pub mod container;
pub mod create;
pub mod gc;
pub mod note;
pub mod pins;
pub mod policy;
pub mod report;
pub mod runtime;
pub mod stop;
