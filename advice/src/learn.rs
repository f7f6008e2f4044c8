//! A policy from what a command did while nothing was denied and everything was recorded.

mod network;
mod update;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use common::RuleSet;
use policy::DeviceAccess;
use report::{Call, Event, Extent, Flow, Network, Subject, text::OneLine};
use serde_json::Value;

use crate::{Judge, Record, hardening, rule::is_host_name};

/// What the policy of the run says of the sandbox's own sockets, by which they are told from others.
const OWN: &str = "/network/rules/0";

/// A name that nobody has: where a rule has one, names that are asked for are recorded.
const NOBODY: &str = "learn.guard-run.invalid";

/// A socket that nobody has: where rules tell paths apart, the paths of peers are recorded, and not how they were spelled.
const NO_SOCKET: &str = "/nonexistent/learn.guard-run.sock";

/// How much can be learnt of Unix sockets on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixSockets {
    /// Each by its path.
    ByPath,
    /// Whether there are any: without BPF LSM, nobody knows whose they are.
    Any,
    /// Nothing.
    Unseen,
}

/// The policy under which a command is run to learn from it: it denies everything, and is in audit mode.
#[must_use]
pub fn trial(names: bool, unix: UnixSockets) -> String {
    let name = if names {
        format!(",\n      {{\"action\": \"allow\", \"ops\": [\"connect\"], \"hosts\": [\"{NOBODY}\"]}}")
    } else {
        String::new()
    };
    let unix = match unix {
        UnixSockets::ByPath => format!(
            "  \"unix\": {{\"default\": \"deny\", \"rules\": [{{\"action\": \"allow\", \"paths\": [\"{NO_SOCKET}\"]}}]}},\n"
        ),
        UnixSockets::Any => "  \"unix\": {\"default\": \"deny\"},\n".to_owned(),
        UnixSockets::Unseen => String::new(),
    };
    format!(
        "{{\n  \"version\": 1,\n  \"mode\": \"audit\",\n  \"record\": \"flows\",\n  \"network\": {{\"default\": \"deny\", \"rules\": [\n      \
         {{\"action\": \"deny\", \"hosts\": [\"sandbox\"]}}{name}]}},\n{unix}  \
         \"devices\": {{\"default\": \"deny\"}},\n  \
         \"sysctls\": {{\"default\": \"allow\", \"rules\": [{{\"action\": \"deny\", \"access\": \"w\"}}]}}\n}}\n"
    )
}

/// Something that was done with the network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    op: String,
    protocol: String,
    address: IpAddr,
    port: u16,
    local_port: Option<u16>,
    /// Whether the peer is a socket of the command's own.
    own: bool,
    /// Whether it is about a port of which nobody has asked bind(2): the kernel may have chosen it.
    chosen: bool,
}

/// What a command did, in one or several runs under [`trial`].
#[derive(Debug, Default)]
pub struct Learner {
    /// What was done.
    network: BTreeMap<Seen, Needed>,
    /// To whom datagrams were sent.
    sent: BTreeSet<(IpAddr, u16)>,
    /// Where the policy that is added to lets TCP connect already, and UDP not.
    by_tcp: BTreeSet<(IpAddr, u16)>,
    names: BTreeSet<String>,
    unix: BTreeMap<String, Needed>,
    /// By type and numbers.
    devices: BTreeMap<(String, u32, u32), Opened>,
    tunables: BTreeMap<String, Needed>,
    /// By type and protocol.
    sockets: BTreeMap<(String, String), Needed>,
    /// What of the process section is needed: key → words → what was called for want of which.
    process: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    left_out: BTreeSet<String>,
    lost: u64,
    flows_lost: u64,
}

/// The names of the threads that needed something.
type Needed = BTreeSet<String>;

/// How a device was used.
#[derive(Debug, Default)]
struct Opened {
    accesses: u32,
    path: Option<String>,
    by: Needed,
}

/// So many programs are named as those that needed something.
const SHOWN: usize = 3;

/// Who needed something, in a sentence: `None` for nobody.
fn needed_by<'a>(all: impl IntoIterator<Item = &'a Needed>) -> Option<String> {
    let who: BTreeSet<&String> = all.into_iter().flatten().collect();
    let named: Vec<String> = who.iter().take(SHOWN).map(|name| OneLine(name).to_string()).collect();
    let others = if who.len() > SHOWN { " and others" } else { "" };
    (!named.is_empty()).then(|| format!("needed by {}{others}", named.join(", ")))
}

/// A policy that was learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learnt {
    /// The policy.
    pub text: String,
    /// How narrow it is, for people.
    pub summary: String,
    /// What in it is a guess, and what of the process section it gives up, and why; for people.
    pub notes: Vec<String>,
    /// What it does not allow although the command did it, and why.
    pub left_out: Vec<String>,
}

/// What no policy should do without because some command has tried it: by these, a command can get out.
const NEVER: [&str; 14] = [
    "bpf",
    "tracing",
    "delegation",
    "io_uring",
    "terminal",
    "kernel-files",
    "kernel-helpers",
    "CAP_BPF",
    "CAP_NET_ADMIN",
    "CAP_SYS_ADMIN",
    "CAP_SYS_MODULE",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_DAC_READ_SEARCH",
];

impl Learner {
    /// Notes what a record tells of.
    pub fn add(&mut self, record: &Record) {
        let event = match record {
            Record::Event(event) => event,
            Record::Flow(flow) => return self.flow(flow),
        };
        let who = || event.process.comm.clone();
        match &event.subject {
            Subject::Network(network) => self.peer(event, network),
            Subject::Name(name) if is_host_name(&name.name) => drop(self.names.insert(name.name.clone())),
            Subject::Name(name) => {
                self.left_out.insert(format!("{}: no rule can have this name", OneLine(&name.name)));
            }
            Subject::Unix(unix) => drop(self.unix.entry(unix.path.clone()).or_default().insert(who())),
            Subject::Device(device) => {
                let bits = DeviceAccess::try_from(device.access.clone()).map_or(0, DeviceAccess::bits);
                let opened = self.devices.entry((device.kind.to_string(), device.major, device.minor)).or_default();
                opened.accesses |= bits;
                opened.path.clone_from(&device.path);
                opened.by.insert(who());
            }
            Subject::Sysctl(sysctl) if sysctl.access == "w" => {
                self.tunables.entry(sysctl.name.clone()).or_default().insert(who());
            }
            Subject::Sysctl(_) => {}
            Subject::Socket(socket) => {
                self.sockets.entry((socket.kind.clone(), socket.protocol.clone())).or_default().insert(who());
            }
            Subject::Sockopt(sockopt) => drop(self.left_out.insert(format!(
                "socket option {} {}: {}",
                sockopt.level,
                sockopt.option,
                event.cause.reason.as_deref().unwrap_or("no rule can allow it")
            ))),
            Subject::Call(call) => self.call(event, call),
        }
    }

    /// Notes what a record tells of, if a policy does not allow it yet. What one of its rules denies stays denied.
    pub fn add_to(&mut self, judge: &mut Judge, record: &Record) {
        let Record::Event(event) = record else { return self.add(record) };
        match judge.event_of(event, event.cause.rule == OWN) {
            // Where no rule has a host name, the policy says nothing of names: nameservers are peers like any other.
            Some(judgement) if judgement.allowed && !(event.op == "resolve" && judgement.rule.is_none()) => {}
            Some(judgement) if judgement.rules != RuleSet::NONE => {
                let request = crate::replay::request_of(event);
                self.left_out.insert(format!("{request}: {} denies it, and is left as it is", judgement.decided_by()));
            }
            _ => {
                if let Subject::Network(network) = &event.subject
                    && judge.sorts(event)
                {
                    self.by_tcp.insert((network.address, network.port));
                }
                self.add(record);
            }
        }
    }

    /// Notes denials that no record tells of.
    pub fn lost(&mut self, lost: u64) {
        self.lost += lost;
    }

    /// Notes connections and datagrams that no flow tells of.
    pub fn flows_lost(&mut self, lost: u64) {
        self.flows_lost += lost;
    }

    /// Notes a capability without which the command can't do what was learnt, as a place in the policy has it.
    pub fn needs(&mut self, capability: &str, place: &str) {
        if NEVER.contains(&capability) {
            self.left_out.insert(format!(
                "{place}: a command can get out by \"{capability}\", without which it can't do this; if it needs that, add it: \
                 {{\"process\":{{\"capabilities\":[\"{capability}\"]}}}}"
            ));
            return;
        }
        let needed =
            self.process.entry("capabilities".to_owned()).or_default().entry(capability.to_owned()).or_default();
        needed.insert(place.to_owned());
    }

    fn flow(&mut self, flow: &Flow) {
        if matches!(&flow.extent, Extent::Datagrams { datagrams } if datagrams.sent > 0) {
            self.sent.insert((flow.network.address, flow.network.port));
        }
    }

    /// Whether datagrams were sent to a peer, or may have been.
    fn has_sent(&self, address: IpAddr, port: u16) -> bool {
        self.flows_lost > 0 || self.sent.contains(&(address, port))
    }

    /// Whether this is a UDP socket that was connected and sent nothing, at port 0 or where the policy lets TCP connect.
    fn sorts(&self, one: &Seen) -> bool {
        let is_idle = one.op == "connect" && one.protocol == "udp" && !self.has_sent(one.address, one.port);
        is_idle && (one.port == 0 || self.by_tcp.contains(&(one.address, one.port)))
    }

    fn peer(&mut self, event: &Event, network: &Network) {
        let Network { address, port, local_port, ref protocol, .. } = *network;
        let seen = Seen {
            op: event.op.to_string(),
            protocol: protocol.clone(),
            address,
            port,
            local_port,
            own: event.cause.rule == OWN,
            chosen: !event.hook.starts_with("bind"),
        };
        self.network.entry(seen).or_default().insert(event.process.comm.clone());
    }

    fn call(&mut self, event: &Event, call: &Call) {
        let remedy = event.cause.reason.as_deref().and_then(|reason| reason.strip_prefix("to allow it: "));
        let remedy: Option<Value> = remedy.and_then(|text| serde_json::from_str(text).ok());
        let Some(section) = remedy.as_ref().and_then(|remedy| remedy["process"].as_object()) else {
            self.left_out.insert(format!("{}: no policy allows it", call.name));
            return;
        };
        let words = section.iter().flat_map(|(key, words)| {
            words
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(move |word| Some((key.clone(), word.as_str()?.to_owned())))
        });
        let words: Vec<(String, String)> = words.collect();
        if let Some((_, word)) = words.iter().find(|(_, word)| NEVER.contains(&&**word)) {
            let path = call.path.as_ref().map_or_else(String::new, |path| format!(" of {path}"));
            self.left_out.insert(format!(
                "{}{path}: a command can get out by \"{word}\"; if it needs that, add it: {}",
                call.name,
                remedy.as_ref().map(ToString::to_string).unwrap_or_default()
            ));
            return;
        }
        for (key, word) in words {
            self.process.entry(key).or_default().entry(word).or_default().insert(call.name.to_string());
        }
    }

    /// The policy, for the command of those words. `addresses` says which addresses a name has now.
    #[must_use]
    pub fn policy(&self, command: &[String], unix: UnixSockets, addresses: &dyn Fn(&str) -> Vec<IpAddr>) -> Learnt {
        self.learnt(unix, addresses, |network, has_unix| write::policy(self, command, network, has_unix))
    }

    /// The policy of that text, with what was learnt by [`Learner::add_to`] at the end of its sections.
    #[must_use]
    pub fn update(&self, text: &str, unix: UnixSockets, addresses: &dyn Fn(&str) -> Vec<IpAddr>) -> Learnt {
        // A text that was parsed as a policy can be added to.
        let update = |network: &[_], has_unix| update::update(self, network, has_unix, text);
        self.learnt(unix, addresses, |network, has_unix| update(network, has_unix).unwrap_or_else(|| text.to_owned()))
    }

    fn learnt(
        &self,
        unix: UnixSockets,
        addresses: &dyn Fn(&str) -> Vec<IpAddr>,
        write: impl FnOnce(&[network::Rule], bool) -> String,
    ) -> Learnt {
        let mut left_out = self.left_out.clone();
        if self.lost > 0 {
            left_out.insert(format!("{} requests were of too many kinds to be recorded one by one", self.lost));
        }
        let has_unix = match unix {
            UnixSockets::ByPath => true,
            UnixSockets::Any => self.unix.is_empty(),
            UnixSockets::Unseen => false,
        };
        if !has_unix {
            left_out
                .insert("Unix sockets: this kernel can't tell whose they are (BPF LSM), so all are allowed".to_owned());
        }
        let mut notes = Vec::new();
        let network = network::rules(self, addresses, &mut left_out, &mut notes);
        notes.extend(self.given_up());
        let nameless = self.unix.keys().filter(|_| has_unix).filter(|path| write::pattern(path).is_none());
        left_out.extend(nameless.map(|path| format!("Unix socket {path}: no rule can name it")));
        for (kind, protocol) in self.sockets.keys() {
            left_out.insert(format!(
                "what sockets {kind} {protocol} send: it is judged packet by packet where such sockets are allowed; add rules for it to the \
                 network section"
            ));
        }
        let text = write(&network, has_unix);
        let summary = write::summary(self, &network, has_unix);
        Learnt { text, summary, notes, left_out: left_out.into_iter().collect() }
    }

    /// What of the process section it needs, for what, and why that is otherwise refused.
    fn given_up(&self) -> Vec<String> {
        let words =
            self.process.iter().flat_map(|(key, words)| words.iter().map(move |(word, calls)| (key, word, calls)));
        let line = |(key, word, calls): (&String, &String, &BTreeSet<String>)| {
            let calls = calls.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let why = hardening::of_word(key, word).map(|why| format!("; it is refused otherwise, since {why}"));
            format!("{key} of process: \"{word}\", which {} needed{}", OneLine(calls), why.unwrap_or_default())
        };
        words.map(line).collect()
    }
}
