//! Reading logs that a user names, record by record.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use advice::{Head, Record, read_from};
use anyhow::Context as _;

/// Hands each record of some logs over, one log after the other; `-` is standard input. Returns what the logs say beside their records.
///
/// # Errors
///
/// When one can't be read, or is no log.
pub fn records(logs: &[PathBuf], each: &mut dyn FnMut(Record)) -> anyhow::Result<Vec<Head>> {
    let mut heads = Vec::new();
    for path in logs {
        let input: Box<dyn Read> = if path == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            Box::new(File::open(path).with_context(|| path.display().to_string())?)
        };
        heads.extend(read_from(input, each).with_context(|| path.display().to_string())?);
    }
    Ok(heads)
}
