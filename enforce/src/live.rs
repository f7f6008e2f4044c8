//! Events as JSON lines, while the command runs. Nothing waits for anybody who reads them: neither the command nor its end.

use std::{collections::VecDeque, io, os::fd::BorrowedFd};

use report::Event;

use crate::outlet::{Outlet, PATIENCE};
use report::text::json;

/// Where lines go as they come.
#[derive(Debug)]
pub struct Live {
    outlet: Outlet,
    /// What could not be written yet. Of the first line, a part may have been. There is no more of it than the kernel side has
    /// room for: one line for each record.
    queue: VecDeque<Vec<u8>>,
}

/// What is waited for before lines can be written.
pub enum Awaited<'a> {
    /// Waits for room: then this descriptor is ready for writing.
    Room(BorrowedFd<'a>),
    /// Waits for a FIFO's reader, by trying again: the kernel has no event for that.
    Reader,
}

impl Live {
    /// Lines for an outlet.
    #[must_use]
    pub const fn new(outlet: Outlet) -> Self {
        Self { outlet, queue: VecDeque::new() }
    }

    /// Writes a line, or has it wait.
    ///
    /// # Errors
    ///
    /// As write(2).
    pub fn add(&mut self, event: &Event) -> io::Result<()> {
        let mut line = json(event)?;
        line.push(b'\n');
        self.queue.push_back(line);
        self.go_on()
    }

    /// Writes what has waited, as far as that goes now: one call for each line, so that a reader of a file never sees a part of
    /// one.
    ///
    /// # Errors
    ///
    /// As write(2).
    pub fn go_on(&mut self) -> io::Result<()> {
        while let Some(line) = self.queue.front_mut() {
            match self.outlet.write(line) {
                Ok(written) => {
                    line.drain(..written);
                    if line.is_empty() {
                        self.queue.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What it waits for, if there is a line that waits.
    #[must_use]
    pub fn awaits(&self) -> Option<Awaited<'_>> {
        match (self.outlet.file(), self.queue.is_empty()) {
            (None, _) => Some(Awaited::Reader),
            (Some(_), true) => None,
            (Some(file), false) => Some(Awaited::Room(file)),
        }
    }

    /// Writes what still waits, and gives it up if nobody takes any of it for some time.
    ///
    /// # Errors
    ///
    /// As write(2), and `TimedOut`.
    pub fn finish(mut self) -> io::Result<()> {
        while let Some(line) = self.queue.pop_front() {
            self.outlet.write_all(&line, Some(PATIENCE))?;
        }
        // Where nobody has come to read, nothing has been written, so nothing is missing.
        let _ = self.outlet.finish();
        Ok(())
    }
}
