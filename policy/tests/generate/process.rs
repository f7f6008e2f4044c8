//! Process sections.

use policy::Part;
use proptest::{prelude::*, sample::subsequence};
use serde_json::{Value, json};

use super::{object, optional};

pub fn section() -> impl Strategy<Value = Value> {
    let allow = subsequence(Part::ALL.to_vec(), 0..=Part::ALL.len()).prop_filter("tracing needs others", |parts| {
        let others = [Part::Signals, Part::AbstractSockets];
        !parts.contains(&Part::Tracing) || others.iter().all(|part| parts.contains(part))
    });
    let keys = (
        optional("allow", allow.prop_map(|parts| json!(parts))),
        optional("capabilities", subsequence(vec!["CAP_NET_RAW", "CAP_BPF"], 0..=2).prop_map(|names| json!(names))),
        optional("families", subsequence(vec!["packet", "vsock", "netlink"], 0..=3).prop_map(|names| json!(names))),
        optional("architectures", Just(json!(["x86"]))),
    );
    let full = keys.prop_map(|(allow, capabilities, families, architectures)| {
        object([Some(("isolation", json!("full"))), allow, capabilities, families, architectures])
    });
    prop_oneof![4 => full, 1 => Just(json!({"isolation": "cgroup-only"})), 1 => Just(json!({}))]
}
