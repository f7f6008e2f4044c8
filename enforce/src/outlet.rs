//! What guard-run writes to beside files of its own: standard error, FIFOs, terminals. Others may write there, too, have it
//! stopped, or not read it. So nothing here blocks in a system call, each wait is one that signals can end, and what others do
//! with their open file descriptions has no effect on what is written by ours.

use std::{
    io::{self, PipeWriter, Stderr, Write as _},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::{Mutex, OnceLock, PoisonError, TryLockError},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, open, splice},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, SigmaskHow, Signal},
        signalfd::SignalFd,
        socket::{MsgFlags, send},
        stat::{FileStat, Mode, SFlag, fstat, major, minor},
        termios::tcgetsid,
    },
    unistd::{Whence, ftruncate, getegid, geteuid, getgid, getsid, getuid, isatty, lseek, write},
};
use report::text::short_line;

use crate::{
    signals::enough,
    target::{Target, kind},
};

/// How long to wait, at the most, until something more is taken of what may also be left out, or somebody reads a FIFO.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// How long to wait when a signal has asked guard-run to end, in milliseconds.
pub const HURRY: u16 = 500;

/// How often to see whether somebody reads a FIFO, in milliseconds; the kernel tells of no such event.
pub const RETRY: u8 = 20;

/// What a pipe with room takes at once, and gives at once (`PIPE_BUF`, include/uapi/linux/limits.h).
pub const PIPE_BUF: usize = 4096;

/// So much a terminal with room takes before it may block (`WAKEUP_CHARS`, drivers/tty/n_tty.c).
const TERMINAL_BUF: usize = 256;

/// How files are opened to which others write, too.
const APPENDING: OFlag =
    OFlag::O_WRONLY.union(OFlag::O_APPEND).union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// Where to write.
#[derive(Debug)]
enum Way {
    /// An open file description of our own, for appending, which doesn't block.
    Own(OwnedFd),
    /// A FIFO that nobody reads yet, by a descriptor of the kind `O_PATH`.
    Unread(OwnedFd),
    /// Standard error, which is a socket.
    Socket(Stderr),
    /// Standard error, which is a pipe that only others may open.
    Pipe(Stderr),
    /// Standard error, which is something else that can't be opened once more.
    Shared(Stderr),
}

/// Something to write to.
#[derive(Debug)]
pub struct Outlet {
    way: Way,
    /// Whether it is standard error's file, whose position is to stay behind what was appended.
    moves_along: bool,
    is_terminal: bool,
    /// Nobody took anything for as long as there was patience. There is none any more.
    given_up: bool,
}

impl Outlet {
    fn new(way: Way, is_terminal: bool) -> Self {
        Self { way, moves_along: false, is_terminal, given_up: false }
    }

    /// Standard error: by a description of our own, where it is a file, a pipe or a terminal that this process's user may open.
    /// The one that is there belongs to others, too: they can move its position, or have it not block.
    #[must_use]
    pub fn stderr() -> Self {
        let stderr = io::stderr();
        let is_terminal = isatty(&stderr).unwrap_or(false);
        let file = fstat(&stderr).ok();
        let moves_along = file.is_some_and(|file| kind(&file) == SFlag::S_IFREG);
        let way = match file.map(|file| (own_description(stderr.as_fd(), &file, is_terminal), kind(&file))) {
            Some((Some(own), _)) => Way::Own(own),
            Some((None, SFlag::S_IFSOCK)) => Way::Socket(stderr),
            Some((None, SFlag::S_IFIFO)) => Way::Pipe(stderr),
            _ => Way::Shared(stderr),
        };
        Self { moves_along, ..Self::new(way, is_terminal) }
    }

    /// What is there already, and must be neither replaced nor emptied: a device, a FIFO.
    ///
    /// # Errors
    ///
    /// As [`Target::open`].
    pub fn at(target: &Target) -> io::Result<Self> {
        match target.open(APPENDING) {
            // The kernel's word for a FIFO that nobody reads.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) && target.kind()? == Some(SFlag::S_IFIFO) => {
                Ok(Self::new(Way::Unread(target.open(OFlag::O_PATH)?), false))
            }
            opened => Ok(Self::own(opened?)),
        }
    }

    /// A file for lines: made if there is none, emptied if there is one. What is no regular file is taken as it is.
    ///
    /// # Errors
    ///
    /// As [`Target::open`].
    pub fn emptied(target: &Target) -> io::Result<Self> {
        match target.open(APPENDING | OFlag::O_CREAT) {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Self::at(target),
            opened => {
                let file = opened?;
                if kind(&fstat(&file)?) == SFlag::S_IFREG {
                    ftruncate(&file, 0)?;
                }
                Ok(Self::own(file))
            }
        }
    }

    /// What somebody has open, by a descriptor of the kind `O_PATH`.
    ///
    /// # Errors
    ///
    /// As open(2).
    pub fn of(file: OwnedFd) -> io::Result<Self> {
        match reopen(file.as_fd()) {
            Err(Errno::ENXIO) if kind(&fstat(&file)?) == SFlag::S_IFIFO => Ok(Self::new(Way::Unread(file), false)),
            opened => Ok(Self::own(opened?)),
        }
    }

    /// The writing end of a pipe that is nobody else's.
    ///
    /// # Errors
    ///
    /// As fcntl(2).
    pub fn pipe(writer: PipeWriter) -> io::Result<Self> {
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self::new(Way::Own(writer.into()), false))
    }

    fn own(file: OwnedFd) -> Self {
        let is_terminal = isatty(&file).unwrap_or(false);
        Self::new(Way::Own(file), is_terminal)
    }

    /// The descriptor that is ready for writing when more can be written. There is none for a FIFO that nobody reads: that can
    /// only be tried again, after [`RETRY`].
    #[must_use]
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        match &self.way {
            Way::Own(file) => Some(file.as_fd()),
            Way::Unread(_) => None,
            Way::Socket(stderr) | Way::Pipe(stderr) | Way::Shared(stderr) => Some(stderr.as_fd()),
        }
    }

    /// Writes as much as can be written now.
    ///
    /// # Errors
    ///
    /// As write(2): `WouldBlock` if that is nothing.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.connect()?;
        // A background process group may write to its terminal then, also if that is set up to stop it (TOSTOP).
        let _held = self.is_terminal.then(HeldBack::new);
        let written = match &self.way {
            Way::Own(file) => write(file, bytes)?,
            Way::Unread(_) => return Err(Errno::EAGAIN.into()),
            Way::Socket(stderr) => {
                send(stderr.as_fd().as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?
            }
            Way::Pipe(stderr) => write_to_pipe(stderr, bytes)?,
            Way::Shared(stderr) => {
                if self.moves_along {
                    let _ = lseek(stderr, 0, Whence::SeekEnd);
                }
                write_if_ready(stderr, bytes)?
            }
        };
        if self.moves_along {
            // Others who write there at its position shall not overwrite this, wherever the command has left it.
            let _ = lseek(io::stderr(), 0, Whence::SeekEnd);
        }
        Ok(written)
    }

    /// Opens a FIFO if somebody reads it now.
    fn connect(&mut self) -> nix::Result<()> {
        if let Way::Unread(fifo) = &self.way {
            match reopen(fifo.as_fd()) {
                Err(Errno::ENXIO) => {}
                opened => self.way = Way::Own(opened?),
            }
        }
        Ok(())
    }

    /// Waits until a FIFO has a reader, so that one who comes late sees that there is nothing more.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn finish(&mut self) -> io::Result<()> {
        let mut waiting = None;
        loop {
            self.connect()?;
            if self.file().is_some() {
                return Ok(());
            }
            self.wait(&mut waiting, Some(PATIENCE))?;
        }
    }

    /// Writes all of it. Waits for the reader as long as that takes, or for so long each time; but for no reader and after a
    /// signal that asks guard-run to end, never for long.
    ///
    /// # Errors
    ///
    /// As write(2), and `TimedOut`. A part of it may have been written then.
    pub fn write_all(&mut self, mut bytes: &[u8], patience: Option<Duration>) -> io::Result<()> {
        let mut waiting = None;
        while !bytes.is_empty() {
            match self.write(bytes) {
                Ok(written) => {
                    bytes = &bytes[written..];
                    waiting = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(&mut waiting, patience)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn wait(&mut self, waiting: &mut Option<Waiting>, patience: Option<Duration>) -> io::Result<()> {
        let patience = match (self.given_up, self.file()) {
            (true, _) => Some(Duration::ZERO),
            (false, None) => Some(PATIENCE),
            (false, Some(_)) => patience,
        };
        let waited = waiting.get_or_insert_with(|| Waiting::new(patience)).wait(self.file());
        self.given_up |= waited.is_err();
        waited
    }
}

/// A wait, with all that can end it.
struct Waiting {
    end: Option<Instant>,
    /// The signals that ask guard-run to end. They stay there: what asks once, asks for the end of all later waits.
    asked: Option<SignalFd>,
}

impl Waiting {
    fn new(patience: Option<Duration>) -> Self {
        Self { end: patience.map(|patience| Instant::now() + patience), asked: enough().ok() }
    }

    /// Waits until a file is ready for writing, or for a moment if there is none.
    fn wait(&mut self, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        loop {
            let left = self.end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody reads it"));
            }
            let pause = file.is_none().then(|| Duration::from_millis(RETRY.into()));
            let timeout = [left, pause].into_iter().flatten().min();
            let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
                PollTimeout::try_from(timeout + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            });
            let mut files: Vec<_> = file.into_iter().map(|file| PollFd::new(file, PollFlags::POLLOUT)).collect();
            let asked = files.len();
            files.extend(self.asked.as_ref().map(|asked| PollFd::new(asked.as_fd(), PollFlags::POLLIN)));
            match poll(&mut files, timeout) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            let is_ready = |index: usize| files.get(index).and_then(PollFd::any).unwrap_or(false);
            let (is_asked, is_writable) = (is_ready(asked), file.is_some() && is_ready(0));
            if is_writable || file.is_none() && !is_asked {
                return Ok(());
            }
            if is_asked {
                self.asked = None;
                let end = Instant::now() + Duration::from_millis(HURRY.into());
                self.end = Some(self.end.map_or(end, |given| given.min(end)));
            }
        }
    }
}

/// A description of our own for the file that this process has open for writing as `fd`: with no more rights than the user's,
/// and only where opening has no other effect.
fn own_description(fd: BorrowedFd<'_>, file: &FileStat, is_terminal: bool) -> Option<OwnedFd> {
    // A program that is set-user-ID opens nothing.
    if getuid() != geteuid() || getgid() != getegid() {
        return None;
    }
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).ok()?);
    if flags & OFlag::O_ACCMODE == OFlag::O_RDONLY {
        return None;
    }
    let opened = match kind(file) {
        SFlag::S_IFREG | SFlag::S_IFIFO => reopen(fd),
        // Opening the other end makes a new terminal.
        SFlag::S_IFCHR if is_terminal && !is_multiplexer(file) => reopen(fd).or_else(|error| {
            // The user's terminal may be somebody else's file, as after su(1).
            let is_ours = tcgetsid(fd).is_ok_and(|session| getsid(None) == Ok(session));
            if is_ours { open("/dev/tty", APPENDING, Mode::empty()) } else { Err(error) }
        }),
        _ => return None,
    };
    opened.ok()
}

/// Whether a file is what makes pseudoterminals, /dev/ptmx (Documentation/admin-guide/devices.txt).
fn is_multiplexer(file: &FileStat) -> bool {
    (major(file.st_rdev), minor(file.st_rdev)) == (5, 2)
}

fn reopen(file: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    open(format!("/proc/self/fd/{}", file.as_raw_fd()).as_str(), APPENDING, Mode::empty())
}

/// Writes to a pipe without blocking, whatever its description says, by way of another pipe.
fn write_to_pipe(pipe: &Stderr, bytes: &[u8]) -> io::Result<usize> {
    let (reader, writer) = io::pipe()?;
    let length = (&writer).write(&bytes[..bytes.len().min(PIPE_BUF)])?;
    Ok(splice(&reader, None, pipe, None, length, SpliceFFlags::SPLICE_F_NONBLOCK)?)
}

/// Writes what should not block, if there is room.
fn write_if_ready(file: &Stderr, bytes: &[u8]) -> nix::Result<usize> {
    let mut files = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut files, PollTimeout::ZERO)? == 0 {
        return Err(Errno::EAGAIN);
    }
    write(file, &bytes[..bytes.len().min(TERMINAL_BUF)])
}

/// SIGTTOU, held back while this value lives.
struct HeldBack(Option<SigSet>);

impl HeldBack {
    fn new() -> Self {
        let held: SigSet = [Signal::SIGTTOU].into_iter().collect();
        Self(held.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok())
    }
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // It can't fail with a mask that the kernel has given.
            let _ = before.thread_set_mask();
        }
    }
}

/// Standard error, if it has been opened by [`own_stderr`].
static STDERR: Mutex<Option<Outlet>> = Mutex::new(None);

/// Opens standard error for what is said later, before anybody else can do anything with it.
pub fn own_stderr() {
    *STDERR.lock().unwrap_or_else(PoisonError::into_inner) = Some(Outlet::stderr());
}

/// Writes to standard error. Waits as [`Outlet::write_all`] does.
///
/// # Errors
///
/// As [`Outlet::write_all`].
pub fn write_stderr(bytes: &[u8], patience: Option<Duration>) -> io::Result<()> {
    // A panic may have come while this very thread wrote.
    let mut stderr = match STDERR.try_lock() {
        Ok(stderr) => Some(stderr),
        Err(TryLockError::Poisoned(stderr)) => Some(stderr.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    };
    match stderr.as_mut().and_then(|stderr| stderr.as_mut()) {
        Some(stderr) => stderr.write_all(bytes, patience),
        None => io::stderr().write_all(bytes),
    }
}

/// The name of the program that this process is, if it is not guard-run.
static PROGRAM: OnceLock<&str> = OnceLock::new();

/// Has [`tell`] begin its lines with this program's name. The first name stays.
pub(crate) fn name_program(name: &'static str) {
    let _ = PROGRAM.set(name);
}

/// Says something to the user, on one line. A standard error that is closed, or that nobody reads, must not end the run, or
/// hold it up.
pub fn tell(message: &str) {
    let program = PROGRAM.get().unwrap_or(&"guard-run");
    let _ = write_stderr(format!("{program}: {}\n", short_line(message)).as_bytes(), Some(PATIENCE));
}
