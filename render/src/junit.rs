//! JUnit's XML: the denials under the tests that caused them.

mod find;
mod write;

use report::text::OneLine;

use crate::{
    Denial, Guarding, Summary,
    words::{counted, times},
};
use find::{Document, State};

/// The name of the suite of what belongs to no test case that is known.
const SUITE: &str = "guard-run";
/// The type of a test case's failure by a denial.
const DENIED: &str = "guard-run.denied";

/// Why results of tests can't be told with denials.
#[derive(Debug, thiserror::Error)]
pub enum JunitError {
    /// It is no XML.
    #[error("byte {position}: not XML: {error}")]
    Syntax {
        /// Where, in bytes from 0.
        position: u64,
        /// What is wrong.
        error: String,
    },
    /// It is XML, but not JUnit's.
    #[error(
        "the outermost element is <{0}>; the results of tests as JUnit writes them begin with <testsuites> or <testsuite>"
    )]
    Foreign(String),
    /// There is nothing.
    #[error("nothing is in it; results of tests begin with <testsuites> or <testsuite>")]
    Empty,
    /// Denials are in it already, and would be counted twice.
    #[error("denials are in it already; give what the tests' framework wrote")]
    HasDenials,
}

/// A test case that is written by guard-run itself.
struct Own {
    class: String,
    name: String,
    /// Why it fails, in short and at length. `None`: it passes.
    failure: Option<(String, String)>,
}

/// What is put into a test case that is there.
#[derive(Clone, Debug, Default)]
struct Insertion {
    /// In short and at length, for a case that fails by it.
    failure: Option<(String, String)>,
    /// For standard error.
    said: Option<String>,
}

/// The denials alone: a test case for each test, each denial of no test, and each run.
#[must_use]
pub fn junit(summary: &Summary) -> String {
    let tests = summary.tests.iter().enumerate().map(|(number, part)| {
        let class = part.test.suite.as_deref().or(part.test.file.as_deref()).unwrap_or(SUITE);
        let name = part.test.name.as_deref().unwrap_or("a test whose name is not known");
        Own { failure: failure(summary, number), class: class.to_owned(), name: name.to_owned() }
    });
    let cases: Vec<Own> = guards(summary).chain(tests).chain(unattributed(summary)).collect();
    write::alone(&cases)
}

/// The results of tests with the denials of each test in its test case, and the rest in a suite of their own. Test cases that had denials
/// fail by them; with `keep_results` they have them in their standard error, and results stay as they are.
///
/// # Errors
///
/// When a document has no results of tests: the number of the document, from 0, and what is wrong with it.
pub fn junit_with(summary: &Summary, documents: &[&str], keep_results: bool) -> Result<String, (usize, JunitError)> {
    let numbered = documents.iter().enumerate();
    let documents = numbered.map(|(number, text)| Document::read(text).map_err(|error| (number, error)));
    let documents = documents.collect::<Result<Vec<_>, _>>()?;
    let mut insertions: Vec<Vec<Insertion>> =
        documents.iter().map(|document| vec![Insertion::default(); document.cases.len()]).collect();
    let mut own: Vec<Own> = guards(summary).filter(|own| own.failure.is_some()).collect();
    for (number, part) in summary.tests.iter().enumerate() {
        let (short, long) = told(summary, number);
        let place = find::place(&documents, &part.test);
        if let Ok((document, case)) = place {
            let insertion = &mut insertions[document][case];
            let fails = part.refused && !keep_results;
            if fails && documents[document].cases[case].state == State::Passed {
                insertion.failure.get_or_insert_with(|| (short.clone(), String::new())).1.push_str(&long);
            } else {
                insertion.said.get_or_insert_default().extend([&*short, "\n", &long]);
            }
            // A test that failed anyway tells of it; one that was skipped would not.
            if !fails || documents[document].cases[case].state != State::Skipped {
                continue;
            }
        }
        let why = place.err().unwrap_or("the test case was skipped");
        let name = format!("{}: {short}", part.test);
        let failure = failure(summary, number).map(|(short, long)| (short, format!("{why}\n{long}")));
        own.push(Own { class: SUITE.to_owned(), name, failure });
    }
    own.extend(unattributed(summary));
    if keep_results {
        // What failed is told in standard output of the case by the writer.
        own.retain(|own| own.failure.is_some());
    }
    Ok(write::with(&documents, &insertions, &own, keep_results))
}

/// A test case for each run, which fails if nobody knows of a guard.
fn guards(summary: &Summary) -> impl Iterator<Item = Own> {
    summary.runs.iter().map(|run| {
        let guarded = matches!(run.guarding, Guarding::Enforced | Guarding::Audited);
        let failure = (!guarded).then(|| (run.guard(), run.doubts.join("\n")));
        Own { class: SUITE.to_owned(), name: format!("{} is guarded", run.name()), failure }
    })
}

/// A test case for each denial that belongs to no test.
fn unattributed(summary: &Summary) -> impl Iterator<Item = Own> {
    let denials = summary.denials.iter().filter(|denial| denial.unattributed > 0);
    denials.map(|denial| {
        let failure = denial.refused.then(|| (short(denial, denial.unattributed), denial.why.to_string()));
        Own { class: SUITE.to_owned(), name: format!("{} during no test that is known", denial.what()), failure }
    })
}

/// Why a test fails. `None` where nothing was refused.
fn failure(summary: &Summary, test: usize) -> Option<(String, String)> {
    summary.tests[test].refused.then(|| told(summary, test))
}

/// How many denials of a test are explained.
const EXPLAINED: usize = 20;

/// What was denied during a test, in short and at length.
fn told(summary: &Summary, test: usize) -> (String, String) {
    let part = &summary.tests[test];
    let denials = || part.denials.iter().map(|known| (&summary.denials[known.denial], known.count));
    let mut first = denials().take(1).map(|(denial, count)| short(denial, count)).collect::<String>();
    if let Some(more @ 1..) = part.denials.len().checked_sub(1) {
        first = format!("{first} and {} more", counted(more as u64, "kind"));
    }
    let mut long: String = denials().take(EXPLAINED).map(|(denial, _)| denial.why.to_string()).collect();
    if let Some(more @ 1..) = part.denials.len().checked_sub(EXPLAINED) {
        long.extend(["and ", &counted(more as u64, "kind"), " more\n"]);
    }
    (first, long)
}

/// A denial in short.
fn short(denial: &Denial, count: u64) -> String {
    OneLine(format!("guard-run {} {}{} by {}", denial.verdict(), denial.what(), times(count), denial.rule()))
        .to_string()
}
