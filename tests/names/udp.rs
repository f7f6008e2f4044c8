//! Host names in network rules: what may be asked of a nameserver, and what its answers open. In a network namespace of its own, with a
//! nameserver in it.

use serde_json::{Value, json};
use support::{Cache, Probe, Run, cache::programs};

const NAMESERVER: &str = "10.0.0.53";

/// A policy that allows TCP connections to these names at port 8080, and what more there is in it.
fn names(hosts: &[&str], nameserver: &str, more: &Value) -> Value {
    let mut rules = vec![json!({"action": "allow", "hosts": hosts, "protocols": ["tcp"], "ports": [8080]})];
    rules.extend(more.as_array().unwrap().iter().cloned());
    json!({"version": 1, "network": {"default": "deny", "nameservers": [nameserver], "rules": rules}})
}

fn example() -> Value {
    names(&["api.example.org", "www.example.org", "many.example.org"], NAMESERVER, &json!([]))
}

#[test]
fn a_name_opens_its_addresses_and_no_others() {
    let output = Probe::name(NAMESERVER)
        // Before anybody has asked.
        .denied(["reach 203.0.113.7 8080", "reach 2001:db8::7 8080"])
        .allowed(["learn api.example.org 203.0.113.7 8080", "learn api.example.org 2001:db8::7 8080"])
        // By whatever other names, and however many there are.
        .allowed(["learn www.example.org 203.0.113.8 8080"])
        .denied(["reach 203.0.114.0 8080"])
        .allowed([
            "learn many.example.org 203.0.114.0 8080",
            "reach 203.0.117.249 8080",
            "reach ::ffff:203.0.115.7 8080",
        ])
        .denied(["reach 203.0.117.250 8080", "reach 203.0.113.9 8080"])
        // The rule is for a port and a protocol.
        .denied(["reach 203.0.113.7 8081", "datagram api.example.org 203.0.113.7 8080"])
        .check(&example());
    assert!(output.events().iter().all(|event| event["op"] != "resolve"), "{:#}", output.log);
}

#[test]
fn names_of_no_rule_are_not_asked_for() {
    let output = Probe::name(NAMESERVER)
        .denied(["ask other.example.org", "ask_to Other.Example.ORG", "ask example.org", "ask x.api.example.org 28"])
        .denied(["ask xapi.example.org", "ask secret", "ask api.example.org.secret.test 16"])
        .allowed(["ask_to API.example.org"])
        .check(&example());
    let names: Vec<(&str, &str)> = output
        .events()
        .iter()
        .map(|event| {
            assert_eq!((&event["op"], &event["rule"]), (&json!("resolve"), &json!("default")), "{event:#}");
            (event["name"]["name"].as_str().unwrap(), event["name"]["type"].as_str().unwrap())
        })
        .collect();
    // The first is asked for twice, by two processes' sockets but of one process.
    assert!(names.contains(&("other.example.org", "A")) && names.contains(&("x.api.example.org", "AAAA")), "{names:?}");
    assert!(names.contains(&("api.example.org.secret.test", "TXT")), "{names:?}");
    assert!(output.stderr.contains("resolve example.org A [default]"), "{}", output.stderr);
}

#[test]
fn an_asterisk_stands_for_labels_and_a_denied_name_is_an_exception() {
    let policy = json!({"version": 1, "network": {"default": "deny", "nameservers": [NAMESERVER], "rules": [
        {"action": "deny", "hosts": ["other.example.org"]},
        {"action": "allow", "hosts": ["*.example.org"], "ports": [8080]},
    ]}});
    let _ = Probe::name(NAMESERVER)
        .allowed(["learn api.example.org 203.0.113.7 8080", "ask a.b.example.org", "ask x.other.example.org"])
        .denied(["ask example.org", "ask other.example.org", "ask xexample.org"])
        .check(&policy);
}

#[test]
fn answers_lead_to_private_addresses_only_where_that_is_meant() {
    let near = [
        "learn near.example.org 10.1.2.3 8080",
        "learn near.example.org fd00::3 8080",
        "reach 127.0.0.1 8080",
        "reach ::ffff:10.1.2.4 8080",
    ];
    let meta = ["learn meta.example.org 169.254.169.254 8080", "learn meta.example.org fd00:ec2::254 8080"];
    let hosts = ["near.example.org", "meta.example.org"];
    let output =
        Probe::name(NAMESERVER).denied(near).denied(meta).besides(4).check(&names(&hosts, NAMESERVER, &json!([])));
    // Each answer is said as well.
    let answers: Vec<&Value> = output.events().iter().filter(|event| event["op"] == "resolve").collect();
    let said = |name: &str, kind: &str| {
        answers.iter().any(|event| {
            let name = json!({"name": name, "type": kind, "nameserver": NAMESERVER});
            let found = (&event["hook"], &event["name"], &event["rule"]);
            found == (&json!("ingress"), &name, &json!("fail-closed"))
                && event["reason"].as_str().unwrap().contains("\"private\": true")
        })
    };
    for name in hosts {
        assert!(said(name, "A") && said(name, "AAAA"), "{answers:#?}");
    }
    let mut private = names(&hosts, NAMESERVER, &json!([]));
    private["network"]["rules"][0]["private"] = json!(true);
    let _ = Probe::name(NAMESERVER).allowed(near).denied(meta).besides(2).check(&private);
}

#[test]
fn what_there_is_no_room_for_is_not_learnt_and_said() {
    let parts = (0..17).map(|part| format!("ask part-{part}.example.org"));
    // 16,384 are learnt: all of the first 16 answers, and some of the next.
    let output = Probe::name(NAMESERVER)
        .allowed(parts)
        .allowed(["reach 203.1.0.0 8080", "reach 203.16.3.231 8080"])
        .denied(["reach 203.17.3.231 8080"])
        .besides(1)
        .check(&names(&["*.example.org"], NAMESERVER, &json!([])));
    let event = output.events().iter().find(|event| event["op"] == "resolve").unwrap().clone();
    assert_eq!(
        (&event["name"]["name"], &event["hook"]),
        (&json!("part-16.example.org"), &json!("ingress")),
        "{event:#}"
    );
    assert!(event["reason"].as_str().unwrap().contains("no room"), "{event:#}");
}

/// What a socket may send to a nameserver that has been asked once.
fn forms(forms: &[&str]) -> Vec<String> {
    forms.iter().map(|form| format!("form {form} api.example.org")).collect()
}

#[test]
fn nothing_but_one_query_goes_to_a_nameserver() {
    for nameserver in [NAMESERVER, "fd00::53"] {
        let output = Probe::name(nameserver)
            .allowed(forms(&["plain", "upper", "edns", "cookie", "aaaa", "https"]))
            .denied(forms(&[
                "trailing",
                "behind_edns",
                "no_edns",
                "two",
                "none",
                "answer",
                "update",
                "chaos",
                "cut",
                "short",
            ]))
            .denied(forms(&["dot", "nul", "compressed", "long_label", "junk", "empty"]))
            .denied(["segment api.example.org", "zerocopy api.example.org", "late api.example.org"])
            .check(&names(&["api.example.org"], nameserver, &json!([])));
        assert!(output.events().iter().all(|event| event["rule"] == "fail-closed"), "{:#}", output.log);
    }
}

const LOOPBACK: &str = "127.0.0.53";

/// What is allowed of loopback, where a nameserver is.
fn near() -> Value {
    json!([{"action": "allow", "hosts": ["loopback"]}])
}

#[test]
fn rules_on_addresses_do_not_mean_nameservers() {
    let _ = Probe::name(LOOPBACK)
        .denied(["ask other.example.org", "ask_to other.example.org"])
        .allowed(["learn api.example.org 203.0.113.7 8080", "reach 127.0.0.1 9"])
        // Anybody who has asked does nothing else.
        .denied(["elsewhere api.example.org 127.0.0.1 9"])
        // Nor does it ask somebody on the same link who takes the address for his.
        .denied(["away api.example.org"])
        .check(&names(&["api.example.org"], LOOPBACK, &near()));
}

/// What is dropped of a TCP connection is not refused at once, but soon.
fn gives_up(attempt: &str) -> String {
    format!("{attempt}: ETIMEDOUT")
}

#[test]
fn names_are_asked_for_by_tcp() {
    for nameserver in [NAMESERVER, "fd00::53", LOOPBACK] {
        // Where it matters whose a socket is, packets to loopback are judged once more.
        let own = json!([{"action": "allow", "hosts": ["sandbox"]}]);
        let more = if nameserver == LOOPBACK { own } else { json!([]) };
        let hosts = ["api.example.org", "www.example.org", "many.example.org", "large.example.org"];
        let output = Probe::name(nameserver)
            .denied(["reach 203.0.113.7 8080"])
            .allowed(["tcp_learn api.example.org 203.0.113.7 8080", "tcp_learn api.example.org 2001:db8::7 8080"])
            .allowed(["tcp_learn www.example.org 203.0.113.8 8080", "tcp_both api.example.org"])
            .allowed(["ask large.example.org"])
            .denied(["reach 203.0.120.0 8080"])
            .allowed(["tcp_learn large.example.org 203.0.120.0 8080", "reach 203.0.120.89 8080"])
            .denied(["reach 203.0.120.90 8080"])
            .check(&names(&hosts, nameserver, &more));
        assert!(output.events().iter().all(|event| event["op"] != "resolve"), "{:#}", output.log);
    }
}

/// Where packets end, the command has a say in; so what a packet begins with is no message for that reason alone.
#[test]
fn what_is_inside_of_an_answer_by_tcp_is_no_answer() {
    let output = Probe::name(NAMESERVER)
        .denied(["tcp_learn inside.example.org 203.0.113.66 8080"])
        .allowed(["tcp_learn api.example.org 203.0.113.7 8080"])
        .check(&names(&["api.example.org", "inside.example.org"], NAMESERVER, &json!([])));
    assert!(output.events().iter().all(|event| event["op"] == "connect"), "{:#}", output.log);
}

#[test]
fn nothing_but_queries_goes_to_a_nameserver_by_tcp() {
    let refused = [
        "tcp other.example.org",
        "tcp_form trailing api.example.org",
        "tcp_form compressed api.example.org",
        "tcp_form dot api.example.org",
        "tcp_form junk api.example.org",
        "tcp_form empty api.example.org",
        "tcp_more api.example.org",
        "tcp_long api.example.org",
        "tcp_file api.example.org",
        "tcp_urgent api.example.org",
    ];
    let policy = names(&["api.example.org"], NAMESERVER, &json!([]));
    let run = Probe::name(NAMESERVER).denied(refused).allowed(["tcp_parts api.example.org"]).run(&policy);
    let bare = run.bare().success();
    assert!(!bare.stdout.contains("EPERM") && bare.stdout.contains("tcp other.example.org: ok\n"), "{}", bare.stdout);
    let output = run.output().success();
    let expected = refused.map(gives_up).join("\n") + "\ntcp_parts api.example.org: ok\n";
    assert_eq!(output.stdout, expected, "{:#}", output.log);
    // Each is said once, however often the kernel tries.
    assert_eq!(output.denied(), refused.len() as u64, "{:#}", output.log);
    let other = output.events().iter().find(|event| event["op"] == "resolve").unwrap().clone();
    assert_eq!((&other["name"]["name"], &other["rule"]), (&json!("other.example.org"), &json!("default")), "{other:#}");
}

#[test]
fn nobody_inside_can_answer() {
    let _ = Probe::name(LOOPBACK)
        .denied(["forge_bind api.example.org 203.0.113.9", "forge_message api.example.org 203.0.113.9"])
        .denied(["forge_options api.example.org 203.0.113.9", "reach 203.0.113.9 8080"])
        .check(&names(&["api.example.org"], LOOPBACK, &near()));
}

#[test]
fn any_query_passes_where_that_is_said_and_opens_nothing() {
    let mut policy = names(&["api.example.org"], NAMESERVER, &json!([]));
    policy["network"]["queries"] = json!("any");
    let _ = Probe::name(NAMESERVER)
        .allowed(["ask other.example.org", "form junk api.example.org", "learn api.example.org 203.0.113.7 8080"])
        .denied(["reach 203.0.113.9 8080"])
        .check(&policy);
}

#[test]
fn an_audit_lets_all_pass_and_says_what_it_was() {
    let mut policy = example();
    policy["mode"] = json!("audit");
    let output =
        Probe::name(NAMESERVER).allowed(["ask other.example.org", "reach 203.0.113.7 8080"]).audited(2).check(&policy);
    assert_eq!(output.events()[0]["name"]["name"], "other.example.org", "{:#}", output.log);
}

#[test]
fn queries_are_flows_like_others() {
    let mut policy = example();
    policy["record"] = json!("flows");
    let output = Probe::name(NAMESERVER).allowed(["ask api.example.org", "ask www.example.org"]).check(&policy);
    let flows = output.log["flows"].as_array().unwrap();
    let asked = flows.iter().find(|flow| flow["network"]["port"] == 53).unwrap_or_else(|| panic!("{:#}", output.log));
    assert_eq!(asked["network"]["address"], NAMESERVER);
    assert_eq!(asked["datagrams"], json!({"sent": 2, "received": 2}), "{asked:#}");
}

#[test]
fn what_one_run_has_learnt_is_nothing_to_the_next() {
    let (cache, policy) = (Cache::new(), example());
    let run = |attempt| Probe::name(NAMESERVER).within(&cache.wrapper()).allowed([attempt]).run(&policy);
    let first = run("learn api.example.org 203.0.113.7 8080").output().success();
    assert!(first.stdout.ends_with(": ECONNREFUSED\n"), "the control: {first:?}");
    let next = cache.reusing(&run("reach 203.0.113.7 8080"), &programs(&first));
    assert_eq!((next.stdout.as_str(), next.denied()), ("reach 203.0.113.7 8080: EPERM\n", 1));
}

/// What the C library's resolver and curl's do with dnsmasq, as resolv.conf and hosts say.
const REAL: &str = concat!(
    include_str!("../probes/resolver.sh"),
    r#"
resolver 'nameserver 10.0.0.53\nsearch corp.test\noptions ndots:5\n' '127.0.0.1 localhost\n10.0.0.77 db.internal.test\n'
dnsmasq --conf-file=/dev/null --no-hosts --no-resolv --bind-interfaces --listen-address=10.0.0.53 --pid-file="$folder/pid" \
    --user=root --address=/corp.test/ --host-record=api.example.org,203.0.113.7 --address=/other.example.org/203.0.113.8 \
    --cname=www.example.org,api.example.org --local=/example.org/
set +e
"$@"
status=$?
kill "$(cat "$folder/pid")"
rm -r "$folder"
exit $status
"#
);

#[test]
fn real_resolvers_and_a_real_nameserver_get_along() {
    const CLIENT: &str = r#"
import errno, socket, subprocess, time

def reach(name):
    begin = time.monotonic()
    try:
        socket.create_connection((name, 8080), 10)
    except socket.gaierror as error:
        outcome = {-2: "unknown", -3: "again"}.get(error.errno, error.errno)
    except OSError as error:
        outcome = errno.errorcode.get(error.errno, error)
    print(name, outcome, "at once" if time.monotonic() - begin < 1 else "late")

for name in ["api.example.org", "www.example.org", "db.internal.test", "other.example.org", "203.0.113.8"]:
    reach(name)
for name in ["api.example.org", "other.example.org"]:
    print("curl", name, subprocess.run(["curl", "-s", "-m", "10", f"http://{name}:8080/"]).returncode)
"#;
    let rules = json!([{"action": "allow", "hosts": ["api.example.org", "www.example.org", "db.internal.test"], "protocols": ["tcp"]}]);
    let policy = json!({"version": 1, "network": {"default": "deny", "rules": rules}});
    let run = Run::python(policy, CLIENT, &[]).through(["unshare", "--net", "--mount", "sh", "-c", REAL, "sh"]);
    // Nobody listens, so that what may be reached refuses. curl says 7 for that, and 6 for a name that it doesn't find.
    let known = "api.example.org ECONNREFUSED at once\nwww.example.org ECONNREFUSED at once\ndb.internal.test ECONNREFUSED at once\n";
    let bare = known.to_owned() + "other.example.org ECONNREFUSED at once\n203.0.113.8 ECONNREFUSED at once\n";
    assert_eq!(run.bare().success().stdout, bare + "curl api.example.org 7\ncurl other.example.org 7\n");
    let guarded = known.to_owned() + "other.example.org again at once\n203.0.113.8 EPERM at once\n";
    let output = run.output().success();
    assert_eq!(output.stdout, guarded + "curl api.example.org 7\ncurl other.example.org 6\n", "{:#}", output.log);
}
