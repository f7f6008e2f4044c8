//! Reading logs, of any size: a log is read from its beginning to its end, and of its events one at a time is in memory.
//!
//! What is read is a log (one JSON document), events as `--events` writes them (one document for each), or several of these
//! one after the other.

use std::{
    collections::HashMap,
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, BufReader},
    marker::PhantomData,
};

use jiff::Timestamp;
use policy::strict::{self, Strict};
use report::{Container, Event, Exit, Flow, Hardening, HookCounts, Inherited, PolicySource, SCHEMA, User};
use serde::{
    Deserialize, Deserializer as _,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{
    Deserializer, Map, Value,
    de::{IoRead, Read},
    error::Category,
};

/// One record of a log.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Something was denied, or would have been.
    Event(Event),
    /// Something was reached.
    Flow(Flow),
}

/// What a log says beside its records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Head {
    /// The command with its arguments, where it is known.
    pub command: Option<Vec<String>>,
    /// The container, in a container's log.
    pub container: Option<Container>,
    /// How the command ended. `None` for a container.
    pub exit: Option<Exit>,
    /// When the command or container was started.
    pub started: Option<Timestamp>,
    /// When the last process had ended.
    pub ended: Option<Timestamp>,
    /// The policy.
    pub policy: Option<PolicySource>,
    /// What was enforced. `None` where the log doesn't say.
    pub enforced: Option<Enforced>,
    /// What kept a command inside beside the programs. `None` for a container.
    pub hardening: Option<Hardening>,
    /// Denials that are in no event.
    pub lost: u64,
    /// Connections and datagrams that are in no flow.
    pub flows_lost: u64,
}

/// Why a log can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is nothing.
    #[error("nothing is in it; a log of guard-run is a JSON document, and events are one for each line")]
    Empty,
    /// The log is not all there.
    #[error("line {line}: it ends in the middle; it was cut, or somebody still writes it")]
    Cut {
        /// The line, from 1, at which it ends.
        line: usize,
    },
    /// The file is no JSON.
    #[error("line {line}, column {column}: not JSON, and so no log of guard-run")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// The file is JSON, but no log.
    #[error("line {line}: {message}")]
    Foreign {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// Reading failed.
    #[error(transparent)]
    Input(#[from] io::Error),
}

impl From<serde_json::Error> for ReadError {
    fn from(error: serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        match error.classify() {
            Category::Io => Self::Input(error.into()),
            Category::Eof => Self::Cut { line },
            Category::Syntax => Self::Syntax { line, column },
            Category::Data => {
                let message = error.to_string();
                let end = message.rfind(" at line ").unwrap_or(message.len());
                Self::Foreign { line, message: message[..end].to_owned() }
            }
        }
    }
}

/// Reads logs from a file, a pipe or the like, and hands `each` record over. Returns what each log says beside its records: nothing
/// for events alone.
///
/// # Errors
///
/// When the input can't be read, is no log, or one of a version that is not known. Some records may have been handed over by then.
pub fn read_from(input: impl io::Read, each: &mut dyn FnMut(Record)) -> Result<Vec<Head>, ReadError> {
    read(IoRead::new(BufReader::with_capacity(1 << 16, input)), each)
}

/// Reads logs as [`read_from`] does, from what JSON can be read from: [`serde_json::de::SliceRead`] is faster than a file.
///
/// # Errors
///
/// Those of [`read_from`].
pub fn read<'de>(input: impl Read<'de>, each: &mut dyn FnMut(Record)) -> Result<Vec<Head>, ReadError> {
    let mut json = Deserializer::new(input);
    let (mut heads, mut told) = (Vec::new(), HashMap::new());
    let mut any = false;
    loop {
        match json.end() {
            Ok(()) => break,
            // What comes next, reading it says.
            Err(error) if error.classify() == Category::Io => return Err(error.into()),
            Err(_) => {}
        }
        heads.extend(Strict(&mut json).deserialize_map(Document { each, told: &mut told })?);
        any = true;
    }
    if any { Ok(heads) } else { Err(ReadError::Empty) }
}

/// One document: a log, or an event.
struct Document<'a> {
    each: &'a mut dyn FnMut(Record),
    /// How often each event was denied when it was told last, by a hash of what it is about.
    told: &'a mut HashMap<u64, u64>,
}

/// The keys of an event. One with a further key is an event all the same.
const OF_EVENT: [&str; 19] = [
    "time", "op", "hook", "verdict", "process", "test", "network", "name", "unix", "device", "sysctl", "socket",
    "sockopt", "call", "rule", "reason", "count", "first", "last",
];

/// The key of what says how many denials are not told of in a file for which they were too many ([`crate::Explained`]).
pub const DROPPED: &str = "dropped";

/// The keys of a log that say that it is one.
const OF_LOG: [&str; 14] = [
    DROPPED,
    "schema",
    "command",
    "container",
    "user",
    "exit",
    "started",
    "ended",
    "policy",
    "enforced",
    "lost",
    "events",
    "flows",
    "flows_lost",
];

impl<'de> Visitor<'de> for Document<'_> {
    type Value = Option<Head>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a log of guard-run, or one of its events")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Option<Head>, A::Error> {
        let Self { each, told } = self;
        let (mut head, mut schema, mut event) = (Head::default(), None, Map::new());
        let (mut is_log, mut is_policy) = (None, false);
        while let Some(key) = entries.next_key::<String>()? {
            let log = *is_log.get_or_insert(OF_LOG.contains(&&*key));
            if !log {
                if !event.is_empty() || OF_EVENT.contains(&&*key) {
                    if OF_EVENT.contains(&&*key) {
                        event.insert(key, entries.next_value()?);
                    } else {
                        is_policy |= is_of_policy(&key);
                        entries.next_value::<IgnoredAny>()?;
                    }
                    continue;
                }
                if is_of_policy(&key) {
                    return Err(A::Error::custom(POLICY));
                }
                return Err(A::Error::custom("this is JSON, but neither a log of guard-run nor one of its events"));
            }
            match &*key {
                "schema" => schema = Some(known(&entries.next_value()?).map_err(A::Error::custom)?),
                "command" => head.command = entries.next_value()?,
                "container" => head.container = entries.next_value()?,
                "exit" => head.exit = entries.next_value()?,
                "started" => head.started = entries.next_value()?,
                "ended" => head.ended = entries.next_value()?,
                "policy" => head.policy = entries.next_value()?,
                "enforced" => {
                    let enforced: Enforced = entries.next_value()?;
                    head.hardening = hardening(&enforced.hardening).map_err(A::Error::custom)?;
                    head.enforced = Some(enforced);
                }
                "lost" => head.lost = entries.next_value()?,
                DROPPED => (head.lost, schema) = (entries.next_value()?, Some(())),
                "flows_lost" => head.flows_lost = entries.next_value::<Option<_>>()?.unwrap_or_default(),
                // Nobody asks for it here, but what has another one is no log.
                "user" => drop(entries.next_value::<Option<User>>()?),
                "events" => entries.next_value_seed(Each::new(|event| each(Record::Event(event))))?,
                "flows" => entries.next_value_seed(Each::new(|flow| each(Record::Flow(flow))))?,
                _ => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        if is_log == Some(true) {
            return schema.map(|()| Some(head)).ok_or_else(|| {
                A::Error::custom("this is no log of guard-run, which says the version of its format as \"schema\"")
            });
        }
        let mut event: Event = strict::from_value(Value::Object(event)).map_err(|error| {
            let foreign = format!("this is no event of guard-run: {error}");
            A::Error::custom(if is_policy { POLICY } else { &foreign })
        })?;
        if let Some(more) = further(told, &event) {
            event.count = more;
            each(Record::Event(event));
        }
        Ok(None)
    }
}

/// What to say of a policy in a log's place.
const POLICY: &str = "this is a policy of guard-run, and no log";

/// Whether policies have a key, and neither logs nor events do.
fn is_of_policy(key: &str) -> bool {
    ["version", "$schema"].contains(&key)
}

/// Whether this version of a log's format can be read.
fn known(schema: &Value) -> Result<(), String> {
    if *schema == SCHEMA {
        return Ok(());
    }
    let shown = schema.to_string();
    let shown = if schema.is_number() { &shown } else { "that is no number" };
    Err(format!(
        "a log of schema {shown}: this guard-run reads schema {SCHEMA}; read it with the guard-run that wrote it"
    ))
}

/// What kept a command inside. A container's log has a word in its place.
fn hardening(json: &Value) -> serde_json::Result<Option<Hardening>> {
    if json.is_string() || json.is_null() { Ok(None) } else { strict::from_value(json.clone()).map(Some) }
}

/// How often an event that is told by itself was denied since it was told last. `None` where that is never.
fn further(told: &mut HashMap<u64, u64>, event: &Event) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    (&event.hook, event.process.pid, event.first, &event.cause.rule, event.subject.to_string()).hash(&mut hasher);
    let before = told.insert(hasher.finish(), event.count);
    event.count.checked_sub(before.unwrap_or(0)).filter(|more| *more > 0)
}

/// What was enforced, as a command's or a container's log says it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Enforced {
    /// The kernel's release.
    pub kernel: Option<String>,
    /// The programs, and what each of them has done. `None` where the log doesn't say.
    pub hooks: Option<Vec<HookCounts>>,
    /// Sections that the policy leaves out and that restrict nothing.
    #[serde(default)]
    pub unrestricted: Vec<String>,
    /// Sockets and devices that a command was handed.
    #[serde(default)]
    pub inherited: Vec<Inherited>,
    /// Capabilities by which a container could evade its policy.
    #[serde(default)]
    pub accepted_capabilities: Vec<String>,
    /// Whether what an engine executed in a container after its start was guarded.
    pub exec: Option<bool>,
    /// A container's is a word.
    #[serde(default)]
    hardening: Value,
}

/// A list of which each element is handed over.
struct Each<T, F>(F, PhantomData<T>);

impl<T, F: FnMut(T)> Each<T, F> {
    fn new(each: F) -> Self {
        Self(each, PhantomData)
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T)> DeserializeSeed<'de> for Each<T, F> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T)> Visitor<'de> for Each<T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element()? {
            (self.0)(element);
        }
        Ok(())
    }

    /// There are no flows where they were not to be recorded.
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }
}
