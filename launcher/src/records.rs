//! Reading logs that a user names, record by record.

use std::{
    fs::File,
    io::{self, Cursor, Read},
    path::{Path, PathBuf},
};

use advice::{Head, ReadError, Record, read, read_from};
use anyhow::Context as _;
use serde_json::de::SliceRead;

/// A log that is shorter, in bytes, is read as a whole, which takes half the time. Of a longer one, so much more is in memory.
const SHORT: u64 = 16 << 20;

/// Hands each record of some logs over, one log after the other; `-` is standard input. Returns what the logs say beside their records.
///
/// # Errors
///
/// When one can't be read, or is no log.
pub fn records(logs: &[PathBuf], each: &mut dyn FnMut(Record)) -> anyhow::Result<Vec<Head>> {
    let mut heads = Vec::new();
    for path in logs {
        heads.extend(of_log(open(path)?, each).with_context(|| path.display().to_string())?);
    }
    Ok(heads)
}

/// Opens a log; `-` is standard input.
///
/// # Errors
///
/// When it can't be opened.
pub fn open(log: &Path) -> anyhow::Result<Box<dyn Read>> {
    if log == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(File::open(log).with_context(|| log.display().to_string())?))
}

/// Hands each record of a log over, however long it is.
fn of_log(mut log: impl Read, each: &mut dyn FnMut(Record)) -> Result<Vec<Head>, ReadError> {
    let mut start = Vec::new();
    let length = log.by_ref().take(SHORT).read_to_end(&mut start)?;
    if length as u64 == SHORT {
        read_from(Cursor::new(start).chain(log), each)
    } else {
        read(SliceRead::new(&start), each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events of a log, of which one takes a kilobyte.
    fn log(events: usize) -> String {
        let time = "2026-11-29T21:40:15.411872945Z";
        let event = format!(
            r#"{{"time": "{time}", "op": "sysctl", "hook": "sysctl", "verdict": "denied", "process": {{"pid": 1, "uid": 0, "comm": "x",
            "exe": null, "argv": ["{}"], "parent": null}}, "sysctl": {{"name": "kernel/x", "access": "r", "value": null}},
            "rule": "default", "count": 1, "first": "{time}", "last": "{time}"}}"#,
            "x".repeat(600)
        );
        format!(r#"{{"schema": 1, "lost": 7, "events": [{}]}}"#, vec![event; events].join(","))
    }

    #[test]
    fn long_logs_and_short_ones_are_read() {
        for events in [2, 20_000] {
            let text = log(events);
            assert_eq!(text.len() as u64 > SHORT, events > 2);
            let mut count = 0;
            let heads = of_log(text.as_bytes(), &mut |_| count += 1).unwrap();
            assert_eq!((count, heads.len(), heads[0].lost), (events, 1, 7));
            let cut = of_log(&text.as_bytes()[..text.len() - 1], &mut |_| ());
            assert!(matches!(cut, Err(ReadError::Cut { line }) if line == 2 * events + 1), "{cut:?}");
        }
    }
}
