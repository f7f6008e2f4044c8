//! Events and flows as JSON has them: without parts of their own. serde keeps all that could belong to a flattened part until it reads that part, which takes
//! several times as long as reading these.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    Call, Cause, Details, Device, Event, Extent, Flow, Name, Network, Parent, Process, Socket, Sockopt, Subject,
    Sysctl, Test, Transfer, Unix, Verdict, Word,
};

#[derive(Deserialize)]
pub(crate) struct FlatEvent {
    time: Timestamp,
    op: Word,
    hook: Word,
    verdict: Verdict,
    process: Process,
    test: Option<Test>,
    network: Option<Network>,
    name: Option<Name>,
    unix: Option<Unix>,
    device: Option<Device>,
    sysctl: Option<Sysctl>,
    socket: Option<Socket>,
    sockopt: Option<Sockopt>,
    call: Option<Call>,
    rule: String,
    reason: Option<Word>,
    count: u64,
    first: Timestamp,
    last: Timestamp,
}

impl TryFrom<FlatEvent> for Event {
    type Error = &'static str;

    fn try_from(flat: FlatEvent) -> Result<Self, &'static str> {
        let FlatEvent { time, op, hook, verdict, process, test, rule, reason, count, first, last, .. } = flat;
        let subject = flat.network.map(Subject::Network);
        let subject = subject.or(flat.name.map(Subject::Name)).or(flat.unix.map(Subject::Unix));
        let subject = subject.or(flat.device.map(Subject::Device)).or(flat.sysctl.map(Subject::Sysctl));
        let subject = subject.or(flat.socket.map(Subject::Socket)).or(flat.sockopt.map(Subject::Sockopt));
        let subject = subject.or(flat.call.map(Subject::Call)).ok_or("an event says for what it was")?;
        let cause = Cause { rule, reason };
        Ok(Self { time, op, hook, verdict, process, test, subject, cause, count, first, last })
    }
}

#[derive(Deserialize)]
pub(crate) struct FlatProcess {
    pid: Option<u32>,
    uid: u32,
    comm: String,
    exe: Option<String>,
    argv: Option<Vec<String>>,
    parent: Option<Parent>,
}

impl From<FlatProcess> for Process {
    fn from(FlatProcess { pid, uid, comm, exe, argv, parent }: FlatProcess) -> Self {
        Self { pid, uid, comm, details: Arc::new(Details { exe, argv, parent }) }
    }
}

#[derive(Deserialize)]
pub(crate) struct FlatFlow {
    direction: Word,
    network: Network,
    process: Option<Process>,
    connections: Option<u64>,
    open: Option<u64>,
    duration: Option<f64>,
    datagrams: Option<Transfer>,
    bytes: Transfer,
    first: Timestamp,
    last: Timestamp,
}

impl TryFrom<FlatFlow> for Flow {
    type Error = &'static str;

    fn try_from(flat: FlatFlow) -> Result<Self, &'static str> {
        let FlatFlow { direction, network, process, bytes, first, last, .. } = flat;
        let extent = match (flat.connections, flat.open, flat.duration, flat.datagrams) {
            (Some(connections), Some(open), Some(duration), _) => Extent::Connections { connections, open, duration },
            (.., Some(datagrams)) => Extent::Datagrams { datagrams },
            _ => return Err("a flow says how much of it there was"),
        };
        Ok(Self { direction, network, process, extent, bytes, first, last })
    }
}
