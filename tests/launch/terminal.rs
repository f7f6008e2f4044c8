//! On a terminal: an interactive shell with job control treats `guard-run … -- COMMAND` like COMMAND.

use std::{fs, path::Path};

use serde_json::Value;
use support::{
    Run, become_user, eventually, is_stopped,
    ordinary::ALICE,
    processes_with_argument, status_of,
    terminal::{INTERRUPT, PROMPT, SUSPEND, Terminal},
};

const STORM: &str = env!("CARGO_BIN_EXE_storm");

const POLICY: &str = r#"{
    "version": 1,
    "network": {"default": "allow", "rules": [{"action": "deny", "hosts": ["192.0.2.1"]}]},
    "devices": {"default": "allow", "rules": [{"action": "deny", "type": "c", "major": 1, "minor": 5}]}
}"#;

/// A terminal, and what is typed there before a command to run it under the policy.
struct Desk {
    terminal: Terminal,
    files: Run,
    guarded: String,
}

impl Desk {
    fn new() -> Self {
        let files = Run::new(POLICY, ["true"]);
        let paths = (support::guard_run(), files.policy(), files.log());
        let guarded = format!("{} -p {} --log {} --", paths.0.display(), paths.1.display(), paths.2.display());
        Self { terminal: Terminal::new(), files, guarded }
    }

    /// Types a line in which `guarded` stands for the beginning of a guarded command.
    fn line(&mut self, line: &str) {
        self.terminal.line(&line.replace("guarded", &self.guarded));
    }

    /// Waits until the shell is ready again. Returns the last command's status.
    fn status(&mut self) -> i32 {
        self.terminal.expect(PROMPT);
        self.terminal.line("echo status $?.");
        self.terminal.expect("status ");
        self.terminal.expect(".").parse().unwrap()
    }

    fn log(&self) -> Value {
        serde_json::from_slice(&fs::read(self.files.log()).expect("a log")).expect("JSON")
    }

    /// A file of two hundred lines.
    fn long_file(&self) -> String {
        let path = self.files.folder().join("text");
        let lines: Vec<String> = (1..=200).map(|number| format!("this is line {number} of the text\n")).collect();
        fs::write(&path, lines.concat()).unwrap();
        path.display().to_string()
    }
}

/// Waits until `storm wait` is ready. Returns the process ids of guard-run and of the command.
fn ready(terminal: &mut Terminal) -> [u32; 2] {
    terminal.expect("ready ");
    let pids = terminal.expect(" now");
    let (guard_run, command) = pids.split_once(' ').unwrap();
    [guard_run, command].map(|pid| pid.parse().unwrap())
}

#[test]
fn ctrl_c_ends_the_command() {
    let mut desk = Desk::new();
    desk.line(&format!("guarded {STORM} sleep"));
    ready(&mut desk.terminal);
    desk.terminal.keys(INTERRUPT);
    assert_eq!(desk.status(), 130);
    assert_eq!(desk.log()["exit"]["signal"], libc::SIGINT);
}

#[test]
fn ctrl_c_that_the_command_handles_is_the_commands_affair() {
    let mut desk = Desk::new();
    desk.line(
        r#"guarded bash -c 'trap "echo caught; exit 5" INT; echo ready; for i in {1..6000}; do sleep 0.01; done'"#,
    );
    desk.terminal.expect("ready");
    desk.terminal.keys(INTERRUPT);
    desk.terminal.expect("caught");
    assert_eq!(desk.status(), 5);
    assert_eq!(desk.log()["exit"]["code"], 5);
}

#[test]
fn ctrl_z_stops_the_job_and_fg_continues_it() {
    let mut desk = Desk::new();
    desk.line(&format!("guarded {STORM} wait"));
    let pids = ready(&mut desk.terminal);
    for _ in 0..2 {
        desk.terminal.keys(SUSPEND);
        desk.terminal.expect("Stopped");
        desk.terminal.expect(PROMPT);
        eventually("both are stopped", || pids.iter().all(|pid| is_stopped(*pid)));
        desk.line("jobs; echo .");
        assert!(desk.terminal.expect(".\r\n").contains("Stopped"));
        desk.line("fg");
        desk.terminal.expect("continued");
        eventually("both go on", || !pids.iter().any(|pid| is_stopped(*pid)));
    }
    desk.terminal.keys(INTERRUPT);
    assert_eq!(desk.status(), 5);
}

#[test]
fn a_job_goes_on_in_the_background_and_comes_back() {
    let mut desk = Desk::new();
    desk.line(&format!("guarded {STORM} wait"));
    let pids = ready(&mut desk.terminal);
    desk.terminal.keys(SUSPEND);
    desk.terminal.expect("Stopped");
    desk.line("bg");
    desk.terminal.expect("continued");
    eventually("both go on", || !pids.iter().any(|pid| is_stopped(*pid)));
    desk.line("jobs; echo .");
    assert!(desk.terminal.expect(".\r\n").contains("Running"));
    desk.line("kill %1; wait %1");
    assert_eq!(desk.status(), 128 + libc::SIGTERM);
}

#[test]
fn a_command_in_the_background_that_reads_the_terminal_is_stopped_and_gets_the_line_after_fg() {
    let mut desk = Desk::new();
    desk.line(r#"guarded bash -c 'read -r line; echo "read $line"' &"#);
    desk.terminal.expect(PROMPT);
    // The shell tells of a job that has stopped before its next prompt.
    while !{
        desk.line("jobs; echo .");
        desk.terminal.expect(".\r\n").contains("Stopped")
    } {}
    desk.line("fg");
    desk.line("hello");
    desk.terminal.expect("read hello");
    assert_eq!(desk.status(), 0);
}

/// For root, whose terminal it is, and for somebody who may not open it.
#[test]
fn a_log_on_the_terminal_is_written_from_the_background_also_where_that_stops_others() {
    for user in [0, ALICE] {
        let mut desk = Desk::new();
        desk.files = desk.files.as_ordinary(user);
        let become_user =
            become_user(user).into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>().join(" ");
        let (program, policy) = (desk.files.program().display(), desk.files.policy().display().to_string());
        let line = format!(
            "stty tostop; {become_user} {program} -p {policy} --log - -- sh -c 'exec 2>/dev/null; : </dev/zero' & wait $!"
        );
        desk.line(&line);
        desk.terminal.expect("\"schema\"");
        desk.terminal.expect("\"events\"");
        desk.terminal.expect("\"minor\": 5");
        desk.terminal.expect("guard-run: denied 1");
        // The shell's word for a redirection that fails.
        assert_eq!(desk.status(), 2);
        // The control: others are stopped.
        desk.line("sh -c 'echo wrote' & until jobs | grep Stopped; do :; done; kill -9 %1; wait");
        desk.terminal.expect("Stopped");
    }
}

#[test]
fn a_change_of_the_windows_size_reaches_the_command() {
    let mut desk = Desk::new();
    desk.line(&format!("guarded {STORM} wait"));
    ready(&mut desk.terminal);
    for (rows, columns) in [(30, 100), (11, 44)] {
        desk.terminal.resize(rows, columns);
        desk.terminal.expect(&format!("{rows} {columns}\r\n"));
    }
    desk.terminal.keys(INTERRUPT);
    assert_eq!(desk.status(), 5);
}

/// What terminals of the type xterm understand: to the full screen, and back.
const FULL_SCREEN: &str = "\x1b[?1049h";
const BACK: &str = "\x1b[?1049l";

#[test]
fn a_full_screen_program_works() {
    let mut desk = Desk::new();
    let file = desk.long_file();
    desk.line(&format!("guarded less {file}"));
    desk.terminal.expect(FULL_SCREEN);
    desk.terminal.expect("this is line 23 of");
    desk.terminal.keys(" ");
    desk.terminal.expect("this is line 46 of");
    desk.terminal.keys("G");
    desk.terminal.expect("this is line 200 of");
    // It misses a Ctrl-Z that comes while it draws.
    let is_less = |pid: &u32| status_of(*pid, "Name").is_some_and(|name| name == "less");
    let less = processes_with_argument(&file).into_iter().find(is_less).expect("it is running");
    eventually("it waits for a key", || status_of(less, "State").is_some_and(|state| state.starts_with('S')));
    // Stopped and continued, it draws its screen again.
    desk.terminal.keys(SUSPEND);
    desk.terminal.expect("Stopped");
    desk.line("fg");
    desk.terminal.expect("this is line 200 of");
    desk.terminal.keys("q");
    desk.terminal.expect(BACK);
    assert_eq!(desk.status(), 0);
}

#[test]
fn it_can_be_a_part_of_a_pipeline() {
    let mut desk = Desk::new();
    let file = desk.long_file();
    desk.line(&format!("guarded cat {file} | less"));
    desk.terminal.expect(FULL_SCREEN);
    desk.terminal.expect("this is line 23 of");
    desk.terminal.keys("q");
    desk.terminal.expect(BACK);
    desk.terminal.expect(PROMPT);
    desk.line(&format!("cat {file} | guarded less"));
    desk.terminal.expect(FULL_SCREEN);
    desk.terminal.expect("this is line 23 of");
    desk.terminal.keys("q");
    desk.terminal.expect(BACK);
    assert_eq!(desk.status(), 0);
    assert!(Path::new(&desk.files.log()).exists());
}

#[test]
fn a_reader_that_goes_away_ends_the_command_by_sigpipe() {
    let mut desk = Desk::new();
    desk.line("guarded yes | head -n 1; echo ${PIPESTATUS[0]}.");
    desk.terminal.expect("y\r\n");
    assert_eq!(desk.terminal.expect(".\r\n"), (128 + libc::SIGPIPE).to_string());
}

#[test]
fn an_interactive_shell_has_job_control_inside() {
    let mut desk = Desk::new();
    desk.line("guarded bash --noprofile --norc --noediting -i");
    desk.terminal.expect(PROMPT);
    desk.terminal.line(": < /dev/zero");
    desk.terminal.expect("Operation not permitted");
    desk.terminal.expect(PROMPT);
    desk.terminal.line(&format!("{STORM} wait"));
    desk.terminal.expect("ready");
    desk.terminal.keys(SUSPEND);
    desk.terminal.expect("Stopped");
    desk.terminal.expect(PROMPT);
    desk.terminal.line("jobs; echo .");
    assert!(desk.terminal.expect(".\r\n").contains("Stopped"));
    desk.terminal.line("fg");
    desk.terminal.expect("continued");
    desk.terminal.keys(INTERRUPT);
    assert_eq!(desk.status(), 5);
    desk.terminal.line("exit 7");
    assert_eq!(desk.status(), 7);
    assert_eq!(desk.log()["events"].as_array().unwrap().len(), 1);
}

#[test]
fn an_interactive_shell_inside_can_step_aside_and_come_back() {
    let mut desk = Desk::new();
    desk.line("guarded bash --noprofile --norc --noediting -i");
    desk.terminal.expect(PROMPT);
    desk.terminal.line("echo inside $$.");
    desk.terminal.expect("inside ");
    let inside = desk.terminal.expect(".");
    desk.terminal.expect(PROMPT);
    for _ in 0..2 {
        desk.terminal.line("suspend");
        desk.terminal.expect("Stopped");
        desk.terminal.expect(PROMPT);
        desk.terminal.line("fg");
        desk.terminal.expect(PROMPT);
        desk.terminal.line("echo $$.");
        assert_eq!(desk.terminal.expect("."), inside, "it has the terminal again");
        desk.terminal.expect(PROMPT);
    }
    desk.terminal.line("exit 7");
    assert_eq!(desk.status(), 7);
}
