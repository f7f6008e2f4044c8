//! guard-run inside a container: what it says where it can't work, and that it works where the engine lets it, as the documents say.

use std::{fs, path::Path};

use support::{
    cgroup2_mount,
    container::{Cgroups, Engine, Machine, Root, Said},
    guard_run,
};

const ENGINES: [Engine; 2] = [(Root::Own, Cgroups::Pure, "runc"), (Root::Newer, Cgroups::Pure, "crun")];

const POLICY: &str = r#"{
    "version": 1,
    "network": {"default": "allow", "rules": [{"action": "deny", "ops": ["connect"], "ports": [9090]}]}
}"#;

/// What guard-run needs in a container, as its message and examples/containers/README.md have it.
const CAPABILITIES: &str = "--cap-add=BPF,NET_ADMIN,PERFMON,SYS_ADMIN";
const CGROUPS: &str = "--security-opt=unmask=/sys/fs/cgroup";
const VOLUME: &str = "--volume=/sys/fs/cgroup:/sys/fs/cgroup";

fn machine(engine: Engine) -> Machine {
    let machine = Machine::new(engine);
    fs::copy(guard_run(), machine.rootfs().join("bin/guard-run")).unwrap();
    fs::write(machine.rootfs().join("policy.json"), POLICY).unwrap();
    machine
}

/// Runs a command under guard-run in a container.
fn guarded(machine: &Machine, flags: &[&str]) -> Said {
    let inside = "/bin/guard-run --policy /policy.json --log /dev/null -- /bin/nc 127.0.0.1 9090";
    machine.script(&[&["--rm"], flags].concat(), inside)
}

#[test]
fn without_what_it_needs_it_says_in_one_line_what_that_is() {
    for engine in ENGINES {
        let machine = machine(engine);
        for flags in [&[][..], &[CAPABILITIES]] {
            let said = guarded(&machine, flags);
            assert_eq!((said.code, said.stderr.lines().count()), (Some(125), 1), "{engine:?} {flags:?} {said:?}");
            for words in ["this is a container", "guard-hook", CAPABILITIES, CGROUPS, VOLUME] {
                assert!(said.stderr.contains(words), "{engine:?} {flags:?} {words}: {said:?}");
            }
        }
        let said = guarded(&machine, &[CGROUPS]);
        assert_eq!((said.code, said.stderr.lines().count()), (Some(125), 1), "{engine:?} {said:?}");
        assert!(said.stderr.contains("it needs CAP_BPF"), "{engine:?} {said:?}");
    }
}

#[test]
fn with_what_it_needs_it_guards() {
    for engine in ENGINES {
        let machine = machine(engine);
        for flags in [&[CAPABILITIES, CGROUPS][..], &[CAPABILITIES, VOLUME], &["--privileged"]] {
            let said = guarded(&machine, flags);
            assert!(said.stderr.contains("Operation not permitted"), "{engine:?} {flags:?} {said:?}");
            let line = "guard-run: denied 1: connect tcp 127.0.0.1:9090 [/network/rules/0]";
            assert!(said.stderr.contains(line), "{engine:?} {flags:?} {said:?}");
        }
    }
}

/// Where the host has cgroups of version 1 as well, containers are shown these alone.
#[test]
fn on_a_host_with_version_1_it_names_the_recipe_and_that_works() {
    const UNIFIED: &str = "--volume=/sys/fs/cgroup/unified:/sys/fs/cgroup/unified";
    if cgroup2_mount() != Path::new("/sys/fs/cgroup/unified") {
        // This host's containers are shown version 2.
        return;
    }
    let machine = machine((Root::Own, Cgroups::AsTheyAre, "runc"));
    let said = guarded(&machine, &[]);
    assert_eq!((said.code, said.stderr.lines().count()), (Some(125), 1), "{said:?}");
    for words in
        ["no cgroup2 file system", "this is a container", "guard-hook", CAPABILITIES, UNIFIED, "docs/recipes/podman.md"]
    {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    let said = guarded(&machine, &[CAPABILITIES, UNIFIED]);
    assert!(said.stderr.contains("guard-run: denied 1: connect tcp 127.0.0.1:9090"), "{said:?}");
}
