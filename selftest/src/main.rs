//! `guard-selftest` (and `guard-run selftest`, which is this program): every known way out as a small program, tried on this machine. Each is run bare, where it must
//! succeed, or it proves nothing, and guarded, where it must fail.
//!
//! An attempt is a process of its own: this same program, executed again. What it says of itself is not believed where
//! it can be seen from outside: that somebody outside has heard from it, that a process outside has been changed or has
//! ended, that it knows what only somebody outside knows. The vectors are in the modules, one for each family.
//!
//! Nothing that it does harms the machine: connections go to its own listeners on loopback, signals to its own
//! processes, settings are written as they are, and mounts are made in mount namespaces of the attempts' own.
#![deny(unsafe_code)]

use std::{
    any::Any,
    fmt::Display,
    io::{self, Write as _},
    panic,
    path::PathBuf,
    process::{Command, ExitCode},
    str::FromStr,
};

use anyhow::Context as _;
use clap::Parser;
use nix::unistd::{Uid, alarm, geteuid, setresuid};
use serde::{Deserialize, Serialize};

mod address;
mod attempt;
mod beside;
mod bpf;
mod cgroup;
mod delegation;
mod denials;
mod descriptor;
mod device;
mod error;
mod foreign;
mod guard;
mod handed;
mod heir;
mod launcher;
mod matrix;
mod name;
mod nameserver;
mod object;
mod outside;
mod outsider;
mod policies;
mod port;
mod privilege;
mod process;
mod protocol;
mod receive;
mod runner;
mod server;
mod sys;
mod sysctl;
mod trace;
mod unix;
mod uring;
mod vector;
mod wire;

use attempt::{SCENE, Scene, Stop};
use guard::Programs;
use process::Process;
use runner::Tried;
use vector::{Caller, Vector};

/// The exit status when every way out was stopped, or the self-test's own process did what it was to do.
const OK: u8 = 0;
/// The exit status when there was a way out, or a check that could not be made.
const NO: u8 = 1;
/// The exit status when the self-test itself failed.
const FAILURE: u8 = 125;
/// The exit status when nobody reads what is printed: what SIGPIPE makes of other programs, 128+13.
const UNREAD: u8 = 141;

/// The families of vectors, in the order in which they are tried.
pub const FAMILIES: &[(&str, &[Vector])] = &[
    ("address", address::VECTORS),
    ("port", port::VECTORS),
    ("receive", receive::VECTORS),
    ("protocol", protocol::VECTORS),
    ("beside", beside::VECTORS),
    ("uring", uring::VECTORS),
    ("foreign", foreign::VECTORS),
    ("name", name::VECTORS),
    ("unix", unix::VECTORS),
    ("descriptor", descriptor::VECTORS),
    ("device", device::VECTORS),
    ("sysctl", sysctl::VECTORS),
    ("cgroup", cgroup::VECTORS),
    ("bpf", bpf::VECTORS),
    ("privilege", privilege::VECTORS),
    ("trace", trace::VECTORS),
    ("delegation", delegation::VECTORS),
    ("launcher", launcher::VECTORS),
    ("denials", denials::VECTORS),
];

/// Try every known way out on this machine, without the guard and under it, and say what stopped each. Needs root
#[derive(Clone, Debug, Parser)]
#[command(
    name = "guard-selftest",
    version,
    after_help = "Examples:\n  guard-run selftest\n  guard-run selftest --allow signals,abstract-sockets trace\n\n\
                  Exit status: 0 if every way out is closed; 1 if one is open, or could not be tried and was not declared; 125 if the \
                  self-test itself failed."
)]
struct Options {
    /// The guard-run to test [default: the one in the folder of this program]
    #[arg(long, value_name = "PROGRAM")]
    guard_run: Option<PathBuf>,
    /// Only these vectors: FAMILY, NAME or FAMILY/NAME
    #[arg(value_name = "VECTOR")]
    vectors: Vec<String>,
    /// Don't fail because this machine lacks what a vector needs: FAMILY or FAMILY/NAME
    #[arg(long, value_name = "VECTOR")]
    allow_missing: Vec<String>,
    /// Print the matrix as JSON
    #[arg(long)]
    json: bool,
    /// Print the vectors and what they do, and try none
    #[arg(long, conflicts_with = "json")]
    list: bool,
    #[command(flatten)]
    process: Process,
    // What the self-test's own processes are started with.
    #[arg(long, hide = true, exclusive = true)]
    role: Option<Role>,
}

/// What a process of the self-test's own is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Role {
    /// The process makes an attempt, of the vector FAMILY/NAME.
    Attempt(String),
    /// The process starts an attempt and waits for it, as the launcher does.
    StandIn(String),
    /// The process is somebody outside.
    Outsider,
    /// The process holds its cgroup.
    Holder,
    /// The process does nothing.
    Nothing,
}

impl Role {
    /// The arguments of a process for it.
    fn arguments(&self) -> [String; 2] {
        let role = match self {
            Self::Attempt(vector) => format!("attempt={vector}"),
            Self::StandIn(vector) => format!("stand-in={vector}"),
            Self::Outsider => "outsider".to_owned(),
            Self::Holder => "holder".to_owned(),
            Self::Nothing => "nothing".to_owned(),
        };
        ["--role".to_owned(), role]
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=').unwrap_or((text, "")) {
            ("attempt", vector) => Ok(Self::Attempt(vector.to_owned())),
            ("stand-in", vector) => Ok(Self::StandIn(vector.to_owned())),
            ("outsider", "") => Ok(Self::Outsider),
            ("holder", "") => Ok(Self::Holder),
            ("nothing", "") => Ok(Self::Nothing),
            _ => Err("the self-test's own processes are no use to anybody else".to_owned()),
        }
    }
}

/// The ordinary user by whom attempts are made.
const NOBODY: Uid = Uid::from_raw(65534);
/// How long an attempt may take at all, in seconds.
const ATTEMPT_LIMIT: u32 = 8;

fn main() -> ExitCode {
    panic::set_hook(Box::new(|info| match not_printed(info.payload()) {
        Some(why) if is_unread(why) => {}
        Some(why) => tell(&unwritten(why)),
        None => tell(&format!("internal error: {}", info.to_string().replace('\n', " "))),
    }));
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            if !error.use_stderr() {
                return ExitCode::from(match error.print().and_then(|()| io::stdout().flush()) {
                    Ok(()) => OK,
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => UNREAD,
                    Err(error) => {
                        tell(&unwritten(error));
                        FAILURE
                    }
                });
            }
            // With what was typed in it, which may be meant for a terminal.
            tell(&format!("{}; see guard-selftest --help", policy::text::misuse(&error.render().to_string())));
            return ExitCode::from(FAILURE);
        }
    };
    let status = panic::catch_unwind(|| selftest(&options));
    ExitCode::from(match status {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            tell(&format!("{error:#}"));
            FAILURE
        }
        Err(said) => match not_printed(&*said) {
            Some(why) if is_unread(why) => UNREAD,
            _ => FAILURE,
        },
    })
}

/// Why `println!` could not print, where that is what a panic says: standard output is closed or full, which is no mistake of ours.
fn not_printed(said: &(dyn Any + Send)) -> Option<&str> {
    said.downcast_ref::<String>()?.strip_prefix("failed printing to stdout: ")
}

/// What is said where something could not be printed for this reason.
fn unwritten(why: impl Display) -> String {
    format!("can't write to standard output: {why}")
}

/// Whether printing failed because the reader has closed its end of a pipe, as `head` does when it has enough.
fn is_unread(why: &str) -> bool {
    why.ends_with(&format!("(os error {})", libc::EPIPE))
}

/// Says something on standard error, if that is possible.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "guard-selftest: {}", policy::text::short_line(line));
}

/// Tries the vectors and prints what came out. The status is [`NO`] if there was a way out, or a check that could
/// not be made and was not declared.
///
/// # Errors
///
/// When the self-test itself fails.
fn selftest(options: &Options) -> anyhow::Result<u8> {
    match &options.role {
        Some(Role::Attempt(name)) => return try_one(name),
        Some(Role::StandIn(name)) => return stand_in(name),
        Some(Role::Outsider) => return outsider::be(),
        Some(Role::Holder) => return guard::hold(),
        Some(Role::Nothing) => return Ok(OK),
        None => {}
    }
    let vectors = chosen(&options.vectors)?;
    if options.list {
        for (family, vector) in vectors {
            println!("{:<36} {}", format!("{family}/{}", vector.name), vector.shows);
        }
        return Ok(OK);
    }
    let declared = if options.allow_missing.is_empty() { Vec::new() } else { chosen(&options.allow_missing)? };
    anyhow::ensure!(geteuid().is_root(), "needs root's rights: run guard-run selftest as root");
    let programs = Programs::find(options.guard_run.as_deref())?;
    options.process.require(&programs)?;
    let mut runner = runner::Runner::new(options.process.clone(), programs)?;
    let mut matrix = matrix::Matrix::new(options.json)?;
    for (family, vector) in vectors {
        let bare = patiently(|| runner.bare(family, vector))?;
        let guarded = patiently(|| runner.guarded(family, vector))?;
        let is_declared = declared.iter().any(|(f, v)| *f == family && v.name == vector.name);
        let allowed = vector.part.filter(|part| options.process.allows(*part));
        matrix.add((family, vector), (bare, guarded), is_declared, allowed);
    }
    drop(runner);
    matrix.conclude()
}

/// How often something is tried that can't be.
const TRIES: u32 = 3;

/// Tries again what could not be tried: another program may have had the port, or the loop device.
fn patiently(mut attempt: impl FnMut() -> anyhow::Result<Tried>) -> anyhow::Result<Tried> {
    for _ in 1..TRIES {
        match attempt()? {
            Tried::CouldNot(_) => {}
            tried => return Ok(tried),
        }
    }
    attempt()
}

/// The vectors that words name; all, where there are none.
fn chosen(words: &[String]) -> anyhow::Result<Vec<(&'static str, &'static Vector)>> {
    let all = || FAMILIES.iter().flat_map(|(family, vectors)| vectors.iter().map(move |vector| (*family, vector)));
    let named = |word: &str, family: &str, vector: &Vector| {
        let is_family = FAMILIES.iter().any(|(family, _)| word == *family);
        word == family || !is_family && word == vector.name || word.split_once('/') == Some((family, vector.name))
    };
    if let Some(word) = words.iter().find(|word| !all().any(|(family, vector)| named(word, family, vector))) {
        anyhow::bail!("no vector or family is named \"{word}\"; guard-run selftest --list names all");
    }
    let chosen = |word: &String, family, vector| named(word, family, vector);
    Ok(all().filter(|(f, v)| words.is_empty() || words.iter().any(|word| chosen(word, f, v))).collect())
}

/// What an attempt says of itself, on its standard output.
#[derive(Debug, Serialize, Deserialize)]
struct AttemptReport {
    told: Vec<u8>,
    stop: Option<Stop>,
}

/// [`Role::Attempt`].
fn try_one(name: &str) -> anyhow::Result<u8> {
    // Whatever happens, it does not stay.
    alarm::set(ATTEMPT_LIMIT);
    let (_, vector) = *chosen(&[name.to_owned()])?.first().expect("a vector of that name");
    let scene: Scene = serde_json::from_str(&std::env::var(SCENE).context(SCENE)?)?;
    if let Some(cgroup) = &scene.control {
        std::fs::write(cgroup.join("cgroup.procs"), "0").context("entering the control's cgroup")?;
    }
    if vector.caller == Caller::User {
        setresuid(NOBODY, NOBODY, NOBODY).context("becoming an ordinary user")?;
    }
    let report = match (vector.attempt)(&scene) {
        Ok(told) => AttemptReport { told, stop: None },
        Err(stop) => AttemptReport { told: Vec::new(), stop: Some(stop) },
    };
    // In a line of its own, also after what a program that was executed has said.
    println!("\n{}", serde_json::to_string(&report)?);
    Ok(OK)
}

/// [`Role::StandIn`].
fn stand_in(name: &str) -> anyhow::Result<u8> {
    alarm::set(ATTEMPT_LIMIT);
    let status = Command::new("/proc/self/exe").args(Role::Attempt(name.to_owned()).arguments()).status()?;
    Ok(if status.success() { OK } else { NO })
}

/// Whether one slice is within another.
fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, path::Path};

    use policy::{DeviceNode, Document, Machine, Surroundings, compile::Tables};

    use super::*;

    /// A machine without device nodes, of which the vectors' policies name none, and with a nameserver.
    struct Bare;

    impl Machine for Bare {
        fn device(&self, _: &Path) -> Result<DeviceNode, String> {
            Err("no device node".to_owned())
        }

        fn surroundings(&self) -> Result<Surroundings, String> {
            Ok(Surroundings::parse("nameserver 127.0.0.1", ""))
        }
    }

    #[test]
    fn vectors_have_names_of_their_own_and_say_what_they_do() {
        let mut names = HashSet::new();
        for (family, vector) in chosen(&[]).unwrap() {
            assert!(names.insert((family, vector.name)), "{family}/{} is there twice", vector.name);
            assert!(!vector.shows.is_empty() && vector.shows.len() < 100, "{family}/{}", vector.name);
        }
        assert!(names.len() >= 80, "there are only {}", names.len());
    }

    #[test]
    fn policies_are_valid() {
        for (family, vector) in chosen(&[]).unwrap() {
            let text = runner::policy(vector, &Process::default(), (1, 2, None));
            let policy = Document::new(family.as_ref(), text.into()).resolve(&Bare).unwrap();
            Tables::compile(&policy).unwrap();
        }
    }

    #[test]
    fn words_choose_vectors() {
        let count =
            |words: &[&str]| chosen(&words.iter().map(ToString::to_string).collect::<Vec<_>>()).map(|it| it.len());
        assert_eq!(count(&["address"]).unwrap(), address::VECTORS.len());
        assert_eq!(count(&["address/tcp4"]).unwrap(), 1);
        assert_eq!(count(&["address/tcp4", "address"]).unwrap(), address::VECTORS.len());
        assert!(count(&["adress"]).unwrap_err().to_string().contains("\"adress\""));
    }
}
