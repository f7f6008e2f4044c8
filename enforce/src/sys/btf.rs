//! The kernel's own description of its types, as bytes.
#![allow(unsafe_code)]

use std::{fs, io, ops::Deref, os::fd::AsRawFd as _, path::Path, ptr, slice};

/// The content of a file that never changes.
#[derive(Debug)]
pub enum Bytes {
    /// The kernel's own copy, in this process's address space.
    Mapped(Mapping),
    /// A copy.
    Read(Vec<u8>),
}

impl Bytes {
    /// The kernel's types, which it shows in this file of sysfs. Kernels before 6.16 can't map it; copying its 5 MB takes
    /// two milliseconds.
    ///
    /// # Errors
    ///
    /// As read(2).
    pub fn of_kernel(path: &Path) -> io::Result<Self> {
        let file = fs::File::open(path)?;
        let mapping = file.metadata().ok().and_then(|about| Mapping::of(&file, usize::try_from(about.len()).ok()?));
        mapping.map_or_else(|| fs::read(path).map(Self::Read), |mapping| Ok(Self::Mapped(mapping)))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            // SAFETY: the kernel has mapped as many bytes for reading, until this value is dropped. They are a part of the
            // kernel's image (`btf_sysfs_vmlinux_mmap`), which nobody changes, and there is no other way to map a file
            // of sysfs of this name.
            Self::Mapped(mapping) => unsafe { slice::from_raw_parts(mapping.address.cast(), mapping.length) },
            Self::Read(bytes) => bytes,
        }
    }
}

/// A mapped file.
#[derive(Debug)]
pub struct Mapping {
    address: *const libc::c_void,
    length: usize,
}

impl Mapping {
    fn of(file: &fs::File, length: usize) -> Option<Self> {
        // SAFETY: a new mapping, where the kernel wants it, touches nothing that there is.
        let address =
            unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
        (address != libc::MAP_FAILED).then_some(Self { address, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrowed from it can live longer.
        unsafe { libc::munmap(self.address.cast_mut(), self.length) };
    }
}
