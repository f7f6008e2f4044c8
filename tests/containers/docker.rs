//! Docker and Compose with guard-runtime, set up as examples/containers says.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use support::{
    container::{Cgroups, Machine, Root, Said},
    eventually, guard_run,
};

const POLICY: &str = r#"{
    "version": 1,
    "network": {"default": "allow", "rules": [{"action": "deny", "ops": ["connect"], "ports": [9090]}]},
    "devices": {"default": "allow", "rules": [{"action": "deny", "type": "c", "major": 1, "minor": 7}]}
}"#;

const ATTEMPTS: &str = "/bin/nc 127.0.0.1 9090; /bin/echo x >/dev/full";

/// A machine with Docker, and an image that has labels which name another policy and a file of root's as the log.
struct Docker {
    daemon: Child,
    machine: Machine,
}

impl Docker {
    /// Docker without networks of its own.
    fn new() -> Self {
        Self::with(&[], &["--bridge=none", "--iptables=false", "--ip6tables=false"])
    }

    /// Docker with its networks and resolver, in a network namespace.
    fn networked() -> Self {
        Self::with(&["unshare", "--net"], &[])
    }

    /// Docker that is started by a wrapper, with these flags.
    fn with(wrapper: &[&str], flags: &[&str]) -> Self {
        let machine = Machine::new((Root::Docker, Cgroups::Pure, "runc"));
        let folder = machine.folder().display().to_string();
        let runtime = machine.folder().join("guard-runtime-runc");
        fs::copy(guard_run().with_file_name("guard-runtime"), &runtime).unwrap();
        machine.write("policy.json", POLICY);
        machine.write("lax.json", r#"{"version": 1}"#);
        let example = include_str!("../../examples/containers/docker.json");
        let settings = machine.write("daemon.json", &example.replace("/usr/bin", &folder));
        let mut daemon = Command::new("setpriv");
        daemon.args(["--pdeathsig", "TERM", "nsenter", "--mount", "--root", "--wdns=/", "--target"]);
        daemon.arg(machine.keeper().to_string()).args(wrapper).arg("dockerd").args(flags);
        daemon.arg("--exec-opt=native.cgroupdriver=cgroupfs").arg(format!("--config-file={}", settings.display()));
        let log = fs::File::create(machine.folder().join("dockerd.log")).unwrap();
        let daemon = daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let docker = Self { daemon, machine };
        eventually("Docker is up", || docker.docker(&["info"]).code == Some(0));
        let labels = "LABEL io.guard-run.policy=/etc/guard-run/lax.json io.guard-run.log=/etc/ld.so.preload";
        let import = format!("tar -C {folder}/rootfs -c . | docker import --change '{labels}' - image");
        let _ = docker.machine.run("sh", &["-euc", &import]).good();
        docker
    }

    fn docker(&self, words: &[&str]) -> Said {
        self.machine.run("docker", words)
    }

    /// Runs a container of the guard's runtime, without a network of its own.
    fn run(&self, words: &[&str]) -> Said {
        self.docker(&[&["run", "--runtime=guard", "--network=host"], words].concat())
    }

    fn annotation(&self, name: &str, file: &str) -> String {
        format!("--annotation=io.guard-run.{name}={}", self.machine.folder().join(file).display())
    }

    fn assert_guarded(&self, container: &str) {
        let said = self.docker(&["exec", container, "/bin/sh", "-c", ATTEMPTS]);
        assert_eq!(said.stderr.matches("Operation not permitted").count(), 2, "{said:?}");
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let ids = self.docker(&["ps", "--all", "--quiet"]).stdout;
        let _ = self.docker(&[&["rm", "--force"], &ids.split_whitespace().collect::<Vec<_>>()[..]].concat());
        let _ = Command::new("kill").arg(self.daemon.id().to_string()).status();
        let _ = self.daemon.wait();
    }
}

fn denied(log: &Value) -> u64 {
    log["events"].as_array().unwrap().iter().map(|event| event["count"].as_u64().unwrap()).sum()
}

#[test]
fn a_container_is_guarded_by_its_annotations_and_never_by_labels() {
    let docker = Docker::new();
    let machine = &docker.machine;
    let (policy, log) = (docker.annotation("policy", "policy.json"), docker.annotation("log", "log.json"));
    let said = docker.run(&["--rm", &policy, "image", "/bin/true"]);
    assert!(said.code != Some(0) && said.stderr.contains("--cap-drop NET_RAW"), "{said:?}");
    let flags = ["--detach", "--name=c1", "--cap-drop=NET_RAW", &policy, &log, "image", "/bin/sleep", "1000"];
    let _ = docker.run(&flags).good();
    docker.assert_guarded("c1");
    let _ = docker.docker(&["update", "--restart=always", "c1"]).good();
    docker.assert_guarded("c1");
    let said = docker.docker(&["exec", "--privileged", "c1", "/bin/nc", "127.0.0.1", "9090"]);
    assert!(said.stderr.contains("Operation not permitted"), "{said:?}");
    let _ = docker.docker(&["restart", "--time=0", "c1"]).good();
    assert_eq!(denied(&machine.log("log.json")), 5);
    docker.assert_guarded("c1");
    let _ = docker.docker(&["rm", "--force", "c1"]).good();
    assert_eq!(denied(&machine.log("log.json")), 2);
    // Labels, the image's or the container's, ask for nothing.
    let label = "--label=io.guard-run.policy=/etc/guard-run/lax.json";
    let said = docker.run(&["--rm", label, "image", "/bin/nc", "127.0.0.1", "9090"]);
    assert!(said.stderr.contains("Connection refused"), "{said:?}");
    // And take nothing off: neither an annotation's policy nor the default one.
    let default = format!("cp {}/policy.json /etc/guard-run/default-policy.json", machine.folder().display());
    let _ = machine.run("sh", &["-euc", &default]).good();
    let said = docker.run(&["--rm", label, "--cap-drop=NET_RAW", "image", "/bin/nc", "127.0.0.1", "9090"]);
    assert!(said.stderr.contains("Operation not permitted"), "{said:?}");
    assert_eq!(machine.run("test", &["-e", "/etc/ld.so.preload"]).code, Some(1));
    assert_eq!(machine.pins(), Vec::<String>::new());
}

#[test]
fn a_service_of_compose_is_guarded_by_its_annotations() {
    let docker = Docker::new();
    let machine = &docker.machine;
    let path = |name: &str| machine.folder().join(name);
    let compose = json!({"name": "guarded", "services": {"web": {
        "image": "image", "runtime": "guard", "network_mode": "host", "cap_drop": ["NET_RAW"], "command": "sleep 1000",
        "annotations": {"io.guard-run.policy": path("policy.json"), "io.guard-run.log": path("log.json")},
        "labels": {"io.guard-run.policy": path("lax.json")}
    }}});
    let file = machine.write("compose.yaml", &compose.to_string());
    let compose = |words: &[&str]| docker.docker(&[&["compose", "--file", file.to_str().unwrap()], words].concat());
    let _ = compose(&["up", "--detach"]).good();
    docker.assert_guarded("guarded-web-1");
    let said = compose(&["exec", "web", "/bin/nc", "127.0.0.1", "9090"]);
    assert!(said.stderr.contains("Operation not permitted"), "{said:?}");
    let _ = compose(&["down", "--timeout=0"]).good();
    assert_eq!(denied(&machine.log("log.json")), 3);
    assert_eq!(machine.pins(), Vec::<String>::new());
}

/// Docker's resolver is at 127.0.0.11, and behind address translation; the engine's file says so.
#[test]
fn services_of_compose_reach_each_other_by_their_names() {
    const ATTEMPTS: &str = "address() { /bin/nslookup $1 2>&1 | /bin/busybox awk '/^Address:/ { found = $2 } END { print found }'; }; \
                            /bin/nc $1 9; found=$(address db); echo $found; /bin/nc $found 9; /bin/nc $found 10; \
                            /bin/nslookup other >/dev/null";
    let docker = Docker::networked();
    let machine = &docker.machine;
    let policy = json!({"version": 1, "network": {"default": "deny", "rules": [
        {"action": "allow", "hosts": ["db"], "protocols": ["tcp"], "ports": [9], "private": true}
    ]}});
    let policy = machine.write("names.json", &policy.to_string());
    let service = json!({"image": "image", "cap_drop": ["NET_RAW"], "command": "/bin/sleep 1000"});
    let with = |more: Value| {
        let mut service = service.clone();
        service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        service
    };
    let annotations = json!({"io.guard-run.policy": policy, "io.guard-run.log": machine.folder().join("log.json")});
    let compose = json!({"name": "named", "services": {
        "web": with(json!({"runtime": "guard", "annotations": annotations})),
        "control": service.clone(), "db": service.clone(), "other": service
    }});
    let file = machine.write("compose.yaml", &compose.to_string());
    let compose = |words: &[&str]| docker.docker(&[&["compose", "--file", file.to_str().unwrap()], words].concat());
    let _ = compose(&["up", "--detach"]).good();
    let inspect = ["inspect", "--format={{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "named-db-1"];
    let address = docker.docker(&inspect).good().stdout.trim().to_owned();
    let attempt = |name: &str| {
        let said = compose(&["exec", "--no-TTY", name, "/bin/sh", "-c", ATTEMPTS, "sh", &address]);
        assert_eq!(said.stdout.trim(), address, "{name} has found it: {said:?}");
        let why = ["Operation not permitted", "Connection refused"];
        let lines = said.stderr.lines().filter(|line| line.starts_with("nc:"));
        lines.filter_map(|line| why.into_iter().find(|why| line.contains(why))).collect::<Vec<_>>()
    };
    assert_eq!(attempt("control"), ["Connection refused"; 3]);
    assert_eq!(attempt("web"), ["Operation not permitted", "Connection refused", "Operation not permitted"]);
    let _ = compose(&["down", "--timeout=0"]).good();
    let log = machine.log("log.json");
    let events = log["events"].as_array().unwrap();
    assert!(events.iter().any(|event| event["op"] == "resolve" && event["name"]["name"] == "other"), "{log:#}");
    let ports = events.iter().filter(|event| event["op"] == "connect" && event["network"]["host"] == "db");
    assert_eq!(ports.count(), 2, "{log:#}");
}
