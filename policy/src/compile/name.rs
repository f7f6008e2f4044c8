//! Compiling the host names of the network section: a table that is looked up by the longest prefix of a name, back to front.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use common::{
    Decision, MAX_RULES, RuleSet,
    decision::DEFAULT,
    name::{LONGEST, NAMESERVERS, PORT, Table, address::nearness},
    net::{self, Request, ones_if_equal},
};

use super::{CompileError, FoundBy, Hosts, IMPLIED, net::resolvers_rule};
use crate::{
    Action, Host, HostName, NetRule, NetSection, Prefix, Queries, Surroundings, display_address, shared_space,
};

/// The compiled names.
#[derive(Debug)]
pub struct NameTables {
    /// What goes into read-only data.
    pub table: Table,
    /// Names, and what all names below one begin with, in ascending order; and the rules that have them, also by a name above.
    pub names: Vec<(NamePrefix, RuleSet)>,
    /// Addresses that are known of names without asking.
    pub known: Vec<(Prefix, RuleSet)>,
    /// Which names addresses are found by. The sets of `names` have its bits, too.
    pub hosts: Hosts,
}

/// The beginning of a name that is written back to front ([`common::name::text`]).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamePrefix(Vec<u8>);

impl NamePrefix {
    fn of(name: &HostName) -> Self {
        Self::new(name.name(), name.is_wildcard())
    }

    fn new(name: &str, below: bool) -> Self {
        let end = if below { b'.' } else { 0 };
        Self(name.bytes().rev().chain([end]).collect())
    }

    /// The bytes of the name.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn covers(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }
}

impl fmt::Display for NamePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (end, name) = self.0.split_last().expect("it has an end");
        let name: String = name.iter().rev().map(|byte| char::from(*byte)).collect();
        write!(f, "{}{name}", if *end == b'.' { "*." } else { "" })
    }
}

impl NameTables {
    pub(super) fn compile(section: &NetSection, surroundings: &Surroundings) -> Result<Self, CompileError> {
        let rules = &section.rules;
        let addresses = section.nameservers.as_ref().unwrap_or(&surroundings.nameservers);
        if addresses.is_empty() {
            return Err(CompileError::NoNameservers);
        }
        let mut nameservers = [Table::NOBODY; NAMESERVERS];
        for (to, address) in nameservers.iter_mut().zip(addresses) {
            *to = shared_space(*address);
        }
        let own = rules.len() + usize::from(resolvers_rule(section).is_some());
        let mut hosts = Hosts::new(own);
        let names = resolve(rules, &surroundings.search, &mut hosts);
        let longest = names.iter().map(|(name, _)| name.bytes().len()).max().unwrap_or(0);
        let having = |property: fn(&NetRule) -> bool| {
            rules.iter().enumerate().filter(move |(_, rule)| property(rule)).map(|(index, _)| index)
        };
        // An address that is left out is noted with its name all the same, so that people can be told.
        let private = having(|rule| rule.private).chain(hosts.bits()).collect();
        let open = addresses.iter().any(|address| is_open(rules, Prefix::host(*address)));
        let table = Table {
            nameservers,
            bits: 8 * u32::try_from(longest).expect("names are short"),
            any_query: (open || section.queries == Queries::Any || section.default == Action::Allow).into(),
            private,
            tls: having(|rule| rule.tls).collect(),
            rules: (0..own).collect(),
        };
        let mut tables = Self { table, names, known: Vec::new(), hosts };
        // Anybody who writes /etc/hosts says what is near; but metadata stay where they are.
        let known =
            surroundings.hosts.iter().filter(|(_, address)| nearness(shared_space(*address), ones_if_equal).never == 0);
        for (name, address) in known {
            let set = tables.set(name);
            let mut rules = tables.hosts.only_rules(&set);
            if surroundings.hosts_are_its_own {
                rules = (0..own).filter(|rule| rules.contains(*rule) && tables.table.private.contains(*rule)).collect();
            }
            if rules != RuleSet::NONE {
                tables.known.push((Prefix::host(*address), rules));
                tables.hosts.know(&set, *address);
            }
        }
        Ok(tables)
    }

    /// Whom names are asked of.
    pub fn nameservers(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let nameservers = self.table.nameservers.iter().filter(|address| **address != Table::NOBODY);
        nameservers.map(|address| display_address(*address))
    }

    /// Judges a request to a nameserver, as the kernel would. `None` for any other peer, and for a nameserver that is judged like one.
    #[must_use]
    pub fn decide_on_peer(&self, request: &Request) -> Option<Decision> {
        let Request { op, protocol, address, port, .. } = *request;
        let asks = [net::Op::CONNECT, net::Op::SEND].contains(&op) && port == PORT;
        if !asks || self.table.is_nameserver(address, ones_if_equal) == 0 {
            return None;
        }
        match protocol {
            net::Protocol::UDP | net::Protocol::TCP => Some(Decision { allow: true, rule: IMPLIED }),
            _ => None,
        }
    }

    /// Judges a query, as the kernel would.
    #[must_use]
    pub fn decide(&self, name: &str) -> Decision {
        let rules = self.rules(name.strip_suffix('.').unwrap_or(name));
        let first = (0..MAX_RULES).find(|rule| rules.contains(*rule)).and_then(|rule| u16::try_from(rule).ok());
        Decision { allow: first.is_some() || self.table.any_query != 0, rule: first.unwrap_or(DEFAULT) }
    }

    /// The rules that have a name: none if it is not resolved.
    #[must_use]
    pub fn rules(&self, name: &str) -> RuleSet {
        self.hosts.only_rules(&self.set(name))
    }

    /// What people are told of an address that was found by a name.
    #[must_use]
    pub fn found_by(&self, name: &str) -> Option<FoundBy> {
        self.hosts.of(Ipv6Addr::UNSPECIFIED.into(), Some(&self.set(name)))
    }

    /// The rules that have a name, and the bit of it in [`Hosts`].
    pub(super) fn set(&self, name: &str) -> RuleSet {
        let NamePrefix(bytes) = NamePrefix::new(&name.to_ascii_lowercase(), false);
        // Entries end behind a label: the longest is the nearest.
        let ends = (0..bytes.len()).rev().filter(|end| [b'.', 0].contains(&bytes[*end]));
        let mut entries = ends.filter_map(|end| {
            let found = self.names.binary_search_by_key(&&bytes[..=end], |(prefix, _)| prefix.bytes());
            found.ok().map(|index| self.names[index].1)
        });
        entries.next().unwrap_or(RuleSet::NONE)
    }
}

/// Whether a rule lets anything be sent to a nameserver: one that names its port, since "loopback" alone doesn't mean that.
fn is_open(rules: &[NetRule], nameserver: Prefix) -> bool {
    let names_port =
        |rule: &NetRule| rule.ports.iter().flatten().any(|range| (range.first()..=range.last()).contains(&PORT));
    let has_host = |rule: &NetRule| {
        let covers = |network: &Prefix| {
            network.covers(nameserver) && (*network != Prefix::ALL_V6 || !Prefix::ALL_V4.covers(nameserver))
        };
        rule.hosts.as_ref().is_none_or(|hosts| hosts.iter().flat_map(Host::networks).any(covers))
    };
    rules.iter().any(|rule| {
        rule.action == Action::Allow
            && names_port(rule)
            && has_host(rule)
            && super::net::protocols(rule).contains(&net::Protocol::UDP)
            && super::net::ops(rule).iter().any(|op| [net::Op::CONNECT, net::Op::SEND].contains(op))
    })
}

/// What the rules say of a name or wildcard by itself.
#[derive(Default)]
struct Own {
    rules: RuleSet,
    /// The name that people are told.
    host: Option<HostName>,
}

/// All names of the rules, each with the rules of those above it, too.
fn resolve(rules: &[NetRule], search: &[String], hosts: &mut Hosts) -> Vec<(NamePrefix, RuleSet)> {
    let mut names: BTreeMap<NamePrefix, Own> = BTreeMap::new();
    for (index, rule) in rules.iter().enumerate() {
        for name in rule.names() {
            let own = names.entry(NamePrefix::of(name)).or_default();
            own.rules.insert(index);
            own.host = Some(name.clone());
            // Resolvers ask for a name with what is searched behind it, before or after the name itself, and give up where that is
            // refused. These are names of their own, not all below: by those, anything could be said to anybody who serves them.
            let longer =
                search.iter().filter(|_| !name.is_wildcard()).map(|domain| format!("{}.{domain}", name.name()));
            for longer in longer.filter(|longer| longer.len() <= LONGEST) {
                let own = names.entry(NamePrefix::new(&longer, false)).or_default();
                own.rules.insert(index);
                own.host.get_or_insert_with(|| name.clone());
            }
        }
    }
    // In ascending order, a name comes after those above it; `above` holds these, the nearest last.
    let mut resolved: Vec<(NamePrefix, RuleSet, Option<HostName>)> = Vec::with_capacity(names.len());
    let mut above: Vec<(NamePrefix, RuleSet)> = Vec::new();
    for (name, own) in names {
        while above.last().is_some_and(|(other, _)| !other.covers(&name)) {
            above.pop();
        }
        let inherited = above.last().map_or(RuleSet::NONE, |(_, rules)| *rules);
        let set = own.rules.or(&inherited);
        above.push((name.clone(), set));
        resolved.push((name, until_denied(rules, &set), own.host));
    }
    let mut places: BTreeMap<HostName, Option<usize>> = BTreeMap::new();
    let with_bit = |(name, mut set, host): (NamePrefix, RuleSet, Option<HostName>)| {
        // What isn't resolved is in no set.
        if let Some(host) = host.filter(|_| set != RuleSet::NONE)
            && let Some(place) = *places.entry(host).or_insert_with_key(|host| hosts.place(host, rules, &set))
        {
            set.insert(Hosts::bit(place));
        }
        (name, set)
    };
    resolved.into_iter().map(with_bit).collect()
}

/// The rules of a name before the first that denies it, which keeps it from being resolved for those behind.
fn until_denied(rules: &[NetRule], set: &RuleSet) -> RuleSet {
    let own = (0..rules.len()).filter(|index| set.contains(*index));
    own.take_while(|index| rules[*index].action == Action::Allow).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Document;

    fn tables(network: &str, surroundings: &Surroundings) -> NameTables {
        let text = format!(r#"{{"version": 1, "network": {{"default": "deny", {network}}}}}"#);
        let policy = Document::new(Path::new("p.json"), text.into_bytes()).parse().unwrap();
        NameTables::compile(policy.network.as_ref().unwrap(), surroundings).unwrap()
    }

    fn surroundings() -> Surroundings {
        Surroundings { nameservers: vec![[127, 0, 0, 53].into()], ..Surroundings::default() }
    }

    #[test]
    fn names_have_the_rules_of_those_above_them() {
        let tables = tables(
            r#""rules": [
                {"action": "allow", "hosts": ["api.example.org"]},
                {"action": "deny", "hosts": ["no.example.org", "*.no.example.org"]},
                {"action": "allow", "hosts": ["*.example.org"]},
                {"action": "allow", "hosts": ["*.deep.example.org", "no.example.org", "db"]}]"#,
            &surroundings(),
        );
        let table: [(&str, &[usize]); 12] = [
            ("api.example.org", &[0, 2]),
            ("API.Example.org", &[0, 2]),
            ("example.org", &[]),
            ("x.example.org", &[2]),
            ("x.y.example.org", &[2]),
            ("xexample.org", &[]),
            ("no.example.org", &[]),
            ("x.no.example.org", &[]),
            ("x.deep.example.org", &[2, 3]),
            ("deep.example.org", &[2]),
            ("db", &[3]),
            ("example.org.evil.test", &[]),
        ];
        for (name, expected) in table {
            assert_eq!(tables.rules(name), expected.iter().copied().collect(), "{name}");
        }
        let longest = tables.names.iter().map(|(name, _)| name.bytes().len()).max().unwrap();
        assert_eq!(tables.table.bits as usize, 8 * longest);
    }

    #[test]
    fn what_is_searched_is_added_to_names_one_by_one() {
        let around = Surroundings { search: vec!["corp.test".to_owned()], ..surroundings() };
        let tables = tables(r#""rules": [{"action": "allow", "hosts": ["db", "*.example.org"]}]"#, &around);
        let found = ["db", "db.corp.test", "x.corp.test", "x.example.org", "x.example.org.corp.test"]
            .map(|name| tables.rules(name) != RuleSet::NONE);
        assert_eq!(found, [true, true, false, true, false]);
    }

    #[test]
    fn hosts_of_the_system_are_known_without_asking() {
        let host = |name: &str, address: &str| (name.to_owned(), address.parse().unwrap());
        let hosts = vec![host("db", "10.0.0.5"), host("other", "10.0.0.6"), host("db", "169.254.169.254")];
        let tables =
            tables(r#""rules": [{"action": "allow", "hosts": ["db"]}]"#, &Surroundings { hosts, ..surroundings() });
        assert_eq!(tables.known, [("10.0.0.5".parse().unwrap(), RuleSet::from_iter([0]))]);
    }

    #[test]
    fn any_query_passes_only_where_that_is_said() {
        let allow = r#"{"action": "allow", "hosts": ["db"]}"#;
        let table = [
            (format!(r#""rules": [{allow}]"#), 0),
            (format!(r#""queries": "any", "rules": [{allow}]"#), 1),
            (format!(r#""rules": [{allow}, {{"action": "allow", "hosts": ["loopback"]}}]"#), 0),
            (format!(r#""rules": [{allow}, {{"action": "allow", "hosts": ["loopback"], "ports": [53]}}]"#), 1),
            (format!(r#""rules": [{allow}, {{"action": "allow", "hosts": ["private"], "ports": [53]}}]"#), 0),
            (format!(r#""rules": [{allow}, {{"action": "allow", "hosts": ["::/0"], "ports": [53]}}]"#), 0),
            (format!(r#""rules": [{allow}, {{"action": "allow", "protocols": ["tcp"], "ports": [53]}}]"#), 0),
        ];
        for (network, expected) in table {
            assert_eq!(tables(&network, &surroundings()).table.any_query, expected, "{network}");
        }
    }

    /// The names of a policy, asked one by one.
    #[test]
    fn the_table_says_what_each_rule_says() {
        let names = ["a", "a.a", "b.a", "a.b.a", "*.a", "*.a.a", "*.b.a", "c.a.a", "*.c.a.a"];
        for first in names {
            for second in names {
                let tables = tables(
                    &format!(
                        r#""rules": [{{"action": "allow", "hosts": ["{first}"]}}, {{"action": "allow", "hosts": ["{second}"]}}]"#
                    ),
                    &surroundings(),
                );
                for asked in ["a", "a.a", "b.a", "c.a", "ba", "a.a.a", "a.b.a", "c.a.a", "x.c.a.a", "c.c.a.a", "a.b"] {
                    let has = |name: &str| match name.strip_prefix('*') {
                        Some(end) => asked.ends_with(end),
                        None => asked == name,
                    };
                    let rules = [first, second].into_iter().enumerate();
                    let expected = rules.filter(|(_, name)| has(name)).map(|(rule, _)| rule).collect();
                    assert_eq!(tables.rules(asked), expected, "{asked} of {first}, {second}");
                }
            }
        }
    }
}
