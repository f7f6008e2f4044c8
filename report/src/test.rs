//! Tests of a test suite, as far as they are known.
//!
//! What a process says about itself decides nothing: it only tells under which test an event is shown.

use std::{fmt, path::Path};

use policy::strict;
use serde::{Deserialize, Serialize};

/// The variable by which any process says which test it runs: a name, or a [`Test`] as a JSON object. A process that runs one test after
/// the other has a line for each of the latest, the latest first: [`ANNOUNCED`], the name that its threads have meanwhile, a tab, when it
/// began (nanoseconds of `CLOCK_BOOTTIME`), a tab, and the test, or nothing for what is between two tests.
pub const VARIABLE: &str = "GUARD_RUN_TEST";

/// What a line of [`VARIABLE`] begins with that is about one thread's tests.
pub const ANNOUNCED: char = '#';

/// What the value of [`VARIABLE`] begins with while it is being written in place.
pub const UNFINISHED: char = '!';

/// The environment variables that tell of tests. Nobody reads the others.
pub const VARIABLES: [&str; 9] = [
    VARIABLE,
    "NEXTEST_TEST_NAME",
    "NEXTEST_BINARY_ID",
    "PYTEST_CURRENT_TEST",
    "BATS_TEST_DESCRIPTION",
    "BATS_TEST_FILENAME",
    "CARGO_PKG_NAME",
    "NODE_TEST_CONTEXT",
    "npm_package_name",
];

/// How many characters of a suite's, a test's or a file's name are kept.
const KEPT: usize = 512;

/// How many bytes of a thread's name the kernel keeps (`TASK_COMM_LEN`, include/linux/sched.h, but for its NUL).
const COMM: usize = 15;

/// The test during which a process asked for something. What could not be found out is absent.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Test {
    /// The suite as its framework names it: a test binary, a package, a class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// The test's name in its suite. Where it ends with "…", only its beginning is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The file that the test is in, as the framework writes its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { suite, name, file } = self;
        let parts = [suite.as_deref().or(file.as_deref()), name.as_deref()];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

/// What a process shows of itself by which its test may be known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traces<'a> {
    /// The name of the thread that asked; `None` for a process that only has a child that did.
    pub thread: Option<&'a str>,
    /// When it asked: nanoseconds of `CLOCK_BOOTTIME`.
    pub time: u64,
    /// The file that it executes.
    pub exe: Option<&'a str>,
    /// Its command line.
    pub argv: &'a [String],
    /// Those of [`VARIABLES`] that it was started with.
    pub environment: &'a [(String, String)],
    /// The command line of its child that asked, or through whose child was asked.
    pub child: Option<&'a [String]>,
}

impl Test {
    /// The test of a process. `None` where nothing says that it belongs to one.
    #[must_use]
    pub fn of(traces: &Traces<'_>) -> Option<Self> {
        let announced = traces.variable(VARIABLE).map(|value| announced(value, traces.thread, traces.time));
        let test = match announced {
            // Who announces tests has none between them.
            Some(Announced::None) => return None,
            Some(Announced::Test(test)) => Some(test),
            Some(Announced::Nothing) | None => None,
        };
        let test = test
            .or_else(|| nextest(traces))
            .or_else(|| pytest(traces.variable("PYTEST_CURRENT_TEST")?))
            .or_else(|| bats(traces))
            .or_else(|| libtest(traces))
            .or_else(|| go(traces))
            .or_else(|| node(traces))
            .or_else(|| java(traces))
            .or_else(|| unittest(traces))
            .or_else(|| ctest(traces))
            .or_else(|| guarded(traces))?;
        Some(test.bounded())
    }

    /// The test that is a program of its own.
    #[must_use]
    pub fn of_program(path: &str) -> Self {
        Self { suite: None, name: file_name(path).map(Into::into), file: Some(path.to_owned()) }
    }

    fn bounded(self) -> Self {
        let bounded = |text: Option<String>| text.map(|text| cut(&text)).filter(|text| !text.is_empty());
        Self { suite: bounded(self.suite), name: bounded(self.name), file: bounded(self.file) }
    }
}

/// The beginning of a text, with "…" if there was more.
fn cut(text: &str) -> String {
    match text.char_indices().nth(KEPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl<'a> Traces<'a> {
    fn variable(&self, name: &str) -> Option<&'a str> {
        let found = self.environment.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The name of the program: of its file, or else of its first argument.
    fn program(&self) -> Option<&'a str> {
        file_name(self.exe.or_else(|| self.argv.first().map(String::as_str))?)
    }

    /// The value of an option, written in one word or two.
    fn option(&self, name: &str) -> Option<&'a str> {
        let mut arguments = self.argv.iter().skip(1);
        while let Some(argument) = arguments.next() {
            if let Some(value) = argument.strip_prefix(name) {
                return if value.is_empty() { arguments.next().map(String::as_str) } else { value.strip_prefix('=') };
            }
        }
        None
    }
}

fn file_name(path: &str) -> Option<&str> {
    // The kernel's word for a file that was removed since.
    Path::new(path.trim_end_matches(" (deleted)")).file_name()?.to_str()
}

/// What [`VARIABLE`] says.
enum Announced {
    Test(Test),
    /// No test runs.
    None,
    /// Nothing that can be understood.
    Nothing,
}

fn announced(value: &str, thread: Option<&str>, time: u64) -> Announced {
    if value.starts_with(UNFINISHED) {
        return Announced::Nothing;
    }
    if !value.starts_with(ANNOUNCED) {
        return written(value.trim());
    }
    let entry = |line: &'_ str| {
        let mut parts = line.trim_end_matches(' ').strip_prefix(ANNOUNCED)?.splitn(3, '\t');
        Some((parts.next()?.to_owned(), parts.next()?.parse::<u64>().ok()?, parts.next()?.to_owned()))
    };
    let entries: Vec<_> = value.lines().filter_map(entry).collect();
    // A thread that was named during an earlier test belongs to that one.
    let named = entries.iter().find(|(name, ..)| Some(name.as_str()) == thread);
    match named.or_else(|| entries.iter().find(|(_, start, _)| *start <= time)) {
        Some((.., text)) if !text.is_empty() => written(text),
        _ => Announced::None,
    }
}

fn written(text: &str) -> Announced {
    if text.is_empty() {
        return Announced::Nothing;
    }
    if !text.starts_with('{') {
        return Announced::Test(Test { name: Some(text.to_owned()), ..Test::default() });
    }
    strict::from_str(text).map_or(Announced::Nothing, Announced::Test)
}

/// cargo-nextest, by its variables (since 0.9.116). Before, it named the test on the command line only, as [`libtest`] finds it.
fn nextest(traces: &Traces<'_>) -> Option<Test> {
    let name = traces.variable("NEXTEST_TEST_NAME")?;
    Some(Test { suite: traces.variable("NEXTEST_BINARY_ID").map(Into::into), name: Some(name.into()), file: None })
}

/// What pytest has in the environment of what a test starts: `file::Class::name[case] (call)`.
fn pytest(current: &str) -> Option<Test> {
    let node = current.rsplit_once(" (").map_or(current, |(node, _)| node);
    let (file, name) = node.split_once("::")?;
    let (class, name) = match name.split_once('[') {
        // A case may contain anything.
        Some((before, _)) => before.rfind("::").map_or((None, name), |end| (Some(&name[..end]), &name[end + 2..])),
        None => name.rsplit_once("::").map_or((None, name), |(class, name)| (Some(class), name)),
    };
    Some(Test { suite: class.map(Into::into), name: Some(name.into()), file: Some(file.into()) })
}

/// bats, which runs each test in a shell: `bash …/bats-exec-test … FILE FUNCTION …`. It exports none of its variables itself.
fn bats(traces: &Traces<'_>) -> Option<Test> {
    let of = |file: &str, name: String| Test {
        suite: file_name(file).map(Into::into),
        name: Some(name),
        file: Some(file.to_owned()),
    };
    if let (Some(file), Some(name)) = (traces.variable("BATS_TEST_FILENAME"), traces.variable("BATS_TEST_DESCRIPTION"))
    {
        return Some(of(file, name.to_owned()));
    }
    let at = traces.argv.iter().position(|argument| file_name(argument) == Some("bats-exec-test"))?;
    let pair = traces.argv[at..].windows(2).find(|pair| pair[1].starts_with("test_"))?;
    Some(of(&pair[0], described(pair[1].strip_prefix("test_")?)))
}

/// The description of a test, of which bats makes a function's name: `_` for a space, and `-` before two digits for other characters
/// (`bats_encode_test_name`, lib/bats-core/test_functions.bash).
fn described(function: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = function.as_bytes();
    while let [first, others @ ..] = rest {
        let encoded = others.get(..2).and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        let (byte, length) = match (first, encoded) {
            (b'-', Some(byte)) => (byte, 2),
            (b'_', _) => (b' ', 0),
            (other, _) => (*other, 0),
        };
        bytes.push(byte);
        rest = &others[length..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A test binary of Rust's: `…/deps/NAME-HASH`. Each of its tests has a thread of its own, which is named after it.
fn libtest(traces: &Traces<'_>) -> Option<Test> {
    let exe = traces.exe?.trim_end_matches(" (deleted)");
    let (stem, hash) = file_name(exe)?.rsplit_once('-')?;
    let is_hash = hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hash || Path::new(exe).parent()?.file_name()? != "deps" {
        return None;
    }
    let suite = match traces.variable("CARGO_PKG_NAME") {
        Some(package) if package.replace('-', "_") == stem => package.to_owned(),
        Some(package) => format!("{package}::{stem}"),
        None => stem.to_owned(),
    };
    let named = || traces.argv.iter().skip(1).filter(|argument| !argument.starts_with('-'));
    let is_exact = traces.argv.iter().any(|argument| argument == "--exact");
    let name = match (is_exact, named().count()) {
        (true, 1) => named().next().cloned(),
        _ => traces.thread.and_then(|thread| of_thread(thread, file_name(exe)?)),
    };
    Some(Test { suite: Some(suite), name, file: None })
}

/// The test that a thread of a program is named after.
fn of_thread(thread: &str, program: &str) -> Option<String> {
    let program = program.as_bytes();
    let is_main = thread.as_bytes() == &program[..program.len().min(COMM)];
    // The main thread has the program's name, the others have the test's. No name of a test has such characters.
    if is_main || thread.contains(|letter: char| !(letter.is_alphanumeric() || letter == '_' || letter == ':')) {
        return None;
    }
    Some(if thread.len() < COMM { thread.to_owned() } else { format!("{thread}…") })
}

/// A test binary of Go's: `PACKAGE.test`, which `go test` runs with its own options.
fn go(traces: &Traces<'_>) -> Option<Test> {
    let suite = traces.program()?.strip_suffix(".test")?;
    if !traces.argv.iter().skip(1).any(|argument| argument.starts_with("-test.")) {
        return None;
    }
    // One test, as `go test -run '^TestName$'` names it.
    let exact = traces.option("-test.run").and_then(|run| run.strip_prefix('^')?.strip_suffix('$'));
    let is_name = |name: &&str| name.chars().all(|letter| letter.is_alphanumeric() || letter == '_' || letter == '/');
    let name = exact.filter(is_name).map(ToOwned::to_owned);
    Some(Test { suite: Some(suite.to_owned()), name, file: None })
}

/// A file of `node --test`, which runs each in a process.
fn node(traces: &Traces<'_>) -> Option<Test> {
    traces.variable("NODE_TEST_CONTEXT")?;
    let file = traces.argv.iter().skip(1).rfind(|argument| !argument.starts_with('-'))?;
    let suite = traces.variable("npm_package_name").map(ToOwned::to_owned);
    Some(Test { suite, name: None, file: Some(file.clone()) })
}

/// Maven Surefire's virtual machine, which runs one class after the other.
fn java(traces: &Traces<'_>) -> Option<Test> {
    traces.program().filter(|program| *program == "java")?;
    let is_surefire = traces.argv.iter().any(|argument| argument.contains("surefirebooter"));
    is_surefire.then(|| Test { suite: Some("surefire".to_owned()), ..Test::default() })
}

/// `python -m unittest`, where a single test, class or module is named.
fn unittest(traces: &Traces<'_>) -> Option<Test> {
    let at = traces.argv.windows(2).position(|pair| pair[0] == "-m" && pair[1] == "unittest")?;
    let mut named =
        traces.argv[at + 2..].iter().filter(|argument| !argument.starts_with('-') && *argument != "discover");
    let name = match (named.next(), named.next()) {
        (Some(name), None) => Some(name.clone()),
        _ => None,
    };
    Some(Test { suite: Some("unittest".to_owned()), name, file: None })
}

/// What ctest has started: it tells its children nothing, so that their command line is all there is.
fn ctest(traces: &Traces<'_>) -> Option<Test> {
    traces.program().filter(|program| *program == "ctest")?;
    let file = traces.child?.first()?;
    Some(Test { suite: Some("ctest".to_owned()), name: None, file: Some(file.clone()) })
}

/// What `guard-run test -- COMMAND` runs, where nothing else says what it is: the program's name.
fn guarded(traces: &Traces<'_>) -> Option<Test> {
    traces.program().filter(|program| *program == "guard-run")?;
    let [_, subcommand, separator, program, ..] = traces.argv else { return None };
    (subcommand == "test" && separator == "--").then(|| Test::of_program(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test of a process with this thread's name, file, command line and environment: as suite, name and file.
    fn of(thread: &str, exe: &str, argv: &str, environment: &[(&str, &str)]) -> Option<[Option<String>; 3]> {
        let argv: Vec<String> = argv.split_whitespace().map(ToOwned::to_owned).collect();
        let environment: Vec<(String, String)> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let thread = Some(thread).filter(|thread| !thread.is_empty());
        let traces = Traces { thread, time: 50, exe: Some(exe), argv: &argv, environment: &environment, child: None };
        Test::of(&traces).map(|Test { suite, name, file }| [suite, name, file])
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is what the other returns")]
    fn found(suite: &str, name: &str, file: &str) -> Option<[Option<String>; 3]> {
        Some([suite, name, file].map(|text| Some(text.to_owned()).filter(|text| !text.is_empty())))
    }

    #[test]
    fn frameworks_are_known_by_what_they_leave_in_their_processes() {
        const DEPS: &str = "/w/target/debug/deps/my_crate-0123456789abcdef";
        let by_variable = |name, value| of("x", "/bin/x", "x", &[(name, value)]);
        assert_eq!(of("x", "/bin/x", "x", &[]), None);
        let nextest = [("NEXTEST_TEST_NAME", "a::b"), ("NEXTEST_BINARY_ID", "my-crate::it")];
        assert_eq!(of("x", "/bin/curl", "curl", &nextest), found("my-crate::it", "a::b", ""));
        assert_eq!(of("my_crate-012345", DEPS, "x --exact a::b --nocapture", &[]), found("my_crate", "a::b", ""));
        let package = [("CARGO_PKG_NAME", "my-crate")];
        assert_eq!(of("a::b", DEPS, "x", &package), found("my-crate", "a::b", ""));
        assert_eq!(of("tests::phones_h", DEPS, "x", &package), found("my-crate", "tests::phones_h…", ""));
        assert_eq!(of("my_crate-012345", DEPS, "x", &package), found("my-crate", "", ""));
        assert_eq!(of("tokio-runtime-w", DEPS, "x", &package), found("my-crate", "", ""));
        assert_eq!(of("a", DEPS, "x", &[("CARGO_PKG_NAME", "other")]), found("other::my_crate", "a", ""));
        assert_eq!(of("a", "/usr/bin/my_crate-0123456789abcdef", "x", &[]), None, "it is no file of cargo's");
        assert_eq!(
            by_variable("PYTEST_CURRENT_TEST", "t/test_a.py::TestB::test_c[x::y (z)] (call)"),
            found("TestB", "test_c[x::y (z)]", "t/test_a.py")
        );
        assert_eq!(by_variable("PYTEST_CURRENT_TEST", "test_a.py::test_c (setup)"), found("", "test_c", "test_a.py"));
        let bats = "bash /usr/libexec/bats-core/bats-exec-test --dummy-flag /t/a.bats test_a_b-5fc-e2-80-a6 1 1 1";
        assert_eq!(of("bash", "/bin/bash", bats, &[]), found("a.bats", "a b_c…", "/t/a.bats"));
        let bats = [("BATS_TEST_DESCRIPTION", "a b"), ("BATS_TEST_FILENAME", "/t/a.bats")];
        assert_eq!(of("curl", "/bin/curl", "curl", &bats), found("a.bats", "a b", "/t/a.bats"));
        let go = "/tmp/go-build1/b001/shop.test -test.paniconexit0 -test.timeout=10m0s";
        assert_eq!(of("shop.test", "/tmp/go-build1/b001/shop.test", go, &[]), found("shop", "", ""));
        let one = format!("{go} -test.run=^TestBuy$");
        assert_eq!(of("shop.test", "/tmp/go-build1/b001/shop.test", &one, &[]), found("shop", "TestBuy", ""));
        assert_eq!(of("shop.test", "/bin/shop.test", "shop.test", &[]), None);
        let node = [("NODE_TEST_CONTEXT", "child-v8"), ("npm_package_name", "shop")];
        assert_eq!(
            of("node", "/usr/bin/node", "node --enable-source-maps /w/a.test.js", &node),
            found("shop", "", "/w/a.test.js")
        );
        let java = "java -jar /w/target/surefire/surefirebooter1.jar /w/target/surefire";
        assert_eq!(of("main", "/usr/lib/jvm/bin/java", java, &[]), found("surefire", "", ""));
        assert_eq!(
            of("python3", "/bin/python3", "python3 -m unittest test_a.TestB", &[]),
            found("unittest", "test_a.TestB", "")
        );
        assert_eq!(of("python3", "/bin/python3", "python3 -m unittest discover -v", &[]), found("unittest", "", ""));
    }

    #[test]
    fn a_child_of_ctest_is_known_by_its_command_line() {
        let (argv, child) = (["ctest".to_owned()], ["/w/build/t_net".to_owned(), "-v".to_owned()]);
        let ctest = Traces { exe: Some("/usr/bin/ctest"), argv: &argv, ..Traces::default() };
        assert_eq!(Test::of(&ctest), None, "ctest itself is no test");
        let test = Test::of(&Traces { child: Some(&child), ..ctest });
        assert_eq!(test.and_then(|test| test.file).as_deref(), Some("/w/build/t_net"));
    }

    #[test]
    fn what_a_process_says_itself_comes_first() {
        let says =
            |thread: &str, value: &str| of(thread, "/bin/x", "x", &[("NEXTEST_TEST_NAME", "n"), (VARIABLE, value)]);
        assert_eq!(says("x", "buys things"), found("", "buys things", ""));
        assert_eq!(says("x", r#"{"suite":"s","name":"n","file":"f"}   "#), found("s", "n", "f"));
        assert_eq!(says("x", "{not json"), found("", "n", ""), "what can't be understood says nothing");
        assert_eq!(says("x", "!#t 2\t0\t{\"name\":\"b\"}"), found("", "n", ""), "somebody writes it now");
        let block = "#t 2\t60\t{\"name\":\"b\"}\n#t 1\t20\t{\"name\":\"a\"}\n     ";
        assert_eq!(says("t 1", block), found("", "a", ""));
        assert_eq!(says("worker", block), found("", "a", ""), "the other had not begun");
        assert_eq!(says("worker", &block.replace("60", "40")), found("", "b", ""), "the latest");
        assert_eq!(says("t 1", "#t 2\t30\t\n#t 1\t20\t{\"name\":\"a\"}\n"), found("", "a", ""));
        assert_eq!(says("worker", "#t 2\t30\t\n#t 1\t20\t{\"name\":\"a\"}\n"), None, "between two tests");
        assert_eq!(says("worker", "#     "), None, "before the first");
    }

    #[test]
    fn names_of_any_length_are_cut() {
        let long = "ä".repeat(2000);
        let [_, name, _] = of("x", "/bin/x", "x", &[(VARIABLE, &long)]).expect("it says so");
        assert_eq!(name.expect("a name").chars().count(), KEPT + 1);
    }
}
