//! Telling the user what guard-run waits for when the command has ended and others that it has started have not.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use enforce::outlet::tell;

/// How long what the command has left running may take to end by itself, before anything is said about it.
const FIRST: Duration = Duration::from_secs(1);

/// How many processes are named.
const NAMED: usize = 8;

/// What was said about the processes that the command has left behind. The second time it waits twice as long to see whether they are
/// others, and so on: processes that come and go don't fill a terminal.
#[derive(Debug)]
pub struct Left {
    told: Option<BTreeSet<u32>>,
    next: Instant,
    pause: Duration,
}

impl Left {
    /// Begins to wait: the command has ended just now.
    #[must_use]
    pub fn begin() -> Self {
        Self { told: None, next: Instant::now() + FIRST, pause: FIRST }
    }

    /// How long nothing needs to be said.
    #[must_use]
    pub fn pause(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Says what is waited for, if it is time to, and it has not been said yet.
    pub fn look(&mut self, processes: impl FnOnce() -> Vec<u32>) {
        if !self.pause().is_zero() {
            return;
        }
        self.pause *= 2;
        self.next = Instant::now() + self.pause;
        let processes: BTreeSet<u32> = processes().into_iter().collect();
        // What is gone already needs no word.
        if !processes.is_empty() && self.told.as_ref() != Some(&processes) {
            tell(&sentence(&processes, self.told.is_some()));
            self.told = Some(processes);
        }
    }
}

fn sentence(processes: &BTreeSet<u32>, again: bool) -> String {
    let count = processes.len();
    let what = if count == 1 { "a process".to_owned() } else { format!("{count} processes") };
    let mut names: Vec<String> = processes.iter().take(NAMED).map(|pid| name(*pid)).collect();
    if count > NAMED {
        names.push(format!("{} more", count - NAMED));
    }
    let names = names.join(", ");
    if again {
        return format!("now waiting for {what}: {names}");
    }
    format!(
        "the command has ended, but not {what} that it has started: {names}; waiting (to end {}: Ctrl-C, or kill {}; \
         --wait child does so by itself)",
        if count == 1 { "it" } else { "them" },
        std::process::id()
    )
}

/// A process by the name of its program and its id.
fn name(pid: u32) -> String {
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(comm) => format!("{} ({pid})", comm.trim_end()),
        Err(_) => format!("({pid})"),
    }
}
