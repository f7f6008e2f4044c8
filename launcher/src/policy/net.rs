//! Rules of the network section.

use serde::{Deserialize, Serialize};

use super::{
    Action, Host, PortRange, Rule,
    host::serialize_hosts,
    section::{non_empty, words},
};

/// A rule on network requests. What is `None` holds for all.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NetRule {
    /// What happens to the requests that match.
    pub action: Action,
    /// Operations.
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub ops: Option<Vec<Op>>,
    /// Transport protocols.
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<Protocol>>,
    /// Peers.
    #[serde(
        default,
        deserialize_with = "non_empty",
        serialize_with = "serialize_hosts",
        skip_serializing_if = "Option::is_none"
    )]
    pub hosts: Option<Vec<Host>>,
    /// The peers' ports.
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<PortRange>>,
}

impl Rule for NetRule {
    fn action(&self) -> Action {
        self.action
    }
}

words! {
    /// What a process wants to do with the network.
    pub enum Op {
        /// Connect to a peer, by TCP or UDP.
        Connect = "connect",
    }
}

words! {
    /// Transport protocols of rules.
    pub enum Protocol {
        /// TCP and MPTCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
        /// Every protocol.
        Any = "any",
    }
}
