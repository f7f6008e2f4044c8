//! guard-run-fuzz: looks for ways out of guard-run without a clever reader.
//!
//! The fuzzer generates programs of system calls and policies from a seed, runs each program bare and under guard-run in a small world
//! of network namespaces, and judges by what those outside see. README.md says how.
#![deny(unsafe_code)]

mod address;
mod capture;
mod count;
mod execute;
mod fuzz;
mod generate;
mod hindrance;
mod judge;
mod manner;
mod memory;
mod minimise;
mod namespaces;
mod options;
mod outside;
mod packets;
mod policy;
mod program;
mod random;
mod session;
mod show;
mod sys;
mod templates;
mod token;
mod unix;
mod wire;
mod worker;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use crate::{
    fuzz::{Options, Totals},
    manner::Manner,
    session::Place,
};

/// Look for ways out of guard-run: generated programs of system calls, judged by what is seen outside.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fuzz
    Run {
        /// The guard-run to be tried
        #[arg(long)]
        guard_run: PathBuf,
        /// For how long
        #[arg(long, default_value_t = 2.0)]
        minutes: f64,
        /// What to begin with [default: the time]
        #[arg(long, value_parser = number)]
        seed: Option<u64>,
        /// Run the session with this seed alone, and keep its files
        #[arg(long, value_parser = number)]
        session: Option<u64>,
        /// Of that session's policy, with this program, as findings have it behind "again:"
        #[arg(long, requires = "session")]
        program: Option<String>,
        /// How many worlds at the same time
        #[arg(long, default_value_t = 2)]
        worlds: u64,
        /// End with the first finding of a class that has this text
        #[arg(long, value_name = "TEXT")]
        until: Option<String>,
        /// In which manners the guarded programs are started: root, kept, user, container; sessions take turns
        #[arg(long = "as", value_name = "MANNER", value_delimiter = ',', default_value = "root")]
        manners: Vec<Manner>,
        /// What policies have to allow because this kernel can't prevent it, as "signals"
        #[arg(long, value_name = "PART", value_delimiter = ',')]
        lacking: Vec<String>,
        /// Print how often bare programs made each call, with each option, and how often it succeeded
        #[arg(long)]
        calls: bool,
    },
    /// Run the programs that come by standard input; the fuzzer starts this
    #[command(hide = true)]
    Worker {
        /// Without guard-run: give up the rights that it would take
        #[arg(long)]
        bare: bool,
        /// All but these capabilities, a bit each
        #[arg(long, default_value_t = 0)]
        capabilities: u64,
        /// As this user
        #[arg(long)]
        user: Option<u32>,
    },
}

fn number(text: &str) -> Result<u64, std::num::ParseIntError> {
    text.strip_prefix("0x").map_or_else(|| text.parse(), |digits| u64::from_str_radix(digits, 16))
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Worker { bare, capabilities, user } => {
            let ready = if bare { worker::give_up(capabilities, user) } else { Ok(()) };
            ready.and_then(|()| worker::work()).map(|()| true)
        }
        Command::Run { guard_run, minutes, seed, session, program, worlds, until, manners, lacking, calls } => {
            let worlds = if session.is_some() { 1 } else { worlds.max(1) };
            program.map(|text| serde_json::from_str(&text)).transpose().context("--program").and_then(|program| {
                let options = |place, seed| {
                    let limit = Duration::from_secs_f64(minutes * 60.0);
                    Options { place, seed, limit, worlds, session, program, until }
                };
                run(&guard_run, (manners, lacking), calls, seed, options)
            })
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("guard-run-fuzz: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Fuzzes, and prints a summary. Whether nothing was found.
fn run(
    guard_run: &Path,
    (manners, lacking): (Vec<Manner>, Vec<String>),
    calls: bool,
    seed: Option<u64>,
    options: impl FnOnce(Place, u64) -> Options,
) -> Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        bail!("needs root: it makes network namespaces and starts guard-run in them");
    }
    let time = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |elapsed| elapsed.as_secs());
    let seed = seed.unwrap_or(time);
    let folder = tempfile::Builder::new().prefix("guard-run-fuzz.").tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    // Where every user may execute it.
    let worker = folder.path().join("worker");
    fs::copy("/proc/self/exe", &worker).context("copying this program")?;
    let place = Place {
        guard_run: guard_run.canonicalize().with_context(|| guard_run.display().to_string())?,
        worker,
        folder: folder.path().to_owned(),
        manners,
        lacking,
    };
    manner::prepare(&place.manners, &place)?;
    let options = options(place, seed);
    let minutes = options.limit.as_secs_f64() / 60.0;
    println!("seed {seed}, {minutes:.1} minutes, {}, as {:?}", guard_run.display(), options.place.manners);
    sys::catch_interrupts();
    let (begun, totals) = (Instant::now(), Totals::default());
    let done = fuzz::fuzz(&options, &totals);
    if options.place.manners.contains(&Manner::Container) {
        manner::tidy();
    }
    if options.session.is_some() {
        println!("files of the session: {}", folder.keep().display());
    }
    let findings = totals.findings.lock().expect("not poisoned");
    println!("what bare runs did that their policies deny:");
    for (class, count) in totals.bare.lock().expect("not poisoned").iter() {
        println!("{count:>8} {class}");
    }
    if calls {
        println!("what bare programs called, and how often that succeeded:");
        for (name, (all, succeeded)) in totals.made.lock().expect("not poisoned").iter() {
            println!("{all:>8} {succeeded:>8} {name}");
        }
    }
    println!("findings, by class and calls:");
    for ((class, shape), count) in findings.iter() {
        println!("{count:>8} {class} [{shape}]");
    }
    println!(
        "seed {seed}: {} system calls in {} programs under {} policies, {} findings, {:.1} minutes",
        totals.calls.load(Relaxed),
        totals.programs.load(Relaxed),
        totals.sessions.load(Relaxed),
        findings.len(),
        begun.elapsed().as_secs_f64() / 60.0,
    );
    let [missed, taken] = [0, 1].map(|taken: usize| totals.kept[taken].load(Relaxed));
    if missed + taken > 0 {
        println!("{taken} of {} runs have taken the programs that were kept", missed + taken);
    }
    if missed > 3 && taken == 0 {
        bail!("no run takes the programs that an earlier one has kept");
    }
    done.map(|()| findings.is_empty())
}
