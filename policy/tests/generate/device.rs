//! Device rules and requests.

use policy::{DeviceRule, Section};
use proptest::{prelude::*, sample::select};
use serde_json::Value;

use super::{action, object, optional};
use crate::oracle::Device;

const MAX_MAJOR: u32 = 4095;
const MAX_MINOR: u32 = 1_048_575;

const ACCESSES: [&str; 9] = ["r", "w", "m", "rw", "wr", "rm", "mw", "rwm", "mwr"];

pub(super) fn rule() -> impl Strategy<Value = Value> {
    let by_numbers = (
        optional("type", select(&["a", "b", "c"][..])),
        optional("major", number(MAX_MAJOR)),
        optional("minor", number(MAX_MINOR)),
    );
    let by_path =
        select(&["/dev/null", "/dev/zero", "/dev/full"][..]).prop_map(|path| [Some(("path", path.into())), None, None]);
    let which = prop_oneof![8 => by_numbers.prop_map(|(kind, major, minor)| [kind, major, minor]), 1 => by_path];
    let keys = (action(), which, optional("access", select(&ACCESSES[..])));
    keys.prop_map(|(action, [first, second, third], access)| {
        object([Some(("action", action)), first, second, third, access])
    })
}

/// Few different numbers, so that rules overlap.
fn number(max: u32) -> impl Strategy<Value = u32> {
    prop_oneof![6 => 0..4_u32, 1 => max - 1..=max, 1 => 0..=max]
}

/// Requests at the edges of what the rules name.
pub(super) fn request(section: &Section<DeviceRule>) -> impl Strategy<Value = Device> + use<> {
    let around = |number: u32, max: u32| [number, number.saturating_sub(1), max.min(number + 1)];
    let majors: Vec<u32> =
        section.rules.iter().filter_map(|rule| rule.major).flat_map(|major| around(major, MAX_MAJOR)).collect();
    let minors: Vec<u32> =
        section.rules.iter().filter_map(|rule| rule.minor).flat_map(|minor| around(minor, MAX_MINOR)).collect();
    let of = |mut named: Vec<u32>, max| {
        named.push(max);
        prop_oneof![8 => select(named), 1 => number(max)]
    };
    (1..=2_u32, of(majors, MAX_MAJOR), of(minors, MAX_MINOR), 0..8_u32)
        .prop_map(|(kind, major, minor, access)| Device { kind, major, minor, access })
}
