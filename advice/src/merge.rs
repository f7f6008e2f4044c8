//! Rules that are alike become one, if that one allows what they allow together and nothing else.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::rule::Keys;

/// The keys whose values are lists, in the order in which they are united: what belongs together most comes first.
const LISTS: [&str; 7] = ["ports", "local_ports", "hosts", "paths", "names", "ops", "protocols"];

/// Unites rules that differ in one list alone: a rule is about all combinations of what its lists have, so nothing is added by that. Those
/// on one device or name that differ in their accesses become one, too.
pub(crate) fn merge(mut rules: Vec<Keys>) -> Vec<Keys> {
    loop {
        let before = rules.len();
        for key in LISTS {
            rules = unite(rules, key, |one, other| {
                let (Value::Array(one), Value::Array(other)) = (one, other) else { return };
                one.extend(other);
                one.sort_by_key(|value| (value.as_u64(), value.to_string()));
                one.dedup();
            });
        }
        rules = unite(rules, "access", |one, other| {
            let both = format!("{}{}", one.as_str().unwrap_or_default(), other.as_str().unwrap_or_default());
            *one = "rwm".chars().filter(|letter| both.contains(*letter)).collect::<String>().into();
        });
        if rules.len() == before {
            return rules.into_iter().map(with_ranges).collect();
        }
    }
}

/// Unites rules that differ in one key alone.
fn unite(rules: Vec<Keys>, key: &str, join: impl Fn(&mut Value, Value)) -> Vec<Keys> {
    let mut united: Vec<Keys> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    // "get" and "set" of socket options have no word for both.
    let is_word = |value: &Value| value.as_str().is_some_and(|word| word.ends_with("et"));
    for mut rule in rules {
        let Some(value) = rule.get(key).filter(|value| !is_word(value)).cloned() else {
            united.push(rule);
            continue;
        };
        rule.remove(key);
        let others = Value::Object(rule.clone()).to_string();
        if let Some(place) = places.get(&others) {
            let known = united[*place].get_mut(key).expect("only rules with the key are here");
            join(known, value);
        } else {
            places.insert(others, united.len());
            rule.insert(key.to_owned(), value);
            united.push(rule);
        }
    }
    united
}

/// How many ports in a row become a range.
const RUN: usize = 3;

/// The rule with ports in a row written as ranges.
fn with_ranges(mut rule: Keys) -> Keys {
    for key in ["ports", "local_ports"] {
        if let Some(Value::Array(ports)) = rule.get_mut(key) {
            *ports = ranges(ports);
        }
    }
    rule
}

fn ranges(ports: &[Value]) -> Vec<Value> {
    let mut written = Vec::new();
    let mut rest = ports;
    while let Some(first) = rest.first() {
        let from = first.as_u64();
        let follows = |(offset, port): (u64, &Value)| from.is_some_and(|from| port.as_u64() == Some(from + offset));
        let run = (0..).zip(rest).take_while(|pair| follows(*pair)).count().max(1);
        if run >= RUN {
            written.push(json!(format!("{}-{}", first, rest[run - 1])));
            rest = &rest[run..];
        } else {
            written.push(first.clone());
            rest = &rest[1..];
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(rules: Value) -> Value {
        let Value::Array(rules) = rules else { panic!("a list") };
        let keys = rules.into_iter().map(|rule| rule.as_object().expect("an object").clone());
        merge(keys.collect()).into_iter().map(Value::Object).collect()
    }

    #[test]
    fn only_what_is_a_product_becomes_one_rule() {
        let table = [
            (
                json!([{"hosts": ["a"], "ports": [1]}, {"hosts": ["a"], "ports": [2]}, {"hosts": ["b"], "ports": [2]}, {"hosts": ["b"], "ports": [1]}]),
                json!([{"hosts": ["a", "b"], "ports": [1, 2]}]),
            ),
            (
                json!([{"hosts": ["a"], "ports": [1]}, {"hosts": ["b"], "ports": [2]}]),
                json!([{"hosts": ["a"], "ports": [1]}, {"hosts": ["b"], "ports": [2]}]),
            ),
            (
                json!([{"ports": [9]}, {"ports": [8000]}, {"ports": [8002]}, {"ports": [8001]}, {"ports": ["ephemeral"]}, {"ports": [10]}]),
                json!([{"ports": ["ephemeral", 9, 10, "8000-8002"]}]),
            ),
            (
                json!([{"minor": 3, "access": "w"}, {"minor": 3, "access": "r"}, {"minor": 4, "access": "m"}]),
                json!([{"minor": 3, "access": "rw"}, {"minor": 4, "access": "m"}]),
            ),
            (
                json!([{"option": "X", "access": "get"}, {"option": "X", "access": "set"}]),
                json!([{"option": "X", "access": "get"}, {"option": "X", "access": "set"}]),
            ),
            (
                json!([{"ops": ["a"]}, {"hosts": ["a"], "ops": ["a"]}]),
                json!([{"ops": ["a"]}, {"hosts": ["a"], "ops": ["a"]}]),
            ),
        ];
        for (rules, expected) in table {
            assert_eq!(merged(rules), expected);
        }
    }
}
