//! One scenario with podman, for every kernel that `make test-kernels` tries: a container is guarded, from its start to its log.

use std::env;

use serde_json::json;
use support::container::{Cgroups, Engine, Machine, Root, guarded};

const ATTEMPTS: &str = "/bin/nc 127.0.0.1 9090; /bin/nc 127.0.0.1 9091; /bin/cat /proc/sys/kernel/hostname /dev/full";

/// In a virtual machine, root may raise limits, which Debian 12's crun wants.
fn engines() -> Vec<Engine> {
    let mut engines = vec![(Root::Own, Cgroups::Pure, "runc"), (Root::Newer, Cgroups::Pure, "crun")];
    if env::var_os("GUARD_KERNEL_LACKS").is_some() {
        engines.push((Root::Own, Cgroups::Pure, "crun"));
    }
    engines
}

#[test]
fn a_container_is_guarded_from_its_start_to_its_log() {
    for engine in engines() {
        let machine = Machine::new(engine);
        let policy = machine.write("policy.json", crate::POLICY);
        let flags = guarded(&policy, &machine.folder().join("log.json"));
        let flags = [&flags[0], flags[1].as_str(), "--detach", "--name=c1"];
        let _ = machine.container(&flags, &["/bin/sleep", "1000"]).good();
        let attempt = || {
            let said = machine.exec("c1", ATTEMPTS);
            let count = |words: &str| said.stderr.matches(words).count();
            assert_eq!((count("Operation not permitted"), count("Connection refused")), (3, 1), "{engine:?} {said:?}");
        };
        attempt();
        // Where there are no controllers, it can't succeed; the guard stays in any case.
        let controllers = machine.run("cat", &["/sys/fs/cgroup/cgroup.controllers"]).good().stdout;
        let said = machine.podman(&["update", "--cpus=0.5", "c1"]);
        assert_eq!(
            said.code == Some(0),
            controllers.split_whitespace().any(|name| name == "cpu"),
            "{engine:?} {said:?}"
        );
        attempt();
        let _ = machine.podman(&["rm", "--force", "--time=0", "c1"]).good();
        let log = machine.log("log.json");
        let ops: Vec<&str> =
            log["events"].as_array().unwrap().iter().map(|event| event["op"].as_str().unwrap()).collect();
        assert_eq!(ops, ["connect", "sysctl", "device"].repeat(2), "{engine:?} {log:#}");
        assert_eq!(log["enforced"]["exec"], json!(true));
        assert_eq!(machine.pins(), Vec::<String>::new(), "{engine:?}");
    }
}
