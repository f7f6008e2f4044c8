//! What is written of logs, in each format, is in golden/. With UPDATE_GOLDEN=1 in the environment it is written there instead.

mod support;

use std::path::Path;

use advice::Guard;
use policy::Document;
use render::{Root, Summary};
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

/// What is said of a log with such a change.
type Edit = (&'static str, fn(&mut Value));

/// No log can look like one of a guard that had nothing to do.
#[test]
fn a_guard_that_was_not_there_is_said() {
    let nothing = |log: &mut Value| {
        log["events"] = json!([]);
        log["lost"] = 0.into();
    };
    let edits: [Edit; 6] = [
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

/// A summary with a name that is no name in the places where logs have names.
fn hostile(name: &str) -> Summary {
    let log = log("suite.json", |log| {
        log["command"] = json!([name]);
        log["events"][3]["unix"]["path"] = name.into();
        for event in log["events"].as_array_mut().unwrap() {
            event["process"]["comm"] = name.into();
            event["process"]["exe"] = name.into();
            event["process"]["argv"] = json!([name]);
            event["process"]["parent"]["comm"] = name.into();
            event["test"] = json!({"suite": name, "name": name, "file": name});
            event["reason"] = name.into();
        }
        log["events"][1]["network"]["host"] = name.into();
        log["flows"][0]["process"]["exe"] = name.into();
        log["flows"][0]["network"]["host"] = name.into();
    });
    summary_of(&[(name, &log)], &mut |path| support::guard(path))
}

#[test]
fn markdown() {
    assert_golden("report.md", &render::markdown(&summary()));
}

#[test]
fn names_are_no_markup() {
    let name = "a|b `x` ``` <img src=x onerror=alert(1)> [l](http://evil.test) **b** @me www.evil.test\n# h\n::error::x\\|</code>";
    let page = render::markdown(&hostile(name));
    // Outside of fenced blocks, nothing of it is left that means something; and within, no fence.
    let (mut fence, mut blocks) = (None::<String>, 0);
    for line in page.lines() {
        match &fence {
            Some(open) if line == open => fence = None,
            Some(open) => assert!(!line.starts_with(&**open)),
            None if line.starts_with("```") => {
                fence = Some(line.chars().take_while(|character| *character == '`').collect());
                blocks += 1;
            }
            None => {
                for markup in ["<img", "`", "](", "**b", "@me", "www.", "http:", "\\", "::"] {
                    assert!(!line.contains(markup), "{markup}: {line}");
                }
                assert!(line != "# h", "{page}");
                let cells = line.starts_with('|').then(|| line.matches('|').count());
                assert!(cells.is_none_or(|cells| cells <= 7), "{line}");
            }
        }
    }
    assert!(fence.is_none() && blocks > 3 && page.contains("onerror"), "{page}");
}

#[test]
fn a_page_has_an_end() {
    let log = log("suite.json", |log| {
        let event = log["events"][3].clone();
        let events = (0..3000).map(|number| {
            let mut event = event.clone();
            event["unix"]["path"] = format!("/{}/{number}", "`x`".repeat(500)).into();
            event["test"] = json!({"suite": "s".repeat(1000), "name": number.to_string()});
            event
        });
        log["events"] = events.collect();
    });
    let summary = summary_of(&[("log", &log)], &mut |_| Err("nothing".to_owned()));
    let page = render::markdown(&summary);
    assert!(page.len() < 1 << 20 && page.contains("more"), "{}", page.len());
    assert_eq!(render::annotations(&summary, Root(None)).lines().count(), 11);
}

#[test]
fn annotations_and_code_quality_are_at_the_line_that_decides() {
    let root = Root(Some(Path::new("/work/project")));
    let log = log("suite.json", |log| log["policy"]["path"] = "/work/project/ci/policy.json".into());
    let mut guard = |path: Option<&Path>| {
        let text = file("logs/policy.json").into();
        Ok(Guard::new(Document::new(path.unwrap(), text), &support::Bare).unwrap())
    };
    let summary = summary_of(&[("/work/project/log.json", &log)], &mut guard);
    let annotations = render::annotations(&summary, root);
    assert_golden("github.txt", &annotations);
    assert!(annotations.starts_with("::error file=ci/policy.json,line=9,title="), "{annotations}");
    let quality = render::code_quality(&summary, root).unwrap();
    assert_golden("gitlab.json", str::from_utf8(&quality).unwrap());
    let quality: Value = serde_json::from_slice(&quality).unwrap();
    let mut prints: Vec<_> = quality.as_array().unwrap().iter().map(|finding| &finding["fingerprint"]).collect();
    prints.dedup();
    assert_eq!(prints.len(), 5);
    assert_eq!(quality[0]["location"], json!({"path": "ci/policy.json", "lines": {"begin": 9}}));
    for commands in [render::annotations(&hostile("x\n::error::y\r\n%0A::stop-commands::z,file=b:"), root), annotations]
    {
        assert!(
            commands.lines().all(|line| line.starts_with("::error ") || line.starts_with("::notice ")),
            "{commands}"
        );
    }
}

/// schemas/sarif-2.1.0.json is OASIS's, as the crate serde-sarif 0.8.0 carries it.
#[test]
fn sarif_is_valid_by_its_schema() {
    // A bracket there belongs to nothing.
    let schema = file("schemas/sarif-2.1.0.json").replace("-[a-zA-Z]{2}]?$", "-[a-zA-Z]{2}$");
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let schema = jsonschema::draft7::new(&schema).unwrap();
    let unguarded = log("suite.json", |log| drop(log.as_object_mut().unwrap().remove("enforced")));
    let unguarded = summary_of(&[("log", &unguarded)], &mut |_| Err("nothing".to_owned()));
    for (name, summary) in
        [("sarif.json", summary()), ("", unguarded), ("", hostile("<script>\u{1b}\u{202e} a b%:/\n")), ("", empty())]
    {
        let text = render::sarif(&summary, "1.2.3", Root(None)).unwrap();
        let sarif: Value = serde_json::from_slice(&text).unwrap();
        let errors: Vec<_> =
            schema.iter_errors(&sarif).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:#?}");
        assert_eq!(sarif["runs"][0]["invocations"][0]["executionSuccessful"], summary.is_guarded());
        if !name.is_empty() {
            assert_golden(name, str::from_utf8(&text).unwrap());
        }
    }
}

/// A run in which nothing was denied.
fn empty() -> Summary {
    let log = log("suite.json", |log| {
        log["events"] = json!([]);
        log["flows"] = json!([]);
    });
    summary_of(&[("log", &log)], &mut |path| support::guard(path))
}

#[test]
fn html() {
    assert_golden("report.html", &render::html(&summary()));
    let page = render::html(&summary_of(
        &[("log", &log("suite.json", |log| log["enforced"]["hooks"] = json!([])))],
        &mut |_| Err("it is gone".to_owned()),
    ));
    assert!(page.contains("NOT ENFORCED") && page.contains("role=\"alert\"") && page.contains("it is gone"));
    assert!(render::html(&empty()).contains("Nothing was denied."));
}

/// The names of all elements of a page and of all their attributes, as the parsers of browsers find them.
fn tags(page: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut names, mut attributes, mut rest) = (Vec::new(), Vec::new(), page);
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        if !rest.starts_with(|character: char| character.is_ascii_alphabetic()) {
            continue;
        }
        let (name, after) = rest.split_at(rest.find([' ', '>', '/', '\n']).unwrap());
        names.push(name);
        rest = after;
        while let Some(start) = rest.find(|character: char| !character.is_ascii_whitespace() && character != '/') {
            rest = &rest[start..];
            if rest.starts_with('>') {
                break;
            }
            let (name, after) = rest.split_at(rest.find(['=', ' ', '>']).unwrap());
            attributes.push(name);
            rest = match after.strip_prefix("=\"") {
                Some(value) => value.split_once('"').unwrap().1,
                None => after,
            };
        }
        // What is in these is no markup, up to their end.
        if ["style", "script", "title"].contains(&name) {
            rest = &rest[rest.find(&format!("</{name}>")).unwrap_or(rest.len())..];
        }
    }
    (names, attributes)
}

/// No name of a log is markup, and the page loads nothing.
#[test]
fn a_hostile_log_stays_text() {
    let name = "</title></style></script><script>alert(1)</script><img src=x onerror=alert(1)>\" onload=\"alert(1)&lt;\u{202e}";
    let page = render::html(&hostile(name));
    assert!(!page.contains('\u{202e}') && page.contains("&lt;img src=x onerror"));
    let (names, attributes) = tags(&page);
    assert_eq!(names.iter().filter(|name| **name == "script").count(), 1, "{names:?}");
    assert!(!names.contains(&"img") && attributes.iter().all(|name| !name.starts_with("on")), "{attributes:?}");
    assert!(names.len() > 100 && attributes.contains(&"aria-labelledby"));
    let loads = ["src=", "href=\"http", "url(", "@import", "<link", "<base", "<form", " style="];
    let page = page.replace("src=x", "");
    assert!(loads.iter().all(|load| !page.contains(load)), "{page}");
    assert!(page.contains("default-src 'none'; style-src 'sha256-"));
}

/// However many kinds of denials there are, all are told of, and the first 500 with what would allow them.
#[test]
fn many_kinds_are_told_of_in_short() {
    const KINDS: usize = 510;
    let log = log("suite.json", |log| {
        let event = log["events"][0].clone();
        let events = (0..KINDS).map(|number| {
            let mut event = event.clone();
            event["network"]["port"] = (number + 1000).into();
            event
        });
        log["events"] = events.collect();
    });
    let summary = summary_of(&[("log", &log)], &mut |path| support::guard(path));
    let in_full = |denial: &render::Denial| !denial.why.ways.is_empty() && denial.why.nearest.is_some();
    assert!(summary.denials[..500].iter().all(in_full));
    let rest = &summary.denials[500..];
    assert_eq!(rest.len(), KINDS - 500);
    assert!(rest.iter().all(|denial| denial.line() == Some(5) && denial.why.ways.is_empty()));
    assert!(rest[0].why.to_string().contains("left to `guard-run why`"));
    assert!(
        summary.policies[0].problem.as_ref().is_some_and(|problem| problem.contains("left to `guard-run suggest`"))
    );
}
