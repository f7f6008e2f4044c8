//! Network rules and requests.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use policy::{Host, NetRule, Section};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};

use super::{action, object, optional, reason};
use crate::oracle::Net;

const NAMED_SETS: [&str; 6] = ["any", "loopback", "private", "link-local", "multicast", "metadata"];

/// Networks at and around the border between the families.
const BORDERS: [&str; 11] = [
    "0.0.0.0/0",
    "::/0",
    "::/1",
    "::/80",
    "::fffe:0:0/95",
    "::ffff:0:0/96",
    "::ffff:0.0.0.0/97",
    "::1:0:0:0/80",
    "255.255.255.255",
    "::",
    "0.0.0.0",
];

/// Addresses that many of the networks lie around, so that networks overlap.
const CENTRES_V4: [Ipv4Addr; 4] =
    [Ipv4Addr::new(10, 1, 2, 3), Ipv4Addr::new(10, 1, 130, 3), Ipv4Addr::LOCALHOST, Ipv4Addr::new(169, 254, 169, 254)];
const CENTRES_V6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0x1234),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0x8001, 0, 0, 0, 0x1234),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    // 10.1.2.3, were it mapped
    Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0xa01, 0x203),
];

pub(super) fn rule() -> impl Strategy<Value = Value> {
    let keys = (
        action(),
        optional("ops", vec(select(&["connect", "bind", "send", "receive"][..]), 1..=3)),
        optional("protocols", vec(select(&["tcp", "udp", "icmp", "any"][..]), 1..=2)),
        optional("hosts", vec(host(), 1..=5)),
        optional("ports", vec(port(), 1..=4)),
        optional("reason", reason()),
    );
    keys.prop_map(|(action, ops, protocols, hosts, ports, reason)| {
        object([Some(("action", action)), ops, protocols, hosts, ports, reason])
    })
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => select(&NAMED_SETS[..]).prop_map(str::to_owned),
        1 => Just("sandbox".to_owned()),
        1 => select(&BORDERS[..]).prop_map(str::to_owned),
        6 => (prop_oneof![3 => select(&CENTRES_V4[..]), 1 => any::<Ipv4Addr>()], 0..=32_u8, 0..4_u8)
            .prop_map(|(address, length, notation)| network_v4(address, length, notation)),
        6 => (prop_oneof![3 => select(&CENTRES_V6[..]), 1 => any::<Ipv6Addr>()], 0..=128_u8)
            .prop_map(|(address, length)| network_v6(address, length)),
    ]
}

/// The network of so many bits around an address, in one of the notations that there are for it.
fn network_v4(address: Ipv4Addr, length: u8, notation: u8) -> String {
    let first = Ipv4Addr::from_bits(address.to_bits() & !u32::MAX.checked_shr(length.into()).unwrap_or(0));
    let [a, b] = [first.to_bits() >> 16, first.to_bits() & 0xffff];
    match notation {
        0 => with_length(first, length, 32),
        1 => format!("{first}/{length}"),
        2 => with_length(format!("::ffff:{first}"), length + 96, 128),
        _ => with_length(format!("0:0:0:0:0:FFFF:{a:x}:{b:X}"), length + 96, 128),
    }
}

fn network_v6(address: Ipv6Addr, length: u8) -> String {
    let first = Ipv6Addr::from_bits(address.to_bits() & !u128::MAX.checked_shr(length.into()).unwrap_or(0));
    with_length(first, length, 128)
}

fn with_length(address: impl fmt::Display, length: u8, whole: u8) -> String {
    if length == whole { address.to_string() } else { format!("{address}/{length}") }
}

/// Ports and ranges, many of them adjacent or overlapping.
fn port() -> impl Strategy<Value = Value> {
    let number = || prop_oneof![4 => 78..84_u16, 1 => select(&[0_u16, 1, 65534, 65535][..]), 1 => any::<u16>()];
    prop_oneof![
        number().prop_map(Value::from),
        number().prop_map(|port| json!(port.to_string())),
        Just(json!("ephemeral")),
        (number(), number()).prop_map(|(one, other)| json!(format!("{}-{}", one.min(other), one.max(other)))),
    ]
}

/// Requests at the edges of what the rules name.
pub(super) fn request(section: &Section<NetRule>) -> impl Strategy<Value = Net> + use<> {
    let mut addresses = vec![0, 1, 0xffff_0000_0000, 0xffff_ffff_ffff, 0xfffe_ffff_ffff, 0x1_0000_0000_0000, u128::MAX];
    let mut ports = vec![0, 80, u16::MAX];
    for rule in &section.rules {
        for network in rule.hosts.iter().flatten().flat_map(Host::networks) {
            let first = network.bits();
            let last = first | u128::MAX.checked_shr(network.length().into()).unwrap_or(0);
            addresses.extend([first, last, first.wrapping_sub(1), last.wrapping_add(1)]);
            // The same 32 bits, but not mapped.
            addresses.push(first & 0xffff_ffff);
        }
        for range in rule.ports.iter().flatten() {
            ports.extend([range.first(), range.last()]);
            ports.extend([range.first().wrapping_sub(1), range.last().wrapping_add(1)]);
        }
    }
    let protocol = prop_oneof![8 => select(&[6_u8, 17][..]), 1 => select(&[0_u8, 1, 33, 132, 136, 255][..])];
    let address = prop_oneof![8 => select(addresses), 1 => any::<u128>()];
    let port = prop_oneof![8 => select(ports), 1 => any::<u16>()];
    (0..4_u8, protocol, address, port, any::<bool>()).prop_map(|(op, protocol, address, port, own)| Net {
        op,
        protocol,
        address: Ipv6Addr::from_bits(address),
        port,
        // A socket's own address is the sandbox's.
        own: own || op == 1,
    })
}
