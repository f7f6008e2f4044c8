//! `guard-run init`: writes a policy to start from.

use std::{
    env,
    fs::DirBuilder,
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use enforce::{arguments::printed, exit, target};
use report::text::OneLine;

use crate::chosen::user_default;

/// What a policy is to be for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Purpose {
    /// Web clients: ports 80 and 443 of public hosts
    #[default]
    Curl,
    /// Test suites: the servers that they start themselves
    Tests,
    /// AI agents: their own servers, and ports 80 and 443 of public hosts
    Agent,
}

impl Purpose {
    /// The policy, which is one of the examples.
    const fn text(self) -> &'static str {
        match self {
            Self::Curl => include_str!("../../examples/curl.json"),
            Self::Tests => include_str!("../../examples/tests.json"),
            Self::Agent => include_str!("../../examples/agent.json"),
        }
    }
}

/// What the examples say of their schema, which is beside them.
const SCHEMA_OF_EXAMPLES: &str = "../schema/policy.schema.json";

/// Where the schema is, seen from the folder of a program's prefix; and where packages install it.
const SCHEMA_BELOW_PREFIX: &str = "share/guard-run/schema/policy.schema.json";
const SCHEMA_OF_PACKAGE: &str = "/usr/share/guard-run/schema/policy.schema.json";

/// Writes a policy for a purpose to a file that isn't there yet: to this one (`-` is standard output), or to the one that is taken for
/// commands without a policy.
///
/// # Errors
///
/// When the file is there, or can't be written.
pub fn init(purpose: Purpose, file: Option<&Path>) -> anyhow::Result<u8> {
    let text = purpose.text().replacen(SCHEMA_OF_EXAMPLES, &schema().display().to_string(), 1);
    let path = match file {
        Some(path) if path == Path::new("-") => {
            return Ok(printed(io::stdout().write_all(text.as_bytes())));
        }
        Some(path) => path.to_owned(),
        None => user_default().context("there is no home folder to write it to; say where: guard-run init FILE")?,
    };
    if let (None, Some(folder)) = (file, path.parent()) {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.with_context(|| folder.display().to_string())?;
    }
    // Whatever the umask says, nobody else may write it: then it would not be read.
    let made = target::create(&path, text.as_bytes()).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            io::Error::new(error.kind(), "it is there already; remove it, or name another file")
        }
        _ => error,
    });
    made.with_context(|| path.display().to_string())?;
    println!("wrote {}; what it means: guard-run check {0}", OneLine(path.display()));
    Ok(exit::OK)
}

/// Where the schema of policies is installed.
fn schema() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    let prefix = program.parent().and_then(Path::parent).map(|prefix| prefix.join(SCHEMA_BELOW_PREFIX));
    prefix.filter(|schema| schema.exists()).unwrap_or_else(|| SCHEMA_OF_PACKAGE.into())
}
