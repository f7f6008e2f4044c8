//! Asking what may never answer: a file system whose server hangs (FUSE, NFS), or a process's memory, which such a file or somebody by
//! userfaultfd(2) is to fill. The kernel lets go of who waits there for nothing but its death, if for that.
//!
//! So a thread of its own asks. Who wants to know waits no longer than it may, and no longer than until a signal asks guard-run to end; the thread
//! stays behind, and dies with guard-run. A child that could be killed meanwhile would not do: it would be nobody's
//! ancestor, so that Yama would keep it from the memory of an ordinary user's command, and what has hold of a FUSE request can't be killed either.

use std::{
    io::{self, ErrorKind, PipeReader},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{mounts::Mount, outlet::HURRY, signals::enough};

/// How many threads may be left behind by what nobody names: then nothing is asked until one of them has its answer.
const MOST: u32 = 3;
/// How many are.
static LEFT_BEHIND: AtomicU32 = AtomicU32::new(0);
/// The stack of such a thread, in bytes.
const STACK: usize = 256 << 10;

/// Whether file systems are mounted that may not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience(bool);

impl Patience {
    /// Where it is not known what is mounted.
    pub const NEEDED: Self = Self(true);

    /// With this mounted.
    #[must_use]
    pub fn with(mounts: &[Mount]) -> Self {
        Self(mounts.iter().any(Mount::may_be_silent))
    }

    /// Asks file systems: for at most this long, if a limit is given, and until a signal asks guard-run to end.
    ///
    /// # Errors
    ///
    /// `TimedOut` if there is no answer, and if there is no room for a thread.
    pub fn ask<T: Send + 'static>(
        self,
        limit: Option<Duration>,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        if self.0 { ask(limit, question) } else { Ok(question()) }
    }

    /// Asks a process, as [`ask_process`] does: where no file system can keep it waiting, it keeps nobody waiting either.
    ///
    /// # Errors
    ///
    /// As [`ask_process`].
    pub fn ask_process<T: Send + 'static>(
        self,
        limit: Duration,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        if self.0 { ask_process(limit, question) } else { Ok(question()) }
    }
}

/// Asks a process, for at most this long. One that has kept this process waiting may do so again: while some do, nobody else is asked.
///
/// # Errors
///
/// As [`Patience::ask`].
pub fn ask_process<T: Send + 'static>(limit: Duration, question: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    if LEFT_BEHIND.load(Ordering::Relaxed) >= MOST {
        return Err(ErrorKind::TimedOut.into());
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let thread = End(Arc::clone(&is_over));
    let answer = ask(Some(limit), move || {
        let _thread = thread;
        question()
    });
    if answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::TimedOut) {
        LEFT_BEHIND.fetch_add(1, Ordering::Relaxed);
        drop(End(is_over));
    }
    answer
}

/// An end of a question to which there was no answer in time: the second one of them to come says that no thread is left behind by it.
struct End(Arc<AtomicBool>);

impl Drop for End {
    fn drop(&mut self) {
        if self.0.swap(true, Ordering::AcqRel) {
            LEFT_BEHIND.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn ask<T: Send + 'static>(limit: Option<Duration>, question: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let (asked, asking) = io::pipe()?;
    let ask = move || {
        let _ = sender.send(question());
        drop(asking);
    };
    thread::Builder::new().stack_size(STACK).spawn(ask)?;
    wait(&asked, limit)?;
    receiver.try_recv().map_err(|_| ErrorKind::TimedOut.into())
}

/// Waits until the other end of a pipe is closed: for at most this long, and not for long once a signal asks guard-run to end.
fn wait(asked: &PipeReader, limit: Option<Duration>) -> io::Result<()> {
    let mut end = limit.map(|limit| Instant::now() + limit);
    let mut signals = Some(enough()?);
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let timeout = match left {
            None => PollTimeout::NONE,
            // Up to the next millisecond, so that it is time then.
            Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
        };
        let mut files = vec![PollFd::new(asked.as_fd(), PollFlags::POLLIN)];
        files.extend(signals.as_ref().map(|signals| PollFd::new(signals.as_fd(), PollFlags::POLLIN)));
        match poll(&mut files, timeout) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        let is_ready = |index: usize| files.get(index).and_then(PollFd::any).unwrap_or(false);
        if is_ready(0) || left.is_some_and(|left| left.is_zero()) {
            return Ok(());
        }
        if is_ready(1) {
            signals = None;
            let hurry = Instant::now() + Duration::from_millis(HURRY.into());
            end = Some(end.map_or(hurry, |end| end.min(hurry)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        let silent = Patience(true);
        assert_eq!(silent.ask(None, || 7).unwrap(), 7);
        let (nobody, _writes) = io::pipe().unwrap();
        let begun = Instant::now();
        let answer = silent.ask(Some(Duration::from_millis(50)), move || {
            io::Read::read(&mut &nobody, &mut [0]).map_err(|error| error.kind())
        });
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!((50..5000).contains(&begun.elapsed().as_millis()));
        // Where nothing that is silent is mounted, no thread is needed.
        let here = thread::current().id();
        assert_eq!(Patience(false).ask(None, || thread::current().id()).unwrap(), here);
    }

    #[test]
    fn a_question_that_panics_is_one_without_an_answer() {
        let answer: io::Result<()> = ask_process(Duration::from_secs(5), || std::panic::resume_unwind(Box::new(())));
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn who_has_answered_late_keeps_nobody_from_being_asked() {
        for _ in 0..2 * MOST {
            let (reader, writer) = io::pipe().unwrap();
            let late = ask_process(Duration::from_millis(5), move || io::Read::read(&mut &reader, &mut [0]));
            assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
            let before = LEFT_BEHIND.load(Ordering::Relaxed);
            drop(writer);
            while LEFT_BEHIND.load(Ordering::Relaxed) >= before {
                thread::yield_now();
            }
        }
        assert_eq!(ask_process(Duration::from_secs(5), || 7).unwrap(), 7);
    }
}
