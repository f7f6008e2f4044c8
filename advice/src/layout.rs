//! Applying a patch to a text, so that what it doesn't touch stays as it is: order, indentation, line breaks.

use json_patch::{Patch, PatchOperation};
use jsonc_parser::{
    ParseOptions,
    cst::{CstInputValue, CstNode, CstRootNode},
};
use serde_json::Value;

use crate::guard::written;

/// The text with a patch applied. `None` where that can't be done, or would not be what the patch says.
pub(crate) fn apply(text: &str, patch: &Patch) -> Option<String> {
    let mut expected: Value = serde_json::from_str(text).ok()?;
    json_patch::patch(&mut expected, patch).ok()?;
    let root = CstRootNode::parse(text, &ParseOptions::default()).ok()?;
    for operation in &patch.0 {
        let (pointer, value) = match operation {
            PatchOperation::Add(add) => (add.path.to_string(), &add.value),
            PatchOperation::Replace(replace) => (replace.path.to_string(), &replace.value),
            _ => return None,
        };
        let (parent, last) = pointer.rsplit_once('/')?;
        let parent = node(&root, parent)?;
        if let Some(array) = parent.as_array() {
            let elements = array.elements();
            match last.parse() {
                Ok(place) if place < elements.len() => drop(array.insert(place, raw(value))),
                _ => drop(array.append(raw(value))),
            }
        } else if let Some(object) = parent.as_object() {
            match object.get(last) {
                Some(there) => there.set_value(raw(value)),
                None => drop(object.append(last, raw(value))),
            }
        } else {
            return None;
        }
    }
    let text = root.to_string();
    (serde_json::from_str::<Value>(&text).ok()? == expected).then_some(text)
}

/// A value that is written on one line, as rules usually are: the library takes a number's text as it is.
fn raw(value: &Value) -> CstInputValue {
    CstInputValue::Number(written(value))
}

/// The node at a JSON pointer of which no key has to be escaped: those of policies.
pub(crate) fn node(root: &CstRootNode, pointer: &str) -> Option<CstNode> {
    let mut node = root.value()?;
    for step in pointer.split('/').skip(1) {
        node = match (node.as_object(), node.as_array()) {
            (Some(object), _) => object.get(step)?.value()?,
            (_, Some(array)) => array.elements().into_iter().nth(step.parse().ok()?)?,
            _ => return None,
        };
    }
    Some(node)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::patch;

    fn patched(text: &str, operations: Value) -> String {
        let Value::Array(operations) = operations else { panic!("a list") };
        apply(text, &patch::of(operations)).expect("a patch that fits")
    }

    const RULE: &str = r#"{"action": "allow", "ports": [1]}"#;

    fn rule() -> Value {
        json!({"ports": [1], "action": "allow"})
    }

    #[test]
    fn what_is_added_looks_like_what_is_there() {
        let table = [
            (
                "{\n  \"network\": {\n    \"rules\": [\n      {\"a\": 1}\n    ]\n  }\n}\n",
                json!([{"op": "add", "path": "/network/rules/-", "value": rule()}]),
                format!(
                    "{{\n  \"network\": {{\n    \"rules\": [\n      {{\"a\": 1}},\n      {RULE}\n    ]\n  }}\n}}\n"
                ),
            ),
            (
                "{\n\t\"network\": {\n\t\t\"rules\": [\n\t\t\t{\"a\": 1},\n\t\t\t{\"b\": 1}\n\t\t]\n\t}\n}",
                json!([{"op": "add", "path": "/network/rules/1", "value": rule()}]),
                format!(
                    "{{\n\t\"network\": {{\n\t\t\"rules\": [\n\t\t\t{{\"a\": 1}},\n\t\t\t{RULE},\n\t\t\t{{\"b\": 1}}\n\t\t]\n\t}}\n}}"
                ),
            ),
            (
                r#"{"network": {"rules": [{"ports": [80, 443]}]}}"#,
                json!([{"op": "add", "path": "/network/rules/0/ports/-", "value": 8443}]),
                r#"{"network": {"rules": [{"ports": [80, 443, 8443]}]}}"#.to_owned(),
            ),
            (
                r#"{"devices": {"rules": [{"access":"r"}]}}"#,
                json!([{"op": "replace", "path": "/devices/rules/0/access", "value": "rw"}]),
                r#"{"devices": {"rules": [{"access":"rw"}]}}"#.to_owned(),
            ),
        ];
        for (text, operations, expected) in table {
            assert_eq!(patched(text, operations), expected);
        }
    }

    #[test]
    fn what_is_missing_is_made() {
        for text in [
            "{\"version\": 1}",
            "{\n  \"version\": 1\n}\n",
            "{\r\n  \"version\": 1\r\n}\r\n",
            "{\n  \"network\": {\"rules\": []}\n}",
        ] {
            let path = if text.contains("network") { "/network/rules/-" } else { "/network" };
            let value = if text.contains("network") { rule() } else { json!({"default": "deny", "rules": [rule()]}) };
            let after = patched(text, json!([{"op": "add", "path": path, "value": value}]));
            assert!(after.contains(RULE), "{after}");
            assert_eq!(after.ends_with('\n'), text.ends_with('\n'));
        }
    }
}
