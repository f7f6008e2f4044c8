//! Rules of the sockopts section.

use std::{fmt, marker::PhantomData};

use common::sockopt;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

use super::{
    Action, Rule,
    error::did_you_mean,
    option::{level_name, level_names, level_number, levels_of, option_name, option_names},
    section::{is_reported, present, reason, reported, words},
};

/// A rule on socket options. What is `None` holds for all.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "Keys")]
pub struct SockoptRule {
    /// What happens to the requests that match.
    pub action: Action,
    /// Whether what it denies is reported.
    #[serde(skip_serializing_if = "is_reported")]
    pub report: bool,
    /// The level.
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<Level>,
    /// The option, which is of that level.
    #[serde(skip_serializing_if = "Option::is_none")]
    option: Option<LevelOption>,
    /// Whether it is read or set.
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<Access>,
    /// Why it is there, for anybody who meets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl SockoptRule {
    /// The number of the level.
    #[must_use]
    pub fn level(&self) -> Option<i32> {
        self.level.map(|Level(number)| number)
    }

    /// The number of the option, which is one of [`SockoptRule::level`].
    #[must_use]
    pub fn option(&self) -> Option<i32> {
        self.option.map(|option| option.number)
    }

    /// The bits of [`sockopt::access`].
    #[must_use]
    pub fn accesses(&self) -> u32 {
        match self.access {
            None => sockopt::access::ALL,
            Some(Access::Get) => sockopt::access::GET,
            Some(Access::Set) => sockopt::access::SET,
        }
    }
}

impl Rule for SockoptRule {
    fn action(&self) -> Action {
        self.action
    }

    fn reports(&self) -> bool {
        self.report
    }

    fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

words! {
    /// Ways to use an option.
    pub enum Access {
        /// getsockopt(2).
        Get = "get",
        /// setsockopt(2).
        Set = "set",
    }
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    action: Action,
    #[serde(default = "reported")]
    report: bool,
    #[serde(default, deserialize_with = "present")]
    level: Option<Level>,
    #[serde(default, deserialize_with = "present")]
    option: Option<WrittenOption>,
    #[serde(default, deserialize_with = "present")]
    access: Option<Access>,
    #[serde(default, deserialize_with = "reason")]
    reason: Option<String>,
}

impl TryFrom<Keys> for SockoptRule {
    type Error = String;

    fn try_from(keys: Keys) -> Result<Self, String> {
        let Keys { action, report, level, option, access, reason } = keys;
        let option = option.map(|option| LevelOption::new(level, option)).transpose()?;
        // An option that has a name tells its level, too.
        let level = option.map_or(level, |option| Some(Level(option.level)));
        Ok(Self { action, report, level, option, access, reason })
    }
}

/// A level: in a policy its name or number, printed as its name if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(pub i32);

/// An option of a level, printed as its name if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelOption {
    /// The number of the level.
    pub level: i32,
    /// The option's own.
    pub number: i32,
}

/// An option as it is written.
#[derive(Clone, Copy, Debug)]
enum WrittenOption {
    Number(i32),
    Name(&'static str),
}

impl LevelOption {
    fn new(level: Option<Level>, option: WrittenOption) -> Result<Self, String> {
        match (level, option) {
            (Some(Level(level)), WrittenOption::Number(number)) => Ok(Self { level, number }),
            (None, WrittenOption::Number(number)) => Err(format!(
                "option {number} is another one at each level: add \"level\", such as \"SOL_SOCKET\" or \"IPPROTO_TCP\""
            )),
            (None, WrittenOption::Name(name)) => match levels_of(name)[..] {
                [(level, number)] => Ok(Self { level, number }),
                _ => Err(format!("option \"{name}\" is one of {}: add \"level\"", owners(name).join(" and of "))),
            },
            (Some(level), WrittenOption::Name(name)) => {
                let found = levels_of(name).into_iter().find(|(owner, _)| *owner == level.0);
                let (level, number) = found.ok_or_else(|| {
                    let owners = owners(name).join(" and of ");
                    format!("option \"{name}\" is one of {owners}, not of {level}; leave \"level\" out or correct it")
                })?;
                Ok(Self { level, number })
            }
        }
    }
}

/// The levels that have an option of that name.
fn owners(name: &str) -> Vec<String> {
    levels_of(name).into_iter().map(|(level, _)| Level(level).to_string()).collect()
}

/// A level and an option from words: each a name or a number, as in a rule.
///
/// # Errors
///
/// When there is none of that name, or not at that level.
pub fn parse_sockopt(level: &str, option: &str) -> Result<(Level, LevelOption), String> {
    let level = match level.parse() {
        Ok(number) => Level(number),
        Err(_) => Level::from_name(level)?,
    };
    let option = match option.parse() {
        Ok(number) => WrittenOption::Number(number),
        Err(_) => WrittenOption::from_name(option)?,
    };
    Ok((level, LevelOption::new(Some(level), option)?))
}

/// What is written as a name or a number.
trait Named: Sized {
    const NOUN: &'static str;
    fn from_number(number: i32) -> Self;
    fn from_name(name: &str) -> Result<Self, String>;
}

impl Named for Level {
    const NOUN: &'static str = "level";

    fn from_number(number: i32) -> Self {
        Self(number)
    }

    fn from_name(name: &str) -> Result<Self, String> {
        level_number(name).map(Self).ok_or_else(|| {
            let known: Vec<&str> = level_names().collect();
            let hint = did_you_mean(name, &known);
            format!("unknown level \"{name}\"{hint} (known: {}; or write its number)", known.join(", "))
        })
    }
}

impl Named for WrittenOption {
    const NOUN: &'static str = "option";

    fn from_number(number: i32) -> Self {
        Self::Number(number)
    }

    fn from_name(name: &str) -> Result<Self, String> {
        option_names().find(|known| *known == name).map(Self::Name).ok_or_else(|| {
            let known: Vec<&str> = option_names().collect();
            let hint = did_you_mean(name, &known);
            format!(
                "unknown socket option \"{name}\"{hint}; write a name as in socket(7) or tcp(7), or level and number"
            )
        })
    }
}

/// What stands for a [`Named`]: a name that is known, or a number from 0.
fn name_or_number<'de, T: Named, D: Deserializer<'de>>(json: D) -> Result<T, D::Error> {
    struct NameOrNumber<T>(PhantomData<T>);

    impl<T: Named> Visitor<'_> for NameOrNumber<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "the name or number of a socket {}", T::NOUN)
        }

        fn visit_str<E: de::Error>(self, name: &str) -> Result<T, E> {
            T::from_name(name).map_err(E::custom)
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
            let small = i32::try_from(number).map(T::from_number);
            small.map_err(|_| E::custom(format!("{} {number} is out of range (0 to {})", T::NOUN, i32::MAX)))
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
            Err(E::custom(format!("{} {number} is out of range (0 to {})", T::NOUN, i32::MAX)))
        }
    }

    json.deserialize_any(NameOrNumber(PhantomData))
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        name_or_number(json)
    }
}

impl<'de> Deserialize<'de> for WrittenOption {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        name_or_number(json)
    }
}

/// As its name, or its number if it has none.
fn serialize<S: Serializer>(name: Option<&str>, number: i32, json: S) -> Result<S::Ok, S::Error> {
    match name {
        Some(name) => json.serialize_str(name),
        None => json.serialize_i32(number),
    }
}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        serialize(level_name(self.0), self.0, json)
    }
}

impl Serialize for LevelOption {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        serialize(option_name(self.level, self.number), self.number, json)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match level_name(self.0) {
            Some(name) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

impl fmt::Display for LevelOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match option_name(self.level, self.number) {
            Some(name) => f.write_str(name),
            None => self.number.fmt(f),
        }
    }
}
