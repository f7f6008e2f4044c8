//! Sets: hosts that rules share, by names of the policy's own.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de};

use crate::{
    Document, Host, NetSection, Policy, PolicyError,
    error::did_you_mean,
    host::{SET, set_name},
    section::list,
};

/// Sets by their names.
pub(super) type Sets = BTreeMap<String, Vec<Host>>;

/// Reads the hosts of a set.
fn hosts<'de, D: Deserializer<'de>>(json: D) -> Result<Vec<Host>, D::Error> {
    let hosts = list(json, usize::MAX, "")?;
    if hosts.is_empty() {
        return Err(de::Error::custom("a set without hosts would never match; write some, or leave out the set"));
    }
    Ok(hosts)
}

/// Reads the sets of a policy.
pub(super) fn sets<'de, D: Deserializer<'de>>(json: D) -> Result<Sets, D::Error> {
    /// The hosts of a set.
    #[derive(Deserialize)]
    struct Hosts(#[serde(deserialize_with = "hosts")] Vec<Host>);

    let sets = BTreeMap::<String, Hosts>::deserialize(json)?;
    let hosts = sets.into_iter().map(|(name, Hosts(hosts))| {
        set_name(&name).map_err(de::Error::custom)?;
        match hosts.iter().find_map(|host| if let Host::Set(other) = host { Some(other) } else { None }) {
            Some(other) => Err(de::Error::custom(format!(
                "the set \"{name}\" has a set in it, \"{SET}{other}\"; write its hosts, or name both sets in the rule"
            ))),
            None => Ok((name, hosts)),
        }
    });
    hosts.collect()
}

impl Policy {
    /// Puts the hosts of sets where rules name these, and makes sure that the rules mean something with them. The document is the one
    /// that all of its rules are from.
    pub(super) fn expand(&mut self, document: &Document) -> Result<(), PolicyError> {
        let Self { sets, network, .. } = self;
        let rules = network.iter_mut().flat_map(NetSection::rules_mut);
        for (number, rule) in rules.enumerate() {
            let place = format!("/network/rules/{number}");
            if let Some(hosts) = &mut rule.hosts {
                *hosts = in_place(hosts, sets)
                    .map_err(|(host, why)| PolicyError::at(document, format!("{place}/hosts/{host}"), &why))?;
            }
            if let Some(why) = rule.nonsense() {
                return Err(PolicyError::at(document, place, why));
            }
        }
        Ok(())
    }

    /// Makes sure that the sections mean something as a whole.
    pub(super) fn check(&self, document: &Document) -> Result<(), PolicyError> {
        match self.network.as_ref().and_then(NetSection::nonsense) {
            Some(why) => Err(PolicyError::at(document, "/network".to_owned(), &why)),
            None => Ok(()),
        }
    }
}

/// The hosts, and in place of each set those that it has. If there is no such set: which of the hosts names it, and what to say.
fn in_place(hosts: &[Host], sets: &Sets) -> Result<Vec<Host>, (usize, String)> {
    let mut all = Vec::new();
    for (number, host) in hosts.iter().enumerate() {
        let Host::Set(name) = host else {
            all.push(host.clone());
            continue;
        };
        let known: Vec<&str> = sets.keys().map(String::as_str).collect();
        let set = sets.get(name).ok_or_else(|| {
            let hint = did_you_mean(name, &known);
            let known =
                if known.is_empty() { "there are none".to_owned() } else { format!("known: {}", known.join(", ")) };
            (number, format!("no set is named \"{name}\"{hint} ({known})"))
        })?;
        all.extend(set.iter().cloned());
    }
    Ok(all)
}
