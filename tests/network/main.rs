//! Rules on the network: what is judged, by which hook, and what no rule can be evaded by.

mod beside;
mod bind;
mod flows;
mod home;
mod network;
mod race;
mod receive;
mod rules;
mod sandbox;
mod send;
mod socket;
mod sorting;
mod source;
mod straight;

use serde_json::{Value, json};

/// A policy with these rules on the network.
fn network(default: &str, rules: &Value) -> Value {
    json!({"version": 1, "network": {"default": default, "rules": rules}})
}
