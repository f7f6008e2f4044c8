//! Programs that a run leaves for the next one under the same policy: who has them, who never gets them, and that nothing but
//! time differs.

use std::{fs, io::Write as _, os::unix::net::UnixDatagram, path::Path, time::Instant};

use serde_json::{Value, json};
use support::{
    Cache, Run, TcpServer, Yard, become_user,
    bpf::{Beside, forbid_sysctls, guard_of},
    cache::{have_one_in_common, programs, without},
    cgroup_of, eventually, is_alive,
};

const STORM: &str = env!("CARGO_BIN_EXE_storm");

#[test]
fn the_next_run_has_the_same_programs_and_none_of_the_records() {
    let (cache, server) = (Cache::new(), TcpServer::start("127.0.0.1"));
    let mut policy = without(server.port());
    policy["record"] = json!("flows");
    let run = cache.connecting(STORM, &policy, &server);
    let first = run.output().success();
    assert!(first.stdout.contains("denied") && first.denied() == 1, "{first:?}");
    let ids = programs(&first);

    let idle = Run::new(&policy, ["true"]).through(cache.wrapper());
    let idle = cache.reusing(&idle, &ids);
    assert_eq!((idle.denied(), idle.sum("allowed"), idle.events().len()), (0, 0, 0), "{:#}", idle.log);
    assert_eq!(idle.log["flows"], json!([]));

    let again = cache.reusing(&run, &ids);
    assert_eq!((again.denied(), again.events().len(), again.events()[0]["count"].as_u64()), (1, 1, Some(1)));
    assert!(server.accepted() == 0 && cache.all().len() == 1);
}

#[test]
fn a_table_of_denials_that_was_full_is_empty_for_the_next_run() {
    let cache = Cache::new();
    let policy = json!({"version": 1, "network": {"default": "allow", "rules": [
        {"action": "deny", "ops": ["connect"], "protocols": ["udp"]}
    ]}});
    let flood = Run::new(&policy, [STORM, "ports", "1000", "6000"]).through(cache.wrapper());
    let first = flood.output().success();
    assert!(first.sum("unrecorded") > 0 && first.denied() == 6000, "the control: {:#}", first.log["enforced"]["hooks"]);
    let few = Run::new(&policy, [STORM, "ports", "20000", "2"]).through(cache.wrapper());
    let few = cache.reusing(&few, &programs(&first));
    assert_eq!((few.denied(), few.sum("unrecorded"), few.events().len()), (2, 0, 2));
}

#[test]
fn another_policy_has_other_programs() {
    let (cache, one, other) = (Cache::new(), TcpServer::start("127.0.0.1"), TcpServer::start("127.0.0.1"));
    let first = cache.connecting(STORM, &without(one.port()), &one).output().success();
    // It differs in the one number.
    let second = cache.connecting(STORM, &without(other.port()), &one).output().success();
    assert!(first.stdout.contains("denied") && second.stdout.contains("connected"), "{first:?} {second:?}");
    let mut audit = without(one.port());
    audit["mode"] = json!("audit");
    let third = cache.connecting(STORM, &audit, &one).output().success();
    assert!(third.stdout.contains("connected"), "{third:?}");
    let [first, second, third] = [&first, &second, &third].map(programs);
    assert!(![(&first, &second), (&first, &third), (&second, &third)].iter().any(|(a, b)| have_one_in_common(a, b)));
    assert_eq!(cache.all().len(), 3);
}

#[test]
fn runs_at_the_same_time_share_nothing() {
    let (cache, server) = (Cache::new(), TcpServer::start("127.0.0.1"));
    let policy = without(server.port());
    let run = cache.connecting(STORM, &policy, &server);
    // So that there is one that both could have.
    let _ = run.output().success();
    cache.settle();
    let script = r#""$0" tcp "$1"; echo waiting; read -r _"#;
    let (reader, mut writer) = std::io::pipe().unwrap();
    let long = Run::new(&policy, ["bash", "-c", script, STORM, &server.port().to_string()]);
    let mut long = long.stdin(reader).through(cache.wrapper()).start();
    long.wait_for("waiting");
    let short = run.output().success();
    writeln!(writer, "go on").unwrap();
    let long = long.wait().success();
    assert!(!have_one_in_common(&programs(&short), &programs(&long)));
    assert_eq!((short.denied(), short.events().len()), (1, 1));
    assert_eq!((long.denied(), long.events().len()), (1, 1));
    assert!(server.accepted() == 0 && cache.all().len() > 1);
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
fn orphan(cache: &Cache, yard: &Yard, policy: &Value, server: &TcpServer, folder: &Path) -> (u32, Vec<u64>) {
    let words = ["bash", "-c", DAEMON, STORM, &server.port().to_string(), folder.to_str().unwrap()];
    let mut orphaned = Run::new(policy, words).through([yard.wrapper(), cache.wrapper()].concat()).start();
    orphaned.wait_for("daemon ");
    eventually("its programs are kept", || cache.all().iter().any(|entry| entry.join("kept").exists()));
    let daemon: u32 = orphaned.stdout().trim().strip_prefix("daemon ").unwrap().parse().unwrap();
    let guard = guard_of(&cgroup_of(daemon).unwrap()).unwrap().into_iter().map(u64::from).collect();
    orphaned.signal(libc::SIGKILL);
    assert_eq!(orphaned.wait().code(), None);
    (daemon, guard)
}

/// Does something to the folder of a cache entry, given that of another one.
type Spoil = fn(&Path, &Path);

#[test]
fn what_still_guards_somebody_is_taken_by_nobody_when_the_link_that_tells_is_not_there() {
    let (server, folder) = (TcpServer::start("127.0.0.1"), tempfile::tempdir().unwrap());
    let (policy, other) = (without(server.port()), json!({"version": 1, "devices": {"default": "allow", "rules": []}}));
    let spoilt: [Spoil; 5] = [
        |entry, _| fs::remove_file(entry.join("leaf")).unwrap(),
        |entry, _| fs::rename(entry.join("leaf"), entry.join("aside")).unwrap(),
        // To the leaf of an earlier run, which is gone.
        |entry, _| fs::rename(entry.join("earlier"), entry.join("leaf")).unwrap(),
        |entry, other| fs::rename(other.join("leaf"), entry.join("leaf")).unwrap(),
        // Together with what says which it is.
        |entry, other| {
            fs::rename(other.join("leaf"), entry.join("leaf")).unwrap();
            fs::rename(other.join("kept/LATEST"), entry.join("kept/LATEST")).unwrap();
        },
    ];
    for (number, spoil) in spoilt.into_iter().enumerate() {
        let (cache, yard) = (Cache::new(), Yard::new());
        let next = cache.connecting(STORM, &policy, &server);
        let earlier = programs(&next.output().success());
        let [entry] = &cache.all()[..] else { panic!("{:?}", cache.all()) };
        fs::hard_link(entry.join("leaf"), entry.join("earlier")).unwrap();
        let _ = Run::new(&other, ["true"]).through(cache.wrapper()).output().success();
        let others = cache.all().into_iter().find(|other| other != entry).unwrap();
        cache.settle();
        let (daemon, guard) = orphan(&cache, &yard, &policy, &server, folder.path());
        assert!(have_one_in_common(&guard, &earlier), "the control: they were taken when they were free");
        spoil(entry, &others);
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
    let (cache, server, yard) = (Cache::new(), TcpServer::start("127.0.0.1"), Yard::new());
    let folder = tempfile::tempdir().unwrap();
    let policy = without(server.port());
    let (daemon, guard) = orphan(&cache, &yard, &policy, &server, folder.path());

    let next = cache.connecting(STORM, &policy, &server);
    for _ in 0..3 {
        let output = next.output().success();
        assert!(output.denied() == 1 && !have_one_in_common(&programs(&output), &guard), "{output:?}");
    }
    fs::write(folder.path().join("go"), "").unwrap();
    let report = folder.path().join("report");
    eventually("the daemon has reported", || report.exists());
    assert!(fs::read_to_string(report).unwrap().contains("denied") && is_alive(daemon));
    assert_eq!(server.accepted(), 0);

    // And what it was denied is not in the log of the run that has the programs next.
    assert!(yard.gc().status.success() && !is_alive(daemon));
    let output = cache.alone(&next);
    assert!(have_one_in_common(&programs(&output), &guard) && output.denied() == 1, "{output:?}");
}

/// Sends a socket to anybody who has the other end of standard input.
const HAND_OUT: &str = "
import socket
other = socket.socket(fileno=0)
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
socket.send_fds(other, [b'x'], [own.fileno()])
";

#[test]
fn what_guards_a_socket_in_other_hands_is_nobody_elses() {
    let cache = Cache::new();
    // Programs at packets: they go on being asked about the socket.
    let policy = json!({"version": 1, "network": {"default": "allow", "rules": [
        {"action": "deny", "ops": ["receive"], "ports": [9]}
    ]}});
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let first = Run::python(&policy, HAND_OUT, &[]).stdin(theirs).through(cache.wrapper()).output().success();
    let ids = programs(&first);
    let next = Run::new(&policy, ["true"]).through(cache.wrapper());
    let second = next.output().success();
    eventually("the second's are free", || cache.free().len() == 1);
    assert_eq!(cache.all().len(), 2);
    let third = next.output().success();
    assert_eq!(programs(&second), programs(&third), "the socket's are not taken");
    assert!(!have_one_in_common(&programs(&second), &ids));
    drop(ours);
    let _ = cache.reusing(&next, &ids);
}

#[test]
fn a_fresh_run_takes_nothing_and_leaves_nothing() {
    let (cache, server) = (Cache::new(), TcpServer::start("127.0.0.1"));
    let policy = without(server.port());
    let fresh = cache.connecting(STORM, &policy, &server).flags(["--fresh"]);
    let first = fresh.output().success();
    assert!(first.denied() == 1 && cache.all().is_empty());
    let kept = cache.connecting(STORM, &policy, &server).output().success();
    assert!(!have_one_in_common(&programs(&cache.alone(&fresh)), &programs(&kept)));
    assert_eq!(cache.all().len(), 1);
}

#[test]
fn an_ordinary_user_has_no_part_in_what_root_keeps() {
    let (cache, server) = (Cache::new(), TcpServer::start("127.0.0.1"));
    let policy = without(server.port());
    let kept = programs(&cache.connecting(STORM, &policy, &server).output().success());
    let user = cache.connecting(STORM, &policy, &server).as_ordinary(4321);
    let user = user.through([cache.wrapper(), become_user(4321)].concat());
    let (one, other) = (cache.alone(&user), cache.alone(&user));
    assert!(one.denied() == 1 && other.denied() == 1);
    let [one, other] = [&one, &other].map(programs);
    assert!(![(&one, &kept), (&other, &kept), (&one, &other)].iter().any(|(a, b)| have_one_in_common(a, b)));
    assert_eq!(cache.all().len(), 1);
}

#[test]
fn whenever_guard_run_is_killed_the_next_one_works() {
    let (cache, server, yard) = (Cache::new(), TcpServer::start("127.0.0.1"), Yard::new());
    let policy = without(server.port());
    let run = cache.connecting(STORM, &policy, &server).through([yard.wrapper(), cache.wrapper()].concat());
    // The first one has files to read, too; after that, those without a cache entry take longest.
    let _ = run.output().success();
    let begin = Instant::now();
    let _ = cache.connecting(STORM, &policy, &server).flags(["--fresh"]).output().success();
    let whole = begin.elapsed();
    for step in 0..60 {
        let started = run.start();
        // From before it begins to after it ends.
        let moment = Instant::now() + whole * step / 50;
        eventually("its moment comes", || Instant::now() >= moment);
        started.signal(libc::SIGKILL);
        let _ = started.wait();
        let _ = fs::remove_file(run.log());
        let output = cache.connecting(STORM, &policy, &server).output().success();
        assert!(output.stdout.contains("denied") && output.denied() == 1, "{step}: {output:?}");
    }
    assert_eq!(server.accepted(), 0);
}

#[test]
fn no_program_further_up_is_put_out_of_force() {
    // Nothing at the hook where the sentinel is.
    let policy = json!({"version": 1, "network": {"default": "deny"}, "process": {"allow": ["sysctls"]}});
    for beside in [Beside::Joins, Beside::Yields] {
        let (cache, yard) = (Cache::new(), Yard::new());
        forbid_sysctls(yard.path(), beside);
        let place = || [yard.wrapper(), cache.wrapper()].concat();
        let script = "cat /proc/sys/kernel/ostype; true";
        let run = Run::shell(&policy, script, &[]).through(place());
        assert_eq!(run.bare().success().stdout, "", "{beside:?}: the control is forbidden it");
        let run = run.flags(["--fresh"]);
        assert_eq!(run.output().success().stdout, "", "{beside:?}: another control");
        let run = Run::shell(&policy, script, &[]).through(place());
        for _ in 0..2 {
            assert_eq!(cache.alone(&run).stdout, "", "{beside:?}");
        }
    }
}
