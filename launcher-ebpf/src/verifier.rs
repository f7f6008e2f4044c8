//! What keeps the compiler from making more work for the kernel's verifier than there is.

/// A number of which the compiler knows nothing from here on, while the verifier knows what it did: so arithmetic stays
/// arithmetic, and a mask that the verifier needs stays in place. (`core::hint::black_box` does the same by way of the
/// stack, in five instructions.)
#[inline(always)]
pub fn opaque(mut number: u64) -> u64 {
    // SAFETY: does nothing.
    unsafe { core::arch::asm!("/* {0} */", inout(reg) number) };
    number
}

/// A pointer of which the compiler knows nothing from here on, while the verifier knows what it did.
#[inline(always)]
pub fn opaque_pointer<T>(mut pointer: *mut T) -> *mut T {
    // SAFETY: does nothing.
    unsafe { core::arch::asm!("/* {0} */", inout(reg) pointer) };
    pointer
}

/// All ones if the numbers are the same, else 0, without a branch.
#[inline(always)]
pub fn is(one: u32, other: u32) -> u32 {
    // Only where there is no difference, it borrows from the upper half.
    (opaque(u64::from(one ^ other).wrapping_sub(1)) >> 32) as u32
}
