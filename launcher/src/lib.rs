//! guard-run: runs a command that can touch only what a policy allows, enforced in the kernel.
//!
//! One type per stage: policy file → [`policy::Policy`] → [`policy::compile::Tables`] → [`enforce::load::Loaded`] →
//! [`enforce::attach::Attached`] → [`child::Child`] → [`Event`](::report::Event)s → [`Log`](::report::Log). Meanwhile, an [`enforce::cgroup::Leaf`] has a
//! [`child::Held`] that will be the child. [`run::run`] takes a command through all of them; [`explain`] branches off after
//! the tables.
#![forbid(unsafe_code)]

pub mod check;
pub mod child;
pub mod chosen;
pub mod cli;
pub mod command;
pub mod compare;
pub mod destination;
pub mod doctor;
pub mod explain;
pub mod gc;
pub mod harden;
pub mod hindrance;
pub mod inherited;
pub mod init;
pub mod inside;
pub mod learn;
pub mod left;
pub mod linked;
pub mod logs;
pub mod records;
pub mod replay;
pub mod report;
pub mod run;
pub mod selftest;
pub mod supervise;
pub mod tidy;
pub mod user;
pub mod why;
