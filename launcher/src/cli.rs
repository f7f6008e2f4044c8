//! The command line.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::LazyLock,
};

use clap::{
    Args, CommandFactory as _, Parser, Subcommand,
    builder::{OsStringValueParser, TypedValueParser, ValueHint},
};
use clap_complete::Shell;
use enforce::{
    arguments::{parse, printed},
    exit,
    load::PROGRAMS,
    outlet::{own_stderr, tell},
    privilege::{self, Rights},
};

use crate::{
    check,
    child::ChildError,
    chosen,
    command::CommandError,
    compare, doctor, explain, gc,
    init::{self, Purpose},
    inside,
    learn::{self, Lesson},
    logs::Age,
    replay,
    report::{self, ReportArgs},
    run::{self, Options},
    selftest,
    supervise::Wait,
    tidy,
    user::Identity,
    why::{self, Wider},
};

/// What `--version` says: which release this is, from which commit, with which eBPF programs.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let (release, commit) = (env!("CARGO_PKG_VERSION"), option_env!("GUARD_RUN_COMMIT"));
    let commit = commit.map(|commit| format!("commit {commit}, ")).unwrap_or_default();
    format!("{release} ({commit}eBPF programs {PROGRAMS})")
});

/// Run a command that can touch only what a policy allows.
///
/// The policy is enforced by the kernel, on a cgroup of the command's own. What was denied is in the log.
#[derive(Debug, Parser)]
#[command(
    name = "guard-run",
    version,
    long_version = VERSION.as_str(),
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    override_usage = "guard-run [--policy FILE|NAME] [OPTIONS] -- COMMAND [ARGUMENT]...\n       guard-run <SUBCOMMAND>",
    after_help = "Examples:\n  \
                    guard-run -p tests --fail-on-deny -- make test\n  \
                    guard-run -p ./policy.json --log denied.json -- ./program\n\n\
                  Exit status: the command's own; 128+N if signal N ended it; 120 with --fail-on-deny; 125 if guard-run itself failed; \
                  126 if the command can't be executed; 127 if it wasn't found."
)]
struct Cli {
    #[command(subcommand)]
    subcommand: Option<Sub>,
    #[command(flatten)]
    run: Option<RunArgs>,
}

/// The command line without subcommands. Their parsers take longer to set up than reading a policy takes.
#[derive(Debug, Parser)]
struct RunOnly {
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct RunArgs {
    /// The policy to enforce: a file, or a name that `guard-run policies` lists [default: $GUARD_RUN_POLICY, or
    /// ~/.config/guard-run/policy.json, or /etc/guard-run/default-policy.json]
    #[arg(short, long, value_name = "FILE|NAME", value_parser = word(), value_hint = ValueHint::FilePath)]
    policy: Option<OsString>,
    /// Write the log to FILE ("-": standard error) [default: a new file in /var/log/guard-run, for
    /// ordinary users in ~/.local/state/guard-run]
    #[arg(long, value_name = "FILE", value_parser = path())]
    log: Option<PathBuf>,
    /// Also write events to FILE as JSON lines while the command runs ("-": standard error)
    #[arg(long, value_name = "FILE", value_parser = path())]
    events: Option<PathBuf>,
    /// Also log what the command reached: peers, connections, datagrams, bytes
    #[arg(long)]
    flows: bool,
    /// Let the command have the N descriptors from 3 up, too; all others are closed
    #[arg(long, value_name = "N", default_value_t, hide_default_value = true)]
    preserve_fds: u16,
    /// Have the kernel verify the programs anew, and keep none for the next run
    #[arg(long)]
    fresh: bool,
    /// Run the command as this user, with that user's groups
    #[arg(long, value_name = "NAME|UID[:GROUP]", value_hint = ValueHint::Username)]
    user: Option<Identity>,
    /// What to wait for after the command has ended
    #[arg(long, value_enum, default_value_t)]
    wait: Wait,
    /// If the command succeeds although something was denied, exit with CODE
    #[arg(long, value_name = "CODE", num_args = 0..=1, require_equals = true, default_missing_value = "120",
        value_parser = clap::value_parser!(u8).range(1..))]
    fail_on_deny: Option<u8>,
    /// Also record what is refused by what keeps the command inside: system calls, capabilities, sockets of services
    #[arg(long)]
    diagnose: bool,
    /// Say nothing at the end
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
    /// Say where the log is, also if nothing was denied
    #[arg(short, long)]
    verbose: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Validate a policy and print what it means. Needs no root
    #[command(after_help = "Examples:\n  guard-run check policy.json\n  guard-run check loopback-only\n\n\
                            Exit status: 0 if the policy is valid; 125 if not.")]
    Check {
        /// The policy: a file, or a name
        #[arg(value_parser = word(), value_hint = ValueHint::FilePath)]
        policy: OsString,
    },
    /// Say what a policy decides on a request, and by which rule. Needs no root
    // What is missing is said in a line, as for the others.
    #[command(
        arg_required_else_help = false,
        after_help = "Examples:\n  guard-run explain policy.json connect tcp 10.0.0.1:443\n  \
                            guard-run explain policy.json resolve example.org\n\n\
                            Exit status: 0 if the request is allowed; 1 if it is denied; 125 if that can't be told."
    )]
    Explain {
        /// The policy: a file, or a name
        #[arg(value_parser = word(), value_hint = ValueHint::FilePath)]
        policy: OsString,
        #[command(subcommand)]
        request: explain::Request,
    },
    /// Say why each thing that a log tells of was denied, and what would allow it. Needs no root
    #[command(
        after_help = "Examples:\n  guard-run why denied.json\n  guard-run why --policy web.json events.jsonl\n\n\
                            Exit status: 0; 125 if the log or its policy can't be read."
    )]
    Why {
        /// A log, or events as --events writes them ("-": standard input) [default, inside a guard: its last denials]
        #[arg(value_parser = path())]
        log: Option<PathBuf>,
        /// The policy [default: the one that the log names]
        #[arg(short, long, value_name = "FILE|NAME", value_parser = word(), value_hint = ValueHint::FilePath)]
        policy: Option<OsString>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run one test of a suite that runs in a guard, and fail it if it was denied something, even if it swallowed the error. Needs no root
    #[command(after_help = "Examples:\n  guard-run -p tests -- make check CHECK='guard-run test --'\n  \
                            guard-run -p tests -- cargo nextest run --profile guard\n\n\
                            Exit status: the test's; 120 if it succeeded but was denied something; 125 outside a guard.")]
    Test {
        /// The test's command and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Suggest changes to a policy that allow what logs tell of, and nothing else. Needs no root
    #[command(after_help = "Examples:\n  guard-run suggest denied.json\n  guard-run suggest --apply denied.json\n\n\
                            Exit status: 0; 1 if something is left for you to decide; 125 if nothing can be suggested.")]
    Suggest {
        /// Logs, or events as --events writes them ("-": standard input)
        #[arg(required = true, value_parser = path())]
        logs: Vec<PathBuf>,
        /// The policy to change [default: the one that the logs name]
        #[arg(short, long, value_name = "FILE|NAME", value_parser = word(), value_hint = ValueHint::FilePath)]
        policy: Option<OsString>,
        /// Make the changes
        #[arg(long)]
        apply: bool,
        /// Go further than what was denied
        #[arg(long, value_enum, value_delimiter = ',')]
        widen: Vec<Wider>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a report of what logs tell of: what was enforced, what was denied, and what would allow it. Needs no root
    #[command(after_help = "Examples:\n  guard-run report denied.json\n  \
                            guard-run report --junit results.xml -o results.xml denied.json\n  \
                            guard-run report --github denied.json\n\n\
                            Exit status: 0 if the report was written; 125 if not.")]
    Report(ReportArgs),
    /// Say what policy B allows that A does not, and the other way round. Needs no root
    #[command(
        after_help = "Examples:\n  guard-run compare old.json new.json\n  guard-run compare --json curl ./web.json\n\n\
                            Exit status: 0; 1 if B allows anything that A does not; 125 if they can't be compared."
    )]
    Compare {
        /// A policy: a file, or a name
        #[arg(value_parser = word(), value_hint = ValueHint::FilePath)]
        a: OsString,
        /// The policy that is compared with it
        #[arg(value_parser = word(), value_hint = ValueHint::FilePath)]
        b: OsString,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what a policy would have decided on what logs tell of. Needs no root
    #[command(
        after_help = "Examples:\n  guard-run replay new.json log.json\n  guard-run replay --json new.json logs/*.json\n\n\
                            Exit status: 0; 1 if anything that was reached would be denied; 125 if that can't be told."
    )]
    Replay {
        /// The policy: a file, or a name
        #[arg(value_parser = word(), value_hint = ValueHint::FilePath)]
        policy: OsString,
        /// Logs, or events as --events writes them ("-": standard input)
        #[arg(value_parser = path(), required = true, value_name = "LOG")]
        logs: Vec<PathBuf>,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Say which rules, hosts and ports of a policy do nothing, by its tables and by logs with flows. Needs no root
    #[command(
        after_help = "Examples:\n  guard-run tidy policy.json\n  guard-run tidy policy.json log.json --output tidy.json\n\n\
                            Exit status: 0; 1 if anything does nothing; 125 if that can't be told."
    )]
    Tidy {
        /// The policy: a file, or a name
        #[arg(value_parser = word(), value_hint = ValueHint::FilePath)]
        policy: OsString,
        /// Logs
        #[arg(value_parser = path(), value_name = "LOG")]
        logs: Vec<PathBuf>,
        /// Write the policy without them ("-": standard output); nothing is replaced
        #[arg(short, long, value_name = "POLICY", value_parser = path())]
        output: Option<PathBuf>,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a command with everything recorded and nothing denied, and write the policy that it would have needed
    #[command(
        after_help = "Examples:\n  guard-run learn -- make test\n  guard-run learn --update learnt.json -- make test\n\n\
                            Exit status: the command's, as without \"learn\"; 125 if nothing was learnt."
    )]
    Learn {
        /// Where to write the policy ("-": standard output); nothing is replaced [default: learnt.json, or the policy that
        /// is added to]
        #[arg(short, long, value_name = "POLICY", value_parser = path())]
        output: Option<PathBuf>,
        /// Add to this policy what it denies for want of a rule
        #[arg(long, value_name = "FILE|NAME", value_parser = word(), value_hint = ValueHint::FilePath)]
        update: Option<OsString>,
        /// Run the command so often, and allow what any run needed
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        runs: u32,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// List the policies that are known by a name. Needs no root
    #[command(after_help = "Examples:\n  guard-run policies\n  guard-run policies | grep tests\n\n\
                            Exit status: 0; 125 if the list can't be written.")]
    Policies,
    /// Write a policy to start from. Needs no root
    #[command(after_help = "Examples:\n  guard-run init --for tests policy.json\n  guard-run init --for curl\n\n\
                            Exit status: 0 if the policy was written; 125 if not, as where there is a file already.")]
    Init {
        /// What it is to be for
        #[arg(long = "for", value_name = "PURPOSE", value_enum, default_value_t)]
        purpose: Purpose,
        /// Where to ("-": standard output) [default: the file for commands without a policy, ~/.config/guard-run/policy.json]
        #[arg(value_parser = path())]
        file: Option<PathBuf>,
    },
    /// Find out whether guard-run can work on this machine, and what is missing
    #[command(after_help = "Examples:\n  guard-run doctor\n  sudo guard-run doctor\n\n\
                            Exit status: 0 if guard-run can work; 1 if something is missing; 125 if that can't be told.")]
    Doctor,
    /// Try every known way out on this machine, without the guard and under it, and say what stopped each. Needs root
    #[command(disable_help_flag = true)]
    Selftest {
        /// What to try, and how to say what came out: guard-run selftest --help
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Remove what guard-runs that were killed have left behind (their commands' processes are killed), and what is kept for
    /// the next run
    #[command(after_help = "Examples:\n  guard-run gc\n  guard-run gc --logs 30d\n\n\
                            Exit status: 0; 1 if something is left that no guard-run uses; 125 if guard-run itself failed.")]
    Gc {
        /// Also remove logs from the folder for logs that are older, such as 30d, 8w or 12h
        #[arg(long, value_name = "AGE")]
        logs: Option<Age>,
    },
    /// Print what a shell needs to complete guard-run's command line
    #[command(after_help = "Examples:\n  guard-run completion bash >/etc/bash_completion.d/guard-run\n  \
                            guard-run completion fish >~/.config/fish/completions/guard-run.fish\n\n\
                            Exit status: 0; 125 if the text can't be written.")]
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// Parses the command line, does what it says and returns the exit status.
#[must_use]
pub fn main() -> ExitCode {
    // Before anything else, and the command line's own parser may ask getent(1) for a user.
    let rights = match privilege::begin() {
        Ok(rights) => rights,
        Err(error) => {
            tell(&format!("{:#}", anyhow::Error::from(error)));
            return ExitCode::from(exit::FAILURE);
        }
    };
    own_stderr();
    // The whole parser takes what doesn't fit, or reports what is wrong with it.
    let run_only = RunOnly::try_parse().map(|RunOnly { run }| Cli { subcommand: None, run: Some(run) });
    let cli = match run_only.or_else(|_| parse()) {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let result = match (cli.subcommand, cli.run) {
        // What was printed last may wait for the end of its line.
        (Some(sub), _) => act(sub, rights).map(|status| match printed(Ok(())) {
            exit::OK => status,
            unwritten => unwritten,
        }),
        (None, Some(run)) => run::run(&run.into(), rights),
        (None, None) => {
            let _ = printed(Cli::command().print_help());
            Ok(exit::FAILURE)
        }
    };
    ExitCode::from(result.unwrap_or_else(|error| {
        tell(&format!("{error:#}"));
        status_of(&error)
    }))
}

/// Does what a subcommand says. Those that look at what a user names give up all capabilities first.
fn act(sub: Sub, mut rights: Rights) -> anyhow::Result<u8> {
    match sub {
        Sub::Doctor => doctor::doctor(rights),
        Sub::Gc { logs } => gc::gc(logs.as_ref(), &mut rights),
        Sub::Selftest { arguments } => selftest::become_selftest(&arguments),
        Sub::Check { policy } => {
            rights.give_up()?;
            check::check(&policy)
        }
        Sub::Explain { policy, request } => {
            rights.give_up()?;
            explain::explain(&policy, &request)
        }
        Sub::Why { log, policy, json } => {
            rights.give_up()?;
            why::why(log.as_deref(), policy.as_deref(), json)
        }
        Sub::Test { command } => {
            rights.renounce()?;
            inside::test(&command)
        }
        Sub::Suggest { logs, policy, apply, widen, json } => {
            // What is written is written with the rights of who asks, as by `init`.
            if apply { rights.renounce() } else { rights.give_up() }?;
            why::suggest(&logs, policy.as_deref(), apply, &widen, json)
        }
        Sub::Report(args) => {
            // What is written is written with the rights of who asks, as by `init`.
            if args.writes() { rights.renounce() } else { rights.give_up() }?;
            report::report(&args)
        }
        Sub::Compare { a, b, json } => {
            rights.give_up()?;
            compare::compare(&a, &b, json)
        }
        Sub::Replay { policy, logs, json } => {
            rights.give_up()?;
            replay::replay(&policy, &logs, json)
        }
        Sub::Tidy { policy, logs, output, json } => {
            rights.give_up()?;
            tidy::tidy(&policy, &logs, output.as_deref(), json)
        }
        Sub::Learn { output, update, runs, command } => learn::learn(&Lesson { output, update, runs, command }, rights),
        Sub::Policies => {
            rights.give_up()?;
            chosen::policies()
        }
        Sub::Init { purpose, file } => {
            rights.renounce()?;
            init::init(purpose, file.as_deref())
        }
        Sub::Completion { shell } => {
            rights.give_up()?;
            Ok(completion(shell))
        }
    }
}

fn completion(shell: Shell) -> u8 {
    // Into memory first: clap_complete panics where it can't write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "guard-run", &mut script);
    printed(io::stdout().write_all(&script))
}

/// Any path, also an empty one: that it can't be used is said in one line then, as for any other path.
pub(crate) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Any word, also an empty one, likewise.
pub(crate) fn word() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new()
}

/// The exit status that an error calls for.
fn status_of(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<CommandError>() {
        return match error {
            CommandError::NotFound(_) => exit::NOT_FOUND,
            CommandError::NotExecutable { .. } => exit::NOT_EXECUTABLE,
            CommandError::Nul(_) | CommandError::Environment(_) => exit::FAILURE,
        };
    }
    match error.downcast_ref::<ChildError>() {
        Some(ChildError::Execute { source: nix::Error::ENOENT, .. }) => exit::NOT_FOUND,
        Some(ChildError::Execute { .. }) => exit::NOT_EXECUTABLE,
        _ => exit::FAILURE,
    }
}

impl From<RunArgs> for Options {
    fn from(args: RunArgs) -> Self {
        let verbosity = if args.quiet { -1 } else { i8::from(args.verbose) };
        let RunArgs {
            policy,
            log,
            events,
            flows,
            preserve_fds,
            fresh,
            user,
            wait,
            fail_on_deny,
            diagnose,
            command,
            ..
        } = args;
        Self { policy, command, log, events, flows, preserve_fds, fresh, user, wait, fail_on_deny, diagnose, verbosity }
    }
}
