//! The reasons that a policy gives: each is a sentence for anybody who meets a rule.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Policy, Rule, Section};

/// The reasons of a policy, by the JSON pointer of what gives them: a rule, a section, or the whole policy.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Reasons(BTreeMap<String, String>);

impl Reasons {
    /// The reason of what decided in a section, by the number that `decide()` gives: the rule's own, or else the section's, or else the
    /// policy's.
    #[must_use]
    pub fn of(&self, section: &str, rule: u16) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        let own = self.0.get(&format!("/{section}/rules/{rule}"));
        own.or_else(|| self.0.get(&format!("/{section}"))).or_else(|| self.0.get("")).map(String::as_str)
    }

    /// Whether no reason is given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, pointer: impl FnOnce() -> String, reason: Option<&str>) {
        self.0.extend(reason.map(|reason| (pointer(), reason.to_owned())));
    }

    fn add_section<R: Rule>(&mut self, name: &str, section: Option<&Section<R>>) {
        let Some(section) = section else { return };
        self.add(|| format!("/{name}"), section.reason.as_deref());
        for (number, rule) in section.rules.iter().enumerate() {
            self.add(|| format!("/{name}/rules/{number}"), rule.reason());
        }
    }
}

impl Policy {
    /// The reasons that the policy gives.
    #[must_use]
    pub fn reasons(&self) -> Reasons {
        let mut reasons = Reasons::default();
        reasons.add(String::new, self.reason.as_deref());
        reasons.add_section("network", self.network.as_deref());
        reasons.add_section("unix", self.unix.as_ref());
        reasons.add_section("devices", self.devices.as_ref());
        reasons.add_section("sysctls", self.sysctls.as_ref());
        reasons.add_section("sockets", self.sockets.as_ref());
        reasons.add_section("sockopts", self.sockopts.as_ref());
        reasons
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use common::decision::DEFAULT;

    use crate::{Document, Reasons};

    fn reasons(text: &str) -> Result<Reasons, String> {
        let parsed = Document::new(Path::new("p.json"), text.into()).parse();
        parsed.map(|policy| policy.reasons()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_nearest_reason_counts() {
        let reasons = reasons(
            r#"{"version": 1, "reason": "whole",
                "network": {"default": "deny", "rules": [{"action": "deny", "reason": "own"}, {"action": "deny"}]},
                "unix": {"default": "deny", "reason": "section", "rules": [{"action": "deny"}]}}"#,
        )
        .unwrap();
        assert_eq!(reasons.of("network", 0), Some("own"));
        assert_eq!(reasons.of("network", 1), Some("whole"));
        assert_eq!(reasons.of("network", DEFAULT), Some("whole"));
        assert_eq!(reasons.of("unix", 0), Some("section"));
        assert_eq!(reasons.of("unix", DEFAULT), Some("section"));
        assert_eq!(Reasons::default().of("unix", DEFAULT), None);
    }

    #[test]
    fn a_reason_is_a_sentence() {
        for (reason, expected) in [
            (r#""""#.to_owned(), "empty"),
            (r#"" ""#.to_owned(), "empty"),
            (format!("{:?}", "x".repeat(301)), "at most 300"),
            ("null".to_owned(), "null"),
            ("1".to_owned(), "string"),
        ] {
            let error = reasons(&format!(r#"{{"version": 1, "network": {{"default": "deny", "reason": {reason}}}}}"#));
            assert!(error.as_ref().unwrap_err().contains(expected), "{reason}: {error:?}");
        }
        let longest = "ö".repeat(300);
        assert!(reasons(&format!(r#"{{"version": 1, "reason": "{longest}"}}"#)).is_ok());
    }
}
