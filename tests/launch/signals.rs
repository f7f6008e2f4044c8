//! Signals go to the command as if guard-run weren't there, and its end by one is passed on.

use std::{fmt::Write as _, time::Duration};

use serde_json::json;
use support::{Run, Running, bpf::EVERY_SECTION, eventually, is_alive, is_stopped, status_of};

/// Signals that the tests' own caller has ignored (`nohup`, a shell's `&`) would be ignored by the command, too.
const PLAIN: [&str; 2] = ["env", "--default-signal"];

const STORM: &str = env!("CARGO_BIN_EXE_storm");

/// The process id that `storm sleep` has said is its own.
fn command_of(running: &Running) -> u32 {
    running.stdout().split(' ').nth(2).unwrap().parse().unwrap()
}

const PASSED_ON: [(&str, i32); 12] = [
    ("TERM", libc::SIGTERM),
    ("INT", libc::SIGINT),
    ("HUP", libc::SIGHUP),
    ("QUIT", libc::SIGQUIT),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("WINCH", libc::SIGWINCH),
    ("TSTP", libc::SIGTSTP),
    ("CONT", libc::SIGCONT),
    ("ALRM", libc::SIGALRM),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
];

#[test]
fn signals_to_guard_run_reach_the_command_once_each() {
    let mut script = String::new();
    for (name, _) in PASSED_ON {
        writeln!(script, "trap 'echo got {name}' {name}").unwrap();
    }
    script.push_str("echo ready; until [ -e \"$1\" ]; do sleep 0.01; done; exit 9");
    let folder = tempfile::tempdir().unwrap();
    let end = folder.path().join("end");
    let mut running = Run::shell(EVERY_SECTION, &script, &[end.to_str().unwrap()]).through(PLAIN).start();
    running.wait_for("ready");
    let mut expected = "ready\n".to_owned();
    for (name, signal) in PASSED_ON {
        running.signal(signal);
        running.wait_for(&format!("got {name}\n"));
        writeln!(expected, "got {name}").unwrap();
    }
    std::fs::write(end, "").unwrap();
    let output = running.wait().exits(9);
    assert_eq!(output.stdout, expected);
    assert_eq!(output.log["exit"], json!({"code": 9, "killed": 0}));
}

#[test]
fn a_signal_that_ends_the_command_makes_128_plus_its_number_and_the_log_is_written() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGALRM] {
        let mut running = Run::new(EVERY_SECTION, [STORM, "sleep"]).through(PLAIN).start();
        running.wait_for("now");
        running.signal(signal);
        let output = running.wait().exits(128 + signal);
        assert_eq!(output.log["exit"], json!({"signal": signal, "killed": 0}));
        support::assert_no_leaf(output.pid);
    }
}

#[test]
fn a_signal_that_comes_while_guard_run_starts_is_not_lost() {
    // It ends guard-run before there is anything, or the command afterwards; nothing goes on.
    for step in 0..40 {
        let running = Run::new(EVERY_SECTION, ["sleep", "1000"]).through(PLAIN).start();
        let begin = std::time::Instant::now();
        while begin.elapsed() < Duration::from_micros(300) * step {
            std::hint::spin_loop();
        }
        running.signal(libc::SIGTERM);
        let output = running.wait();
        let by_itself = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(libc::SIGTERM);
        assert!(by_itself || output.code() == Some(128 + libc::SIGTERM), "{output:?}");
        assert_eq!(by_itself, output.log.is_null(), "{output:?}");
        support::assert_no_leaf(output.pid);
    }
}

/// The kernel's verifier gives up whenever there is a signal, and a loaded machine's tools stop and continue processes.
#[test]
fn being_stopped_and_continued_while_it_starts_changes_nothing() {
    for _ in 0..20 {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut running = Run::shell(EVERY_SECTION, "echo ran; ! read -r", &[]).stdin(reader).start();
        let pause = std::cell::Cell::new(Duration::from_millis(10));
        running.wait_until("it runs", |running| {
            running.signal(libc::SIGSTOP);
            running.signal(libc::SIGCONT);
            // Each makes the verifier begin a program anew, for which it needs the longer, the busier the machine is.
            std::thread::sleep(pause.get());
            pause.set(pause.get() + Duration::from_millis(1));
            running.stdout() == "ran\n"
        });
        drop(writer);
        assert_eq!(running.wait().success().stderr, "");
    }
}

#[test]
fn real_time_signals_and_kill_count_alike() {
    for signal in [libc::SIGKILL, libc::SIGPIPE, libc::SIGRTMIN(), libc::SIGRTMIN() + 6, libc::SIGRTMAX()] {
        let run = Run::shell(EVERY_SECTION, "kill -s \"$1\" $$; sleep 1000", &[&signal.to_string()]).through(PLAIN);
        let output = run.output().exits(128 + signal);
        assert_eq!(output.log["exit"], json!({"signal": signal, "killed": 0}));
    }
}

#[test]
fn tstp_stops_the_command_and_guard_run_and_cont_continues_both() {
    let mut running = Run::new(EVERY_SECTION, [STORM, "sleep"]).through(PLAIN).own_group().start();
    running.wait_for("now");
    let command = command_of(&running);
    for _ in 0..2 {
        running.signal(libc::SIGTSTP);
        eventually("both are stopped", || is_stopped(command) && is_stopped(running.pid()));
        running.signal(libc::SIGCONT);
        eventually("both go on", || !is_stopped(command) && !is_stopped(running.pid()));
    }
    running.signal(libc::SIGTERM);
    let _ = running.wait().exits(128 + libc::SIGTERM);
    assert!(!is_alive(command));
}

#[test]
fn where_there_is_no_terminal_a_command_that_is_stopped_and_continued_alone_ends_guard_run() {
    let mut running = Run::new(EVERY_SECTION, [STORM, "sleep"]).through(["setsid"]).start();
    running.wait_for("now");
    let command = command_of(&running);
    let send = |signal| {
        // SAFETY: takes two numbers; the process is that of the run, which is not over.
        assert_eq!(unsafe { libc::kill(command.cast_signed(), signal) }, 0);
    };
    send(libc::SIGSTOP);
    eventually("it is stopped", || is_stopped(command));
    send(libc::SIGCONT);
    send(libc::SIGTERM);
    let _ = running.wait().exits(128 + libc::SIGTERM);
}

#[test]
fn the_command_finds_dispositions_and_mask_as_they_were() {
    let wrappers: [&[&str]; 9] = [
        &["env"],
        &PLAIN,
        &["env", "--default-signal", "--ignore-signal=PIPE"],
        &["env", "--default-signal", "--ignore-signal=CHLD"],
        &["env", "--default-signal", "--ignore-signal=INT,QUIT,HUP"],
        &["env", "--default-signal", "--ignore-signal"],
        &["env", "--default-signal", "--block-signal=USR1,TERM,PIPE"],
        &["env", "--default-signal", "--block-signal=CHLD,INT,TSTP,CONT,WINCH"],
        &["env", "--default-signal", "--ignore-signal=PIPE,TERM", "--block-signal"],
    ];
    for wrapper in wrappers {
        let run = Run::new(EVERY_SECTION, ["grep", "^Sig[BIC]", "/proc/self/status"]).through(wrapper);
        let (guarded, bare) = (run.output().success(), run.bare().success());
        assert_eq!(guarded.stdout, bare.stdout, "{wrapper:?}");
        assert_eq!(bare.stdout.lines().count(), 3);
    }
}

#[test]
fn how_the_command_ends_is_known_also_where_children_are_not_waited_for() {
    let run = Run::shell(EVERY_SECTION, "exit 42", &[]).through(["env", "--ignore-signal=CHLD"]);
    let output = run.output().exits(42);
    assert_eq!(output.log["exit"], json!({"code": 42, "killed": 0}));
}

#[test]
fn a_signal_that_is_ignored_ends_neither_the_command_nor_the_waiting() {
    // As under nohup(1), at logout.
    let script = r#"(while kill -0 $$ 2>&-; do sleep 0.01; done; echo alone; until [ -e "$1" ]; do sleep 0.01; done
        echo done) & exit 3"#;
    let folder = tempfile::tempdir().unwrap();
    let end = folder.path().join("end");
    let run = Run::shell(EVERY_SECTION, script, &[end.to_str().unwrap()]).through(["env", "--ignore-signal=HUP"]);
    let mut running = run.start();
    running.wait_for("alone");
    running.signal(libc::SIGHUP);
    let pending = || status_of(running.pid(), "ShdPnd").is_none_or(|signals| signals.contains('1'));
    eventually("guard-run has taken the signal", || !pending());
    std::fs::write(end, "").unwrap();
    let output = running.wait().exits(3);
    assert_eq!((output.stdout.as_str(), &output.log["exit"]["killed"]), ("alone\ndone\n", &json!(0)));
}

const TRACED: &str = include_str!("../probes/traced.py");

/// The kernel makes guard-run the tracer of what asks for that, and then waits for its word at each signal.
#[test]
fn what_asks_to_be_traced_goes_on() {
    for (way, said) in [
        ("by_itself", "handled\nhandled\n"),
        ("before_executing", "executed\n"),
        ("by_a_thread_that_ends_with_it", "traced\n"),
        ("by_another_child_of_its_parent", "handled\n"),
    ] {
        let output = Run::python(EVERY_SECTION, TRACED, &[way]).output().success();
        assert_eq!(output.stdout, said, "{way}");
    }
}

#[test]
fn what_asks_to_be_traced_is_ended_by_signals_like_any_other() {
    for way in ["until_it_ends", "again_and_again"] {
        let mut running = Run::python(EVERY_SECTION, TRACED, &[way]).flags(["--wait", "child"]).through(PLAIN).start();
        running.wait_for("ready");
        running.signal(libc::SIGTERM);
        let output = running.wait().exits(128 + libc::SIGTERM);
        let others = if way == "again_and_again" { 4 } else { 0 };
        assert_eq!(output.log["exit"], json!({"signal": libc::SIGTERM, "killed": others}), "{way}");
        support::assert_no_leaf(output.pid);
    }
}
