//! From its first instruction to its last process, a command is in a leaf that has the programs; then the leaf is gone.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use support::{
    Run, TcpServer, Yard,
    bpf::{EVERY_SECTION, HOOKS, every_section_alone, guard_of, map_exists, program_exists, programs_on},
    cgroup_of, cgroup_only, eventually, is_alive, processes_in,
};

const STORM: &str = env!("CARGO_BIN_EXE_storm");

/// Forbids one port.
fn without(port: u16) -> Value {
    json!({"version": 1, "network": {"default": "allow", "rules": [{"action": "deny", "ports": [port]}]}})
}

#[test]
fn the_command_is_in_a_leaf_below_the_callers_own_cgroup_with_all_programs_attached() {
    let yard = Yard::new();
    let (release, hold) = pipe();
    let mut running = Run::new(every_section_alone(), [STORM, "guard"])
        .flags(["--fresh"])
        .through(yard.wrapper())
        .stdin(hold)
        .start();
    running.wait_for("]\n[");
    // What the command itself saw: `storm` looks at its own cgroup.
    let stdout = running.stdout();
    let [leaf, programs, _maps] = stdout.lines().collect::<Vec<_>>()[..] else { panic!("{stdout}") };
    let programs: Vec<u32> = serde_json::from_str(programs).unwrap();
    assert_eq!(yard.leaves(), [PathBuf::from(leaf)]);
    assert_eq!(processes_in(leaf.as_ref()).len(), 1, "guard-run itself is outside");
    assert_eq!(cgroup_of(running.pid()).unwrap(), yard.path());
    for hook in HOOKS {
        let attached = programs_on(leaf.as_ref(), hook).unwrap();
        assert!(attached.len() == 1 && programs.contains(&attached[0]), "{hook:?}: {attached:?}");
    }
    drop(release);
    let output = running.wait().success();
    assert_eq!(output.log["enforced"]["cgroup"], leaf);
    for hook in output.log["enforced"]["hooks"].as_array().unwrap() {
        assert!(programs.iter().any(|program| hook["program_id"] == *program), "{hook}");
    }
    assert!(yard.leaves().is_empty());
}

#[test]
fn only_the_programs_that_the_policy_needs_are_attached_and_they_go_with_the_leaf() {
    let policy = json!({"version": 1, "devices": {"default": "allow", "rules": [{"action": "deny", "major": 4095}]}});
    let output = Run::new(cgroup_only(&policy), [STORM, "guard"]).flags(["--fresh"]).output().success();
    let [_leaf, programs, maps] = output.stdout.lines().collect::<Vec<_>>()[..] else { panic!("{}", output.stdout) };
    let (programs, maps): (Vec<u32>, Vec<u32>) =
        (serde_json::from_str(programs).unwrap(), serde_json::from_str(maps).unwrap());
    assert_eq!((programs.len(), maps.is_empty()), (1, false));
    eventually("its program is gone", || !program_exists(programs[0]));
    eventually("its maps are gone", || !maps.iter().any(|map| map_exists(*map)));
}

#[test]
fn the_first_instruction_is_in_the_leaf() {
    let output = Run::new(every_section_alone(), ["cat", "/proc/self/cgroup"]).output().success();
    let own = output.stdout.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    assert!(output.log["enforced"]["cgroup"].as_str().unwrap().ends_with(own), "{}", output.log["enforced"]);
    assert!(own.rsplit('/').next().unwrap().starts_with(&format!("guard-run.{}.", output.pid)), "{own}");
}

#[test]
fn a_guard_run_inside_another_makes_both_policies_hold() {
    let (outer, inner, free) =
        (TcpServer::start("127.0.0.1"), TcpServer::start("127.0.0.1"), TcpServer::start("127.0.0.1"));
    let [a, b, c] = [&outer, &inner, &free].map(|server| server.port().to_string());
    let yard = Yard::new();
    let policy = Run::new(without(inner.port()), ["true"]);
    let log = policy.log();
    let guard_run = support::guard_run();
    let words = [guard_run.as_os_str(), "--policy".as_ref(), policy.policy().as_os_str(), "--log".as_ref()]
        .into_iter()
        .chain([log.as_os_str(), "--".as_ref()])
        .chain([STORM, "tcp", &a, &b, &c].map(AsRef::as_ref))
        .map(ToOwned::to_owned)
        .collect::<Vec<std::ffi::OsString>>();
    // Loading programs takes what a command is not left with otherwise.
    let output = Run::new(cgroup_only(&without(outer.port())), words).through(yard.wrapper()).output().success();
    assert_eq!(output.stdout, format!("{a} denied\n{b} denied\n{c} connected\n"));
    assert_eq!((outer.accepted(), inner.accepted()), (0, 0));
    let inner_log: Value = serde_json::from_slice(&fs::read(log).unwrap()).unwrap();
    let (above, below) = (&output.log["enforced"]["cgroup"], &inner_log["enforced"]["cgroup"]);
    assert!(below.as_str().unwrap().starts_with(&format!("{}/", above.as_str().unwrap())), "{below} in {above}");
    assert_eq!((&output.events()[0]["network"]["port"], output.events().len()), (&json!(outer.port()), 1));
    assert_eq!(
        (&inner_log["events"][0]["network"]["port"], &inner_log["events"][1]),
        (&json!(inner.port()), &json!(null))
    );
    assert!(yard.leaves().is_empty());
}

#[test]
fn a_command_that_moves_into_cgroups_of_its_own_is_still_guarded_and_all_are_removed() {
    let (forbidden, free) = (TcpServer::start("127.0.0.1"), TcpServer::start("127.0.0.1"));
    let script = r#"
        set -e
        leaf=$1$(sed -n s/^0:://p /proc/self/cgroup)
        mkdir -p "$leaf"/one/two "$leaf"/three
        echo $$ > "$leaf"/one/two/cgroup.procs
        grep -q /one/two$ /proc/self/cgroup
        "$2" tcp "$3" "$4"
    "#;
    let mount = support::cgroup2_mount();
    let [a, b] = [&forbidden, &free].map(|server| server.port().to_string());
    let output = Run::shell(cgroup_only(&without(forbidden.port())), script, &[mount.to_str().unwrap(), STORM, &a, &b]);
    let output = output.output().success();
    assert_eq!(output.stdout, format!("{a} denied\n{b} connected\n"));
    assert_eq!(output.hook("connect4")["denied"], 1);
}

/// Leaves a process behind that writes "alone" when its parent is gone, and "done" once the file `$1` is there.
const LEAVES_ONE_BEHIND: &str = r#"
    (
        while kill -0 $$ 2>&-; do sleep 0.01; done; echo alone $BASHPID
        until [ -e "$1" ]; do sleep 0.01; done; echo done
    ) &
    exit 3
"#;

#[test]
fn the_default_is_to_wait_for_all_that_the_command_left_behind() {
    for flags in [&[][..], &["--wait", "tree"]] {
        let folder = tempfile::tempdir().unwrap();
        let go = folder.path().join("go");
        let mut running = Run::shell(EVERY_SECTION, LEAVES_ONE_BEHIND, &[go.to_str().unwrap()]).flags(flags).start();
        running.wait_for("alone");
        assert!(is_alive(running.pid()));
        fs::write(go, "").unwrap();
        let output = running.wait().exits(3);
        assert!(output.stdout.ends_with("done\n"), "{output:?}");
        assert_eq!(output.log["exit"], json!({"code": 3, "killed": 0}));
        support::assert_no_leaf(output.pid);
    }
}

#[test]
fn a_signal_that_means_the_end_ends_the_waiting() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        let mut running =
            Run::shell(EVERY_SECTION, LEAVES_ONE_BEHIND, &["/nowhere"]).through(["env", "--default-signal"]).start();
        running.wait_for("alone");
        // One that doesn't.
        running.signal(libc::SIGUSR1);
        running.signal(libc::SIGWINCH);
        running.signal(signal);
        let output = running.wait().exits(3);
        assert!(!output.stdout.contains("done"), "{output:?}");
        // Also its `sleep`, unless it was between two.
        assert!(output.log["exit"]["killed"].as_u64() >= Some(1), "{}", output.log["exit"]);
        support::assert_no_leaf(output.pid);
    }
}

#[test]
fn wait_child_kills_what_is_left_behind_and_says_how_many() {
    let script = r#"
        for i in 1 2; do sleep 1000 & echo $!; done
        setsid --fork bash -c 'echo $$; echo > "$0"; exec sleep 1000' "$1"
        until [ -s "$1" ]; do sleep 0.01; done
        exit 4
    "#;
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let run = Run::shell(EVERY_SECTION, script, &[ready.to_str().unwrap()]).flags(["--wait", "child"]);
    let output = run.output().exits(4);
    assert_eq!(output.log["exit"], json!({"code": 4, "killed": 3}));
    let left: Vec<u32> = output.stdout.lines().map(|line| line.parse().unwrap()).collect();
    assert!(left.len() == 3 && !left.iter().any(|pid| is_alive(*pid)), "{left:?}");
}

#[test]
fn wait_child_says_that_nothing_was_killed_where_nothing_was_left() {
    let output = Run::new(EVERY_SECTION, ["true"]).flags(["--wait", "child"]).output().success();
    assert_eq!(output.log["exit"], json!({"code": 0, "killed": 0}));
}

#[test]
fn a_command_that_is_not_there_leaves_nothing_behind() {
    let yard = Yard::new();
    let output = Run::new(EVERY_SECTION, ["/nowhere/at/all"]).through(yard.wrapper()).output().exits(127);
    assert!(output.log.is_null() && yard.leaves().is_empty() && guard_of(yard.path()).unwrap().is_empty());
}

/// A pipe that holds a command which reads its standard input, until the first is dropped.
fn pipe() -> (std::io::PipeWriter, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    (writer, reader)
}
