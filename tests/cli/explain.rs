//! What `explain` answers.

use std::{ffi::OsStr, fs, os::unix::fs::symlink};

use serde_json::{Value, json};
use support::Run;

pub fn policy() -> Value {
    json!({
        "version": 1,
        "network": {"default": "allow", "rules": [
            {"action": "allow", "hosts": ["10.0.0.1"]},
            {"action": "deny", "protocols": ["tcp"], "hosts": ["10.0.0.0/8", "127.0.0.0/8"], "ports": ["80-90"]}
        ]},
        "devices": {"default": "deny", "rules": [{"action": "allow", "type": "c", "major": 1, "minor": 3, "access": "r"}]},
        "sysctls": {"default": "allow", "rules": [{"action": "deny", "names": ["kernel/hostname"], "access": "r"}]}
    })
}

/// Whether a text is one line, and explanations of it.
fn is_one_answer(text: &str) -> bool {
    !text.is_empty() && text.lines().skip(1).all(|line| line.starts_with("   "))
}

/// Asks each request of a table, which has an exit status and a part of the answer.
fn answers(run: &Run, table: &[(&[&str], i32, &str)]) {
    for (request, status, answer) in table {
        let output = run.subcommand("explain", request).exits(*status);
        assert!(output.stdout.contains(answer) && is_one_answer(&output.stdout), "{request:?}: {output:?}");
        assert_eq!(output.stderr, "");
    }
}

#[test]
fn explain_answers_with_verdict_rule_and_exit_status() {
    let table: [(&[&str], i32, &str); 19] = [
        (&["connect", "tcp", "10.0.0.2:80"], 1, "denied by /network/rules/1"),
        (&["connect", "tcp", "10.0.0.1:80"], 0, "allowed by /network/rules/0"),
        (&["connect", "udp", "10.0.0.2:80"], 0, "allowed by default"),
        (&["connect", "tcp", "10.0.0.2:91"], 0, "allowed by default"),
        (&["connect", "tcp", "[::ffff:10.0.0.2]:90"], 1, "denied by /network/rules/1"),
        // Where a connection to the unspecified address goes.
        (&["connect", "tcp", "0.0.0.0:80"], 1, "denied by /network/rules/1"),
        (&["connect", "tcp", "[::ffff:0.0.0.0]:80"], 1, "denied by /network/rules/1"),
        (&["connect", "tcp", "[::]:80"], 0, "allowed by default"),
        (&["device", "/dev/null", "r"], 0, "allowed by /devices/rules/0"),
        (&["device", "/dev/null", "rw"], 1, "denied by default"),
        (&["device", "/dev/zero", "r"], 1, "denied by default"),
        (&["device", "c", "1:3", "r"], 0, "allowed by /devices/rules/0"),
        (&["device", "b", "1:3", "r"], 1, "denied by default"),
        (&["device", "c", "4095:1048575", "m"], 1, "denied by default"),
        (&["sysctl", "kernel.hostname", "r"], 1, "denied by /sysctls/rules/0"),
        (&["sysctl", "kernel/hostname", "r"], 1, "denied by /sysctls/rules/0"),
        (&["sysctl", "/proc/sys/kernel/hostname", "r"], 1, "denied by /sysctls/rules/0"),
        (&["sysctl", "kernel.hostname", "w"], 1, "denied by /process"),
        (&["sysctl", "kernel.hostnam", "r"], 0, "allowed by default"),
    ];
    let run = Run::new(policy(), ["true"]);
    answers(&run, &table);
}

#[test]
fn explain_asks_at_which_port_something_arrives_where_that_matters() {
    let rule = json!({"action": "allow", "ops": ["receive"], "hosts": ["private"], "local_ports": [5432]});
    let run = Run::new(json!({"version": 1, "network": {"default": "deny", "rules": [rule]}}), ["true"]);
    let ask = |local: &[&str]| run.subcommand("explain", &[&["receive", "tcp", "10.1.2.3:40000"], local].concat());
    let output = ask(&["--local-port", "5432"]).exits(0);
    assert!(
        output.stdout.contains("receive tcp 10.1.2.3:40000 at port 5432: allowed by /network/rules/0"),
        "{output:?}"
    );
    assert!(ask(&["--local-port", "5433"]).exits(1).stdout.contains("denied by default"));
    assert!(ask(&[]).exits(125).stderr.contains("--local-port"));
}

#[test]
fn explain_says_what_is_denied_and_no_event() {
    let rules = json!([{"action": "allow", "protocols": ["tcp"], "ports": [443]}]);
    let run = Run::new(json!({"version": 1, "network": {"default": "deny", "rules": rules}}), ["true"]);
    let silent = "(counted, but not reported: programs try it to sort addresses for TCP)";
    for (port, is_silent) in [(443, true), (0, true), (53, false)] {
        let output = run.subcommand("explain", &["connect", "udp", &format!("10.0.0.1:{port}")]).exits(1);
        assert_eq!(output.stdout.contains(silent), is_silent, "{port}: {output:?}");
    }
}

#[test]
fn explain_answers_on_every_network_operation_and_on_sockets() {
    let policy = json!({"version": 1,
        "network": {"default": "deny", "rules": [
            {"action": "allow", "hosts": ["sandbox"], "ops": ["connect", "send", "receive"]},
            {"action": "deny", "ops": ["bind"], "hosts": ["10.0.0.1"]},
            {"action": "allow", "ops": ["bind"], "ports": ["ephemeral", "8000-8999"]},
            {"action": "allow", "ops": ["send"], "protocols": ["udp"], "ports": [53]},
            {"action": "allow", "ops": ["receive"], "hosts": ["private"]}
        ]},
        "sockets": {"default": "allow", "rules": [
            {"action": "allow", "type": "dgram", "protocol": "icmp"}, {"action": "deny", "family": "inet6"}
        ]}
    });
    let table: [(&[&str], i32, &str); 22] = [
        (&["connect", "tcp", "127.0.0.1:80"], 1, "denied by default"),
        (&["connect", "--sandbox", "tcp", "127.0.0.1:80"], 0, "allowed by /network/rules/0"),
        (&["send", "--sandbox", "udp", "[::1]:80"], 0, "allowed by /network/rules/0"),
        (&["receive", "--sandbox", "udp", "127.0.0.1:80"], 0, "allowed by /network/rules/0"),
        (&["bind", "tcp", "127.0.0.1:8080"], 0, "allowed by /network/rules/2"),
        (&["bind", "tcp", "10.0.0.1:8080"], 1, "denied by /network/rules/1"),
        (&["bind", "tcp", "0.0.0.0:8080"], 1, "denied by /network/rules/1"),
        (&["bind", "udp", "[::]:8080"], 1, "denied by /network/rules/1"),
        (&["bind", "udp", "[::1]:0"], 0, "allowed by /network/rules/2"),
        (&["bind", "udp", "[::1]:80"], 1, "denied by default"),
        (&["send", "udp", "9.9.9.9:53"], 0, "allowed by /network/rules/3"),
        (&["send", "udp", "9.9.9.9:54"], 1, "denied by default"),
        (&["connect", "udp", "9.9.9.9:53"], 1, "denied by default"),
        (&["receive", "tcp", "10.1.2.3:40000"], 0, "allowed by /network/rules/4"),
        (&["receive", "tcp", "11.1.2.3:40000"], 1, "denied by default"),
        (&["socket", "inet", "stream", "tcp"], 0, "allowed by default"),
        (&["socket", "inet6", "stream", "tcp"], 1, "denied by /sockets/rules/1"),
        (&["socket", "inet", "dgram", "icmp"], 0, "allowed by /sockets/rules/0"),
        (&["socket", "inet6", "dgram", "icmp"], 0, "allowed by /sockets/rules/0"),
        (&["socket", "inet", "raw", "icmp"], 1, "denied by fail-closed"),
        (&["socket", "inet", "dgram", "udplite"], 1, "denied by fail-closed"),
        (&["socket", "inet", "raw", "255"], 1, "denied by fail-closed"),
    ];
    let run = Run::new(policy, ["true"]);
    answers(&run, &table);
    for request in [
        &["socket", "unix", "stream", "tcp"][..],
        &["socket", "inet", "stream"],
        &["socket", "inet", "packet", "tcp"],
        &["socket", "inet", "raw", "no-such"],
        &["bind", "tcp", "8080"],
        &["send", "--sandbox"],
    ] {
        let output = run.subcommand("explain", request).exits(125);
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{request:?}: {output:?}");
    }
}

#[test]
fn explain_answers_on_hosts_by_their_names() {
    let policy = json!({"version": 1, "network": {"default": "deny", "nameservers": ["10.0.0.53"], "rules": [
        {"action": "deny", "hosts": ["no.example.org"]},
        {"action": "deny", "hosts": ["192.0.2.0/24"]},
        {"action": "deny", "ports": [25]},
        {"action": "allow", "hosts": ["api.example.org"], "protocols": ["tcp"], "ports": [443]},
        {"action": "allow", "hosts": ["*.example.org", "bücher.example"], "protocols": ["udp"], "ports": [53, 25]}
    ]}});
    let table: [(&[&str], i32, &str); 13] = [
        (
            &["connect", "tcp", "api.example.org:443"],
            0,
            "connect tcp api.example.org:443: allowed by /network/rules/3 (but /network/rules/1 is about some addresses that it may have)",
        ),
        (
            &["connect", "tcp", "API.example.org.:80"],
            1,
            "denied by default (api.example.org is allowed by tcp on port 443, or by udp on ports 53, 25)",
        ),
        (&["send", "udp", "x.y.example.org:53"], 0, "allowed by /network/rules/4"),
        (&["connect", "udp", "xn--bcher-kva.example:53"], 0, "allowed by /network/rules/4"),
        (&["connect", "udp", "bücher.example:53"], 0, "allowed by /network/rules/4"),
        (&["send", "udp", "x.example.org:25"], 1, "denied by /network/rules/2"),
        (
            &["connect", "tcp", "x.example.org:443"],
            1,
            "denied by default (*.example.org is allowed by udp on ports 53, 25)",
        ),
        (&["connect", "udp", "no.example.org:53"], 1, "denied by default (nameservers can't be asked for that name)"),
        (&["connect", "udp", "example.org:53"], 1, "denied by default (nameservers can't be asked for that name)"),
        (&["resolve", "api.example.org."], 0, "allowed by /network/rules/3"),
        (&["resolve", "API.example.ORG"], 0, "allowed by /network/rules/3"),
        (&["resolve", "bücher.example"], 0, "allowed by /network/rules/4"),
        (&["resolve", "no.example.org"], 1, "denied by default"),
    ];
    let run = Run::new(policy, ["true"]);
    for (request, status, answer) in table {
        let output = run.subcommand("explain", request).exits(status);
        // What is denied is explained below that.
        let first = output.stdout.lines().next().unwrap_or_default();
        assert!(
            first.contains(answer) && (status == 1 || first.len() + 1 == output.stdout.len()),
            "{request:?}: {output:?}"
        );
    }
    for (request, why) in [
        (&["bind", "tcp", "api.example.org:443"][..], "on addresses"),
        (&["connect", "tcp", "*.example.org:443"], "many names"),
        (&["connect", "tcp", "api.example.org:https"], "\"https\" is no port"),
        (&["connect", "tcp", "a_b.example.org:443"], "underscores"),
        (&["resolve", "10.0.0.1"], "no name"),
        (&["resolve", "*.example.org"], "\"*.example.org\" stands for many names; write one of them"),
    ] {
        let output = run.subcommand("explain", request).exits(125);
        assert!(output.stderr.contains(why), "{request:?}: {output:?}");
    }
    // As by an address, it says which rule is nearest and what would allow it.
    for (request, nearest, missed, rule) in [
        (
            &["connect", "tcp", "api.example.org:8443"],
            "/network/rules/3 (line ",
            "ports: 8443 is not in 443 of api.example.org",
            r#""hosts": ["api.example.org"], "ports": [8443]"#,
        ),
        (
            &["connect", "tcp", "www.example.net:8443"],
            "/network/rules/3 (line ",
            "hosts: www.example.net is not in api.example.org",
            r#""hosts": ["www.example.net"], "ports": [8443]"#,
        ),
    ] {
        let said = run.subcommand("explain", request).exits(1).stdout;
        assert!(said.contains(&format!("nearest   {nearest}")) && said.contains(missed), "{said}");
        assert!(said.contains(rule) && !said.contains("assumes"), "{said}");
    }
    // What resolvers do, no rule says.
    let implied = "implied (rules with host names imply it: ";
    for request in [&["bind", "udp", "0.0.0.0:0"][..], &["send", "udp", "10.0.0.53:53"]] {
        let said = run.subcommand("explain", request).exits(0).stdout;
        assert!(said.contains(&format!("allowed by {implied}")), "{said}");
    }
    let nothing = json!({"version": 1, "network": {"default": "deny"}});
    let nothing = Run::new(nothing, ["true"]);
    let said = nothing.subcommand("compare", &[run.policy().to_str().unwrap()]).exits(1).stdout;
    assert!(said.contains("bind udp 0.0.0.0, ::, port ephemeral\n    allowed by implied"), "{said}");
}

#[test]
fn explain_says_so_where_nothing_is_enforced() {
    let run = Run::new(json!({"version": 1}), ["true"]);
    let output = run.subcommand("explain", &["connect", "tcp", "10.0.0.1:80"]).success();
    assert!(output.stdout.contains("no section \"network\""), "{output:?}");
    let run = Run::new(json!({"version": 1, "mode": "audit", "network": {"default": "deny"}}), ["true"]);
    let output = run.subcommand("explain", &["connect", "tcp", "10.0.0.1:80"]).exits(1);
    assert!(output.stdout.contains("audit"), "{output:?}");
}

#[test]
fn requests_that_name_nothing_are_refused() {
    let table: [&[&str]; 17] = [
        &[],
        &["connect"],
        &["connect", "tcp"],
        &["connect", "tcp", "10.0.0.1"],
        &["connect", "tcp", "10.0.0.1:99999"],
        &["connect", "tcp", "::1:80"],
        &["connect", "sctp", "10.0.0.1:80"],
        &["connect", "tcp", "10.0.0.1:80", "more"],
        &["device", "/dev/null"],
        &["device", "/dev/no-such-device", "r"],
        &["device", "/etc/passwd", "r"],
        &["device", "x", "1:3", "r"],
        &["device", "c", "1", "r"],
        &["device", "c", "4096:1", "r"],
        &["device", "/dev/null", "x"],
        &["sysctl", "kernel.hostname", "x"],
        &["sysctl", "kernel.hostname"],
    ];
    let run = Run::new(policy(), ["true"]);
    for request in table {
        let output = run.subcommand("explain", request);
        assert_eq!((output.code(), output.stdout.as_str()), (Some(125), ""), "{request:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{request:?}");
    }
    let long = "k".repeat(128);
    let output = run.subcommand("explain", &["sysctl", &long, "r"]);
    assert!(output.code() != Some(0) && !output.stderr.is_empty(), "{output:?}");
}

#[test]
fn addresses_of_requests_are_told_with_what_to_write() {
    let run = Run::new(policy(), ["true"]);
    for (address, instead) in [
        ("localhost:80", "write 127.0.0.1:80 or [::1]:80"),
        ("::1:80", "in brackets, and the port behind them: [::1:80]:443, or [::1]:80"),
        ("fe80::1", "[fe80::1]:443"),
        ("1:2:3:4:5:6:7:8:80", "[1:2:3:4:5:6:7:8]:80"),
        ("10.0.0.1", "such as 10.0.0.1:443"),
        ("10.0.0.1:http", "\"http\" is no port"),
        ("[::1]:99999", "\"99999\" is no port"),
        ("[::1]", "write the port, too, such as [::1]:443"),
        ("http://localhost:80/", "this is a URL; write its host and port alone: 127.0.0.1:80"),
        ("https://user@api.example.org/v1?x#y", "alone: api.example.org:443"),
        ("HTTP://[fe80::1]/", "alone: [fe80::1]:80"),
        ("tcp://10.0.0.1:5432", "alone: 10.0.0.1:5432"),
        ("https://", "alone: HOST:443"),
        ("example.org:443", "getent ahosts example.org"),
    ] {
        let output = run.subcommand("explain", &["connect", "tcp", address]).exits(125);
        assert!(output.stderr.contains(instead), "{address}: {output:?}");
    }
}

/// A socket is known by its real path, so a rule on another one would never match.
#[test]
fn paths_of_sockets_that_lead_through_links_are_refused_and_resolved_in_requests() {
    let policy = |path: &OsStr| {
        let rules = json!([{"action": "allow", "paths": [path.to_str().unwrap()]}]);
        json!({"version": 1, "unix": {"default": "deny", "rules": rules}, "process": {"allow": ["delegation"]}})
    };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    fs::create_dir(folder.join("run")).unwrap();
    symlink("run", folder.join("var")).unwrap();
    let (real, linked) = (folder.join("run/docker.sock"), folder.join("var/docker.sock"));
    let refused = Run::new(policy(linked.as_os_str()), ["true"]);
    for output in [refused.subcommand("check", &[]), refused.subcommand("explain", &["unix", "connect", "/x"])] {
        let output = output.exits(125);
        let instead = format!("/unix/rules/0/paths/0: \"{}\" leads through a symbolic link", linked.display());
        assert!(output.stderr.contains(&instead), "{output:?}");
        assert!(output.stderr.contains(&format!("write \"{}\"", real.display())), "{output:?}");
    }
    let run = Run::new(policy(real.as_os_str()), ["true"]);
    let _ = run.subcommand("check", &[]).success();
    for path in [&real, &linked] {
        let output = run.subcommand("explain", &["unix", "connect", path.to_str().unwrap()]).success();
        assert!(
            output.stdout.contains("run/docker.sock") && output.stdout.contains("allowed by /unix/rules/0"),
            "{output:?}"
        );
    }
}

/// What rules allow may be refused by what keeps the command inside.
#[test]
fn explain_knows_what_keeps_a_command_inside() {
    let unix = json!({"version": 1, "sockets": {"default": "allow", "rules": [{"action": "allow", "type": "raw"}]}});
    let mut capable = unix.clone();
    capable["process"] = json!({"capabilities": ["CAP_MKNOD", "CAP_NET_RAW"], "allow": ["abstract-sockets"]});
    let mut audit = unix.clone();
    audit["mode"] = json!("audit");
    let cgroup_only = support::cgroup_only(&unix);
    for (request, status, words) in [
        (&["device", "c", "1:3", "rm"][..], 1, "denied by /process: mknod(2) takes CAP_MKNOD"),
        (&["device", "c", "1:3", "rw"], 0, "allowed"),
        (&["socket", "inet", "raw", "icmp"], 1, "denied by /process: a raw socket takes CAP_NET_RAW"),
        (&["socket", "inet", "dgram", "icmp"], 0, "allowed"),
        (&["unix", "connect", "@agent"], 0, "only if the socket is of the command's own processes"),
    ] {
        let output = Run::new(&unix, ["true"]).subcommand("explain", request).exits(status);
        assert!(output.stdout.contains(words) && is_one_answer(&output.stdout), "{request:?}: {output:?}");
        for policy in [&capable, &audit, &cgroup_only] {
            let output = Run::new(policy, ["true"]).subcommand("explain", request).success();
            assert!(
                !output.stdout.contains("/process") && !output.stdout.contains("only if"),
                "{request:?}: {output:?}"
            );
        }
    }
}
