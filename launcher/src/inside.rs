//! The file in which a command finds why it was denied something, while it runs (`GUARD_RUN_DENIALS`).
//!
//! The file is in a file system in memory that only this run has. guard-run writes by a descriptor of its own; what the command sees is
//! mounted read-only, so nobody inside can change a line. Nothing that is done to a file that can only be read makes its writer wait.

use std::{
    cell::LazyCell,
    env,
    ffi::CStr,
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::FileExt as _,
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use advice::{DROPPED, Explained, Guard, Head};
use anyhow::Context as _;
use enforce::{
    journal::Journal,
    machine::ThisMachine,
    privilege::{Operation, Rights},
    sys::confine::detached_memory,
};
use nix::{
    fcntl::{OFlag, openat},
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        stat::{Mode, fchmod, futimens},
        time::TimeSpec,
    },
    time::{ClockId, clock_gettime},
};
use report::{
    Event,
    text::{OneLine, json},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The variable that names the file.
pub const VARIABLE: &str = "GUARD_RUN_DENIALS";

/// The name of the file in its folder.
const NAME: &str = "guard-run-denials.jsonl";

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
struct Line<E> {
    #[serde(flatten)]
    event: E,
    why: Explained,
}

/// The file, while the command runs.
pub struct Denials {
    file: File,
    /// Who advises, once there is something to be explained.
    guard: LazyCell<Guard, Box<dyn FnOnce() -> Guard>>,
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

impl Denials {
    /// The file of a run, whose policy `guard` gives once something was denied, and of whose log this is the head.
    #[must_use]
    pub fn new(unseen: Unseen, guard: Box<dyn FnOnce() -> Guard>, head: Head) -> Self {
        let Unseen { file, .. } = unseen;
        let readers = readers_of(&file).ok();
        Self {
            file,
            guard: LazyCell::new(guard),
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

/// Shows the last denials of the guard that this process is in.
///
/// # Errors
///
/// When there is no file of these.
pub fn show(as_json: bool) -> anyhow::Result<()> {
    let path = env::var_os(VARIABLE).with_context(|| {
        format!("name a log: guard-run why LOG. Without one, it tells of the guard that it runs in, but {VARIABLE} is not set")
    })?;
    let path = PathBuf::from(path);
    let mut text = String::new();
    let read = open_complete(&path).and_then(|file| file.take(2 * LIMIT).read_to_string(&mut text));
    read.with_context(|| format!("{VARIABLE}={}", path.display()))?;
    if as_json {
        print!("{text}");
        return Ok(());
    }
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let lines: Vec<Value> = whole.filter_map(|line| serde_json::from_str(line).ok()).collect();
    let told: Vec<Explained> = lines.iter().filter_map(|line| Explained::deserialize(&line["why"]).ok()).collect();
    let earlier = told.len().saturating_sub(SHOWN);
    if told.is_empty() {
        println!("nothing was denied");
    }
    for (number, Explained { explanation, .. }) in told.iter().enumerate().skip(earlier) {
        let gap = if number > earlier { "\n" } else { "" };
        // The lines are shown as they were made; nothing in them steers a terminal, unless somebody else has written them.
        let lines: Vec<String> = explanation.lines().map(|line| OneLine(line).to_string()).collect();
        println!("{gap}{}. {}", number + 1, lines.join("\n"));
    }
    if let Some(last) = told.last() {
        println!("\n{}", OneLine(&last.meaning));
    }
    if earlier > 0 {
        println!("and {earlier} before these; all are in {}", OneLine(path.display()));
    }
    if let Some(dropped) = lines.last().and_then(|line| line[DROPPED].as_u64()) {
        println!("and {dropped} for which there was no room; they are in the log");
    }
    Ok(())
}
