//! Collecting events while the command runs, and all of them once it has ended.

use std::{collections::HashMap, fs, io, sync::Arc};

use aya::maps::MapError;
use common::{
    flow::{self, News, TCP},
    record::{Hook, Key, SEVERAL},
};
use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};
use report::{Clock, Details, Event, Flow, Names, Recorded, Verdict};

use crate::{
    live::{Awaited, Live},
    load::{Flows, Records, Tallies},
    process::read_details,
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

/// The names that the kernel has for devices.
struct KernelNames;

impl Names for KernelNames {
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
    /// The count that it was announced with.
    count: u64,
}

/// Collects the events of a run.
pub struct Journal {
    clock: Clock,
    verdict: Verdict,
    /// Whether the pids that the kernel side records are those of our /proc.
    pids_are_ours: bool,
    /// What was found out about each denial while the command ran, by its key.
    seen: HashMap<Box<[u8]>, Seen>,
    /// What was found out about processes, so that it is kept once.
    processes: HashMap<u32, Arc<Details>>,
    live: Option<Live>,
    failure: Option<io::Error>,
}

impl Journal {
    /// A journal that also writes events as JSON lines to `live` as they come.
    #[must_use]
    pub fn new(clock: Clock, verdict: Verdict, live: Option<Live>) -> Self {
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Self {
            clock,
            verdict,
            pids_are_ours: namespace.as_os_str() == INITIAL_PID_NAMESPACE,
            seen: HashMap::new(),
            processes: HashMap::new(),
            live,
            failure: None,
        }
    }

    /// Takes the new denials that have come since the last time, while their processes may still be there.
    pub fn drain(&mut self, records: &mut Records) {
        while let Some(record) = records.news.next() {
            match record.first().copied().and_then(Hook::from_number) {
                Some(
                    Hook::Connect4
                    | Hook::Connect6
                    | Hook::Bind4
                    | Hook::Bind6
                    | Hook::Sendmsg4
                    | Hook::Sendmsg6
                    | Hook::Ingress
                    | Hook::Egress,
                ) => self.note(&record, records.net.as_ref()),
                Some(Hook::ConnectUnix | Hook::SendmsgUnix | Hook::UnixStreamConnect | Hook::UnixMaySend) => {
                    self.note(&record, records.unix.as_ref());
                }
                Some(Hook::SockCreate) => self.note(&record, records.socket.as_ref()),
                Some(Hook::Device) => self.note(&record, records.device.as_ref()),
                Some(Hook::Sysctl) => self.note(&record, records.sysctl.as_ref()),
                Some(Hook::Getsockopt | Hook::Setsockopt) => self.note(&record, records.sockopt.as_ref()),
                Some(Hook::SockOps) => {
                    if let Some(News { pid, first, .. }) = from_bytes(&record) {
                        self.look_at(pid, first);
                    } else {
                        self.note(&record, records.net.as_ref());
                    }
                }
                _ => {}
            }
        }
    }

    fn note<S: Recorded + Plain>(&mut self, record: &[u8], tallies: Option<&Tallies<S>>) {
        let Some(key) = from_bytes::<Key<S>>(record) else { return };
        let Some(Ok(tally)) = tallies.map(|tallies| tallies.of(key)) else { return };
        let details = self.look_at(key.pid, tally.first);
        let event = Event::new(&key, &tally, Arc::clone(&details), &self.clock, self.verdict, &KernelNames);
        self.write_live(&event);
        self.seen.insert(record.into(), Seen { details, count: event.count });
    }

    /// What can be found out about a process that has done something at that time.
    fn look_at(&mut self, pid: u32, boottime: u64) -> Arc<Details> {
        let mut details = Arc::new(Details::default());
        if pid == SEVERAL {
            return details;
        }
        if self.pids_are_ours {
            details = Arc::new(read_details(pid, boottime));
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
        let flow = |(key, tally): &(_, flow::Tally)| Flow::new(key, tally, details(tally.owner.pid), &self.clock);
        Ok(Some(flows.iter().map(flow).collect()))
    }

    /// All events, the earliest first, once nothing can be denied any more. Those that have happened more than once
    /// since they were written as JSON lines, or were never, are written now.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map. What failed about the JSON lines comes with the events.
    pub fn finish(mut self, records: &mut Records) -> Result<(Vec<Event>, Option<io::Error>), MapError> {
        self.drain(records);
        let mut events = Vec::new();
        self.conclude(records.net.as_ref(), &mut events)?;
        self.conclude(records.unix.as_ref(), &mut events)?;
        self.conclude(records.device.as_ref(), &mut events)?;
        self.conclude(records.sysctl.as_ref(), &mut events)?;
        self.conclude(records.socket.as_ref(), &mut events)?;
        self.conclude(records.sockopt.as_ref(), &mut events)?;
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

    /// Adds the events of a map, each with the count that it has been announced with.
    fn conclude<S: Recorded + Plain>(
        &self,
        tallies: Option<&Tallies<S>>,
        events: &mut Vec<(Event, u64)>,
    ) -> Result<(), MapError> {
        for entry in tallies.into_iter().flat_map(Tallies::all) {
            let (key, tally) = entry?;
            let (details, announced) = match self.seen.get(bytes_of(&[key])) {
                Some(Seen { details, count }) => (Arc::clone(details), *count),
                None => (self.processes.get(&key.pid).cloned().unwrap_or_default(), 0),
            };
            let event = Event::new(&key, &tally, details, &self.clock, self.verdict, &KernelNames);
            events.push((event, announced));
        }
        Ok(())
    }
}
