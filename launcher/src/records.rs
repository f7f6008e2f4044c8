//! Reading logs that a user names, record by record.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use advice::{Head, Record, read_from};
use anyhow::Context as _;
use report::Subject;

use crate::linked::real;

/// Hands each record of some logs over, one log after the other; `-` is standard input. Returns what the logs say beside their records.
/// Unix sockets have their real paths, as rules have.
///
/// # Errors
///
/// When one can't be read, or is no log.
pub fn records(logs: &[PathBuf], each: &mut dyn FnMut(Record)) -> anyhow::Result<Vec<Head>> {
    let mut heads = Vec::new();
    let each = &mut |record| each(with_real_path(record));
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

/// The record, in which a Unix socket's path is where it leads to on this machine. Hooks that see addresses alone have it as the command
/// spelled it, such as /var/run/nscd/socket. What has escaped bytes in it stays as it is.
fn with_real_path(mut record: Record) -> Record {
    if let Record::Event(event) = &mut record
        && let Subject::Unix(unix) = &mut event.subject
        && unix.path.starts_with('/')
        && !unix.path.contains('\\')
        && let Ok(path) = real(Path::new(&unix.path)).into_os_string().into_string()
    {
        unix.path = path;
    }
    record
}
