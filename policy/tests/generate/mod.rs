//! Policies at random, as users could write them, and requests that hit their edges.
#![allow(dead_code)] // no test needs all of it

mod device;
mod net;
mod process;
mod socket;
mod sockopt;
pub mod sysctl;
mod unix;

use std::{fmt, path::Path};

use common::{
    Decision,
    device::{Request as DeviceRequest, Type},
    net::{Address, Op, Protocol, Request},
    socket::Request as SocketRequest,
    sockopt::{Request as SockoptRequest, access},
    sysctl::{Access, NAME_LEN},
    unix::Peer,
};
use policy::{
    DeviceNode, Document, Machine, Resolved, Surroundings,
    compile::{DeviceTables, NetTables, SocketTables, SockoptTables, SysctlTables, UnixTables},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value, json};

use crate::oracle::{Device, Net, Socket, Sockopt, Sysctl, Unix};

/// How many requests of each kind come with a policy.
const REQUESTS: usize = 24;

/// A policy and requests to be judged by it; none of a kind that the policy has no section for.
#[derive(Clone)]
pub struct Case {
    pub json: String,
    pub policy: Resolved,
    pub nets: Vec<Net>,
    pub devices: Vec<Device>,
    pub sysctls: Vec<Sysctl>,
    pub sockets: Vec<Socket>,
    pub sockopts: Vec<Sockopt>,
    pub unix: Vec<Unix>,
}

/// The policy is enough: which request is judged wrongly, the assertion tells.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.json)
    }
}

/// Policies, each with requests.
pub fn case() -> impl Strategy<Value = Case> {
    policy().prop_flat_map(|json| {
        let policy = parse(&json.to_string());
        let nets = policy
            .network
            .as_ref()
            .map_or(Just(vec![]).boxed(), |section| vec(net::request(section), REQUESTS).boxed());
        let devices = policy
            .devices
            .as_ref()
            .map_or(Just(vec![]).boxed(), |section| vec(device::request(section), REQUESTS).boxed());
        let sysctls = policy
            .sysctls
            .as_ref()
            .map_or(Just(vec![]).boxed(), |section| vec(sysctl::request(section), REQUESTS).boxed());
        let sockopts = policy
            .sockopts
            .as_ref()
            .map_or(Just(vec![]).boxed(), |section| vec(sockopt::request(section), REQUESTS).boxed());
        let unix =
            policy.unix.as_ref().map_or(Just(vec![]).boxed(), |section| vec(unix::request(section), REQUESTS).boxed());
        let json = json.to_string();
        let sockets = vec(socket::request(), if policy.sockets.is_some() { REQUESTS } else { 0 });
        let requests = (nets, devices, sysctls, sockets, sockopts, unix);
        requests.prop_map(move |(nets, devices, sysctls, sockets, sockopts, unix)| Case {
            json: json.clone(),
            policy: policy.clone(),
            nets,
            devices,
            sysctls,
            sockets,
            sockopts,
            unix,
        })
    })
}

/// Valid policies as JSON.
pub fn policy() -> impl Strategy<Value = Value> {
    policy_with(40)
}

/// Valid policies as JSON, with so few rules that a change to the text is likely to matter.
pub fn small_policy() -> impl Strategy<Value = Value> {
    policy_with(3)
}

fn policy_with(rules: usize) -> impl Strategy<Value = Value> {
    let keys = (
        optional("$schema", Just(json!("https://example.org/policy.schema.json"))),
        optional("mode", select(&["enforce", "audit"][..])),
        optional("record", select(&["denials", "flows"][..])),
        optional("network", section(net::rule(), rules, net::rule())),
        optional("devices", section(device::rule(), rules, device::rule())),
        // Fewer: what wildcards cost is multiplied by every further one.
        optional("sysctls", section(sysctl::rule(), rules.min(12), sysctl::plain_rule())),
        optional("sockets", section(socket::rule(), rules, socket::rule())),
        optional("sockopts", section(sockopt::rule(), rules, sockopt::rule())),
        optional("unix", section(unix::rule(), rules.min(12), unix::plain_rule())),
    );
    let process = optional("process", process::section());
    (keys, process).prop_map(|(keys, process)| {
        let (schema, mode, record, network, devices, sysctls, sockets, sockopts, unix) = keys;
        let version = Some(("version", json!(1)));
        object([version, schema, mode, record, network, devices, sysctls, sockets, sockopts, unix, process])
    })
}

/// Parses a policy that is valid.
pub fn parse(json: &str) -> Resolved {
    let document = Document::new(Path::new("generated.json"), json.as_bytes().to_vec());
    document.resolve(&Memory).unwrap_or_else(|error| panic!("{error}\n{json}"))
}

/// A machine with some of the devices that Linux always has (drivers/char/mem.c).
pub struct Memory;

impl Machine for Memory {
    fn device(&self, path: &Path) -> Result<DeviceNode, String> {
        let minor = match path.to_str() {
            Some("/dev/null") => 3,
            Some("/dev/zero") => 5,
            Some("/dev/full") => 7,
            _ => return Err("no device node".to_owned()),
        };
        Ok(DeviceNode { kind: Type::Char, major: 1, minor })
    }

    fn surroundings(&self) -> Result<Surroundings, String> {
        Ok(Surroundings::parse("nameserver 127.0.0.53\nsearch example.test\n", "127.0.0.1 localhost\n"))
    }
}

/// Sections with up to `few` rules of the one kind, or now and then with as many as there can be of the other.
fn section(
    rule: impl Strategy<Value = Value> + 'static,
    few: usize,
    rule_of_many: impl Strategy<Value = Value> + 'static,
) -> impl Strategy<Value = Value> {
    let rule = (rule, option::weighted(0.3, any::<bool>())).prop_map(|(mut rule, report)| {
        if let Some(report) = report.filter(|report| *report || rule["action"] == "deny") {
            rule["report"] = report.into();
        }
        rule
    });
    let rules = prop_oneof![
        30 => vec(rule, 0..=few).prop_map(Value::Array),
        1 => vec(rule_of_many, 256).prop_map(Value::Array),
    ];
    (action(), optional("rules", rules), optional("reason", reason()))
        .prop_map(|(default, rules, reason)| object([Some(("default", default)), rules, reason]))
}

fn reason() -> impl Strategy<Value = String> {
    select(&["ask ops", "\u{1b}[2J", "ö"][..]).prop_map(str::to_owned)
}

fn action() -> impl Strategy<Value = Value> {
    select(&["allow", "deny"][..]).prop_map(Value::from)
}

/// A key that may be left out.
fn optional<T: Into<Value>>(
    key: &'static str,
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = Option<(&'static str, Value)>> {
    option::weighted(0.7, value).prop_map(move |value| Some((key, value?.into())))
}

fn object<const N: usize>(keys: [Option<(&str, Value)>; N]) -> Value {
    let keys = keys.into_iter().flatten().map(|(key, value)| (key.to_owned(), value));
    Value::Object(keys.collect::<Map<_, _>>())
}

/// The tables' own decision on a request.
pub trait DecidedBy<Tables> {
    fn decided_by(&self, tables: &Tables) -> Decision;
}

impl DecidedBy<NetTables> for Net {
    fn decided_by(&self, tables: &NetTables) -> Decision {
        let address = Address::from_bits(self.address.to_bits());
        let protocol = Protocol::from_ipproto(self.protocol.into());
        let op = Op::ALL[usize::from(self.op)];
        tables.decide(&Request { op, protocol, address, port: self.port, own: self.own.into() })
    }
}

impl DecidedBy<SocketTables> for Socket {
    fn decided_by(&self, tables: &SocketTables) -> Decision {
        let Self { family, kind, protocol } = *self;
        tables.decide(&SocketRequest { family, kind, protocol, padding: 0 })
    }
}

impl DecidedBy<DeviceTables> for Device {
    fn decided_by(&self, tables: &DeviceTables) -> Decision {
        let Self { kind, major, minor, access } = *self;
        tables.decide(&DeviceRequest { kind, access, major, minor })
    }
}

impl DecidedBy<SysctlTables> for Sysctl {
    fn decided_by(&self, tables: &SysctlTables) -> Decision {
        let mut name = [0; NAME_LEN];
        name[..self.name.len()].copy_from_slice(&self.name);
        tables.decide(&name, Access::from_write(self.write.into()))
    }
}

impl DecidedBy<SockoptTables> for Sockopt {
    fn decided_by(&self, tables: &SockoptTables) -> Decision {
        let Self { level, option, set } = *self;
        tables.decide(&SockoptRequest { level, option, access: if set { access::SET } else { access::GET } })
    }
}

impl DecidedBy<UnixTables> for Unix {
    fn decided_by(&self, tables: &UnixTables) -> Decision {
        let (length, name) = self.padded();
        tables.decide(&Peer { kind: self.kind, length: length.into(), name: &name, own: self.own.into() })
    }
}
