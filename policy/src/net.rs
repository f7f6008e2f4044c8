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
    /// Peers; for bind, the socket's own address.
    #[serde(
        default,
        deserialize_with = "non_empty",
        serialize_with = "serialize_hosts",
        skip_serializing_if = "Option::is_none"
    )]
    pub hosts: Option<Vec<Host>>,
    /// The peers' ports; for bind, the socket's own.
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
