//! System V IPC and kernel keyrings.

use std::{
    ffi::{CStr, c_long},
    io, ptr, slice,
};

use super::{Call, call, result};

/// What a shared memory segment of this key begins with (at the most 64 bytes).
///
/// # Errors
///
/// As shmget(2) and shmat(2).
pub fn read_shared_memory(key: i32) -> io::Result<Vec<u8>> {
    let id = call(Call::Shmget, [key.into(), 0, 0])?;
    let id = i32::try_from(id).expect("an int");
    // SAFETY: attached where the kernel likes, read within its first page, and detached again.
    unsafe {
        let memory = libc::shmat(id, ptr::null(), libc::SHM_RDONLY);
        if memory as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        let bytes = slice::from_raw_parts(memory.cast::<u8>(), 64).to_vec();
        libc::shmdt(memory);
        Ok(bytes)
    }
}

/// Makes a shared memory segment that begins with these bytes, and returns its id.
///
/// # Errors
///
/// As shmget(2) and shmat(2).
pub fn make_shared_memory(key: i32, content: &[u8]) -> io::Result<i32> {
    let flags = c_long::from(libc::IPC_CREAT | libc::IPC_EXCL | 0o600);
    let id = i32::try_from(call(Call::Shmget, [key.into(), 4096, flags])?).expect("an int");
    // SAFETY: attached where the kernel likes; what is written fits into its page.
    unsafe {
        let memory = libc::shmat(id, ptr::null(), 0);
        if memory as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        ptr::copy_nonoverlapping(content.as_ptr(), memory.cast(), content.len().min(4096));
        libc::shmdt(memory);
    }
    Ok(id)
}

/// Removes a shared memory segment.
pub fn remove_shared_memory(id: i32) {
    // SAFETY: the command takes no structure.
    unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) };
}

/// A message as msgsnd(2) has it: a type and at most 64 bytes.
#[repr(C)]
struct Message {
    kind: c_long,
    text: [u8; 64],
}

/// Makes a message queue with a message in it, twice, and returns its id.
///
/// # Errors
///
/// As msgget(2) and msgsnd(2).
pub fn make_queue(key: i32, content: &[u8]) -> io::Result<i32> {
    let flags = c_long::from(libc::IPC_CREAT | libc::IPC_EXCL | 0o600);
    let id = i32::try_from(call(Call::Msgget, [key.into(), flags, 0])?).expect("an int");
    let mut message = Message { kind: 1, text: [0; 64] };
    message.text[..content.len()].copy_from_slice(content);
    // One for the control, and one for the guarded attempt.
    for _ in 0..2 {
        // SAFETY: the message is as long as said.
        result(unsafe { libc::msgsnd(id, (&raw const message).cast(), content.len(), 0) }.into())?;
    }
    Ok(id)
}

/// Takes the message out of a queue of this key.
///
/// # Errors
///
/// As msgget(2) and msgrcv(2).
pub fn read_queue(key: i32) -> io::Result<Vec<u8>> {
    let id = i32::try_from(call(Call::Msgget, [key.into(), 0, 0])?).expect("an int");
    let mut message = Message { kind: 0, text: [0; 64] };
    // SAFETY: the buffer has the room that is said.
    let got = unsafe { libc::msgrcv(id, (&raw mut message).cast(), message.text.len(), 0, libc::IPC_NOWAIT) };
    let length = usize::try_from(result(got as c_long)?).expect("a length");
    Ok(message.text[..length].to_vec())
}

/// Removes a message queue.
pub fn remove_queue(id: i32) {
    // SAFETY: the command takes no structure.
    unsafe { libc::msgctl(id, libc::IPC_RMID, ptr::null_mut()) };
}

/// The value of semaphore 0 of the set of this key.
///
/// # Errors
///
/// As semget(2) and semctl(2).
pub fn read_semaphore(key: i32) -> io::Result<i32> {
    let id = i32::try_from(call(Call::Semget, [key.into(), 0, 0])?).expect("an int");
    // SAFETY: the command takes no argument.
    let value = result(unsafe { libc::semctl(id, 0, libc::GETVAL) }.into())?;
    Ok(i32::try_from(value).expect("an int"))
}

/// Makes a set of one semaphore with a value, and returns its id.
///
/// # Errors
///
/// As semget(2) and semctl(2).
pub fn make_semaphore(key: i32, value: i32) -> io::Result<i32> {
    let flags = c_long::from(libc::IPC_CREAT | libc::IPC_EXCL | 0o600);
    let id = i32::try_from(call(Call::Semget, [key.into(), 1, flags])?).expect("an int");
    // SAFETY: the command takes an int.
    result(unsafe { libc::semctl(id, 0, libc::SETVAL, value) }.into())?;
    Ok(id)
}

/// Removes a set of semaphores.
pub fn remove_semaphore(id: i32) {
    // SAFETY: the command takes no argument.
    unsafe { libc::semctl(id, 0, libc::IPC_RMID) };
}

const USER_KEYRING: c_long = -4;

/// Puts a key into the user's keyring and returns its number.
///
/// # Errors
///
/// As `add_key(2)`.
pub fn add_key(name: &CStr, content: &[u8]) -> io::Result<c_long> {
    let kind = c"user".as_ptr();
    // SAFETY: strings that end with NUL, and bytes as many as said.
    result(unsafe {
        libc::syscall(libc::SYS_add_key, kind, name.as_ptr(), content.as_ptr(), content.len(), USER_KEYRING)
    })
}

/// The content of a key in the user's keyring (at the most 64 bytes).
///
/// # Errors
///
/// As keyctl(2) for `KEYCTL_SEARCH` and `KEYCTL_READ`.
pub fn read_key(name: &CStr) -> io::Result<Vec<u8>> {
    const SEARCH: c_long = 10;
    const READ: c_long = 11;
    let mut content = [0_u8; 64];
    let kind = c"user".as_ptr();
    // SAFETY: strings that end with NUL.
    let key = result(unsafe { libc::syscall(libc::SYS_keyctl, SEARCH, USER_KEYRING, kind, name.as_ptr(), 0) })?;
    // SAFETY: the buffer has the room that is said.
    let got = result(unsafe { libc::syscall(libc::SYS_keyctl, READ, key, content.as_mut_ptr(), content.len()) })?;
    Ok(content[..usize::try_from(got).expect("a length").min(64)].to_vec())
}

/// Has the kernel look for a key as `request_key(2)` does.
///
/// # Errors
///
/// As that.
pub fn request_key(name: &CStr) -> io::Result<c_long> {
    // SAFETY: strings that end with NUL, and none.
    result(unsafe { libc::syscall(libc::SYS_request_key, c"user".as_ptr(), name.as_ptr(), 0, 0) })
}

/// Removes a key from the user's keyring.
pub fn remove_key(key: c_long) {
    const UNLINK: c_long = 9;
    // SAFETY: numbers only.
    unsafe { libc::syscall(libc::SYS_keyctl, UNLINK, key, USER_KEYRING) };
}
