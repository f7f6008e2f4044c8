//! The command line of a program that may run with rights that its user doesn't have.

use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Command, Parser, error::ErrorKind};
use report::text::misuse;

use crate::{exit, outlet::tell};

/// Parses this process's command line.
///
/// # Errors
///
/// The exit status where there is nothing to do: help or the version was asked for, or the command line is wrong, which
/// has been said in a line.
pub fn parse<C: Parser>() -> Result<C, ExitCode> {
    C::try_parse().map_err(|error| {
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            return ExitCode::from(printed(error.print()));
        }
        // With what was typed in it, which may be the name of somebody else's file.
        let said = error.render().to_string();
        let mut line = misuse(&said);
        let takes_command = said.split("Usage:").nth(1).is_some_and(|usage| usage.contains(" -- "));
        if error.kind() == ErrorKind::UnknownArgument
            && takes_command
            && !env::args_os().any(|argument| argument == "--")
        {
            line.push_str("; a command that is to be executed comes after \"--\"");
        }
        tell(&format!("{line}; see {} --help", called(&C::command())));
        ExitCode::from(exit::FAILURE)
    })
}

/// The program, with its subcommand where the first argument names one.
fn called(program: &Command) -> String {
    let first = env::args_os().nth(1);
    let subcommand = first.and_then(|first| program.find_subcommand(first));
    [Some(program), subcommand].into_iter().flatten().map(Command::get_name).collect::<Vec<_>>().join(" ")
}

/// The exit status after something was to be printed. If that failed, it has been said, unless nobody reads it.
#[must_use]
pub fn printed(result: io::Result<()>) -> u8 {
    let Err(error) = result.and_then(|()| io::stdout().flush()) else { return exit::OK };
    if error.kind() == io::ErrorKind::BrokenPipe {
        return exit::UNREAD;
    }
    tell(&format!("can't write to standard output: {error}"));
    exit::FAILURE
}
