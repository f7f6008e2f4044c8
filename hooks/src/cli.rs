//! The command line of `guard-hook`.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::net::UnixDatagram,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use launcher::{cli::parse, exit};

use crate::{
    container::{Stage, Told},
    create, gc, stop,
};

/// Where messages for the system's log are taken.
const SYSLOG: &str = "/dev/log";

/// Where they are taken by the kernel.
const KERNEL_LOG: &str = "/dev/kmsg";

/// LOG_DAEMON | LOG_ERR (syslog(3)).
const PRIORITY: u8 = 3 << 3 | 3;

/// The guard for containers: an OCI hook.
///
/// Without a subcommand, it reads the state of a container from standard input and does what the container's status asks
/// for.
#[derive(Debug, Parser)]
#[command(name = "guard-hook", version)]
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
    let Told { stage: told, pid, container } = Told::read(io::stdin())?;
    match stage.unwrap_or(told) {
        Stage::CreateRuntime => create::create(container, pid),
        Stage::Poststop => stop::stop(&container),
    }
}

fn collect() -> ExitCode {
    let reaped = gc::collect();
    for id in &reaped.containers {
        println!("concluded {id}");
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

/// A message as engines can hand it on: they show one line of what they are told.
#[must_use]
pub fn one_line(message: &str) -> String {
    // podman takes the usual words for the container's command not being found.
    message.replace('\n', " | ").replace("No such file or directory (os error 2)", "there is no such file")
}

/// Writes a message to the system's log, or where nobody keeps one to the kernel's.
fn log(message: &str) -> io::Result<()> {
    let line = format!("<{PRIORITY}>guard-hook[{}]: {message}", std::process::id());
    let log = UnixDatagram::unbound()?;
    // A log that is full must not keep a container waiting.
    log.set_nonblocking(true)?;
    match log.send_to(line.as_bytes(), SYSLOG) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::write(KERNEL_LOG, line),
        sent => sent.map(drop),
    }
}
