//! The file in which a command finds why it was denied something, while it runs (`GUARD_RUN_DENIALS`).
//!
//! The file is in a file system in memory that only this run has. guard-run writes by a descriptor of its own; what the command sees is
//! mounted read-only, so nobody inside can change a line. Nothing that is done to a file that can only be read makes its writer wait.

use std::{
    cell::LazyCell,
    env,
    ffi::{CStr, OsString},
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::{fs::FileExt as _, process::ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process,
    rc::Rc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use advice::{DROPPED, Explained, Guard, Head};
use anyhow::Context as _;
use enforce::{
    exit,
    journal::Journal,
    machine::ThisMachine,
    outlet::tell,
    privilege::{Operation, Rights},
    sys::confine::detached_memory,
};
use jiff::Timestamp;
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        stat::{Mode, fchmod, futimens},
        time::TimeSpec,
        wait::{Id, WaitPidFlag, waitid},
    },
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use policy::strict;
use report::{
    Event, Test, Traces, test,
    text::{OneLine, json},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The variable that names the file.
pub const VARIABLE: &str = "GUARD_RUN_DENIALS";

/// The name of the file in its folder.
const NAME: &str = "guard-run-denials.jsonl";

/// A policy as advice needs it, made when it is first asked for: most runs are denied nothing.
pub type LazyGuard = Rc<LazyCell<Guard, Box<dyn FnOnce() -> Guard>>>;

/// How large the file gets, in bytes.
const LIMIT: u64 = 1 << 20;

/// How many bytes of that are kept for the line that says how many denials are not in it.
const LAST_LINE: usize = 64;

/// How many events wait, at the most, until there is time to explain them.
const WAITING: usize = 1024;

/// How long a reader waits until guard-run says that all is in the file, at the most.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often guard-run is asked whether all is in the file, at the most.
const PAUSE: Duration = Duration::from_millis(1);

/// How many denials are shown.
const SHOWN: usize = 10;

/// What a file system of this kind is made with: room for the file and no other.
const OPTIONS: [(&CStr, &CStr); 3] = [(c"size", c"1028k"), (c"nr_inodes", c"2"), (c"mode", c"0755")];

/// A file that nobody sees yet, and where it will be seen.
#[derive(Debug)]
pub struct Unseen {
    /// The file system, mounted nowhere.
    mount: OwnedFd,
    /// The folder over which it will be mounted.
    place: PathBuf,
    file: File,
}

impl Unseen {
    /// Makes the file, to be seen in a folder. `None` where that can't be done, as in a guard that leaves nobody the right to mount.
    #[must_use]
    pub fn new(place: PathBuf, rights: &mut Rights) -> Option<Self> {
        let mount = {
            let _raised = rights.raise(Operation::View);
            detached_memory(&OPTIONS).ok()?
        };
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let file = openat(&mount, NAME, flags, Mode::from_bits_truncate(0o444)).ok()?;
        // Whatever the caller's mask for new files is.
        fchmod(&file, Mode::from_bits_truncate(0o444)).ok()?;
        Some(Self { mount, place, file: file.into() })
    }

    /// The path of the file, as the command will know it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.place.join(NAME)
    }

    /// The mount, and where the command's process has to attach it.
    ///
    /// # Errors
    ///
    /// When this process can have no more descriptors.
    pub fn shown(&self) -> io::Result<(OwnedFd, &Path)> {
        Ok((self.mount.try_clone()?, &self.place))
    }
}

/// One line of the file: an event, and what there is to say about it.
#[derive(Deserialize, Serialize)]
#[serde(bound(deserialize = "E: Deserialize<'de>"))]
struct Line<E> {
    #[serde(flatten, deserialize_with = "strict::object")]
    event: E,
    why: Explained,
}

/// The file, while the command runs.
pub struct DenialsFile {
    file: File,
    /// Who advises, once there is something to be explained.
    guard: LazyGuard,
    /// What the log says beside its events.
    heads: [Head; 1],
    /// Where the next line goes.
    end: u64,
    /// Whether a line did not fit. None comes after it, so that what is there has no gaps.
    is_full: bool,
    /// How many denials have no line.
    dropped: u64,
    /// What the last line says of these.
    told: u64,
    /// Who opens the file. `None` where the kernel gives this user no more of these.
    readers: Option<Inotify>,
    /// When somebody has opened it, until all is in it that was denied by then.
    opened: Option<TimeSpec>,
    /// When that was the case last.
    answered: Option<Instant>,
}

impl DenialsFile {
    /// The file of a run, whose policy `guard` gives once something was denied, and of whose log this is the head.
    #[must_use]
    pub fn new(unseen: Unseen, guard: LazyGuard, head: Head) -> Self {
        let Unseen { file, .. } = unseen;
        let readers = readers_of(&file).ok();
        Self {
            file,
            guard,
            heads: [head],
            end: 0,
            is_full: false,
            dropped: 0,
            told: 0,
            readers,
            opened: None,
            answered: None,
        }
    }

    /// What is ready for reading once somebody has opened the file; or for how long that doesn't matter, since somebody just did: nobody can
    /// keep guard-run busy by it.
    #[must_use]
    pub fn awaited(&self) -> Option<Result<BorrowedFd<'_>, Duration>> {
        let readers = self.readers.as_ref().filter(|_| self.opened.is_none())?;
        let rest = self.answered.and_then(|answered| PAUSE.checked_sub(answered.elapsed()));
        Some(rest.map_or_else(|| Ok(readers.as_fd()), Err))
    }

    /// Notes that the file was opened, before the journal takes what was denied by then.
    pub fn look(&mut self) {
        if self.opened.is_none()
            && let Some(Ok(_)) = self.awaited()
            && self.readers.as_ref().is_some_and(|readers| readers.read_events().is_ok())
        {
            self.opened = clock_gettime(ClockId::CLOCK_REALTIME).ok();
        }
    }

    /// Says in the file's time of access that all is in it that was denied before. Nobody else can set that, nor does reading.
    fn answer(&mut self, journal: &Journal) {
        if let Some(opened) = self.opened.take_if(|_| !journal.has_fresh()) {
            let _ = futimens(&self.file, &opened, &TimeSpec::UTIME_OMIT);
            self.answered = Some(Instant::now());
        }
    }

    /// Has a journal keep events for such a file.
    #[must_use]
    pub fn kept_by(journal: Journal) -> Journal {
        journal.keeping(WAITING)
    }

    /// Writes the first of a journal's new events, if there is one: explaining takes time, in which other processes may vanish that
    /// the journal would look at.
    pub fn go_on(&mut self, journal: &mut Journal) {
        if let Some(event) = journal.take_fresh()
            && (self.is_full || self.write(&event).is_err())
        {
            self.is_full = true;
            self.dropped = self.dropped.saturating_add(event.count);
        }
        let dropped = self.dropped.saturating_add(journal.passed_over());
        if dropped > self.told {
            self.told = dropped;
            let line = format!("{:width$}\n", json!({ DROPPED: dropped }), width = LAST_LINE - 1);
            // A reader sees the number before or after.
            let _ = self.file.write_all_at(line.as_bytes(), self.end);
            self.is_full = true;
        }
        self.answer(journal);
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        let why = Explained::new(event, &self.guard, &self.heads, &ThisMachine);
        let mut line = json(&Line { event, why })?;
        line.push(b'\n');
        let end = self.end + u64::try_from(line.len()).unwrap_or(LIMIT);
        if end + LAST_LINE as u64 > LIMIT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.file.write_all_at(&line, self.end)?;
        self.end = end;
        Ok(())
    }
}

/// What tells that somebody has opened a file.
fn readers_of(file: &File) -> nix::Result<Inotify> {
    let readers = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    readers.add_watch(&*format!("/proc/self/fd/{}", file.as_raw_fd()), AddWatchFlags::IN_OPEN)?;
    Ok(readers)
}

/// Opens the file as its reader, and waits until all is in it that was denied before.
fn open_complete(path: &Path) -> io::Result<File> {
    let before = SystemTime::now();
    let file = File::open(path)?;
    let end = Instant::now() + PATIENCE;
    while file.metadata()?.accessed()? < before && Instant::now() < end {
        thread::sleep(PAUSE / 4);
    }
    Ok(file)
}

/// The file that a command was told of.
fn told_of() -> Option<PathBuf> {
    env::var_os(VARIABLE).map(PathBuf::from)
}

/// All that is in the file, once all is in it that was denied before: the denials that are explained, and how many there are besides.
fn read(path: &Path) -> anyhow::Result<(String, Vec<Line<Known>>, u64)> {
    let mut text = String::new();
    let read = open_complete(path).and_then(|file| file.take(2 * LIMIT).read_to_string(&mut text));
    read.with_context(|| format!("{VARIABLE}={}", path.display()))?;
    let whole: Vec<&str> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
    let lines = whole.iter().filter_map(|line| strict::from_str(line).ok()).collect();
    let last = whole.last().and_then(|line| serde_json::from_str::<Value>(line).ok());
    let dropped = last.and_then(|line| line[DROPPED].as_u64()).unwrap_or(0);
    Ok((text, lines, dropped))
}

/// What a reader of the file wants to know of an event.
#[derive(Deserialize)]
struct Known {
    first: String,
    process: KnownProcess,
    #[serde(default)]
    test: Option<Test>,
}

#[derive(Deserialize)]
struct KnownProcess {
    pid: Option<u32>,
}

/// Explanations for people, with their numbers. The lines are as they were made; nothing in them steers a terminal, whoever made them.
fn numbered<'a>(told: impl Iterator<Item = (usize, &'a Explained)>) -> String {
    let shown = told.map(|(number, Explained { explanation, .. })| {
        let lines: Vec<String> = explanation.lines().map(|line| OneLine(line).to_string()).collect();
        format!("{}. {}\n", number + 1, lines.join("\n"))
    });
    shown.collect::<Vec<_>>().join("\n")
}

/// Shows the last denials of the guard that this process is in.
///
/// # Errors
///
/// When there is no file of these.
pub fn show(as_json: bool) -> anyhow::Result<()> {
    let path = told_of().with_context(|| {
        format!(
            "name a log: guard-run why LOG. Without one, it tells of the guard that it runs in, but {VARIABLE} is not set, \
             as in audit mode or outside of a guard"
        )
    })?;
    let (text, lines, dropped) = read(&path)?;
    if as_json {
        print!("{text}");
        return Ok(());
    }
    let earlier = lines.len().saturating_sub(SHOWN);
    match lines.last() {
        None => println!("nothing was denied"),
        Some(last) => {
            print!("{}", numbered(lines.iter().map(|line| &line.why).enumerate().skip(earlier)));
            println!("\n{}", OneLine(&last.why.meaning));
        }
    }
    if earlier > 0 {
        println!("and {earlier} before these; all are in {}", OneLine(path.display()));
    }
    if dropped > 0 {
        println!("and {dropped} for which there was no room; they are in the log");
    }
    Ok(())
}

/// Runs one test of a suite that runs in a guard, and fails it if it was denied something, also if it has swallowed the error. Returns the
/// test's exit status, or else [`exit::DENIED`].
///
/// # Errors
///
/// When this is in no guard that tells of denials.
pub fn test(command: &[OsString]) -> anyhow::Result<u8> {
    let path = told_of().with_context(|| {
        format!(
            "this is for tests in a guard that refuses what its policy denies, and {VARIABLE} is not set, as in audit mode or outside of a \
             guard: run the suite by guard-run -p tests -- COMMAND"
        )
    })?;
    let environment: Vec<_> =
        test::VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), env::var(name).ok()?))).collect();
    let program = Path::new(&command[0]);
    let own = Test::of(&Traces { environment: &environment, ..Traces::default() })
        .unwrap_or_else(|| Test::of_program(&program.to_string_lossy()));
    let start = Timestamp::now();
    let mut child = match process::Command::new(program).args(&command[1..]).spawn() {
        Ok(child) => child,
        Err(error) => {
            tell(&format!("{}: {error}", OneLine(program.display())));
            return Ok(if error.kind() == io::ErrorKind::NotFound { exit::NOT_FOUND } else { exit::NOT_EXECUTABLE });
        }
    };
    let pid = child.id();
    // It stays as a zombie until all of its denials were looked at, so that guard-run finds its parent, and by that its test.
    while waitid(Id::Pid(Pid::from_raw(pid.cast_signed())), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
        == Err(Errno::EINTR)
    {}
    let read = read(&path);
    let status = child.wait()?;
    let (_, lines, dropped) = read?;
    // What ended before guard-run had looked at it may have been started by any test that runs: none of these is said to be good.
    let is_own = |line: &&Line<Known>| match &line.event {
        Known { test: Some(test), process, .. } => *test == own || process.pid == Some(pid),
        Known { first, process, .. } => {
            process.pid == Some(pid) || first.parse::<Timestamp>().is_ok_and(|first| first >= start)
        }
    };
    let denied: Vec<&Line<Known>> = lines.iter().filter(is_own).collect();
    let code = status.code().map_or(exit::FAILURE, |code| u8::try_from(code).unwrap_or(exit::FAILURE));
    let code = status.signal().map_or(code, |signal| exit::SIGNALED + u8::try_from(signal).unwrap_or(0));
    if denied.is_empty() && dropped == 0 {
        return Ok(code);
    }
    let is_certain = |line: &&&Line<Known>| line.event.test.is_some() || line.event.process.pid == Some(pid);
    let what = if denied.iter().any(|line| is_certain(&line)) || denied.is_empty() {
        "this test was denied what it asked for"
    } else {
        "something was denied while this test ran; which test that was of is not known"
    };
    eprint!("guard-run: {what}:\n{}", numbered(denied.iter().map(|line| &line.why).enumerate()));
    if dropped > 0 {
        eprintln!("{dropped} more denials, of any tests, are only in the log: this one may have been denied something");
    }
    Ok(if code == exit::OK { exit::DENIED } else { code })
}
