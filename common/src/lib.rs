//! What the launcher and its eBPF programs share: requests, rule tables, `decide()` and the records of denials.
//!
//! The `decide()` functions run in the kernel, in `guard-run explain` and in the tests. They are pure: they ask for what they
//! need of a map by a small trait ([`net::Lookup`], [`sysctl::Lookup`], [`unix::Lookup`]), which the
//! eBPF programs implement with kernel maps and the launcher with the compiled tables themselves.
//!
//! Everything that crosses the border between user space and the kernel is a *wire type*: `repr(C)`, fixed-width
//! integers, explicit padding, size asserted at compile time.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod decision;
pub mod device;
pub mod flow;
pub mod glob;
pub mod name;
pub mod net;
pub mod packet;
pub mod record;
pub mod ruleset;
pub mod socket;
pub mod sockopt;
pub mod sysctl;
pub mod unix;

pub use decision::Decision;
pub use ruleset::{MAX_RULES, RuleSet};

/// Version of the wire types. The launcher writes it into every program's read-only data; a program that finds
/// another number denies everything.
pub const ABI_VERSION: u32 = 1;

/// What all programs of a guard must know, in their read-only data.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// [`ABI_VERSION`] of the launcher that wrote this.
    pub abi: u32,
    /// 1: nothing is denied, what would have been is recorded (`"mode": "audit"`).
    pub audit: u32,
}

impl Config {
    /// What the programs are compiled with: an ABI version that none has, so that an unpatched program denies.
    pub const UNSET: Self = Self { abi: 0, audit: 0 };
}

const _: () = assert!(size_of::<Config>() == 8);
