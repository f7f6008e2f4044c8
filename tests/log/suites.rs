//! Which test a denial belongs to: real runners, whose tests connect where they may not.

use std::fs;

use serde_json::{Value, json};
use support::{PYTHON, Run};

const POLICY: &str = r#"{"version": 1, "network": {"default": "deny"}}"#;

/// The tests of a run's denials, each with the port that was denied.
fn tests(run: &Run) -> Vec<(u64, Value)> {
    let output = run.output();
    let events = output.log["events"].as_array().cloned().unwrap_or_default();
    let mut tests: Vec<_> = events
        .iter()
        .map(|event| (event["network"]["port"].as_u64().unwrap_or_default(), event["test"].clone()))
        .collect();
    tests.sort_by_key(|(port, _)| *port);
    assert!(!tests.is_empty(), "nothing was denied: {output:?}");
    tests
}

/// What a process does once it was denied something: it stays until it was looked at.
const LINGER: &str = "until [ -s $GUARD_RUN_DENIALS ]; do sleep 0.01; done";

/// A run of a script in a folder with a file.
fn with_file(name: &str, text: &str, script: &str) -> Run {
    let run = Run::shell(POLICY, &format!("cd \"$FOLDER\" && {script}"), &[]);
    let (folder, file) = (run.folder().to_owned(), run.folder().join(name));
    fs::create_dir_all(file.parent().expect("it is in a folder")).unwrap();
    fs::write(file, text).unwrap();
    run.environment("FOLDER", folder)
}

fn path(run: &Run, name: &str) -> String {
    run.folder().join(name).display().to_string()
}

/// Rust's own runner: two tests of one process are denied the very same, and each is told of.
#[test]
fn threads_of_libtest_are_tests() {
    let test = "use std::net::TcpStream;
        fn phone(port: u16) { let _ = TcpStream::connect((\"192.0.2.1\", port)); }
        #[test] fn phones() { phone(7); }
        #[test] fn phones_too() { phone(7); phone(7); }
        #[test] fn has_a_long_name() { phone(8); while !told() { std::thread::yield_now(); } }
        fn told() -> bool { std::fs::read_to_string(env!(\"GUARD_RUN_DENIALS\")).unwrap().lines().count() > 2 }";
    let build = "mkdir deps && rustc --test -o deps/shop-0123456789abcdef shop.rs && env -u CARGO_PKG_NAME deps/shop-0123456789abcdef -q";
    let run = with_file("shop.rs", test, build);
    let of = |name| json!({"suite": "shop", "name": name});
    let mut found = tests(&run);
    found.sort_by_key(|(port, test)| (*port, test.to_string()));
    assert_eq!(found, [(7, of("phones")), (7, of("phones_too")), (8, of("has_a_long_name…"))]);
}

#[test]
fn a_child_of_a_nextest_process_belongs_to_its_test() {
    let environment = [("NEXTEST_TEST_NAME", "buys::things"), ("NEXTEST_BINARY_ID", "shop::it")];
    let run = Run::shell(POLICY, &format!("bash -c ': 3<>/dev/tcp/192.0.2.1/7; {LINGER}'"), &[]);
    let run = environment.into_iter().fold(run, |run, (name, value)| run.environment(name, value));
    assert_eq!(tests(&run), [(7, json!({"suite": "shop::it", "name": "buys::things"}))]);
}

#[test]
fn what_runs_without_its_environment_belongs_to_the_test_of_its_ancestor() {
    let script =
        format!("env -i GUARD_RUN_DENIALS=$GUARD_RUN_DENIALS bash -c ': 3<>/dev/tcp/192.0.2.1/7; {LINGER}'; true");
    let run = Run::shell(POLICY, &script, &[]).environment("GUARD_RUN_TEST", "buys things");
    assert_eq!(tests(&run), [(7, json!({"name": "buys things"}))]);
    let run = Run::shell(POLICY, &script, &[]);
    assert_eq!(tests(&run), [(7, Value::Null)], "nothing is made up");
}

/// A process that runs one test after the other writes its tests into its environment, and a thread's name says which of them asked.
#[test]
fn a_process_announces_its_tests_in_place() {
    let program = r##"
import os, re, socket
name = b"GUARD_RUN_TEST="
start = int(open("/proc/self/stat").read().rpartition(")")[2].split()[47])
block = open("/proc/self/environ", "rb").read()
place = start + re.search(b"(^|\0)" + name, block).end()
size = len(os.environ["GUARD_RUN_TEST"])
def announce(text, thread):
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(place)
        memory.write(text.encode().ljust(size))
    with open("/proc/self/comm", "w") as comm:
        comm.write(thread)
def told(count):
    while open(os.environ["GUARD_RUN_DENIALS"]).read().count("\n") < count:
        pass
for number in 1, 2:
    announce(f'#t {number}\t0\t{{"name": "test {number}"}}\n', f"t {number}")
    socket.socket().connect_ex(("192.0.2.1", 7))
    told(number)
announce("#t 3\t0\t\n", "t 3")
socket.socket().connect_ex(("192.0.2.1", 7))
told(3)
"##;
    let run = Run::python(POLICY, program, &[]).environment("GUARD_RUN_TEST", "#".to_owned() + &" ".repeat(2000));
    let found = tests(&run).into_iter().map(|(_, test)| test["name"].clone());
    assert_eq!(found.collect::<Vec<_>>(), [json!("test 1"), json!("test 2"), Value::Null]);
}

#[test]
fn runners_that_are_installed_leave_their_traces() {
    let connect = format!(": 3<>/dev/tcp/192.0.2.1/7 || {LINGER}");
    let bats = with_file("shop.bats", &format!("@test \"buys things\" {{\n{connect}\n}}\n"), "bats shop.bats || true");
    assert_eq!(
        tests(&bats),
        [(7, json!({"suite": "shop.bats", "name": "buys things", "file": path(&bats, "shop.bats")}))]
    );
    let unittest = "import os, socket, unittest\nclass Shop(unittest.TestCase):\n    def test_buys(self):\n        \
                    socket.socket().connect_ex(('192.0.2.1', 7))\n        \
                    while not open(os.environ['GUARD_RUN_DENIALS']).read(): pass\n";
    let run = with_file("shop.py", unittest, &format!("{PYTHON} -m unittest shop.Shop"));
    assert_eq!(tests(&run), [(7, json!({"suite": "unittest", "name": "shop.Shop"}))]);
    let node = "require('node:test')('buys', async () => {
        await new Promise((done) => require('node:net').connect(7, '192.0.2.1').on('error', done));
        while (!require('node:fs').statSync(process.env.GUARD_RUN_DENIALS).size) {} });";
    let run = with_file("shop.test.js", node, "node --test || true");
    assert_eq!(tests(&run), [(7, json!({"file": path(&run, "shop.test.js")}))]);
    let ctest = "add_test(shop bash shop.sh)\n";
    let run = with_file("CTestTestfile.cmake", ctest, "ctest || true");
    fs::write(run.folder().join("shop.sh"), connect).unwrap();
    let [(7, test)] = &tests(&run)[..] else { panic!("one denial") };
    assert_eq!(test["suite"], "ctest");
}
