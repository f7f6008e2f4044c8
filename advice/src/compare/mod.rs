//! What one policy allows and another does not, computed from their tables: whole sets, not samples.
//!
//! Tables divide what can be asked for (addresses, ports, names, devices …) into few parts that neither policy tells apart. One request of
//! each part is judged by `decide()` itself, with both tables.
//!
//! What follows from rules rather than being asked for is not compared by itself: ports that the kernel chooses for listeners and UDP
//! sockets, groups that are joined, and IP_RECVERR.

mod globs;
mod hidden;
mod masks;
mod net;
mod process;
mod show;
mod steps;

use std::collections::BTreeSet;

use common::Decision;
use policy::{Resolved, compile::Tables};
use report::Cause;
use serde::Serialize;

pub use hidden::hidden;

/// A policy and what it is compiled to.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The policy.
    pub policy: &'a Resolved,
    /// The policy's tables.
    pub tables: &'a Tables,
}

/// Why two policies can't be compared.
#[derive(Debug, thiserror::Error)]
#[error(
    "{section}: the names in both policies can be told apart in more than {limit} ways; compare policies with fewer wildcards"
)]
pub struct TooManyNames {
    /// The section.
    pub section: &'static str,
    /// How many ways can be compared.
    pub limit: usize,
}

/// What two policies, A and B, decide differently.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// What B allows and A denies.
    pub wider: Vec<Difference>,
    /// What A allows and B denies.
    pub narrower: Vec<Difference>,
}

/// Requests that one policy allows by one rule, and the other one denies by another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The requests.
    #[serde(flatten)]
    pub extent: Extent,
    /// What allows them: a JSON pointer into the one policy, `default`, `no section` or `mode`.
    pub allowed_by: String,
    /// What denies them: a JSON pointer into the other policy, `default`, or `fail-closed`.
    pub denied_by: String,
    /// A request of these, as `guard-run explain` takes it where it does.
    pub example: String,
}

/// Requests of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Extent {
    /// Requests to the network: all combinations of what is listed.
    Network(Network),
    /// Unix sockets, of which the example is one.
    Unix {
        /// `path`, `abstract` or `unnamed`; with `sandbox ` before it, the sandbox's own alone.
        names: &'static str,
    },
    /// Devices.
    Devices {
        /// `b` or `c`.
        #[serde(rename = "type")]
        kind: &'static str,
        /// Major number; `None` for each that neither policy names.
        major: Option<u32>,
        /// Minor number, likewise.
        minor: Option<u32>,
        /// Some of `r`, `w` and `m`.
        access: String,
    },
    /// Tunables, of which the example is one.
    Sysctls {
        /// `r` or `w`.
        access: &'static str,
    },
    /// Sockets.
    Sockets {
        /// `inet` or `inet6`.
        family: &'static str,
        /// The type's name, or `other`.
        #[serde(rename = "type")]
        kind: &'static str,
        /// The protocol's name or number, or `other`.
        protocol: String,
    },
    /// Socket options.
    Sockopts {
        /// `get` or `set`.
        access: &'static str,
        /// The level's name or number, or `other`.
        level: String,
        /// The option's name or number, or `other`.
        option: String,
    },
    /// What keeps the command inside beside the rules.
    Process {
        /// The key of the section: `allow`, `capabilities`, `families` or `architectures`.
        key: &'static str,
        /// What is in it in one policy alone.
        value: String,
    },
    /// Everything: the one policy is in audit mode, and denies nothing.
    Mode(&'static str),
}

/// Requests to the network: all combinations of what is listed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Network {
    /// `connect`, `bind`, `send`, `receive` or `resolve`.
    pub ops: Vec<&'static str>,
    /// `tcp`, `udp`, `icmp` and `other`.
    pub protocols: Vec<&'static str>,
    /// Networks, ranges of no more than two addresses as such, `any`, `sandbox`, and host names.
    pub hosts: Vec<String>,
    /// The peers' ports, or for `bind` the socket's own; nothing stands for all.
    pub ports: Vec<String>,
    /// The ports at which it is received; nothing stands for all.
    pub local_ports: Vec<String>,
}

/// Compares policy B with policy A.
///
/// # Errors
///
/// When names with wildcards overlap in too many ways.
pub fn compare(a: Side, b: Side) -> Result<Comparison, TooManyNames> {
    Ok(look(a, b)?.comparison)
}

/// Judges one request of each part that the tables of either policy tell apart.
fn look(a: Side, b: Side) -> Result<Found, TooManyNames> {
    let mut found = Found::default();
    process::mode(a, b, &mut found);
    net::compare(a, b, &mut found);
    globs::unix(a, b, &mut found)?;
    masks::devices(a, b, &mut found);
    globs::sysctls(a, b, &mut found)?;
    masks::sockets(a, b, &mut found);
    masks::sockopts(a, b, &mut found);
    process::process(a, b, &mut found);
    Ok(found)
}

/// Two different decisions on the same requests, as far as they matter: by which rules, or by none for want of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Ways {
    /// Whether it is B that allows.
    wider: bool,
    /// A's rule.
    a: Option<u16>,
    /// B's rule.
    b: Option<u16>,
}

/// The decisions of A and B on a request; `None` where a policy has no such section, and nothing is denied.
type Decisions = [Option<Decision>; 2];

/// What was found so far.
#[derive(Default)]
struct Found {
    comparison: Comparison,
    /// The rules of A that decide about anything: section and number.
    deciding: BTreeSet<(&'static str, u16)>,
}

impl Found {
    /// Notes the decisions on a request of a section. `None` where they are the same but for the rule.
    fn judge(&mut self, section: &'static str, decisions: Decisions) -> Option<Ways> {
        self.deciding.extend(decisions[0].map(|decision| (section, decision.rule)));
        let [a_allows, b_allows] = decisions.map(|decision| decision.is_none_or(|decision| decision.allow));
        let [a, b] = decisions.map(|decision| decision.map(|decision| decision.rule));
        (a_allows != b_allows).then_some(Ways { wider: b_allows, a, b })
    }

    /// Adds requests of a section with the decisions on them.
    fn add(&mut self, section: &str, ways: Ways, extent: Extent, example: String) {
        let by =
            |rule: Option<u16>| rule.map_or_else(|| "no section".to_owned(), |rule| Cause::new(section, rule).rule);
        let (allowing, denying) = if ways.wider { (ways.b, ways.a) } else { (ways.a, ways.b) };
        self.put(ways.wider, Difference { extent, allowed_by: by(allowing), denied_by: by(denying), example });
    }

    /// Adds what B allows, or A.
    fn put(&mut self, wider: bool, difference: Difference) {
        let Comparison { wider: more, narrower: less } = &mut self.comparison;
        if wider { more } else { less }.push(difference);
    }
}
