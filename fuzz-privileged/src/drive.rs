//! Running a program so that it waits at every system call that takes a path.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::IoSliceMut,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use libc::c_long;
use nix::{
    sys::{
        signal::{Signal, kill},
        uio::{RemoteIoVec, process_vm_readv},
    },
    unistd::{Pid, gettid},
};

use crate::sys::{Call, Listener, Next};

/// The longest that a program may take. All of them end within some 100 ms, on a busy machine within a second or two.
pub const LIMIT: Duration = Duration::from_secs(20);

/// PATH_MAX.
const LONGEST: usize = 4096;

/// What a path is relative to.
#[derive(Clone, Copy, Debug)]
enum Base {
    /// The working directory.
    Working,
    /// The descriptor that is this argument.
    At(usize),
}

/// A system call that takes paths: its number, its name, and where each path is: what it is relative to, and which argument
/// points to it.
type Shape = (c_long, &'static str, &'static [(Base, usize)]);

const FIRST: &[(Base, usize)] = &[(Base::Working, 0)];
const BOTH: &[(Base, usize)] = &[(Base::Working, 0), (Base::Working, 1)];
const AT: &[(Base, usize)] = &[(Base::At(0), 1)];
const AT_BOTH: &[(Base, usize)] = &[(Base::At(0), 1), (Base::At(2), 3)];

/// Those of them that this machine's libraries, and programs without one, use.
const SHAPES: &[Shape] = &[
    (libc::SYS_openat, "openat", AT),
    (libc::SYS_openat2, "openat2", AT),
    (libc::SYS_newfstatat, "fstatat", AT),
    (libc::SYS_statx, "statx", AT),
    (libc::SYS_faccessat, "faccessat", AT),
    (libc::SYS_faccessat2, "faccessat2", AT),
    (libc::SYS_readlinkat, "readlinkat", AT),
    (libc::SYS_mkdirat, "mkdirat", AT),
    (libc::SYS_mknodat, "mknodat", AT),
    (libc::SYS_unlinkat, "unlinkat", AT),
    (libc::SYS_renameat, "renameat", AT_BOTH),
    (libc::SYS_renameat2, "renameat2", AT_BOTH),
    (libc::SYS_linkat, "linkat", AT_BOTH),
    (libc::SYS_symlinkat, "symlinkat", &[(Base::At(1), 2)]),
    (libc::SYS_fchmodat, "fchmodat", AT),
    (libc::SYS_fchownat, "fchownat", AT),
    (libc::SYS_utimensat, "utimensat", AT),
    (libc::SYS_name_to_handle_at, "name_to_handle_at", AT),
    (libc::SYS_execve, "execve", FIRST),
    (libc::SYS_execveat, "execveat", AT),
    (libc::SYS_chdir, "chdir", FIRST),
    (libc::SYS_chroot, "chroot", FIRST),
    (libc::SYS_truncate, "truncate", FIRST),
    (libc::SYS_statfs, "statfs", FIRST),
    (libc::SYS_mount, "mount", BOTH),
    (libc::SYS_umount2, "umount2", FIRST),
    (libc::SYS_open_tree, "open_tree", AT),
    (libc::SYS_move_mount, "move_mount", AT_BOTH),
    (libc::SYS_mount_setattr, "mount_setattr", AT),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open", FIRST),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, "creat", FIRST),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_stat, "stat", FIRST),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lstat, "lstat", FIRST),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_access, "access", FIRST),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_readlink, "readlink", FIRST),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir", FIRST),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, "rmdir", FIRST),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink", FIRST),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename", BOTH),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_link, "link", BOTH),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_symlink, "symlink", &[(Base::Working, 1)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, "chmod", FIRST),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chown, "chown", FIRST),
];

/// A system call that is about to look up paths.
#[derive(Debug)]
pub struct Lookup {
    /// Which process makes it: 0 is the program, the others are numbered as they come.
    pub process: usize,
    /// The call's name.
    pub call: &'static str,
    /// The paths, absolute, as they are written: links are not followed.
    pub paths: Vec<PathBuf>,
}

/// What became of a program.
#[derive(Debug)]
pub struct Outcome {
    /// What it has said, and its exit status.
    pub output: Output,
    /// Whether it had not ended in time, and was killed.
    pub hung: bool,
    /// How many processes there were.
    pub processes: usize,
    /// The process id of the program.
    pub id: Option<i32>,
}

/// Runs a program to its end, and calls `at` while a system call of the program, or of a process that it starts, waits to look up
/// paths. Processes are numbered from `first`. What has become `command` is on its own from then on.
///
/// # Errors
///
/// When there is no listener to be had, or the program can't be executed.
pub fn drive(
    mut program: Command,
    command: &Path,
    first: usize,
    mut at: impl FnMut(&Lookup) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let (send, receive) = mpsc::channel();
    let numbers: Vec<c_long> = SHAPES.iter().map(|shape| shape.0).collect();
    // The filter is for a thread of its own, which starts the program and ends with it.
    let starter = thread::spawn(move || {
        let listener = Listener::install(&numbers);
        let installed = listener.is_ok();
        let handed = send.send((listener, gettid()));
        if installed && handed.is_ok() { Some(program.output()) } else { None }
    });
    let (listener, own) = receive.recv().context("the thread that starts the program")?;
    let listener = listener.context("seccomp: listening for system calls")?;
    let mut known = Known { own, first, numbers: BTreeMap::new(), count: 0, commands: Vec::new() };
    let mut end = Instant::now() + LIMIT;
    let (mut hung, mut failure) = (false, None);
    loop {
        match listener.next(end)? {
            Next::End => break,
            Next::Late => {
                anyhow::ensure!(!hung, "a program can't be killed");
                hung = true;
                known.kill();
                end = Instant::now() + LIMIT;
            }
            Next::Call(call) => {
                if let Some(lookup) = known.lookup(&call, command)
                    && !hung
                    && failure.is_none()
                {
                    failure = at(&lookup).err();
                }
                listener.go_on(&call);
            }
        }
    }
    let output = starter.join().map_err(|_| anyhow::anyhow!("the thread that starts the program"))?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let output = output.context("no program was started")??;
    let id = known.numbers.iter().find(|(_, number)| **number == first).map(|(process, _)| *process);
    Ok(Outcome { output, hung, processes: known.count, id })
}

/// The processes that were seen.
struct Known {
    /// The thread that starts the program.
    own: Pid,
    first: usize,
    /// The number of each process, by its id.
    numbers: BTreeMap<i32, usize>,
    count: usize,
    /// The processes that have become the command.
    commands: Vec<i32>,
}

impl Known {
    /// What a system call is about to look up, if it concerns the fuzzer.
    fn lookup(&mut self, call: &Call, command: &Path) -> Option<Lookup> {
        if call.thread == self.own.as_raw() {
            return None;
        }
        let process = if self.numbers.contains_key(&call.thread) { call.thread } else { process_of(call.thread) };
        let next = self.first + self.count;
        let number = *self.numbers.entry(process).or_insert_with(|| {
            self.count += 1;
            next
        });
        if self.commands.contains(&process) {
            return None;
        }
        let (_, name, places) = SHAPES.iter().find(|shape| shape.0 == call.number)?;
        let paths: Vec<PathBuf> = places.iter().filter_map(|place| path(call, *place)).collect();
        if name.starts_with("exec") && paths.iter().any(|path| path == command) {
            self.commands.push(process);
            return None;
        }
        Some(Lookup { process: number, call: name, paths })
    }

    fn kill(&self) {
        for process in self.numbers.keys() {
            // It may be dead already.
            let _ = kill(Pid::from_raw(*process), Signal::SIGKILL);
        }
    }
}

/// The process that a thread belongs to.
fn process_of(thread: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    group.and_then(|group| group.trim().parse().ok()).unwrap_or(thread)
}

/// The path that a system call's argument points to. None if it looks up none: it is empty, or no path at all.
fn path(call: &Call, (base, argument): (Base, usize)) -> Option<PathBuf> {
    let text = text(call.thread, usize::try_from(call.arguments[argument]).ok()?)?;
    let path = PathBuf::from(OsString::from_vec(text));
    if path.as_os_str().is_empty() {
        return None;
    }
    if path.is_absolute() {
        return Some(path);
    }
    let thread = call.thread;
    let base = match base {
        // An int, whatever is in the upper half of the register.
        Base::At(argument) => match call.arguments[argument].to_le_bytes() {
            [a, b, c, d, ..] => i32::from_le_bytes([a, b, c, d]),
        },
        Base::Working => libc::AT_FDCWD,
    };
    let link = if base == libc::AT_FDCWD { format!("/proc/{thread}/cwd") } else { format!("/proc/{thread}/fd/{base}") };
    Some(fs::read_link(link).ok()?.join(path))
}

/// A string in another process's memory, without the NUL at its end. None if it is no path: too long, or not there.
fn text(thread: i32, address: usize) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    while text.len() < LONGEST {
        // Not beyond a page at once, since the next may not be there.
        let begin = address.checked_add(text.len())?;
        let mut room = vec![0; LONGEST - begin % LONGEST];
        let remote = [RemoteIoVec { base: begin, len: room.len() }];
        let read = process_vm_readv(Pid::from_raw(thread), &mut [IoSliceMut::new(&mut room)], &remote).ok()?;
        let read = room.get(..read).filter(|read| !read.is_empty())?;
        if let Some(end) = read.iter().position(|byte| *byte == 0) {
            text.extend(&read[..end]);
            return Some(text);
        }
        text.extend(read);
    }
    None
}
