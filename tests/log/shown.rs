//! What guard-run shows of others' texts: nothing in it has an effect on a terminal, or is read as something else. In JSON it
//! is the same text all the same.

use std::fs;

use serde_json::{Value, json};
use support::{Output, PYTHON, Run};

/// Clears the screen by an 8-bit control, begins a new line, turns the order of letters round, and hides an `x`.
const HOSTILE: &str =
    "a\u{9b}2Jb\u{2028}c\u{202e}d\u{2066}e\u{200b}f\u{feff}g\u{7f}h\u{61c}i\u{e0078}j\r\u{1b}[2K\u{85}k";

/// Checks that nothing but text and line breaks was written, and that the hostile text was written at all.
fn assert_harmless(written: &str) {
    let harms = |c: &char| {
        (c.is_control() && *c != '\n')
            || matches!(*c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(*c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
    };
    let found: Vec<char> = written.chars().filter(harms).collect();
    assert!(found.is_empty(), "{found:?} in {written:?}");
    assert!(written.contains("2Jb"), "the control shows it: {written:?}");
}

/// A run whose command, of a hostile name and with a hostile argument, is denied a hostile path.
fn denied() -> Run {
    let policy = json!({"version": 1, "unix": {"default": "deny"}});
    let connect = "import socket, sys\ntry: socket.socket(socket.AF_UNIX).connect(sys.argv[1])\nexcept OSError: pass";
    let named = format!("import ctypes; ctypes.CDLL(None).prctl(15, '\\x9b2Jb'.encode(), 0, 0, 0)\n{connect}");
    Run::new(policy, [PYTHON, "-c", &named, &format!("/tmp/{HOSTILE}")])
}

#[test]
fn events_log_and_last_line_do_nothing_to_a_terminal_and_say_the_same() {
    let output = denied().without_log().flags(["--log", "-", "--events", "-"]).output().success();
    assert_harmless(&output.stderr);
    let mut values = serde_json::Deserializer::from_str(&output.stderr).into_iter::<Value>();
    let [event, log] = [(); 2].map(|()| values.next().unwrap().unwrap());
    assert_eq!(log["events"][0], event);
    assert_eq!(log["command"][3], format!("/tmp/{HOSTILE}"));
    assert_eq!(event["process"]["argv"][3], format!("/tmp/{HOSTILE}"));
    assert_eq!(event["process"]["comm"], "\u{9b}2Jb");
    assert!(event["unix"]["path"].as_str().unwrap().starts_with("/tmp/a\u{9b}2Jb"), "{event:#}");
    let rest = &output.stderr[values.byte_offset()..];
    assert!(rest.trim().starts_with("guard-run: denied 1") && rest.trim().lines().count() == 1, "{rest}");
}

#[test]
fn a_log_file_does_nothing_to_a_terminal() {
    let run = denied();
    let output = run.output().success();
    assert_harmless(&fs::read_to_string(run.log()).unwrap());
    assert_harmless(&output.stderr);
}

#[test]
fn errors_with_names_do_nothing_to_a_terminal() {
    let policy = json!({"version": 1});
    let one_line = |output: Output, status: i32| {
        assert_eq!(output.code(), Some(status), "{output:?}");
        assert_harmless(&output.stderr);
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    };
    one_line(Run::new(&policy, [HOSTILE]).output(), 127);
    one_line(Run::new(&policy, [format!("/tmp/{HOSTILE}")]).output(), 127);
    one_line(Run::new(&policy, ["true"]).flags(["--events", &format!("/missing/{HOSTILE}")]).output(), 125);
    one_line(Run::new(&policy, ["true"]).without_log().flags(["--log", &format!("/missing/{HOSTILE}")]).output(), 125);
    one_line(
        Run::new(format!("{{\"version\": 1, \"{}\": 1}}", HOSTILE.replace(['\r', '\u{1b}'], "")), ["true"]).output(),
        125,
    );
    // The command line's own parser takes several lines.
    let output = Run::new(&policy, ["true"]).flags([&format!("--{HOSTILE}")]).output();
    assert_eq!(output.code(), Some(125));
    assert_harmless(&output.stderr);
}

#[test]
fn answers_on_policies_do_nothing_to_a_terminal() {
    let path = format!("/run/{}", HOSTILE.replace('[', ""));
    let rules = json!([{"action": "allow", "paths": [path]}]);
    let run = Run::new(json!({"version": 1, "unix": {"default": "deny", "rules": rules}}), ["true"]);
    let output = run.subcommand("check", &[]).success();
    assert_harmless(&output.stdout);
    let shown: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(shown["unix"]["rules"][0]["paths"][0], path);
    let output = run.subcommand("explain", &["unix", "connect", &path]).success();
    assert_harmless(&output.stdout);
    assert_eq!(output.stdout.lines().count(), 1);
}
