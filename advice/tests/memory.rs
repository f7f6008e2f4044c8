//! Logs of any size are read in little memory. Alone in its program, of which the memory is measured.

use std::{
    fs,
    io::{self, Read},
};

use advice::{Denials, ReadError, read_from};
use serde_json::Value;

/// The beginning of a log, and one event again and again.
struct Long {
    start: io::Cursor<Vec<u8>>,
    event: io::Cursor<Vec<u8>>,
}

impl Read for Long {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.start.read(buffer)?;
        if count > 0 {
            return Ok(count);
        }
        if self.event.position() == self.event.get_ref().len() as u64 {
            self.event.set_position(0);
        }
        self.event.read(buffer)
    }
}

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn memory_does_not_grow_with_the_log() {
    let log: Value = serde_json::from_str(include_str!("golden/log.json")).unwrap();
    let event = format!("{},", log["events"][0]);
    let start = io::Cursor::new(br#"{"schema": 1, "events": ["#.to_vec());
    let input = Long { start, event: io::Cursor::new(event.into_bytes()) };
    let mut denials = Denials::default();
    let before = peak();
    // It is cut off in an event, or behind one.
    let outcome = read_from(input.take(8_000_000), &mut |record| denials.add(record));
    assert!(matches!(outcome, Err(ReadError::Cut { .. })), "{outcome:?}");
    assert!(peak() - before < 4 << 10, "{} KiB", peak() - before);
}
