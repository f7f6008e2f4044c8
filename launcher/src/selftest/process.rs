//! The section `process` of the self-test's policies. They have none, unless something of what keeps commands inside is to
//! be done without, because this kernel can't do it, or to see what it is good for.

use anyhow::anyhow;
use clap::Args;
use policy::{Document, Part};
use serde::{
    Deserialize as _,
    de::{IntoDeserializer as _, value::Error},
};
use serde_json::json;

use crate::harden::{HardenError, Hardening};

/// What the policies do without.
#[derive(Args, Clone, Debug, Default)]
pub struct Process {
    /// Try what is left of the guard with this in place of "full" as "isolation" of the policies
    #[arg(long, value_name = "ISOLATION", conflicts_with = "allow")]
    isolation: Option<String>,
    /// Have the policies "allow" this, which this kernel can't prevent, and don't fail because it is a way out
    #[arg(long, value_name = "PART", value_delimiter = ',', value_parser = part)]
    allow: Vec<Part>,
}

impl Process {
    /// Whether the policies allow what this part of the guard prevents.
    pub fn allows(&self, part: Part) -> bool {
        self.allow.contains(&part)
    }

    /// The section; nothing where it is left out.
    pub fn section(&self) -> Option<String> {
        let section = match (&self.isolation, &*self.allow) {
            (Some(isolation), _) => json!({"isolation": isolation}),
            (None, []) => return None,
            (None, allow) => json!({"allow": allow}),
        };
        Some(format!("\"process\": {section}"))
    }

    /// That commands can be kept inside here as the section says; otherwise nothing could be tried.
    ///
    /// # Errors
    ///
    /// When they can't, with what to type.
    pub fn require(&self) -> anyhow::Result<()> {
        let text = super::runner::policy("", self, 0, 0);
        let policy = Document::new("selftest".as_ref(), text.into()).parse()?;
        match Hardening::new(&policy, 0, Vec::new()) {
            Ok(_) => Ok(()),
            Err(error) => {
                let HardenError::Scope { parts, .. } = &error else { return Err(error.into()) };
                let parts: Vec<String> = parts.iter().map(|part| word(*part)).collect();
                Err(anyhow!("{error}; and to the self-test: --allow {}", parts.join(",")))
            }
        }
    }
}

/// A part by its word.
fn part(word: &str) -> Result<Part, Error> {
    Part::deserialize(word.into_deserializer())
}

/// The word of a part.
pub fn word(part: Part) -> String {
    json!(part).as_str().unwrap_or_default().to_owned()
}
