//! Memory: where there is none to be had, the program ends, as it does after a panic. Without this, Rust's own handler would abort
//! it, with what it has in effect, and read files for a backtrace first.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};

use crate::crash::out_of_memory;

/// The C library's memory, or the end.
struct Memory;

#[global_allocator]
static MEMORY: Memory = Memory;

fn or_end(memory: *mut u8) -> *mut u8 {
    if memory.is_null() {
        out_of_memory();
    }
    memory
}

// SAFETY: all is passed on as it is to an allocator that keeps the trait's promises; nothing unwinds.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that are asked for.
        or_end(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        or_end(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        or_end(unsafe { System.realloc(memory, layout, size) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) };
    }
}
