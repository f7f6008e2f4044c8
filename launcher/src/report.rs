//! `guard-run report`: what logs tell of, for people and for tools of CI.

use std::{
    env,
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum, ValueHint};
use enforce::{arguments::printed, exit, machine::ThisMachine, outlet::Outlet, target::Found};
use render::{Gathered, Root, Summary};
use report::text::pretty_json;

use crate::{
    chosen::{choose, choose_for},
    cli::{path, word},
    records::open,
};

/// What a report is written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for a terminal
    #[default]
    Text,
    /// Markdown, as GitHub and GitLab show it
    Markdown,
    /// One HTML file, with a picture of who reached what
    Html,
    /// Results of tests in JUnit's XML: those of --junit with the denials in them, or else the denials alone
    Junit,
    /// SARIF 2.1.0, for code scanning
    Sarif,
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
    /// Put the denials into the test cases of these results of tests, in JUnit's XML; may be given more than once
    #[arg(long, value_name = "IN.xml", value_parser = path(), value_hint = ValueHint::FilePath)]
    junit: Vec<PathBuf>,
    /// Let results of tests be as they are, and have denials in the standard error of the test cases
    #[arg(long, requires = "junit")]
    keep_results: bool,
    /// Append Markdown to $GITHUB_STEP_SUMMARY, and print annotations for GitHub Actions at the policy's lines
    #[arg(long)]
    github: bool,
    /// Write a code quality report for GitLab to FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true,
        default_missing_value = "gl-code-quality-report.json", value_parser = path())]
    gitlab: Option<PathBuf>,
}

impl ReportArgs {
    /// Whether files are written.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.output.is_some() || self.github || self.gitlab.is_some()
    }

    /// The format that is meant. `None` where only what is for GitHub or GitLab was asked for.
    fn format(&self) -> anyhow::Result<Option<Format>> {
        let alone = self.output.is_none() && (self.github || self.gitlab.is_some());
        match self.format {
            None | Some(Format::Junit) if !self.junit.is_empty() => Ok(Some(Format::Junit)),
            Some(_) if !self.junit.is_empty() => anyhow::bail!("--junit goes with -f junit alone"),
            None if alone => Ok(None),
            format => Ok(Some(format.unwrap_or_default())),
        }
    }
}

/// Writes a report.
///
/// # Errors
///
/// When a log or the policy that is named can't be read, or the report can't be written.
pub fn report(args: &ReportArgs) -> anyhow::Result<u8> {
    let format = args.format()?;
    for output in args.output.iter().chain(&args.gitlab) {
        let same = |log: &PathBuf| {
            fs::canonicalize(log).ok().is_some_and(|log| fs::canonicalize(output).is_ok_and(|output| log == output))
        };
        anyhow::ensure!(
            !args.logs.iter().any(same),
            "{}: this is one of the logs, which would be lost; name another file",
            output.display()
        );
    }
    let summary = summary(args)?;
    let root = env::var_os("GITHUB_WORKSPACE").or_else(|| env::var_os("CI_PROJECT_DIR")).map(PathBuf::from);
    let root = root.or_else(|| env::current_dir().ok());
    let root = Root(root.as_deref());
    if args.github {
        let path = env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty());
        let path =
            PathBuf::from(path.context("--github: GITHUB_STEP_SUMMARY is not set; it is in jobs of GitHub Actions")?);
        let opened = OpenOptions::new().append(true).create(true).open(&path);
        let written = opened.and_then(|mut file| file.write_all(render::markdown(&summary).as_bytes()));
        written.with_context(|| path.display().to_string())?;
        write(None, render::annotations(&summary, root).as_bytes())?;
    }
    if let Some(path) = &args.gitlab {
        write(Some(path), &render::code_quality(&summary, root)?)?;
    }
    let Some(format) = format else { return Ok(exit::OK) };
    let text = match format {
        Format::Text => summary.to_string().into_bytes(),
        Format::Markdown => render::markdown(&summary).into_bytes(),
        Format::Html => render::html(&summary).into_bytes(),
        Format::Junit => junit(&summary, args)?.into_bytes(),
        Format::Sarif => render::sarif(&summary, env!("CARGO_PKG_VERSION"), root)?,
        Format::Json => pretty_json(&summary)?,
    };
    write(args.output.as_deref(), &text)
}

/// The results of tests that were named with the denials in them, or the denials alone.
fn junit(summary: &Summary, args: &ReportArgs) -> anyhow::Result<String> {
    if args.junit.is_empty() {
        return Ok(render::junit(summary));
    }
    let mut documents = Vec::new();
    for path in &args.junit {
        documents.push(fs::read_to_string(path).with_context(|| path.display().to_string())?);
    }
    let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
    render::junit_with(summary, &texts, args.keep_results)
        .map_err(|(place, error)| anyhow::Error::new(error).context(args.junit[place].display().to_string()))
}

/// What the logs tell of.
fn summary(args: &ReportArgs) -> anyhow::Result<Summary> {
    let named = args.policy.as_deref().map(|word| anyhow::Ok(choose(Some(word))?.compile()?.guard())).transpose()?;
    let mut gathered = Gathered::new(named.is_some());
    for log in &args.logs {
        let name = || log.display().to_string();
        gathered.read(&name(), open(log)?).with_context(name)?;
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

/// Writes a report to a file, or to standard output, and returns the exit status. What has lines ends with one.
fn write(output: Option<&Path>, text: &[u8]) -> anyhow::Result<u8> {
    let mut text = text.to_vec();
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    match output {
        Some(path) if path != Path::new("-") => {
            let written = Found::at(path).and_then(|found| match found {
                Found::Name(target) => target.overwrite(&text),
                Found::Open(file) => Outlet::of(file)?.write_all(&text, None),
            });
            written.with_context(|| path.display().to_string())?;
            Ok(exit::OK)
        }
        _ => Ok(printed(io::stdout().write_all(&text))),
    }
}
