//! Errors, said as runc and crun say them: on standard error, and in the file that the engine shows its user.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    path::Path,
};

use serde_json::{Value, json};

use super::arguments::Log;
use crate::cli::one_line;

/// Says why there is no container, on one line.
pub fn complain(log: &Log, message: &str) {
    let message = format!("guard-runtime: {}", one_line(message));
    if let Some(file) = &log.file
        && let Err(error) = append(file, &line(&message, jiff::Timestamp::now(), log.json))
    {
        tell(&format!("guard-runtime: {}", one_line(&format!("{}: {error}", file.display()))));
    }
    tell(&message);
}

/// As logrus has it, which runc and most engines are written with; containerd and podman read `level` and `msg`.
fn line(message: &str, time: jiff::Timestamp, json: bool) -> String {
    if json {
        json!({"level": "error", "msg": message, "time": time.to_string()}).to_string()
    } else {
        format!("time=\"{time}\" level=error msg={}", Value::from(message))
    }
}

fn append(file: &Path, line: &str) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).open(file)?.write_all(format!("{line}\n").as_bytes())
}

fn tell(message: &str) {
    // Nobody is left to be told if this fails; the exit status says enough.
    let _ = writeln!(io::stderr(), "{message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_can_read_it() {
        let time = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(line("a \"b\"", time, true), r#"{"level":"error","msg":"a \"b\"","time":"2026-01-02T03:04:05Z"}"#);
        assert_eq!(line("a \"b\"", time, false), r#"time="2026-01-02T03:04:05Z" level=error msg="a \"b\"""#);
    }
}
