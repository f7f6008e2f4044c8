//! Writing JUnit's XML. What is not changed stays as it was written.

use std::collections::HashMap;

use quick_xml::{
    Reader, Writer, XmlVersion,
    events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event, attributes::Attribute},
};
use report::text::lines;

use super::{
    DENIED, Insertion, Own, SUITE,
    find::{Case, Document},
};

type Xml = Writer<Vec<u8>>;

/// A document of guard-run's suite alone.
pub(super) fn alone(own: &[Own]) -> String {
    let mut xml = Writer::new_with_indent(Vec::new(), b' ', 2);
    event(&mut xml, Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
    let mut root = BytesStart::new("testsuites");
    counts(&mut root, own, false);
    event(&mut xml, Event::Start(root));
    suite(&mut xml, own, false);
    event(&mut xml, Event::End(BytesEnd::new("testsuites")));
    text_of(xml) + "\n"
}

/// Documents with what is put into them, and guard-run's suite behind.
pub(super) fn with(documents: &[Document], insertions: &[Vec<Insertion>], own: &[Own], keep: bool) -> String {
    let mut xml = Writer::new(Vec::new());
    // One that has room for more suites stays as it is.
    if let ([document], [insertions]) = (documents, insertions)
        && !document.is_one_suite
    {
        copy(&mut xml, document, insertions, Some((own, keep)), true);
        return text_of(xml);
    }
    event(&mut xml, Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
    break_line(&mut xml);
    event(&mut xml, Event::Start(BytesStart::new("testsuites")));
    for (document, insertions) in documents.iter().zip(insertions) {
        break_line(&mut xml);
        copy(&mut xml, document, insertions, None, false);
    }
    if !own.is_empty() {
        break_line(&mut xml);
        suite(&mut xml, own, keep);
    }
    break_line(&mut xml);
    event(&mut xml, Event::End(BytesEnd::new("testsuites")));
    break_line(&mut xml);
    text_of(xml)
}

/// Writes into memory, which doesn't fail.
fn event(xml: &mut Xml, event: Event) {
    xml.write_event(event).expect("memory can be written");
}

fn text_of(xml: Xml) -> String {
    String::from_utf8(xml.into_inner()).expect("what is written is text")
}

fn break_line(xml: &mut Xml) {
    event(xml, Event::Text(BytesText::new("\n")));
}

fn said(xml: &mut Xml, name: &str, text: &str) {
    event(xml, Event::Start(BytesStart::new(name)));
    event(xml, Event::Text(BytesText::new(&lines(text))));
    event(xml, Event::End(BytesEnd::new(name)));
}

fn failure(xml: &mut Xml, (short, long): &(String, String)) {
    let attributes = [("message", lines(short)), ("type", DENIED.to_owned())];
    let attributes = attributes.iter().map(|(name, value)| (*name, value.as_str()));
    event(xml, Event::Start(BytesStart::new("failure").with_attributes(attributes)));
    event(xml, Event::Text(BytesText::new(&lines(long))));
    event(xml, Event::End(BytesEnd::new("failure")));
}

/// Writes how many test cases of guard-run's there are.
fn counts(start: &mut BytesStart, own: &[Own], keep: bool) {
    let failures = if keep { 0 } else { own.iter().filter(|own| own.failure.is_some()).count() };
    for (name, count) in [("tests", own.len()), ("failures", failures), ("errors", 0), ("skipped", 0)] {
        start.push_attribute((name, count.to_string().as_str()));
    }
}

/// Writes guard-run's suite.
fn suite(xml: &mut Xml, own: &[Own], keep: bool) {
    let mut start = BytesStart::new("testsuite");
    start.push_attribute(("name", SUITE));
    counts(&mut start, own, keep);
    event(xml, Event::Start(start));
    for Own { class, name, failure: why } in own {
        let attributes = [("classname", lines(class)), ("name", lines(&name.replace('\n', " ")))];
        let attributes = attributes.iter().map(|(name, value)| (*name, value.as_str()));
        let case = BytesStart::new("testcase").with_attributes(attributes);
        match why {
            None => event(xml, Event::Empty(case)),
            Some(why) => {
                event(xml, Event::Start(case));
                if keep {
                    said(xml, "system-err", &format!("{}\n{}", why.0, why.1));
                } else {
                    failure(xml, why);
                }
                event(xml, Event::End(BytesEnd::new("testcase")));
            }
        }
    }
    event(xml, Event::End(BytesEnd::new("testsuite")));
}

/// How many test cases fail by denials, by the suites that these are in.
fn failures(cases: &[Case], insertions: &[Insertion]) -> HashMap<usize, u64> {
    let mut failures = HashMap::new();
    for (case, _) in cases.iter().zip(insertions).filter(|(_, insertion)| insertion.failure.is_some()) {
        for suite in &case.suites {
            *failures.entry(*suite).or_default() += 1;
        }
    }
    failures
}

/// Copies a document with what is put into it, and at its end guard-run's suite.
fn copy(xml: &mut Xml, document: &Document, insertions: &[Insertion], own: Option<(&[Own], bool)>, is_whole: bool) {
    let by_suite = failures(&document.cases, insertions);
    let all = insertions.iter().filter(|insertion| insertion.failure.is_some()).count() as u64;
    let own = own.filter(|(own, _)| !own.is_empty());
    let mut reader = Reader::from_str(document.text);
    let (mut suites, mut cases) = (0, 0);
    // What has to be said in the test case that is open, while nobody has.
    let mut open: Option<&str> = None;
    // The document was read once already.
    while let Ok(next) = reader.read_event() {
        match next {
            Event::Eof => break,
            Event::Decl(_) | Event::DocType(_) if !is_whole => {}
            Event::Start(start) | Event::Empty(start) if start.local_name().as_ref() == "testcase" => {
                let insertion = &insertions[cases];
                cases += 1;
                let is_empty = document.text[..position(&reader)].ends_with("/>");
                if is_empty && insertion.failure.is_none() && insertion.said.is_none() {
                    event(xml, Event::Empty(start));
                    continue;
                }
                event(xml, Event::Start(start.borrow()));
                if let Some(why) = &insertion.failure {
                    failure(xml, why);
                }
                open = insertion.said.as_deref();
                if is_empty {
                    if let Some(text) = open.take() {
                        said(xml, "system-err", text);
                    }
                    event(xml, Event::End(start.to_end()));
                }
            }
            Event::Start(start) => {
                let start = counted(start, &mut suites, (&by_suite, all), own);
                event(xml, Event::Start(start));
            }
            Event::Empty(start) => match open.take_if(|_| start.local_name().as_ref() == "system-err") {
                Some(text) => said(xml, "system-err", text),
                None if start.local_name().as_ref() == "testsuites" => {
                    let name = start.to_end().into_owned();
                    event(xml, Event::Start(counted(start, &mut suites, (&by_suite, all), own)));
                    if let Some((own, keep)) = own {
                        suite(xml, own, keep);
                    }
                    event(xml, Event::End(name));
                }
                None => event(xml, Event::Empty(counted(start, &mut suites, (&by_suite, all), own))),
            },
            Event::End(end) => {
                match end.local_name().as_ref() {
                    "system-err" => {
                        if let Some(text) = open.take() {
                            event(xml, Event::Text(BytesText::new(&lines(&format!("\n{text}")))));
                        }
                    }
                    "testcase" => {
                        if let Some(text) = open.take() {
                            said(xml, "system-err", text);
                        }
                    }
                    "testsuites" => {
                        if let Some((own, keep)) = own {
                            suite(xml, own, keep);
                            break_line(xml);
                        }
                    }
                    _ => {}
                }
                event(xml, Event::End(end));
            }
            other => event(xml, other),
        }
    }
}

fn position(reader: &Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

/// The beginning of a suite or of all suites, with what fails by denials counted.
fn counted<'a>(
    start: BytesStart<'a>,
    suites: &mut usize,
    (by_suite, all): (&HashMap<usize, u64>, u64),
    own: Option<(&[Own], bool)>,
) -> BytesStart<'a> {
    let (failures, tests) = match start.local_name().as_ref() {
        "testsuite" => {
            *suites += 1;
            (by_suite.get(&(*suites - 1)).copied().unwrap_or(0), 0)
        }
        "testsuites" => {
            let (own, keep) = own.unwrap_or_default();
            let failed = if keep { 0 } else { own.iter().filter(|own| own.failure.is_some()).count() };
            (all + failed as u64, own.len() as u64)
        }
        _ => (0, 0),
    };
    if failures == 0 && tests == 0 {
        return start;
    }
    let mut changed = BytesStart::new(start.name().as_ref().to_owned());
    for attribute in start.attributes().flatten() {
        let more = match attribute.key.as_ref() {
            "failures" => failures,
            "tests" => tests,
            _ => 0,
        };
        let value =
            attribute.normalized_value(XmlVersion::Implicit1_0).ok().and_then(|value| value.parse::<u64>().ok());
        match value {
            Some(value) if more > 0 => {
                let sum = value.saturating_add(more).to_string();
                changed.push_attribute((attribute.key.as_ref(), sum.as_str()));
            }
            // As it is written, whatever that is.
            _ => changed.push_attribute(Attribute { key: attribute.key, value: attribute.value }),
        }
    }
    changed
}
