//! What a run must not end with.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Output,
};

use serde::{Deserialize, Serialize};

use crate::world::SECRET;

/// Something that a run must not do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The finding's kind; of each, one is reported for each subject.
    pub kind: String,
    /// What happened, for people.
    pub what: String,
}

impl Violation {
    /// A finding of a kind.
    #[must_use]
    pub fn new(kind: &str, what: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), what: what.into() }
    }
}

impl AsRef<Self> for Violation {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// A violation, and the smallest known way to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// What was fuzzed: a command line, a runtime, a stage.
    pub subject: String,
    /// What happened.
    pub violation: Violation,
    /// What leads to it, step by step.
    pub way: Vec<String>,
    /// When it was found, in seconds, and in which attempt.
    pub after: (f64, u64),
}

/// What has been reported: of each subject and kind of violation, the classes of what leads to it.
#[derive(Debug, Default)]
pub struct Known(BTreeMap<(&'static str, String), Vec<BTreeSet<String>>>);

impl Known {
    /// Whether what leads to something that has been reported is among these.
    #[must_use]
    pub fn has(&self, subject: &'static str, kind: &str, classes: &BTreeSet<String>) -> bool {
        let known = self.0.get(&(subject, kind.to_owned()));
        known.is_some_and(|known| known.iter().any(|reported| reported.is_subset(classes)))
    }

    /// Adds what is reported now.
    pub fn add(&mut self, subject: &'static str, kind: &str, classes: BTreeSet<String>) {
        self.0.entry((subject, kind.to_owned())).or_default().push(classes);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

/// What any program of guard-run must keep to: it ends in time, does not panic, and says one line if it fails. `began` is what that
/// line begins with.
#[must_use]
pub fn manners(output: &Output, hung: bool, began: &str, failures: &[i32]) -> Vec<Violation> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut violations = Vec::new();
    let code = output.status.code();
    if hung {
        return vec![Violation::new("hang", "it did not end in time, and was killed")];
    }
    if stderr.contains("panicked") || code == Some(101) || code == Some(134) || code.is_none() {
        violations.push(Violation::new("panic", format!("{}: {}", output.status, stderr.trim_end())));
    } else if code.is_some_and(|code| failures.contains(&code)) {
        // A log that can't be written is said instead.
        let lines = if stderr.contains("here it is instead") { 1 } else { stderr.lines().count() };
        if lines != 1 || !stderr.starts_with(began) {
            violations.push(Violation::new("line", format!("it failed with {code:?} and not one line: {stderr:?}")));
        }
    } else if code != Some(0) {
        violations.push(Violation::new("status", format!("it ended with {code:?}: {}", stderr.trim_end())));
    }
    if stderr.contains(SECRET) {
        violations.push(Violation::new("secret", format!("it tells what is in a private file: {}", stderr.trim_end())));
    }
    violations
}
