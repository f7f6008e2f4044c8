//! Test suites of several runners, each with a test that phones home, one that swallows the error, one that serves itself, and one that
//! uses a Unix socket: tests/suites. The first two are denied what they want, and events name them; the others don't notice the guard.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};
use support::{Output, PYTHON, Run, guard_run};

/// Compilers take their time on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// Variables of what runs these tests. The suites are to be run as if by somebody else.
const WITHOUT: [&str; 4] = ["CARGO_PKG_NAME", "CARGO_TARGET_DIR", "NEXTEST_TEST_NAME", "NEXTEST_BINARY_ID"];

/// The folder of the repository.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Where programs are looked for: in these folders first, then where guard-run was built.
fn path(first: &[&Path]) -> OsString {
    let (own, tools) = (guard_run().parent().unwrap().to_owned(), repository().join("target/tools/bin"));
    let first = first.iter().map(|folder| (*folder).to_owned()).chain([own, tools]);
    env::join_paths(first.chain(env::split_paths(&env::var_os("PATH").unwrap()))).unwrap()
}

/// A run of a script in a copy of tests/suites, below its folder of this name, under the policy for tests.
fn suite(name: &str, script: &str) -> Run {
    let policy = fs::read_to_string(repository().join("examples/tests.json")).unwrap();
    let run = Run::shell(policy, &format!("cd \"$SUITES/{name}\" && {script}"), &[]).flags(["--fail-on-deny"]);
    succeeds(Command::new("cp").arg("-r").arg(repository().join("tests/suites")).arg(run.folder()));
    let suites = run.folder().join("suites");
    let path = path(&[]);
    let without = WITHOUT.map(|name| ["-u", name]).concat();
    run.environment("SUITES", suites).environment("PATH", path).through([&["env"], &without[..]].concat()).limit(LIMIT)
}

/// The tests that were denied something: by the port that they asked for.
fn denied(output: &Output) -> Vec<(u64, Value)> {
    let events = output.events().iter();
    let mut denied: Vec<_> =
        events.map(|event| (event["network"]["port"].as_u64().unwrap(), event["test"].clone())).collect();
    denied.sort_by_key(|(port, _)| *port);
    denied
}

/// Runs a suite to its end, which is not a success, and in which these lines are printed. Returns the tests that were denied what the first
/// two want.
fn tests(run: &Run, lines: &[&str]) -> [Value; 2] {
    let output = run.output();
    assert!(!matches!(output.code(), Some(0 | 125..)), "{output:?}");
    let printed = format!("{}{}", output.stdout, output.stderr);
    for line in lines {
        assert!(printed.contains(line), "{line:?} is missing in\n{printed}");
    }
    match <[_; 2]>::try_from(denied(&output)) {
        Ok([(81, phones), (82, swallows)]) => [phones, swallows],
        other => panic!("{other:?}\n{printed}"),
    }
}

#[test]
fn cargo_tests() {
    let run = suite("cargo", "cargo test --offline 2>&1");
    let lines = ["tests::phones_home ... FAILED", "tests::serves_itself ... ok", "tests::uses_a_unix_socket ... ok"];
    let [phones, swallows] = tests(&run, &lines);
    assert_eq!(phones, json!({"suite": "shop", "name": "tests::phones_h…"}));
    assert_eq!(swallows, json!({"suite": "shop", "name": "tests::swallows…"}));
}

#[test]
fn nextest_by_its_wrapper_fails_both() {
    let script = "cargo nextest run --offline --no-fail-fast --profile guard --config-file \"$PROFILE\" 2>&1";
    let run = suite("cargo", script).environment("PROFILE", repository().join("integrations/nextest/nextest.toml"));
    let lines = ["4 tests run: 2 passed, 2 failed", "this test was denied what it asked for"];
    let of = |name: &str| json!({"suite": "shop", "name": format!("tests::{name}")});
    assert_eq!(tests(&run, &lines), [of("phones_home"), of("swallows_the_error")]);
    // The script does the same without a profile.
    let guarded = repository().join("integrations/nextest/guarded");
    let folder = run.folder().join("suites/cargo");
    let mut command = Command::new(guarded);
    command.arg(repository().join("examples/tests.json")).args(["--offline", "--no-fail-fast"]).current_dir(folder);
    let output = command.env("PATH", path(&[])).env_remove("CARGO_PKG_NAME").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("4 tests run: 2 passed, 2 failed"), "{text}");
}

#[test]
fn make_check_by_guard_run_test_fails_both() {
    let run = suite("make", "make -k check CHECK='guard-run test --' 2>&1");
    let of = |name| json!({"name": name, "file": format!("./{name}")});
    let expected = [of("phones"), of("swallows")];
    assert_eq!(tests(&run, &["FAIL phones", "FAIL swallows", "PASS serves", "PASS unix"]), expected);
    let alone = suite("make", "make -k check 2>&1");
    let output = alone.output();
    assert!(output.stdout.contains("PASS swallows"), "without it, the test is green: {output:?}");
}

#[test]
fn ctest_by_guard_run_test_fails_both() {
    let run = suite("ctest", "cmake -S . -B build >/dev/null && ctest --test-dir build 2>&1");
    let lines = ["phones (Failed)", "swallows (Failed)", "50% tests passed, 2 tests failed out of 4"];
    assert_eq!(tests(&run, &lines), [json!({"name": "phones"}), json!({"name": "swallows"})]);
}

#[test]
fn go_tests() {
    let cache = tempfile::tempdir().unwrap();
    let run = suite("go", "go test ./... 2>&1").environment("GOCACHE", cache.path()).environment("GOFLAGS", "-mod=mod");
    let package = json!({"suite": "shop"});
    assert_eq!(tests(&run, &["--- FAIL: TestPhonesHome", "FAIL"]), [package.clone(), package]);
}

#[test]
fn npm_tests() {
    let run = suite("npm", "npm test 2>&1");
    let file = json!({"suite": "shop", "file": run.folder().join("suites/npm/shop.test.js")});
    let lines = ["not ok 1 - phones home", "ok 3 - serves itself", "ok 4 - uses a Unix socket"];
    assert_eq!(tests(&run, &lines), [file.clone(), file]);
}

#[test]
fn maven_tests() {
    let repository = tempfile::tempdir().unwrap();
    let run = suite("mvn", "mvn -q -B -s debian.xml -Dmaven.repo.local=\"$REPOSITORY\" test 2>&1");
    let run = run.environment("REPOSITORY", repository.path());
    let lines = ["ShopTest.phonesHome:", "Tests run: 4, Failures: 0, Errors: 1, Skipped: 0"];
    let suite = json!({"suite": "surefire"});
    assert_eq!(tests(&run, &lines), [suite.clone(), suite]);
}

/// A virtual environment with pytest, xdist, tox and the plugin, which is installed from its wheel.
fn environment(folder: &Path) -> PathBuf {
    let wheels = repository().join("target/tools/wheels");
    assert!(wheels.exists(), "{} is missing: run tools/setup.sh test", wheels.display());
    let (source, own, place) = (folder.join("source"), folder.join("wheels"), folder.join("venv"));
    succeeds(Command::new("cp").arg("-r").arg(repository().join("integrations/pytest")).arg(&source));
    let pip = |python: &Path| {
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]);
        pip
    };
    let flags = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir"];
    succeeds(pip(Path::new(PYTHON)).args(flags).arg(&own).arg(&source));
    succeeds(Command::new(PYTHON).args(["-m", "venv"]).arg(&place));
    let install = ["install", "--no-index", "--find-links"];
    let packages = ["pytest-guard-run", "pytest", "pytest-xdist", "tox"];
    succeeds(pip(&place.join("bin/python")).args(install).arg(&own).arg("--find-links").arg(&wheels).args(packages));
    place.join("bin")
}

/// How many tests of tests/suites/pytest fail, and how many don't. One fails when it is torn down: an error, as pytest has it.
const COUNTS: &str = "10 failed, 6 passed, 1 error";

#[test]
fn pytest_with_its_plugin_fails_what_is_denied_and_only_that() {
    let folder = tempfile::tempdir().unwrap();
    let programs = environment(folder.path());
    let suites = folder.path().join("suites");
    succeeds(Command::new("cp").arg("-r").arg(repository().join("tests/suites")).arg(&suites));
    let pytest = |suite: &str, arguments: &[&str], program: Option<PathBuf>| {
        let mut command = Command::new(programs.join("pytest"));
        command.args(["-p", "no:cacheprovider", "-rA", "--color=no", "--guard-policy"]);
        command.arg(repository().join("examples/tests.json"));
        command.arg(format!("--guard-log={}", folder.path().join("log.json").display()));
        command.args(arguments).current_dir(suites.join(suite));
        command
            .env("GUARD_RUN", program.unwrap_or_default())
            .env_remove("GUARD_RUN_DENIALS")
            .env_remove("GUARD_RUN_TEST");
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    for workers in [&[][..], &["-n", "2"]] {
        let (code, text) = pytest("pytest", workers, Some(guard_run()));
        assert!(code == Some(1) && text.contains(COUNTS), "{text}");
        for line in [
            "FAILED test_shop.py::test_phones_home",
            "FAILED test_shop.py::test_swallows_the_error",
            "FAILED test_shop.py::test_swallows_the_same",
            "PASSED test_shop.py::test_serves_itself",
            "PASSED test_shop.py::test_unix_socket",
            "FAILED test_shop.py::test_subprocess",
            "FAILED test_shop.py::test_thread",
            "FAILED test_shop.py::test_asyncio",
            "PASSED test_shop.py::test_stays_at_home",
            "FAILED test_shop.py::test_does_not_call",
            "PASSED test_shop.py::test_may_call",
            "FAILED test_shop.py::test_case[a::b]",
            "FAILED test_shop.py::TestShop::test_calls",
            "ERROR test_shop.py::test_teardown",
            "PASSED test_shop.py::test_quiet",
            "guard-run: connect tcp 192.0.2.1:80: denied by default",
            "   patch     [{\"op\": \"add\", \"path\": \"/network/rules/-\"",
        ] {
            assert!(text.contains(line), "{line:?} is missing in\n{text}");
        }
        let log: Value = serde_json::from_slice(&fs::read(folder.path().join("log.json")).unwrap()).unwrap();
        let of =
            |name: &str| log["events"].as_array().unwrap().iter().filter(|event| event["test"]["name"] == name).count();
        assert_eq!((of("test_swallows_the_error"), of("test_subprocess"), of("test_quiet")), (1, 1, 0), "{log:#}");
    }
    // A wrong mark fails its own test, and a subprocess that is gone at once does not pass for nobody's.
    for workers in [&[][..], &["-n", "2"]] {
        let (code, text) = pytest("pytest_edges", workers, Some(guard_run()));
        assert!(code == Some(1) && text.contains("4 errors"), "{text}");
        assert!(text.contains("::test_wrong_mark") && text.contains("::test_setup_calls"), "{text}");
    }
    // Denials are warnings; what was to be denied, and wasn't, is an error all the same.
    let (code, text) = pytest("pytest", &["--guard-report"], Some(guard_run()));
    assert!(code == Some(1) && text.contains("2 failed, 14 passed, 10 warnings"), "{text}");
    let (code, text) = pytest("pytest", &["--guard-report", "-k", "swallows"], Some(guard_run()));
    assert!(code == Some(0) && text.contains("GuardWarning: test_shop.py::test_swallows_the_error"), "{text}");
    let (code, text) = pytest("pytest", &[], Some("/nonexistent/guard-run".into()));
    assert!(code == Some(4) && text.contains("/nonexistent/guard-run: [Errno 2]"), "{text}");
    // tox has it in the guard that it was started in, by somebody else.
    let run = suite("tox", "tox run -q 2>&1");
    let path = path(&[&programs]);
    let output = run.environment("PATH", path).output();
    assert!(output.code() == Some(1) && output.stdout.contains(COUNTS), "{output:?}");
}
