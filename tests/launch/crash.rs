//! What becomes of guard-run when it fails where it never should, or can't have threads and memory: one line, status 125, nothing in
//! force and nothing left behind.

use std::{
    ffi::OsString,
    fs,
    io::{PipeReader, Read as _, Write as _, pipe},
    os::{fd::AsRawFd as _, unix::process::ExitStatusExt as _},
    process::{Child, Command, Stdio},
};

use support::{
    Run, Yard, assert_no_leaf,
    bpf::EVERY_SECTION,
    eventually,
    ordinary::{ALICE, become_user, line, policy},
    processes_in,
};

/// These variables have a guard-run that was built for development panic at one of the moments at which it, or the process that will be the
/// command, puts capabilities into effect.
const PANIC: [&str; 2] = ["GUARD_RUN_PANIC_AT_RAISE", "GUARD_RUN_PANIC_AT_CHILDS_RAISE"];

/// More than there are.
const MOST: u32 = 100;

/// A run that leaves a file behind when the command is executed.
fn run() -> Run {
    let run = Run::shell(policy(), "echo > \"$MARK\"", &[]).flags(["--fresh"]);
    let mark = run.folder().join("mark");
    run.environment("MARK", mark)
}

/// Panics at each raise in turn, in the process that a variable is for.
fn panic_everywhere(variable: &str, run: impl Fn() -> Run) {
    let mut before_the_command = 0;
    for raise in 1..MOST {
        let run = run().environment(variable, raise.to_string()).environment("RUST_BACKTRACE", "full");
        let output = run.output();
        let has_run = run.folder().join("mark").exists();
        if output.code() == Some(0) {
            assert!(has_run && before_the_command > 3, "{raise} {output:?}");
            return;
        }
        let said = line(&output);
        assert!(output.code() == Some(125) && said.len() < 500, "{raise}: {output:?}");
        assert!(said.starts_with("guard-run: internal error at enforce/src/privilege.rs:"), "{raise}: {said}");
        assert!(said.contains(&format!("asked to at raise {raise}; please report this")), "{raise}: {said}");
        // Only for removing the leaf, there is another raise after that, and then there is a log.
        assert!(!has_run || output.log["exit"]["code"] == 0, "{raise}: {output:?}");
        before_the_command += u32::from(!has_run);
    }
    panic!("it never ran");
}

#[test]
fn a_panic_is_one_line_and_leaves_nothing_behind_whenever_it_comes() {
    for variable in PANIC {
        panic_everywhere(variable, run);
        panic_everywhere(variable, || run().as_ordinary(ALICE));
    }
}

/// A pipe that is full, so that anybody who writes to it waits until somebody reads.
fn full_pipe() -> (PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    // SAFETY: takes integers, and concerns a pipe of this process's own.
    let flags = |flags: i32| assert_eq!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, flags) }, 0);
    flags(libc::O_NONBLOCK);
    while (&writer).write(&[b'.'; 4096]).is_ok() {}
    while (&writer).write(b".").is_ok() {}
    flags(0);
    writer.flush().unwrap();
    (reader, writer)
}

/// Ends with this value.
struct Waiting(Child);

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nothing_is_in_effect_any_more_when_a_panic_is_told() {
    let mut seen = 0;
    for raise in 1..MOST {
        let run = run().as_ordinary(ALICE);
        let (mut reader, writer) = full_pipe();
        let words = become_user(ALICE);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(run.program()).arg("--policy").arg(run.policy()).arg("--log").arg(run.log());
        command.args(["--", "true"]).env(PANIC[0], raise.to_string()).stderr(Stdio::from(writer));
        let mut child = Waiting(command.spawn().unwrap());
        drop(command);
        let pid = child.0.id();
        let mut status = None;
        // poll(2) for two descriptors, this and signals, and not for ever, on x86-64: nothing else is waited for like that.
        let is_telling = || {
            let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
            let words: Vec<&str> = call.split(' ').collect();
            matches!(words[..], ["7", _, "0x2", timeout, ..] if !timeout.ends_with("ffffffff"))
        };
        eventually("it tells, or ends", || {
            status = child.0.try_wait().unwrap();
            status.is_some() || is_telling()
        });
        if status.is_some_and(|status| status.success()) {
            break;
        }
        assert_eq!(status, None, "{raise}: nothing was told");
        for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let text = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
            assert_eq!(field("CapEff:"), "0000000000000000", "{raise}");
            seen += u32::from(field("CapPrm:") != "0000000000000000");
        }
        let mut text = String::new();
        let _ = reader.read_to_string(&mut text).unwrap();
        assert!(text.trim_start_matches('.').starts_with("guard-run: "), "{raise}");
        assert_eq!(child.0.wait().unwrap().code(), Some(125), "{raise}");
        assert_no_leaf(pid);
    }
    assert!(seen > 5, "the control: there were capabilities that could have been in effect");
}

/// The kernel counts all processes of a user, so this is nobody else's.
fn somebody() -> u32 {
    1_000_000 + std::process::id()
}

#[test]
fn where_no_thread_is_to_be_had_one_does_all() {
    for (processes, code) in [(1, 125), (2, 0), (3, 0)] {
        let limit = format!("ulimit -u {processes}; exec \"$@\"");
        let wrapper = ["bash".into(), "-c".into(), limit.into(), "bash".into()];
        let run = Run::new(EVERY_SECTION, ["true"]).as_ordinary(somebody());
        let run = run.through([become_user(somebody()), wrapper.to_vec()].concat());
        let output = run.output().exits(code);
        if code == 0 {
            assert_eq!((output.stderr.as_str(), &output.log["exit"]["code"]), ("", &0.into()));
        } else {
            assert!(line(&output).contains("can't start a process in the cgroup"), "{output:?}");
        }
    }
}

/// What becomes of a run in a yard that may have this many kilobytes (`ulimit -v` or `-d`): its status, and what it said.
fn limited(yard: &Yard, kind: char, kilobytes: u32) -> (Option<i32>, String) {
    let script = format!("ulimit -{kind} {kilobytes}; exec \"$@\"");
    let run = Run::new(EVERY_SECTION, ["/bin/busybox", "true"]).flags(["--fresh"]);
    let wrapper = [yard.wrapper(), ["bash", "-c", &script, "bash"].map(OsString::from).to_vec()].concat();
    let running = run.through(wrapper).start();
    let output = running.wait();
    let code = output.code().or_else(|| output.status.signal().map(|signal| -signal));
    (code, output.stderr)
}

fn is_before_main(code: Option<i32>, said: &str) -> bool {
    let words = [
        "Fatal glibc error: ",
        "failed to allocate an alternative stack",
        "failed to set up alternative stack guard page",
    ];
    code == Some(-libc::SIGSEGV) && said.is_empty() || words.iter().any(|words| said.contains(words))
}

#[test]
fn where_memory_is_short_it_runs_or_says_so_in_one_line() {
    const STEP: u32 = 64;
    let yard = Yard::new();
    for kind in ['v', 'd'] {
        // The least with which it runs.
        let (mut too_little, mut enough) = (0, 1 << 20);
        while enough - too_little > STEP {
            let middle = too_little.midpoint(enough);
            if limited(&yard, kind, middle).0 == Some(0) { enough = middle } else { too_little = middle }
        }
        let mut refused = 0;
        for kilobytes in (0..24).map(|step| enough.saturating_sub(step * STEP)) {
            let (code, said) = limited(&yard, kind, kilobytes);
            match code {
                Some(0) => {}
                Some(125) => {
                    assert!(said.starts_with("guard-run: ") && said.lines().count() == 1, "{kind} {kilobytes}: {said}");
                    refused += 1;
                }
                // It did not even begin: that is the kernel's, the C library's and Rust's word.
                code => assert!(is_before_main(code, &said), "{kind} {kilobytes}: {code:?} {said}"),
            }
        }
        println!("ulimit -{kind}: runs with {enough} KB; {refused} below were refused");
    }
    // What ends for want of memory can undo nothing, but its command is dead, and the next run removes its leaf.
    eventually("nobody is left", || yard.leaves().iter().all(|leaf| processes_in(leaf).is_empty()));
    assert_eq!(limited(&yard, 'v', 1 << 20).0, Some(0));
    assert!(yard.leaves().is_empty());
}
