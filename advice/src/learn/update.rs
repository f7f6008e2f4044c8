//! Adding what was learnt to a policy, whose text stays as it is laid out.

use jsonc_parser::{
    ParseOptions,
    cst::{CstArray, CstInputValue, CstRootNode},
};
use serde_json::Value;

use super::{Learner, network::Rule, write};

/// The policy's text with rules at the end of its sections, and words in its process section. `None` where it is no text that can be
/// added to.
pub fn update(seen: &Learner, rules: &[Rule], has_unix: bool, text: &str) -> Option<String> {
    let root = CstRootNode::parse(text, &ParseOptions::default()).ok()?;
    let policy = root.object_value()?;
    for section in write::sections(seen, rules, has_unix, false).iter().filter(|section| !section.rules.is_empty()) {
        // What a policy has no section for, it allows; sockets of some kinds it refuses all the same.
        let list = policy.object_value(section.name).or_else(|| {
            let made = policy.object_value_or_set(section.name);
            made.append("default", CstInputValue::String("allow".to_owned()));
            Some(made)
        })?;
        let list = list.array_value_or_set("rules");
        for rule in &section.rules {
            let keys = rule.iter().map(|(key, value)| ((*key).to_owned(), input(value))).collect();
            list.append(CstInputValue::Object(keys));
        }
    }
    for (key, words) in &seen.process {
        let list: CstArray = policy.object_value_or_set("process").array_value_or_set(key);
        let there: Vec<String> = list.elements().iter().map(ToString::to_string).collect();
        for word in words.keys().filter(|word| !there.contains(&format!("{word:?}"))) {
            list.append(CstInputValue::String(word.clone()));
        }
    }
    Some(root.to_string())
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(list) => CstInputValue::Array(list.iter().map(input).collect()),
        Value::Object(keys) => {
            CstInputValue::Object(keys.iter().map(|(key, value)| (key.clone(), input(value))).collect())
        }
    }
}
