//! Results of tests, as real frameworks have written them in junit/, with denials in them.

mod support;

use std::{fs, path::Path};

use quick_xml::{Reader, events::Event};
use render::{Summary, junit, junit_with};
use serde_json::{Value, json};
use support::{assert_golden, file, guard, log, summary, summary_of};

/// A log of which each event is during another test of those.
fn during(tests: &[Value]) -> Summary {
    let log = log("suite.json", |log| {
        let event = log["events"][0].clone();
        let all = tests.iter().map(|test| {
            let mut event = event.clone();
            match test {
                Value::Null => drop(event.as_object_mut().unwrap().remove("test")),
                test => event["test"] = test.clone(),
            }
            event["count"] = 1.into();
            event
        });
        log["events"] = all.collect();
    });
    summary_of(&[("log.json", &log)], &mut |path| guard(path))
}

/// What an outline of results has: suites with their counts, cases with what is in them.
fn outline(xml: &str) -> Vec<String> {
    let mut reader = Reader::from_str(xml);
    reader.config_mut().check_end_names = true;
    let mut lines = Vec::new();
    loop {
        match reader.read_event().unwrap_or_else(|error| panic!("{error}: {xml}")) {
            Event::Start(start) | Event::Empty(start) => {
                let name = start.local_name().as_ref().to_owned();
                let shown = start.attributes().map(Result::unwrap).filter_map(|attribute| {
                    let key = attribute.key.as_ref().to_owned();
                    let value = attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).unwrap().into_owned();
                    ["name", "tests", "failures"].contains(&&*key).then(|| format!(" {key}={value}"))
                });
                if !["properties", "property"].contains(&&*name) {
                    lines.push(format!("{name}{}", shown.collect::<String>()));
                }
            }
            Event::Eof => return lines,
            _ => {}
        }
    }
}

/// The framework, tests as an event has them (one that passed, one that failed anyway, one that was skipped if there is one), and
/// what their cases are called.
fn frameworks() -> Vec<(&'static str, Vec<(Value, &'static str)>)> {
    let go = |name: &str| json!({"suite": "example.com/demo/net", "name": name});
    let pytest = |name: &str| json!({"suite": "tests/test_net.py", "name": name, "file": "tests/test_net.py"});
    let java = |name: &str| json!({"suite": "org.example.NetTest", "name": name});
    let node = |name: &str| json!({"name": name, "file": "test/net.test.js"});
    vec![
        (
            "nextest",
            vec![
                (json!({"suite": "demo", "name": "net::phones_home"}), "net::phones_home"),
                (json!({"suite": "demo::net", "name": "fails_anyway"}), "fails_anyway"),
            ],
        ),
        (
            "pytest",
            vec![
                (pytest("test_swallows[b<&\">]"), "test_swallows[b<&\">]"),
                (pytest("TestServer::test_fails_anyway"), "test_fails_anyway"),
                (pytest("test_skipped"), "test_skipped"),
            ],
        ),
        (
            "node",
            vec![
                (node("phones home"), "phones home"),
                (node("fails anyway"), "fails anyway"),
                (node("skipped"), "skipped"),
            ],
        ),
        (
            "surefire",
            vec![
                (java("phonesHome"), "phonesHome"),
                (java("failsAnyway"), "failsAnyway"),
                (java("skipped"), "skipped"),
            ],
        ),
        (
            "ctest",
            vec![(json!({"name": "phones_home"}), "phones_home"), (json!({"name": "fails_anyway"}), "fails_anyway")],
        ),
        (
            "gotestsum",
            vec![
                (go("TestPhonesHome"), "TestPhonesHome"),
                (go("TestFailsAnyway"), "TestFailsAnyway"),
                (go("TestSkipped"), "TestSkipped"),
            ],
        ),
        (
            "go-junit-report",
            vec![
                (go("TestTable/a_case"), "TestTable/a_case"),
                (go("TestFailsAnyway"), "TestFailsAnyway"),
                (go("TestSkipped"), "TestSkipped"),
            ],
        ),
    ]
}

#[test]
fn denials_are_in_the_test_cases_that_caused_them() {
    for (framework, tests) in frameworks() {
        let results = file(&format!("junit/{framework}.xml"));
        let before = outline(&results);
        let mut events: Vec<Value> = tests.iter().map(|(test, _)| test.clone()).collect();
        events.push(Value::Null);
        let summary = during(&events);
        let after = junit_with(&summary, &[&results], false).unwrap();
        assert_golden(&format!("junit-{framework}.xml"), &after);
        let after = outline(&after);
        let at = |lines: &[String], name: &str| {
            let case = |line: &String| *line == format!("testcase name={name}");
            lines.iter().position(case).unwrap_or_else(|| panic!("{framework}: no {name} in {lines:#?}"))
        };
        let (_, passed) = &tests[0];
        assert_eq!(after[at(&after, passed) + 1], "failure", "{framework}");
        // One that failed anyway fails once, and says in its standard error what was denied.
        let (_, failed) = &tests[1];
        let within = |lines: &[String]| {
            let rest = lines[at(lines, failed) + 1..].iter();
            rest.take_while(|line| !line.starts_with("testcase") && !line.starts_with("testsuite"))
                .cloned()
                .collect::<Vec<_>>()
        };
        let (mut was, is) = (within(&before), within(&after));
        if !was.contains(&"system-err".to_owned()) {
            was.push("system-err".to_owned());
        }
        assert_eq!(was, is, "{framework}");
        // What can't be told of a test case that ran is in a suite of its own.
        let own: Vec<_> = after.iter().skip_while(|line| !line.starts_with("testsuite name=guard-run")).collect();
        let expected = 1 + usize::from(tests.len() > 2);
        assert!(own[0].contains(&format!("tests={expected} failures={expected}")), "{framework}: {own:#?}");
        // All suites, and all of them together, have counted right.
        let sum = |lines: &[String]| lines.iter().filter(|line| *line == "failure").count();
        assert_eq!(sum(&after), sum(&before) + 1 + expected, "{framework}");
        let counted = |lines: &[String], element: &str| -> Option<u64> {
            let root = lines.iter().find(|line| line.starts_with(element))?;
            root.split(" failures=").nth(1)?.split(' ').next()?.parse().ok()
        };
        if let Some(count) = counted(&before, "testsuites ") {
            assert_eq!(counted(&after, "testsuites ").unwrap(), count + 1 + expected as u64, "{framework}");
        }
        let suites = |lines: &[String]| {
            let suites = lines.iter().filter(|line| line.starts_with("testsuite "));
            suites
                .filter_map(|line| line.split(" failures=").nth(1)?.split(' ').next()?.parse::<usize>().ok())
                .sum::<usize>()
        };
        let alone = usize::from(framework == "node");
        assert_eq!(suites(&after), suites(&before) + 1 - alone + expected, "{framework}");
    }
}

#[test]
fn results_are_kept() {
    for (framework, tests) in frameworks() {
        let results = file(&format!("junit/{framework}.xml"));
        let mut events: Vec<Value> = tests.iter().map(|(test, _)| test.clone()).collect();
        events.push(json!({"suite": "nobody's", "name": "unknown"}));
        let after = outline(&junit_with(&during(&events), &[&results], true).unwrap());
        let sum = |lines: &[String], what| lines.iter().filter(|line| *line == what).count();
        let before = outline(&results);
        assert_eq!(sum(&after, "failure"), sum(&before, "failure"), "{framework}");
        assert!(sum(&after, "system-err") > sum(&before, "system-err"), "{framework}");
        assert!(after.contains(&"testsuite name=guard-run tests=1 failures=0".to_owned()), "{framework}: {after:#?}");
    }
}

#[test]
fn nothing_is_changed_but_what_is_added() {
    let summary = during(&[]);
    for (framework, _) in frameworks().into_iter().filter(|(framework, _)| !["ctest", "surefire"].contains(framework)) {
        let results = file(&format!("junit/{framework}.xml"));
        assert_eq!(junit_with(&summary, &[&results], false).unwrap(), results, "{framework}");
    }
    let two = junit_with(&summary, &[&file("junit/ctest.xml"), &file("junit/pytest.xml")], false).unwrap();
    let outline = outline(&two);
    assert_eq!(outline[0], "testsuites");
    assert_eq!(outline.iter().filter(|line| line.starts_with("testcase")).count(), 8);
    assert_eq!(two.matches("<?xml").count(), 1);
}

#[test]
fn without_results_the_denials_are_alone() {
    let alone = junit(&summary());
    assert_golden("junit.xml", &alone);
    assert_eq!(outline(&alone)[0], "testsuites tests=4 failures=3");
    // A run without a guard fails, though nothing was denied.
    let unguarded = log("suite.json", |log| {
        log["events"] = json!([]);
        log["enforced"]["hooks"] = json!([]);
    });
    let unguarded = summary_of(&[("log.json", &unguarded)], &mut |_| Err("nothing".to_owned()));
    assert!(junit(&unguarded).contains("NOT ENFORCED"));
    let results = file("junit/pytest.xml");
    assert!(junit_with(&unguarded, &[&results], false).unwrap().contains("NOT ENFORCED"));
}

#[test]
fn what_was_only_audited_fails_nothing() {
    let audited = log("suite.json", |log| {
        for event in log["events"].as_array_mut().unwrap() {
            event["verdict"] = "audited".into();
        }
    });
    let audited = summary_of(&[("log.json", &audited)], &mut |path| guard(path));
    let after = junit_with(&audited, &[&file("junit/pytest.xml")], false).unwrap();
    assert_eq!(outline(&after).iter().filter(|line| *line == "failure").count(), 1);
    assert!(after.contains("would be denied connect tcp"));
}

#[test]
fn what_is_no_result_of_tests_is_refused() {
    let whole = file("junit/pytest.xml");
    let table = [
        ("", "nothing is in it"),
        ("<html><body/></html>", "the outermost element is <html>"),
        ("{\"a\": 1}", "nothing is in it"),
        (&whole[..whole.len() / 2], "it ends in the middle"),
        ("<testsuites><testsuite></testsuites>", "not XML"),
    ];
    for (xml, said) in table {
        let error = junit_with(&summary(), &[xml], false).unwrap_err().1.to_string();
        assert!(error.contains(said), "{xml:.40}: {error}");
    }
    let told = junit_with(&summary(), &[&whole], false).unwrap();
    let error = junit_with(&summary(), &[&told], false).unwrap_err().1.to_string();
    assert_eq!(error, "denials are in it already; give what the tests' framework wrote");
}

/// Results that were cut, wherever that is, are refused and not taken for whole.
#[test]
fn results_that_were_cut_are_refused() {
    let summary = summary();
    for (framework, _) in frameworks() {
        let whole = file(&format!("junit/{framework}.xml"));
        let end = whole.trim_end().len();
        for end in (0..end).step_by(7).filter(|end| whole.is_char_boundary(*end)) {
            assert!(junit_with(&summary, &[&whole[..end]], false).is_err(), "{framework}, cut at {end}");
        }
    }
}

/// Names from logs and results are text in XML, whatever they look like.
#[test]
fn hostile_names_stay_text() {
    let hostile = "a\"/><evil x='\u{1b}[2J\u{ffff}&]]>";
    let log = log("suite.json", |log| {
        log["events"][3]["unix"]["path"] = hostile.into();
        log["events"][3]["process"]["comm"] = hostile.into();
        log["events"][3]["test"] = json!({"suite": hostile, "name": hostile});
    });
    let summary = summary_of(&[("log.json", &log)], &mut |path| guard(path));
    for xml in [junit(&summary), junit_with(&summary, &[&file("junit/pytest.xml")], false).unwrap()] {
        assert!(outline(&xml).iter().all(|line| !line.starts_with("evil")), "{xml}");
        assert!(!xml.contains(['\u{1b}', '\u{ffff}']) && xml.contains("evil"), "{xml}");
    }
}

/// The files are what frameworks write: each says so in its own way.
#[test]
fn all_results_are_tried() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/junit");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let names: Vec<_> = files.iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    let mut tried: Vec<_> = frameworks().into_iter().map(|(name, _)| name.to_owned()).collect();
    tried.sort();
    assert_eq!(names, tried);
}
