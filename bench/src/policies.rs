//! The policies that are measured. They deny nothing that a worker does, unless they are there for that.

use std::{collections::BTreeSet, fs, net::Ipv4Addr, path::PathBuf};

use serde_json::{Value, json};

use crate::setup::Setup;

/// The most rules that a section can have.
pub const MOST_RULES: u32 = 256;
/// How many networks the large rule names.
pub const CIDRS: usize = 100_000;

/// This many rules in each section. Each network rule names a host and a port, each device rule a device, each sysctl
/// rule a name, and none of them matches: so every way to look something up is taken, and all rules are ruled out.
pub fn rules(setup: &Setup, count: u32) -> anyhow::Result<PathBuf> {
    let network = |i| {
        let host = Ipv4Addr::from_bits(Ipv4Addr::new(192, 0, 2, 0).to_bits() + i);
        json!({ "action": "deny", "ops": ["connect"], "hosts": [host], "ports": [9000 + i] })
    };
    let device = |i| json!({ "action": "deny", "type": "c", "major": 240, "minor": i, "access": "rwm" });
    let sysctl = |i| json!({ "action": "deny", "names": [format!("kernel/guard_bench_{i}")], "access": "rw" });
    let section =
        |rule: &dyn Fn(u32) -> Value| json!({ "default": "allow", "rules": (0..count).map(rule).collect::<Vec<_>>() });
    let policy = json!({
        "version": 1, "network": section(&network), "devices": section(&device), "sysctls": section(&sysctl),
    });
    write(setup, &format!("rules-{count}"), &policy)
}

/// One network rule with [`CIDRS`] networks from /24 to /32, all over the address space, none with 127.0.0.1.
pub fn cidrs(setup: &Setup) -> anyhow::Result<PathBuf> {
    let mut networks = BTreeSet::new();
    let mut random: u64 = 1;
    while networks.len() < CIDRS {
        // Knuth's MMIX generator, of which the high bytes are good.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [a, b, c, d, e, ..] = random.to_be_bytes();
        let (address, length) = (u32::from_be_bytes([a, b, c, d]), u32::from(24 + e % 9));
        let mask = u32::MAX << (32 - length);
        if address & mask != Ipv4Addr::LOCALHOST.to_bits() & mask {
            networks.insert((address & mask, length));
        }
    }
    let hosts = networks.iter().map(|(address, length)| format!("{}/{length}", Ipv4Addr::from_bits(*address)));
    let hosts: Vec<String> = hosts.collect();
    let rule = json!({ "action": "deny", "ops": ["connect"], "hosts": hosts, "ports": [9000] });
    let policy = json!({ "version": 1, "network": { "default": "allow", "rules": [rule] } });
    write(setup, "cidrs", &policy)
}

/// A policy with `count` rules on what a socket can do other than connect: each network rule names a host and a port, each Unix rule a path,
/// each rule on options an option, and none of them matches.
pub fn socket_rules(setup: &Setup, count: u32) -> anyhow::Result<PathBuf> {
    let network = |i| {
        let host = Ipv4Addr::from_bits(Ipv4Addr::new(192, 0, 2, 0).to_bits() + i);
        json!({ "action": "deny", "ops": ["bind", "send", "receive"], "hosts": [host], "ports": [9000 + i] })
    };
    let unix = |i| json!({ "action": "deny", "paths": [format!("@guard_bench_{i}")] });
    let option = |i| json!({ "action": "deny", "level": "SOL_SOCKET", "option": 1000 + i, "access": "set" });
    let section =
        |rule: &dyn Fn(u32) -> Value| json!({ "default": "allow", "rules": (0..count).map(rule).collect::<Vec<_>>() });
    let policy = json!({
        "version": 1, "network": section(&network), "unix": section(&unix), "sockopts": section(&option),
    });
    write(setup, &format!("socket-rules-{count}"), &policy)
}

/// Makes guard-run look at every packet that goes out: raw sockets are allowed, and what they send can only be judged there.
pub fn back_stop(setup: &Setup) -> anyhow::Result<PathBuf> {
    let network = json!({ "action": "deny", "hosts": ["192.0.2.0/24"] });
    let socket = json!({ "action": "allow", "type": "raw" });
    let policy = json!({
        "version": 1,
        "network": { "default": "allow", "rules": [network] },
        "sockets": { "default": "allow", "rules": [socket] },
    });
    write(setup, "back-stop", &policy)
}

/// No section at all: what is left is what keeps the command inside by default.
pub fn hardening_alone(setup: &Setup) -> anyhow::Result<PathBuf> {
    write(setup, "hardening-alone", &json!({ "version": 1 }))
}

/// A rule at every hook, and nothing else that costs.
pub fn every_hook(setup: &Setup) -> anyhow::Result<PathBuf> {
    let one = |rule: Value| json!({ "default": "allow", "rules": [rule] });
    let policy = json!({
        "version": 1,
        "network": one(json!({ "action": "deny", "hosts": ["192.0.2.0/24"], "ports": [9] })),
        "sockets": one(json!({ "action": "allow", "type": "raw" })),
        "sockopts": one(json!({ "action": "deny", "level": 255, "option": 255 })),
        "unix": { "default": "deny" },
        "devices": one(json!({ "action": "deny", "major": 4095 })),
        "sysctls": one(json!({ "action": "deny", "names": ["kernel/none"] })),
    });
    write(setup, "every-hook", &policy)
}

/// Denies UDP to the loopback interface.
pub fn no_udp(setup: &Setup) -> anyhow::Result<PathBuf> {
    let rule = json!({ "action": "deny", "ops": ["connect"], "protocols": ["udp"], "hosts": ["loopback"] });
    let policy = json!({ "version": 1, "network": { "default": "allow", "rules": [rule] } });
    write(setup, "no-udp", &policy)
}

fn write(setup: &Setup, name: &str, policy: &Value) -> anyhow::Result<PathBuf> {
    let path = setup.scratch.path().join(format!("{name}.json"));
    fs::write(&path, policy.to_string())?;
    Ok(path)
}
