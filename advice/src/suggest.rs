//! The changes to a policy by which what logs say was denied is allowed, and nothing else.

pub(crate) mod apart;
mod prove;
mod text;

use std::collections::HashMap;

use json_patch::Patch;
use policy::Machine;
use report::Event;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    Denials, Guard, Head, PatchError,
    asked::Asked,
    layout,
    merge::merge,
    patch,
    property::denied_by,
    rule::Keys,
    why::{HOPELESS, SCHEMA, assumption},
};

/// The sections in the order in which policies have them.
const SECTIONS: [&str; 6] = ["network", "unix", "devices", "sysctls", "sockets", "sockopts"];

/// How far suggestions go beyond what was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Widen {
    /// To all ports of a host.
    pub port: bool,
    /// To a host's network: 256 addresses of IPv4, 2^64 of IPv6.
    pub network: bool,
    /// To all names beside a host's, below the same one.
    pub subdomains: bool,
}

/// Why nothing can be suggested.
#[derive(Debug, thiserror::Error)]
pub enum SuggestError {
    /// The logs are of runs under different policies.
    #[error("these logs are of different policies, {0} and {1}; say which one to change: --policy FILE")]
    Policies(String, String),
    /// The changes don't make a policy.
    #[error("the policy with these changes: {0}")]
    Result(#[from] PatchError),
    /// The changes don't do what they should. (The program is at fault then.)
    #[error("the changes were not proved to allow what was denied and nothing else: {0}; nothing was changed")]
    Unproved(String),
    /// The file's layout can't be kept.
    #[error("the policy's text can't be changed without changing its layout; apply the patch by other means")]
    Layout,
}

/// Changes to a policy.
#[derive(Debug, Serialize)]
pub struct Suggestion {
    /// Version of this format.
    schema: u32,
    /// The policy's file.
    policy: String,
    /// SHA-256 of its text.
    sha256: String,
    /// The changes (RFC 6902).
    pub patch: Patch,
    /// What they take for granted that no log tells, for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    assumes: Vec<String>,
    /// What they allow: rules, which need not be rules of the changed policy.
    allows: Vec<Value>,
    /// What was denied and is allowed by them.
    denials: Vec<Denied>,
    /// What was denied and is for people to decide.
    pub apart: Vec<Apart>,
    /// How many kinds of what was denied the policy allows already.
    allowed_already: usize,
    /// Denials of kinds for which there was no room.
    further: u64,
}

/// Something that was denied.
#[derive(Debug, Serialize)]
struct Denied {
    what: String,
    count: u64,
    /// The process that asked first.
    who: String,
}

/// Something that is not suggested.
#[derive(Debug, Serialize)]
pub struct Apart {
    #[serde(flatten)]
    denied: Denied,
    /// Why.
    why: String,
}

impl Denied {
    fn of(event: &Event) -> Self {
        let Event { op, subject, count, process, .. } = event;
        Self { what: format!("{op} {subject}"), count: *count, who: process.comm.clone() }
    }
}

/// Says which changes to a policy allow what was seen, proves it, and lists what it doesn't suggest.
///
/// # Errors
///
/// When the logs are of different policies, or the changes can't be made.
pub fn suggest(
    guard: &Guard,
    heads: &[Head],
    denied: &Denials,
    widen: Widen,
    machine: &impl Machine,
) -> Result<Suggestion, SuggestError> {
    let (mut wanted, mut aside, mut allowed_already) = (Vec::new(), Vec::new(), 0);
    for kind in &denied.kinds {
        let event = &kind.event;
        match denied.asked(kind, guard, machine) {
            Some(asked) if asked.is_allowed(&guard.tables) => allowed_already += 1,
            asked => match apart::wanted(guard, asked.as_ref(), event, heads) {
                Err(why) => aside.push(Apart { denied: Denied::of(event), why }),
                Ok((asked, keys)) => wanted.push(Wanted { asked, keys, denied: Denied::of(event) }),
            },
        }
    }
    let mut changes = Changes::to(guard, &wanted, widen);
    let mut result = patch::applied(guard, &changes.patch, machine)?;
    let is_hopeless =
        |wanted: &mut Wanted| !wanted.asked.is_allowed(&result.tables) && !wanted.is_allowed_alone(guard, machine);
    let hopeless: Vec<Wanted> = wanted.extract_if(.., is_hopeless).collect();
    if !hopeless.is_empty() {
        aside.extend(hopeless.into_iter().map(|Wanted { denied, .. }| Apart { denied, why: HOPELESS.to_owned() }));
        changes = Changes::to(guard, &wanted, widen);
        result = patch::applied(guard, &changes.patch, machine)?;
    }
    let Changes { plain, patch, allows } = changes;
    prove::prove(guard, &plain, &result, &wanted, machine)?;
    let mut assumes: Vec<String> = wanted.iter().filter_map(|wanted| assumption(&wanted.asked)).collect();
    assumes.sort();
    assumes.dedup();
    Ok(Suggestion {
        schema: SCHEMA,
        policy: guard.document.path().display().to_string(),
        sha256: guard.document.sha256(),
        patch,
        assumes,
        allows,
        denials: wanted.into_iter().map(|wanted| wanted.denied).collect(),
        apart: aside,
        allowed_already,
        further: denied.further,
    })
}

/// Something that was denied and is to be allowed.
struct Wanted {
    asked: Asked,
    /// The rule that is about it.
    keys: Keys,
    denied: Denied,
}

impl Wanted {
    fn section(&self) -> &'static str {
        self.asked.request.section()
    }

    /// The number of the rule before which one has to stand that allows it. `None` for a place behind all.
    fn before(&self, guard: &Guard) -> Option<usize> {
        denied_by(guard, &self.asked, self.asked.judge(&guard.tables)?)
    }

    /// Whether its rule, and no other change, would allow it.
    fn is_allowed_alone(&self, guard: &Guard, machine: &impl Machine) -> bool {
        let change = patch::insert(guard, self.section(), self.before(guard), vec![self.keys.clone()]);
        patch::applied(guard, &patch::of(change), machine).is_ok_and(|changed| self.asked.is_allowed(&changed.tables))
    }
}

/// The changes by which something is allowed.
struct Changes {
    /// The rules that say so, before all others of their sections.
    plain: Patch,
    /// These rules in their places, or in those that are there.
    patch: Patch,
    /// Each rule with its section.
    allows: Vec<Value>,
}

impl Changes {
    fn to(guard: &Guard, wanted: &[Wanted], widen: Widen) -> Self {
        let mut by_section: HashMap<&str, Vec<&Wanted>> = HashMap::new();
        for wanted in wanted {
            by_section.entry(wanted.section()).or_default().push(wanted);
        }
        let (mut operations, mut allows, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        for section in SECTIONS {
            let Some(wanted) = by_section.remove(section) else { continue };
            let merged = merge(wanted.iter().map(|wanted| widened(wanted.keys.clone(), widen)).collect());
            let before = wanted.iter().filter_map(|wanted| wanted.before(guard)).min();
            plain.extend(patch::insert(guard, section, Some(0).filter(|_| guard.rules(section) > 0), merged.clone()));
            let (extended, new) = attach(guard, section, before, merged.clone());
            operations.extend(extended);
            if !new.is_empty() {
                operations.extend(patch::insert(guard, section, before, new));
            }
            allows.extend(merged.into_iter().map(|keys| json!({"section": section, "rule": keys})));
        }
        Self { plain: patch::of(plain), patch: patch::of(operations), allows }
    }
}

impl Suggestion {
    /// Whether there is anything to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patch.0.is_empty()
    }

    /// The policy's text with the changes, its layout kept.
    ///
    /// # Errors
    ///
    /// When the layout can't be kept.
    pub fn apply(&self, guard: &Guard) -> Result<String, SuggestError> {
        let text = str::from_utf8(guard.document.text()).map_err(|_| SuggestError::Layout)?;
        layout::apply(text, &self.patch).ok_or(SuggestError::Layout)
    }
}

/// The policy file that logs are of, if they are of one.
///
/// # Errors
///
/// When they are of several.
pub fn policy_of(heads: &[Head]) -> Result<Option<&std::path::Path>, SuggestError> {
    let mut paths = heads.iter().filter_map(|head| head.policy.as_ref()).map(|policy| &*policy.path);
    let first = paths.next();
    match paths.find(|path| Some(*path) != first) {
        Some(other) => Err(SuggestError::Policies(
            first.map(|path| path.display().to_string()).unwrap_or_default(),
            other.display().to_string(),
        )),
        None => Ok(first),
    }
}

/// Rules of which only the list of one key differs from that of a rule which is there and is asked before anything denies: their values
/// are put there. Returns the operations, and the rules that are left.
fn attach(guard: &Guard, section: &str, before: Option<usize>, rules: Vec<Keys>) -> (Vec<Value>, Vec<Keys>) {
    let (mut operations, mut left) = (Vec::new(), Vec::new());
    // A rule is extended in one key alone, or the combinations would be more than both.
    let mut extended: HashMap<usize, String> = HashMap::new();
    for rule in rules {
        let found = (0..before.unwrap_or(guard.rules(section))).find_map(|number| {
            let there = guard.rule(section, number)?.as_object()?;
            let key = differing_list(there, &rule)?;
            (!extended.contains_key(&number) || extended[&number] == key).then_some((number, key))
        });
        match found {
            Some((number, key)) => {
                let known =
                    guard.rule(section, number).and_then(|rule| rule[&key].as_array()).cloned().unwrap_or_default();
                let values =
                    rule[&key].as_array().into_iter().flatten().filter(|value| !known.contains(value)).cloned();
                operations.extend(patch::extend(section, number, &key, values));
                extended.insert(number, key);
            }
            None => left.push(rule),
        }
    }
    (operations, left)
}

/// The key of the one list in which two rules differ.
fn differing_list(there: &Keys, rule: &Keys) -> Option<String> {
    let ignored = |key: &&String| *key != "reason";
    let mut keys = there.keys().filter(ignored).chain(rule.keys().filter(|key| !there.contains_key(*key)));
    let as_set = |value: Option<&Value>| {
        let mut list = value?.as_array()?.iter().map(ToString::to_string).collect::<Vec<_>>();
        list.sort_unstable();
        Some(list)
    };
    let same = |key: &str| {
        let (one, other) = (there.get(key), rule.get(key));
        one == other || as_set(one).is_some_and(|one| as_set(other).is_some_and(|other| one == other))
    };
    let differing = keys.find(|key| !same(key))?;
    let is_list = |keys: &Keys| keys.get(differing).is_some_and(Value::is_array);
    (is_list(there) && is_list(rule) && keys.all(|key| same(key))).then(|| differing.clone())
}

/// A rule that goes further than what was seen.
fn widened(mut keys: Keys, widen: Widen) -> Keys {
    let is_name = |host: &str| host.parse::<policy::Prefix>().is_err();
    let hosts: Vec<String> = keys
        .get("hosts")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|host| host.as_str().map(ToOwned::to_owned))
        .collect();
    let further = |host: &String| {
        if widen.network && !is_name(host) {
            return apart::network_of(host);
        }
        let (_, parent) = host.split_once('.').filter(|_| widen.subdomains && is_name(host))?;
        // Not above a public suffix.
        let below = format!("*.{parent}");
        policy::Host::try_from(below.clone()).is_ok().then_some(below)
    };
    if widen.network || widen.subdomains {
        let hosts: Vec<String> = hosts.iter().map(|host| further(host).unwrap_or_else(|| host.clone())).collect();
        if !hosts.is_empty() {
            keys.insert("hosts".to_owned(), json!(hosts));
        }
    }
    if widen.port && !hosts.is_empty() {
        keys.remove("ports");
    }
    keys
}
