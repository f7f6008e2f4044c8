//! What the command line says and answers without root: usage, help, messages and `check`.

use std::{
    fs::{self, File},
    os::unix::fs::{lchown, symlink},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use support::{Run, guard_run};

use crate::explain::policy;

/// Runs `guard-run` with these arguments; its exit status, standard output and standard error.
fn guard(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(guard_run()).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn wrong_usage_is_guard_runs_own_failure() {
    let table: [&[&str]; 17] = [
        &[],
        &["--no-such-option"],
        &["no-such-subcommand"],
        &["--policy"],
        &["--policy", "p.json"],
        &["--policy", "p.json", "--"],
        &["--policy", "p.json", "true"],
        &["--", "true"],
        &["--policy", "p.json", "--wait", "never", "--", "true"],
        &["--policy", "p.json", "--fail-on-deny=256", "--", "true"],
        &["--policy", "p.json", "--fail-on-deny=-1", "--", "true"],
        &["--policy", "p.json", "--fail-on-deny=x", "--", "true"],
        &["--policy", "p.json", "--quiet", "--verbose", "--", "true"],
        &["--policy", "p.json", "--policy", "q.json", "--", "true"],
        &["check"],
        &["check", "p.json", "q.json"],
        &["explain"],
    ];
    for arguments in table {
        let (code, stdout, stderr) = guard(arguments);
        assert_eq!((code, stdout.as_str()), (Some(125), ""), "{arguments:?}: {stderr}");
        assert!(is_short_line(&stderr, "guard-run"), "{arguments:?}: {stderr}");
    }
}

/// Whether a program has said one line, of less than 1,000 bytes, that begins with its name.
fn is_short_line(said: &str, program: &str) -> bool {
    let is_line = said.ends_with('\n') && said.lines().count() == 1 && said.len() < 1000;
    is_line && said.strip_prefix(program).is_some_and(|rest| rest.starts_with(": "))
}

#[test]
fn what_is_wrong_with_a_command_line_is_said_in_one_line_with_where_to_read_on() {
    for (arguments, expected) in [
        (
            &["--policies", "p.json", "--", "true"][..],
            "unexpected argument '--policies' found; tip: a similar argument exists: '--policy'; \
             tip: to pass '--policies' as a value, use '-- --policies'; see guard-run --help",
        ),
        (
            &["make", "test"],
            "unexpected argument 'make' found; a command that is to be executed comes after \"--\"; see guard-run --help",
        ),
        (
            &["--wait", "never", "--", "true"],
            "invalid value 'never' for '--wait <WAIT>' [possible values: tree, child]; see guard-run --help",
        ),
        (&["check"], "the following required arguments were not provided: <POLICY>; see guard-run check --help"),
        (&["explain", "p", "connect"], "provided: <PROTOCOL> <ADDRESS:PORT>; see guard-run explain --help"),
        (&["gc", "--logs", "a\n\u{1b}b"], "see guard-run gc --help"),
        (&["check", "p", "a\nb"], "unexpected argument 'a\\nb' found; see guard-run check --help"),
    ] {
        let (code, _, said) = guard(arguments);
        assert!(code == Some(125) && is_short_line(&said, "guard-run"), "{arguments:?}: {said}");
        assert!(said.ends_with(&format!("{expected}\n")) && !said.contains('\u{1b}'), "{arguments:?}: {said}");
    }
}

#[test]
fn other_programs_say_what_is_wrong_in_one_line_as_well() {
    let word = format!("--{}", "\u{1b}]0;x\u{7}\n".repeat(10_000));
    for (program, arguments, expected) in [
        ("guard-selftest", &["--no-such-option"][..], "see guard-selftest --help\n"),
        ("guard-selftest", &["--", &word], "names all\n"),
        ("guard-selftest", &[&word], "see guard-selftest --help\n"),
        ("guard-hook", &["--no-such-option"], "see guard-hook --help\n"),
        ("guard-hook", &["gc", &word], "see guard-hook gc --help\n"),
        ("guard-hook", &["createRuntime"], "\n"),
        ("guard-runtime", &[&word, "create", "x"], "\n"),
        ("guard-runtime", &["--no-such-option", "create", "x"], "\n"),
        ("guard-runtime", &["create", "--config", &word, "x"], "\n"),
    ] {
        let output =
            Command::new(guard_run().with_file_name(program)).args(arguments).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(matches!(output.status.code(), Some(1 | 125)), "{program} {expected}: {said:.1000}");
        assert!(is_short_line(&said, program) && said.ends_with(expected), "{program} {expected}: {said:.1000}");
        assert!(!said.contains(['\u{1b}', '\u{7}']), "{program} {expected}: {said}");
    }
    for (program, arguments) in
        [("guard-selftest", &["--help"][..]), ("guard-hook", &["--help"]), ("guard-hook", &["gc"])]
    {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = Command::new(guard_run().with_file_name(program)).args(arguments).stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(is_short_line(&said, program) && said.contains("standard output"), "{program} {arguments:?}: {said}");
        assert_eq!(output.status.code(), Some(125), "{program} {arguments:?}: {said}");
    }
}

#[test]
fn help_and_version_are_answers() {
    for (arguments, words) in [
        (&["--help"][..], &["Usage", "--policy", "check", "explain", "doctor", "gc", "125", "126", "127"][..]),
        (&["explain", "--help"], &["connect", "bind", "send", "receive", "socket", "device", "sysctl"]),
        (&["--version"], &["guard-run 0.", "eBPF programs "]),
        (&["-V"], &["guard-run 0."]),
    ] {
        let (code, stdout, stderr) = guard(arguments);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{arguments:?}");
        for word in words {
            assert!(stdout.contains(word), "{word} is missing: {stdout}");
        }
    }
}

#[test]
fn each_help_has_examples_and_exit_statuses() {
    let subcommands = [
        "check",
        "explain",
        "why",
        "suggest",
        "compare",
        "replay",
        "tidy",
        "learn",
        "policies",
        "init",
        "doctor",
        "selftest",
        "gc",
        "completion",
        "report",
        "test",
    ];
    for words in subcommands.map(|subcommand| vec![subcommand, "--help"]).into_iter().chain([vec!["--help"]]) {
        let (code, stdout, _) = guard(&words);
        assert_eq!(code, Some(0), "{words:?}");
        let (_, rest) = stdout.split_once("Examples:\n").unwrap_or_else(|| panic!("{words:?}: {stdout}"));
        let (examples, statuses) = rest.split_once("\n\nExit status:").unwrap_or_else(|| panic!("{words:?}: {stdout}"));
        assert!(examples.lines().filter(|line| line.contains("guard-run ")).count() >= 2, "{words:?}: {examples}");
        assert!(statuses.contains("125"), "{words:?}: {statuses}");
    }
}

#[test]
fn check_prints_what_names_mean() {
    let policy = json!({"version": 1, "network": {"default": "allow", "rules": [
        {"action": "deny", "ops": ["connect"], "hosts": ["loopback"]}
    ]}});
    let output = Run::new(&policy, ["true"]).subcommand("check", &[]).success();
    let printed: Value = serde_json::from_str(&output.stdout).unwrap();
    let hosts = printed["network"]["rules"][0]["hosts"].to_string();
    assert!(hosts.contains("127.0.0.0/8") && hosts.contains("::1"), "{hosts}");
    assert_eq!((&printed["version"], &printed["mode"]), (&json!(1), &json!("enforce")));
    assert_eq!(printed["hooks"], json!(["connect4", "connect6", "egress", "sock_create", "sysctl", "setsockopt"]));
    assert_eq!(printed["unrestricted"], json!(["unix", "devices", "sysctls", "sockopts"]));
}

#[test]
fn check_lists_whom_names_are_asked_of_and_which() {
    let policy = json!({"version": 1, "network": {"default": "deny", "nameservers": ["10.0.0.53", "fd00::53"], "rules": [
        {"action": "deny", "hosts": ["no.example.org"]},
        {"action": "allow", "hosts": ["api.example.org", "*.example.org", "localhost.test"], "ports": [443]}
    ]}});
    let printed = |policy: &Value| -> Value {
        serde_json::from_str(&Run::new(policy, ["true"]).subcommand("check", &[]).success().stdout).unwrap()
    };
    let names = &printed(&policy)["names"];
    assert_eq!(names["nameservers"], json!(["10.0.0.53", "fd00::53"]));
    let asked: Vec<&str> = names["asked"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(names["count"], json!(asked.len()));
    assert!(
        ["*.example.org", "api.example.org", "localhost.test"].iter().all(|name| asked.contains(name)),
        "{asked:?}"
    );
    assert!(!asked.contains(&"no.example.org"), "{asked:?}");
    let mut delegating = policy;
    delegating["process"] = json!({"allow": ["delegation"]});
    assert!(printed(&delegating)["notes"].to_string().contains("systemd-resolved, nscd and avahi"));
}

#[test]
fn check_says_which_file_each_rule_is_from() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let policy = write(
        "p.json",
        r#"{"version": 1, "include": ["team.json"], "network": {"default": "deny", "rules": [
            {"action": "allow", "hosts": ["@registry"], "ports": [443]}]}}"#,
    );
    let team = "{\"version\": 1,\n\"sets\": {\"registry\": [\"10.0.0.1\"]},\n\"network\": {\"default\": \"deny\", \"rules\": [\n\
                {\"action\": \"deny\", \"ports\": [25]}]}}";
    let team = write("team.json", team);
    let (code, stdout, stderr) = guard(&["check", &policy]);
    assert_eq!((code, &*stderr), (Some(0), ""));
    let printed: Value = serde_json::from_str(&stdout).unwrap();
    let from = json!({
        "/network/rules/0": format!("{team}: /network/rules/0 (line 4)"),
        "/network/rules/1": format!("{policy}: /network/rules/0 (line 2)"),
    });
    assert_eq!(printed["rules_from"], from);
    assert_eq!(printed["network"]["rules"][1]["hosts"], json!(["10.0.0.1"]));
    let (_, stdout, _) = guard(&["explain", &policy, "connect", "tcp", "10.0.0.1:443"]);
    assert!(stdout.contains("allowed by /network/rules/1"), "{stdout}");
    // What is wrong in it is said with its own name.
    let _ = write(
        "team.json",
        r#"{"version": 1, "network": {"default": "deny", "rules": [{"action": "allow", "port": [1]}]}}"#,
    );
    let (code, _, stderr) = guard(&["check", &policy]);
    assert!(code == Some(125) && stderr.contains(&format!("{team}: /network/rules/0/port (line 1)")), "{stderr}");
    fs::set_permissions(&team, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let (code, _, stderr) = guard(&["check", &policy]);
    assert!(
        code == Some(125) && stderr.contains("/include/0 (line 1)") && stderr.contains("others could write"),
        "{stderr}"
    );
}

/// Hands each subcommand that prints to `each`, as a command that has enough to print.
fn each_that_prints(each: impl Fn(&[&str], &mut Command)) {
    let run = Run::python(policy(), "import socket; socket.socket().connect_ex((\"10.0.0.1\", 443))", &[]);
    drop(run.output());
    let (policy, log) = (run.policy(), run.log());
    let (policy, log) = (policy.to_str().unwrap(), log.to_str().unwrap());
    let table: [&[&str]; 18] = [
        &["report", log],
        &["--help"],
        &["--version"],
        &["check", "--help"],
        &["check", policy],
        &["explain", policy, "connect", "tcp", "10.0.0.2:80"],
        &["why", log],
        &["why", "--json", log],
        &["suggest", log],
        &["compare", "curl", policy],
        &["replay", policy, log],
        &["tidy", policy],
        &["tidy", policy, "-o", "-"],
        &["policies"],
        &["init", "-"],
        &["selftest", "--list"],
        &["completion", "bash"],
        &["doctor"],
    ];
    for arguments in table {
        let arguments: Vec<&str> = arguments.iter().map(|word| if *word == "curl" { CURL } else { word }).collect();
        each(&arguments, Command::new(guard_run()).args(&arguments).stderr(Stdio::piped()));
    }
}

/// A policy that is there, installed or not.
const CURL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/curl.json");

#[test]
fn what_can_not_be_written_to_standard_output_is_said_in_one_line() {
    each_that_prints(|arguments, command| {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = command.stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(125), "{arguments:?}: {said}");
        let program = said.starts_with("guard-run: ") || said.starts_with("guard-selftest: ");
        assert!(program && said.contains("standard output"), "{arguments:?}: {said}");
        assert!(said.lines().count() == 1 && said.len() < 1000, "{arguments:?}: {said}");
    });
}

/// As `guard-run why LOG | head -1`: who has read enough closes the pipe, and nothing is wrong.
#[test]
fn a_reader_that_has_enough_is_no_error() {
    each_that_prints(|arguments, command| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command.stdout(writer).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.as_str()), (Some(128 + libc::SIGPIPE), ""), "{arguments:?}");
    });
}

/// For anything that stands in a policy or on the command line, one line of less than 1,000 bytes says what is the matter.
#[test]
fn what_is_said_is_short_and_harmless() {
    let long = "k".repeat(10_000_000);
    let policies = [
        format!(r#"{{"version": 1, "{long}": 1}}"#),
        format!(r#"{{"version": 1, "mode": "{long}"}}"#),
        format!(
            r#"{{"version": 1, "network": {{"default": "deny", "rules": [{{"action": "allow", "hosts": ["{long}"]}}]}}}}"#
        ),
        format!(
            r#"{{"version": 1, "sysctls": {{"default": "deny", "rules": [{{"action": "allow", "names": ["{long}"]}}]}}}}"#
        ),
    ];
    for policy in policies {
        let output = Run::new(policy, ["true"]).subcommand("check", &[]).exits(125);
        let said = &output.stderr;
        assert!(said.starts_with("guard-run: /") && said.lines().count() == 1 && said.len() < 1000, "{}", said.len());
    }
    let word = "\u{1b}]0;x\u{7}".repeat(200);
    for arguments in [
        &["--", &word][..],
        &[&word],
        &["--policy", &word, "--", "true"],
        &["check", &word],
        &["explain", "p.json", &word],
        &["selftest", &word],
        &["selftest", "--program", &word],
    ] {
        let (code, _, said) = guard(arguments);
        assert!(matches!(code, Some(125 | 127)), "{code:?}");
        assert!(said.lines().count() == 1 && said.len() < 1000 && !said.contains(['\u{1b}', '\u{7}']), "{said}");
    }
}

#[test]
fn common_mistakes_in_policies_are_told_with_what_to_write() {
    let network = |rule: Value| json!({"network": {"default": "deny", "rules": [rule]}});
    let hosts = |host: &str| network(json!({"action": "allow", "hosts": [host]}));
    let table = [
        (hosts("localhost"), r#"did you mean "loopback"?"#),
        (hosts("127.0.0.1:8080"), r#"write "127.0.0.1" here, and "ports": [8080] beside "hosts""#),
        (network(json!({"action": "allow", "ports": ["*"]})), r#"leave "ports" out to mean all"#),
        (
            json!({"devices": {"default": "deny", "rules": [{"action": "allow", "major": 1, "minor": "*"}]}}),
            "leave the key out to mean \"all\"",
        ),
        (
            json!({"devices": {"default": "deny", "rules": [{"action": "allow", "major": "1"}]}}),
            "write 1, without quotes",
        ),
        (
            json!({"unix": {"default": "deny", "rules": [{"action": "allow", "paths": ["~/agent"]}]}}),
            r#""~" stands for nothing here; write the whole path, such as "/home/NAME/agent""#,
        ),
        (
            json!({"devices": {"default": "deny", "rules": [{"action": "allow", "path": "~/null"}]}}),
            "stands for nothing here",
        ),
        (
            json!({"unix": {"default": "deny", "rules": [{"action": "allow", "paths": ["$HOME/x"]}]}}),
            r#"socket path "$HOME/x": "$HOME" stands for nothing here; write the whole path, such as "/home/NAME/x""#,
        ),
        (
            json!({"unix": {"default": "deny", "rules": [{"action": "allow", "paths": ["$XDG_RUNTIME_DIR/bus"]}]}}),
            r#""$XDG_RUNTIME_DIR" stands for nothing here; write the whole path, such as "/…/bus""#,
        ),
        (
            json!({"devices": {"default": "deny", "rules": [{"action": "allow", "path": "$HOME/null"}]}}),
            r#""$HOME" stands for nothing here"#,
        ),
        (
            json!({"include": ["~/x.json"]}),
            r#""~/x.json": "~" stands for nothing here; write the whole path, such as "/home/NAME/x.json""#,
        ),
        (json!({"include": ["${HOME}/x.json"]}), r#"write the whole path, such as "/home/NAME/x.json""#),
        (hosts("127.0.0.1/8080"), r#"must be a number from 0 to 32; a port is written as "ports": [8080]"#),
        (json!({"process": {"capabilities": ["NET_RAW"]}}), r#"did you mean "CAP_NET_RAW"?"#),
        (json!({"process": {"capabilities": ["mknod"]}}), r#"did you mean "CAP_MKNOD"?"#),
        (
            json!({"sysctls": {"default": "deny", "rules": [{"action": "allow", "names": ["kernel/../hostname"]}]}}),
            r#"write "kernel/hostname""#,
        ),
    ];
    for (mut policy, instead) in table {
        policy["version"] = json!(1);
        let output = Run::new(&policy, ["true"]).subcommand("check", &[]).exits(125);
        assert!(output.stderr.contains(instead) && output.stderr.lines().count() == 1, "{policy}: {output:?}");
    }
}

/// Files that are taken for others are named for what they are.
#[test]
fn a_file_of_another_kind_is_named() {
    let run = Run::new(json!({"version": 1, "network": {"default": "deny"}}), ["true"]);
    let set = run.folder().join("set.json");
    let empty = run.folder().join("empty.json");
    fs::write(&set, r#"{"version": 1, "sets": {"ours": []}}"#).unwrap();
    fs::write(&empty, " \n").unwrap();
    drop(run.output());
    let (log, policy) = (run.log(), run.policy());
    let [log, policy, set, empty] = [&log, &policy, &set, &empty].map(|path| path.to_str().unwrap());
    for (arguments, expected) in [
        (&["check", log][..], "top level (line 1): this is a log of guard-run, and no policy; `guard-run why`"),
        (&["why", policy], "this is a policy of guard-run, and no log"),
        (&["replay", log, policy], "this is a log of guard-run, and no policy"),
        (&["check", empty], "top level (line 1): nothing is in it; a policy begins as {\"version\": 1}"),
        (&["check", set], "/sets/ours (line 1): a set without hosts would never match"),
    ] {
        let (code, _, said) = guard(arguments);
        assert!(code == Some(125) && said.contains(expected) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
}

/// Many names, with wildcards or without, are no burden, or refused before they are one.
#[test]
fn names_take_little_time_and_memory_whatever_they_are() {
    let sysctls = |rules: Vec<Vec<String>>| {
        let rules: Vec<Value> = rules.iter().map(|names| json!({"action": "deny", "names": names})).collect();
        json!({"version": 1, "sysctls": {"default": "allow", "rules": rules}})
    };
    let ordinary = |rules: usize, names: usize| {
        let name = |rule: usize, name: usize| format!("net/ipv4/conf/*/name{}", rule * names + name);
        sysctls((0..rules).map(|rule| (0..names).map(|number| name(rule, number)).collect()).collect())
    };
    let gaps = (0..2000).map(|number| format!("*a{}{number}", "?".repeat(30))).collect();
    let long = (0..20_000).map(|number| format!("{number:05}*x{number:05}")).collect();
    let hosts = |rules: usize, names: usize, begin: &str| {
        let name = |rule: usize, name: usize| format!("{begin}name{rule}x{name}.example.org");
        let rule = |rule: usize| {
            let names: Vec<String> = (0..names).map(|number| name(rule, number)).collect();
            json!({"action": "allow", "hosts": names, "ports": [1 + rule]})
        };
        let rules: Vec<Value> = (0..rules).map(rule).collect();
        json!({"version": 1, "network": {"default": "deny", "nameservers": ["192.0.2.53"], "rules": rules}})
    };
    let set = json!({
        "version": 1,
        "sets": {"names": (0..20_000).map(|number| format!("name{number}.example.org")).collect::<Vec<_>>()},
        "network": {
            "default": "deny",
            "nameservers": ["192.0.2.53"],
            "rules": [{"action": "allow", "hosts": ["@names"]}],
        },
    });
    for (policy, good) in [
        (ordinary(1, 5000), true),
        (ordinary(256, 20), true),
        (sysctls(vec![gaps]), false),
        (sysctls(vec![long]), false),
        (hosts(1, 5000, "*."), true),
        (hosts(250, 20, ""), true),
        (set, true),
    ] {
        // Memory and seconds of the processor's beyond the bounds are not to be had.
        let run = Run::new(&policy, ["true"]);
        let run = run.through(["bash", "-c", "ulimit -d 65536 -t 10; exec \"$@\"", "bash"]);
        let output = run.subcommand("check", &[]);
        assert_eq!(output.code(), Some(if good { 0 } else { 125 }), "{}", output.stderr);
        let said = "it would take more than 4096 states to tell these names apart";
        assert!(good || output.stderr.contains(said) && output.stderr.lines().count() == 1, "{output:?}");
    }
}

#[test]
fn init_writes_policies_that_are_valid_and_replaces_nothing() {
    for purpose in ["curl", "tests", "agent"] {
        let (code, text, said) = guard(&["init", "--for", purpose, "-"]);
        assert_eq!((code, said.as_str()), (Some(0), ""), "{purpose}");
        let policy: Value = serde_json::from_str(&text).unwrap();
        assert!(policy["$schema"].as_str().unwrap().starts_with('/') && policy["description"].is_string(), "{text}");
        let _ = Run::new(text, ["true"]).subcommand("check", &[]).success();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.json");
    let file = file.to_str().unwrap();
    let (code, said, _) = guard(&["init", "--for", "tests", file]);
    assert!(code == Some(0) && said.contains(file), "{said}");
    let written = fs::read(file).unwrap();
    let (code, _, said) = guard(&["init", file]);
    assert!(code == Some(125) && said.contains("it is there already") && said.lines().count() == 1, "{said}");
    assert_eq!(fs::read(file).unwrap(), written);
    // Nor where another user's link leads.
    let (elsewhere, link) = (folder.path().join("elsewhere"), folder.path().join("link"));
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &link).unwrap();
    lchown(&link, Some(4242), None).unwrap();
    let (code, _, said) = guard(&["init", link.join("policy.json").to_str().unwrap()]);
    assert!(code == Some(125) && said.contains("belongs to user 4242 and is not followed"), "{said}");
    assert_eq!(fs::read_dir(elsewhere).unwrap().count(), 0);
}
