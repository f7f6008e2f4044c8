//! Which test case is meant. Frameworks name one test in many ways: by its file, its class or module, or its suite, with separators of their own.

use std::borrow::Cow;

use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};
use report::Test;

use super::{DENIED, JunitError};

/// Results of tests.
#[derive(Debug)]
pub(super) struct Document<'a> {
    pub text: &'a str,
    pub cases: Vec<Case>,
    pub is_one_suite: bool,
}

/// A test case.
#[derive(Debug)]
pub(super) struct Case {
    /// The names by which it may be meant, in steps from the outermost to its own.
    names: Vec<Vec<String>>,
    /// The class, name and file as they are written: those of a test that was tried again are the same.
    written: [Option<String>; 3],
    pub state: State,
    /// The suites that it is in, by their numbers in the document.
    pub suites: Vec<usize>,
}

/// How a test case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Passed,
    Failed,
    Skipped,
}

impl<'a> Document<'a> {
    /// The test cases of a document.
    pub fn read(text: &'a str) -> Result<Self, JunitError> {
        let mut reader = Reader::from_str(text);
        let mut cases: Vec<Case> = Vec::new();
        // The suites that are open, with their names, and how many there were.
        let (mut suites, mut count): (Vec<(usize, Option<String>)>, usize) = (Vec::new(), 0);
        let (mut root, mut in_case, mut depth) = (None, false, 0_usize);
        loop {
            let event = reader.read_event();
            let event = event
                .map_err(|error| JunitError::Syntax { position: reader.error_position(), error: error.to_string() })?;
            let is_empty = matches!(event, Event::Empty(_));
            match &event {
                Event::Start(start) | Event::Empty(start) => {
                    let name = start.local_name();
                    let name = name.as_ref();
                    if root.is_none() {
                        if !["testsuites", "testsuite"].contains(&name) {
                            return Err(JunitError::Foreign(name.to_owned()));
                        }
                        root = Some(name == "testsuite");
                    }
                    match name {
                        "testsuite" => {
                            if !is_empty {
                                suites.push((count, attribute(start, "name")));
                            }
                            count += 1;
                        }
                        "testcase" => {
                            cases.push(Case::new(start, &suites));
                            in_case = !is_empty;
                        }
                        "failure" if attribute(start, "type").as_deref() == Some(DENIED) => {
                            return Err(JunitError::HasDenials);
                        }
                        "failure" | "error" if in_case => last(&mut cases, State::Failed),
                        "skipped" if in_case => last(&mut cases, State::Skipped),
                        _ => {}
                    }
                    depth += usize::from(!is_empty);
                }
                Event::End(end) => {
                    match end.local_name().as_ref() {
                        "testsuite" => drop(suites.pop()),
                        "testcase" => in_case = false,
                        _ => {}
                    }
                    depth = depth.saturating_sub(1);
                }
                Event::Eof if depth > 0 => {
                    let error = "it ends in the middle; it was cut, or somebody still writes it".to_owned();
                    return Err(JunitError::Syntax { position: text.len() as u64, error });
                }
                Event::Eof => break,
                _ => {}
            }
        }
        let is_one_suite = root.ok_or(JunitError::Empty)?;
        Ok(Self { text, cases, is_one_suite })
    }
}

/// Notes how the last test case ended.
fn last(cases: &mut [Case], state: State) {
    if let Some(case) = cases.last_mut().filter(|case| case.state == State::Passed) {
        case.state = state;
    }
}

/// The value of an attribute. One that can't be read is none.
fn attribute(start: &BytesStart, name: &str) -> Option<String> {
    let attribute = start.try_get_attribute(name).ok()??;
    attribute.normalized_value(XmlVersion::Implicit1_0).ok().map(Cow::into_owned)
}

impl Case {
    fn new(start: &BytesStart, suites: &[(usize, Option<String>)]) -> Self {
        let [class, name, file] = ["classname", "name", "file"].map(|name| attribute(start, name));
        let own = name.as_deref().unwrap_or_default();
        // Node writes "test" for all tests, and ctest the name again.
        let of_class = class.as_deref().filter(|class| !["test", "", own].contains(class));
        let of_suites: Vec<&str> = suites.iter().filter_map(|(_, name)| name.as_deref()).collect();
        let mut names: Vec<Vec<String>> = [of_class, file.as_deref(), of_suites.last().copied()]
            .into_iter()
            .flatten()
            .map(|context| steps(&[context, own]))
            .collect();
        if of_suites.len() > 1 {
            names.push(steps(&[&of_suites[..], &[own]].concat()));
        }
        if of_class.is_none() && file.is_none() {
            names.push(steps(&[own]));
        }
        let suites = suites.iter().map(|(number, _)| *number).collect();
        Self { names, written: [class, name, file], state: State::Passed, suites }
    }

    /// How well a test's names fit: 2 for all steps, 1 for all that one of both has.
    fn fits(&self, tests: &[Vec<String>]) -> u8 {
        let pairs = tests.iter().flat_map(|test| self.names.iter().map(move |name| (test, name)));
        pairs.map(|(test, name)| fit(test, name)).max().unwrap_or(0)
    }
}

fn fit(test: &[String], name: &[String]) -> u8 {
    let alike = test.iter().rev().zip(name.iter().rev()).enumerate().all(|(place, (one, other))| {
        // A thread's name has room for the beginning of a test's.
        let beginning = one.strip_suffix('…').filter(|_| place == 0);
        one == other || beginning.is_some_and(|beginning| other.starts_with(beginning))
    });
    match (alike, test.len() == name.len()) {
        (true, true) => 2,
        (true, false) => 1,
        (false, _) => 0,
    }
}

/// What files of tests are called at their end.
const ENDINGS: [&str; 9] = ["py", "js", "mjs", "cjs", "ts", "rs", "go", "bats", "java"];

/// Names in steps, without what frameworks write in different ways: separators, and the endings of files.
fn steps(names: &[&str]) -> Vec<String> {
    let mut steps = Vec::new();
    for (place, name) in names.iter().enumerate() {
        let is_last = place + 1 == names.len();
        let name = name.replace("::", ".").replace(" > ", ".").replace(['/', '\\', ':', '#', '$'], ".");
        let all: Vec<&str> = name.split('.').filter(|step| !step.is_empty()).collect();
        let is_kept = |(index, step): &(usize, &&str)| is_last || *index == 0 || !ENDINGS.contains(*step);
        steps.extend(all.iter().enumerate().filter(is_kept).map(|(_, step)| (*step).to_owned()));
    }
    steps
}

/// The document and test case of a test.
///
/// # Errors
///
/// When none is meant, or nobody can say which: why, for people.
pub(super) fn place(documents: &[Document], test: &Test) -> Result<(usize, usize), &'static str> {
    let Some(name) = &test.name else { return Err("the log doesn't say which test of the suite it was") };
    let contexts: Vec<&str> = [&test.suite, &test.file].into_iter().flatten().map(String::as_str).collect();
    let mut names: Vec<Vec<String>> = contexts.iter().map(|context| steps(&[context, name])).collect();
    if let [suite, file] = contexts[..] {
        names.push(steps(&[file, suite, name]));
    }
    if names.is_empty() {
        names.push(steps(&[name]));
    }
    let (mut best, mut found) = (1, Vec::new());
    for (number, document) in documents.iter().enumerate() {
        for (case, known) in document.cases.iter().enumerate() {
            let fits = known.fits(&names);
            if fits > best {
                best = fits;
                found.clear();
            }
            if fits == best {
                found.push((number, case));
            }
        }
    }
    let written = |(document, case): &(usize, usize)| &documents[*document].cases[*case].written;
    match &found[..] {
        [] => Err("no test case has its name"),
        // A test that was tried again: how it ended at last counts.
        [first, ..] if found.iter().all(|other| written(other) == written(first)) => Ok(found[found.len() - 1]),
        _ => Err("several test cases have its name"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(suite: Option<&str>, name: &str, file: Option<&str>) -> Test {
        let owned = |text: Option<&str>| text.map(ToOwned::to_owned);
        Test { suite: owned(suite), name: Some(name.to_owned()), file: owned(file) }
    }

    #[test]
    fn one_test_has_many_names() {
        let xml = r#"<testsuites>
            <testsuite name="pytest"><testcase classname="tests.test_net" name="test_a[http://x.y/1]"/>
              <testcase classname="tests.test_net.TestC" name="test_b"/><testcase classname="tests.test_other" name="test_b"/></testsuite>
            <testsuite name="crate::net"><testcase classname="crate::net" name="mod::fetches_it"/></testsuite>
            <testsuite name="describe"><testcase classname="test" name="phones" file="/w/test/net.test.js"/></testsuite>
            <testsuite name="example.com/m"><testcase classname="example.com/m" name="TestX/sub"/></testsuite>
            <testsuite name="again"><testcase classname="c" name="flaky"/><testcase classname="c" name="flaky"/></testsuite>
            <testsuite name="x"><testcase classname="x" name="twice"/></testsuite>
            <testsuite name="y"><testcase classname="y" name="twice"/></testsuite>
        </testsuites>"#;
        let documents = [Document::read(xml).unwrap()];
        let found = |test: &Test| place(&documents, test).map(|(_, case)| case);
        let table = [
            (test(Some("tests/test_net.py"), "test_a[http://x.y/1]", Some("tests/test_net.py")), Ok(0)),
            (test(Some("tests/test_net.py::TestC"), "test_b", Some("tests/test_net.py")), Ok(1)),
            (test(Some("TestC"), "test_b", Some("tests/test_net.py")), Ok(1)),
            (test(None, "TestC::test_b", Some("tests/test_net.py")), Ok(1)),
            (test(Some("crate::net"), "mod::fetches_it", None), Ok(3)),
            (test(None, "mod::fetches_…", None), Ok(3)),
            (test(None, "phones", Some("test/net.test.js")), Ok(4)),
            (test(Some("example.com/m"), "TestX/sub", None), Ok(5)),
            (test(Some("c"), "flaky", None), Ok(7)),
            (test(Some("y"), "twice", None), Ok(9)),
            (test(None, "twice", None), Err("several test cases have its name")),
            (test(Some("z"), "twice", None), Err("no test case has its name")),
        ];
        for (test, expected) in table {
            assert_eq!(found(&test), expected, "{test:?}");
        }
    }
}
