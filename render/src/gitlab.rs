//! A code quality report for GitLab: <https://docs.gitlab.com/ci/testing/code_quality/>.

use report::text::{OneLine, pretty_json};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{Guarding, Summary, place::Root, words::times};

/// The code quality report. What has no file of the project's is shown at the log.
///
/// # Errors
///
/// None that is known: what can't be serialized is not in it.
pub fn code_quality(summary: &Summary, root: Root) -> serde_json::Result<Vec<u8>> {
    let unguarded = summary.runs.iter().filter(|run| matches!(run.guarding, Guarding::Unknown | Guarding::Nothing));
    let unguarded = unguarded.map(|run| {
        let description = format!("{}: {}", run.name(), run.guard());
        finding(&description, "guard-run/not-enforced", "blocker", (root.relative(&run.log), 1), &run.log)
    });
    let denials = summary.denials.iter().map(|denial| {
        let what = format!("{} {}", denial.verdict(), denial.what());
        let tests = Some(summary.tests_of(denial)).filter(|tests| !tests.is_empty());
        let during = tests.map(|tests| format!(" during {tests}")).unwrap_or_default();
        let description = format!("{what}{}{during} [{}]", times(denial.why.count), denial.rule());
        let severity = if denial.refused { "major" } else { "minor" };
        let log = || (summary.runs.first().map(|run| root.relative(&run.log)).unwrap_or_default(), 1);
        let place = summary.place(denial, root).unwrap_or_else(log);
        let same = format!("{} {} {}", place.0, denial.rule(), denial.what());
        finding(&description, &format!("guard-run/{}", denial.why.op), severity, place, &same)
    });
    pretty_json(&unguarded.chain(denials).collect::<Vec<Value>>())
}

/// A finding. What is the `same` in two pipelines is shown as one.
fn finding(description: &str, check: &str, severity: &str, (path, line): (String, usize), same: &str) -> Value {
    json!({
        "description": OneLine(description).to_string(),
        "check_name": check,
        "fingerprint": format!("{:x}", Sha256::digest(format!("{check} {same}"))),
        "severity": severity,
        "location": { "path": path, "lines": { "begin": line } },
    })
}
