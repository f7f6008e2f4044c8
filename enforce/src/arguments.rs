//! The command line of a program that may run with rights that its user doesn't have.

use std::process::ExitCode;

use clap::{Parser, error::ErrorKind};
use report::text::lines;

use crate::{
    exit,
    outlet::{PATIENCE, write_stderr},
};

/// Parses this process's command line.
///
/// # Errors
///
/// The exit status where there is nothing to do: help or the version was asked for, or the command line is wrong, which
/// has been said.
pub fn parse<C: Parser>() -> Result<C, ExitCode> {
    C::try_parse().map_err(|error| {
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            let _ = error.print();
            return ExitCode::from(exit::OK);
        }
        // With what was typed in it, which may be the name of somebody else's file.
        let _ = write_stderr(lines(&error.render().to_string()).as_bytes(), Some(PATIENCE));
        ExitCode::from(exit::FAILURE)
    })
}
