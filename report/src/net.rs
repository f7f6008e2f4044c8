//! Network denials.

use std::{fmt, net::IpAddr};

use common::{
    net::{Address, Op},
    record::NetSubject,
};
use policy::{display_address, protocol_name};
use serde::{Deserialize, Serialize};

use crate::{Names, Recorded, Subject};

/// A peer; for bind, the socket's own address.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Network {
    /// The peer's address; IPv4 as such, by whichever socket it was asked for.
    pub address: IpAddr,
    /// The peer's port.
    pub port: u16,
    /// The port of this host's at which it arrived, of what is received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_port: Option<u16>,
    /// `tcp`, `udp`, `icmp` and the like, or the protocol's number.
    pub protocol: String,
    /// The name of a rule that the address was found by, or the wildcard that has it; several with commas between them. Of a TLS
    /// connection that was refused, the name that it says.
    pub host: Option<String>,
}

impl Network {
    /// A peer, by the numbers that the kernel side records.
    #[must_use]
    pub fn new(address: Address, port: u16, protocol: u32, names: &impl Names) -> Self {
        let protocol = protocol_name(protocol);
        let address = display_address(address);
        Self { address, port, local_port: None, protocol, host: names.host(address).map(|host| host.name) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, port, local_port, protocol, host } = self;
        match address {
            IpAddr::V4(address) => write!(f, "{protocol} {address}:{port}")?,
            IpAddr::V6(address) => write!(f, "{protocol} [{address}]:{port}")?,
        }
        if let Some(host) = host {
            write!(f, " ({host})")?;
        }
        local_port.map_or(Ok(()), |local_port| write!(f, " at port {local_port}"))
    }
}

impl Recorded for NetSubject {
    const SECTION: &'static str = "network";

    fn op(&self) -> &'static str {
        Op::ALL.get(usize::from(self.op)).map_or("unknown", |op| op.name())
    }

    fn describe(&self, names: &impl Names) -> Subject {
        let local_port = (self.op() == Op::RECEIVE.name() && self.local_port != 0).then_some(self.local_port);
        Subject::Network(Network { local_port, ..Network::new(self.address, self.port, self.protocol.into(), names) })
    }

    fn reason(&self, names: &impl Names) -> Option<String> {
        let asks = [Op::CONNECT, Op::SEND].iter().any(|op| op.name() == self.op());
        if asks { names.host(display_address(self.address))?.reason } else { None }
    }
}
