//! `guard-run tidy`: what of a policy does nothing, and the policy without it.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use advice::{Replay, Replayed, Side, Tidied, Usage, compare, tidy as tidied};
use anyhow::Context as _;
use enforce::{exit, machine::ThisMachine, outlet::tell, target};
use policy::{Document, PolicyError, Resolved, compile::Tables};
use report::text::pretty_json;

use crate::{
    chosen::{Compiled, choose, parse_named},
    records::records,
};

/// Prints what does nothing, and writes the policy without it to `output`, if there is one. The exit status tells whether there is
/// anything: [`exit::NO`] if so.
///
/// # Errors
///
/// When the policy isn't valid, a log can't be read, or the shorter policy is not proved to decide alike.
pub fn tidy(policy: &OsStr, logs: &[PathBuf], output: Option<&Path>, json: bool) -> anyhow::Result<u8> {
    let Compiled { policy, tables, document, .. } = choose(Some(policy))?.compile()?;
    anyhow::ensure!(!logs.iter().any(|log| log == Path::new("-")), "logs are read twice, so name files");
    let mut usage = Usage::new(&policy, &tables);
    let mut before = Replay::new(&tables);
    let heads = records(logs, &mut |record| {
        usage.add(&record);
        before.add(&record);
    })?;
    let lost: u64 = heads.iter().map(|head| head.flows_lost).sum();
    anyhow::ensure!(
        lost == 0,
        "{lost} connections and datagrams are in no flow of these logs, so they don't tell what is needed"
    );
    if !logs.is_empty() && !usage.has_flows() {
        tell(
            "these logs have no flows, so they don't tell which rules were needed; have the next ones made with --flows",
        );
    }
    let text = fs::read_to_string(document.path()).with_context(|| document.path().display().to_string())?;
    let side = Side { policy: &policy, tables: &tables };
    let read = |text: &str| read(document.path(), text).ok();
    let tidied = tidied(side, &usage, &text, &read)?;
    prove(side, (document.path(), &tidied), logs, &before.finish())?;
    if json {
        println!("{}", String::from_utf8(pretty_json(&tidied.idle)?)?);
    } else if output != Some(Path::new("-")) {
        print!("{tidied}");
    }
    match output {
        Some(path) if path == Path::new("-") => print!("{}", tidied.text),
        Some(path) => {
            target::create(path, tidied.text.as_bytes()).with_context(|| path.display().to_string())?;
            tell(&format!("wrote {}", path.display()));
        }
        None => {}
    }
    Ok(if tidied.idle.is_empty() { exit::OK } else { exit::NO })
}

/// The policy of a text in a file's place, with what it includes.
fn read(path: &Path, text: &str) -> Result<Resolved, PolicyError> {
    let document = Document::new(path, text.as_bytes().to_vec());
    parse_named(&document)?.resolve(&document, &ThisMachine)
}

/// Makes sure that the shorter policy allows nothing more, and changes no verdict of the logs.
fn prove(side: Side, (path, tidied): (&Path, &Tidied), logs: &[PathBuf], before: &Replayed) -> anyhow::Result<()> {
    let policy = read(path, &tidied.text)?;
    let tables = Tables::compile(&policy)?;
    let wider = compare(side, Side { policy: &policy, tables: &tables })?.wider;
    if let Some(difference) = wider.first() {
        anyhow::bail!("without what does nothing, it would allow more, so nothing was changed: {difference}");
    }
    let mut replay = Replay::new(&tables);
    records(logs, &mut |record| replay.add(&record))?;
    let after = replay.finish();
    let counts = |replayed: &Replayed| {
        [&replayed.would_be_denied, &replayed.would_be_allowed]
            .map(|all| all.iter().map(|change| change.records).sum::<u64>())
    };
    anyhow::ensure!(
        counts(before) == counts(&after),
        "without what does nothing, verdicts of the logs would be others, so nothing was changed"
    );
    Ok(())
}
