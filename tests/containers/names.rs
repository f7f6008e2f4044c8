//! Host names in the policies of containers: their engines say whom they are asked of.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use support::{
    PYTHON,
    container::{Cgroups, Engine, Machine, Root, guarded},
    eventually,
};

/// podman 4 writes a container's resolv.conf and hosts before its runtime calls hooks, podman 5 afterwards.
const BEFORE: Engine = (Root::Own, Cgroups::Pure, "runc");
const AFTERWARDS: Engine = (Root::Newer, Cgroups::Pure, "crun");

/// Where the nameserver is. Its near.example.org has 127.0.0.1 among its addresses.
const NAMESERVER: &str = "127.71.6.53";

/// A nameserver on this machine's loopback, for as long as this value is there.
struct Nameserver(Child);

impl Nameserver {
    fn start() -> Self {
        let mut command = Command::new(PYTHON);
        command.args(["-c", include_str!("../probes/nameserver.py"), NAMESERVER, "sleep", "600"]);
        let server = Self(command.stdin(Stdio::null()).spawn().unwrap());
        eventually("the nameserver is up", || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
            let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01";
            socket.send_to(query, (NAMESERVER, 53)).is_ok() && socket.recv(&mut [0; 512]).is_ok()
        });
        server
    }
}

impl Drop for Nameserver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn policy() -> Value {
    json!({"version": 1, "network": {"default": "deny", "rules": [
        {"action": "allow", "hosts": ["near.example.org", "db.example.org"], "protocols": ["tcp"], "ports": [9], "private": true}
    ]}})
}

/// Tries to connect before and after asking for a name, then to ask for another one, and to connect to what the engine has in /etc/hosts.
const ATTEMPTS: &str = "/bin/nc 127.0.0.1 9; /bin/nslookup near.example.org >/dev/null; /bin/nc 127.0.0.1 9; \
                        /bin/nslookup other.example.org >/dev/null; /bin/nc 127.71.6.8 9; /bin/nc 127.71.6.9 9; echo done";

/// What nc(1) says to each attempt to connect.
fn outcomes(stderr: &str) -> Vec<&str> {
    let why = ["Operation not permitted", "Connection refused"];
    stderr
        .lines()
        .filter(|line| line.contains("nc:"))
        .filter_map(|line| why.into_iter().find(|why| line.contains(why)))
        .collect()
}

#[test]
fn a_container_asks_whom_its_engine_names() {
    let _nameserver = Nameserver::start();
    for engine in [BEFORE, AFTERWARDS] {
        eprintln!("{engine:?}");
        let is_known = engine == BEFORE;
        let mut policy = policy();
        if !is_known {
            policy["network"]["nameservers"] = json!([NAMESERVER]);
        }
        let machine = Machine::new(engine);
        let policy = machine.write("policy.json", &policy.to_string());
        let annotations = guarded(&policy, &machine.folder().join("log.json"));
        let dns = format!("--dns={NAMESERVER}");
        let network = [
            "--rm",
            "--network=host",
            &dns,
            "--add-host=db.example.org:127.71.6.8",
            "--add-host=else.example.org:127.71.6.9",
        ];
        let (refused, denied) = ("Connection refused", "Operation not permitted");
        let control = machine.script(&network, ATTEMPTS).good();
        assert_eq!(outcomes(&control.stderr), [refused; 4], "the control: {control:?}");
        // crun throws away what hooks say, unless it is told where to.
        let said_by_hook = format!("--annotation=run.oci.hooks.stderr={}", machine.folder().join("hook.txt").display());
        let flags = [&network[..], &[&*annotations[0], &*annotations[1], &*said_by_hook]].concat();
        let said = machine.script(&flags, ATTEMPTS);
        let hook = std::fs::read_to_string(machine.folder().join("hook.txt")).unwrap_or_default();
        assert_eq!(said.code, Some(0), "{said:?} {hook}");
        assert_eq!(
            outcomes(&said.stderr),
            [denied, refused, if is_known { refused } else { denied }, denied],
            "{said:?}"
        );
        let log = machine.log("log.json");
        let events = log["events"].as_array().unwrap();
        let event = |op: &str, address: &str| {
            events
                .iter()
                .find(|event| event["op"] == op && (address.is_empty() || event["network"]["address"] == address))
        };
        assert_eq!(event("resolve", "").unwrap()["name"]["name"], "other.example.org", "{log:#}");
        // By then, it is known whose address it was.
        assert_eq!(event("connect", "127.0.0.1").unwrap()["network"]["host"], "near.example.org", "{log:#}");
        assert_eq!(event("connect", "127.71.6.9").unwrap()["network"]["host"], Value::Null, "{log:#}");
        assert_eq!(machine.pins(), Vec::<String>::new());
    }
}

#[test]
fn a_container_whose_nameserver_is_not_known_yet_does_not_start() {
    let machine = Machine::new(AFTERWARDS);
    let annotations = guarded(&machine.write("policy.json", &policy().to_string()), &machine.folder().join("log.json"));
    let hook = machine.folder().join("hook.txt");
    let said_by_hook = format!("--annotation=run.oci.hooks.stderr={}", hook.display());
    let flags = ["--rm", "--network=host", &*annotations[0], &*annotations[1], &*said_by_hook];
    let said = machine.script(&flags, "echo ran");
    assert!(said.code != Some(0) && !said.stdout.contains("ran"), "{said:?}");
    let said = std::fs::read_to_string(hook).unwrap();
    assert!(said.contains("written nothing") && said.contains("nobody to ask"), "{said}");
}

/// A container that chose its nameserver would choose what addresses the policy's names have.
#[test]
fn a_container_has_no_nameserver_that_nobody_trusts() {
    let machine = Machine::new(BEFORE);
    let annotations = |policy: &Value| {
        let policy = machine.write("policy.json", &policy.to_string());
        guarded(&policy, &machine.folder().join("log.json"))
    };
    let far = ["--rm", "--network=host", "--dns=203.0.113.53"];
    let [policy_of, log] = annotations(&policy());
    let said = machine.script(&[&far[..], &[&*policy_of, &*log]].concat(), "echo ran");
    assert!(said.code != Some(0) && !said.stdout.contains("ran"), "{said:?}");
    assert!(said.stderr.contains("nobody to ask"), "{said:?}");
    // Unless the policy says so.
    let mut named = policy();
    named["network"]["nameservers"] = json!(["203.0.113.53"]);
    let [policy_of, log] = annotations(&named);
    let said = machine.script(&[&far[..], &[&*policy_of, &*log]].concat(), "echo ran").good();
    assert_eq!(said.stdout, "ran\n");
}
