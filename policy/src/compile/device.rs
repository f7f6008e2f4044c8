//! Compiling the devices section.

use common::{
    Decision, MAX_RULES,
    decision::Verdicts,
    device::{self, Request, Rule, Rules},
};

use crate::{DeviceRule, Section};

/// The compiled devices section.
#[derive(Debug)]
pub struct DeviceTables {
    /// What the rules say.
    pub verdicts: Verdicts,
    /// The rules themselves, filled up with some that are never looked at.
    pub rules: Box<Rules>,
}

impl DeviceTables {
    pub(super) fn compile(section: &Section<DeviceRule>) -> Self {
        let mut rules = Box::new([Rule::NONE; MAX_RULES]);
        for (compiled, rule) in rules.iter_mut().zip(&section.rules) {
            *compiled = Rule::new(rule.kind.only(), rule.major, rule.minor, rule.access.bits());
        }
        Self { verdicts: section.verdicts(), rules }
    }

    /// Judges a request, as the kernel would.
    #[must_use]
    pub fn decide(&self, request: &Request) -> Decision {
        device::decide(&self.verdicts, &self.rules, request)
    }
}
