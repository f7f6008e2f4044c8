//! A guard that allows everything changes nothing: CPython's own tests of its network modules come out as without it,
//! with every hook loaded. Debian has them in the package libpython3.N-testsuite.
//!
//! Each side runs in a network namespace of its own, since tests use fixed abstract names and find ports that are free
//! for the moment; so both sides can run at the same time, and nothing reaches the Internet.

use std::{collections::BTreeMap, ffi::OsString, time::Duration};

use serde_json::Value;
use support::{
    Output, Run, Yard,
    bpf::{HOOKS, every_section_alone},
};

/// The tests, and the program that runs them.
const PROGRAM: &str = include_str!("../probes/cpython.py");
/// A module takes a minute at the most on an idle machine.
const LIMIT: Duration = Duration::from_secs(600);
/// How often tests are repeated that came out differently: some need a machine that isn't busy.
const REPEATS: usize = 3;

/// Makes the loopback interface of a new network namespace usable.
const LOOPBACK: &str = "ip link set lo up && exec \"$@\"";

/// What tests came to, by their names.
type Outcomes = BTreeMap<String, String>;

fn outcomes(output: &Output) -> Outcomes {
    let lines = output.stdout.lines().filter_map(|line| line.strip_prefix("RESULT ")?.rsplit_once(' '));
    lines.map(|(test, outcome)| (test.to_owned(), outcome.to_owned())).collect()
}

/// The tests that came out differently, with what they came to.
fn differences(bare: &Outcomes, guarded: &Outcomes) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for test in bare.keys().chain(guarded.keys()) {
        let come_to = |outcomes: &Outcomes| outcomes.get(test).map_or("never ended", String::as_str).to_owned();
        let (bare, guarded) = (come_to(bare), come_to(guarded));
        if bare != guarded {
            found.insert(test.clone(), format!("{bare} bare, {guarded} guarded"));
        }
    }
    found
}

/// What to tell the program to run a test. A class or module that can't be set up is named `setUpClass (test.module.Class)`.
fn argument(test: &str) -> &str {
    test.rsplit_once('(').map_or(test, |(_, place)| place.trim_end_matches(')'))
}

/// Runs tests on both sides at the same time.
fn both(arguments: &[&str]) -> [Output; 2] {
    let yard = Yard::new();
    let mut wrapper = yard.wrapper();
    wrapper.extend(["unshare", "--net", "sh", "-c", LOOPBACK, "sh"].map(OsString::from));
    let run = || Run::python(every_section_alone(), PROGRAM, arguments).through(&wrapper).limit(LIMIT);
    let [bare, guarded] = [run(), run()];
    let (bare, guarded) = (bare.start_bare(), guarded.start());
    let outputs = [bare.wait(), guarded.wait()];
    assert!(yard.leaves().is_empty(), "left behind: {:?}", yard.leaves());
    outputs
}

/// Runs the tests of a module of CPython's, of which at least so many succeed.
fn compare(module: &str, without: &[&str], at_least: usize) {
    let words = [&[module, "--without"], without].concat();
    let [bare, guarded] = both(&words);
    assert_everything_is_enforced(&guarded);

    let (control, result) = (outcomes(&bare), outcomes(&guarded));
    let succeeded = control.values().filter(|outcome| *outcome == "ok").count();
    assert!(succeeded >= at_least, "only {succeeded} tests of {module} succeed without the guard: {}", bare.stderr);

    let mut differing = differences(&control, &result);
    for _ in 0..REPEATS {
        if differing.is_empty() {
            break;
        }
        let mut arguments: Vec<&str> = differing.keys().map(|test| argument(test)).collect();
        arguments.dedup();
        let [bare, guarded] = both(&arguments).map(|output| outcomes(&output));
        let still = differences(&bare, &guarded);
        differing = differing.into_keys().filter_map(|test| Some((test.clone(), still.get(&test)?.clone()))).collect();
    }
    assert!(differing.is_empty(), "{module}: {differing:#?}\n{}", guarded.stderr);
}

/// Every hook was there, none denied anything, and the tests did go through them.
fn assert_everything_is_enforced(guarded: &Output) {
    let enforced = &guarded.log["enforced"];
    let mut hooks: Vec<&str> =
        enforced["hooks"].as_array().unwrap().iter().filter_map(|hook| hook["hook"].as_str()).collect();
    let mut expected = HOOKS.map(|(name, _)| name);
    hooks.sort_unstable();
    expected.sort_unstable();
    assert_eq!(hooks, expected);
    assert_eq!(enforced["unrestricted"], Value::Array(Vec::new()));
    assert_eq!((guarded.denied(), guarded.events()), (0, &[][..]), "{:#}", guarded.log);
    assert!(guarded.hook("connect4")["allowed"].as_u64() > Some(0), "{:#}", guarded.log);
}

#[test]
fn test_socket_comes_out_as_without_the_guard() {
    // Where a hypervisor offers vsock but nothing answers, the tests of it can wait forever. UDP-Lite is refused, whatever rules name it.
    compare("test.test_socket", &["VSOCK", "UDPLITE"], 400);
}

#[test]
fn test_asyncio_comes_out_as_without_the_guard() {
    compare("test.test_asyncio", &[], 1500);
}

#[test]
fn test_ssl_comes_out_as_without_the_guard() {
    compare("test.test_ssl", &[], 100);
}
