//! Enforcing a compiled policy: its programs are built here, loaded, and attached to a cgroup; their records are read.
//!
//! This is the library under the programs that run with root's rights or file capabilities, and has all that these need
//! from the kernel: cgroups, the bpf file system, privileges, what is written to files that others could change, and, in
//! [`sys`], all `unsafe` code on the privileged path.
//!
//! One type per stage: [`policy::compile::Tables`] → [`load::Loaded`] → [`attach::Attached`] → [`journal::Journal`].
#![deny(unsafe_code)]

pub mod arguments;
pub mod attach;
pub mod bpffs;
mod call;
pub mod cgroup;
pub mod crash;
pub mod exit;
pub mod include;
pub mod journal;
pub mod live;
pub mod load;
pub mod machine;
pub mod mounts;
pub mod outlet;
pub mod ownership;
pub mod patience;
pub mod privilege;
pub mod process;
pub mod signals;
pub mod sys;
pub mod target;
pub mod trusted;
