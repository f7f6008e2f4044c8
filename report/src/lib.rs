//! What guard-run reports: events, flows and logs, as types that are written and read back, and the text for people.
//!
//! What the kernel side records is mapped to these types here. Collecting the records (maps, /proc, /sys) is somebody else's
//! business: this crate opens no file.
#![forbid(unsafe_code)]

mod call;
mod clock;
mod container;
mod device;
mod event;
mod flat;
mod flow;
mod hardening;
mod inherited;
mod log;
mod name;
mod net;
mod process;
mod socket;
mod sockopt;
mod sysctl;
pub mod test;
mod unix;

use std::borrow::Cow;

pub use policy::text;

pub use call::{Call, Refusal};
pub use clock::Clock;
pub use container::{Container, ContainerMeasures, ContainerRun};
pub use device::Device;
pub use event::{Cause, Event, Names, Process, Recorded, Subject, Verdict, comm, nanoseconds};
pub use flow::{Extent, Flow, Transfer};
pub use hardening::{Hardening, InForce, Observed};
pub use inherited::{Inherited, Object};
pub use log::{
    CommandMeasures, CommandRun, Enforced, Exit, Guarded, HookCounts, IncludedFile, LOG_FOLDER, Log, PolicySource,
    ProgramIdentity, SCHEMA, User,
};
pub use name::Name;
pub use net::Network;
pub use process::{Details, Parent};
pub use socket::Socket;
pub use sockopt::{NameOrNumber, Sockopt, Value};
pub use sysctl::Sysctl;
pub use test::{Test, Traces};
pub use unix::Unix;

/// A word of the log's language, such as `connect` or `denied`.
pub type Word = Cow<'static, str>;
