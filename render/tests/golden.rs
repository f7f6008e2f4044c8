//! What is written of logs, in each format, is in golden/. With UPDATE_GOLDEN=1 in the environment it is written there instead.

mod support;

use report::text::{is_escaped, pretty_json};
use serde_json::{Value, json};
use support::{assert_golden, assert_valid, file, log, summary, summary_of};

#[test]
fn text() {
    let text = summary().to_string();
    assert_golden("report.txt", &text);
    assert!(!text.contains(|character| character != '\n' && is_escaped(character)));
}

#[test]
fn json_is_valid_by_its_schema() {
    let json = pretty_json(&summary()).unwrap();
    assert_golden("report.json", str::from_utf8(&json).unwrap());
    assert_valid("report", &serde_json::from_slice(&json).unwrap());
    // What can't be said by a policy is valid, too.
    let unread = summary_of(&[("suite.json", &file("logs/suite.json"))], &mut |_| Err("it is gone".to_owned()));
    let json = serde_json::to_value(&unread).unwrap();
    assert_valid("report", &json);
    assert_eq!(json["policies"][0]["problem"], "it is gone");
    assert_eq!(json["denials"].as_array().unwrap().len(), 5);
}

/// No log can look like one of a guard that had nothing to do.
#[test]
fn a_guard_that_was_not_there_is_said() {
    let nothing = |log: &mut Value| {
        log["events"] = json!([]);
        log["lost"] = 0.into();
    };
    let edits: [(&str, fn(&mut Value)); 6] = [
        ("UNKNOWN", |log| drop(log.as_object_mut().unwrap().remove("enforced"))),
        ("UNKNOWN", |log| drop(log["enforced"].as_object_mut().unwrap().remove("hooks"))),
        ("UNKNOWN", |log| drop(log.as_object_mut().unwrap().remove("policy"))),
        ("NOT ENFORCED", |log| log["enforced"]["hooks"] = json!([])),
        ("in no event: the log is not whole", |_| {}),
        ("nothing was refused", |log| log["policy"]["mode"] = "audit".into()),
    ];
    for (said, edit) in edits {
        let log = log("suite.json", |log| {
            nothing(log);
            edit(log);
        });
        let summary = summary_of(&[("log", &log)], &mut |_| Err("nothing".to_owned()));
        assert!(summary.to_string().contains(said), "{said}: {summary}");
        let known = !["UNKNOWN", "NOT ENFORCED"].contains(&said);
        assert_eq!(summary.is_guarded(), known, "{summary}");
        assert_eq!(summary.headline().contains("NOT ALL RUNS"), !known, "{}", summary.headline());
    }
    let event = serde_json::from_str::<Value>(&file("logs/suite.json")).unwrap()["events"][0].to_string();
    let summary = summary_of(&[("events.jsonl", &event)], &mut |_| Err("nothing".to_owned()));
    assert!(!summary.is_guarded() && summary.to_string().contains("events alone don't say what was enforced"));
}

#[test]
fn several_logs_are_one_report() {
    let container = std::fs::read_to_string("../report/tests/logs/container.json").unwrap();
    let suite = file("logs/suite.json");
    let summary =
        summary_of(&[("a.json", &suite), ("b.json", &suite), ("c.json", &container)], &mut |path| support::guard(path));
    assert_eq!((summary.runs.len(), summary.policies.len()), (3, 2));
    let phones = &summary.tests[0];
    assert_eq!((phones.test.name.as_deref(), phones.count), (Some("test_phones_home"), 10));
    assert_eq!(summary.flows.iter().map(|flow| flow.connections).max(), Some(40));
    let text = summary.to_string();
    assert!(text.contains("container c1") && text.contains("capabilities by which it could evade"), "{text}");
}

#[test]
fn logs_of_two_policies_in_one_file_are_refused() {
    let other = log("suite.json", |log| log["policy"]["path"] = "other.json".into());
    let both = file("logs/suite.json") + &other;
    let mut gathered = render::Gathered::new(false);
    let error = gathered.read("both", both.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("policy.json and other.json"), "{error}");
    render::Gathered::new(true).read("both", both.as_bytes()).unwrap();
}
