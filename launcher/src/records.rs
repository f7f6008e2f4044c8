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
        heads.extend(read_from(open(path)?, each).with_context(|| path.display().to_string())?);
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
