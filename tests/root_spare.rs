//! Programs that a run leaves for the next one under the same policy: who has them, who never gets them, and that nothing but
//! time differs.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::{
        fs::{PermissionsExt as _, chown, symlink},
        net::UnixDatagram,
    },
    path::Path,
    process::Command,
    time::Instant,
};

use serde_json::{Value, json};
use support::{
    Output, Run, Spares, TcpServer, Yard, become_user,
    bpf::{Beside, forbid_sysctls, guard_of, program_exists},
    cgroup_of, eventually, is_alive,
};

const STORM: &str = env!("CARGO_BIN_EXE_storm");

/// Forbids one port.
fn without(port: u16) -> Value {
    json!({"version": 1, "network": {"default": "allow", "rules": [
        {"action": "deny", "ops": ["connect"], "protocols": ["tcp"], "ports": [port]}
    ]}})
}

/// A run that connects to a server, where what is kept is kept here.
fn connecting(spares: &Spares, policy: &Value, server: &TcpServer) -> Run {
    Run::new(policy, [STORM, "tcp", &server.port().to_string()]).through(spares.wrapper())
}

/// The ids of a run's programs.
fn programs(output: &Output) -> Vec<u64> {
    let hooks = output.log["enforced"]["hooks"].as_array().unwrap_or_else(|| panic!("no log: {output:?}"));
    hooks.iter().map(|hook| hook["program_id"].as_u64().unwrap()).collect()
}

fn have_one_in_common(one: &[u64], other: &[u64]) -> bool {
    one.iter().any(|id| other.contains(id))
}

/// A run that succeeds, when nobody has any of the spares.
fn alone(spares: &Spares, run: &Run) -> Output {
    spares.settle();
    run.output().success()
}

/// The same when there is a spare of these programs: it has them.
fn reusing(spares: &Spares, run: &Run, expected: &[u64]) -> Output {
    let output = alone(spares, run);
    assert_eq!(programs(&output), expected);
    output
}

#[test]
fn the_next_run_has_the_same_programs_and_none_of_the_records() {
    let (spares, server) = (Spares::new(), TcpServer::start("127.0.0.1"));
    let mut policy = without(server.port());
    policy["record"] = json!("flows");
    let run = connecting(&spares, &policy, &server);
    let first = run.output().success();
    assert!(first.stdout.contains("denied") && first.denied() == 1, "{first:?}");
    let ids = programs(&first);

    let idle = Run::new(&policy, ["true"]).through(spares.wrapper());
    let idle = reusing(&spares, &idle, &ids);
    assert_eq!((idle.denied(), idle.sum("allowed"), idle.events().len()), (0, 0, 0), "{:#}", idle.log);
    assert_eq!(idle.log["flows"], json!([]));

    let again = reusing(&spares, &run, &ids);
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
    let few = reusing(&spares, &few, &programs(&first));
    assert_eq!((few.denied(), few.sum("unrecorded"), few.events().len()), (2, 0, 2));
}

#[test]
fn another_policy_has_other_programs() {
    let (spares, one, other) = (Spares::new(), TcpServer::start("127.0.0.1"), TcpServer::start("127.0.0.1"));
    let first = connecting(&spares, &without(one.port()), &one).output().success();
    // It differs in the one number.
    let second = connecting(&spares, &without(other.port()), &one).output().success();
    assert!(first.stdout.contains("denied") && second.stdout.contains("connected"), "{first:?} {second:?}");
    let mut audit = without(one.port());
    audit["mode"] = json!("audit");
    let third = connecting(&spares, &audit, &one).output().success();
    assert!(third.stdout.contains("connected"), "{third:?}");
    let [first, second, third] = [&first, &second, &third].map(programs);
    assert!(![(&first, &second), (&first, &third), (&second, &third)].iter().any(|(a, b)| have_one_in_common(a, b)));
    assert_eq!(spares.all().len(), 3);
}

#[test]
fn runs_at_the_same_time_share_nothing() {
    let (spares, server) = (Spares::new(), TcpServer::start("127.0.0.1"));
    let policy = without(server.port());
    let run = connecting(&spares, &policy, &server);
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

#[test]
fn what_still_guards_a_daemon_of_a_guard_run_that_was_killed_is_nobody_elses() {
    let (spares, server, yard) = (Spares::new(), TcpServer::start("127.0.0.1"), Yard::new());
    let folder = tempfile::tempdir().unwrap();
    let policy = without(server.port());
    let place = || [yard.wrapper(), spares.wrapper()].concat();
    let orphaned =
        Run::new(&policy, ["bash", "-c", DAEMON, STORM, &server.port().to_string(), folder.path().to_str().unwrap()]);
    let mut orphaned = orphaned.through(place()).start();
    orphaned.wait_for("daemon ");
    eventually("its programs are kept", || spares.all().iter().any(|spare| spare.join("kept").exists()));
    let daemon: u32 = orphaned.stdout().trim().strip_prefix("daemon ").unwrap().parse().unwrap();
    let leaf = cgroup_of(daemon).unwrap();
    let guard: Vec<u64> = guard_of(&leaf).unwrap().into_iter().map(u64::from).collect();
    orphaned.signal(libc::SIGKILL);
    assert_eq!(orphaned.wait().code(), None);

    let next = connecting(&spares, &policy, &server);
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
    let output = alone(&spares, &next);
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
    let _ = reusing(&spares, &next, &ids);
}

/// Gives each the other's name.
fn exchange(one: &Path, other: &Path) {
    let aside = one.with_file_name("aside");
    fs::rename(one, &aside).unwrap();
    fs::rename(other, one).unwrap();
    fs::rename(aside, other).unwrap();
}

#[test]
fn programs_of_another_policy_that_were_put_there_are_not_taken() {
    let (spares, server) = (Spares::new(), TcpServer::start("127.0.0.1"));
    let strict = connecting(&spares, &without(server.port()), &server);
    let _ = strict.output().success();
    let mut audit = without(server.port());
    audit["mode"] = json!("audit");
    let lax = programs(&connecting(&spares, &audit, &server).output().success());
    spares.settle();
    let [one, other] = &spares.all()[..] else { panic!("{:?}", spares.all()) };
    exchange(&one.join("kept"), &other.join("kept"));
    let output = alone(&spares, &strict);
    assert!(output.stdout.contains("denied") && !have_one_in_common(&programs(&output), &lax), "{output:?}");
    assert_eq!(server.accepted(), 1, "the control is the one in mode \"audit\"");
}

#[test]
fn a_spare_that_is_not_whole_is_made_anew() {
    let (spares, server) = (Spares::new(), TcpServer::start("127.0.0.1"));
    let run = connecting(&spares, &without(server.port()), &server);
    let mut ids = programs(&run.output().success());
    let spoilt: [&dyn Fn(&Path); 7] = [
        &|spare| fs::remove_file(spare.join("kept/connect4")).unwrap(),
        &|spare| fs::remove_file(spare.join("kept/NEWS")).unwrap(),
        &|spare| fs::remove_file(spare.join("kept/NET_TALLIES")).unwrap(),
        &|spare| exchange(&spare.join("kept/connect4"), &spare.join("kept/sysctl")),
        &|spare| exchange(&spare.join("kept/NET_TALLIES"), &spare.join("kept/SOCKET_TALLIES")),
        // As a guard-run that was killed leaves it.
        &|spare| fs::rename(spare.join("kept"), spare.join("unfinished")).unwrap(),
        &|spare| fs::remove_dir_all(spare.join("kept")).unwrap(),
    ];
    for spoil in spoilt {
        spares.settle();
        spoil(&spares.all()[0]);
        let output = alone(&spares, &run);
        assert!(output.denied() == 1 && !have_one_in_common(&programs(&output), &ids), "{output:?}");
        ids = programs(&output);
        assert_eq!(reusing(&spares, &run, &ids).denied(), 1);
    }
    assert!(server.accepted() == 0 && spares.all().len() == 1);
}

#[test]
fn nothing_is_kept_where_others_could_put_something_in_its_place() {
    let server = TcpServer::start("127.0.0.1");
    let spoilt: [&dyn Fn(&Spares); 4] = [
        &|spares| chown(spares.folder(), Some(65534), Some(65534)).unwrap(),
        &|spares| fs::set_permissions(spares.folder(), fs::Permissions::from_mode(0o777)).unwrap(),
        &|spares| fs::set_permissions(spares.mount(), fs::Permissions::from_mode(0o777)).unwrap(),
        &|spares| {
            fs::rename(spares.folder(), spares.mount().join("elsewhere")).unwrap();
            symlink("/sys/fs/bpf/elsewhere", spares.folder()).unwrap();
        },
    ];
    for spoil in spoilt {
        let spares = Spares::new();
        let run = connecting(&spares, &without(server.port()), &server);
        let kept = programs(&run.output().success());
        let _ = reusing(&spares, &run, &kept);
        spoil(&spares);
        let (before, ids) = (spares.all(), programs(&alone(&spares, &run)));
        let again = programs(&alone(&spares, &run));
        assert!(!have_one_in_common(&ids, &kept) && !have_one_in_common(&ids, &again));
        assert_eq!(spares.all(), before);
    }
    assert_eq!(server.accepted(), 0);
}

#[test]
fn a_fresh_run_takes_nothing_and_leaves_nothing() {
    let (spares, server) = (Spares::new(), TcpServer::start("127.0.0.1"));
    let policy = without(server.port());
    let fresh = connecting(&spares, &policy, &server).flags(["--fresh"]);
    let first = fresh.output().success();
    assert!(first.denied() == 1 && spares.all().is_empty());
    let kept = connecting(&spares, &policy, &server).output().success();
    assert!(!have_one_in_common(&programs(&alone(&spares, &fresh)), &programs(&kept)));
    assert_eq!(spares.all().len(), 1);
}

#[test]
fn an_ordinary_user_has_no_part_in_what_root_keeps() {
    let (spares, server) = (Spares::new(), TcpServer::start("127.0.0.1"));
    let policy = without(server.port());
    let kept = programs(&connecting(&spares, &policy, &server).output().success());
    let user = connecting(&spares, &policy, &server).as_ordinary(4321);
    let user = user.through([spares.wrapper(), become_user(4321)].concat());
    let (one, other) = (alone(&spares, &user), alone(&spares, &user));
    assert!(one.denied() == 1 && other.denied() == 1);
    let [one, other] = [&one, &other].map(programs);
    assert!(![(&one, &kept), (&other, &kept), (&one, &other)].iter().any(|(a, b)| have_one_in_common(a, b)));
    assert_eq!(spares.all().len(), 1);
}

#[test]
fn gc_removes_what_nobody_has() {
    let (spares, server, yard) = (Spares::new(), TcpServer::start("127.0.0.1"), Yard::new());
    let policy = without(server.port());
    let (reader, mut writer) = std::io::pipe().unwrap();
    let script = r#"echo waiting; read -r _; "$0" tcp "$1""#;
    let long = Run::new(&policy, ["bash", "-c", script, STORM, &server.port().to_string()]);
    let mut long = long.stdin(reader).through([yard.wrapper(), spares.wrapper()].concat()).start();
    long.wait_for("waiting");
    let idle = connecting(&spares, &policy, &server).output().success();
    eventually("one of two is free", || spares.all().len() == 2 && spares.free().len() == 1);
    let gc = || {
        let said = yard.gc_through(&spares.wrapper());
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout).unwrap()
    };
    let said = gc();
    assert!(said.contains("1 spare removed"), "{said}");
    assert_eq!(spares.all().len(), 1);
    eventually("its programs are gone", || {
        !programs(&idle).iter().any(|id| program_exists(u32::try_from(*id).unwrap()))
    });
    writeln!(writer, "go on").unwrap();
    assert_eq!(long.wait().success().denied(), 1);
    spares.settle();
    let said = gc();
    assert!(said.contains("1 spare removed") && spares.all().is_empty(), "{said}");
}

#[test]
fn there_is_a_bound() {
    const MOST: usize = 32;
    let (spares, server) = (Spares::new(), TcpServer::start("127.0.0.1"));
    let policy = without(server.port());
    let _ = connecting(&spares, &policy, &server).output().success();
    let [oldest] = &spares.all()[..] else { panic!("{:?}", spares.all()) };
    (1..MOST).for_each(|number| fs::create_dir(spares.folder().join(format!("another-{number}"))).unwrap());
    spares.settle();
    let other = json!({"version": 1, "network": {"default": "deny"}});
    let _ = connecting(&spares, &other, &server).output().success();
    assert!(spares.all().len() == MOST && !oldest.exists(), "{:?}", spares.all());
}

#[test]
fn whenever_guard_run_is_killed_the_next_one_works() {
    let (spares, server, yard) = (Spares::new(), TcpServer::start("127.0.0.1"), Yard::new());
    let policy = without(server.port());
    let run = connecting(&spares, &policy, &server).through([yard.wrapper(), spares.wrapper()].concat());
    // The first one has files to read, too; after that, those without a spare take longest.
    let _ = run.output().success();
    let begin = Instant::now();
    let _ = connecting(&spares, &policy, &server).flags(["--fresh"]).output().success();
    let whole = begin.elapsed();
    for step in 0..60 {
        let started = run.start();
        // From before it begins to after it ends.
        let moment = Instant::now() + whole * step / 50;
        eventually("its moment comes", || Instant::now() >= moment);
        started.signal(libc::SIGKILL);
        let _ = started.wait();
        let _ = fs::remove_file(run.log());
        let output = connecting(&spares, &policy, &server).output().success();
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
            assert_eq!(alone(&spares, &run).stdout, "", "{beside:?}");
        }
    }
}

#[test]
fn there_are_no_more_than_may_be_though_all_are_in_use() {
    const MOST: usize = 32;
    let (spares, server) = (Spares::new(), TcpServer::start("127.0.0.1"));
    let policy = without(server.port());
    let _ = connecting(&spares, &policy, &server).output().success();
    (1..MOST).for_each(|number| fs::create_dir(spares.folder().join(format!("another-{number}"))).unwrap());
    let all = spares.all();
    let locked: Vec<_> = all.iter().map(|folder| File::open(folder).unwrap()).collect();
    for folder in &locked {
        folder.lock().unwrap();
    }
    let other = json!({"version": 1, "network": {"default": "deny"}});
    let ids = programs(&connecting(&spares, &other, &server).output().success());
    assert_eq!(spares.all(), all);
    drop(locked);
    let output = alone(&spares, &connecting(&spares, &other, &server));
    assert!(!have_one_in_common(&programs(&output), &ids) && spares.all().len() == MOST, "{output:?}");
}

#[test]
fn what_is_kept_goes_into_the_folder_that_was_locked() {
    let (spares, server) = (Spares::new(), TcpServer::start("127.0.0.1"));
    let policy = without(server.port());
    let late = connecting(&spares, &policy, &server);
    // It waits for somebody to read its log, when it has its spare and before it keeps anything there.
    assert!(Command::new("mkfifo").arg(late.log()).status().unwrap().success());
    let started = late.start();
    eventually("it has its spare", || spares.all().iter().any(|spare| spare.join("leaf").exists()));
    fs::remove_dir_all(spares.folder()).unwrap();
    let run = connecting(&spares, &policy, &server);
    let ids = programs(&run.output().success());
    let log = fs::read(late.log()).unwrap();
    fs::remove_file(late.log()).unwrap();
    let late = Output { log: serde_json::from_slice(&log).unwrap(), ..started.wait().success() };
    assert!(late.denied() == 1 && !have_one_in_common(&programs(&late), &ids));
    let _ = reusing(&spares, &run, &ids);
}
