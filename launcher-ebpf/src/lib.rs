//! The eBPF side of guard-run: from a hook's context to a request, to `common`'s `decide()`, to the record of a
//! denial. No policy lives here.
//!
//! Each noun has its module (`net`, `unix`, `device`, `sysctl`) with its tables and its records; `guard.rs` holds the entry
//! points that are attached to a cgroup.
#![no_std]
#![feature(asm_experimental_arch)]
#![allow(
    // Everything is called by an entry point that returns what it gets.
    clippy::must_use_candidate,
    // Sizes are small constants; no panic path may be left for the verifier.
    clippy::cast_possible_truncation,
    // A value that is passed would be copied on the little stack that there is.
    clippy::needless_borrows_for_generic_args
)]

pub mod device;
pub mod flow;
#[cfg(feature = "names")]
pub mod name;
pub mod net;
pub mod own;
pub mod packet;
pub mod record;
pub mod rodata;
pub mod socket;
pub mod sockopt;
pub mod sysctl;
pub mod unix;
pub mod verifier;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Nothing here can panic: the verifier would refuse the endless loop if a path led to it.
    loop {}
}

/// The license that the kernel is told; some helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
