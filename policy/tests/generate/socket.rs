//! Rules on sockets, and requests for them.

use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use super::{action, object, optional};
use crate::oracle::Socket;

pub(super) fn rule() -> impl Strategy<Value = Value> {
    let protocols = [json!("tcp"), json!("udp"), json!("icmp"), json!("udplite"), json!(132), json!("mptcp"), json!(0)];
    let keys = (
        action(),
        optional("family", select(&["inet", "inet6"][..])),
        optional("type", select(&["stream", "dgram", "raw", "seqpacket"][..])),
        optional("protocol", select(protocols.to_vec())),
    );
    keys.prop_map(|(action, family, kind, protocol)| object([Some(("action", action)), family, kind, protocol]))
}

pub(super) fn request() -> impl Strategy<Value = Socket> {
    let protocol = select(&[6_u32, 17, 1, 58, 136, 132, 262, 0, 255][..]);
    (select(&[2_u32, 10][..]), select(&[1_u32, 2, 3, 5][..]), protocol).prop_map(|(family, kind, protocol)| Socket {
        family,
        kind,
        protocol,
    })
}
