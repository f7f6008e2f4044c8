//! System calls and memory layouts that need `unsafe`: the only modules of this crate that may use it.

pub mod bpf;
pub mod btf;
pub mod confine;
mod memory;
pub mod notify;
pub mod plain;
pub mod process;
pub mod start;
pub mod storage;
