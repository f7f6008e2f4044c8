//! Rules on host names with `"tls"`: anybody who has the same address as a name is not reached by it. In a network namespace of its own, with a
//! nameserver and a server in it that writes down what comes.

use std::{fs, path::Path};

use serde_json::{Value, json};
use support::{PYTHON, Run, cgroup_only};

const NAMESERVER: &str = "10.0.0.53";

const UP: &str = "ip link set lo mtu 1500 up; for net in 10.0.0.0/8 203.0.0.0/8; do ip route add local $net dev lo; done; \
                  ip -6 addr add fd00::53 dev lo; echo 3 >/proc/sys/net/ipv4/tcp_fastopen; exec \"$@\"";

fn policy(more: &Value) -> Value {
    let mut rules = vec![json!({"action": "allow", "hosts": ["api.example.org"], "tls": true})];
    rules.extend(more.as_array().unwrap().iter().cloned());
    json!({"version": 1, "network": {"default": "deny", "nameservers": [NAMESERVER], "rules": rules}})
}

/// The run that makes these attempts (tests/probes/tls.py).
fn run(policy: &Value, attempts: &[&str], sink: &Path) -> Run {
    let program = concat!(include_str!("../probes/dns.py"), include_str!("../probes/tls.py"));
    let (nameserver, server) = (include_str!("../probes/nameserver.py"), include_str!("../probes/sink.py"));
    let wrapper =
        ["unshare", "--net", "sh", "-c", UP, "sh", PYTHON, "-c", nameserver, NAMESERVER, PYTHON, "-c", server];
    Run::python(cgroup_only(policy), program, attempts)
        .through(wrapper)
        .environment("NS", NAMESERVER)
        .environment("SINK", sink)
}

const ALLOWED: &str = "ok, some came";
/// What comes of a connection that sends nothing for half a second.
const REFUSED: &str = "ETIMEDOUT, nothing came";
/// What comes of one by MPTCP, which hopes for another path.
const GIVEN_UP_LATE: &str = "timed out, nothing came late";

/// Makes attempts, each with what comes of it under the policy. Without the guard, each reaches the server, unless something else is said.
fn check(policy: &Value, attempts: &[(&str, &str)], otherwise: &[(&str, &str)]) -> support::Output {
    let folder = tempfile::tempdir().unwrap();
    let sink = folder.path().join("sink");
    fs::write(&sink, "").unwrap();
    let words: Vec<&str> = attempts.iter().map(|(attempt, _)| *attempt).collect();
    let run = run(policy, &words, &sink);
    let (bare, output) = (run.bare().success(), run.output().success());
    let bare: Vec<String> = bare.stdout.lines().map(ToOwned::to_owned).collect();
    let control =
        |attempt: &str| otherwise.iter().find(|(other, _)| *other == attempt).map_or(ALLOWED, |(_, says)| says);
    let controls: Vec<String> = words.iter().map(|attempt| format!("{attempt}: {}", control(attempt))).collect();
    assert_eq!(bare, controls, "the control");
    let expected: Vec<String> = attempts.iter().map(|(attempt, says)| format!("{attempt}: {says}")).collect();
    let outcomes: Vec<String> = output.stdout.lines().map(ToOwned::to_owned).collect();
    assert_eq!(outcomes, expected, "{:#}", output.log);
    output
}

/// The names in the events, and how often each was refused.
fn refused(output: &support::Output) -> Vec<(Option<String>, u64)> {
    let events = output.events().iter().map(|event| {
        let expected =
            (&json!("connect"), &json!("egress"), &json!("fail-closed"), &json!("203.0.113.7"), &json!(8443));
        let network = &event["network"];
        let found = (&event["op"], &event["hook"], &event["rule"], &network["address"], &network["port"]);
        assert_eq!(found, expected, "{event:#}");
        (network["host"].as_str().map(ToOwned::to_owned), event["count"].as_u64().unwrap())
    });
    events.collect()
}

#[test]
fn a_connection_says_an_allowed_name_first_of_all() {
    let allowed =
        ["hello", "upper", "long", "halves", "bytes", "early", "more", "mptcp", "fast", "again", "thread", "passed"];
    let attempts: Vec<String> = allowed.iter().map(|how| format!("{how} api.example.org")).collect();
    let attempts: Vec<(&str, &str)> = attempts.iter().map(|attempt| (attempt.as_str(), ALLOWED)).collect();
    let output = check(&policy(&json!([])), &attempts, &[]);
    assert_eq!(output.denied(), 0, "{:#}", output.log);
}

#[test]
fn another_name_at_its_address_is_not_reached() {
    let output = check(
        &policy(&json!([])),
        &[
            ("hello other.example.org", REFUSED),
            ("hello xapi.example.org", REFUSED),
            ("long other.example.org", REFUSED),
            ("fast other.example.org", REFUSED),
            ("mptcp other.example.org", GIVEN_UP_LATE),
        ],
        &[],
    );
    let mut found = refused(&output);
    found.sort();
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(found, [(name("other.example.org"), 4), (name("xapi.example.org"), 1)]);
    assert!(output.stderr.contains("connect tcp 203.0.113.7:8443"), "{}", output.stderr);
}

#[test]
fn nothing_leaves_but_a_hello() {
    let refusing = [
        "http",
        "behind",
        "after",
        "anonymous",
        "dot",
        "urgent",
        "file",
        "splice",
        "zerocopy",
        "fast_http",
        "thread_http",
        "passed_http",
        "ends",
        "half",
    ];
    let attempts: Vec<String> = refusing.iter().map(|how| format!("{how} api.example.org")).collect();
    let attempts: Vec<(&str, &str)> = attempts.iter().map(|attempt| (attempt.as_str(), REFUSED)).collect();
    let output = check(&policy(&json!([])), &attempts, &[]);
    let found = refused(&output);
    assert!(found.iter().all(|(name, _)| name.is_none()), "{found:?}");
    assert_eq!(found.iter().map(|(_, count)| count).sum::<u64>(), refusing.len() as u64, "{:#}", output.log);
}

#[test]
fn a_socket_that_is_connected_again_begins_anew() {
    let output = check(&policy(&json!([])), &[("again_http api.example.org", "ETIMEDOUT, some came")], &[]);
    assert_eq!(refused(&output), [(None, 1)]);
}

#[test]
fn what_other_rules_allow_is_not_looked_at() {
    let other = |rule: Value| policy(&json!([rule]));
    let table = [
        (other(json!({"action": "allow", "hosts": ["203.0.113.0/24"]})), ALLOWED),
        (other(json!({"action": "allow", "hosts": ["203.0.113.0/24"], "ports": [8444]})), REFUSED),
        (other(json!({"action": "allow", "hosts": ["*.example.org"]})), ALLOWED),
        (other(json!({"action": "allow", "hosts": ["*.example.org"], "tls": true})), REFUSED),
    ];
    for (policy, expected) in table {
        let _ = check(&policy, &[("http api.example.org", expected)], &[]);
    }
    // A rule that denies comes before.
    let rules = json!([{"action": "deny", "hosts": ["203.0.113.7"]}, {"action": "allow", "hosts": ["203.0.113.0/24"]}]);
    let _ = check(&policy(&rules), &[("http api.example.org", REFUSED), ("hello api.example.org", ALLOWED)], &[]);
}

#[test]
fn neither_quic_nor_hidden_names() {
    let nothing = "ok, nothing came";
    let attempts = [
        ("quic api.example.org", "EPERM, nothing came"),
        ("quic_connected api.example.org", "EPERM, nothing came"),
        ("secret api.example.org", "EPERM, nothing came"),
        ("secret_service api.example.org", "EPERM, nothing came"),
        ("ask api.example.org", nothing),
    ];
    let controls: Vec<(&str, &str)> = attempts.iter().map(|(attempt, _)| (*attempt, nothing)).collect();
    let output = check(&policy(&json!([])), &attempts, &controls);
    let event = output.events().iter().find(|event| event["name"]["type"] == "HTTPS").unwrap().clone();
    assert_eq!((&event["op"], &event["name"]["nameserver"]), (&json!("resolve"), &json!(NAMESERVER)), "{event:#}");
    assert!(event["reason"].as_str().unwrap().contains("ECH"), "{event:#}");
}

#[test]
fn an_audit_says_what_would_have_been() {
    let mut policy = policy(&json!([]));
    policy["mode"] = json!("audit");
    let attempts =
        [("http api.example.org", ALLOWED), ("hello other.example.org", ALLOWED), ("hello api.example.org", ALLOWED)];
    let output = check(&policy, &attempts, &[]);
    let mut found = refused(&output);
    found.sort();
    assert_eq!(found, [(None, 1), (Some("other.example.org".to_owned()), 1)]);
}

/// What real programs do, with `openssl s_server` at two names' address. With a group that they don't begin with, it asks for another
/// ClientHello.
const REAL: &str = concat!(
    include_str!("../probes/resolver.sh"),
    r#"
resolver 'nameserver 10.0.0.53\n' '127.0.0.1 localhost\n'
ip link set lo mtu 1500
dnsmasq --conf-file=/dev/null --no-hosts --no-resolv --bind-interfaces --listen-address=10.0.0.53 --pid-file="$folder/pid" \
    --user=root --host-record=api.example.org,203.0.113.7 --host-record=other.example.org,203.0.113.7 --local=/example.org/
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=test -days 2 -keyout "$folder/key" -out "$folder/cert" 2>/dev/null
for server in "443 P-256:X25519" "444 P-384"; do
    set -- "$server" "$@"
    port=${1%% *} groups=${1#* }
    shift
    openssl s_server -www -quiet -accept "203.0.113.7:$port" -key "$folder/key" -cert "$folder/cert" -groups "$groups" >/dev/null 2>&1 &
    echo $! >>"$folder/servers"
    until ss -Hltn "sport = :$port" | grep -q .; do sleep 0.05; done
done
set +e
"$@"
status=$?
kill "$(cat "$folder/pid")" $(cat "$folder/servers")
rm -r "$folder"
exit $status
"#
);

#[test]
fn real_clients_and_a_real_server_get_along() {
    const CLIENT: &str = r#"
import ssl, subprocess, time, urllib.request

def status(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode

def python(url):
    context = ssl._create_unverified_context()
    try:
        return urllib.request.urlopen(url, timeout=10, context=context).status
    except OSError:
        return "failed"

def curl(*arguments):
    return status("curl", "-sk", "-m", "10", *arguments)

api, other = "https://api.example.org", "203.0.113.7"
for port in [443, 444]:
    for name, action in {
        "curl": lambda: curl(f"{api}:{port}/"),
        "curl 1.2": lambda: curl("--tls-max", "1.2", f"{api}:{port}/"),
        "openssl": lambda: status("openssl", "s_client", "-connect", f"{other}:{port}", "-servername", "api.example.org"),
        "python": lambda: python(f"{api}:{port}/"),
        "other": lambda: curl("--resolve", f"other.example.org:{port}:{other}", f"https://other.example.org:{port}/"),
        "no name": lambda: curl(f"https://{other}:{port}/"),
        "http": lambda: curl(f"http://api.example.org:{port}/"),
    }.items():
        begin = time.monotonic()
        outcome = action()
        print(port, name, outcome, "soon" if time.monotonic() - begin < 1.5 else "late")
"#;
    let policy = json!({"version": 1, "network": {"default": "deny", "rules": [
        {"action": "allow", "hosts": ["api.example.org"], "ports": ["443-444"], "tls": true}]}});
    let run = Run::python(policy, CLIENT, &[]).through(["unshare", "--net", "--mount", "sh", "-c", REAL, "sh"]);
    // curl says 35 for a connection that fails before TLS has begun; to HTTP, s_server says something, or nothing.
    let allowed = ["curl 0 soon", "curl 1.2 0 soon", "openssl 0 soon", "python 200 soon"];
    let bare = run.bare().success();
    for port in ["443", "444"] {
        for line in allowed.iter().chain(&["other 0 soon", "no name 0 soon"]) {
            assert!(bare.stdout.contains(&format!("{port} {line}\n")), "{}", bare.stdout);
        }
    }
    let output = run.output().success();
    for port in ["443", "444"] {
        for line in allowed.iter().chain(&["other 35 soon", "no name 35 soon", "http 56 soon"]) {
            assert!(output.stdout.contains(&format!("{port} {line}\n")), "{}\n{:#}", output.stdout, output.log);
        }
    }
    let names =
        output.events().iter().map(|event| event["network"]["host"].as_str().unwrap_or("none")).collect::<Vec<_>>();
    assert!(names.contains(&"other.example.org") && names.contains(&"none"), "{names:?}");
}
