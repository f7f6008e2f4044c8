//! A policy in all its forms: as it is written, as it is meant, and as it is enforced.

use policy::{
    Document, Machine, PolicyError, Resolved,
    compile::{CompileError, Tables},
};
use serde_json::Value;

/// A policy that advice is given on.
#[derive(Debug)]
pub struct Guard {
    /// As it is written.
    pub document: Document,
    /// As it is meant.
    pub policy: Resolved,
    /// As it is enforced.
    pub tables: Tables,
    /// As it is written, as a value; if it includes other files, as a whole.
    pub json: Value,
}

/// Why a text is no policy that can be enforced.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The policy isn't valid.
    #[error(transparent)]
    Invalid(#[from] PolicyError),
    /// The policy's tables would be too large.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

impl Guard {
    /// The policy of a document, on a machine.
    ///
    /// # Errors
    ///
    /// When the text is no valid policy, or one that needs larger tables than there can be.
    pub fn new(document: Document, machine: &impl Machine) -> Result<Self, GuardError> {
        let policy = document.resolve(machine)?;
        let tables = Tables::compile(&policy)?;
        Ok(Self::of(document, policy, tables))
    }

    /// A policy that was compiled already.
    #[must_use]
    pub fn of(document: Document, policy: Resolved, tables: Tables) -> Self {
        // The rules of included files have no place in this one; then they are shown as `guard-run check` prints them.
        let json = if policy.included.is_empty() {
            serde_json::from_slice(document.text()).unwrap_or_default()
        } else {
            serde_json::to_value(&*policy).unwrap_or_default()
        };
        Self { document, policy, tables, json }
    }

    /// The policy of another text in this document's place.
    ///
    /// # Errors
    ///
    /// Those of [`Guard::new`].
    pub fn with_text(&self, text: Vec<u8>, machine: &impl Machine) -> Result<Self, GuardError> {
        Self::new(Document::new(self.document.path(), text), machine)
    }

    /// A rule as a value, as it is written.
    #[must_use]
    pub fn rule(&self, section: &str, number: usize) -> Option<&Value> {
        self.json.get(section)?.get("rules")?.get(number)
    }

    /// How many rules a section has.
    #[must_use]
    pub fn rules(&self, section: &str) -> usize {
        self.json.get(section).and_then(|section| section.get("rules")?.as_array()).map_or(0, Vec::len)
    }
}

/// A JSON value as people write it on one line.
pub(crate) fn written(value: &Value) -> String {
    match value {
        Value::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| place(key));
            let entries: Vec<String> = entries
                .iter()
                .map(|(key, value)| format!("{}: {}", Value::from(key.as_str()), written(value)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Array(elements) => {
            let elements: Vec<String> = elements.iter().map(written).collect();
            format!("[{}]", elements.join(", "))
        }
        other => other.to_string(),
    }
}

/// In which order people write the keys of a rule, and of an operation of a patch.
fn place(key: &str) -> usize {
    const ORDER: [&str; 21] = [
        "op",
        "default",
        "action",
        "ops",
        "family",
        "level",
        "type",
        "major",
        "minor",
        "option",
        "protocols",
        "protocol",
        "hosts",
        "names",
        "paths",
        "path",
        "ports",
        "local_ports",
        "access",
        "value",
        "rules",
    ];
    ORDER.iter().position(|known| *known == key).unwrap_or(ORDER.len())
}
