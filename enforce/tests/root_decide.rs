//! The kernel decides as user space does: the same tables, asked for the same verdicts, there and here. And the verifier
//! accepts the programs, those that are shipped too, with any tables that a policy can make.

#[path = "../../policy/tests/generate/mod.rs"]
mod generate;
mod judge;
#[path = "../../policy/tests/oracle/mod.rs"]
mod oracle;

use std::{env, net::Ipv6Addr};

use common::{Decision, decision::DEFAULT, unix::Kind};
use enforce::{
    load::{LoadError, Loaded},
    privilege::{self, Rights},
};
use generate::{Case, DecidedBy, case, parse, sysctl::names_of_so_many_states};
use judge::{Judge, Judged};
use oracle::{Device, Net, Socket, Sockopt, Sysctl, Unix};
use policy::compile::{CompileError, MAX_STATES, Tables};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};

const POLICIES: usize = 300;

/// The random numbers' seed; the same in every run unless GUARD_SEED gives another.
fn seed() -> u64 {
    env::var("GUARD_SEED").map_or(20_261_122, |seed| seed.parse().expect("GUARD_SEED is a number"))
}

fn runner() -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed().to_le_bytes());
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// Loads the shipped programs of these tables. Those for Unix sockets by peer are `None` where the kernel has no BPF LSM;
/// tests/rules/unix_paths.rs loads them on kernels that do.
fn shipped(tables: &Tables) -> Result<Option<Loaded>, LoadError> {
    match Loaded::new(tables, &mut rights()) {
        Err(LoadError::NoLsm { .. }) if tables.unix.as_ref().is_some_and(|unix| unix.needs_peer) => Ok(None),
        loaded => loaded.map(Some),
    }
}

fn rights() -> Rights {
    privilege::begin().unwrap_or_else(|error| panic!("{error}"))
}

/// Loads the shipped programs of these tables, and the judges.
fn load(tables: &Tables) -> Judge {
    let shipped = Loaded::new(tables, &mut rights()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(shipped.programs.len(), tables.hooks().len());
    Judge::of(tables).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_kernel_decides_as_user_space_does() {
    let mut runner = runner();
    let mut compiled = 0;
    for number in 0..POLICIES {
        let Case { json, policy, nets, devices, sysctls, sockets, sockopts, unix } =
            case().new_tree(&mut runner).unwrap().current();
        let tables = match Tables::compile(&policy) {
            Ok(tables) => tables,
            Err(CompileError::TooManyNames | CompileError::TooManyPaths) => continue,
            Err(error @ CompileError::NoNameservers) => panic!("{error}"),
        };
        compiled += 1;
        let told = || format!("GUARD_SEED={}, policy {number}:\n{json}", seed());
        let loaded = shipped(&tables).and_then(|_| Judge::of(&tables));
        let judge = loaded.unwrap_or_else(|error| panic!("{error}\n{}", told()));
        compare(&judge, tables.network.as_ref(), &nets, told);
        compare(&judge, tables.devices.as_ref(), &devices, told);
        compare(&judge, tables.sysctls.as_ref(), &sysctls, told);
        compare(&judge, tables.sockets.as_ref(), &sockets, told);
        compare(&judge, tables.sockopts.as_ref(), &sockopts, told);
        compare(&judge, tables.unix.as_ref(), &unix, told);
    }
    assert!(compiled > POLICIES * 9 / 10, "only {compiled} of {POLICIES} policies could be compiled");
}

fn compare<R, T>(judge: &Judge, tables: Option<&T>, requests: &[R], told: impl Fn() -> String)
where
    R: Judged + DecidedBy<T> + std::fmt::Debug,
{
    for request in requests {
        let expected = request.decided_by(tables.expect("requests only where there is a section"));
        assert_eq!(request.judged_by(judge), Some(expected), "{request:?}\n{}", told());
    }
}

fn compile(json: &Value) -> Tables {
    Tables::compile(&parse(&json.to_string())).unwrap()
}

fn deny(rule: &Value) -> Value {
    json!({"version": 1, "network": {"default": "allow", "rules": [rule]}})
}

fn tcp(address: u128, port: u16) -> Net {
    Net::connect(6, Ipv6Addr::from_bits(address), port)
}

/// By the first rule, by no rule.
const DENIED: Option<Decision> = Some(Decision { allow: false, rule: 0 });
const ALLOWED: Option<Decision> = Some(Decision { allow: true, rule: DEFAULT });

#[test]
fn programs_without_tables_deny() {
    let judge = Judge::unfilled(&compile(&json!({"version": 1}))).unwrap();
    let denied = Some(Decision { allow: false, rule: DEFAULT });
    assert_eq!(tcp(1, 443).judged_by(&judge), denied);
    assert_eq!(Device { kind: 2, major: 1, minor: 3, access: 2 }.judged_by(&judge), denied);
    assert_eq!(Sysctl { name: b"kernel/hostname".into(), write: false }.judged_by(&judge), denied);
    assert_eq!(Socket { family: 2, kind: 1, protocol: 6 }.judged_by(&judge), denied);
    assert_eq!(Sockopt { level: 6, option: 1, set: false }.judged_by(&judge), denied);
    assert_eq!(Unix { kind: Kind::PATH, name: b"/run/x".into(), own: false }.judged_by(&judge), denied);
}

/// Each rule is the first to match one request of each kind.
#[test]
fn as_many_rules_as_there_can_be() {
    let section =
        |rule: fn(usize) -> Value| json!({"default": "deny", "rules": (0..256).map(rule).collect::<Vec<_>>()});
    let tables = compile(&json!({
        "version": 1,
        "network": section(|index| json!({
            "action": if index % 2 == 0 { "allow" } else { "deny" },
            "hosts": [format!("10.0.{index}.0/24"), format!("fd00:{index:x}::/32")],
            "ports": [format!("{}-{}", index * 10, index * 10 + 19)],
        })),
        "devices": section(|index| json!({
            "action": if index % 2 == 0 { "allow" } else { "deny" }, "major": index, "access": "rw",
        })),
        "sysctls": section(|index| json!({
            "action": if index % 2 == 0 { "allow" } else { "deny" },
            "names": [format!("net/{index}/*"), format!("kernel/{index}")],
        })),
        "sockopts": section(|index| json!({
            "action": if index % 2 == 0 { "allow" } else { "deny" }, "level": 1000 + index, "option": index,
        })),
    }));
    let judge = load(&tables);
    let none = Some(Decision { allow: false, rule: DEFAULT });
    for rule in 0..256_u16 {
        let expected = Some(Decision { allow: rule % 2 == 0, rule });
        let (first_port, number) = (rule * 10, u32::from(rule));
        let v4 = 0xffff_0a00_0000 | u128::from(rule) << 8;
        let v6 = 0xfd00 << 112 | u128::from(rule) << 96;
        assert_eq!(tcp(v4, first_port).judged_by(&judge), expected, "{rule}");
        assert_eq!(tcp(v6, first_port + 19).judged_by(&judge), expected, "{rule}");
        assert_eq!(tcp(v6, first_port + 20).judged_by(&judge), none, "{rule}");
        assert_eq!(Device { kind: 1, major: number, minor: 0, access: 6 }.judged_by(&judge), expected, "{rule}");
        let (level, option) = (1000 + i32::from(rule), i32::from(rule));
        assert_eq!(Sockopt { level, option, set: true }.judged_by(&judge), expected, "{rule}");
        assert_eq!(Sockopt { level, option: option + 1, set: false }.judged_by(&judge), none, "{rule}");
        // Making a node is nothing that a rule allows.
        let with_mknod = Device { kind: 1, major: number, minor: 0, access: 7 };
        assert!(!with_mknod.judged_by(&judge).unwrap().allow, "{rule}");
        for name in [format!("net/{rule}/x"), format!("kernel/{rule}")] {
            assert_eq!(Sysctl { name: name.into(), write: true }.judged_by(&judge), expected, "{rule}");
        }
    }
}

/// Every port an interval of its own, and then the end of the last one an edge, too.
#[test]
fn as_many_ports_as_there_can_be() {
    let even: Vec<u32> = (0..=65535).step_by(2).collect();
    for more in [json!({"action": "deny", "ports": [1]}), json!({"action": "deny", "ports": [65535]})] {
        let rules = json!([{"action": "deny", "ports": even}, more]);
        let tables = compile(&json!({"version": 1, "network": {"default": "allow", "rules": rules}}));
        let judge = load(&tables);
        for port in 0..=u16::MAX {
            let expected = match port {
                port if port % 2 == 0 => DENIED,
                port if more["ports"][0] == port => Some(Decision { allow: false, rule: 1 }),
                _ => ALLOWED,
            };
            assert_eq!(tcp(1, port).judged_by(&judge), expected, "{more} {port}");
        }
    }
}

#[test]
fn twenty_thousand_networks() {
    // Of both families, no two adjacent.
    let v4 = |index: u128| (index < 10_000).then_some(0xffff_0000_0000 | (index * 2 + 0x0a_0000) << 8);
    let network = |index: u128| v4(index).unwrap_or(0x2001_0db8 << 96 | (index * 2) << 64);
    let text = |index: u128| match v4(index) {
        Some(first) => format!("{}/120", Ipv6Addr::from_bits(first)),
        None => format!("{}/64", Ipv6Addr::from_bits(network(index))),
    };
    let hosts: Vec<String> = (0..20_000).map(text).collect();
    let judge = load(&compile(&deny(&json!({"action": "deny", "hosts": hosts}))));
    for index in 0..20_000 {
        let first = network(index);
        let size = if v4(index).is_some() { 1 << 8 } else { 1 << 64 };
        let table = [(first - 1, ALLOWED), (first, DENIED), (first + size - 1, DENIED), (first + size, ALLOWED)];
        for (address, expected) in table {
            assert_eq!(tcp(address, 443).judged_by(&judge), expected, "{} {address:x}", text(index));
        }
    }
}

/// A chain of networks, each within the one before: as many as an address has bits.
#[test]
fn networks_within_networks() {
    let address = u128::from_str_radix("fedcba9876543210fedcba9876543210", 16).unwrap();
    let network = |length: u32| address & !u128::MAX.checked_shr(length).unwrap_or(0);
    let rules: Vec<Value> = (1..=128)
        .rev()
        .map(
            |length| json!({"action": "deny", "hosts": [format!("{}/{length}", Ipv6Addr::from_bits(network(length)))]}),
        )
        .collect();
    let judge = load(&compile(&json!({"version": 1, "network": {"default": "allow", "rules": rules}})));
    assert_eq!(tcp(address, 1).judged_by(&judge), DENIED);
    for length in 1..=127 {
        // Differs in the bit after the last of these.
        let decision = tcp(address ^ 1 << (127 - length), 1).judged_by(&judge);
        let rule = u16::try_from(128 - length).unwrap();
        assert_eq!(decision, Some(Decision { allow: false, rule }), "{length}");
    }
    assert_eq!(tcp(address ^ 1 << 127, 1).judged_by(&judge), ALLOWED);
}

#[test]
fn as_many_sysctl_states_as_there_can_be() {
    let json = names_of_so_many_states(MAX_STATES);
    let tables = compile(&json);
    assert_eq!(tables.sysctls.as_ref().unwrap().states.len(), MAX_STATES);
    let judge = load(&tables);
    for (index, rule) in json["sysctls"]["rules"].as_array().unwrap().iter().enumerate() {
        let name = rule["names"][0].as_str().unwrap().replace('?', "x");
        let request = |name: &str| Sysctl { name: name.into(), write: false };
        let denied = Decision { allow: false, rule: u16::try_from(index).unwrap() };
        assert_eq!(request(&name).judged_by(&judge), Some(denied), "{name}");
        assert_eq!(request(&name[1..]).judged_by(&judge), ALLOWED, "{name}");
        assert_eq!(request(&name[..name.len() - 1]).judged_by(&judge), ALLOWED, "{name}");
    }
}

#[test]
fn ten_thousand_sysctl_names() {
    let names: Vec<String> = (0..10_000).map(|index| format!("net/ipv4/conf/eth{index}/forwarding")).collect();
    let rules = json!([{"action": "deny", "names": names}, {"action": "deny", "names": ["*/eth10000/*"]}]);
    let judge = load(&compile(&json!({"version": 1, "sysctls": {"default": "allow", "rules": rules}})));
    for name in names {
        let request = |name: &str| Sysctl { name: name.into(), write: false };
        assert_eq!(request(&name).judged_by(&judge), DENIED, "{name}");
        assert_eq!(request(&name[..name.len() - 1]).judged_by(&judge), ALLOWED, "{name}");
    }
    let other = Sysctl { name: b"net/ipv4/conf/eth10000/forwarding".into(), write: true };
    assert_eq!(other.judged_by(&judge), Some(Decision { allow: false, rule: 1 }));
}

/// Each path is the first that one rule is about.
#[test]
fn as_many_unix_rules_and_states_as_there_can_be() {
    let rules: Vec<Value> = (0..256)
        .map(|index| {
            json!({
                "action": if index % 2 == 0 { "allow" } else { "deny" },
                "paths": [format!("/run/{index}/*"), format!("@{index}")],
            })
        })
        .collect();
    let tables = compile(&json!({"version": 1, "unix": {"default": "deny", "rules": rules}}));
    let _ = shipped(&tables).unwrap_or_else(|error| panic!("{error}"));
    let judge = Judge::of(&tables).unwrap();
    for rule in 0..256_u16 {
        let expected = Some(Decision { allow: rule % 2 == 0, rule });
        let request = |kind, name: String| Unix { kind, name: name.into(), own: false };
        assert_eq!(request(Kind::PATH, format!("/run/{rule}/x")).judged_by(&judge), expected, "{rule}");
        assert_eq!(request(Kind::ABSTRACT, format!("@{rule}")).judged_by(&judge), expected, "{rule}");
        let none = Some(Decision { allow: false, rule: DEFAULT });
        assert_eq!(request(Kind::ABSTRACT, format!("@{rule}\0")).judged_by(&judge), none, "{rule}");
    }
    // The longest path there can be, of which every byte is another state.
    let long = format!("/{}", "k".repeat(254));
    let tables =
        compile(&json!({"version": 1, "unix": {"default": "deny", "rules": [{"action": "allow", "paths": [long]}]}}));
    let _ = shipped(&tables).unwrap_or_else(|error| panic!("{error}"));
    let judge = Judge::of(&tables).unwrap();
    let decided =
        |name: &str| Unix { kind: Kind::PATH, name: name.into(), own: false }.judged_by(&judge).unwrap().allow;
    assert!(decided(&long) && !decided(&long[..254]));
}
