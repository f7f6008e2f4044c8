//! The network section and its rules.

use std::{net::IpAddr, ops::Deref};

use common::{name::PORT, net};
use serde::{Deserialize, Serialize};

use super::{
    Action, Host, HostName, PortRange, Prefix, Rule, Section,
    host::serialize_hosts,
    section::{is_reported, non_empty, reason, reported, words},
};

/// The most nameservers that a policy can have.
pub const MAX_NAMESERVERS: usize = common::name::NAMESERVERS;

/// The network section: rules, and how names in them come by their addresses.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(from = "SectionKeys")]
pub struct NetSection {
    /// Default and rules.
    #[serde(flatten)]
    section: Section<NetRule>,
    /// Whom names are asked of, where that isn't what /etc/resolv.conf says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nameservers: Option<Vec<IpAddr>>,
    /// What may be asked.
    #[serde(skip_serializing_if = "Queries::is_default")]
    pub queries: Queries,
}

/// The section as it is written. (Keys that are unknown can be refused only where all are listed.)
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SectionKeys {
    default: Action,
    #[serde(default = "Vec::new", deserialize_with = "super::section::rules")]
    rules: Vec<NetRule>,
    #[serde(default, deserialize_with = "non_empty")]
    nameservers: Option<Vec<IpAddr>>,
    #[serde(default)]
    queries: Queries,
    #[serde(default, deserialize_with = "reason")]
    reason: Option<String>,
}

words! {
    /// What may be asked of nameservers.
    #[derive(Default)]
    pub enum Queries {
        /// Names of the policy.
        #[default]
        Named = "named",
        /// Anything.
        Any = "any",
    }
}

impl Queries {
    #[allow(clippy::trivially_copy_pass_by_ref)] // as serde asks
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Deref for NetSection {
    type Target = Section<NetRule>;

    fn deref(&self) -> &Section<NetRule> {
        &self.section
    }
}

impl NetSection {
    /// Adds the rules of another section behind those that are there, and what else that says.
    pub(super) fn append(&mut self, other: Self) -> Result<(), String> {
        let Self { section, nameservers, queries } = other;
        self.nameservers = nameservers.or_else(|| self.nameservers.take());
        if queries != Queries::default() {
            self.queries = queries;
        }
        self.section.append(section)
    }

    /// The rules, to be changed.
    pub(super) fn rules_mut(&mut self) -> &mut [NetRule] {
        &mut self.section.rules
    }

    /// Whether any rule has a name of a host.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.rules.iter().any(NetRule::has_names)
    }

    /// Whether nameservers may be asked for any name: all of them, or one on this host, which asks others in turn.
    #[must_use]
    pub fn lets_names_be_asked_for(&self) -> bool {
        self.default == Action::Allow || self.rules.iter().any(NetRule::lets_names_be_asked_for)
    }

    /// Why this doesn't mean what it seems to, if it doesn't. Which hosts a rule has must be known.
    pub(super) fn nonsense(&self) -> Option<String> {
        let written = self.nameservers.as_ref();
        if let Some(nameservers) = written.filter(|nameservers| nameservers.len() > MAX_NAMESERVERS) {
            return Some(format!("{} nameservers, of which there can be {MAX_NAMESERVERS}", nameservers.len()));
        }
        if !self.has_names() && (written.is_some() || self.queries == Queries::Any) {
            return Some("\"nameservers\" and \"queries\" mean nothing where no rule has a host name".to_owned());
        }
        if let Some(place) = self.rules.iter().position(|rule| rule.tls)
            && self.default == Action::Allow
        {
            return Some(format!(
                "rules/{place}: where everything is allowed by default, \"tls\" would keep nobody from anything; deny by default"
            ));
        }
        let refuses = |rule: &NetRule| rule.action == Action::Deny && rule.has_names();
        let first = self.rules.iter().position(refuses)?;
        let opens = |rule: &&NetRule| rule.action == Action::Allow && rule.is_everywhere();
        let place = format!("rules/{first}: a rule that denies names");
        if self.default == Action::Allow || self.rules[first..].iter().any(|rule| opens(&rule)) {
            return Some(format!(
                "{place} would keep nobody from their addresses, which are allowed; deny by default, or deny addresses"
            ));
        }
        let narrow = self.rules.iter().position(|rule| refuses(rule) && !rule.is_for_everything())?;
        Some(format!(
            "rules/{narrow}: a rule that denies names keeps them from being resolved, whatever for; \
             leave out its \"ops\", \"protocols\" and \"ports\""
        ))
    }
}

impl From<SectionKeys> for NetSection {
    fn from(keys: SectionKeys) -> Self {
        let SectionKeys { default, rules, nameservers, queries, reason } = keys;
        Self { section: Section { default, rules, reason }, nameservers, queries }
    }
}

/// A rule on network requests. What is `None` holds for all.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "RuleKeys")]
pub struct NetRule {
    /// What happens to the requests that match.
    pub action: Action,
    /// Whether what it denies is reported.
    #[serde(skip_serializing_if = "is_reported")]
    pub report: bool,
    /// Operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<Vec<Op>>,
    /// Transport protocols.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<Protocol>>,
    /// Peers; for bind, the socket's own address.
    #[serde(serialize_with = "serialize_hosts", skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<Host>>,
    /// The peers' ports; for bind, the socket's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<PortRange>>,
    /// The socket's own ports, of a rule on what is received and nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_ports: Option<Vec<PortRange>>,
    /// Whether its names may lead to this host, to private networks and the like.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
    /// Why it is there, for anybody who meets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it allows only TLS connections to servers of its names.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleKeys {
    action: Action,
    #[serde(default = "reported")]
    report: bool,
    #[serde(default, deserialize_with = "non_empty")]
    ops: Option<Vec<Op>>,
    #[serde(default, deserialize_with = "non_empty")]
    protocols: Option<Vec<Protocol>>,
    #[serde(default, deserialize_with = "non_empty")]
    hosts: Option<Vec<Host>>,
    #[serde(default, deserialize_with = "non_empty")]
    ports: Option<Vec<PortRange>>,
    #[serde(default, deserialize_with = "non_empty")]
    local_ports: Option<Vec<PortRange>>,
    #[serde(default)]
    private: bool,
    #[serde(default, deserialize_with = "reason")]
    reason: Option<String>,
    #[serde(default)]
    tls: bool,
}

impl TryFrom<RuleKeys> for NetRule {
    type Error = String;

    fn try_from(keys: RuleKeys) -> Result<Self, String> {
        let RuleKeys { action, report, ops, protocols, hosts, ports, local_ports, private, reason, tls } = keys;
        if let Some(local) = &local_ports {
            if !ops.iter().flatten().all(|op| *op == Op::Receive) || ops.is_none() {
                return Err("\"local_ports\" is only for what is received; write \"ops\": [\"receive\"]".to_owned());
            }
            if local.iter().any(|range| range.last() == net::EPHEMERAL) {
                return Err("nothing is received at port 0 (\"ephemeral\"); leave it out of \"local_ports\"".to_owned());
            }
        }
        Ok(Self { action, report, ops, protocols, hosts, ports, local_ports, private, reason, tls })
    }
}

impl NetRule {
    /// Why this doesn't mean what it seems to, if it doesn't. Which hosts it has must be known.
    pub(super) fn nonsense(&self) -> Option<&'static str> {
        let passive = |op: &Op| matches!(op, Op::Bind | Op::Receive);
        if self.has_names() && self.ops.iter().flatten().any(passive) {
            return Some(
                "host names say whom the command connects or sends to; for \"bind\" and \"receive\", write a rule of its own with \
                 addresses",
            );
        }
        if self.private && (!self.has_names() || self.action == Action::Deny) {
            return Some("\"private\" is for rules that allow host names");
        }
        if !self.report && self.has_names() {
            return Some(
                "a denied name is refused as one that no rule has, and reported as that; leave out \"report\": false, or write a rule \
                 without host names",
            );
        }
        if self.tls { self.is_no_tls() } else { None }
    }

    /// The names in this rule.
    pub fn names(&self) -> impl Iterator<Item = &HostName> {
        self.hosts.iter().flatten().filter_map(|host| match host {
            Host::Name(name) => Some(name),
            _ => None,
        })
    }

    /// Whether this rule has a name of a host.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.names().next().is_some()
    }

    /// Whether it allows asking nameservers for any name: everywhere, or on loopback.
    fn lets_names_be_asked_for(&self) -> bool {
        let asks = |ops: &Vec<Op>| ops.iter().any(|op| [Op::Connect, Op::Send].contains(op));
        let carries = |protocols: &Vec<Protocol>| protocols.iter().any(|protocol| *protocol != Protocol::Icmp);
        let is_port = |ports: &Vec<PortRange>| ports.iter().any(|ports| (ports.first()..=ports.last()).contains(&PORT));
        let is_stub = |host: &Host| host.networks().contains(&Prefix::LOOPBACK_V4);
        self.action == Action::Allow
            && self.ops.as_ref().is_none_or(asks)
            && self.protocols.as_ref().is_none_or(carries)
            && self.ports.as_ref().is_none_or(is_port)
            && (self.is_everywhere() || self.hosts.iter().flatten().any(is_stub))
    }

    /// Whether it holds for every host there is.
    #[must_use]
    pub fn is_everywhere(&self) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        let named = |family| hosts.iter().any(|host| host.networks().contains(&family));
        named(Prefix::ALL_V4) && named(Prefix::ALL_V6)
    }

    /// Why it can't be about TLS, if it can't.
    fn is_no_tls(&self) -> Option<&'static str> {
        let other = |host: &Host| !matches!(host, Host::Name(_));
        if self.action == Action::Deny || !self.has_names() {
            return Some("\"tls\" is for rules that allow host names");
        }
        if self.hosts.iter().flatten().any(other) {
            return Some("by \"tls\", a server is told by its name; for addresses, write a rule of its own");
        }
        let by_tcp = self.protocols.as_ref().is_none_or(|all| *all == [Protocol::Tcp]);
        let connects = self.ops.as_ref().is_none_or(|all| *all == [Op::Connect]);
        (!by_tcp || !connects).then_some(
            "\"tls\" allows connections by TCP alone, and QUIC is none; leave out \"protocols\" and \"ops\", or write a rule of its own for the \
             others",
        )
    }

    /// Whether it holds for all that can be done with its hosts.
    const fn is_for_everything(&self) -> bool {
        self.ops.is_none() && self.protocols.is_none() && self.ports.is_none() && self.local_ports.is_none()
    }
}

impl Rule for NetRule {
    fn action(&self) -> Action {
        self.action
    }

    fn reports(&self) -> bool {
        self.report
    }

    fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

words! {
    /// What a process wants to do with the network.
    pub enum Op {
        /// Connect to a peer, by TCP or UDP.
        Connect = "connect",
        /// Take an address and port of this host's. A rule's hosts and ports are the socket's own.
        Bind = "bind",
        /// Send a datagram to a peer that is named with it.
        Send = "send",
        /// Accept a connection, or receive a datagram on a socket that isn't connected.
        Receive = "receive",
    }
}

impl Op {
    /// The operation for `decide()`.
    #[must_use]
    pub const fn meant(self) -> net::Op {
        match self {
            Self::Connect => net::Op::CONNECT,
            Self::Bind => net::Op::BIND,
            Self::Send => net::Op::SEND,
            Self::Receive => net::Op::RECEIVE,
        }
    }
}

words! {
    /// Transport protocols of rules.
    pub enum Protocol {
        /// TCP and MPTCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
        /// ICMP and ICMPv6.
        Icmp = "icmp",
        /// Every protocol.
        Any = "any",
    }
}
