//! Changes to a policy's text, as patches (RFC 6902).

use json_patch::Patch;
use policy::Machine;
use serde_json::{Value, json};

use crate::{
    Guard,
    guard::{GuardError, written},
    rule::Keys,
};

/// A patch of these operations, which are objects of RFC 6902.
pub(crate) fn of(operations: Vec<Value>) -> Patch {
    serde_json::from_value(Value::Array(operations)).expect("operations are made here")
}

fn add(path: &str, value: &Value) -> Value {
    json!({"op": "add", "path": path, "value": value})
}

/// The operations that put rules into a section, one after the other, before the rule of a number or behind all.
pub(crate) fn insert(guard: &Guard, section: &str, before: Option<usize>, rules: Vec<Keys>) -> Vec<Value> {
    let rules: Vec<Value> = rules.into_iter().map(Value::Object).collect();
    match guard.json.get(section) {
        // What is left out restricts nothing by itself.
        None => vec![add(&format!("/{section}"), &json!({"default": "allow", "rules": rules}))],
        Some(there) if there.get("rules").is_none() => vec![add(&format!("/{section}/rules"), &rules.into())],
        Some(_) => {
            let place = |offset: usize| before.map_or_else(|| "-".to_owned(), |before| (before + offset).to_string());
            let path = |offset| format!("/{section}/rules/{}", place(offset));
            rules.iter().enumerate().map(|(offset, rule)| add(&path(offset), rule)).collect()
        }
    }
}

/// The operations that add values to a rule's list.
pub(crate) fn extend(section: &str, rule: usize, key: &str, values: impl IntoIterator<Item = Value>) -> Vec<Value> {
    values.into_iter().map(|value| add(&format!("/{section}/rules/{rule}/{key}/-"), &value)).collect()
}

/// The operation that replaces a rule's value.
pub(crate) fn replace(section: &str, rule: usize, key: &str, value: &Value) -> Vec<Value> {
    vec![json!({"op": "replace", "path": format!("/{section}/rules/{rule}/{key}"), "value": value})]
}

/// The operations by which a process section has what another one has, too.
pub(crate) fn loosen(guard: &Guard, wanted: &Value) -> Vec<Value> {
    let Some(there) = guard.json.get("process") else {
        return vec![add("/process", wanted)];
    };
    let lists = wanted.as_object().into_iter().flatten();
    let of_list = |(key, list): (&String, &Value)| match there.get(key).and_then(Value::as_array) {
        None => vec![add(&format!("/process/{key}"), list)],
        Some(known) => {
            let new = list.as_array().into_iter().flatten().filter(|element| !known.contains(element));
            new.map(|element| add(&format!("/process/{key}/-"), element)).collect()
        }
    };
    lists.flat_map(of_list).collect()
}

/// The policy that a patch makes of another one.
///
/// # Errors
///
/// When it can't be applied, or the result is no valid policy.
pub(crate) fn applied(guard: &Guard, patch: &Patch, machine: &impl Machine) -> Result<Guard, PatchError> {
    let mut json = guard.json.clone();
    json_patch::patch(&mut json, patch)?;
    Ok(guard.with_text(json.to_string().into_bytes(), machine)?)
}

/// Why a patch is of no use.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The patch doesn't fit the policy.
    #[error(transparent)]
    Misfit(#[from] json_patch::PatchError),
    /// What it makes of the policy is none.
    #[error(transparent)]
    Result(#[from] GuardError),
}

/// A patch as people read it, an operation for each line.
pub(crate) fn lines(patch: &Patch) -> Vec<String> {
    let operations = serde_json::to_value(patch).unwrap_or_default();
    let lines: Vec<String> = operations.as_array().into_iter().flatten().map(written).collect();
    let last = lines.len().saturating_sub(1);
    let line = |(index, line): (usize, &String)| {
        format!("{}{line}{}", if index == 0 { "[" } else { " " }, if index == last { "]" } else { "," })
    };
    lines.iter().enumerate().map(line).collect()
}
