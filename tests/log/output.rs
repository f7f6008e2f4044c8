//! What guard-run writes beside files of its own: standard error, FIFOs, and what others may do about these. The log and the
//! events are whole, or it is said that they aren't; and nothing holds guard-run up that a signal could not end.

use std::{
    cell::Cell,
    fs::{self, File, OpenOptions},
    io::Read as _,
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::{OpenOptionsExt as _, PermissionsExt as _},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    PYTHON, Run, become_user, eventually, file_capabilities, give_capabilities, is_stopped, leaves_of, ordinary::ALICE,
    processes_in,
};

const STORM: &str = env!("CARGO_BIN_EXE_storm");

/// How many denials [`many`] makes: their events and the log are several times as large as a pipe.
const DENIALS: usize = 300;

/// What a pipe holds.
const PIPE: i32 = 65_536;

fn policy() -> Value {
    let rules = json!([{"action": "deny", "ops": ["connect"], "hosts": ["127.0.0.1"]}]);
    json!({"version": 1, "network": {"default": "allow", "rules": rules}})
}

/// A run of a shell script in which `many` is a command that is denied [`DENIALS`] different things.
fn many(script: &str) -> Run {
    let ports: Vec<String> = (1..=DENIALS).map(|port| port.to_string()).collect();
    let script = format!("many() {{ $STORM tcp {} >/dev/null; }}; {script}", ports.join(" "));
    Run::shell(policy(), &script, &[]).environment("STORM", STORM)
}

/// A wrapper that has standard error opened by a shell, as `redirection` says.
fn with_stderr(redirection: &str, path: &Path) -> [String; 4] {
    ["sh".into(), "-c".into(), format!("exec \"$@\" {redirection}\"$0\""), path.display().to_string()]
}

/// A FIFO, which its owner alone may open.
fn fifo(folder: &Path) -> PathBuf {
    let path = folder.join("fifo");
    let made = Command::new("mkfifo").args(["-m", "600"]).arg(&path).status().unwrap();
    assert!(made.success());
    path
}

/// The FIFO's reading end, opened without waiting for a writer.
fn reader(fifo: &Path) -> File {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(fifo).unwrap()
}

/// How many bytes there are to be read.
fn readable(file: &File) -> i32 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the call writes an int there.
    assert_eq!(unsafe { libc::ioctl(file.as_raw_fd(), libc::FIONREAD, &raw mut bytes) }, 0);
    bytes
}

/// All that is written until nobody has it open for writing any more.
fn read_all(mut file: &File) -> String {
    // SAFETY: takes numbers only.
    assert!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, 0) } >= 0);
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

/// The JSON document at the beginning of a text, and what comes after it.
fn document(text: &str) -> (Value, &str) {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = values.next().expect("there is one").unwrap_or_else(|error| panic!("{error}: {text}"));
    (value, &text[values.byte_offset()..])
}

fn assert_whole(log: &Value) {
    assert_eq!(log["events"].as_array().map(Vec::len), Some(DENIALS), "{log:#}");
}

/// What a command does that wants the log lost: the description of its standard error doesn't block any more.
const DONT_BLOCK: &str = "python3 -c 'import os; os.set_blocking(2, False)'";

#[test]
fn a_log_on_a_pipe_is_whole_although_the_command_has_it_not_block() {
    let run = many(&format!("many; {DONT_BLOCK}"));
    let fifo = fifo(run.folder());
    let pipe = reader(&fifo);
    let running = run.without_log().flags(["--log", "-"]).through(with_stderr("2>", &fifo)).start();
    // Nobody reads before there is no room.
    eventually("the pipe is full", || readable(&pipe) >= PIPE);
    let text = read_all(&pipe);
    let _ = running.wait().exits(0);
    let (log, rest) = document(&text);
    assert_whole(&log);
    assert!(rest.trim().starts_with("guard-run: denied "), "{rest}");
}

#[test]
fn a_log_on_a_socket_is_whole_although_it_does_not_block() {
    let run = many("many");
    let path = run.folder().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let program = "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                   s.setblocking(False); os.dup2(s.fileno(), 2); os.execv(sys.argv[2], sys.argv[2:])";
    let running =
        run.without_log().flags(["--log", "-"]).through([PYTHON, "-c", program, path.to_str().unwrap()]).start();
    let (mut stream, _) = listener.accept().unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let _ = running.wait().exits(0);
    assert_whole(&document(&text).0);
}

#[test]
fn a_log_on_a_pipe_of_somebody_elses_is_whole() {
    let run = many(&format!("many; {DONT_BLOCK}")).for_everyone();
    give_capabilities(run.program(), &file_capabilities());
    let fifo = fifo(run.folder());
    let pipe = reader(&fifo);
    // Where the tests were built, only their builder may look.
    let storm = run.folder().join("storm");
    assert!(Command::new("cp").args([Path::new(STORM), &storm]).status().unwrap().success());
    let user: Vec<String> = become_user(ALICE).into_iter().map(|word| word.into_string().unwrap()).collect();
    let wrapper = [&with_stderr("2>", &fifo)[..], &user].concat();
    let running = run.environment("STORM", &storm).without_log().flags(["--log", "-"]).through(wrapper).start();
    eventually("the pipe is full", || readable(&pipe) >= PIPE);
    let text = read_all(&pipe);
    let _ = running.wait().exits(0);
    let (log, _) = document(&text);
    assert_whole(&log);
    assert_eq!(log["user"]["uid"], json!(ALICE));
}

/// Runs a shell line in which `guarded` stands for a guarded command with the log on standard error. What was written there.
fn with_stderr_file(run: &Run, line: &str) -> String {
    let file = run.folder().join("stderr");
    let (program, policy) = (support::guard_run(), run.policy());
    let guarded = format!("{} -p {} --log -", program.display(), policy.display());
    let status = Command::new("bash")
        .args(["-c", &format!("{{ {} ; }} 2>{}", line.replace("guarded", &guarded), file.display())])
        .status()
        .unwrap();
    assert!(status.success());
    fs::read_to_string(file).unwrap()
}

#[test]
fn what_is_written_to_a_file_overwrites_nothing_and_is_not_overwritten() {
    let run = Run::new(policy(), ["true"]);
    let text = with_stderr_file(
        &run,
        "echo before >&2; guarded -v --events - -- bash -c 'echo inside >&2; : <>/dev/tcp/127.0.0.1/9; true'; echo after >&2",
    );
    let rest = text.strip_prefix("before\ninside\n").unwrap_or_else(|| panic!("{text}"));
    // bash's own word for the denial, the event and the log.
    let at = rest.find('{').unwrap();
    let (event, rest) = document(&rest[at..]);
    assert_eq!(event["op"], "connect", "{text}");
    let at = rest.find("{\n").unwrap();
    let (log, rest) = document(&rest[at..]);
    assert_eq!(log["events"].as_array().unwrap().len(), 1);
    let lines: Vec<&str> = rest.trim().lines().collect();
    assert!(matches!(lines[..], [said, "after"] if said.starts_with("guard-run: denied 1")), "{text}");
}

#[test]
fn a_log_in_a_file_is_whole_although_the_command_leaves_it_at_the_end_of_all_files() {
    let run = Run::new(policy(), ["true"]);
    let program = run.folder().join("seek.py");
    let seek = "import os\nfor bits in range(63, 30, -1):\n  try:\n    os.lseek(2, 2**bits - 1, 0)\n    break\n  except OSError: pass\n";
    fs::write(&program, seek).unwrap();
    let line = format!("guarded -v -- {PYTHON} {}; echo after >&2", program.display());
    let text = with_stderr_file(&run, &line);
    let (log, rest) = document(&text);
    assert_eq!(log["exit"]["code"], 0);
    assert!(rest.ends_with("\nafter\n"), "{rest}");
}

/// Runs as Alice, with standard error on a file of root's that she could not open.
#[test]
fn a_log_in_a_file_of_somebody_elses_is_whole_wherever_the_command_leaves_it() {
    let script = format!("{PYTHON} -c 'import os; os.lseek(2, 2**40, 0)'; $STORM tcp 9 >/dev/null");
    let run = Run::shell(policy(), &script, &[]).for_everyone();
    give_capabilities(run.program(), &file_capabilities());
    let (file, storm) = (run.folder().join("both"), run.folder().join("storm"));
    assert!(Command::new("cp").args([Path::new(STORM), &storm]).status().unwrap().success());
    fs::write(&file, "before\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let user: Vec<String> = become_user(ALICE).into_iter().map(|word| word.into_string().unwrap()).collect();
    let wrapper = [&with_stderr("2<>", &file)[..], &user].concat();
    let run = run.environment("STORM", &storm).without_log().flags(["--log", "-"]).through(wrapper);
    let _ = run.output().success();
    let text = fs::read_to_string(&file).unwrap();
    let (log, _) = document(text.strip_prefix("before\n").unwrap_or_else(|| panic!("{text}")));
    assert_eq!((&log["user"]["uid"], log["events"].as_array().unwrap().len()), (&json!(ALICE), 1));
}

#[test]
fn what_is_open_for_reading_alone_is_not_written_to() {
    let run = Run::new(policy(), ["true"]);
    let file = run.folder().join("read");
    fs::write(&file, "as it was").unwrap();
    let run = run.flags(["--verbose"]).through(with_stderr("2<", &file));
    let _ = run.output().success();
    assert_eq!(fs::read_to_string(&file).unwrap(), "as it was");
}

#[test]
fn a_descriptor_as_log_or_events_is_appended_to() {
    let run = many("many");
    let file = run.folder().join("both");
    fs::write(&file, "before\n").unwrap();
    let redirection = format!("3>>\"{}\" 4>&3 2>", file.display());
    let run = run.without_log().flags(["--events", "/dev/fd/4", "--log", "/proc/self/fd/3"]);
    let run = run.through(with_stderr(&redirection, Path::new("/dev/null")));
    let output = run.output();
    assert_eq!(output.code(), Some(0), "{output:?}");
    let text = fs::read_to_string(&file).unwrap();
    let rest = text.strip_prefix("before\n").unwrap_or_else(|| panic!("{text}"));
    let values: Vec<Value> =
        serde_json::Deserializer::from_str(rest).into_iter().collect::<Result<_, _>>().expect("JSON");
    assert_eq!(values.len(), DENIALS + 1);
    assert_whole(values.last().unwrap());
}

/// What has to happen by itself, and without waiting for long.
fn ends_soon<T>(what: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = what();
    assert!(begin.elapsed() < Duration::from_secs(30), "it took {:?}", begin.elapsed());
    result
}

#[test]
fn events_that_nobody_reads_hold_nothing_up_and_are_said_to_be_incomplete() {
    // Nobody opens the FIFO at all; somebody does, and never reads.
    for opened in [false, true] {
        let run = many("many");
        let fifo = fifo(run.folder());
        let _reader = opened.then(|| reader(&fifo));
        let run = run.flags(["--events", fifo.to_str().unwrap()]);
        let output = ends_soon(|| run.output().success());
        assert_whole(&output.log);
        let said = format!("guard-run: {}: nobody reads it; the events in it are not complete", fifo.display());
        assert!(output.stderr.contains(&said), "{output:?}");
    }
}

#[test]
fn events_reach_a_reader_who_is_late_or_slow() {
    let run = many("many; until [ -e \"$END\" ]; do sleep 0.01; done");
    let (fifo, end) = (fifo(run.folder()), run.folder().join("end"));
    let run = run.environment("END", &end).flags(["--events", fifo.to_str().unwrap()]);
    let running = run.start();
    eventually("it runs", || leaves_of(running.pid()).iter().any(|leaf| !processes_in(leaf).is_empty()));
    let pipe = reader(&fifo);
    eventually("the pipe is full", || readable(&pipe) >= PIPE - 4096);
    fs::write(&end, "").unwrap();
    let text = read_all(&pipe);
    let output = running.wait().success();
    assert_whole(&output.log);
    assert!(!output.stderr.contains("not complete"), "{output:?}");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert_eq!(lines.count(), DENIALS);
}

#[test]
fn a_log_for_a_fifo_that_nobody_reads_goes_to_standard_error() {
    let run = many("many");
    let fifo = fifo(run.folder());
    let run = run.without_log().flags(["--log", fifo.to_str().unwrap()]);
    let output = ends_soon(|| run.output().exits(125));
    let (said, log) = output.stderr.split_once('\n').unwrap();
    assert!(said.ends_with("nobody reads it; here it is instead"), "{output:?}");
    assert_whole(&document(log).0);
}

/// A run with a folder in the place of /var/log, and standard error on a FIFO.
fn with_var_log(run: Run, folder: &Path, stderr: &Path) -> Run {
    let script = format!("mount --bind {} /var/log && exec \"$@\" 2>{}", folder.display(), stderr.display());
    run.through(["unshare", "--mount", "sh", "-c", &script, "sh"])
}

#[test]
fn a_log_that_waits_for_its_reader_is_kept_when_guard_run_is_ended() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let folder = tempfile::tempdir().unwrap();
        let run = many("many");
        let fifo = fifo(run.folder());
        let pipe = reader(&fifo);
        let run = with_var_log(run.without_log().flags(["--log", "-"]), folder.path(), &fifo);
        let running = run.start();
        eventually("the pipe is full", || readable(&pipe) >= PIPE);
        running.signal(signal);
        let output = ends_soon(|| running.wait().exits(125));
        support::assert_no_leaf(output.pid);
        let logs: Vec<PathBuf> =
            fs::read_dir(folder.path().join("guard-run")).unwrap().map(|entry| entry.unwrap().path()).collect();
        let [log] = &logs[..] else { panic!("{logs:?}") };
        assert_whole(&serde_json::from_slice(&fs::read(log).unwrap()).unwrap());
    }
}

#[test]
fn a_last_line_that_nobody_reads_does_not_keep_guard_run_from_its_end() {
    let script = "head -c 65536 /dev/zero >&2; { : <>/dev/tcp/127.0.0.1/9; } 2>/dev/null; exit 7";
    let run = Run::shell(policy(), script, &[]);
    let fifo = fifo(run.folder());
    let pipe = reader(&fifo);
    let output = ends_soon(|| run.through(with_stderr("2>", &fifo)).output().exits(7));
    assert_eq!((output.denied(), readable(&pipe)), (1, PIPE));
}

#[test]
fn guard_run_can_be_ended_while_the_commands_process_is_stopped() {
    // It takes a while to load this policy; meanwhile the process is there.
    let networks: Vec<String> = (0..30_000).map(|index| format!("10.{}.{}.0/24", index >> 8, index & 255)).collect();
    let rules = json!([{"action": "deny", "ops": ["connect"], "hosts": networks}]);
    let policy = json!({"version": 1, "network": {"default": "allow", "rules": rules}});
    let is_held = |pid: u32, launcher: u32| {
        let programs = [pid, launcher].map(|pid| fs::read_link(format!("/proc/{pid}/exe")).ok());
        programs[0].is_some() && programs[0] == programs[1]
    };
    let caught = (0..20).any(|_| {
        let mut running = Run::new(&policy, ["sleep", "1000"]).flags(["--fresh"]).start();
        let launcher = running.pid();
        let process = Cell::new(0);
        running.wait_until("the command's process is there", |_| {
            let found = leaves_of(launcher).iter().flat_map(|leaf| processes_in(leaf)).next();
            process.set(found.unwrap_or(0));
            found.is_some()
        });
        // SAFETY: takes two numbers.
        unsafe { libc::kill(process.get().cast_signed(), libc::SIGSTOP) };
        eventually("it is stopped", || is_stopped(process.get()));
        let caught = is_held(process.get(), launcher);
        running.signal(if caught { libc::SIGTERM } else { libc::SIGKILL });
        let output = ends_soon(|| running.wait());
        if caught {
            assert_eq!(output.code(), Some(128 + libc::SIGKILL), "{output:?}");
            support::assert_no_leaf(output.pid);
        }
        caught
    });
    assert!(caught, "it was never found before it was executed");
}
