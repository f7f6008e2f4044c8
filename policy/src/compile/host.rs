//! Which name an address was learnt for.
//!
//! The kernel keeps of an address the set of rules that have its name. A set has room for [`MAX_RULES`] rules, and a policy has fewer: the
//! bits of those that it doesn't have say which names these were. A decision looks at the bits of the policy's own rules alone.

use std::net::IpAddr;

use common::{MAX_RULES, RuleSet};
use serde::{Deserialize, Serialize};

use crate::{HostName, NetRule};

/// How many names are shown for one address.
const SHOWN: usize = 4;

/// The names of a policy's rules, as far as addresses can be told to be theirs.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Hosts {
    /// How many rules the tables have.
    rules: usize,
    /// The one at place `i` has the bit `MAX_RULES - 1 - i`. Names for which there are no bits left are in no set.
    names: Vec<Named>,
    /// Addresses in /etc/hosts, and the place of their names.
    known: Vec<(IpAddr, usize)>,
}

/// A name or wildcard of rules.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Named {
    name: String,
    /// What its rules allow, for people: `by tcp on port 443`. Empty where that is everything, or nothing.
    allowed: String,
}

/// A host that an address was found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundBy {
    /// The address's name, or the wildcard that has it; of an address that several share, all of them, with commas between them.
    pub name: String,
    /// Why a request to it is denied that no rule is about.
    pub reason: Option<String>,
}

impl Hosts {
    pub(super) fn new(rules: usize) -> Self {
        Self { rules, names: Vec::new(), known: Vec::new() }
    }

    /// Gives a name a place, of which this set of the rules allow something. `None` where no more can be told apart.
    pub(super) fn place(&mut self, name: &HostName, rules: &[NetRule], set: &RuleSet) -> Option<usize> {
        let place = self.names.len();
        if place >= MAX_RULES - self.rules {
            return None;
        }
        let own = rules.iter().enumerate().filter(|(rule, _)| set.contains(*rule));
        let allowed: Vec<String> = own.map(|(_, rule)| allowed(rule)).collect();
        // A rule without any condition allows everything.
        let allowed = if allowed.iter().any(String::is_empty) { String::new() } else { allowed.join(", or ") };
        self.names.push(Named { name: name.to_string(), allowed });
        Some(place)
    }

    /// The bit that says of a set that an address was found by the name at a place.
    pub(super) const fn bit(place: usize) -> usize {
        MAX_RULES - 1 - place
    }

    /// The bits of all names.
    pub(super) fn bits(&self) -> impl Iterator<Item = usize> {
        (0..self.names.len()).map(Self::bit)
    }

    /// Of a set, what is the policy's rules.
    pub(super) fn only_rules(&self, set: &RuleSet) -> RuleSet {
        (0..self.rules).filter(|rule| set.contains(*rule)).collect()
    }

    /// Notes an address that the name with a bit in this set has without anybody being asked.
    pub(super) fn know(&mut self, set: &RuleSet, address: IpAddr) {
        let place = (0..self.names.len()).find(|place| set.contains(Self::bit(*place)));
        self.known.extend(place.map(|place| (address, place)));
    }

    /// The host that an address was found by, of which this set was learnt.
    #[must_use]
    pub fn of(&self, address: IpAddr, learnt: Option<&RuleSet>) -> Option<FoundBy> {
        let known = |place: usize| self.known.contains(&(address, place));
        let has = |place: usize| learnt.is_some_and(|set| set.contains(Self::bit(place)));
        let found: Vec<usize> = (0..self.names.len()).filter(|place| has(*place) || known(*place)).collect();
        let names: Vec<&str> = found.iter().map(|place| &*self.names[*place].name).take(SHOWN).collect();
        let more = if found.len() > SHOWN { ", …" } else { "" };
        let name = if names.is_empty() { return None } else { names.join(", ") + more };
        // Without any rule, the address was left out of what was learnt.
        let is_private =
            !found.iter().any(|place| known(*place)) && learnt.is_some_and(|set| self.only_rules(set) == RuleSet::NONE);
        let allowed = &self.names[found[0]].allowed;
        let reason = if is_private {
            Some(format!(
                "{name} has this address, which is not a public one; to allow that, write \"private\": true into the rule"
            ))
        } else {
            (found.len() == 1 && !allowed.is_empty()).then(|| format!("{name} is allowed {allowed}"))
        };
        Some(FoundBy { name, reason })
    }
}

fn list<T>(words: &[T], word: impl Fn(&T) -> String) -> String {
    words.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// What a rule allows of its hosts, for people. Empty if that is everything.
fn allowed(rule: &NetRule) -> String {
    let ops = rule.ops.as_ref().map(|ops| format!("for {}", list(ops, |op| op.word().to_owned())));
    let protocols = rule.protocols.as_ref();
    let protocols = protocols.map(|protocols| format!("by {}", list(protocols, |protocol| protocol.word().to_owned())));
    let ports = rule.ports.as_ref().map(|ports| {
        let one = ports.len() == 1 && ports[0].first() == ports[0].last();
        format!("on {} {}", if one { "port" } else { "ports" }, list(ports, ToString::to_string))
    });
    [ops, protocols, ports].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Document, Surroundings, compile::NameTables};

    fn tables(rules: &str, hosts: &[(&str, &str)]) -> NameTables {
        let text = format!(r#"{{"version": 1, "network": {{"default": "deny", "rules": [{rules}]}}}}"#);
        let policy = Document::new(Path::new("p.json"), text.into_bytes()).parse().unwrap();
        let hosts = hosts.iter().map(|(name, address)| ((*name).to_owned(), address.parse().unwrap())).collect();
        let nameservers = vec![[127, 0, 0, 53].into()];
        let surroundings =
            Surroundings { nameservers, search: vec!["corp.test".to_owned()], hosts, ..Surroundings::default() };
        NameTables::compile(policy.network.as_ref().unwrap(), &surroundings).unwrap()
    }

    const RULES: &str = r#"
        {"action": "deny", "hosts": ["no.example.org"]},
        {"action": "allow", "hosts": ["api.example.org", "www.example.org"], "protocols": ["tcp"], "ports": [443]},
        {"action": "allow", "hosts": ["*.example.org"], "ops": ["connect"], "protocols": ["udp"], "ports": [1, "5-6"]},
        {"action": "allow", "hosts": ["db"]}"#;

    /// What the kernel learns of an address by this name.
    fn learnt(tables: &NameTables, name: &str, is_private: bool) -> RuleSet {
        let set = tables.set(name);
        (0..MAX_RULES)
            .filter(|bit| set.contains(*bit) && (!is_private || tables.table.private.contains(*bit)))
            .collect()
    }

    fn found(tables: &NameTables, learnt: &RuleSet) -> Option<(String, Option<String>)> {
        let found = tables.hosts.of([203, 0, 113, 7].into(), Some(learnt))?;
        Some((found.name, found.reason))
    }

    #[test]
    fn an_address_is_told_with_its_name_and_what_that_is_allowed() {
        let tables = tables(RULES, &[]);
        let of = |name: &str| found(&tables, &learnt(&tables, name, false));
        let by_both = "is allowed by tcp on port 443, or for connect by udp on ports 1, 5-6";
        let table = [
            ("api.example.org", Some(("api.example.org", Some(format!("api.example.org {by_both}"))))),
            ("www.example.org", Some(("www.example.org", Some(format!("www.example.org {by_both}"))))),
            (
                "x.example.org",
                Some(("*.example.org", Some("*.example.org is allowed for connect by udp on ports 1, 5-6".to_owned()))),
            ),
            // All of these is allowed.
            ("db", Some(("db", None))),
            ("db.corp.test", Some(("db", None))),
            ("no.example.org", None),
            ("example.org", None),
        ];
        for (name, expected) in table {
            assert_eq!(of(name), expected.map(|(host, reason)| (host.to_owned(), reason)), "{name}");
        }
        let both = learnt(&tables, "api.example.org", false).or(&learnt(&tables, "x.example.org", false));
        assert_eq!(found(&tables, &both), Some(("*.example.org, api.example.org".to_owned(), None)));
        assert_eq!(found(&tables, &RuleSet::NONE), None);
    }

    #[test]
    fn of_a_private_address_that_was_left_out_the_way_to_allow_it_is_told() {
        let private = r#", {"action": "allow", "hosts": ["near.test"], "ports": [80], "private": true}"#;
        let tables = tables(&(RULES.to_owned() + private), &[]);
        let (host, reason) = found(&tables, &learnt(&tables, "db", true)).unwrap();
        assert_eq!(host, "db");
        assert!(reason.unwrap().contains("\"private\": true"));
        let near = found(&tables, &learnt(&tables, "near.test", true)).unwrap();
        assert_eq!(near, ("near.test".to_owned(), Some("near.test is allowed on port 80".to_owned())));
    }

    #[test]
    fn addresses_in_etc_hosts_have_their_names() {
        let tables = tables(RULES, &[("api.example.org", "203.0.113.7"), ("other", "203.0.113.8")]);
        let of = |last| tables.hosts.of([203, 0, 113, last].into(), None).map(|found| found.name);
        assert_eq!([7, 8, 9].map(of), [Some("api.example.org".to_owned()), None, None]);
    }

    /// However many rules and names there are, the bits of names are those of no rule, and no two names have one.
    #[test]
    fn names_never_look_like_rules() {
        for (rules, names) in [(1, 300), (200, 2), (256, 1), (255, 3)] {
            let hosts = |rule: usize| (0..names).map(|name| format!("\"n{name}.r{rule}.test\"")).collect::<Vec<_>>();
            let rule = |rule| format!(r#"{{"action": "allow", "hosts": [{}]}}"#, hosts(rule).join(", "));
            let text = (0..rules).map(rule).collect::<Vec<_>>().join(", ");
            let tables = tables(&text, &[]);
            let mut told = 0;
            for rule in 0..rules {
                for name in 0..names {
                    let name = format!("n{name}.r{rule}.test");
                    assert_eq!(tables.rules(&name), RuleSet::from_iter([rule]), "{name}");
                    let found = found(&tables, &tables.set(&name));
                    assert!(found.iter().all(|(host, _)| *host == name), "{found:?}");
                    told += usize::from(found.is_some());
                }
            }
            // One more rule is for resolvers.
            assert_eq!(told, (MAX_RULES - rules).saturating_sub(1).min(rules * names), "{rules} rules");
        }
    }
}
