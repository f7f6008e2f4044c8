//! From a denial to a policy that works, by one command: `guard-run suggest LOG --apply`. What it suggests is what was denied, and
//! what keeps the command inside it leaves to people.

use std::fs;

use jsonschema::Validator;
use serde_json::{Value, json};
use support::{Output, Run, TcpServer, UdpServer, guard_run};

/// What programs do first.
const PRELUDE: &str = "import socket, os, struct, ctypes
def tcp(address, port):
    with socket.create_connection((address, port), 5): pass
def udp(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s: s.connect((address, port)); s.send(b'x')
def own(port):
    with socket.create_server(('127.0.0.1', port)) as s:
        with socket.create_connection(s.getsockname(), 2): s.settimeout(2); s.accept()[0].close()
";

fn schema(name: &str) -> Validator {
    let path = format!("{}/../schema/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert!(jsonschema::meta::is_valid(&schema), "{name}");
    jsonschema::draft202012::new(&schema).unwrap()
}

fn network(default: &str, rules: &Value) -> Value {
    json!({"version": 1, "network": {"default": default, "rules": rules}})
}

fn section(name: &str, rules: &Value) -> Value {
    json!({"version": 1, name: {"default": "deny", "rules": rules}})
}

/// A run of a Python program, its policy laid out as people do.
fn run(policy: &Value, program: &str) -> Run {
    let policy = serde_json::to_string_pretty(policy).unwrap();
    Run::python(policy, &format!("{PRELUDE}{program}"), &[])
}

/// What a subcommand says of a run's log.
fn ask(run: &Run, words: &[&str]) -> (Option<i32>, String, String) {
    let output =
        std::process::Command::new(guard_run()).arg(words[0]).arg(run.log()).args(&words[1..]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn as_json(run: &Run, subcommand: &str) -> Value {
    let (_, stdout, stderr) = ask(run, &[subcommand, "--json"]);
    let json: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
    let errors: Vec<String> =
        schema(subcommand).iter_errors(&json).map(|error| format!("{error} at {}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:?}\n{stdout}");
    json
}

fn events(output: &Output) -> usize {
    output.events().len()
}

/// One command leads from a denial to a policy under which the program works.
fn one_command_is_enough(what: &str, policy: &Value, program: &str) {
    let run = run(policy, program);
    let bare = run.bare();
    assert_eq!(bare.code(), Some(0), "{what} must work outside: {}", bare.stderr);
    let denied = run.output();
    assert!(events(&denied) > 0, "{what}: {denied:?}");
    let why = as_json(&run, "why");
    assert!(why["denials"].as_array().unwrap().iter().all(|denial| denial["ways"] != json!([])), "{what}: {why}");
    assert_eq!(as_json(&run, "suggest")["apart"], json!([]), "{what}");
    let (code, stdout, stderr) = ask(&run, &["suggest", "--apply"]);
    assert_eq!(code, Some(0), "{what}: {stdout}{stderr}");
    let allowed = run.output();
    assert_eq!((allowed.code(), events(&allowed)), (Some(0), 0), "{what}: {stdout}{}{:?}", allowed.stderr, allowed.log);
}

#[test]
fn denials_of_the_network() {
    let (tcp, tcp6, udp) = (TcpServer::start("127.0.0.1"), TcpServer::start("::1"), UdpServer::start("127.0.0.1"));
    let (port, port6, udp_port) = (tcp.port(), tcp6.port(), udp.port());
    let deny = network("deny", &json!([]));
    one_command_is_enough("a connection", &deny, &format!("tcp('127.0.0.1', {port})"));
    one_command_is_enough("one of IPv6", &deny, &format!("tcp('::1', {port6})"));
    // It goes on after the first; what gives up there is denied the second only in the next run.
    let both = format!(
        "failed = [socket.socket(family).connect_ex((address, port)) for family, address, port in
        [(socket.AF_INET, '127.0.0.1', {port}), (socket.AF_INET6, '::1', {port6})]]; exit(any(failed))"
    );
    one_command_is_enough("both", &deny, &both);
    one_command_is_enough("a connected UDP socket", &deny, &format!("udp('127.0.0.1', {udp_port})"));
    // What answers a datagram is denied only once that arrives: without this rule, it takes a second run.
    let answered = network("deny", &json!([{"action": "allow", "ops": ["receive"], "protocols": ["udp"]}]));
    one_command_is_enough(
        "a datagram",
        &answered,
        &format!("socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {udp_port}))"),
    );
    let near = network(
        "deny",
        &json!([{"action": "allow", "ops": ["connect"], "protocols": ["tcp"], "hosts": ["127.0.0.1"], "ports": [1]}]),
    );
    one_command_is_enough("another port of a rule's host", &near, &format!("tcp('127.0.0.1', {port})"));
    let by_rule = network("allow", &json!([{"action": "deny", "hosts": ["loopback"], "reason": "nothing here"}]));
    one_command_is_enough("what a rule denies", &by_rule, &format!("tcp('127.0.0.1', {port})"));
    let behind = network(
        "deny",
        &json!([{"action": "deny", "protocols": ["tcp"], "ports": [port]}, {"action": "allow", "hosts": ["127.0.0.1"]}]),
    );
    one_command_is_enough("what a later rule would allow", &behind, &format!("tcp('127.0.0.1', {port})"));
}

#[test]
fn denials_of_servers() {
    let connects = json!({"action": "allow", "ops": ["connect", "send"]});
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let bind = |port: u16| format!("socket.create_server(('127.0.0.1', {port})).close()");
    one_command_is_enough("a port", &network("deny", &json!([connects])), &bind(free));
    one_command_is_enough("a port that the kernel chooses", &network("deny", &json!([connects])), &bind(0));
    let may_bind = json!([connects, {"action": "allow", "ops": ["bind"]}]);
    one_command_is_enough("a server's clients", &network("deny", &may_bind), &format!("own({free})"));
    // In audit mode, the whole of it is known at once: its own server, which it connects to.
    let mut all = network("deny", &json!([]));
    all["mode"] = json!("audit");
    one_command_is_enough("an own server in audit mode", &all, &format!("own({free})"));
    one_command_is_enough("one at a port that the kernel chooses", &all, "own(0)");
}

#[test]
fn denials_of_devices_tunables_sockets_options_and_names() {
    one_command_is_enough(
        "a device",
        &section("devices", &json!([{"action": "allow", "path": "/dev/urandom"}])),
        "open('/dev/zero', 'rb').close()",
    );
    let null =
        json!([{"action": "allow", "path": "/dev/urandom"}, {"action": "allow", "path": "/dev/null", "access": "r"}]);
    one_command_is_enough("another access", &section("devices", &null), "open('/dev/null', 'wb').close()");
    one_command_is_enough("a tunable", &section("sysctls", &json!([])), "open('/proc/sys/kernel/hostname').read()");
    one_command_is_enough(
        "an option",
        &section("sockopts", &json!([{"action": "allow", "access": "get"}])),
        "socket.socket().setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)",
    );
    one_command_is_enough(
        "a socket",
        &section("sockets", &json!([{"action": "allow", "type": "stream"}])),
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    );
    one_command_is_enough(
        "an abstract name",
        &section("unix", &json!([])),
        "l = socket.socket(socket.AF_UNIX); l.bind('\\0guard-advice-%d' % 7); l.listen(); socket.socket(socket.AF_UNIX).connect(l.getsockname())",
    );
}

/// A query for `b.example.org`, to where nobody is.
const QUERY: &str = "q = struct.pack('>6H', 7, 256, 1, 0, 0, 0) + b'\\1b\\7example\\3org\\0' + struct.pack('>2H', 1, 1)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.77', 53))
s.send(q)
";

#[test]
fn a_denied_name() {
    let mut policy = network("deny", &json!([{"action": "allow", "hosts": ["a.example.org"], "ports": [443]}]));
    policy["network"]["nameservers"] = json!(["127.0.0.77"]);
    one_command_is_enough("a name", &policy, QUERY);
}

#[test]
fn what_keeps_the_command_inside_is_left_to_people() {
    let cases = [
        (network("deny", &json!([])), "tcp('169.254.169.254', 80)", "credentials"),
        (
            section("sysctls", &json!([])),
            "open('/proc/sys/kernel/hostname', 'w').write(socket.gethostname())",
            "whole machine",
        ),
        (network("allow", &json!([])), "ctypes.CDLL(None).unshare(0x10000000)", "keeps the command inside"),
    ];
    for (policy, program, why) in cases {
        let run = run(&policy, program).flags(["--diagnose"]);
        let output = run.output();
        assert!(events(&output) > 0, "{program}: {output:?}");
        let before = fs::read(run.policy()).unwrap();
        let (code, stdout, stderr) = ask(&run, &["suggest", "--apply"]);
        assert_eq!(code, Some(1), "{stdout}{stderr}");
        assert!(stdout.contains("for you to decide") && stdout.contains(why), "{stdout}");
        // Python may have been denied something else that is harmless.
        if as_json(&run, "suggest")["patch"] == json!([]) {
            assert_eq!(fs::read(run.policy()).unwrap(), before);
        }
        let explained = as_json(&run, "why");
        assert!(
            explained["denials"].as_array().unwrap().iter().any(|denial| denial["ways"] != json!([])),
            "{explained}"
        );
    }
}

#[test]
fn a_reason_is_shown_where_its_rule_decides() {
    let server = TcpServer::start("127.0.0.1");
    let mut policy =
        network("deny", &json!([{"action": "deny", "hosts": ["127.0.0.1"], "reason": "own\u{1b}[2J rule"}]));
    policy["network"]["reason"] = json!("the section");
    let program = format!(
        "
for connect in (lambda: tcp('127.0.0.1', {}), lambda: tcp('127.0.0.2', 1)):
    try: connect()
    except OSError: pass",
        server.port()
    );
    let run = run(&policy, &program);
    let output = run.output().success();
    let reasons: Vec<&Value> = output.events().iter().map(|event| &event["reason"]).collect();
    assert_eq!(reasons, [&json!("own\u{1b}[2J rule"), &json!("the section")]);
    let last = output.stderr.lines().last().unwrap();
    assert!(
        last.contains("[/network/rules/0: own\\u{1b}[2J rule]") && last.contains("[default: the section]"),
        "{last}"
    );
    let (_, why, _) = ask(&run, &["why"]);
    assert!(why.contains("reason    own\\u{1b}[2J rule") && !why.contains('\u{1b}'), "{why}");
    let explained = run.subcommand("explain", &["connect", "tcp", "127.0.0.2:1"]).exits(1);
    assert!(explained.stdout.contains("denied by default (the section)"), "{explained:?}");
}

#[test]
fn the_files_layout_owner_and_mode_are_kept() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    let text = "{\n  \"version\": 1,\n  \"network\": { \"default\": \"deny\",\n    \"rules\": [\n      { \"action\":\"allow\",  \"ports\": [ 1 ] }\n    ] }\n}\n";
    let run = Run::python(text, &format!("{PRELUDE}tcp('127.0.0.1', 9)"), &[]);
    drop(run.output());
    fs::set_permissions(run.policy(), fs::Permissions::from_mode(0o640)).unwrap();
    chown(run.policy(), Some(1234), Some(1234)).unwrap();
    let (code, stdout, stderr) = ask(&run, &["suggest", "--apply"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let rule = r#"{"action": "allow", "ops": ["connect"], "protocols": ["tcp"], "hosts": ["127.0.0.1"], "ports": [9]}"#;
    let expected = text.replace(" }\n    ]", &format!(" }},\n      {rule}\n    ]"));
    assert_eq!(fs::read_to_string(run.policy()).unwrap(), expected);
    let file = fs::metadata(run.policy()).unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o640, 1234, 1234));
    // The second time, there is nothing to do.
    let (code, stdout, _) = ask(&run, &["suggest", "--apply"]);
    assert!(code == Some(0) && stdout.contains("nothing to change") && stdout.contains("already"), "{stdout}");
}

/// Which file is to be changed, nobody says but the log, and others may have written that: so its hash has to agree.
#[test]
fn a_log_of_another_policy_changes_none() {
    let run = run(&network("deny", &json!([])), "socket.socket().connect_ex(('127.0.0.1', 9))");
    drop(run.output());
    let other = network("deny", &json!([{"action": "allow", "ports": [1]}])).to_string();
    fs::write(run.policy(), &other).unwrap();
    let (code, _, stderr) = ask(&run, &["suggest", "--apply"]);
    assert!(
        code == Some(125) && stderr.contains("is not what the log tells of") && stderr.contains("--policy"),
        "{stderr}"
    );
    assert_eq!(fs::read_to_string(run.policy()).unwrap(), other);
    let policy = run.policy();
    let (code, _, stderr) = ask(&run, &["suggest", "--apply", "--policy", policy.to_str().unwrap()]);
    assert!(code == Some(0) && stderr.contains("is not what the log tells of"), "{stderr}");
    assert_ne!(fs::read_to_string(&policy).unwrap(), other);
}

#[test]
fn what_does_nothing_is_left_out_of_a_policy_that_includes_others() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let one = json!({"action": "allow", "hosts": ["10.0.0.0/8"]});
    let hidden = json!({"action": "allow", "hosts": ["10.0.0.1"]});
    let part = json!({"version": 1, "network": {"default": "deny", "rules": [one, hidden]}});
    fs::write(at("part.json"), part.to_string()).unwrap();
    let other = json!({"action": "allow", "hosts": ["192.0.2.1"]});
    let policy =
        json!({"version": 1, "include": ["part.json"], "network": {"default": "deny", "rules": [hidden, other]}});
    fs::write(at("p.json"), policy.to_string()).unwrap();
    let tidy = |name: &str, more: &[&str]| {
        let output = std::process::Command::new(guard_run()).arg("tidy").arg(at(name)).args(more).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let tidied = at("tidied.json");
    let (code, stdout, stderr) = tidy("p.json", &["-o", tidied.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(stdout.starts_with("/network/rules/0: earlier rules match all that it does"), "{stdout}");
    let left = format!("left as it is: {}: /network/rules/1: earlier rules", at("part.json").display());
    assert!(stdout.contains(&left), "{stdout}");
    let shorter: Value = serde_json::from_str(&fs::read_to_string(&tidied).unwrap()).unwrap();
    assert_eq!((&shorter["network"]["rules"], &shorter["include"]), (&json!([other]), &json!(["part.json"])));
    let (code, stdout, _) = tidy("tidied.json", &[]);
    assert!(code == Some(0) && stdout.contains(&left), "{stdout}");
}

/// Runs a subcommand where /usr/share/guard-run and root's home are folders of the test's.
fn there(folder: &std::path::Path, words: &[&str]) -> (Option<i32>, String) {
    let script = "mkdir -p /usr/share/guard-run && mount --bind \"$0/share\" /usr/share/guard-run && \
                  mount --bind \"$0/root\" /root && cd \"$0\" && exec \"$@\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(folder).arg(guard_run()).args(words);
    let output = command.env_remove("GUARD_RUN_POLICY").output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn policies_are_named_and_those_that_came_with_guard_run_stay_as_they_are() {
    let run = run(&network("deny", &json!([])), "socket.socket().connect_ex(('127.0.0.1', 9))");
    drop(run.output());
    let folder = tempfile::tempdir().unwrap();
    let (share, root) = (folder.path().join("share/policies"), folder.path().join("root/.config/guard-run"));
    for (place, name) in [(&share, "web.json"), (&root, "mine.json")] {
        fs::create_dir_all(place).unwrap();
        fs::copy(run.policy(), place.join(name)).unwrap();
    }
    let (web, mine) = (share.join("web.json"), root.join("mine.json"));
    let before = fs::read(&web).unwrap();
    let (log, mark) = (run.log(), folder.path().join("mark"));
    let (log, mark) = (log.to_str().unwrap(), mark.to_str().unwrap());
    for words in
        [&["suggest", log, "--policy", "web", "--apply"][..], &["learn", "--update", "web", "--", "touch", mark]]
    {
        let (code, said) = there(folder.path(), words);
        assert_eq!(code, Some(125), "{said}");
        assert!(said.contains("/usr/share/guard-run/policies/web.json: it came with guard-run"), "{said}");
        let copy = "install -Dm644 /usr/share/guard-run/policies/web.json /root/.config/guard-run/web.json";
        assert!(said.contains(copy) && said.contains("guard-run init") && said.lines().count() == 1, "{said}");
    }
    assert!(fs::read(&web).unwrap() == before && fs::metadata(mark).is_err(), "nothing was written or run");
    // A user's own policy is found by its name, and changed.
    let (code, said) = there(folder.path(), &["suggest", log, "--policy", "mine", "--apply"]);
    assert_eq!(code, Some(0), "{said}");
    let suggested = fs::read_to_string(&mine).unwrap();
    assert!(suggested.contains("127.0.0.1"), "{suggested}");
    let program = "echo >/dev/udp/127.0.0.1/7";
    let (code, said) = there(folder.path(), &["learn", "--update", "mine", "--", "bash", "-c", program]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("wrote /root/.config/guard-run/mine.json") && said.contains("added: "), "{said}");
    let text = fs::read_to_string(&mine).unwrap();
    assert!(text.contains("sandbox"), "{said}\n{text}");
    // Nothing is run in vain.
    let (code, said) = there(folder.path(), &["learn", "-o", "/proc/learnt.json", "--", "touch", mark]);
    assert!(code == Some(125) && fs::metadata(mark).is_err(), "{said}");
    let (code, said) = there(folder.path(), &["learn", "-o", "none/learnt.json", "--", "touch", mark]);
    assert!(code == Some(125) && said.contains("no file can be made there") && fs::metadata(mark).is_err(), "{said}");
}

#[test]
fn a_file_that_this_user_can_not_write_is_left_alone() {
    let run = run(&network("deny", &json!([])), "socket.socket().connect_ex(('127.0.0.1', 9))").for_everyone();
    drop(run.output());
    let (log, policy) = (run.log(), run.policy());
    let before = fs::read(&policy).unwrap();
    fs::set_permissions(&log, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut command = std::process::Command::new(user[0]);
    command.args(&user[1..]).arg(run.program()).args(["suggest", "--apply"]).arg(&log).env("HOME", "/nonexistent");
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(
        said.contains("this user can't change it (Permission denied)") && said.contains("install -Dm644 "),
        "{said}"
    );
    assert_eq!(fs::read(&policy).unwrap(), before);
}

#[test]
fn events_need_the_name_of_a_policy() {
    let run = run(&network("deny", &json!([])), "tcp('127.0.0.1', 9)");
    let lines = run.folder().join("events");
    let run = run.flags(["--events", lines.to_str().unwrap()]);
    drop(run.output());
    let ask =
        |more: &[&str]| std::process::Command::new(guard_run()).arg("why").arg(&lines).args(more).output().unwrap();
    let output = ask(&[]);
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--policy"));
    let output = ask(&["--policy", run.policy().to_str().unwrap()]);
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("connect tcp 127.0.0.1:9"),
        "{output:?}"
    );
}
