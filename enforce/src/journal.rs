//! Collecting events while the command runs, and all of them once it has ended.

use std::{
    collections::{HashMap, VecDeque},
    fs, io, mem,
    net::IpAddr,
    sync::Arc,
};

use aya::maps::MapError;
use common::{
    flow::{self, News, TCP},
    record::{Hook, Key, SEVERAL, Tally},
};
use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};
use policy::{
    Reasons,
    compile::{FoundBy, Hosts},
};
use report::{Clock, Details, Event, Flow, Names, Observed, Recorded, Refusal, Test, Verdict};

use crate::{
    call::Calls,
    live::{Awaited, Live},
    load::{Flows, Learned, Records, Tallies, Visitor},
    patience::Patience,
    process::{Status, find_test, read_details},
    sys::plain::{Plain, bytes_of, from_bytes},
};

/// The inode of the initial pid namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Reads how far this machine's clocks are apart.
///
/// # Errors
///
/// As clock_gettime(2).
pub fn clock() -> nix::Result<Clock> {
    let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    let nanoseconds = i32::try_from(since_boot.tv_nsec()).unwrap_or(0);
    Ok(Clock::new(Timestamp::now(), SignedDuration::new(since_boot.tv_sec(), nanoseconds)))
}

/// The names that the kernel has for devices, and the hosts that the command has found.
#[derive(Clone, Copy)]
struct KernelNames<'a> {
    hosts: Option<&'a Hosts>,
    learned: Option<&'a Learned>,
}

impl Names for KernelNames<'_> {
    fn host(&self, address: IpAddr) -> Option<FoundBy> {
        let learned = self.learned.and_then(|learned| learned.of_address(address));
        self.hosts?.of(address, learned.as_ref())
    }

    fn device(&self, class: &str, major: u32, minor: u32) -> Option<String> {
        // Documentation/admin-guide/sysfs-rules.rst
        let properties = fs::read_to_string(format!("/sys/dev/{class}/{major}:{minor}/uevent")).ok()?;
        properties.lines().find_map(|line| line.strip_prefix("DEVNAME=")).map(ToOwned::to_owned)
    }
}

/// How many connections have not ended.
///
/// # Errors
///
/// When the kernel refuses to read the map.
pub fn open(flows: &Flows) -> Result<u64, MapError> {
    let open = |(key, tally): (flow::Key, flow::Tally)| {
        if key.protocol == TCP { tally.begun.saturating_sub(tally.ended) } else { 0 }
    };
    flows.all().map(|flow| flow.map(open)).sum()
}

/// What was found out about a denial when it was new.
struct Seen {
    details: Arc<Details>,
    test: Option<Test>,
    /// The count that it was announced with.
    count: u64,
}

/// Collects the events of a run.
pub struct Journal {
    clock: Clock,
    verdict: Verdict,
    reasons: Reasons,
    /// The names of the policy's rules.
    hosts: Option<Hosts>,
    /// Whether the pids that the kernel side records are those of our /proc.
    pids_are_ours: bool,
    /// What was found out about each denial while the command ran, by its key.
    seen: HashMap<Box<[u8]>, Seen>,
    /// What was found out about processes, so that it is kept once.
    processes: HashMap<u32, Arc<Details>>,
    /// What was refused by what keeps the command inside beside the programs.
    calls: Calls,
    live: Option<Live>,
    /// Whether a process may keep this one waiting that asks who it is.
    patience: Patience,
    /// New events that nobody has taken yet.
    fresh: VecDeque<Event>,
    /// How many may wait there. Others that come meanwhile are only counted.
    room: usize,
    /// How many denials were not kept for want of room.
    passed_over: u64,
    failure: Option<io::Error>,
}

impl Journal {
    /// A journal of a policy that has these names, which also writes events as JSON lines to `live` as they come.
    #[must_use]
    pub fn new(
        clock: Clock,
        verdict: Verdict,
        reasons: Reasons,
        hosts: Option<Hosts>,
        live: Option<Live>,
        patience: Patience,
    ) -> Self {
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Self {
            clock,
            verdict,
            reasons,
            hosts,
            pids_are_ours: namespace.as_os_str() == INITIAL_PID_NAMESPACE,
            seen: HashMap::new(),
            processes: HashMap::new(),
            calls: Calls::default(),
            live,
            patience,
            fresh: VecDeque::new(),
            room: 0,
            passed_over: 0,
            failure: None,
        }
    }

    /// Keeps so many new events until they are taken.
    #[must_use]
    pub fn keeping(self, room: usize) -> Self {
        Self { room, ..self }
    }

    /// The first new event that nobody has taken yet.
    pub fn take_fresh(&mut self) -> Option<Event> {
        self.fresh.pop_front()
    }

    /// Whether there is such an event.
    #[must_use]
    pub fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// How many denials there were of which [`Journal::take_fresh`] tells nothing.
    #[must_use]
    pub const fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// Takes the new denials that have come since the last time, while their processes may still be there.
    pub fn drain(&mut self, records: &mut Records) {
        while let Some(record) = records.news.next() {
            // A record of any kind is counted in its map, and in the log in the end.
            let Some(hook) = record.first().copied().and_then(Hook::from_number) else { continue };
            match from_bytes(&record) {
                Some(News { pid, first, .. }) if hook == Hook::SockOps => {
                    self.look_at(pid, first);
                }
                // A map that can't be read now is read in the end, too, and then it is an error.
                _ => {
                    let learned = records.learned.as_ref();
                    for kind in hook.kinds() {
                        drop(records.denials.visit(*kind, &mut Noting { journal: self, learned, record: &record }));
                    }
                }
            }
        }
    }

    fn event<S: Recorded>(
        &self,
        key: &Key<S>,
        tally: &Tally,
        (details, test): (Arc<Details>, Option<Test>),
        learned: Option<&Learned>,
    ) -> Event {
        let event = Event::new(key, tally, details, &self.clock, (self.verdict, &self.reasons), &self.names(learned));
        Event { test, ..event }
    }

    const fn names<'a>(&'a self, learned: Option<&'a Learned>) -> KernelNames<'a> {
        KernelNames { hosts: self.hosts.as_ref(), learned }
    }

    /// What can be found out about a process that has done something at that time.
    fn look_at(&mut self, pid: u32, boottime: u64) -> Arc<Details> {
        let mut details = Arc::new(Details::default());
        if pid == SEVERAL {
            return details;
        }
        if self.pids_are_ours {
            details = Arc::new(read_details(pid, boottime, self.patience));
        }
        // A process that has ended in the meantime may have been seen before.
        match self.processes.get(&pid) {
            Some(known) if *details == Details::default() || *details == **known => details = Arc::clone(known),
            _ => {
                self.processes.insert(pid, Arc::clone(&details));
            }
        }
        details
    }

    /// During which test a process has done something at that time, in a thread of this name.
    fn test_of(&self, pid: u32, boottime: u64, thread: &str) -> Option<Test> {
        if pid == SEVERAL || !self.pids_are_ours { None } else { find_test(pid, boottime, thread, self.patience) }
    }

    /// Counts a call that was refused, of this thread's, if it is known.
    pub fn refuse(&mut self, refused: Refusal, who: Option<Status>) {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |now| {
            let nanoseconds = now.tv_sec().saturating_mul(1_000_000_000).saturating_add(now.tv_nsec());
            u64::try_from(nanoseconds).unwrap_or(0)
        });
        let mut calls = mem::take(&mut self.calls);
        let (clock, verdict) = (self.clock, self.verdict);
        let look = |pid, thread: &str| (self.look_at(pid, now), self.test_of(pid, now, thread));
        let event = calls.add(refused, who, now, look, (&clock, verdict));
        self.calls = calls;
        if let Some(event) = event {
            self.tell(event);
        }
    }

    /// How many calls were refused.
    #[must_use]
    pub fn observed(&self) -> Observed {
        self.calls.observed()
    }

    /// Tells of a new event.
    fn tell(&mut self, event: Event) {
        self.write_live(&event);
        if self.fresh.len() < self.room {
            self.fresh.push_back(event);
        } else if self.room > 0 {
            self.passed_over = self.passed_over.saturating_add(event.count);
        }
    }

    fn write_live(&mut self, event: &Event) {
        self.with_live(|live| live.add(event));
    }

    /// What the JSON lines wait for that are not written yet.
    #[must_use]
    pub fn awaits(&self) -> Option<Awaited<'_>> {
        self.live.as_ref().and_then(Live::awaits)
    }

    /// Writes JSON lines that have waited.
    pub fn go_on(&mut self) {
        self.with_live(Live::go_on);
    }

    /// Does something about the JSON lines. If it fails, there are no more of them.
    fn with_live(&mut self, mut act: impl FnMut(&mut Live) -> io::Result<()>) {
        if let Some(Err(error)) = self.live.as_mut().map(&mut act) {
            self.failure.get_or_insert(error);
            self.live = None;
        }
    }

    /// All flows so far, the earliest first. `None` where they aren't recorded.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn flows(&mut self, records: &mut Records) -> Result<Option<Vec<Flow>>, MapError> {
        self.drain(records);
        let Some(flows) = &records.flows else { return Ok(None) };
        let mut flows = flows.all().collect::<Result<Vec<_>, _>>()?;
        flows.sort_by_key(|(_, tally)| tally.first);
        let details = |pid| self.processes.get(&pid).cloned().unwrap_or_default();
        let names = self.names(records.learned.as_ref());
        let flow =
            |(key, tally): &(_, flow::Tally)| Flow::new(key, tally, details(tally.owner.pid), &self.clock, &names);
        Ok(Some(flows.iter().map(flow).collect()))
    }

    /// All events, the earliest first, once nothing can be denied any more: those of the kernel's records, where there are some, and of
    /// calls. Those that have happened more than once
    /// since they were written as JSON lines, or were never, are written now.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map. What failed about the JSON lines comes with the events.
    pub fn finish(mut self, records: Option<&mut Records>) -> Result<(Vec<Event>, Option<io::Error>), MapError> {
        let mut events: Vec<_> = self.calls.events(&self.clock, self.verdict).collect();
        if let Some(records) = records {
            self.drain(records);
            let learned = records.learned.as_ref();
            records.denials.visit_all(&mut Concluding { journal: &self, learned, events: &mut events })?;
        }
        events.sort_by_key(|(event, _)| event.first);
        for (event, announced) in &events {
            if event.count > *announced {
                self.write_live(event);
            }
        }
        if let Some(Err(error)) = self.live.take().map(Live::finish) {
            self.failure.get_or_insert(error);
        }
        Ok((events.into_iter().map(|(event, _)| event).collect(), self.failure))
    }
}

/// Takes a new denial, of which this is the key.
struct Noting<'a> {
    journal: &'a mut Journal,
    learned: Option<&'a Learned>,
    record: &'a [u8],
}

impl Visitor for Noting<'_> {
    fn visit<S: Recorded + Plain>(&mut self, denials: &Tallies<S>) -> Result<(), MapError> {
        let Self { journal, learned, record } = self;
        let Some(key) = from_bytes::<Key<S>>(record) else { return Ok(()) };
        let tally = denials.of(key)?;
        let test = journal.test_of(key.pid, tally.first, &report::comm(tally.comm));
        let details = journal.look_at(key.pid, tally.first);
        let event = journal.event(&key, &tally, (Arc::clone(&details), test.clone()), *learned);
        journal.seen.insert((*record).into(), Seen { details, test, count: event.count });
        journal.tell(event);
        Ok(())
    }
}

/// Adds the events of a map, each with the count that it has been announced with.
struct Concluding<'a> {
    journal: &'a Journal,
    learned: Option<&'a Learned>,
    events: &'a mut Vec<(Event, u64)>,
}

impl Visitor for Concluding<'_> {
    fn visit<S: Recorded + Plain>(&mut self, denials: &Tallies<S>) -> Result<(), MapError> {
        let Self { journal, learned, events } = self;
        for entry in denials.all() {
            let (key, tally) = entry?;
            let (seen, announced) = match journal.seen.get(bytes_of(&[key])) {
                Some(Seen { details, test, count }) => ((Arc::clone(details), test.clone()), *count),
                None => ((journal.processes.get(&key.pid).cloned().unwrap_or_default(), None), 0),
            };
            let event = journal.event(&key, &tally, seen, *learned);
            events.push((event, announced));
        }
        Ok(())
    }
}
