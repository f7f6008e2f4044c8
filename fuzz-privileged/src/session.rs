//! A time to fuzz, and where what was found goes: as lines of JSON to the fuzzer's main process.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    os::fd::AsFd as _,
    process::exit,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::{finding::Finding, random::Random};

/// What an engine tells.
#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// Something for people who want to know more.
    Note(String),
    /// A violation.
    Found(Finding),
    /// The engine has ended, after so many attempts.
    Done(u64),
}

/// An engine's share of a run.
#[derive(Debug)]
pub struct Session {
    /// What follows from the seed.
    pub random: Random,
    part: (usize, usize),
    begun: Instant,
    time: Duration,
    attempts: u64,
    noted: BTreeSet<&'static str>,
}

impl Session {
    /// Begins now. Of several that share an engine's work, this is the part with this number, of so many.
    #[must_use]
    pub fn new(part: (usize, usize), seed: u64, time: Duration) -> Self {
        Self { random: Random::new(seed), part, begun: Instant::now(), time, attempts: 0, noted: BTreeSet::new() }
    }

    /// Whether the time is over. Ends this process if the fuzzer's main process has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let stdin = io::stdin();
        let mut polled = [PollFd::new(stdin.as_fd(), PollFlags::empty())];
        if poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
            exit(1);
        }
        self.begun.elapsed() >= self.time
    }

    /// Seconds since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Whether what has this number is this part's.
    #[must_use]
    pub fn is_own(&self, number: usize) -> bool {
        number % self.part.1 == self.part.0
    }

    /// Counts an attempt.
    pub fn count(&mut self) {
        self.attempts += 1;
    }

    /// How many there were.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.attempts
    }

    /// Tells something the first time.
    pub fn note_once(&mut self, what: &'static str) {
        if self.noted.insert(what) {
            note(what);
        }
    }

    /// Tells that all is over.
    ///
    /// # Errors
    ///
    /// When there is nobody to tell.
    pub fn done(&self) -> anyhow::Result<()> {
        tell(&Message::Done(self.attempts))
    }
}

/// Tells of a violation.
///
/// # Errors
///
/// When there is nobody to tell.
pub fn found(finding: Finding) -> anyhow::Result<()> {
    tell(&Message::Found(finding))
}

/// Tells something.
pub fn note(what: &str) {
    // An engine that has ended need not know.
    let _ = tell(&Message::Note(what.to_owned()));
}

fn tell(message: &Message) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(io::stdout().write_all(&line)?)
}
