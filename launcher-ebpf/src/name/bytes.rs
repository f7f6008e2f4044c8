//! DNS messages in packets.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_loop, bpf_skb_load_bytes},
    programs::SkBuffContext,
};
use common::name::{Content, Step, Text};

use crate::verifier::{self, opaque};

/// The length of a UDP header, in bytes.
const UDP_HEADER: u32 = 8;

/// A message that is all of a UDP packet's payload.
pub struct Payload<'a> {
    ctx: &'a SkBuffContext,
    start: u32,
}

impl<'a> Payload<'a> {
    /// The payload of a packet with an IP header of that length, and how many bytes it has.
    #[inline(always)]
    pub fn of(ctx: &'a SkBuffContext, header: u32) -> (Self, u32) {
        Self::at(ctx, header + UDP_HEADER)
    }

    /// Where it begins in the packet.
    #[inline(always)]
    pub fn start(&self) -> u32 {
        self.start
    }

    /// What begins there in a packet, and how many bytes it has.
    #[inline(always)]
    pub fn at(ctx: &'a SkBuffContext, start: u32) -> (Self, u32) {
        // SAFETY: the verifier checks the access to the context.
        let length = unsafe { (&raw const (*ctx.skb.skb).len).read_volatile() };
        (Self { ctx, start }, length.wrapping_sub(start))
    }
}

impl Content for Payload<'_> {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32, to: &mut [u32; N]) -> u32 {
        let place = self.start.wrapping_add(offset);
        // SAFETY: the buffer is as long as is said, and filled with zeros where the packet ends before.
        let failed = unsafe { bpf_skb_load_bytes(self.ctx.as_ptr(), place, to.as_mut_ptr().cast(), 4 * N as u32) };
        // Negative or 0.
        opaque(failed.cast_unsigned() >> 63) as u32
    }

    #[inline(always)]
    fn load_text(&self, offset: u32, length: u32, to: &mut Text) -> u32 {
        // What the verifier of Linux 6.1 needs to be told of a number that is from 1 to 255.
        let length = (opaque(u64::from(length.wrapping_sub(1))) as u32 & 0xff) + 1;
        let place = self.start.wrapping_add(offset);
        // SAFETY: the buffer has 256 bytes.
        let failed = unsafe { bpf_skb_load_bytes(self.ctx.as_ptr(), place, to.as_mut_ptr().cast(), length) };
        opaque(failed.cast_unsigned() >> 63) as u32
    }

    #[inline(always)]
    fn repeat<S: Step>(times: u32, step: &mut S) {
        // SAFETY: the kernel calls the function with what it is given, and comes back when that has been done.
        unsafe { bpf_loop(times, call_back::<S> as *mut c_void, (&raw mut *step).cast(), 0) };
    }

    #[inline(always)]
    fn opaque(number: u32) -> u32 {
        opaque(u64::from(number)) as u32
    }

    #[inline(always)]
    fn is(one: u32, other: u32) -> u32 {
        verifier::is(one, other)
    }
}

/// What `bpf_loop` calls.
unsafe extern "C" fn call_back<S: Step>(index: u64, step: *mut c_void) -> u64 {
    // SAFETY: it is what `repeat` was given, which nobody else has meanwhile.
    let step = unsafe { &mut *step.cast::<S>() };
    u64::from(step.step(index as u32))
}
