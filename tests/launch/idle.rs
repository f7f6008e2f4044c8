//! While a command runs, guard-run waits; it does not use the CPU itself.

use std::{fs, time::Duration};

use serde_json::json;
use support::Run;

/// Works for half a second of CPU time: long enough for a guard-run that does not sleep to show.
const WORK: &str = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\n";
/// What guard-run may use of the CPU in the meantime.
const MUCH_LESS: Duration = Duration::from_millis(50);

/// How long a process has been on a CPU, in steps of 10 ms (proc_pid_stat(5): utime and stime).
fn cpu_time(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[test]
fn guard_run_sleeps_while_its_command_works_and_while_it_waits_for_the_rest() {
    // The command works, then leaves a process behind that works.
    let script = r#"echo begin; python3 -c "$1"; echo middle; (python3 -c "$1"; echo end; read -r line) <&0 & exit 0"#;
    let (hold, release) = std::io::pipe().unwrap();
    let mut running = Run::shell(json!({"version": 1}), script, &[WORK]).stdin(hold).start();
    running.wait_for("begin");
    let begin = cpu_time(running.pid());
    running.wait_for("middle");
    let middle = cpu_time(running.pid());
    running.wait_for("end");
    let end = cpu_time(running.pid());
    drop(release);
    let _ = running.wait().success();
    for (from, to, what) in [(begin, middle, "the command"), (middle, end, "a process that it left behind")] {
        let used = to.saturating_sub(from);
        assert!(used < MUCH_LESS, "{used:?} while {what} worked");
    }
}
