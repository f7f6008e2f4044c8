//! Sockopt rules and requests.

use policy::{Section, SockoptRule};
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use super::{action, object, optional};
use crate::oracle::Sockopt;

/// Levels with the numbers that they have.
const LEVELS: [(&str, i32); 6] =
    [("SOL_SOCKET", 1), ("IPPROTO_IP", 0), ("SOL_IP", 0), ("IPPROTO_IPV6", 41), ("IPPROTO_TCP", 6), ("SOL_TCP", 6)];

/// Options, each with the number of the level that it belongs to.
const OPTIONS: [(&str, i32); 8] = [
    ("SO_DEBUG", 1),
    ("SO_REUSEADDR", 1),
    ("IP_TTL", 0),
    ("IP_LOCAL_PORT_RANGE", 0),
    ("IPV6_V6ONLY", 41),
    ("TCP_NODELAY", 6),
    ("TCP_MAXSEG", 6),
    ("TCP_CONGESTION", 6),
];

pub(super) fn rule() -> impl Strategy<Value = Value> {
    let level = || prop_oneof![select(&LEVELS[..]).prop_map(|(name, _)| json!(name)), number().prop_map(Value::from)];
    let by_name = (select(&OPTIONS[..]), any::<bool>()).prop_map(|((name, level), with_level)| {
        (with_level.then(|| ("level", json!(level))), Some(("option", json!(name))))
    });
    let by_number =
        (level(), number()).prop_map(|(level, option)| (Some(("level", level)), Some(("option", json!(option)))));
    let by_level = optional("level", level()).prop_map(|level| (level, None));
    let keys = (action(), prop_oneof![by_name, by_number, by_level], optional("access", select(&["get", "set"][..])));
    keys.prop_map(|(action, (level, option), access)| object([Some(("action", action)), level, option, access]))
}

/// Few different numbers, so that rules overlap.
fn number() -> impl Strategy<Value = i32> {
    prop_oneof![6 => 0..4, 2 => select(&[6, 13, 26, 41, 51][..]), 1 => i32::MAX - 1..=i32::MAX, 1 => 0..=i32::MAX]
}

/// Requests at the edges of what the rules name. A caller may also give negative numbers.
pub(super) fn request(section: &Section<SockoptRule>) -> impl Strategy<Value = Sockopt> + use<> {
    let around = |number: i32| [number, number.wrapping_sub(1), number.wrapping_add(1)];
    let mut levels: Vec<i32> = section.rules.iter().filter_map(SockoptRule::level).flat_map(around).collect();
    let mut options: Vec<i32> = section.rules.iter().filter_map(SockoptRule::option).flat_map(around).collect();
    levels.push(-1);
    options.push(-1);
    let of = |named| prop_oneof![8 => select(named), 1 => number(), 1 => any::<i32>()];
    (of(levels), of(options), any::<bool>()).prop_map(|(level, option, set)| Sockopt { level, option, set })
}
