//! What of a policy does nothing, and the policy without it.
//!
//! What is left out is tried: without it, the policy has to be one, allow no more, and decide alike on what the logs tell. What doesn't go
//! together with that is left as it is; and so is what other files have, which the policy includes.
//!
//! That a rule is hidden, the tables tell alone. That nothing needed one, logs tell of connections and datagrams, if they have flows; of
//! what else was allowed they say nothing, so rules on anything else are left as they are, and so is what denies.

use std::{fmt, net::IpAddr};

use common::{MAX_RULES, RuleSet, net::EPHEMERAL};
use jsonc_parser::{
    ParseOptions,
    cst::{CstNode, CstRootNode},
};
use policy::{Action, Host, NetRule, Op, PortRange, Prefix, Protocol, Resolved, compile::Tables};
use report::{Subject, text::OneLine};
use serde::Serialize;
use serde_json::Value;

use crate::{
    Judge, Judgement, Record, Side, TooManyNames,
    compare::{compare, hidden},
    layout,
};

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
    /// It is a set that no rule names, or none any more.
    Unnamed,
}

/// What a policy is without what does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tidied {
    /// What was left out.
    pub idle: Vec<Idle>,
    /// What does nothing and is left as it is: what, and why, for people.
    pub left: Vec<String>,
    /// Whether it is known what was needed: logs have told.
    pub by_logs: bool,
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

/// What may be unused of a network section.
enum Unused {
    /// A rule.
    Rule(usize),
    /// Values of a list of a rule: which of them are used.
    Of(usize, &'static str, Vec<bool>),
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
        let judgement = match record {
            Record::Event(event) => self.judge.event(event),
            Record::Flow(flow) => {
                self.flows += 1;
                self.judge.flow(flow)
            }
        };
        let (network, incoming) = match record {
            Record::Flow(flow) => (&flow.network, flow.direction == "incoming"),
            Record::Event(event) => match &event.subject {
                Subject::Network(network) => (network, event.op == "receive"),
                Subject::Name(name) => return self.resolved(judgement, &name.name),
                _ => return,
            },
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

    /// Notes by which rules a name is decided. Which ports it was for, nobody knows then.
    fn resolved(&mut self, judgement: Option<Judgement>, name: &str) {
        let rules = judgement.map_or(RuleSet::NONE, |judgement| judgement.rules);
        for index in (0..self.rules.len().min(MAX_RULES)).filter(|rule| rules.contains(*rule)) {
            let (rule, used) = (&self.rules[index], &mut self.used[index]);
            used.rule = true;
            for (host, used) in rule.hosts.iter().flatten().zip(&mut used.hosts) {
                *used |= matches!(host, Host::Name(meant) if meant.has(&name.to_ascii_lowercase()));
            }
        }
    }

    /// Whether any log tells what was reached.
    #[must_use]
    pub const fn has_flows(&self) -> bool {
        self.flows > 0
    }

    /// What nothing used: rules that allow to reach and be reached, and hosts and ports of others, by their numbers.
    fn unused(&self) -> Vec<Unused> {
        let mut unused = Vec::new();
        if !self.has_flows() {
            return unused;
        }
        for (index, (rule, used)) in self.rules.iter().zip(&self.used).enumerate() {
            if !self.is_told_of(rule) {
                continue;
            }
            if used.rule {
                unused.push(Unused::Of(index, "hosts", used.hosts.clone()));
                unused.push(Unused::Of(index, "ports", used.ports.clone()));
            } else {
                unused.push(Unused::Rule(index));
            }
        }
        unused
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

/// Leaves out of a policy's text what does nothing. `read` makes a policy of a text that stands in this one's place.
///
/// # Errors
///
/// When the names of the policy can be told apart in too many ways.
pub fn tidy(
    side: Side,
    usage: &Usage,
    text: &str,
    read: &dyn Fn(&str) -> Option<Resolved>,
) -> Result<Tidied, TooManyNames> {
    let hidden = hidden(side)?;
    let Ok(root) = CstRootNode::parse(text, &ParseOptions::default()) else {
        // It was parsed as a policy, so this can't be; nothing is left out.
        return Ok(Tidied { idle: vec![], left: vec![], by_logs: false, text: text.to_owned() });
    };
    let place = Place { policy: side.policy, text };
    let mut left = Vec::new();
    let mut all: Vec<(String, Why)> = Vec::new();
    for rule in &hidden {
        match place.of(rule) {
            Ok(pointer) => all.push((pointer, Why::Hidden)),
            Err(elsewhere) => left.push(format!("{elsewhere}: earlier rules match all that it does")),
        }
    }
    for unused in usage.unused() {
        let (Unused::Rule(index) | Unused::Of(index, ..)) = unused;
        let rule = format!("/network/rules/{index}");
        if hidden.contains(&rule) {
            continue;
        }
        match (place.of(&rule), &unused) {
            (Ok(pointer), Unused::Rule(_)) => all.push((pointer, Why::Unused)),
            (Ok(pointer), Unused::Of(_, key, used)) => {
                let list = format!("{pointer}/{key}");
                let places = unused_places(&root, &list, used);
                all.extend(places.into_iter().map(|place| (format!("{list}/{place}"), Why::Unused)));
            }
            (Err(elsewhere), Unused::Rule(_)) => left.push(format!("{elsewhere}: nothing in the logs needed it")),
            (Err(_), Unused::Of(..)) => {}
        }
    }
    let proved = |pointers: &[&str]| {
        let shorter = without(text, pointers)?;
        let policy = read(&shorter)?;
        let tables = Tables::compile(&policy).ok()?;
        let other = Side { policy: &policy, tables: &tables };
        let is_alike = compare(side, other).ok()?.wider.is_empty() && usage.judge.is_alike(&tables);
        is_alike.then_some(shorter)
    };
    let mut out: Vec<(String, Why)> = all.clone();
    let mut shorter = proved(&pointers(&out));
    if shorter.is_none() {
        // Rules imply more than what they allow: what sockets may do, or asking nameservers. One by one, then.
        out.clear();
        for idle in all {
            out.push(idle);
            match proved(&pointers(&out)) {
                Some(proved) => shorter = Some(proved),
                None => left.extend(out.pop().map(|(pointer, _)| {
                    format!("{pointer}: it does nothing by itself, but without it the policy would allow more, or deny what the logs tell of")
                })),
            }
        }
    }
    let after = shorter.clone().unwrap_or_else(|| text.to_owned());
    for set in unnamed(&after) {
        out.push((format!("/sets/{set}"), Why::Unnamed));
        match proved(&pointers(&out)) {
            Some(proved) => shorter = Some(proved),
            None => drop(out.pop()),
        }
    }
    let written = |pointer: &str| {
        let node = layout::node(&root, pointer).map(|node| node.to_string()).unwrap_or_default();
        node.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let idle = out.into_iter().map(|(pointer, why)| Idle { text: written(&pointer), pointer, why });
    let text = shorter.unwrap_or_else(|| text.to_owned());
    Ok(Tidied { idle: idle.collect(), left, by_logs: usage.has_flows(), text })
}

fn pointers(all: &[(String, Why)]) -> Vec<&str> {
    all.iter().map(|(pointer, _)| &**pointer).collect()
}

/// Where a policy's rules are written.
struct Place<'a> {
    policy: &'a Resolved,
    text: &'a str,
}

impl Place<'_> {
    /// The pointer of a rule in the policy's own file, by its pointer in the whole policy.
    ///
    /// # Errors
    ///
    /// When another file has it, which is included: where, for people.
    fn of(&self, whole: &str) -> Result<String, String> {
        let Some(origin) = self.policy.origins.iter().find(|origin| origin.whole() == whole) else {
            return Ok(whole.to_owned());
        };
        if origin.document.text() == self.text.as_bytes() {
            return Ok(origin.pointer());
        }
        Err(format!("{}: {}", origin.document.path().display(), origin.pointer()))
    }
}

/// The places in a list, as it is written, of which nothing is used. What a set holds stands in its place, so `used` may be longer. One at
/// least is left: an empty list would be no policy.
fn unused_places(root: &CstRootNode, list: &str, used: &[bool]) -> Vec<usize> {
    let elements = layout::node(root, list).and_then(|node| node.as_array()).map(|list| list.elements());
    let elements: Vec<String> = elements.into_iter().flatten().map(|element| element.to_string()).collect();
    let width = |element: &String| {
        let set = element.strip_prefix("\"@").and_then(|set| set.strip_suffix('"'));
        let hosts = |set: &str| Some(layout::node(root, &format!("/sets/{set}"))?.as_array()?.elements().len());
        set.map_or(Some(1), hosts)
    };
    let widths: Option<Vec<usize>> = elements.iter().map(width).collect();
    // The sets of other files are not known here.
    let Some(widths) = widths.filter(|widths| widths.iter().sum::<usize>() == used.len()) else { return Vec::new() };
    let mut rest = used;
    let mut unused = Vec::new();
    for (place, width) in widths.into_iter().enumerate() {
        let (these, after) = rest.split_at(width);
        if !these.contains(&true) {
            unused.push(place);
        }
        rest = after;
    }
    if unused.len() == elements.len() { Vec::new() } else { unused }
}

/// The text without what is at these pointers.
fn without(text: &str, pointers: &[&str]) -> Option<String> {
    let root = CstRootNode::parse(text, &ParseOptions::default()).ok()?;
    // The nodes stay the same ones while others are removed.
    let nodes: Option<Vec<CstNode>> = pointers.iter().map(|pointer| removable(&root, pointer)).collect();
    nodes?.into_iter().for_each(CstNode::remove);
    Some(root.to_string())
}

/// What has to be removed for what is at a pointer: of an object, the key goes with the value.
fn removable(root: &CstRootNode, pointer: &str) -> Option<CstNode> {
    let node = layout::node(root, pointer)?;
    Some(match node.parent() {
        Some(parent) if parent.as_object_prop().is_some() => CstNode::Container(parent),
        _ => node,
    })
}

/// The sets that no rule of a text names.
fn unnamed(text: &str) -> Vec<String> {
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    let rules = json["network"]["rules"].as_array().into_iter().flatten();
    let named: Vec<&str> = rules
        .filter_map(|rule| rule["hosts"].as_array())
        .flatten()
        .filter_map(|host| host.as_str()?.strip_prefix('@'))
        .collect();
    let sets = json["sets"].as_object().into_iter().flatten();
    sets.map(|(name, _)| name.clone()).filter(|name| !named.contains(&&**name)).collect()
}

impl fmt::Display for Tidied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.idle.is_empty() && self.left.is_empty() {
            return f.write_str(if self.by_logs {
                "Everything in it does something.\n"
            } else {
                "No rule in it is hidden by earlier ones.\n"
            });
        }
        for Idle { pointer, text, why } in &self.idle {
            let why = match why {
                Why::Hidden => "earlier rules match all that it does",
                Why::Unused => "nothing in the logs needed it",
                Why::Unnamed => "no rule names it",
            };
            writeln!(f, "{}: {why}: {}", OneLine(pointer), OneLine(text))?;
        }
        for left in &self.left {
            writeln!(f, "left as it is: {}", OneLine(left))?;
        }
        Ok(())
    }
}
