//! `guard-run report`: what logs tell of, for people and for tools of CI.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum, ValueHint};
use enforce::{exit, machine::ThisMachine};
use render::{Gathered, Summary};
use report::text::pretty_json;

use crate::{
    chosen::{choose, choose_for},
    cli::{path, word},
};

/// What a report is written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for a terminal
    #[default]
    Text,
    /// JSON, by share/guard-run/schema/report.schema.json
    Json,
}

/// The command line of `guard-run report`.
#[derive(Args, Debug)]
pub struct ReportArgs {
    /// Logs, or events as --events writes them ("-": standard input)
    #[arg(required = true, value_name = "LOG", value_parser = path())]
    logs: Vec<PathBuf>,
    /// What to write
    #[arg(short, long, value_enum)]
    format: Option<Format>,
    /// Where to write it; a file that is there is replaced [default: standard output]
    #[arg(short, long, value_name = "FILE", value_parser = path(), value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// The policy [default: the one that each log names]
    #[arg(short, long, value_name = "FILE|NAME", value_parser = word(), value_hint = ValueHint::FilePath)]
    policy: Option<OsString>,
}

impl ReportArgs {
    /// Whether files are written.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.output.is_some()
    }
}

/// Writes a report.
///
/// # Errors
///
/// When a log or the policy that is named can't be read, or the report can't be written.
pub fn report(args: &ReportArgs) -> anyhow::Result<u8> {
    let summary = summary(args)?;
    let text = match args.format.unwrap_or_default() {
        Format::Text => summary.to_string().into_bytes(),
        Format::Json => {
            let mut json = pretty_json(&summary)?;
            json.push(b'\n');
            json
        }
    };
    write(args.output.as_deref(), &text)?;
    Ok(exit::OK)
}

/// What the logs tell of.
fn summary(args: &ReportArgs) -> anyhow::Result<Summary> {
    let named = args.policy.as_deref().map(|word| anyhow::Ok(choose(Some(word))?.compile()?.guard())).transpose()?;
    let mut gathered = Gathered::new(named.is_some());
    for log in &args.logs {
        let name = || log.display().to_string();
        let input: Box<dyn Read> = if log == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            Box::new(File::open(log).with_context(name)?)
        };
        gathered.read(&name(), input).with_context(name)?;
    }
    let mut named = named;
    let mut guard = |path: Option<&Path>| match named.take() {
        Some(guard) => Ok(guard),
        None => match choose_for(None, path).and_then(|chosen| Ok(chosen.compile()?.guard())) {
            Ok(guard) => Ok(guard),
            Err(error) => Err(format!("nothing is said by the policy: {error:#}")),
        },
    };
    Ok(gathered.summarize(&mut guard, &ThisMachine))
}

/// Writes a report to a file, or to standard output.
fn write(output: Option<&Path>, text: &[u8]) -> anyhow::Result<()> {
    match output {
        Some(path) if path != Path::new("-") => fs::write(path, text).with_context(|| path.display().to_string()),
        _ => {
            let mut output = io::stdout().lock();
            output.write_all(text).and_then(|()| output.flush()).context("can't write to standard output")
        }
    }
}
