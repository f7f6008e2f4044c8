//! The command line of `guard-hook`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::{fd::AsRawFd as _, unix::net::UnixDatagram},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use enforce::{arguments::parse, exit, sys::confine::replace_descriptor, target::kind};
use nix::{
    sys::stat::{SFlag, fstat},
    unistd::isatty,
};
use report::text::{OneLine, short_line};

use crate::{
    container::{HookCall, Stage},
    create, gc,
    settings::Settings,
    stop,
};

/// Where messages for the system's log are taken.
const SYSLOG: &str = "/dev/log";

/// Where they are taken by the kernel.
const KERNEL_LOG: &str = "/dev/kmsg";

/// Where nobody takes them.
const NOWHERE: &str = "/dev/null";

/// The kernel refuses records that are longer than LOG_LINE_MAX (kernel/printk/printk.c), 976 bytes and more.
const MAX_RECORD: usize = 976;

/// LOG_DAEMON | LOG_ERR (syslog(3)).
const PRIORITY: u8 = 3 << 3 | 3;

/// The guard for containers: an OCI hook.
///
/// Without a subcommand, it reads the state of a container from standard input and does what the container's status asks
/// for.
#[derive(Debug, Parser)]
#[command(
    name = "guard-hook",
    version,
    after_help = "Examples:\n  guard-hook gc\n  guard-hook createRuntime <state.json\n\nExit status: 0; 125 if anything failed."
)]
struct Cli {
    #[command(subcommand)]
    subcommand: Option<Sub>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Sub {
    /// Guard a container that is about to run, whose state is on standard input
    #[command(name = "createRuntime")]
    CreateRuntime,
    /// Write the log of a container that is no more, whose state is on standard input
    Poststop,
    /// Conclude containers that have ended without their engine saying so: write their logs, remove their guards
    Gc,
}

/// Parses the command line, does what it says and returns the exit status.
#[must_use]
pub fn main() -> ExitCode {
    let cli: Cli = match parse() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let result = match cli.subcommand {
        None => hook(None),
        Some(Sub::CreateRuntime) => hook(Some(Stage::CreateRuntime)),
        Some(Sub::Poststop) => hook(Some(Stage::Poststop)),
        Some(Sub::Gc) => return collect(),
    };
    if let Err(error) = result {
        tell(&format!("{error:#}"));
        return ExitCode::from(exit::FAILURE);
    }
    ExitCode::from(exit::OK)
}

/// Does what a stage asks for: the one that is said, or else the one that the container's status stands for.
fn hook(stage: Option<Stage>) -> anyhow::Result<()> {
    keep_out_of_files().context("standard error")?;
    let HookCall { stage: told, pid, container } = HookCall::read(io::stdin())?;
    match stage.unwrap_or(told) {
        Stage::CreateRuntime => create::create(container, pid),
        Stage::Poststop => stop::stop(&container),
    }
}

/// Has nothing written to a standard error that is a file, unless that is in a folder for logs. crun makes or opens any file that an annotation
/// names (run.oci.hooks.stderr), an image's annotation where its engine hands these on, and what a hook says has words of annotations in it: a
/// shell or the dynamic linker could be made to read them.
fn keep_out_of_files() -> io::Result<()> {
    let stderr = io::stderr();
    let is_read_by_people = match kind(&fstat(&stderr)?) {
        SFlag::S_IFIFO | SFlag::S_IFSOCK => true,
        SFlag::S_IFCHR => isatty(&stderr).unwrap_or(false),
        SFlag::S_IFREG => {
            let path = fs::read_link(format!("/proc/self/fd/{}", stderr.as_raw_fd()))?;
            Settings::read().is_ok_and(|settings| settings.is_for_logs(&path))
        }
        _ => false,
    };
    if !is_read_by_people {
        let nowhere = OpenOptions::new().write(true).open(NOWHERE)?;
        replace_descriptor(&nowhere.into(), stderr.as_raw_fd())?;
    }
    Ok(())
}

fn collect() -> ExitCode {
    let reaped = gc::collect();
    for id in &reaped.containers {
        println!("concluded {}", OneLine(id));
    }
    let count = reaped.containers.len();
    println!("{count} abandoned {} concluded", if count == 1 { "container" } else { "containers" });
    for error in &reaped.failed {
        tell(&format!("{error:#}"));
    }
    ExitCode::from(if reaped.failed.is_empty() { exit::OK } else { exit::FAILURE })
}

/// Says something to the user, on one line: on standard error, which runc shows, and to the system's log, since crun throws
/// away what hooks say. What can't be said must not keep a hook from what it does.
pub fn tell(message: &str) {
    let message = one_line(message);
    let _ = writeln!(io::stderr(), "guard-hook: {message}");
    let _ = log(&message);
}

/// A message as engines can hand it on: they show one line of what they are told. It is shorter than 1,000 bytes with a program's name before it.
#[must_use]
pub fn one_line(message: &str) -> String {
    // podman takes the usual words for the container's command not being found.
    let message =
        message.replace('\n', " | ").replace("No such file or directory (os error 2)", "there is no such file");
    short_line(&message)
}

/// Writes a message to the system's log, or where nobody keeps one to the kernel's.
fn log(message: &str) -> io::Result<()> {
    let record = format!("<{PRIORITY}>guard-hook[{}]: {message}", std::process::id());
    let log = UnixDatagram::unbound()?;
    // A log that is full must not keep a container waiting.
    log.set_nonblocking(true)?;
    match log.send_to(record.as_bytes(), SYSLOG) {
        // Where there is no such device, a file of that name would be of use to nobody.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            OpenOptions::new().write(true).open(KERNEL_LOG)?.write_all(for_kernel(&record))
        }
        sent => sent.map(drop),
    }
}

/// As much of a record as the kernel takes.
fn for_kernel(record: &str) -> &[u8] {
    &record.as_bytes()[..record.len().min(MAX_RECORD)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_for_the_kernels_log_is_cut() {
        assert_eq!(for_kernel("<27>x"), b"<27>x");
        assert_eq!(for_kernel(&"ä".repeat(MAX_RECORD)).len(), MAX_RECORD);
    }

    #[test]
    fn messages_are_one_line_and_no_engine_takes_them_for_a_missing_command() {
        assert_eq!(one_line("a\nb: No such file or directory (os error 2)"), "a | b: there is no such file");
        assert_eq!(one_line("a\u{9b}2J\u{202e}b"), "a\\u{9b}2J\\u{202e}b");
        assert_eq!(one_line("/x\u{1b}[2J\u{9b}2J\r"), "/x\\u{1b}[2J\\u{9b}2J\\r");
        assert!(one_line(&"a\n".repeat(1000)).len() < 1000 - "guard-runtime: \n".len());
    }
}
