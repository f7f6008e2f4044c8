//! Programs that a run leaves for the next one under the same policy: who has them, who never gets them, and that nothing but
//! time differs.

use std::{fs, io::Write as _, os::unix::net::UnixDatagram, path::Path, time::Instant};

use serde_json::{Value, json};
use support::{
    Run, Spares, TcpServer, Yard, become_user,
    bpf::{Beside, forbid_sysctls, guard_of},
    cgroup_of, eventually, is_alive,
    spares::{have_one_in_common, programs, without},
};

const STORM: &str = env!("CARGO_BIN_EXE_storm");

#[test]
fn the_next_run_has_the_same_programs_and_none_of_the_records() {
    let (spares, server) = (Spares::new(), TcpServer::start("127.0.0.1"));
    let mut policy = without(server.port());
    policy["record"] = json!("flows");
    let run = spares.connecting(STORM, &policy, &server);
    let first = run.output().success();
    assert!(first.stdout.contains("denied") && first.denied() == 1, "{first:?}");
    let ids = programs(&first);

    let idle = Run::new(&policy, ["true"]).through(spares.wrapper());
    let idle = spares.reusing(&idle, &ids);
    assert_eq!((idle.denied(), idle.sum("allowed"), idle.events().len()), (0, 0, 0), "{:#}", idle.log);
    assert_eq!(idle.log["flows"], json!([]));

    let again = spares.reusing(&run, &ids);
    assert_eq!((again.denied(), again.events().len(), again.events()[0]["count"].as_u64()), (1, 1, Some(1)));
    assert!(server.accepted() == 0 && spares.all().len() == 1);
}

#[test]
fn a_table_of_denials_that_was_full_is_empty_for_the_next_run() {
    let spares = Spares::new();
    let policy = json!({"version": 1, "network": {"default": "allow", "rules": [
        {"action": "deny", "ops": ["connect"], "protocols": ["udp"]}
    ]}});
    let flood = Run::new(&policy, [STORM, "ports", "1000", "6000"]).through(spares.wrapper());
    let first = flood.output().success();
    assert!(first.sum("unrecorded") > 0 && first.denied() == 6000, "the control: {:#}", first.log["enforced"]["hooks"]);
    let few = Run::new(&policy, [STORM, "ports", "20000", "2"]).through(spares.wrapper());
    let few = spares.reusing(&few, &programs(&first));
    assert_eq!((few.denied(), few.sum("unrecorded"), few.events().len()), (2, 0, 2));
}

#[test]
fn another_policy_has_other_programs() {
    let (spares, one, other) = (Spares::new(), TcpServer::start("127.0.0.1"), TcpServer::start("127.0.0.1"));
    let first = spares.connecting(STORM, &without(one.port()), &one).output().success();
    // It differs in the one number.
    let second = spares.connecting(STORM, &without(other.port()), &one).output().success();
    assert!(first.stdout.contains("denied") && second.stdout.contains("connected"), "{first:?} {second:?}");
    let mut audit = without(one.port());
    audit["mode"] = json!("audit");
    let third = spares.connecting(STORM, &audit, &one).output().success();
    assert!(third.stdout.contains("connected"), "{third:?}");
    let [first, second, third] = [&first, &second, &third].map(programs);
    assert!(![(&first, &second), (&first, &third), (&second, &third)].iter().any(|(a, b)| have_one_in_common(a, b)));
    assert_eq!(spares.all().len(), 3);
}

#[test]
fn runs_at_the_same_time_share_nothing() {
    let (spares, server) = (Spares::new(), TcpServer::start("127.0.0.1"));
    let policy = without(server.port());
    let run = spares.connecting(STORM, &policy, &server);
    // So that there is one that both could have.
    let _ = run.output().success();
    spares.settle();
    let script = r#""$0" tcp "$1"; echo waiting; read -r _"#;
    let (reader, mut writer) = std::io::pipe().unwrap();
    let long = Run::new(&policy, ["bash", "-c", script, STORM, &server.port().to_string()]);
    let mut long = long.stdin(reader).through(spares.wrapper()).start();
    long.wait_for("waiting");
    let short = run.output().success();
    writeln!(writer, "go on").unwrap();
    let long = long.wait().success();
    assert!(!have_one_in_common(&programs(&short), &programs(&long)));
    assert_eq!((short.denied(), short.events().len()), (1, 1));
    assert_eq!((long.denied(), long.events().len()), (1, 1));
    assert!(server.accepted() == 0 && spares.all().len() > 1);
}

/// Starts a daemon that connects to `$1` when there is a file `$2/go`, and reports in `$2/report`.
const DAEMON: &str = r#"
    setsid --fork bash -c '
        echo daemon $$
        until [ -e "$2/go" ]; do sleep 0.01; done
        "$0" tcp "$1" > "$2/report.new"
        mv "$2/report.new" "$2/report"
        exec sleep 1000
    ' "$0" "$1" "$2"
    exec sleep 1000
"#;

/// Runs [`DAEMON`] with programs that are kept, and kills its guard-run. Returns the daemon's process id and the programs' ids.
fn orphan(spares: &Spares, yard: &Yard, policy: &Value, server: &TcpServer, folder: &Path) -> (u32, Vec<u64>) {
    let words = ["bash", "-c", DAEMON, STORM, &server.port().to_string(), folder.to_str().unwrap()];
    let mut orphaned = Run::new(policy, words).through([yard.wrapper(), spares.wrapper()].concat()).start();
    orphaned.wait_for("daemon ");
    eventually("its programs are kept", || spares.all().iter().any(|spare| spare.join("kept").exists()));
    let daemon: u32 = orphaned.stdout().trim().strip_prefix("daemon ").unwrap().parse().unwrap();
    let guard = guard_of(&cgroup_of(daemon).unwrap()).unwrap().into_iter().map(u64::from).collect();
    orphaned.signal(libc::SIGKILL);
    assert_eq!(orphaned.wait().code(), None);
    (daemon, guard)
}

/// Does something to the folder of a spare, given that of another one.
type Spoil = fn(&Path, &Path);

#[test]
fn what_still_guards_somebody_is_taken_by_nobody_when_the_link_that_tells_is_not_there() {
    let (server, folder) = (TcpServer::start("127.0.0.1"), tempfile::tempdir().unwrap());
    let (policy, other) = (without(server.port()), json!({"version": 1, "devices": {"default": "allow", "rules": []}}));
    let spoilt: [Spoil; 5] = [
        |spare, _| fs::remove_file(spare.join("leaf")).unwrap(),
        |spare, _| fs::rename(spare.join("leaf"), spare.join("aside")).unwrap(),
        // To the leaf of an earlier run, which is gone.
        |spare, _| fs::rename(spare.join("earlier"), spare.join("leaf")).unwrap(),
        |spare, other| fs::rename(other.join("leaf"), spare.join("leaf")).unwrap(),
        // Together with what says which it is.
        |spare, other| {
            fs::rename(other.join("leaf"), spare.join("leaf")).unwrap();
            fs::rename(other.join("kept/LATEST"), spare.join("kept/LATEST")).unwrap();
        },
    ];
    for (number, spoil) in spoilt.into_iter().enumerate() {
        let (spares, yard) = (Spares::new(), Yard::new());
        let next = spares.connecting(STORM, &policy, &server);
        let earlier = programs(&next.output().success());
        let [spare] = &spares.all()[..] else { panic!("{:?}", spares.all()) };
        fs::hard_link(spare.join("leaf"), spare.join("earlier")).unwrap();
        let _ = Run::new(&other, ["true"]).through(spares.wrapper()).output().success();
        let others = spares.all().into_iter().find(|other| other != spare).unwrap();
        spares.settle();
        let (daemon, guard) = orphan(&spares, &yard, &policy, &server, folder.path());
        assert!(have_one_in_common(&guard, &earlier), "the control: they were taken when they were free");
        spoil(spare, &others);
        for _ in 0..3 {
            let output = next.output().success();
            let taken = have_one_in_common(&programs(&output), &guard);
            assert!(output.denied() == 1 && !taken, "{number}: {output:?}");
        }
        assert!(is_alive(daemon) && guard_of(&cgroup_of(daemon).unwrap()).unwrap().len() >= 2);
        assert!(yard.gc().status.success() && !is_alive(daemon));
    }
}

#[test]
fn what_still_guards_a_daemon_of_a_guard_run_that_was_killed_is_nobody_elses() {
    let (spares, server, yard) = (Spares::new(), TcpServer::start("127.0.0.1"), Yard::new());
    let folder = tempfile::tempdir().unwrap();
    let policy = without(server.port());
    let (daemon, guard) = orphan(&spares, &yard, &policy, &server, folder.path());

    let next = spares.connecting(STORM, &policy, &server);
    for _ in 0..3 {
        let output = next.output().success();
        assert!(output.denied() == 1 && !have_one_in_common(&programs(&output), &guard), "{output:?}");
    }
    fs::write(folder.path().join("go"), "").unwrap();
    let report = folder.path().join("report");
    eventually("the daemon has reported", || report.exists());
    assert!(fs::read_to_string(report).unwrap().contains("denied") && is_alive(daemon));
    assert_eq!(server.accepted(), 0);

    // And what it was denied is not in the log of whoever has the programs next.
    assert!(yard.gc().status.success() && !is_alive(daemon));
    let output = spares.alone(&next);
    assert!(have_one_in_common(&programs(&output), &guard) && output.denied() == 1, "{output:?}");
}

/// Sends a socket to whoever has the other end of standard input.
const HAND_OUT: &str = "
import socket
other = socket.socket(fileno=0)
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
socket.send_fds(other, [b'x'], [own.fileno()])
";

#[test]
fn what_guards_a_socket_in_other_hands_is_nobody_elses() {
    let spares = Spares::new();
    // Programs at packets: they go on being asked about the socket.
    let policy = json!({"version": 1, "network": {"default": "allow", "rules": [
        {"action": "deny", "ops": ["receive"], "ports": [9]}
    ]}});
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let first = Run::python(&policy, HAND_OUT, &[]).stdin(theirs).through(spares.wrapper()).output().success();
    let ids = programs(&first);
    let next = Run::new(&policy, ["true"]).through(spares.wrapper());
    let second = next.output().success();
    eventually("the second's are free", || spares.free().len() == 1);
    assert_eq!(spares.all().len(), 2);
    let third = next.output().success();
    assert_eq!(programs(&second), programs(&third), "the socket's are not taken");
    assert!(!have_one_in_common(&programs(&second), &ids));
    drop(ours);
    let _ = spares.reusing(&next, &ids);
}

#[test]
fn a_fresh_run_takes_nothing_and_leaves_nothing() {
    let (spares, server) = (Spares::new(), TcpServer::start("127.0.0.1"));
    let policy = without(server.port());
    let fresh = spares.connecting(STORM, &policy, &server).flags(["--fresh"]);
    let first = fresh.output().success();
    assert!(first.denied() == 1 && spares.all().is_empty());
    let kept = spares.connecting(STORM, &policy, &server).output().success();
    assert!(!have_one_in_common(&programs(&spares.alone(&fresh)), &programs(&kept)));
    assert_eq!(spares.all().len(), 1);
}

#[test]
fn an_ordinary_user_has_no_part_in_what_root_keeps() {
    let (spares, server) = (Spares::new(), TcpServer::start("127.0.0.1"));
    let policy = without(server.port());
    let kept = programs(&spares.connecting(STORM, &policy, &server).output().success());
    let user = spares.connecting(STORM, &policy, &server).as_ordinary(4321);
    let user = user.through([spares.wrapper(), become_user(4321)].concat());
    let (one, other) = (spares.alone(&user), spares.alone(&user));
    assert!(one.denied() == 1 && other.denied() == 1);
    let [one, other] = [&one, &other].map(programs);
    assert!(![(&one, &kept), (&other, &kept), (&one, &other)].iter().any(|(a, b)| have_one_in_common(a, b)));
    assert_eq!(spares.all().len(), 1);
}

#[test]
fn whenever_guard_run_is_killed_the_next_one_works() {
    let (spares, server, yard) = (Spares::new(), TcpServer::start("127.0.0.1"), Yard::new());
    let policy = without(server.port());
    let run = spares.connecting(STORM, &policy, &server).through([yard.wrapper(), spares.wrapper()].concat());
    // The first one has files to read, too; after that, those without a spare take longest.
    let _ = run.output().success();
    let begin = Instant::now();
    let _ = spares.connecting(STORM, &policy, &server).flags(["--fresh"]).output().success();
    let whole = begin.elapsed();
    for step in 0..60 {
        let started = run.start();
        // From before it begins to after it ends.
        let moment = Instant::now() + whole * step / 50;
        eventually("its moment comes", || Instant::now() >= moment);
        started.signal(libc::SIGKILL);
        let _ = started.wait();
        let _ = fs::remove_file(run.log());
        let output = spares.connecting(STORM, &policy, &server).output().success();
        assert!(output.stdout.contains("denied") && output.denied() == 1, "{step}: {output:?}");
    }
    assert_eq!(server.accepted(), 0);
}

#[test]
fn no_program_further_up_is_put_out_of_force() {
    // Nothing at the hook where the sentinel is.
    let policy = json!({"version": 1, "network": {"default": "deny"}, "process": {"allow": ["sysctls"]}});
    for beside in [Beside::Joins, Beside::Yields] {
        let (spares, yard) = (Spares::new(), Yard::new());
        forbid_sysctls(yard.path(), beside);
        let place = || [yard.wrapper(), spares.wrapper()].concat();
        let script = "cat /proc/sys/kernel/ostype; true";
        let run = Run::shell(&policy, script, &[]).through(place());
        assert_eq!(run.bare().success().stdout, "", "{beside:?}: the control is forbidden it");
        let run = run.flags(["--fresh"]);
        assert_eq!(run.output().success().stdout, "", "{beside:?}: another control");
        let run = Run::shell(&policy, script, &[]).through(place());
        for _ in 0..2 {
            assert_eq!(spares.alone(&run).stdout, "", "{beside:?}");
        }
    }
}
