//! System calls by the doors of other architectures, which an x86_64 kernel may have, too: `int 0x80` with i386's numbers,
//! and x32's numbers.

#[cfg(target_arch = "x86_64")]
pub use x86::{connect, connect_x32, open, read, send_to, set_option, socket, socketcall};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{
        arch::asm,
        io,
        os::fd::{AsFd, AsRawFd as _, OwnedFd},
        ptr,
    };

    use super::super::{made, result};

    /// Memory at addresses of 32 bits, which is all that these calls can be told of.
    struct Low(*mut u8);

    const ROOM: usize = 4096;

    impl Low {
        fn new(parts: &[&[u8]]) -> io::Result<Self> {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
            // SAFETY: mapped where the kernel likes.
            let at = unsafe { libc::mmap(ptr::null_mut(), ROOM, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
            if at == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let low = Self(at.cast());
            for (index, part) in parts.iter().enumerate() {
                assert!(part.len() <= PART, "a short part");
                // SAFETY: each part is in its own piece of the mapping.
                unsafe { ptr::copy_nonoverlapping(part.as_ptr(), low.0.add(index * PART), part.len()) };
            }
            Ok(low)
        }

        /// The address of a part.
        fn at(&self, index: usize) -> i32 {
            u32::try_from(self.0 as usize + index * PART).expect("mapped below 4 GiB").cast_signed()
        }
    }

    impl Drop for Low {
        fn drop(&mut self) {
            // SAFETY: mapped by us.
            unsafe { libc::munmap(self.0.cast(), ROOM) };
        }
    }

    /// How much room each part has.
    const PART: usize = 512;

    /// The call.
    ///
    /// # Safety
    ///
    /// As for the call of this number on i386.
    unsafe fn int80(number: i32, arguments: [i32; 5]) -> io::Result<i32> {
        let [a, b, c, d, e] = arguments;
        let outcome: i32;
        // SAFETY: the caller's promise. rbx belongs to the compiler, so it is put back; kernels before 4.17 clear r8 to r11.
        unsafe {
            asm!(
                "xchg rbx, {first}",
                "int 0x80",
                "xchg rbx, {first}",
                first = inout(reg) i64::from(a) => _,
                inlateout("eax") number => outcome,
                in("ecx") b,
                in("edx") c,
                in("esi") d,
                in("edi") e,
                out("r8") _,
                out("r9") _,
                out("r10") _,
                out("r11") _,
            );
        }
        if (-4095..0).contains(&outcome) { Err(io::Error::from_raw_os_error(-outcome)) } else { Ok(outcome) }
    }

    fn length(bytes: &[u8]) -> i32 {
        i32::try_from(bytes.len()).expect("short")
    }

    /// i386's socket(2).
    ///
    /// # Errors
    ///
    /// As that.
    pub fn socket(domain: i32, kind: i32) -> io::Result<OwnedFd> {
        // SAFETY: numbers only.
        made(unsafe { int80(359, [domain, kind, 0, 0, 0]) }?.into())
    }

    /// i386's connect(2).
    ///
    /// # Errors
    ///
    /// As that.
    pub fn connect(socket: &impl AsFd, address: &[u8]) -> io::Result<()> {
        let low = Low::new(&[address])?;
        // SAFETY: the address is as long as said.
        unsafe { int80(362, [socket.as_fd().as_raw_fd(), low.at(0), length(address), 0, 0]) }.map(drop)
    }

    /// i386's connect(2) by way of socketcall(2).
    ///
    /// # Errors
    ///
    /// As that.
    pub fn socketcall(socket: &impl AsFd, address: &[u8]) -> io::Result<()> {
        const CONNECT: i32 = 3;
        let fd = socket.as_fd().as_raw_fd();
        let low = Low::new(&[address])?;
        let arguments: Vec<u8> = [fd, low.at(0), length(address)].into_iter().flat_map(i32::to_ne_bytes).collect();
        let call = Low::new(&[&arguments])?;
        // SAFETY: three words, of which the second points to an address as long as said.
        unsafe { int80(102, [CONNECT, call.at(0), 0, 0, 0]) }.map(drop)
    }

    /// i386's sendto(2).
    ///
    /// # Errors
    ///
    /// As that.
    pub fn send_to(socket: &impl AsFd, data: &[u8], address: &[u8]) -> io::Result<()> {
        let low = Low::new(&[data, address])?;
        let arguments = [socket.as_fd().as_raw_fd(), low.at(0), length(data), 0, low.at(1)];
        // The sixth argument, the address' length, is in ebp, which is not to be had here: by socketcall(2), then.
        let words: Vec<u8> = arguments.into_iter().chain([length(address)]).flat_map(i32::to_ne_bytes).collect();
        let call = Low::new(&[&words])?;
        // SAFETY: six words, which point to data and an address as long as said.
        unsafe { int80(102, [11, call.at(0), 0, 0, 0]) }.map(drop)
    }

    /// i386's setsockopt(2), which no hook sees.
    ///
    /// # Errors
    ///
    /// As that.
    pub fn set_option(socket: &impl AsFd, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
        let low = Low::new(&[value])?;
        // SAFETY: the value is as long as said.
        unsafe { int80(366, [socket.as_fd().as_raw_fd(), level, option, low.at(0), length(value)]) }.map(drop)
    }

    /// i386's open(2), for reading.
    ///
    /// # Errors
    ///
    /// As that.
    pub fn open(path: &std::ffi::CStr) -> io::Result<OwnedFd> {
        let low = Low::new(&[path.to_bytes_with_nul()])?;
        // SAFETY: a string that ends with NUL.
        made(unsafe { int80(5, [low.at(0), 0, 0, 0, 0]) }?.into())
    }

    /// i386's read(2).
    ///
    /// # Errors
    ///
    /// As that.
    pub fn read(file: &impl AsFd, most: usize) -> io::Result<Vec<u8>> {
        let low = Low::new(&[])?;
        let most = i32::try_from(most.min(PART)).expect("small");
        // SAFETY: there is so much room.
        let read = unsafe { int80(3, [file.as_fd().as_raw_fd(), low.at(0), most, 0, 0]) }?;
        let read = usize::try_from(read).expect("a length");
        // SAFETY: within the mapping.
        Ok(unsafe { std::slice::from_raw_parts(low.0, read) }.to_vec())
    }

    /// x32's connect(2).
    ///
    /// # Errors
    ///
    /// As that; `ENOSYS` where the kernel has no x32.
    pub fn connect_x32(socket: &impl AsFd, address: &[u8]) -> io::Result<()> {
        const X32: libc::c_long = 0x4000_0000;
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: the address is as long as said.
        result(unsafe { libc::syscall(X32 | libc::SYS_connect, fd, address.as_ptr(), address.len()) }).map(drop)
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub use elsewhere::{connect, connect_x32, open, read, send_to, set_option, socket, socketcall};

/// Other machines have no such doors.
#[cfg(not(target_arch = "x86_64"))]
#[allow(missing_docs, clippy::missing_errors_doc, unused_variables)]
mod elsewhere {
    use std::{
        ffi::CStr,
        io,
        os::fd::{AsFd, OwnedFd},
    };

    fn none<T>() -> io::Result<T> {
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }
    pub fn socket(domain: i32, kind: i32) -> io::Result<OwnedFd> {
        none()
    }
    pub fn connect(socket: &impl AsFd, address: &[u8]) -> io::Result<()> {
        none()
    }
    pub fn socketcall(socket: &impl AsFd, address: &[u8]) -> io::Result<()> {
        none()
    }
    pub fn send_to(socket: &impl AsFd, data: &[u8], address: &[u8]) -> io::Result<()> {
        none()
    }
    pub fn set_option(socket: &impl AsFd, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
        none()
    }
    pub fn open(path: &CStr) -> io::Result<OwnedFd> {
        none()
    }
    pub fn read(file: &impl AsFd, most: usize) -> io::Result<Vec<u8>> {
        none()
    }
    pub fn connect_x32(socket: &impl AsFd, address: &[u8]) -> io::Result<()> {
        none()
    }
}
