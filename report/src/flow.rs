//! What the command reached.

use std::{sync::Arc, time::Duration};

use common::flow::{INCOMING, Key, TCP, Tally};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Clock, Details, Names, Network, Process, Word, event::comm, flat::FlatFlow, nanoseconds};

/// All that one process and one peer had to do with each other by one protocol, port and direction.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "FlatFlow")]
pub struct Flow {
    /// `outgoing` where the process began, `incoming` where the peer did.
    pub direction: Word,
    /// The peer. The port is the peer's of an outgoing flow, the process's own of an incoming one.
    pub network: Network,
    /// Who made the socket, or the one that listened. `None` where the kernel did.
    pub process: Option<Process>,
    /// How much of it there was.
    #[serde(flatten)]
    pub extent: Extent,
    /// Bytes of payload.
    pub bytes: Transfer,
    /// The first connection or datagram.
    #[serde(serialize_with = "nanoseconds")]
    pub first: Timestamp,
    /// The last datagram, or when a connection last began or ended.
    #[serde(serialize_with = "nanoseconds")]
    pub last: Timestamp,
}

/// How much there was of a flow.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Extent {
    /// TCP.
    Connections {
        /// Connections that were established.
        connections: u64,
        /// Connections that had not ended when the log was written. Their last bytes are not counted.
        open: u64,
        /// How long those that have ended were established, in seconds, all together.
        duration: f64,
    },
    /// UDP.
    Datagrams {
        /// Datagrams.
        datagrams: Transfer,
    },
}

/// What went each way.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// To the peer.
    pub sent: u64,
    /// From the peer.
    pub received: u64,
}

impl Flow {
    /// A flow, from what the kernel side has counted.
    #[must_use]
    pub fn new(key: &Key, tally: &Tally, details: Arc<Details>, clock: &Clock, names: &impl Names) -> Self {
        let Tally { owner, begun, ended, .. } = *tally;
        let process = Process { pid: Some(owner.pid), uid: owner.uid, comm: comm(owner.comm), details };
        let extent = if key.protocol == TCP {
            let duration = Duration::from_nanos(tally.duration).as_secs_f64();
            Extent::Connections { connections: begun, open: begun.saturating_sub(ended), duration }
        } else {
            Extent::Datagrams { datagrams: Transfer { sent: begun, received: ended } }
        };
        Self {
            direction: if key.direction == INCOMING { "incoming" } else { "outgoing" }.into(),
            network: Network::new(key.address, key.port, key.protocol.into(), names),
            process: (owner.pid != 0).then_some(process),
            extent,
            bytes: Transfer { sent: tally.bytes_sent, received: tally.bytes_received },
            first: clock.time(tally.first),
            last: clock.time(tally.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use common::{
        flow::{OUTGOING, UDP},
        net::Address,
        record::Owner,
    };
    use policy::compile::FoundBy;
    use serde_json::{Value, json};

    use super::*;

    /// A machine on which 127.0.0.1 was found by a name.
    struct Local;

    impl Names for Local {
        fn device(&self, _: &str, _: u32, _: u32) -> Option<String> {
            None
        }

        fn host(&self, address: IpAddr) -> Option<FoundBy> {
            let name = "api.example.org".to_owned();
            (address == IpAddr::from([127, 0, 0, 1])).then_some(FoundBy { name, reason: None })
        }
    }

    fn shown(key: Key, tally: Tally) -> Value {
        let clock = Clock::new(Timestamp::UNIX_EPOCH, jiff::SignedDuration::ZERO);
        serde_json::to_value(Flow::new(&key, &tally, Arc::default(), &clock, &Local)).unwrap()
    }

    const TALLY: Tally = Tally {
        begun: 5,
        ended: 3,
        bytes_sent: 7,
        bytes_received: 9,
        duration: 1_500_000_000,
        first: 1,
        last: 2,
        owner: Owner { pid: 77, uid: 8, comm: [u64::from_ne_bytes(*b"a name\0\0"), 0] },
    };

    #[test]
    fn connections_and_datagrams_are_shown_as_such() {
        let key = Key { address: Address::LOOPBACK4, pid: 77, port: 80, direction: OUTGOING, protocol: TCP };
        let flow = shown(key, TALLY);
        assert_eq!((&flow["direction"], &flow["network"]["address"]), (&json!("outgoing"), &json!("127.0.0.1")));
        assert_eq!(flow["network"]["host"], "api.example.org");
        assert_eq!((&flow["connections"], &flow["open"], &flow["duration"]), (&json!(5), &json!(2), &json!(1.5)));
        assert_eq!((&flow["process"]["pid"], &flow["process"]["comm"]), (&json!(77), &json!("a name")));
        assert_eq!((&flow["bytes"], flow.get("datagrams")), (&json!({"sent": 7, "received": 9}), None));
        let flow = shown(Key { direction: INCOMING, protocol: UDP, ..key }, TALLY);
        assert_eq!((&flow["direction"], &flow["datagrams"]), (&json!("incoming"), &json!({"sent": 5, "received": 3})));
        assert_eq!((flow.get("connections"), flow.get("open"), flow.get("duration")), (None, None, None));
    }

    #[test]
    fn a_socket_of_the_kernel_has_no_process() {
        let key = Key { address: Address::LOOPBACK6, pid: 0, port: 80, direction: OUTGOING, protocol: TCP };
        let flow = shown(key, Tally { owner: Owner::default(), ..TALLY });
        assert_eq!((&flow["process"], &flow["network"]["host"]), (&Value::Null, &Value::Null));
    }
}
