//! SARIF 2.1.0, for code scanning.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use report::text::{OneLine, pretty_json};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{Denial, Guarding, Summary, place::Root, words::times};

/// The denials as results at the policy's lines, and what there is to doubt as notifications.
///
/// # Errors
///
/// None that is known: what can't be serialized is not in it.
pub fn sarif(summary: &Summary, version: &str, root: Root) -> serde_json::Result<Vec<u8>> {
    let ops: BTreeSet<&str> = summary.denials.iter().map(|denial| &*denial.why.op).collect();
    let numbers: BTreeMap<&str, usize> = ops.iter().enumerate().map(|(number, op)| (*op, number)).collect();
    let rules: Vec<Value> = ops.iter().map(|op| rule(op)).collect();
    let results: Vec<Value> =
        summary.denials.iter().map(|denial| result(summary, denial, numbers[&*denial.why.op], root)).collect();
    let invocations: Vec<Value> = summary.runs.iter().map(invocation).collect();
    pretty_json(&json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "guard-run", "semanticVersion": version, "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "invocations": invocations,
            "results": results,
        }],
    }))
}

fn rule(op: &str) -> Value {
    json!({
        "id": format!("denied/{op}"),
        "shortDescription": { "text": format!("The policy denies this: {op}") },
        "properties": { "tags": ["security"] },
    })
}

/// A run that the logs tell of. That of a guard that was not there was no success.
fn invocation(run: &crate::Run) -> Value {
    let guarded = matches!(run.guarding, Guarding::Enforced | Guarding::Audited);
    let level = if guarded { "warning" } else { "error" };
    let doubts = run.doubts.iter().map(|doubt| {
        let text = format!("{}: {doubt}", run.name());
        json!({ "level": level, "message": { "text": OneLine(text).to_string() } })
    });
    let mut invocation = json!({
        "executionSuccessful": guarded,
        "toolExecutionNotifications": doubts.collect::<Vec<_>>(),
        "properties": { "guard": run.guard() },
    });
    for (key, time) in [("startTimeUtc", run.started), ("endTimeUtc", run.ended)] {
        if let Some(time) = time {
            invocation[key] = format!("{time:.3}").into();
        }
    }
    invocation
}

fn result(summary: &Summary, denial: &Denial, rule: usize, root: Root) -> Value {
    let what = denial.what();
    let mut text = format!("{} {what}{} by {}", denial.verdict(), times(denial.why.count), denial.rule());
    for (head, of) in [("reason", denial.why.reason.clone()), ("test", Some(summary.tests_of(denial)))] {
        if let Some(of) = of.filter(|of| !of.is_empty()) {
            let _ = write!(text, "; {head}: {of}");
        }
    }
    let mut result = json!({
        "ruleId": format!("denied/{}", denial.why.op),
        "ruleIndex": rule,
        "level": if denial.refused { "error" } else { "warning" },
        "message": { "text": OneLine(text).to_string() },
        "occurrenceCount": denial.why.count.max(1),
    });
    let mut same = format!("{} {what}", denial.rule());
    if let Some((path, line)) = summary.place(denial, root) {
        same = format!("{path} {same}");
        result["locations"] = json!([{
            "physicalLocation": { "artifactLocation": { "uri": uri(&path) }, "region": { "startLine": line } },
        }]);
    }
    result["partialFingerprints"] = json!({ "denial/v1": format!("{:x}", Sha256::digest(same)) });
    if let Some(way) = denial.why.ways.first() {
        result["properties"] = json!({ "patch": way.patch, "grantsBeyond": way.beyond });
    }
    result
}

/// A path as a URI reference (RFC 3986).
fn uri(path: &str) -> String {
    let mut uri = if path.starts_with('/') { "file://".to_owned() } else { String::new() };
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => uri.push(byte.into()),
            byte => {
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_uris() {
        for (path, expected) in [("a b/ö.json", "a%20b/%C3%B6.json"), ("/etc/p:1", "file:///etc/p%3A1")] {
            assert_eq!(uri(path), expected);
        }
    }
}
