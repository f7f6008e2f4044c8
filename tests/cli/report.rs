//! `guard-run report`, and the script of CI that calls it, as a runner of GitHub or GitLab does.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, lchown, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};
use support::{PYTHON, Run, guard_run};

/// A program that is denied a peer, and swallows the error.
const SWALLOWS: &str =
    "import socket\ntry:\n    socket.create_connection(('127.0.0.1', 9), 1)\nexcept OSError:\n    pass\n";

fn policy() -> Value {
    json!({"version": 1, "network": {"default": "deny", "reason": "tests stay here"}})
}

/// A run that was denied something, with its log.
fn denied() -> Run {
    let run = Run::python(policy(), SWALLOWS, &[]).flags(["--flows"]);
    assert_eq!(run.output().success().log["events"][0]["network"]["port"], 9);
    run
}

fn report(run: &Run, arguments: &[&str]) -> Output {
    let mut command = Command::new(guard_run());
    command.arg("report").arg(run.log()).args(arguments).current_dir(run.folder());
    for name in ["GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE", "CI_PROJECT_DIR"] {
        command.env_remove(name);
    }
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_run_is_told_of_in_every_format() {
    let run = denied();
    let begins = [
        ("text", "1 request denied in 1 run\n"),
        ("markdown", "## guard-run: 1 request denied in 1 run\n"),
        ("html", "<!DOCTYPE html>"),
        ("junit", "<?xml"),
        ("sarif", "{"),
        ("json", "{"),
    ];
    for (format, begin) in begins {
        let text = stdout(&report(&run, &["-f", format]));
        assert!(text.starts_with(begin) && text.contains("127.0.0.1") && text.ends_with('\n'), "{format}: {text}");
        assert!(text.contains("tests stay here"), "{format}: {text}");
        // A file that is there is replaced.
        let file = run.folder().join("report");
        fs::write(&file, "x".repeat(1 << 20)).unwrap();
        assert_eq!(stdout(&report(&run, &["-f", format, "-o", "report"])), "", "{format}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text, "{format}");
    }
    let json: Value = serde_json::from_str(&stdout(&report(&run, &["-f", "json"]))).unwrap();
    assert_eq!((&json["runs"][0]["guarding"], &json["policies"][0]["changed"]), (&json!("enforced"), &json!(false)));
    assert_eq!(json["policies"][0]["suggestion"]["denials"][0]["what"], "connect tcp 127.0.0.1:9");
}

#[test]
fn a_policy_that_is_gone_takes_the_changes_along_and_nothing_else() {
    let run = denied();
    fs::remove_file(run.policy()).unwrap();
    let text = stdout(&report(&run, &[]));
    assert!(text.contains("connect tcp 127.0.0.1:9: denied by default") && text.contains("No such file"), "{text}");
    // One that was named has to be there.
    let output = report(&run, &["--policy", "./gone.json"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(125), 1), "{said}");
}

#[test]
fn what_can_not_be_reported_is_said() {
    let run = denied();
    fs::write(run.folder().join("results.xml"), "<html></html>").unwrap();
    let table: [(&[&str], &str); 6] = [
        (&["absent.json"], "absent.json: No such file"),
        (&["--github"], "GITHUB_STEP_SUMMARY is not set"),
        (&["--junit", "results.xml"], "results.xml: the outermost element is <html>"),
        (&["--junit", "results.xml", "-f", "html"], "--junit goes with -f junit alone"),
        (&["-o", "absent/report"], "absent/report: No such file"),
        (&["policy.json"], "policy.json: "),
    ];
    for (arguments, expected) in table {
        let output = report(&run, arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(125), 1), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

/// Root's report must replace no file of root's that another user has put a link to.
#[test]
fn a_report_follows_no_link_of_others_and_goes_where_it_is_to_go() {
    let run = denied();
    let at = |name: &str| run.folder().join(name);
    fs::write(at("treasure"), "treasure").unwrap();
    symlink("treasure", at("report.txt")).unwrap();
    let said = report(&run, &["-o", "report.txt"]);
    assert!(said.status.success() && fs::read_to_string(at("treasure")).unwrap().contains("127.0.0.1"), "{said:?}");
    fs::write(at("treasure"), "treasure").unwrap();
    lchown(at("report.txt"), Some(4242), None).unwrap();
    let output = report(&run, &["-o", "report.txt"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(125) && said.contains("belongs to user 4242 and is not followed"), "{said}");
    assert_eq!(fs::read_to_string(at("treasure")).unwrap(), "treasure");
    // A new file can be read by whom the mask lets; a file that is there keeps its mode; and what is no file is taken as it is.
    fs::write(at("private.txt"), "x".repeat(10_000)).unwrap();
    fs::set_permissions(at("private.txt"), Permissions::from_mode(0o600)).unwrap();
    let expected = stdout(&report(&run, &[]));
    for (name, mode) in [("new.txt", 0o644), ("private.txt", 0o600)] {
        let _ = stdout(&report(&run, &["-o", name]));
        assert_eq!(fs::read_to_string(at(name)).unwrap(), expected, "{name}");
        assert_eq!(fs::metadata(at(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
    }
    for stream in ["/dev/stdout", "/proc/self/fd/1"] {
        assert_eq!(stdout(&report(&run, &["-o", stream])), expected, "{stream}");
    }
    let _ = stdout(&report(&run, &["-o", "/dev/null"]));
}

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A runner with a project, in which a suite has written its results.
struct Runner {
    run: Run,
    environment: BTreeMap<String, String>,
}

impl Runner {
    fn new(environment: &[(&str, &str)]) -> Self {
        let run = Run::new(policy(), ["true"]);
        fs::write(run.folder().join("suite.py"), SWALLOWS).unwrap();
        let results = "<testsuites><testsuite name=\"s\" tests=\"1\" failures=\"0\"><testcase name=\"t\"/></testsuite></testsuites>";
        fs::write(run.folder().join("results-1.xml"), results).unwrap();
        let folder = run.folder().to_str().unwrap();
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), value.replace("FOLDER", folder))).collect();
        Self { run, environment }
    }

    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.insert(name.to_owned(), value.into());
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.run.folder().join(name)
    }

    /// Runs a step as runners do: a script for bash, with little in its environment.
    fn step(&self, script: &str) -> Output {
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", script]).current_dir(self.run.folder());
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", "/root").envs(&self.environment);
        command.output().unwrap()
    }
}

/// The steps of action.yml, by their names.
fn steps() -> Vec<(String, String)> {
    let text = fs::read_to_string(checkout().join("action.yml")).unwrap();
    let (mut steps, mut name) = (Vec::new(), String::new());
    for line in text.lines() {
        if let Some(step) = line.strip_prefix("    - name: ") {
            step.clone_into(&mut name);
        } else if let Some(script) = line.strip_prefix("      run: ") {
            steps.push((name.clone(), script.trim_matches('\'').to_owned()));
        }
    }
    assert_eq!(steps.len(), 4, "{steps:?}");
    steps
}

#[test]
fn the_action_fails_with_the_patch_and_leaves_the_reports() {
    let mut runner = Runner::new(&[
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_WORKSPACE", "FOLDER"),
        ("GITHUB_STEP_SUMMARY", "FOLDER/summary.md"),
        ("GITHUB_OUTPUT", "FOLDER/output"),
        ("RUNNER_TEMP", "FOLDER/temp"),
        ("GUARD_COMMAND", "echo \"$CI_WORD\"; exec /usr/bin/python3 suite.py"),
        ("CI_WORD", "from outside"),
        ("GUARD_POLICY", "./policy.json"),
        ("GUARD_ARGUMENTS", "--verbose --wait child"),
        ("GUARD_JUNIT", "absent*.xml results-*.xml"),
        ("REF", "v0.1.0"),
        ("RELEASES", "https://forge.invalid/guard-run/releases"),
    ]);
    assert_eq!(PYTHON, "/usr/bin/python3");
    runner.set("GITHUB_ACTION_PATH", checkout().to_str().unwrap());
    runner.set("GUARD_PROGRAM", guard_run().to_str().unwrap());
    let [install, run, report, finish] = <[_; 4]>::try_from(steps()).unwrap().map(|(_, script)| script);
    assert!(stdout(&runner.step(&install)).starts_with("guard-run "));
    let output = runner.step(&run);
    assert_eq!(stdout(&output), "from outside\n", "{output:?}");
    assert!(runner.file("output").contains("status=120\nfolder="), "{}", runner.file("output"));
    // That results are missing is a warning: a command that failed early leaves none.
    let output = runner.step(&report);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("absent*.xml: there are no"));
    runner.set("GUARD_JUNIT", "results-*.xml");
    fs::remove_file(runner.path("summary.md")).unwrap();
    let said = stdout(&runner.step(&report));
    assert!(
        said.starts_with("::error file=policy.json,line=1,title=guard-run denied connect tcp 127.0.0.1%3A9::"),
        "{said}"
    );
    assert!(runner.file("summary.md").starts_with("## guard-run: 1 request denied in 1 run\n"));
    assert!(runner.file("temp/guard-run/junit.xml").contains("<testcase name=\"t\"/>"));
    for name in ["junit.xml", "report.html", "report.sarif", "log.json"] {
        assert!(runner.file(&format!("temp/guard-run/{name}")).contains("127.0.0.1"), "{name}");
    }
    let output = runner.step(&finish);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(120), "{said}");
    assert!(said.contains(r#"{"op": "add", "path": "/network/rules", "value""#), "{said}");
    // Where nothing is denied, the job ends as the command does.
    runner.set("GUARD_COMMAND", "exit 3");
    assert_eq!(stdout(&runner.step(&run)), "");
    assert!(stdout(&runner.step(&report)).is_empty());
    assert_eq!(runner.step(&finish).status.code(), Some(3));
    // A run of which there is no log can't pass for one.
    runner.set("GUARD_POLICY", "./absent.json");
    let output = runner.step(&run);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(125) && said.contains("did not run under guard-run"), "{said}");
    assert!(!runner.step(&report).status.success());
    assert_eq!(runner.step(&finish).status.code(), Some(125));
}

#[test]
fn gitlab_gets_a_code_quality_report() {
    let mut runner = Runner::new(&[
        ("GITLAB_CI", "true"),
        ("CI_PROJECT_DIR", "FOLDER"),
        ("GUARD_FOLDER", "FOLDER/guard-run"),
        ("GUARD_COMMAND", "/usr/bin/python3 suite.py"),
        ("GUARD_POLICY", "./policy.json"),
    ]);
    runner.set("GUARD_PROGRAM", guard_run().to_str().unwrap());
    let template = fs::read_to_string(checkout().join("templates/gitlab.yml")).unwrap();
    runner.set("GUARD_SCRIPT", checkout().join("packaging/ci.sh").to_str().unwrap());
    let scripts = template.lines().filter_map(|line| line.strip_prefix("    - '")?.strip_suffix('\''));
    let statuses: Vec<_> = scripts.map(|script| runner.step(script).status.code().unwrap()).collect();
    assert_eq!(statuses, [0, 0, 120]);
    let quality: Value = serde_json::from_str(&runner.file("guard-run/gl-code-quality-report.json")).unwrap();
    assert_eq!(quality[0]["location"], json!({"path": "policy.json", "lines": {"begin": 1}}));
    assert_eq!((&quality[0]["severity"], quality.as_array().unwrap().len()), (&json!("major"), 1));
}

#[test]
fn a_package_that_is_not_the_one_that_is_meant_is_not_installed() {
    let mut runner = Runner::new(&[("GUARD_PROGRAM", "guard-run-absent"), ("GUARD_FOLDER", "FOLDER/guard-run")]);
    let script = format!("{} install", checkout().join("packaging/ci.sh").display());
    let said = |runner: &Runner| {
        let output = runner.step(&script);
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(said(&runner).contains("GUARD_PACKAGE doesn't say where"));
    fs::write(runner.path("guard-run_9_amd64.deb"), "no package").unwrap();
    let package = runner.path("guard-run_9_amd64.deb");
    runner.set("GUARD_PACKAGE", format!("file://{}", package.display()));
    fs::write(runner.path("SHA256SUMS"), format!("{}  other_amd64.deb\n", "0".repeat(64))).unwrap();
    assert!(said(&runner).contains("no sum is known of it"));
    fs::write(runner.path("SHA256SUMS"), format!("{}  guard-run_9_amd64.deb\n", "0".repeat(64))).unwrap();
    assert!(said(&runner).contains("is not the package that is meant"));
}
