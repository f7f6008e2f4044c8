//! What holds a container's programs on its cgroup: not the bpf file system, which can go while the container runs.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};
use support::container::{Cgroups, Engine, Machine, Root, guarded};

const ENGINES: [Engine; 3] =
    [(Root::Own, Cgroups::AsTheyAre, "runc"), (Root::Own, Cgroups::Pure, "runc"), (Root::Newer, Cgroups::Pure, "crun")];

const ATTEMPTS: &str = "/bin/nc 127.0.0.1 9090; /bin/echo x >/dev/full; /bin/cat /proc/sys/kernel/hostname";

/// A machine with a container c1 that does nothing, guarded. Its id.
fn machine(engine: Engine) -> (Machine, String) {
    let machine = Machine::new(engine);
    let flags = guarded(&machine.write("policy.json", crate::POLICY), &machine.folder().join("log.json"));
    let flags = [&flags[0], flags[1].as_str(), "--detach", "--name=c1"];
    let _ = machine.container(&flags, &["/bin/sleep", "1000"]).good();
    let id = machine.id("c1");
    (machine, id)
}

fn assert_guarded(machine: &Machine, when: &str) {
    let said = machine.exec("c1", ATTEMPTS);
    assert_eq!(said.stderr.matches("Operation not permitted").count(), 3, "{when} {said:?}");
}

#[test]
fn a_container_stays_guarded_when_the_bpf_file_system_goes() {
    for engine in ENGINES {
        let (machine, id) = machine(engine);
        assert_guarded(&machine, "at first");
        let _ = machine.run("umount", &["/sys/fs/bpf"]).good();
        assert_guarded(&machine, "without a bpf file system");
        let _ = machine.run("mount", &["-t", "bpf", "bpf", "/sys/fs/bpf"]).good();
        assert_guarded(&machine, "with another one");
        // What is lost are the records, and that is said.
        let state = json!({"ociVersion": "1.0.2", "id": id, "status": "stopped", "bundle": machine.folder()});
        let said = machine.call_hook(&state).good();
        assert!(said.stderr.contains(&format!("there is no log of {id}")), "{said:?}");
        assert_guarded(&machine, "after poststop");
        let _ = machine.podman(&["rm", "--force", "--time=0", "c1"]).good();
        assert!(!machine.folder().join("log.json").exists());
        assert_eq!(machine.cgroups(&id), Vec::<std::path::PathBuf>::new());
    }
}

/// Where no log can be written, what is kept of containers that have ended must not fill the kernel's memory.
#[test]
fn what_waits_for_its_log_is_bounded() {
    let machine = Machine::new(ENGINES[1]);
    let policy = format!("--annotation=io.guard-run.policy={}", machine.write("policy.json", crate::POLICY).display());
    let full =
        "mkdir -p /var/log/guard-run; mount -t tmpfs -o size=4k tmpfs /var/log/guard-run; echo x >/var/log/guard-run/x";
    let _ = machine.run("sh", &["-euc", full]).good();
    let waiting = || machine.pins().iter().filter(|pin| !pin.contains('/')).count();
    for _ in 0..34 {
        // The engine warns that poststop has failed, and goes on.
        let _ = machine.container(&[&policy, "--rm"], &["/bin/true"]);
    }
    let said = machine.gc();
    assert!(said.code == Some(125) && said.stderr.contains("No space left on device"), "{said:?}");
    assert_eq!(waiting(), 32);
    let _ = machine.run("umount", &["/var/log/guard-run"]).good();
    let said = machine.gc().good();
    assert!(said.stdout.ends_with("32 abandoned containers concluded\n"), "{said:?}");
    assert_eq!(waiting(), 0);
}

/// The programs on a container's cgroup by their names, sorted.
fn programs(cgroup: &Path) -> Vec<String> {
    let said = Command::new("bpftool").args(["--json", "cgroup", "show"]).arg(cgroup).output().unwrap();
    let shown: Vec<Value> = serde_json::from_slice(&said.stdout).unwrap();
    let names = shown.iter().map(|program| program["name"].as_str().unwrap_or_default().to_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("guard_")).collect();
    names.sort();
    names
}

/// A device program without a link is the only one that a runtime can take for its own.
#[test]
fn an_update_takes_no_more_than_what_stands_in_for_the_devices_link() {
    for engine in ENGINES {
        let (machine, id) = machine(engine);
        let cgroups = machine.cgroups(&id);
        let held = ["guard_connect4", "guard_connect6", "guard_device", "guard_sentinel", "guard_sysctl"];
        let before = programs(&cgroups[0]);
        let twice = before.iter().filter(|name| *name == "guard_device").count();
        assert_eq!(twice, 2, "{before:?}");
        let devices = json!({"devices": [{"allow": true, "access": "rwm"}]}).to_string();
        let devices = machine.write("devices.json", &devices);
        let said = machine.run(machine.runtime(), &["update", "--resources", devices.to_str().unwrap(), &id]);
        assert_eq!(said.code, Some(0), "{engine:?} {said:?}");
        let after = programs(&cgroups[0]);
        assert!(held.iter().all(|name| after.iter().any(|found| found == name)), "{engine:?} {after:?}");
        assert_guarded(&machine, "after an update");
        let _ = machine.podman(&["rm", "--force", "--time=0", "c1"]).good();
        let denied = machine.log("log.json")["events"].as_array().unwrap().len();
        assert_eq!(denied, 3, "each denial is recorded once");
    }
}

#[test]
fn a_guard_that_ends_before_its_cgroup_is_taken_off() {
    let (machine, id) = machine(ENGINES[1]);
    let cgroup = machine.cgroups(&id).remove(0);
    let before = programs(&cgroup);
    // The hook is called once more for the same container, with a policy that denies less.
    let policy =
        r#"{"version": 1, "sysctls": {"default": "allow", "rules": [{"action": "deny", "names": ["kernel/ostype"]}]}}"#;
    let flags = guarded(&machine.write("less.json", policy), &machine.folder().join("less.log"));
    let annotation = |flag: &str| {
        let (key, value) = flag.strip_prefix("--annotation=").unwrap().split_once('=').unwrap();
        (key.to_owned(), json!(value))
    };
    let annotations: serde_json::Map<String, Value> = flags.iter().map(|flag| annotation(flag)).collect();
    let pid = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    let pid: u32 = pid.lines().next().unwrap().parse().unwrap();
    machine.write("config.json", r#"{"process": {"args": ["sleep"], "capabilities": {}}}"#);
    let state = json!({
        "ociVersion": "1.0.2", "id": id, "status": "creating", "pid": pid, "bundle": machine.folder(), "annotations": annotations
    });
    let _ = machine.call_hook(&state).good();
    assert_eq!(programs(&cgroup), ["guard_sentinel", "guard_sysctl"], "before: {before:?}");
    let said = machine.exec("c1", "/bin/cat /proc/sys/kernel/ostype; /bin/cat /proc/sys/kernel/hostname");
    assert_eq!(said.stderr.matches("Operation not permitted").count(), 1, "{said:?}");
}
