//! Events: what was denied, to whom, why, and by which rule, from what the kernel side records.

use std::{fmt, net::IpAddr, sync::Arc};

use common::{
    decision::{
        DEFAULT, FORGED_ANSWER, GROUP_REPORT, LOOPBACK_LEAVES, NAME_TOO_LONG, NAME_UNKNOWN, NEAR_ANSWER, NO_QUERY,
        NO_ROOM_TO_LEARN, NO_SERVER_NAME, NOT_SERVED, OTHER_SERVER, OTHER_VERSION, OWN_HEADERS, OWN_ROUTE, PORT_RANGE,
        RECEIVER_CHOICE, SECRET_NAME, STAYS_HERE, TUNABLE_WRITE, UNJUDGED_SOCKET, UNPARSED_PACKET, UNSEEN_COPY,
    },
    record::{Hook, Key, SEVERAL, Tally},
};
use jiff::Timestamp;
use policy::{
    Mode, Reasons,
    compile::{FoundBy, IMPLIED},
};
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    Call, Clock, Details, Device, Name, Network, Socket, Sockopt, Sysctl, Test, Unix, Word,
    flat::{FlatEvent, FlatProcess},
};

/// One denial, or as many as have the same hook, rule, process and subject. In the log and as a JSON line.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "FlatEvent")]
pub struct Event {
    /// When it was denied first.
    #[serde(serialize_with = "nanoseconds")]
    pub time: Timestamp,
    /// What was asked for: `connect`, `bind`, `send`, `receive`, `resolve`, `unix`, `socket`, `sockopt`, `device`, `sysctl`, `call`.
    pub op: Word,
    /// The hook that judged it; of a `call`, the measure that refuses it.
    pub hook: Word,
    /// Whether it was refused.
    pub verdict: Verdict,
    /// Who asked.
    pub process: Process,
    /// During which test, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Test>,
    /// For what.
    #[serde(flatten)]
    pub subject: Subject,
    /// What decided.
    #[serde(flatten)]
    pub cause: Cause,
    /// How often.
    pub count: u64,
    /// First time.
    #[serde(serialize_with = "nanoseconds")]
    pub first: Timestamp,
    /// Last time.
    #[serde(serialize_with = "nanoseconds")]
    pub last: Timestamp,
}

/// RFC 3339, UTC, always nine digits of a second, so that times sort as text.
///
/// # Errors
///
/// When the serializer fails.
pub fn nanoseconds<S: Serializer>(time: &Timestamp, json: S) -> Result<S::Ok, S::Error> {
    json.collect_str(&format_args!("{time:.9}"))
}

/// Whether a request that the policy denies was refused.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The request was denied.
    Denied,
    /// The request went on, since the policy is in audit mode.
    Audited,
}

impl From<Mode> for Verdict {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Enforce => Self::Denied,
            Mode::Audit => Self::Audited,
        }
    }
}

/// The process that asked.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(from = "FlatProcess")]
pub struct Process {
    /// The process's id, in the initial pid namespace. `None` where there were too many kinds of denials to tell processes apart: all else is
    /// told of the first one then.
    pub pid: Option<u32>,
    /// The process's user, in the initial user namespace.
    pub uid: u32,
    /// The name of its thread.
    pub comm: String,
    /// What /proc told.
    #[serde(flatten)]
    pub details: Arc<Details>,
}

/// What it asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A peer.
    Network(Network),
    /// A host name.
    Name(Name),
    /// A Unix socket.
    Unix(Unix),
    /// A device.
    Device(Device),
    /// A tunable.
    Sysctl(Sysctl),
    /// A socket.
    Socket(Socket),
    /// A socket option.
    Sockopt(Sockopt),
    /// A system call.
    Call(Call),
}

impl Subject {
    /// What was asked for, and apart from it in which ways it was to be used, for subjects of which that can be several.
    #[must_use]
    pub fn name_and_access(&self) -> (String, &str) {
        match self {
            Self::Device(device) => (device.name(), &device.access),
            Self::Sysctl(sysctl) => (sysctl.name.clone(), &sysctl.access),
            other => (other.to_string(), ""),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Name(name) => name.fmt(f),
            Self::Unix(unix) => unix.fmt(f),
            Self::Device(device) => device.fmt(f),
            Self::Sysctl(sysctl) => sysctl.fmt(f),
            Self::Socket(socket) => socket.fmt(f),
            Self::Sockopt(sockopt) => sockopt.fmt(f),
            Self::Call(call) => call.fmt(f),
        }
    }
}

/// What decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// JSON pointer into the policy (`/process` also where it has no such section), `default`, or `fail-closed` for what could not be judged.
    pub rule: String,
    /// Why it could not be judged, what to write to allow it, or what the policy says of the rule or the default. Of an address that
    /// was found by a name, first what that name is allowed instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Word>,
}

impl Cause {
    /// The cause with what the policy says of it. What could not be judged has a reason already.
    #[must_use]
    pub fn with(mut self, given: Option<&str>) -> Self {
        self.reason = self.reason.or_else(|| given.map(|reason| Word::Owned(reason.to_owned())));
        self
    }

    /// What the policy says of the rule or the default that decided. What could not be judged, or is refused beside the rules, has
    /// reasons of guard-run's.
    #[must_use]
    pub fn given(&self) -> Option<&str> {
        let by_rules = !matches!(&*self.rule, "fail-closed" | "/process");
        self.reason.as_deref().filter(|_| by_rules)
    }

    /// What decided in a section, by the number that `decide()` gives.
    #[must_use]
    pub fn new(section: &str, rule: u16) -> Self {
        let reason = match rule {
            DEFAULT => return Self { rule: "default".to_owned(), reason: None },
            IMPLIED => {
                let reason = "rules with host names imply it: resolvers take a port that the kernel chooses, and ask the nameservers";
                return Self { rule: "implied".to_owned(), reason: Some(Word::Borrowed(reason)) };
            }
            NAME_TOO_LONG => "the name is too long to be judged",
            UNJUDGED_SOCKET => {
                "no hook judges where such a socket sends to, and the network section denies some of it; to allow it, \
                 name its type or protocol in a rule of the sockets section: its packets are judged then"
            }
            PORT_RANGE => "the network section restricts bind, and this option chooses ports without it",
            RECEIVER_CHOICE => {
                "a rule of the network section is about the sandbox's own sockets, and a program that this option sets \
                 could choose another one's at the same port"
            }
            OWN_HEADERS => {
                "such a packet goes to the neighbour of the address that sendto names, whatever its own header says, and rules tell hosts \
                 apart; to allow it all the same, name protocol 255 in a rule of the sockets section"
            }
            OWN_ROUTE => {
                "the option gives packets a route of their own, which the kernel can keep for others that don't say it, or any source; and rules \
                 tell hosts apart"
            }
            STAYS_HERE => {
                "the packet stays on this host, and goes to another address than the one that it comes from: it is judged as what goes to loopback at \
                 that port, which is denied"
            }
            GROUP_REPORT => {
                "joining a group tells all routers of the network which one (IGMP, MLD), and the network section denies to send to them \
                 (224.0.0.22, ff02::16) and to the group"
            }
            UNSEEN_COPY => {
                "IPv4 hands this host's own sockets a copy of what goes to a group or as a broadcast, and no hook sees it; so where rules tell \
                 hosts apart, a raw socket can't send datagrams, and a socket that may send to several can't have another peer once it is or was \
                 connected: use another socket"
            }
            UNPARSED_PACKET => {
                "the packet has a route of its own, is a fragment, or its headers don't tell all that rules may ask for"
            }
            LOOPBACK_LEAVES => {
                "the packet is for a loopback address, but leaves by another device, where anybody may answer"
            }
            OTHER_VERSION => {
                "the packet is of another version of IP than the address that the socket is connected to, so it goes elsewhere"
            }
            NOT_SERVED => "the socket listens at a port that the kernel chose and that it may not have",
            NO_QUERY => {
                "what goes to a nameserver must be one query for a host name that a rule allows, and nothing else; to let all queries \
                 pass, write \"queries\": \"any\" into the network section"
            }
            NEAR_ANSWER => {
                "the answer says an address of this host, of a private network or the like, which counts only where a rule with this name says \
                 \"private\": true, or of a cloud's metadata, which never does"
            }
            NO_ROOM_TO_LEARN => "so many addresses were learnt that there is no room for those in this answer",
            OTHER_SERVER => {
                "the TLS connection is for another server than those whose names allow this address; to allow it, write its name into a rule"
            }
            NO_SERVER_NAME => {
                "only rules with \"tls\" allow this connection, and it does not begin with a TLS ClientHello that names one server"
            }
            SECRET_NAME => {
                "a rule with \"tls\" has this name, and such a record could tell how to keep secret which server a connection is for (ECH)"
            }
            FORGED_ANSWER => "the packet comes from inside, but from the address and port of a nameserver",
            TUNABLE_WRITE => {
                return Self {
                    rule: "/process".to_owned(),
                    reason: Some(Word::Borrowed(
                        "tunables are written only where a rule of the sysctls section allows it, \
                         or \"process\": {\"allow\": [\"sysctls\"]}",
                    )),
                };
            }
            NAME_UNKNOWN => "it could not be found out whose socket it is",
            rule => return Self { rule: format!("/{section}/rules/{rule}"), reason: None },
        };
        Self { rule: "fail-closed".to_owned(), reason: Some(reason.into()) }
    }
}

/// A subject of denials, as the kernel side records it.
pub trait Recorded {
    /// The section of the policy that judges it.
    const SECTION: &'static str;
    /// What was asked for.
    fn op(&self) -> &'static str;
    /// For people and programs.
    fn describe(&self, names: &impl Names) -> Subject;
    /// Why no rule is about it, if that can be told.
    fn reason(&self, _names: &impl Names) -> Option<String> {
        None
    }
}

/// Names that the machine on which something was denied has for what the kernel side records as numbers.
pub trait Names {
    /// The node of a device below /dev, such as `null`, by its type (`block` or `char`) and numbers.
    fn device(&self, class: &str, major: u32, minor: u32) -> Option<String>;
    /// The host that the command found by this address, if a nameserver or /etc/hosts said so.
    fn host(&self, address: IpAddr) -> Option<FoundBy>;
}

/// The name of a thread, as the kernel side records it.
#[must_use]
pub fn comm(words: [u64; 2]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The id of a process, where it is one's.
fn process_id(pid: u32) -> Option<u32> {
    (pid != SEVERAL).then_some(pid)
}

impl Event {
    /// The event of a key and its tally.
    #[must_use]
    pub fn new<S: Recorded>(
        key: &Key<S>,
        tally: &Tally,
        details: Arc<Details>,
        clock: &Clock,
        guard: (Verdict, &Reasons),
        names: &impl Names,
    ) -> Self {
        let (verdict, reasons) = guard;
        let time = clock.time(tally.first);
        let hint = if key.rule == DEFAULT { key.subject.reason(names) } else { None };
        let given = [hint.as_deref(), reasons.of(S::SECTION, key.rule)].into_iter().flatten().collect::<Vec<_>>();
        let given = Some(given.join("; ")).filter(|given| !given.is_empty());
        Self {
            time,
            op: key.subject.op().into(),
            hook: Hook::from_number(key.hook).map_or("unknown", Hook::name).into(),
            verdict,
            process: Process { pid: process_id(key.pid), uid: tally.uid, comm: comm(tally.comm), details },
            test: None,
            subject: key.subject.describe(names),
            cause: Cause::new(S::SECTION, key.rule).with(given.as_deref()),
            count: tally.count,
            first: time,
            last: clock.time(tally.last),
        }
    }
}
