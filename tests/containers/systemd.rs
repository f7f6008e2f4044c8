//! Containers whose cgroups systemd manages: inside a container that systemd runs in, with podman, crun and runc of its own.

use support::{
    container::{Cgroups, Machine, Root, Said, guarded, newer_root},
    eventually,
};

const POLICY: &str = r#"{
    "version": 1,
    "network": {"default": "allow", "rules": [{"action": "deny", "ops": ["connect"], "ports": [9090]}]},
    "devices": {"default": "allow", "rules": [{"action": "deny", "type": "c", "major": 1, "minor": 7}]}
}"#;

/// Runs a command beside systemd.
fn inside(machine: &Machine, words: &[&str]) -> Said {
    machine.podman(&[&["exec", "systemd"], words].concat())
}

#[test]
fn a_container_in_a_scope_or_a_unit_of_systemds_is_guarded_with_all_that_is_executed_in_it() {
    let machine = Machine::new((Root::Own, Cgroups::Pure, "runc"));
    let folder = machine.folder().display().to_string();
    let (volume, rootfs) = (format!("--volume={folder}:{folder}"), format!("{}:O", newer_root()));
    let flags =
        ["run", "--detach", "--name=systemd", "--systemd=always", "--privileged", "--pids-limit=0", "--network=none"];
    let more = ["--tmpfs=/var/lib/containers:rw,mode=755", &volume, "--rootfs", &rootfs, "/sbin/init"];
    let _ = machine.podman(&[&flags[..], &more].concat()).good();
    eventually("systemd is up", || {
        let state = inside(&machine, &["systemctl", "is-system-running"]).stdout;
        ["running", "degraded"].contains(&state.trim())
    });
    let _ = inside(&machine, &["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"]).good();
    let settings = format!(r#"{{"version": 1, "policies": ["{folder}"], "logs": ["{folder}"]}}"#);
    let settings = format!("mkdir -p /etc/guard-run && echo '{settings}' >/etc/guard-run/hook.json");
    let _ = inside(&machine, &["sh", "-c", &settings]).good();
    let policy = machine.write("policy.json", POLICY);
    let flags = guarded(&policy, &machine.folder().join("log.json"));
    let (hooks, containers) = (machine.hooks_dir().display().to_string(), machine.rootfs().display().to_string());
    for (runtime, split) in [("crun", false), ("runc", false), ("crun", true), ("runc", true)] {
        let podman_words = ["podman", "--runtime", runtime, "--cgroup-manager=systemd", "--hooks-dir", &hooks];
        let podman = |words: &[&str]| inside(&machine, &[&podman_words, words].concat());
        let run = ["run", "--detach", "--name=c1", "--network=none", "--pids-limit=0", &flags[0], &flags[1]];
        let image = ["--rootfs", &containers, "/bin/sleep", "1000"];
        let (service, unit) = (format!("{runtime}.service"), format!("--unit={runtime}"));
        let start = [
            "systemd-run",
            "--collect",
            &unit,
            "--property=Delegate=yes",
            "--property=Type=notify",
            "--property=NotifyAccess=all",
        ];
        let _ = if split {
            // In cgroups of the unit's own.
            let split = ["--sdnotify=conmon", "--cgroups=split"];
            inside(&machine, &[&start[..], &podman_words, &run, &split, &image].concat()).good()
        } else {
            podman(&[&run[..], &image].concat()).good()
        };
        let id = podman(&["inspect", "--format={{.Id}}", "c1"]).good().stdout;
        let id = id.trim();
        let attempt = || {
            let said = podman(&[
                "exec",
                "c1",
                "/bin/sh",
                "-c",
                "/bin/cat /dev/full >/said 2>&1; /bin/nc 127.0.0.1 9090 2>>/said",
            ]);
            let heard = std::fs::read_to_string(machine.rootfs().join("said")).unwrap_or_default();
            assert_eq!(heard.matches("Operation not permitted").count(), 2, "{runtime} {heard} {said:?}");
        };
        attempt();
        // systemd and the runtime rewrite the devices that the scope may use.
        let scope = format!("libpod-{id}.scope");
        let (scope, place) = if split {
            (&*service, format!("system.slice/{service}/libpod-payload-{id}"))
        } else {
            (&*scope, format!("machine.slice/{scope}"))
        };
        let _ = inside(&machine, &["systemctl", "set-property", "--runtime", scope, "DevicePolicy=auto"]).good();
        let _ = inside(&machine, &["systemctl", "daemon-reload"]).good();
        attempt();
        let _ = podman(&["rm", "--force", "--time=0", "c1"]).good();
        let log = machine.log("log.json");
        let cgroup = log["enforced"]["cgroup"].as_str().unwrap();
        assert!(cgroup.ends_with(&place), "{runtime} {cgroup}");
        let ops: Vec<&str> =
            log["events"].as_array().unwrap().iter().map(|event| event["op"].as_str().unwrap()).collect();
        assert_eq!(ops, ["device", "connect"].repeat(2), "{runtime} {log:#}");
        let left = inside(&machine, &["find", "/sys/fs/bpf/guard-run", "-mindepth", "1"]).good().stdout;
        assert_eq!(left, "", "{runtime}");
    }
}
