//! `guard-run replay`: what a policy would have decided on what logs tell of.

use std::{ffi::OsStr, path::PathBuf};

use advice::Replay;
use enforce::exit;
use report::text::pretty_json;

use crate::{
    chosen::{Compiled, choose},
    records::records,
};

/// Prints which verdicts would change. The exit status tells whether anything that was reached would be denied: [`exit::NO`] if so.
///
/// # Errors
///
/// When the policy isn't valid, or a log can't be read.
pub fn replay(policy: &OsStr, logs: &[PathBuf], json: bool) -> anyhow::Result<u8> {
    let Compiled { tables, .. } = choose(Some(policy))?.compile()?;
    let mut replay = Replay::new(&tables);
    records(logs, &mut |record| replay.add(&record))?;
    let replayed = replay.finish();
    if json {
        println!("{}", String::from_utf8(pretty_json(&replayed)?)?);
    } else {
        print!("{replayed}");
    }
    Ok(if replayed.would_be_denied.is_empty() { exit::OK } else { exit::NO })
}
