//! A command whose guard-run is killed or stopped dies or stays guarded, and what is left is reaped.

use std::{fs, path::Path, time::Instant};

use serde_json::{Value, json};
use support::{
    PYTHON, Run, Running, TcpServer, Yard,
    bpf::guard_of,
    cgroup_of, cgroup2_mount, eventually, guard_run, is_alive, is_stopped,
    ordinary::{ALICE, as_user},
    processes_in, processes_with_argument,
};

const STORM: &str = env!("CARGO_BIN_EXE_storm");

/// Forbids one port.
fn without(port: u16) -> Value {
    json!({"version": 1, "network": {"default": "allow", "rules": [
        {"action": "deny", "ops": ["connect"], "ports": [port]}
    ]}})
}

/// Starts a daemon that connects to the ports `$2` and `$3` when there is a file `$4/go`, and reports in `$4/report`. Does
/// the same itself before.
const WITH_DAEMON: &str = r#"
    setsid --fork bash -c '
        echo daemon $$; echo > "$3/started"
        until [ -e "$3/go" ]; do sleep 0.01; done
        "$0" tcp "$1" "$2" > "$3/report.new"
        mv "$3/report.new" "$3/report"
        exec sleep 1000
    ' "$1" "$2" "$3" "$4"
    until [ -e "$4/started" ]; do sleep 0.01; done
    "$1" tcp "$2" "$3"
    echo command $$
"#;

/// A run of [`WITH_DAEMON`] whose guard-run gets killed.
struct Orphaned {
    yard: Yard,
    forbidden: TcpServer,
    free: TcpServer,
    folder: tempfile::TempDir,
}

impl Orphaned {
    fn new() -> Self {
        let (forbidden, free) = (TcpServer::start("127.0.0.1"), TcpServer::start("127.0.0.1"));
        Self { yard: Yard::new(), forbidden, free, folder: tempfile::tempdir().unwrap() }
    }

    /// Starts it. After the daemon, the command does `then`.
    fn start(&self, then: &str) -> Running {
        let [forbidden, free] = [&self.forbidden, &self.free].map(|server| server.port().to_string());
        let arguments = [STORM, &forbidden, &free, self.folder.path().to_str().unwrap()];
        let mut policy = without(self.forbidden.port());
        policy["process"] = json!({"allow": ["signals"]});
        let run = Run::shell(policy, &format!("{WITH_DAEMON}\n{then}"), &arguments);
        let mut running = run.flags(["--fresh"]).through(self.yard.wrapper()).start();
        running.wait_for("command ");
        running.wait_for("daemon ");
        assert!(running.stdout().contains(&self.expected()), "the control: {}", running.stdout());
        running
    }

    fn expected(&self) -> String {
        format!("{} denied\n{} connected\n", self.forbidden.port(), self.free.port())
    }

    /// After guard-run is killed: the command is dead, the daemon is in the leaf, is still denied, and is reaped.
    fn check(&self, running: Running) {
        self.check_with(running, false);
    }

    /// Like [`Self::check`], where the command `survives` until it is reaped with the daemon.
    fn check_with(&self, running: Running, survives: bool) {
        let stdout = running.stdout();
        let pid = |name: &str| -> u32 {
            stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).unwrap()
        };
        let (command, daemon) = (pid("command"), pid("daemon"));
        let output = running.wait();
        assert_eq!((output.code(), &output.log), (None, &Value::Null), "it was killed");
        let leaves = self.yard.leaves();
        let [leaf] = &leaves[..] else { panic!("{leaves:?}") };
        if survives {
            assert_eq!((is_alive(command), cgroup_of(command).as_ref()), (true, Some(leaf)));
        } else {
            eventually("the command is dead", || !is_alive(command));
        }
        assert_eq!(cgroup_of(daemon).as_ref(), Some(leaf));
        assert_eq!(
            guard_of(leaf).unwrap().len(),
            4,
            "the programs of both connect hooks, sock_create and sysctl are there"
        );
        fs::write(self.folder.path().join("go"), "").unwrap();
        let report = self.folder.path().join("report");
        eventually("the daemon has reported", || report.exists());
        assert_eq!(fs::read_to_string(report).unwrap(), self.expected());
        eventually("both connections are accepted", || self.free.accepted() == 2);
        assert_eq!(self.forbidden.accepted(), 0);
        assert!(is_alive(daemon) && leaf.exists());
        // A run in the same place does not touch a leaf with a process.
        let other = Run::new(json!({"version": 1}), ["true"]).through(self.yard.wrapper());
        let _ = other.output().success();
        assert!(is_alive(daemon) && leaf.exists());
        let said = self.yard.gc();
        assert!(said.status.success(), "{said:?}");
        let said = String::from_utf8(said.stdout).unwrap();
        let name = leaf.file_name().unwrap().to_str().unwrap();
        assert!(said.contains(&format!("/{name}\n")) && said.contains("1 abandoned leaf removed"), "{said}");
        eventually("both are dead", || !is_alive(daemon) && !is_alive(command));
        assert!(self.yard.leaves().is_empty());
    }
}

#[test]
fn after_kill_9_of_guard_run_a_daemon_is_still_denied_until_gc_reaps_it() {
    let orphaned = Orphaned::new();
    let running = orphaned.start("exec sleep 1000");
    running.signal(libc::SIGKILL);
    orphaned.check(running);
}

#[test]
fn a_command_that_kills_its_guard_run_gains_nothing() {
    let orphaned = Orphaned::new();
    let running = orphaned.start("kill -9 $PPID; exec sleep 1000");
    orphaned.check(running);
}

/// guard-run can't keep a process from that: the kernel forgets it, too, when a process changes its user.
#[test]
fn a_command_that_asks_not_to_be_killed_with_guard_run_stays_guarded_until_gc_reaps_it() {
    let orphaned = Orphaned::new();
    let prctl = "import ctypes, time; ctypes.CDLL(None).prctl(1, 0); print('outlives', flush=True); time.sleep(1000)";
    let mut running = orphaned.start(&format!("exec {PYTHON} -c \"{prctl}\""));
    running.wait_for("outlives");
    running.signal(libc::SIGKILL);
    orphaned.check_with(running, true);
}

#[test]
fn after_kill_9_while_guard_run_waits_for_the_rest_a_daemon_is_still_denied() {
    let orphaned = Orphaned::new();
    let running = orphaned.start("exit 0");
    let leaf = orphaned.yard.leaves().pop().unwrap();
    eventually("only the daemon is left", || processes_in(&leaf).len() <= 2);
    running.signal(libc::SIGKILL);
    orphaned.check(running);
}

#[test]
fn nobody_else_keeps_roots_abandoned_leaf_from_being_reaped() {
    let yard = Yard::new();
    let script = "setsid --fork sleep 1000; echo ready; exec sleep 1000";
    // With a umask that takes nothing away, and one that takes all.
    for umask in ["0", "777"] {
        let masked = ["sh".into(), "-c".into(), format!("umask {umask}; exec \"$@\"").into(), "sh".into()];
        let run = Run::shell(json!({"version": 1}), script, &[]).through([yard.wrapper(), masked.to_vec()].concat());
        let mut running = run.start();
        running.wait_for("ready");
        running.signal(libc::SIGKILL);
        assert_eq!(running.wait().code(), None);
        let [leaf] = &yard.leaves()[..] else { panic!("{:?}", yard.leaves()) };
        let lock = |folder: &Path| as_user(ALICE, ["flock".as_ref(), "-s".as_ref(), folder.as_os_str(), "id".as_ref()]);
        assert!(lock(yard.path()).contains("uid="), "the control: a folder that everybody may read");
        assert_eq!(lock(leaf), "", "umask {umask}");
        let said = yard.gc();
        assert!(String::from_utf8_lossy(&said.stdout).contains("1 abandoned leaf removed"), "{said:?}");
        assert!(yard.leaves().is_empty());
    }
}

#[test]
fn a_command_of_another_user_finds_its_cgroups_files_by_name() {
    let script = "cat \"$1/cgroup.events\" && ! ls \"$1\" 2>/dev/null";
    let run = Run::shell(json!({"version": 1}), script, &[cgroup2_mount().to_str().unwrap()]);
    let output =
        run.flags(["--user", "nobody"]).through(["sh", "-c", "umask 077; exec \"$@\"", "sh"]).output().success();
    assert!(output.stdout.contains("populated 1"), "{output:?}");
}

#[test]
fn an_ordinary_run_removes_empty_leaves_that_were_abandoned() {
    let yard = Yard::new();
    let run = Run::shell(json!({"version": 1}), "echo ready; exec sleep 1000", &[]).through(yard.wrapper());
    let mut running = run.start();
    running.wait_for("ready");
    running.signal(libc::SIGKILL);
    assert_eq!(running.wait().code(), None);
    let leaves = yard.leaves();
    assert_eq!(leaves.len(), 1);
    eventually("its command is dead", || processes_in(&leaves[0]).is_empty());
    let _ = Run::new(json!({"version": 1}), ["true"]).through(yard.wrapper()).output().success();
    assert!(yard.leaves().is_empty());
}

#[test]
fn gc_leaves_the_leaf_of_a_live_guard_run_alone() {
    let server = TcpServer::start("127.0.0.1");
    let (yard, port) = (Yard::new(), server.port().to_string());
    let (reader, writer) = std::io::pipe().unwrap();
    let script = r#"echo ready; read; "$1" tcp "$2""#;
    let run = Run::shell(without(server.port()), script, &[STORM, &port]).through(yard.wrapper()).stdin(reader);
    let mut running = run.start();
    running.wait_for("ready");
    for stopped in [false, true] {
        running.signal(if stopped { libc::SIGSTOP } else { libc::SIGCONT });
        let leaves = yard.leaves();
        let said = yard.gc();
        assert!(said.status.success() && String::from_utf8_lossy(&said.stdout).starts_with("0 abandoned"), "{said:?}");
        assert_eq!((yard.leaves(), leaves.len()), (leaves, 1));
    }
    running.signal(libc::SIGCONT);
    drop(writer);
    let output = running.wait().success();
    assert_eq!(output.stdout, format!("ready\n{port} denied\n"));
    assert!(yard.leaves().is_empty());
}

#[test]
fn denials_while_guard_run_is_stopped_are_refused_and_counted() {
    let server = TcpServer::start("127.0.0.1");
    let port = server.port().to_string();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let script = r#"
        echo ready; read -r; "$1" tcp "$2"; "$1" udp 2 5000 "$2"; echo "while stopped"
        read -r; "$1" tcp "$2"; echo "and after"
    "#;
    let run = Run::shell(without(server.port()), script, &[STORM, &port]).stdin(reader);
    let mut running = run.start();
    running.wait_for("ready");
    running.signal(libc::SIGSTOP);
    eventually("guard-run is stopped", || is_stopped(running.pid()));
    std::io::Write::write_all(&mut writer, b"\n").unwrap();
    running.wait_for("while stopped");
    assert!(is_stopped(running.pid()));
    running.signal(libc::SIGCONT);
    std::io::Write::write_all(&mut writer, b"\n").unwrap();
    let output = running.wait().success();
    assert_eq!(output.stdout, format!("ready\n{port} denied\nwhile stopped\n{port} denied\nand after\n"));
    assert_eq!(server.accepted(), 0);
    assert_eq!(output.hook("connect4")["denied"], 10_002);
    let counts = output.events().iter().map(|event| event["count"].as_u64().unwrap());
    assert_eq!((counts.sum::<u64>(), &output.log["lost"]), (10_002, &json!(0)));
    support::assert_no_leaf(output.pid);
}

/// Starts a daemon, and lives on itself.
const TWO_PROCESSES: &str =
    r#"setsid --fork bash -c 'echo daemon; exec sleep "$0"' "$1"; echo command; exec sleep "$1""#;

#[test]
fn kill_9_at_any_moment_leaves_no_process_outside_a_guarded_leaf_and_nothing_that_gc_cant_remove() {
    let yard = Yard::new();
    // A duration that nobody else sleeps for: by it the processes are found.
    let mark = format!("{}.25", 100_000_000 + std::process::id());
    let (mut step, mut before_leaf, mut complete) = (0, 0, 0);
    let start = || {
        let run = Run::shell(without(9), TWO_PROCESSES, &[&mark]).flags(["--fresh"]).through(yard.wrapper());
        (run.start(), Instant::now())
    };
    let time_to_run = || {
        let (mut running, begin) = start();
        running.wait_for("command");
        running.wait_for("daemon");
        let time = begin.elapsed();
        running.signal(libc::SIGKILL);
        let _ = running.wait();
        time
    };
    // From the very start to when it all runs, in steps that are small beside the time that it takes.
    let moment = (0..3).map(|_| time_to_run()).min().unwrap() / 100;
    while complete < 5 {
        let (running, begin) = start();
        // To the microsecond, so no sleeping.
        while begin.elapsed() < moment * step {
            std::hint::spin_loop();
        }
        let pid = running.pid();
        running.signal(libc::SIGKILL);
        check_all_are_guarded(&mark, pid, yard.path());
        let stdout = running.stdout();
        assert_eq!(running.wait().code(), None);
        check_all_are_guarded(&mark, pid, yard.path());
        before_leaf += u32::from(!yard.leaves().iter().any(|leaf| belongs_to(leaf, pid)));
        complete += u32::from(stdout.contains("daemon") && stdout.contains("command"));
        step += 1;
        assert!(step < 1000, "it never ran");
    }
    println!("killed {step} times, before there was a leaf {before_leaf} times");
    assert!(before_leaf > 0 && step > before_leaf + 5, "the moments were not spread over the start");
    let said = yard.gc();
    assert!(said.status.success(), "{said:?}");
    assert!(yard.leaves().is_empty(), "{said:?}");
    eventually("all are dead", || processes_with_argument(&mark).is_empty());
}

fn belongs_to(leaf: &Path, pid: u32) -> bool {
    leaf.file_name().unwrap().to_str().unwrap().starts_with(&format!("guard-run.{pid}."))
}

/// Every process of the command is in a leaf, from its fork on, and in one with programs once it is no guard-run any more.
fn check_all_are_guarded(mark: &str, launcher: u32, yard: &Path) {
    let program = guard_run().canonicalize().unwrap();
    for pid in processes_with_argument(mark).into_iter().filter(|pid| *pid != launcher) {
        // It may end at any time.
        let Some(cgroup) = cgroup_of(pid) else { continue };
        if !is_alive(pid) {
            continue;
        }
        assert_eq!(cgroup.parent(), Some(yard), "{pid} is outside");
        // Until then it is another program, and by now it may be none at all.
        let is_command = || fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe != program);
        if let Ok(programs) = guard_of(&cgroup)
            && is_command()
        {
            assert_eq!(programs.len(), 4, "{pid} is not guarded");
        }
    }
}
