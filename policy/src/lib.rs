//! The policy, as its JSON file says it: parsed into types that can't hold nonsense.
//!
//! Every check happens here, while parsing, so that an error can name the place in the file. What these types hold is
//! what the user meant. [`Policy::resolve`] then looks up what depends on the machine, and [`compile`] turns the
//! result into lookup tables.
#![forbid(unsafe_code)]

pub mod compile;
mod device;
mod document;
mod error;
mod glob;
mod host;
mod include;
mod name;
mod net;
mod option;
mod port;
mod process;
mod reasons;
mod resolve;
mod section;
mod set;
mod socket;
mod sockopt;
pub mod strict;
mod surroundings;
mod sysctl;
pub mod text;
mod unix;

use std::sync::Arc;

use common::RuleSet;
use serde::{Deserialize, Serialize};

pub use device::{Access as DeviceAccess, DeviceRule, Node as DeviceNode, letters as access_letters};
pub use document::Document;
pub use error::{PolicyError, did_you_mean};
pub use glob::{Glob, Token};
pub use host::{Host, Prefix, display_address, shared_space};
pub use include::{Files, NoFiles, Origin};
pub use name::HostName;
pub use net::{MAX_NAMESERVERS, NetRule, NetSection, Op, Protocol, Queries};
pub use option::{level_names, option_names};
pub use port::PortRange;
pub use process::{Architecture, Isolation, KeptCapability, Part, ProcessSection, SocketFamily};
pub use reasons::Reasons;
pub use resolve::{Machine, Resolved};
pub use section::{Action, Rule, Section};
pub use socket::{Family, SocketProtocol, SocketRule, SocketType, protocol_name};
pub use sockopt::{Level, LevelOption, SockoptRule, parse_sockopt};
pub use surroundings::Surroundings;
pub use sysctl::{Pattern, SysctlRule, canonical_name};
pub use unix::{SocketPattern, UnixRule};

use set::Sets;

/// A whole policy.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// For editors; guard-run does not look at it.
    #[serde(rename = "$schema", default, skip_serializing)]
    #[allow(dead_code)]
    schema: String,
    version: Version,
    /// What it is for, in a few words, for people.
    #[serde(default, deserialize_with = "section::present", skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Why it is as it is, for anybody who meets a rule or a default without a reason of its own.
    #[serde(default, deserialize_with = "section::reason", skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether denials are enforced or only recorded.
    #[serde(default)]
    pub mode: Mode,
    /// What is recorded.
    #[serde(default, skip_serializing_if = "Recording::is_default")]
    pub record: Recording,
    /// Files whose rules come before those of this one.
    #[serde(default, deserialize_with = "section::non_empty", skip_serializing)]
    include: Option<Vec<String>>,
    /// Hosts by names for rules.
    #[serde(default, deserialize_with = "set::sets", skip_serializing)]
    sets: Sets,
    /// Which rules are of which file, if there are several.
    #[serde(skip)]
    pub origins: Vec<Origin>,
    /// The files that it includes, directly or not.
    #[serde(skip)]
    pub included: Vec<Arc<Document>>,
    /// Rules on the network.
    #[serde(default, deserialize_with = "section::present", skip_serializing_if = "Option::is_none")]
    pub network: Option<NetSection>,
    /// Rules on Unix sockets.
    #[serde(default, deserialize_with = "section::present", skip_serializing_if = "Option::is_none")]
    pub unix: Option<Section<UnixRule>>,
    /// Rules on device nodes.
    #[serde(default, deserialize_with = "section::present", skip_serializing_if = "Option::is_none")]
    pub devices: Option<Section<DeviceRule>>,
    /// Rules on kernel tunables.
    #[serde(default, deserialize_with = "section::present", skip_serializing_if = "Option::is_none")]
    pub sysctls: Option<Section<SysctlRule>>,
    /// Rules on making sockets.
    #[serde(default, deserialize_with = "section::present", skip_serializing_if = "Option::is_none")]
    pub sockets: Option<Section<SocketRule>>,
    /// Rules on socket options. Advisory: there are ways round them.
    #[serde(default, deserialize_with = "section::present", skip_serializing_if = "Option::is_none")]
    pub sockopts: Option<Section<SockoptRule>>,
    /// What keeps the command inside beside these rules.
    #[serde(default, deserialize_with = "process::section")]
    pub process: ProcessSection,
}

impl Policy {
    /// The name of each section with rules, and those of its rules whose denials are counted, and not reported.
    #[must_use]
    pub fn unreported(&self) -> [(&'static str, RuleSet); 6] {
        fn of<R: Rule>(section: Option<&Section<R>>) -> RuleSet {
            section.map_or(RuleSet::NONE, Section::unreported)
        }
        [
            ("network", of(self.network.as_deref())),
            ("unix", of(self.unix.as_ref())),
            ("devices", of(self.devices.as_ref())),
            ("sysctls", of(self.sysctls.as_ref())),
            ("sockets", of(self.sockets.as_ref())),
            ("sockopts", of(self.sockopts.as_ref())),
        ]
    }
}

section::words! {
    /// What happens to a request that the policy denies.
    #[derive(Default)]
    pub enum Mode {
        /// What the policy denies is refused and recorded.
        #[default]
        Enforce = "enforce",
        /// What the policy denies goes on, and is recorded as what would have been refused.
        Audit = "audit",
    }
}

section::words! {
    /// What is recorded.
    #[derive(Default)]
    pub enum Recording {
        /// What is denied.
        #[default]
        Denials = "denials",
        /// And what is reached: connections and datagrams, counted.
        Flows = "flows",
    }
}

impl Recording {
    // By reference, as serde asks.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The version of the policy language: 1, the only one there is.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(try_from = "u64", into = "u64")]
struct Version;

impl TryFrom<u64> for Version {
    type Error = String;

    fn try_from(version: u64) -> Result<Self, String> {
        match version {
            1 => Ok(Self),
            other => Err(format!("this guard-run knows policy version 1 only, not {other}")),
        }
    }
}

impl From<Version> for u64 {
    fn from(_: Version) -> Self {
        1
    }
}
