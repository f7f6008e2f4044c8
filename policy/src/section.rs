//! What all sections have in common: a default and an ordered list of rules.

use std::{fmt, marker::PhantomData};

use common::{MAX_RULES, RuleSet, decision::Verdicts};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, SeqAccess, Visitor},
};

use super::error::did_you_mean;

/// A section of the policy: the first rule that matches decides, else the default.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, bound(deserialize = "R: Deserialize<'de> + Rule"))]
pub struct Section<R> {
    /// What happens to a request that no rule matches.
    pub default: Action,
    /// The rules, in the order in which they are tried. At most [`MAX_RULES`].
    #[serde(default = "Vec::new", deserialize_with = "rules")]
    pub rules: Vec<R>,
    /// Why the section is as it is, for anybody who meets its default, or a rule without a reason of its own.
    #[serde(default, deserialize_with = "reason", skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What all kinds of rules have in common.
pub trait Rule {
    /// What happens to a request that the rule matches.
    fn action(&self) -> Action;
    /// Whether what it denies is reported: an event, a part of the last line, a reason for `--fail-on-deny`. It is counted in any
    /// case.
    fn reports(&self) -> bool;
    /// Why the rule is there.
    fn reason(&self) -> Option<&str>;
}

impl<R> Section<R> {
    /// Adds the rules of another section behind those that are there.
    pub(super) fn append(&mut self, other: Self) -> Result<(), String> {
        if self.default != other.default {
            let (one, other) = (self.default.word(), other.default.word());
            return Err(format!(
                "\"default\" is \"{one}\" in one file and \"{other}\" in another; it must be the same in all"
            ));
        }
        self.reason = other.reason.or_else(|| self.reason.take());
        self.rules.extend(other.rules);
        if self.rules.len() > MAX_RULES {
            return Err(format!("{} rules in all files together, of which there can be {MAX_RULES}", self.rules.len()));
        }
        Ok(())
    }
}

impl<R: Rule> Section<R> {
    /// What the rules say, for `decide()`.
    #[must_use]
    pub fn verdicts(&self) -> Verdicts {
        let allows = |action| action == Action::Allow;
        Verdicts::new(allows(self.default), self.rules.iter().map(|rule| allows(rule.action())))
    }

    /// The rules whose denials are counted, and not reported.
    #[must_use]
    pub fn unreported(&self) -> RuleSet {
        self.rules.iter().enumerate().filter(|(_, rule)| !rule.reports()).map(|(index, _)| index).collect()
    }
}

/// What `"report"` is where a rule leaves it out.
pub(super) const fn reported() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde asks
pub(super) const fn is_reported(report: &bool) -> bool {
    *report
}

/// Defines an enum that is one of a few words in JSON, and nothing else: serde's own enums would also take
/// `{"deny": null}` for "deny".
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// All there are.
            #[allow(dead_code)] // not everybody asks
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word in JSON.
            #[allow(dead_code)] // not everybody asks
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
                $crate::section::word(json, &[$(($word, Self::$variant)),+])
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
                json.serialize_str(self.word())
            }
        }
    };
}
pub(super) use words;

/// A word that is known, and what it stands for.
pub(super) fn word<'de, T: Copy, D: Deserializer<'de>>(json: D, known: &[(&str, T)]) -> Result<T, D::Error> {
    let found = String::deserialize(json)?;
    let meant = known.iter().find(|(word, _)| *word == found).map(|(_, meant)| *meant);
    meant.ok_or_else(|| {
        let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
        let hint = did_you_mean(&found, &words);
        de::Error::custom(format!("unknown \"{found}\"{hint} (known: {})", words.join(", ")))
    })
}

words! {
    /// What happens to a request.
    pub enum Action {
        /// The request goes on.
        Allow = "allow",
        /// The request is refused and recorded.
        Deny = "deny",
    }
}

/// A key that may be left out, but not be `null`: `"network": null` would look like a restriction and be none.
pub(super) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(json: D) -> Result<Option<T>, D::Error> {
    T::deserialize(json).map(Some)
}

/// The most characters of a reason: a sentence or two, which fit into the last line.
const LONGEST_REASON: usize = 300;

/// Why something is there, in a sentence. It may be left out.
pub(super) fn reason<'de, D: Deserializer<'de>>(json: D) -> Result<Option<String>, D::Error> {
    let reason = String::deserialize(json)?;
    let length = reason.chars().count();
    if reason.trim().is_empty() {
        return Err(de::Error::custom("an empty reason tells nobody anything; leave the key out"));
    }
    if length > LONGEST_REASON {
        return Err(de::Error::custom(format!("a reason of {length} characters; at most {LONGEST_REASON}")));
    }
    Ok(Some(reason))
}

/// A list of a rule that may be left out (which means "all") but not be empty, which would mean "none" and make a rule
/// that never matches.
pub(super) fn non_empty<'de, T: Deserialize<'de>, D: Deserializer<'de>>(json: D) -> Result<Option<Vec<T>>, D::Error> {
    let list = list(json, usize::MAX, "")?;
    if list.is_empty() {
        return Err(de::Error::custom("an empty list would never match; leave the key out to mean \"all\""));
    }
    Ok(Some(list))
}

pub(super) fn rules<'de, R: Deserialize<'de> + Rule, D: Deserializer<'de>>(json: D) -> Result<Vec<R>, D::Error> {
    let rules = list(json, MAX_RULES, "rules in a section")?;
    Ok(rules.into_iter().map(|Sensible(rule)| rule).collect())
}

/// A rule none of whose keys is without a meaning.
struct Sensible<R>(R);

impl<'de, R: Deserialize<'de> + Rule> Deserialize<'de> for Sensible<R> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        let rule = R::deserialize(json)?;
        if rule.action() == Action::Allow && !rule.reports() {
            return Err(de::Error::custom("\"report\" is for rules that deny: what is allowed is no event anyway"));
        }
        Ok(Self(rule))
    }
}

/// A list of at most `limit` elements, `what` they are.
pub(super) fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    json: D,
    limit: usize,
    what: &'static str,
) -> Result<Vec<T>, D::Error> {
    struct List<T>(usize, &'static str, PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let Self(limit, what, _) = self;
            let mut list = Vec::new();
            while let Some(element) = elements.next_element()? {
                if list.len() == limit {
                    return Err(de::Error::custom(format!("more than {limit} {what}")));
                }
                list.push(element);
            }
            Ok(list)
        }
    }

    json.deserialize_seq(List(limit, what, PhantomData))
}

/// A number of JSON that must lie between 0 and `max`; `what` it is.
pub(super) fn number<'de, D: Deserializer<'de>>(json: D, max: u32, what: &'static str) -> Result<u32, D::Error> {
    struct Number(u32, &'static str);

    impl Visitor<'_> for Number {
        type Value = u32;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a {} from 0 to {}", self.1, self.0)
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<u32, E> {
            u32::try_from(number)
                .ok()
                .filter(|number| *number <= self.0)
                .ok_or_else(|| E::custom(format!("{} {number} is out of range (0 to {})", self.1, self.0)))
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<u32, E> {
            let Self(max, what) = self;
            Err(match text.parse::<u32>() {
                Ok(number) if number <= max => {
                    E::custom(format!("\"{text}\" is a text; write {number}, without quotes"))
                }
                _ if ["*", "any", "all"].contains(&text) => {
                    E::custom(format!("\"{text}\" is no {what}; leave the key out to mean \"all\""))
                }
                _ => E::invalid_type(de::Unexpected::Str(text), &self),
            })
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<u32, E> {
            Err(E::custom(format!(
                "{} {number} is out of range (0 to {}); leave the key out to mean \"all\"",
                self.1, self.0
            )))
        }
    }

    // Whatever it is, the visitor says what to write instead.
    json.deserialize_any(Number(max, what))
}
