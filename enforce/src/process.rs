//! Who did it: what /proc still tells of a process.

use std::{
    fs,
    io::{self, Read as _},
    mem,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::{SysconfVar, sysconf};
use report::{Details, Parent, Test, Traces, test};

use crate::patience::Patience;

/// How much of a command line is read, in bytes. Denials of many processes must not fill the memory.
const MAX_ARGV: u64 = 1024;

/// How much of an environment is read, in bytes. What comes after that tells of no test.
const MAX_ENVIRONMENT: u64 = 128 * 1024;

/// How many processes are asked for their test: the one that asked, and its ancestors.
const GENERATIONS: usize = 8;

/// How often an environment is read that is being written.
const TRIES: usize = 3;

/// How long a process may keep guard-run waiting by what it does to its memory meanwhile: while one thread of it waits for a page of a
/// file system that does not answer, and another one for changing the memory, nobody else gets to it (`mmap_lock`).
const LIMIT: Duration = Duration::from_millis(200);

/// Looks at a process as it is now. What can't be read any more is left empty, and so is everything if the process
/// was started after `boottime` (nanoseconds): then its number has been given to another one.
#[must_use]
pub fn read_details(pid: u32, boottime: u64, patience: Patience) -> Details {
    patience.ask_process(LIMIT, move || try_read(pid, boottime)).and_then(|details| details).unwrap_or_default()
}

fn try_read(pid: u32, boottime: u64) -> io::Result<Details> {
    // In the order in which they vanish: these two while the process is ending.
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let exe = fs::read_link(folder.join("exe")).ok();
    let argv = read_argv(&folder.join("cmdline")).ok();
    let stat = Stat::read(pid)?;
    if stat.started > boottime {
        return Ok(Details::default());
    }
    Ok(Details {
        exe: exe.map(|path| path.to_string_lossy().into_owned()),
        argv: argv.filter(|argv| !argv.is_empty()),
        parent: Some(Parent { pid: stat.parent, comm: Stat::read(stat.parent).ok().map(|stat| stat.comm) }),
    })
}

/// Finds out during which test a process asks for something, by what it says of itself, or else by what its ancestors do that this process
/// has started. `thread` is the name of the thread that asked. `None` where nothing says so, or nobody is there any more.
#[must_use]
pub fn find_test(pid: u32, boottime: u64, thread: &str, patience: Patience) -> Option<Test> {
    let thread = thread.to_owned();
    patience.ask_process(LIMIT, move || search_test(pid, boottime, &thread)).ok()?
}

fn search_test(pid: u32, boottime: u64, thread: &str) -> Option<Test> {
    let own = std::process::id();
    let (mut pid, mut latest, mut thread) = (pid, boottime, Some(thread));
    let mut child: Option<Vec<String>> = None;
    for _ in 0..GENERATIONS {
        if pid <= 1 || pid == own {
            break;
        }
        let folder = PathBuf::from(format!("/proc/{pid}"));
        // First, since it says most and vanishes with the others.
        let environment = read_environment(&folder.join("environ"));
        let exe = fs::read_link(folder.join("exe")).ok().map(|path| path.to_string_lossy().into_owned());
        let argv = read_argv(&folder.join("cmdline")).unwrap_or_default();
        let stat = Stat::read(pid).ok().filter(|stat| stat.started <= latest)?;
        let (exe, child_argv) = (exe.as_deref(), child.as_deref());
        let traces = Traces { thread, time: boottime, exe, argv: &argv, environment: &environment, child: child_argv };
        if let Some(test) = Test::of(&traces) {
            return Some(test);
        }
        (pid, latest, thread, child) = (stat.parent, stat.started, None, Some(argv));
    }
    None
}

/// The variables of an environment that tell of tests. A process writes the one that is about its tests in place, so that this is read
/// until it is the same twice. As with [`read_argv`], the kernel waits for nobody meanwhile (`environ_read`, fs/proc/base.c), wherever the
/// process says that its environment is.
fn read_environment(path: &Path) -> Vec<(String, String)> {
    let read = || {
        let mut text = Vec::new();
        fs::File::open(path).and_then(|file| file.take(MAX_ENVIRONMENT).read_to_end(&mut text)).ok();
        let variables = text.split(|byte| *byte == 0).filter_map(|variable| {
            let at = variable.iter().position(|byte| *byte == b'=')?;
            let name = test::VARIABLES.iter().find(|name| name.as_bytes() == &variable[..at])?;
            Some(((*name).to_owned(), String::from_utf8_lossy(&variable[at + 1..]).into_owned()))
        });
        variables.collect::<Vec<_>>()
    };
    let mut last = read();
    for _ in 0..TRIES {
        let Some((_, value)) = last.iter().find(|(name, _)| name == test::VARIABLE) else { return last };
        if !value.starts_with([test::ANNOUNCED, test::UNFINISHED]) {
            return last;
        }
        let before = mem::replace(&mut last, read());
        if before == last && !before.iter().any(|(_, value)| value.starts_with(test::UNFINISHED)) {
            return last;
        }
    }
    last.retain(|(name, _)| name != test::VARIABLE);
    last
}

/// Some of /proc/PID/stat (proc_pid_stat(5)).
struct Stat {
    comm: String,
    parent: u32,
    /// Nanoseconds after boot.
    started: u64,
}

impl Stat {
    fn read(pid: u32) -> io::Result<Self> {
        let text = fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(&String::from_utf8_lossy(&text)).ok_or_else(|| io::Error::other("unknown format"))
    }

    fn parse(text: &str) -> Option<Self> {
        // A name may contain anything, also parentheses and spaces; nothing after it does.
        let (before, after) = text.rsplit_once(')')?;
        let mut fields = after.split_whitespace();
        // Fields 4 and 22; the first one here is the third.
        let (parent, ticks) = (fields.nth(1)?.parse().ok()?, fields.nth(17)?.parse::<u64>().ok()?);
        let per_second = sysconf(SysconfVar::CLK_TCK).ok()??.cast_unsigned();
        let started = ticks.saturating_mul(1_000_000_000 / per_second);
        Some(Self { comm: before.split_once('(')?.1.to_owned(), parent, started })
    }
}

/// Some of /proc/PID/status (proc_pid_status(5)), which also tells of threads, and can be read whoever they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The thread that it was asked for.
    pub thread: u32,
    /// The name of the thread.
    pub comm: String,
    /// The process that it belongs to.
    pub process: u32,
    /// The process's real user id.
    pub real: u32,
    /// The user id that the process's rights depend on.
    pub effective: u32,
    /// The one that it may go back to.
    pub saved: u32,
    /// The capabilities that are in effect, in its own user namespace.
    pub capabilities: u64,
    /// The capabilities that may be put into effect, in its own user namespace.
    pub permitted: u64,
    /// In how many pid namespaces it is, from this process's own down.
    pub levels: usize,
}

impl Status {
    /// Looks at a thread as it is now. `None` if it is gone, or not to be seen.
    #[must_use]
    pub fn read(thread: u32) -> Option<Self> {
        let text = fs::read(format!("/proc/{thread}/status")).ok()?;
        Self::parse(thread, &String::from_utf8_lossy(&text))
    }

    fn parse(thread: u32, text: &str) -> Option<Self> {
        // In a name, newlines and backslashes are escaped, so that every line is one.
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        let mut users = field("Uid")?.split_whitespace().map(str::parse);
        let mut user = || users.next()?.ok();
        Some(Self {
            thread,
            comm: field("Name")?.to_owned(),
            process: field("Tgid")?.parse().ok()?,
            real: user()?,
            effective: user()?,
            saved: user()?,
            capabilities: u64::from_str_radix(field("CapEff")?, 16).ok()?,
            permitted: u64::from_str_radix(field("CapPrm")?, 16).ok()?,
            levels: field("NSpid")?.split_whitespace().count(),
        })
    }

    /// Whether another thread's user namespace is the same one, as far as this process may know.
    #[must_use]
    pub fn is_in_same_user_namespace(&self, other: &Self) -> bool {
        let namespace = |thread| fs::read_link(format!("/proc/{thread}/ns/user")).ok();
        namespace(self.thread).is_some_and(|own| Some(own) == namespace(other.thread))
    }
}

/// A command line: its arguments, each with a NUL after it. The kernel reads them from the process's memory, but waits for nobody who is
/// to fill it: neither for files (`FOLL_ANON`), nor for userfaultfd(2), without `FAULT_FLAG_ALLOW_RETRY` (`__access_remote_vm`, mm/memory.c).
fn read_argv(path: &Path) -> io::Result<Vec<String>> {
    let mut text = Vec::new();
    fs::File::open(path)?.take(MAX_ARGV).read_to_end(&mut text)?;
    let whole = text.pop_if(|byte| *byte == 0).is_some();
    let mut argv: Vec<String> = Vec::new();
    if !text.is_empty() || whole {
        argv.extend(text.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()));
    }
    if let (false, Some(last)) = (whole, argv.last_mut()) {
        last.push('…');
    }
    Ok(argv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_contain_anything() {
        let text = "77 (a) b (c) S 42 77 77 34816 77 4194304 107 0 0 0 0 0 0 0 20 0 1 0 500 2703360 400 18446744073";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.comm.as_str(), stat.parent), ("a) b (c", 42));
        assert!(stat.started > 0);
        assert!(Stat::parse("").is_none());
    }

    #[test]
    fn a_status_has_ids_and_namespaces() {
        let text = "Name:\ta\\nb\nUmask:\t0022\nTgid:\t7\nNgid:\t0\nPid:\t8\nUid:\t1\t2\t3\t4\nNSpid:\t8\t1\n\
                    CapPrm:\t0000000000000021\nCapEff:\t0000000000000020\n";
        let status = Status::parse(8, text).unwrap();
        assert_eq!((status.comm.as_str(), status.process, status.levels), ("a\\nb", 7, 2));
        assert_eq!((status.real, status.effective, status.saved), (1, 2, 3));
        assert_eq!((status.capabilities, status.permitted), (0x20, 0x21));
        assert_eq!(Status::parse(8, ""), None);
        let own = Status::read(std::process::id()).unwrap();
        assert_eq!((own.process, own.levels), (std::process::id(), 1));
        assert!(own.is_in_same_user_namespace(&own));
        assert_eq!(Status::read(0), None);
    }

    #[test]
    fn this_process_is_read_and_a_later_one_of_the_same_number_is_not() {
        let details = read_details(std::process::id(), u64::MAX, Patience::NEEDED);
        assert_eq!(details.argv, Some(std::env::args().collect()));
        assert_eq!(details.exe, Some(std::env::current_exe().unwrap().to_string_lossy().into_owned()));
        assert_eq!(details.parent.unwrap().pid, std::os::unix::process::parent_id());
        assert_eq!(read_details(std::process::id(), 0, Patience::NEEDED), Details::default());
    }
}
