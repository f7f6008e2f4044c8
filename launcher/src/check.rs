//! `guard-run check`: validates a policy and prints what it means.

use std::{collections::BTreeMap, ffi::OsStr, net::IpAddr};

use advice::{Side, hidden};
use common::{
    MAX_RULES, RuleSet,
    decision::DEFAULT,
    net::{Address, Op, Protocol, Request},
};
use enforce::{exit, outlet::tell};
use policy::{
    self, Action, Origin, Policy, Resolved, Surroundings,
    compile::{NameTables, Tables},
};
use report::text::pretty_json;
use serde::Serialize;

use crate::{
    chosen::{Compiled, choose},
    harden::{missing_here, unmet},
};

/// A policy with all names of sets resolved, and what follows from it.
#[derive(Serialize)]
struct Meaning<'a> {
    #[serde(flatten)]
    policy: &'a Policy,
    /// The hooks at which it will be enforced.
    hooks: Vec<&'static str>,
    /// The sections that it leaves out, which restrict nothing.
    unrestricted: Vec<&'static str>,
    /// Whom host names are asked of, and what is searched behind them.
    #[serde(skip_serializing_if = "Option::is_none")]
    names: Option<Names>,
    /// Which rules are of which file, if there are several.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    rules_from: BTreeMap<String, String>,
    /// What it allows that its writer may not expect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

/// What follows from host names in rules.
#[derive(Serialize)]
struct Names {
    nameservers: Vec<IpAddr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    search: Vec<String>,
    /// How many names can be asked for: entries in the kernel's table. All below one count as one.
    count: usize,
    /// These, with what is searched behind them.
    asked: Vec<String>,
    /// Addresses that are in /etc/hosts, which nobody is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    known: Vec<Known>,
}

/// A name and its address.
#[derive(Serialize)]
struct Known {
    name: String,
    address: IpAddr,
}

impl Names {
    fn new(names: &NameTables, surroundings: &Surroundings) -> Self {
        let hosts = surroundings.hosts.iter().filter(|(name, _)| names.decide(name).rule != DEFAULT);
        let mut asked: Vec<String> =
            names.names.iter().filter(|(_, rules)| *rules != RuleSet::NONE).map(|(name, _)| name.to_string()).collect();
        asked.sort();
        Self {
            nameservers: names.nameservers().collect(),
            search: surroundings.search.clone(),
            count: asked.len(),
            asked,
            known: hosts.map(|(name, address)| Known { name: name.clone(), address: *address }).collect(),
        }
    }
}

/// Validates a policy and prints it, resolved, on standard output.
///
/// # Errors
///
/// When it isn't valid.
pub fn check(word: &OsStr) -> anyhow::Result<u8> {
    let Compiled { policy, tables, .. } = choose(Some(word))?.compile()?;
    let hooks = tables.hooks().into_iter().map(common::record::Hook::name).collect();
    let notes = broadcast(&policy, &tables)
        .into_iter()
        .chain(unmet(&policy).into_iter().map(|unmet| unmet.note))
        .chain(tunnel(&tables));
    let notes = notes.chain(unreported(&policy));
    let notes = notes.chain(idle(&policy, &tables)).collect();
    let names = tables.names().map(|names| Names::new(names, policy.surroundings()));
    let rules_from = policy.origins.iter().map(|origin| (origin.whole(), place(origin))).collect();
    let meaning = Meaning { policy: &policy, rules_from, hooks, unrestricted: tables.unrestricted(), names, notes };
    println!("{}", String::from_utf8(pretty_json(&meaning)?)?);
    // Beside the policy's meaning, which is the same on all machines.
    if let Some(missing) = missing_here(&policy, &tables) {
        tell(&format!("note: this machine can't enforce it: {missing}"));
    }
    Ok(exit::OK)
}

/// Where a rule stands, for people.
fn place(origin: &Origin) -> String {
    let (document, pointer) = (&origin.document, origin.pointer());
    let line = document.line_of(&pointer).map(|line| format!(" (line {line})")).unwrap_or_default();
    format!("{}: {pointer}{line}", document.path().display())
}

/// Says which rules earlier ones hide.
fn idle(policy: &Resolved, tables: &Tables) -> Option<String> {
    // Where names can be told apart in too many ways, nothing is said.
    let hidden = hidden(Side { policy, tables }).ok().filter(|hidden| !hidden.is_empty())?;
    let verb = if hidden.len() == 1 { "never decides" } else { "never decide" };
    Some(format!("{} {verb}: earlier rules match all that they do", hidden.join(", ")))
}

/// Addresses that every host on a link hears: 255.255.255.255, 224.0.0.1 and ff02::1.
const EVERYBODY: [(&str, u128); 3] = [
    ("255.255.255.255", 0xffff_ffff_ffff),
    ("224.0.0.1", 0xffff_e000_0001),
    ("ff02::1", 0xff02_0000_0000_0000_0000_0000_0000_0001),
];

/// Says which rules deny without a word.
fn unreported(policy: &Policy) -> Option<String> {
    let rules: Vec<String> = policy
        .unreported()
        .iter()
        .flat_map(|(section, rules)| {
            let unreported = (0..MAX_RULES).filter(|rule| rules.contains(*rule));
            unreported.map(move |rule| format!("/{section}/rules/{rule}"))
        })
        .collect();
    let rules = (!rules.is_empty()).then(|| rules.join(", "))?;
    Some(format!("what {rules} denies is counted, but is no event, and nothing for --fail-on-deny"))
}

/// Says so if names can carry anything.
fn tunnel(tables: &Tables) -> Option<String> {
    (tables.names()?.table.any_query != 0).then(|| {
        "anything can be asked of the nameservers, so that names can carry anything to anybody who owns them; to have only names of the \
         rules asked for, leave out \"queries\" and rules that allow port 53 of nameservers"
            .to_owned()
    })
}

/// Says so if a host to which datagrams are denied hears those that may be sent to everybody.
fn broadcast(policy: &Policy, tables: &Tables) -> Option<String> {
    let (section, network) = (policy.network.as_ref()?, tables.network.as_ref()?);
    let denies = |rule: &policy::NetRule| {
        let sends = rule.ops.as_ref().is_none_or(|ops| ops.contains(&policy::Op::Send));
        let by_udp = |protocol: &policy::Protocol| matches!(protocol, policy::Protocol::Udp | policy::Protocol::Any);
        let by_udp = rule.protocols.as_ref().is_none_or(|protocols| protocols.iter().any(by_udp));
        rule.action == Action::Deny && rule.hosts.is_some() && sends && by_udp
    };
    let rule = section.rules.iter().position(denies)?;
    let port = section.rules[rule].ports.iter().flatten().next().map_or(1, |range| range.first());
    let allowed = |bits| {
        let address = Address::from_bits(bits);
        network.decide(&Request { op: Op::SEND, protocol: Protocol::UDP, address, port, own: 0 }).allow
    };
    let heard: Vec<&str> = EVERYBODY.iter().filter(|(_, bits)| allowed(*bits)).map(|(name, _)| *name).collect();
    if heard.is_empty() {
        return None;
    }
    Some(format!(
        "hosts that /network/rules/{rule} denies hear datagrams to {}, which are allowed; to deny these, too, add \
         \"255.255.255.255\" and \"multicast\" to its hosts",
        heard.join(", ")
    ))
}
