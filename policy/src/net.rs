//! Rules of the network section.

use common::net;
use serde::{Deserialize, Serialize};

use super::{
    Action, Host, PortRange, Rule,
    host::serialize_hosts,
    section::{non_empty, words},
};

/// A rule on network requests. What is `None` holds for all.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "Keys")]
pub struct NetRule {
    /// What happens to the requests that match.
    pub action: Action,
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
}

/// A rule's keys as they are written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    action: Action,
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
}

impl TryFrom<Keys> for NetRule {
    type Error = String;

    fn try_from(keys: Keys) -> Result<Self, String> {
        let Keys { action, ops, protocols, hosts, ports, local_ports } = keys;
        if let Some(local) = &local_ports {
            if !ops.iter().flatten().all(|op| *op == Op::Receive) || ops.is_none() {
                return Err("\"local_ports\" is only for what is received; write \"ops\": [\"receive\"]".to_owned());
            }
            if local.iter().any(|range| range.last() == net::EPHEMERAL) {
                return Err("nothing is received at port 0 (\"ephemeral\"); leave it out of \"local_ports\"".to_owned());
            }
        }
        Ok(Self { action, ops, protocols, hosts, ports, local_ports })
    }
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
