//! Saying what is wrong with a policy, where, and what to write instead.

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

use serde_path_to_error::Segment;

use super::Document;
use crate::text::{cut, cut_end};

/// How alike two words must be (Jaro-Winkler, 0 to 1) for one to be suggested for the other.
const ALIKE: f64 = 0.8;

/// How much of each end of something long is in a message, in bytes.
const SHOWN: usize = 1000;

/// Why a policy was refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file can't be read.
    #[error("{}", path.display())]
    Unreadable {
        /// The policy file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than any policy.
    #[error("{}: larger than {} MiB, which no policy is", path.display(), limit >> 20)]
    TooLarge {
        /// The policy file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The text is not JSON.
    #[error("{}: line {line}, column {column}: not JSON: {message}", path.display())]
    Syntax {
        /// The policy file.
        path: PathBuf,
        /// Line of the file, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// The text is JSON, but not a policy.
    #[error("{}: {pointer} (line {line}): {message}", path.display())]
    Invalid {
        /// The policy file.
        path: PathBuf,
        /// JSON pointer to the wrong value (RFC 6901), or "top level".
        pointer: String,
        /// Line of the file, from 1.
        line: usize,
        /// What is wrong with it, and what to write instead.
        message: String,
    },
}

impl PolicyError {
    pub(super) fn syntax(path: &Path, error: &serde_json::Error) -> Self {
        Self::Syntax {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
            message: without_position(error),
        }
    }

    /// What is wrong with the value at a JSON pointer of a document that could be parsed.
    pub(super) fn at(document: &Document, pointer: String, message: &str) -> Self {
        let line = document.line_of(&pointer).unwrap_or(1);
        Self::Invalid { path: document.path().to_owned(), pointer, line, message: one_line(message) }
    }

    pub(super) fn invalid(path: &Path, place: &serde_path_to_error::Path, error: &serde_json::Error) -> Self {
        if !error.is_data() {
            return Self::syntax(path, error);
        }
        let message = without_position(error);
        let message = match improved(&message) {
            Some(better) => better,
            None => message,
        };
        Self::Invalid { path: path.to_owned(), pointer: pointer(place), line: error.line(), message }
    }
}

/// The JSON pointer of a place in the document.
fn pointer(place: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in place {
        match segment {
            Segment::Seq { index } => write!(pointer, "/{index}"),
            Segment::Map { key } => write!(pointer, "/{}", key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => write!(pointer, "/{variant}"),
            Segment::Unknown => write!(pointer, "/?"),
        }
        .expect("writing to a String can't fail");
    }
    if pointer.is_empty() { "top level".to_owned() } else { one_line(&pointer) }
}

/// serde_json's message without the position that it ends with, which is told apart, and on one line whatever the policy
/// contains.
fn without_position(error: &serde_json::Error) -> String {
    let message = error.to_string();
    one_line(match message.rfind(" at line ") {
        Some(end) => &message[..end],
        None => &message,
    })
}

/// A text from the policy without what could break a line or steer a terminal.
fn one_line(text: &str) -> String {
    // Nobody reads all of a key of some megabytes, and nobody should wait until it is written.
    let text = if text.len() > 2 * SHOWN {
        format!("{}…{}", cut(text, SHOWN), cut_end(text, SHOWN))
    } else {
        text.to_owned()
    };
    text.chars().flat_map(|c| if c.is_control() { c.escape_debug().collect() } else { vec![c] }).collect()
}

/// A clearer message for an unknown key: whether it is one that a later version will know, and which known one may have
/// been meant. serde puts what it found and then what it knows between backticks.
fn improved(message: &str) -> Option<String> {
    if !message.starts_with("unknown field") {
        return None;
    }
    let mut words = message.split('`').skip(1).step_by(2);
    let found = words.next()?;
    let known: Vec<&str> = words.filter(|word| *word != "$schema").collect();
    let hint = did_you_mean(found, &known);
    let shown = cut(found, LONGEST);
    let more = if shown.len() < found.len() { "…" } else { "" };
    Some(format!("unknown key \"{shown}{more}\"{hint} (known: {})", known.join(", ")))
}

/// No word that is meant is so long, in bytes. Comparing takes time by the square of it.
const LONGEST: usize = 128;

/// What to say of a path that begins with what shells put another text in place of, such as `~` and `$HOME`. `None` for any other.
pub(super) fn unexpanded(path: &str) -> Option<String> {
    let (begin, rest) = path.split_once('/').unwrap_or((path, "…"));
    let whole = match begin {
        "$HOME" | "${HOME}" => "/home/NAME",
        begin if begin.starts_with('~') => "/home/NAME",
        begin if begin.starts_with('$') => "/…",
        _ => return None,
    };
    Some(format!("\"{begin}\" stands for nothing here; write the whole path, such as \"{whole}/{rest}\""))
}

/// `; did you mean "…"?` if one of the known words is much like what was found, else nothing.
#[must_use]
pub fn did_you_mean(found: &str, known: &[&str]) -> String {
    if found.len() > LONGEST {
        return String::new();
    }
    known
        .iter()
        .map(|word| (strsim::jaro_winkler(&found.to_lowercase(), &word.to_lowercase()), word))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map_or_else(String::new, |(_, word)| format!("; did you mean \"{word}\"?"))
}
