//! Which sockets of services the unix section allows, so that they are not covered.

use std::{os::unix::ffi::OsStrExt as _, path::Path};

use common::unix;
use policy::{Action, Section, SocketPattern, UnixRule, compile::UnixTables};

/// What rules of the unix section allow by name.
pub(super) struct Allowed<'a> {
    /// As if all others were denied: then what is allowed is so by a rule.
    rules: Option<UnixTables>,
    section: &'a [UnixRule],
}

impl<'a> Allowed<'a> {
    /// What a policy's section allows.
    pub(super) fn new(unix: Option<&'a Section<UnixRule>>) -> Self {
        let rules = unix.map(|section| Section { default: Action::Deny, ..section.clone() });
        let rules = rules.and_then(|rules| UnixTables::compile(&rules).ok());
        Self { rules, section: unix.map_or(&[], |section| &section.rules) }
    }

    /// Whether a rule allows the socket at a path.
    pub(super) fn allows(&self, path: &Path) -> bool {
        let Some(rules) = &self.rules else { return false };
        let bytes = path.as_os_str().as_bytes();
        let mut name = [0; unix::NAME_LEN];
        let (Some(room), Ok(length)) = (name.get_mut(..bytes.len()), u32::try_from(bytes.len())) else { return false };
        room.copy_from_slice(bytes);
        rules.decide(&unix::Peer { kind: unix::Kind::PATH, length, name: &name, own: 0 }).allow
    }

    /// Whether a rule may allow something in a folder: by what comes before its first wildcard.
    pub(super) fn is_possible_below(&self, folder: &Path) -> bool {
        let folder = format!("{}/", folder.display());
        let is_below = |pattern: &SocketPattern| {
            let SocketPattern::Named(glob) = pattern else { return false };
            let text = glob.as_str();
            match text.find(['*', '?']) {
                Some(wild) => text[..wild].starts_with(&folder) || folder.starts_with(&text[..wild]),
                None => text.starts_with(&folder),
            }
        };
        let mut allowing = self.section.iter().filter(|rule| rule.action == Action::Allow);
        allowing.any(|rule| rule.paths.as_ref().is_none_or(|paths| paths.iter().any(is_below)))
    }
}
