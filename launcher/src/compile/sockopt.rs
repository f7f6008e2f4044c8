//! Compiling the sockopts section.

use common::{
    Decision, MAX_RULES,
    decision::Verdicts,
    record::Hook,
    sockopt::{self, Request, Rule, Rules, access},
};

use crate::policy::{Action, Section, SockoptRule};

/// The compiled sockopts section.
#[derive(Debug)]
pub struct SockoptTables {
    /// What the rules say.
    pub verdicts: Verdicts,
    /// The rules themselves, filled up with some that are never looked at.
    pub rules: Box<Rules>,
    /// The accesses that the default or some rule denies, as bits of [`access`].
    denied: u32,
}

impl SockoptTables {
    pub(super) fn compile(section: &Section<SockoptRule>) -> Self {
        let mut rules = Box::new([Rule::NONE; MAX_RULES]);
        let mut denied = if section.default == Action::Deny { access::ALL } else { 0 };
        for (compiled, rule) in rules.iter_mut().zip(&section.rules) {
            *compiled = Rule::new(rule.level(), rule.option(), rule.accesses());
            if rule.action == Action::Deny {
                denied |= rule.accesses();
            }
        }
        Self { verdicts: section.verdicts(), rules, denied }
    }

    /// The hooks that are needed: a program that could only allow would be in the way of every such call for nothing.
    pub(super) fn hooks(&self) -> impl Iterator<Item = Hook> + use<> {
        let denied = self.denied;
        let hooks = [(access::GET, Hook::Getsockopt), (access::SET, Hook::Setsockopt)];
        hooks.into_iter().filter(move |(access, _)| denied & access != 0).map(|(_, hook)| hook)
    }

    /// Judges a request, as the kernel would.
    #[must_use]
    pub fn decide(&self, request: &Request) -> Decision {
        sockopt::decide(&self.verdicts, &self.rules, request)
    }
}
