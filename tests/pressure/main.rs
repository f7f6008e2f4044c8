//! Under pressure every denial is counted, nothing grows, and nothing is left behind.

use std::{collections::BTreeSet, fs, time::Duration};

use serde_json::{Value, json};
use support::{
    Output, Run, Running, Yard,
    bpf::{EVERY_SECTION, HOOKS, every_section_alone, map_exists, program_exists},
    eventually, is_stopped, status_of,
};

const STORM: &str = env!("CARGO_BIN_EXE_storm");

/// In KiB, of a development build: of its file alone, 17 MiB are in memory. What denials take is what comes on top.
const MAX_MEMORY: u64 = 21 << 10;

/// How many KiB of data denials may take together. The code that explains the first one to the command comes on top.
const MAX_OF_DENIALS: u64 = 256;

/// In bytes.
const MAX_LOG: u64 = 64 << 10;

/// How many kinds of denials the kernel side tells apart.
const KINDS: u64 = 4096;

/// Longer than any of these takes on a busy machine.
const LONG: Duration = Duration::from_secs(300);

/// No port is allowed but one.
fn only(port: u16) -> Value {
    json!({"version": 1, "network": {"default": "deny", "rules": [
        {"action": "allow", "ports": [port]}, {"action": "allow", "ops": ["bind"]}
    ]}})
}

/// The sum of what the hooks have refused, and of what the events say.
fn refused(output: &Output) -> (u64, u64) {
    let hooks = output.log["enforced"]["hooks"].as_array().unwrap().iter();
    let counts = output.events().iter().map(|event| event["count"].as_u64().unwrap());
    (hooks.map(|hook| hook["denied"].as_u64().unwrap()).sum(), counts.sum())
}

/// The most memory that guard-run has had so far, in KiB.
fn memory(running: &Running) -> u64 {
    kib(running, "VmHWM")
}

/// How much data guard-run has in memory, in KiB.
fn data(running: &Running) -> u64 {
    kib(running, "RssAnon")
}

/// What the kernel tells of guard-run's memory under this name, in KiB (proc_pid_status(5)).
fn kib(running: &Running, name: &str) -> u64 {
    let memory = status_of(running.pid(), name).expect("it is running");
    memory.strip_suffix(" kB").unwrap().parse().unwrap()
}

#[test]
fn ten_million_denials_from_several_processes_are_all_counted() {
    let (reader, writer) = std::io::pipe().unwrap();
    let script = r#"echo ready; read -r; "$1" udp 4 2500000 9 || exit; echo over; read -r; :"#;
    let run = Run::shell(only(1), script, &[STORM]).stdin(reader).limit(LONG);
    let mut running = run.start();
    running.wait_for("ready");
    let before = data(&running);
    let mut writer = writer;
    std::io::Write::write_all(&mut writer, b"\n").unwrap();
    running.wait_for("over");
    let (after, most) = (data(&running), memory(&running));
    drop(writer);
    let output = running.wait().success();
    assert_eq!(refused(&output), (10_000_000, 10_000_000));
    assert_eq!((&output.log["lost"], output.events().len()), (&json!(0), 4));
    assert!(output.events().iter().all(|event| event["count"] == 2_500_000), "{:#?}", output.events());
    assert!(output.stderr.starts_with("guard-run: denied 10000000: "), "{}", output.stderr);
    let log = fs::metadata(run.log()).unwrap().len();
    assert!(log < MAX_LOG, "the log has {log} bytes");
    println!("data: {before} KiB before, {after} KiB after; memory: {most} KiB; log: {log} bytes");
    assert!(most <= MAX_MEMORY, "memory: {most} KiB");
    assert!(after <= before + MAX_OF_DENIALS, "data: {before} KiB before, {after} KiB after");
}

#[test]
fn of_more_kinds_of_denials_than_there_is_room_for_the_rest_is_counted_and_called_lost() {
    let (reader, writer) = std::io::pipe().unwrap();
    // What has a record goes on being counted in it when there is no room left.
    let script = r#""$1" ports 1000 6000 && "$1" ports 1000 1 && echo over; read -r; :"#;
    let mut running = Run::shell(only(1), script, &[STORM]).stdin(reader).start();
    running.wait_for("over");
    let memory = memory(&running);
    drop(writer);
    let output = running.wait().success();
    let lost = output.log["lost"].as_u64().unwrap();
    let (hooks, events) = refused(&output);
    assert_eq!((hooks, events + lost), (6001, 6001));
    assert_eq!(output.hook("connect4")["unrecorded"], lost);
    // The kernel hands room out to its CPUs in advance, so not every last place can be had.
    let kept = u64::try_from(output.events().len()).unwrap();
    assert!(kept <= KINDS && kept > KINDS - 512, "{kept} events");
    assert!(output.stderr.contains(&format!("; {lost} of them counted but not recorded")), "{}", output.stderr);
    println!("memory: {memory} KiB; {kept} events, {lost} lost");
    assert!(memory <= MAX_MEMORY, "memory: {memory} KiB");
}

/// As a build starts them, or a shell script: what else is denied stays explained.
#[test]
fn many_short_processes_that_are_denied_the_same_leave_room_for_the_rest() {
    const PROCESSES: u64 = 4500;
    let program = r#"
import os, socket, sys
def denied(port):
    try: socket.create_connection(("127.0.0.1", port))
    except PermissionError: return
    sys.exit("not denied")
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        denied(9)
        os._exit(0)
    assert os.wait()[1] == 0
denied(10)
"#;
    let output = Run::python(only(1), program, &[&PROCESSES.to_string()]).limit(LONG).output().success();
    assert_eq!((refused(&output), &output.log["lost"]), ((PROCESSES + 1, PROCESSES + 1), &json!(0)));
    let of_port = |port: u64| -> Vec<&Value> {
        output.events().iter().filter(|event| event["network"]["port"] == port).collect()
    };
    let [rest] = &of_port(10)[..] else { panic!("{:#?}", of_port(10)) };
    assert_eq!((&rest["count"], &rest["process"]["comm"]), (&json!(1), &json!("python3")));
    let (together, alone): (Vec<&Value>, Vec<&Value>) =
        of_port(9).into_iter().partition(|event| event["process"]["pid"].is_null());
    // Ids of processes may come again.
    assert!(alone.len() > 2000, "{} alone", alone.len());
    let [together] = together[..] else { panic!("{together:#?}") };
    let alone: u64 = alone.iter().map(|event| event["count"].as_u64().unwrap()).sum();
    assert_eq!(together["count"], PROCESSES - alone);
}

#[test]
fn a_full_record_of_one_section_leaves_the_others_exact() {
    let policy = json!({
        "version": 1,
        "network": {"default": "deny", "rules": [{"action": "allow", "ops": ["bind"]}]},
        "devices": {"default": "allow", "rules": [{"action": "deny", "type": "c", "major": 1, "minor": 5}]},
    });
    let script = r#""$1" ports 1000 5000; for i in {1..100}; do : < /dev/zero; done 2>&-; :"#;
    let output = Run::shell(policy, script, &[STORM]).output().success();
    assert_eq!(output.hook("connect4")["denied"], 5000);
    assert_eq!((&output.hook("device")["denied"], &output.hook("device")["unrecorded"]), (&json!(100), &json!(0)));
    let device = output.events().iter().find(|event| event["op"] == "device").unwrap();
    assert_eq!(device["count"], 100);
}

#[test]
fn what_does_not_fit_into_the_queue_to_a_stopped_guard_run_is_in_the_log_all_the_same() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    // The queue has 128 KiB for records of 40 bytes.
    let script = r#"echo ready; read -r; "$1" ports 1000 4000 && echo over"#;
    let run = Run::shell(only(1), script, &[STORM]).stdin(reader);
    let lines = run.folder().join("events");
    let run = run.flags(["--events".as_ref(), lines.as_os_str()]);
    let mut running = run.start();
    running.wait_for("ready");
    running.signal(libc::SIGSTOP);
    eventually("guard-run is stopped", || is_stopped(running.pid()));
    std::io::Write::write_all(&mut writer, b"\n").unwrap();
    running.wait_for("over");
    running.signal(libc::SIGCONT);
    let output = running.wait().success();
    assert_eq!((refused(&output), &output.log["lost"]), ((4000, 4000), &json!(0)));
    let ports = |events: &[Value]| -> BTreeSet<u64> {
        events.iter().map(|event| event["network"]["port"].as_u64().unwrap()).collect()
    };
    let expected: BTreeSet<u64> = (1000..5000).collect();
    assert!(ports(output.events()) == expected);
    let lines: Vec<Value> =
        fs::read_to_string(lines).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(ports(&lines) == expected, "of {} lines", lines.len());
}

/// What `storm guard` has printed: the leaf, the programs, and the maps.
fn guard(stdout: &str) -> (String, Vec<u32>, Vec<u32>) {
    let [leaf, programs, maps] = stdout.lines().collect::<Vec<_>>()[..] else { panic!("{stdout}") };
    (leaf.to_owned(), serde_json::from_str(programs).unwrap(), serde_json::from_str(maps).unwrap())
}

/// Waits until there is none of these programs and maps. The kernel takes its time.
fn assert_freed(guards: &[(String, Vec<u32>, Vec<u32>)]) {
    for (leaf, programs, maps) in guards {
        assert!(!programs.is_empty() && !maps.is_empty(), "{leaf}");
        eventually("the programs are gone", || !programs.iter().any(|program| program_exists(*program)));
        eventually("the maps are gone", || !maps.iter().any(|map| map_exists(*map)));
    }
}

/// The names of the files in a run's folder.
fn files(run: &Run) -> Vec<String> {
    let entries = fs::read_dir(run.folder()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn two_hundred_at_once_all_succeed_and_leave_nothing_behind() {
    let yard = Yard::new();
    let (reader, writer) = std::io::pipe().unwrap();
    let runs: Vec<Run> = (0..200)
        .map(|_| {
            Run::new(every_section_alone(), [STORM, "guard"]).flags(["--fresh"]).through(yard.wrapper()).limit(LONG)
        })
        .map(|run| run.stdin(reader.try_clone().unwrap()))
        .collect();
    drop(reader);
    let mut started: Vec<Running> = runs.iter().map(Run::start).collect();
    for running in &mut started {
        running.wait_for("]\n[");
    }
    assert_eq!(yard.leaves().len(), 200, "all at once");
    drop(writer);
    let outputs: Vec<Output> = started.into_iter().map(|running| running.wait().success()).collect();
    assert!(yard.leaves().is_empty(), "{:?}", yard.leaves());
    let guards: Vec<_> = outputs.iter().map(|output| guard(&output.stdout)).collect();
    assert_freed(&guards);
    assert!(runs.iter().all(|run| files(run) == ["log.json", "policy.json"]));
}

#[test]
fn a_thousand_one_after_the_other_all_succeed_and_leave_nothing_behind() {
    let yard = Yard::new();
    let run = Run::new(EVERY_SECTION, ["true"]).flags(["--fresh"]).through(yard.wrapper());
    let programs: Vec<u64> = (0..1000)
        .flat_map(|_| {
            let output = run.start().wait().success();
            let hooks = output.log["enforced"]["hooks"].as_array().unwrap();
            hooks.iter().map(|hook| hook["program_id"].as_u64().unwrap()).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(programs.len(), 1000 * HOOKS.len());
    let programs = programs.iter().map(|program| u32::try_from(*program).unwrap());
    programs.for_each(|program| eventually("its program is gone", || !program_exists(program)));
    assert!(yard.leaves().is_empty(), "{:?}", yard.leaves());
    assert_eq!(files(&run), ["log.json", "policy.json"]);
    // And of one more, the maps.
    let output = Run::new(every_section_alone(), [STORM, "guard"]).flags(["--fresh"]).output().success();
    assert_freed(&[guard(&output.stdout)]);
}
