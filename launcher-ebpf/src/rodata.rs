//! Read-only data that the launcher fills in before the programs are loaded.
//!
//! The kernel freezes it, so the verifier knows every value and drops the branches that this policy doesn't use.

use common::{ABI_VERSION, Config};

/// Whether these programs are the smaller ones, which know nothing of any socket but what the kernel tells them. The verifier would
/// drop the rest for such a policy, too, but it takes its time for all that it is given.
pub const PLAIN: bool = cfg!(feature = "plain");

/// What all programs need to know.
#[unsafe(no_mangle)]
pub static CONFIG: Config = Config::UNSET;

/// The data as the launcher filled it in. The compiler sees only the initial value and would use that.
#[inline(always)]
pub fn filled<T>(data: &'static T) -> &'static T {
    let mut pointer: *const T = data;
    // SAFETY: does nothing, but the compiler can't know that, and takes the pointer for an unknown one from here on. It
    // still is the data's address. (`core::hint::black_box` does the same by way of the stack.)
    unsafe {
        core::arch::asm!("/* {0} */", inout(reg) pointer);
        &*pointer
    }
}

/// What `decide` says, unless launcher and programs don't speak the same ABI: then the programs can't read their tables,
/// and nothing can be judged.
#[inline(always)]
pub fn judged<T>(decide: impl FnOnce() -> Option<T>) -> Option<T> {
    if filled(&CONFIG).abi == ABI_VERSION { decide() } else { None }
}

/// What a hook returns for a denial: 0, or 1 where denials are only recorded.
#[inline(always)]
pub fn audit() -> i32 {
    filled(&CONFIG).audit.cast_signed()
}
