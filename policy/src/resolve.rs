//! From what a policy says to what that means on one machine.
//!
//! Parsing looks at the text alone. What depends on a machine, like the device that a path stands for, is looked up here,
//! by somebody who can: this crate opens no such file.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
};

use crate::{DeviceNode, Document, NetSection, Policy, PolicyError, Surroundings, device::NodePath};

/// What a policy may ask of the machine that it is for.
pub trait Machine {
    /// The device of the node at an absolute path, or of the one that a symbolic link there leads to.
    ///
    /// # Errors
    ///
    /// When no device node is there: the reason, for people.
    fn device(&self, path: &Path) -> Result<DeviceNode, String>;

    /// Whom and what the command's resolver asks for host names.
    ///
    /// # Errors
    ///
    /// When what says so is there but can't be read: the reason, for people.
    fn surroundings(&self) -> Result<Surroundings, String>;

    /// The path of what a path leads to, without symbolic links: rules on Unix sockets have such paths. What is not known is what the
    /// path says.
    fn real_path(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }
}

/// A policy in which nothing depends on a machine any more.
#[derive(Clone, Debug)]
pub struct Resolved {
    policy: Policy,
    surroundings: Surroundings,
}

impl Deref for Resolved {
    type Target = Policy;

    fn deref(&self) -> &Policy {
        &self.policy
    }
}

impl Resolved {
    /// Whom and what the command's resolver asks for host names: nobody and nothing where the policy has none.
    #[must_use]
    pub const fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }
}

impl Policy {
    /// Looks up what depends on the machine. The document is the one that the policy was parsed from.
    ///
    /// # Errors
    ///
    /// When the machine doesn't have what a rule names; the error names the place in the document.
    pub fn resolve(mut self, document: &Document, machine: &impl Machine) -> Result<Resolved, PolicyError> {
        let origins = std::mem::take(&mut self.origins);
        let rules = self.devices.iter_mut().flat_map(|section| &mut section.rules);
        for (number, rule) in rules.enumerate() {
            let Some(NodePath(path)) = rule.path.take() else { continue };
            let node = machine.device(Path::new(&path)).map_err(|reason| {
                let origin = origins.iter().find(|origin| origin.rule == ("devices", number));
                let (document, rule) = origin.map_or_else(
                    || (document, format!("/devices/rules/{number}")),
                    |origin| (&*origin.document, origin.pointer()),
                );
                let pointer = rule + "/path";
                let message = format!(
                    "device path \"{path}\": {reason}; write the path of a device node that is there, or \"type\", \
                     \"major\" and \"minor\""
                );
                PolicyError::at(document, pointer, &message)
            })?;
            rule.set(node);
        }
        self.origins = origins;
        let surroundings = if self.network.as_ref().is_some_and(NetSection::has_names) {
            let surroundings = machine.surroundings();
            surroundings.map_err(|reason| {
                PolicyError::at(document, "/network/rules".to_owned(), &format!("there are host names, but {reason}"))
            })?
        } else {
            Surroundings::default()
        };
        Ok(Resolved { policy: self, surroundings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with one device.
    struct Zero;

    impl Machine for Zero {
        fn device(&self, path: &Path) -> Result<DeviceNode, String> {
            let zero = DeviceNode { kind: common::device::Type::Char, major: 1, minor: 5 };
            if path == Path::new("/dev/zero") { Ok(zero) } else { Err("not\nthere".to_owned()) }
        }

        fn surroundings(&self) -> Result<Surroundings, String> {
            Err("/etc/resolv.conf: not\nthere".to_owned())
        }
    }

    fn resolve(rules: &str) -> Result<Resolved, PolicyError> {
        let text = format!("{{\"version\": 1,\n\"devices\": {{\"default\": \"deny\",\n\"rules\": [{rules}]}}}}");
        let document = Document::new(Path::new("p.json"), text.into());
        document.resolve(&Zero)
    }

    #[test]
    fn a_path_becomes_the_numbers_of_its_device() {
        let policy = resolve(r#"{"action": "allow", "path": "/dev/zero", "access": "r"}"#).unwrap();
        let printed = serde_json::to_value(&*policy).unwrap();
        let expected = serde_json::json!({"action": "allow", "type": "c", "major": 1, "minor": 5, "access": "r"});
        assert_eq!(printed["devices"]["rules"][0], expected);
    }

    #[test]
    fn an_error_names_the_place() {
        let rules = "{\"action\": \"allow\"},\n{\"action\": \"deny\",\n\"path\": \"/dev/none\"}";
        let error = resolve(rules).unwrap_err().to_string();
        assert!(
            error.starts_with("p.json: /devices/rules/1/path (line 5): device path \"/dev/none\": not\\nthere;"),
            "{error}"
        );
    }

    #[test]
    fn the_machine_is_asked_about_nameservers_only_for_host_names() {
        let resolve = |host: &str| {
            let rule = format!("{{\"action\": \"allow\", \"hosts\": [\"{host}\"]}}");
            let text = format!("{{\"version\": 1,\n\"network\": {{\"default\": \"deny\",\n\"rules\": [{rule}]}}}}");
            Document::new(Path::new("p.json"), text.into()).resolve(&Zero)
        };
        assert_eq!(*resolve("10.0.0.1").unwrap().surroundings(), Surroundings::default());
        let error = resolve("api.example.org").unwrap_err().to_string();
        let expected = "p.json: /network/rules (line 3): there are host names, but /etc/resolv.conf: not\\nthere";
        assert_eq!(error, expected);
    }
}
