//! guard-run: runs a command that can touch only what a policy allows, enforced in the kernel.
//!
//! One type per stage: policy file → [`policy::Policy`] → [`policy::compile::Tables`] → [`load::Loaded`] →
//! [`attach::Attached`] → [`child::Child`] → [`report::Event`]s → [`report::Log`]. Meanwhile, a [`cgroup::Leaf`] has a
//! [`child::Held`] that will be the child. [`run::run`] takes a command through all of them; [`explain`] branches off after
//! the tables.
#![deny(unsafe_code)]

pub mod attach;
pub mod bpffs;
pub mod cgroup;
pub mod check;
pub mod child;
pub mod cli;
pub mod command;
pub mod crash;
pub mod destination;
pub mod doctor;
pub mod exit;
pub mod explain;
pub mod gc;
pub mod harden;
pub mod inherited;
pub mod journal;
pub mod live;
pub mod load;
pub mod machine;
pub mod mounts;
pub mod outlet;
pub mod ownership;
pub mod privilege;
pub mod process;
pub mod run;
pub mod selftest;
pub mod signals;
pub mod supervise;
pub mod sys;
pub mod target;
pub mod user;
