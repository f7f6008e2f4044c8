//! A log is read back as what was written: nothing in it is lost, and nothing is added.

use std::fmt;

use policy::strict;
use report::{CommandRun, ContainerRun, Guarded, Log, Subject};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

const COMMAND: &str = include_str!("logs/command.json");
const GOLDEN: &str = include_str!("logs/golden.json");
const CONTAINER: &str = include_str!("logs/container.json");

fn read_back<G: Guarded + fmt::Debug>(text: &str) -> Log<G> {
    let log: Log<G> = strict::from_str(text).unwrap();
    let written = serde_json::to_value(&log).unwrap();
    assert_eq!(written, serde_json::from_str::<Value>(text).unwrap());
    log
}

#[test]
fn a_commands_log() {
    let log = read_back::<CommandRun>(COMMAND);
    let is_there = |kind: fn(&Subject) -> bool| log.events.iter().any(|event| kind(&event.subject));
    assert!(is_there(|subject| matches!(subject, Subject::Network(_))));
    assert!(is_there(|subject| matches!(subject, Subject::Unix(_))));
    assert!(is_there(|subject| matches!(subject, Subject::Device(_))));
    assert!(is_there(|subject| matches!(subject, Subject::Sysctl(_))));
    assert!(is_there(|subject| matches!(subject, Subject::Sockopt(_))));
    assert!(is_there(|subject| matches!(subject, Subject::Call(_))));
    assert_eq!(log.enforced.measures.hardening.observed.map(|observed| observed.refused), Some(1));
    assert_eq!(log.flows.unwrap().len(), 1);
}

#[test]
fn a_containers_log() {
    let log = read_back::<ContainerRun>(CONTAINER);
    assert_eq!(log.guarded.container.id, "c1");
    assert!(log.enforced.measures.accepted_capabilities.contains("CAP_NET_RAW"));
}

/// A value of which the members of objects are in the order of the text.
enum Ordered {
    Object(Vec<(String, Ordered)>),
    List(Vec<Ordered>),
    Other(Value),
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(Order)
    }
}

struct Order;

impl<'de> Visitor<'de> for Order {
    type Value = Ordered;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Ordered, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = entries.next_entry()? {
            members.push(member);
        }
        Ok(Ordered::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Ordered, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        Ok(Ordered::List(list))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Ordered, E> {
        Ok(Ordered::Other(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Ordered, E> {
        Ok(Ordered::Other(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Ordered, E> {
        Ok(Ordered::Other(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Ordered, E> {
        Ok(Ordered::Other(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Ordered, E> {
        Ok(Ordered::Other(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Ordered, E> {
        Ok(Ordered::Other(Value::Null))
    }
}

impl Ordered {
    /// The value; but that object of it as a list of its members' values, in their order, that `countdown` comes to. The path of that
    /// object goes to `changed`.
    fn with_a_list(&self, path: &str, countdown: &mut usize, changed: &mut Option<String>) -> Value {
        match self {
            Self::Other(value) => value.clone(),
            Self::List(list) => {
                let element = |(index, element): (usize, &Self)| {
                    element.with_a_list(&format!("{path}/{index}"), countdown, changed)
                };
                list.iter().enumerate().map(element).collect()
            }
            Self::Object(members) => {
                let is_it = *countdown == 0 && changed.is_none();
                if is_it {
                    *changed = Some(path.to_owned());
                } else {
                    *countdown = countdown.saturating_sub(1);
                }
                let member = |(key, value): &(String, Self)| {
                    (key.clone(), value.with_a_list(&format!("{path}/{key}"), countdown, changed))
                };
                let members: Vec<(String, Value)> = members.iter().map(member).collect();
                if is_it {
                    members.into_iter().map(|(_, value)| value).collect()
                } else {
                    Value::Object(members.into_iter().collect())
                }
            }
        }
    }
}

/// Sees that a log is refused in which any object is a list of its values. Returns how many there are.
fn no_lists<G: Guarded>(text: &str) -> usize {
    let ordered: Ordered = serde_json::from_str(text).unwrap();
    let places = (0..).map_while(|place| {
        let mut changed = None;
        let log = ordered.with_a_list("", &mut { place }, &mut changed);
        let place = changed?;
        assert!(strict::from_value::<Log<G>>(log).is_err(), "{place}");
        Some(place)
    });
    places.count()
}

#[test]
fn no_list_is_taken_for_an_object() {
    assert!(no_lists::<CommandRun>(COMMAND) > 50);
    assert!(no_lists::<CommandRun>(GOLDEN) > 30);
    assert!(no_lists::<ContainerRun>(CONTAINER) > 5);
}

#[test]
fn what_a_log_lacks_is_an_error() {
    let mut log: Value = serde_json::from_str(COMMAND).unwrap();
    log["events"][0].as_object_mut().unwrap().remove("count");
    let error = serde_json::from_value::<Log<CommandRun>>(log).unwrap_err().to_string();
    assert!(error.contains("count"), "{error}");
}
