//! What of a policy does nothing, and the policy without it.
//!
//! That a rule is hidden, the tables tell alone. That nothing needed one, logs tell of connections and datagrams, if they have flows; of
//! what else was allowed they say nothing, so rules on anything else are left as they are, and so is what denies.

use std::{fmt, net::IpAddr};

use common::{MAX_RULES, net::EPHEMERAL};
use jsonc_parser::{
    ParseOptions,
    cst::{CstNode, CstRootNode},
};
use policy::{Action, Host, NetRule, Op, PortRange, Prefix, Protocol, Resolved, compile::Tables};
use report::text::OneLine;
use serde::Serialize;

use crate::{Judge, Record, Side, TooManyNames, compare::hidden, layout};

/// Something that does nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Idle {
    /// Where it is in the policy: a JSON pointer.
    pub pointer: String,
    /// What is written there, on one line.
    pub text: String,
    /// Why it does nothing.
    pub why: Why,
}

/// Why something does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// Earlier rules match all that it does.
    Hidden,
    /// Nothing in the logs needed it.
    Unused,
}

/// What a policy is without what does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tidied {
    /// What was left out.
    pub idle: Vec<Idle>,
    /// The policy's text without it, laid out as it was.
    pub text: String,
}

/// The use that logs make of the rules of a network section.
#[derive(Debug)]
pub struct Usage<'a> {
    judge: Judge<'a>,
    rules: &'a [NetRule],
    used: Vec<Used>,
    /// Whether sockets can send packets of which there are no flows.
    packets: bool,
    flows: u64,
}

/// The use of one rule.
#[derive(Clone, Debug)]
struct Used {
    rule: bool,
    hosts: Vec<bool>,
    ports: Vec<bool>,
}

impl<'a> Usage<'a> {
    /// Nothing was used so far.
    #[must_use]
    pub fn new(policy: &'a Resolved, tables: &'a Tables) -> Self {
        let rules: &[NetRule] = policy.network.as_ref().map_or(&[], |section| &section.rules);
        let unused = |rule: &NetRule| {
            let count = |list: usize| vec![false; list];
            Used {
                rule: false,
                hosts: count(rule.hosts.as_ref().map_or(0, Vec::len)),
                ports: count(rule.ports.as_ref().map_or(0, Vec::len)),
            }
        };
        let packets = tables.sockets.as_ref().is_some_and(|sockets| sockets.table.packets != 0);
        Self { judge: Judge::new(tables), rules, used: rules.iter().map(unused).collect(), packets, flows: 0 }
    }

    /// Notes by which rules a record is decided, and by which of their hosts and ports.
    pub fn add(&mut self, record: &Record) {
        let (judgement, network, incoming) = match record {
            Record::Event(event) => match &event.subject {
                report::Subject::Network(network) => (self.judge.event(event), network, event.op == "receive"),
                _ => return,
            },
            Record::Flow(flow) => {
                self.flows += 1;
                (self.judge.flow(flow), &flow.network, flow.direction == "incoming")
            }
        };
        let Some(judgement) = judgement else { return };
        for index in (0..self.rules.len().min(MAX_RULES)).filter(|rule| judgement.rules.contains(*rule)) {
            let (rule, used) = (&self.rules[index], &mut self.used[index]);
            used.rule = true;
            for (host, used) in rule.hosts.iter().flatten().zip(&mut used.hosts) {
                *used |= is_host(host, network.address, network.host.as_deref());
            }
            for (range, used) in rule.ports.iter().flatten().zip(&mut used.ports) {
                // Of who came, the log doesn't say from which port.
                *used |= incoming || (range.first()..=range.last()).contains(&network.port);
            }
        }
    }

    /// What nothing used: rules that allow to reach and be reached, and hosts and ports of others.
    fn unused(&self) -> Vec<String> {
        let mut pointers = Vec::new();
        if self.flows == 0 {
            return pointers;
        }
        for (index, (rule, used)) in self.rules.iter().zip(&self.used).enumerate() {
            if !self.is_told_of(rule) {
                continue;
            }
            let rule = format!("/network/rules/{index}");
            if !used.rule {
                pointers.push(rule);
                continue;
            }
            for (key, all) in [("hosts", &used.hosts), ("ports", &used.ports)] {
                // One at least is left: an empty list would be no policy.
                if all.contains(&true) {
                    let unused = all.iter().enumerate().filter(|(_, used)| !**used);
                    pointers.extend(unused.map(|(place, _)| format!("{rule}/{key}/{place}")));
                }
            }
        }
        pointers
    }

    /// Whether logs with flows tell of all that a rule may be needed for.
    fn is_told_of(&self, rule: &NetRule) -> bool {
        let binds = rule.ops.as_ref().is_none_or(|ops| ops.contains(&Op::Bind));
        // Where a socket of this host's is bound, in nearly all cases.
        let usual = [0, 1, Prefix::ALL_V4.bits(), 0xffff_7f00_0001].map(|bits| Prefix::around(bits, 128));
        let is_usual = |network: &Prefix| usual.iter().any(|address| network.covers(*address));
        let own = |hosts: &Vec<Host>| {
            hosts.iter().any(|host| matches!(host, Host::Sandbox) || host.networks().iter().any(is_usual))
        };
        let chosen = rule.ports.iter().flatten().any(|range: &PortRange| range.first() == EPHEMERAL);
        let told = |protocol: &Protocol| matches!(protocol, Protocol::Tcp | Protocol::Udp);
        let protocols = !self.packets || rule.protocols.as_ref().is_some_and(|all| all.iter().all(told));
        rule.action == Action::Allow && protocols && !(binds && (chosen || rule.hosts.as_ref().is_none_or(own)))
    }
}

/// Whether a peer is one of a rule's hosts, as far as a log tells it.
fn is_host(host: &Host, address: IpAddr, name: Option<&str>) -> bool {
    match host {
        Host::Networks(networks) => networks.iter().any(|network| network.covers(Prefix::host(address))),
        Host::Sandbox => address.is_loopback(),
        // The log has all names that led there.
        Host::Name(meant) => {
            name.is_none_or(|names| names.split(", ").any(|name| meant.has(&name.to_ascii_lowercase())))
        }
        // What it holds stands in its place.
        Host::Set(_) => false,
    }
}

/// Leaves out of a policy's text what does nothing.
///
/// # Errors
///
/// When the names of the policy can be told apart in too many ways.
pub fn tidy(side: Side, usage: &Usage, text: &str) -> Result<Tidied, TooManyNames> {
    let hidden = hidden(side)?;
    let within = |pointer: &str| hidden.iter().any(|rule| pointer == rule || pointer.starts_with(&format!("{rule}/")));
    let unused: Vec<String> = usage.unused().into_iter().filter(|pointer| !within(pointer)).collect();
    let all =
        hidden.iter().map(|pointer| (pointer, Why::Hidden)).chain(unused.iter().map(|pointer| (pointer, Why::Unused)));
    let Ok(root) = CstRootNode::parse(text, &ParseOptions::default()) else {
        // It was parsed as a policy, so this can't be; nothing is left out.
        return Ok(Tidied { idle: vec![], text: text.to_owned() });
    };
    let found: Vec<(Idle, CstNode)> = all
        .filter_map(|(pointer, why)| {
            let node = layout::node(&root, pointer)?;
            let words: Vec<String> = node.to_string().split_whitespace().map(ToOwned::to_owned).collect();
            Some((Idle { pointer: pointer.clone(), text: words.join(" "), why }, node))
        })
        .collect();
    // The nodes stay the same ones while others are removed.
    let (idle, nodes): (Vec<Idle>, Vec<CstNode>) = found.into_iter().unzip();
    nodes.into_iter().for_each(CstNode::remove);
    Ok(Tidied { idle, text: root.to_string() })
}

impl fmt::Display for Tidied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.idle.is_empty() {
            return f.write_str("Everything in it does something.\n");
        }
        for Idle { pointer, text, why } in &self.idle {
            let why = match why {
                Why::Hidden => "earlier rules match all that it does",
                Why::Unused => "nothing in the logs needed it",
            };
            writeln!(f, "{}: {why}: {}", OneLine(pointer), OneLine(text))?;
        }
        Ok(())
    }
}
