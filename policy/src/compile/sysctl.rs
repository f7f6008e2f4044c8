//! Compiling the sysctls section: names become a table, and all names with wildcards one automaton.

use std::collections::BTreeMap;

use common::{
    Decision, RuleSet,
    glob::{Node, State},
    sysctl::{self, ACCESSES, Access, Lookup, NAME_LEN, Name, Table},
};

use super::{
    CompileError,
    automaton::{Globs, TooManyStates},
};
use crate::{Action, Section, SysctlRule};

/// The compiled sysctls section.
#[derive(Debug)]
pub struct SysctlTables {
    /// What goes into read-only data.
    pub table: Table,
    /// The tunables that are named without wildcards, and the rules for each.
    pub names: BTreeMap<Name, RuleSet>,
    /// The states of the automaton for names with wildcards: none, or a power of two of them.
    pub states: Vec<Node>,
}

impl SysctlTables {
    /// Compiles the section. `None` where nothing is to be asked about tunables.
    pub(super) fn compile(
        section: Option<&Section<SysctlRule>>,
        rules_write: bool,
    ) -> Result<Option<Self>, CompileError> {
        static UNRESTRICTED: Section<SysctlRule> = Section { default: Action::Allow, rules: Vec::new(), reason: None };
        if section.is_none() && !rules_write {
            return Ok(None);
        }
        let section = section.unwrap_or(&UNRESTRICTED);
        let rules = &section.rules;
        let any_name = indices(rules, |rule| rule.names.is_none());
        let mut names = BTreeMap::new();
        let mut globs = Globs::default();
        for (index, rule) in rules.iter().enumerate() {
            for pattern in rule.names.iter().flatten() {
                match pattern.glob().exact() {
                    Some(name) => names.entry(terminated(name)).or_insert(any_name).insert(index),
                    None => globs.add(index, pattern.glob()),
                }
            }
        }
        let automaton = globs.automaton(NAME_LEN).map_err(|TooManyStates| CompileError::TooManyNames)?;
        let mut by_access = [RuleSet::NONE; ACCESSES];
        for access in [Access::READ, Access::WRITE] {
            by_access[access.index()] = indices(rules, |rule| rule.access.includes(access));
        }
        let table = Table {
            verdicts: section.verdicts(),
            by_exact_name: u32::from(!names.is_empty()),
            steps: automaton.steps,
            state_mask: automaton.state_mask(),
            rules_write: rules_write.into(),
            by_access,
            any_name,
        };
        Ok(Some(Self { table, names, states: automaton.states }))
    }

    /// Judges a request, as the kernel would.
    #[must_use]
    pub fn decide(&self, name: &Name, access: Access) -> Decision {
        sysctl::decide(&self.table, self, name, access)
    }
}

impl Lookup for SysctlTables {
    fn by_exact_name(&self, name: &Name) -> Option<&RuleSet> {
        self.names.get(name)
    }

    fn node(&self, number: State) -> &Node {
        &self.states[usize::from(number)]
    }
}

/// A name as the kernel gives it, filled up with NULs. It is shorter than [`NAME_LEN`].
fn terminated(name: &str) -> Name {
    let mut terminated = [0; NAME_LEN];
    terminated[..name.len()].copy_from_slice(name.as_bytes());
    terminated
}

fn indices(rules: &[SysctlRule], holds: impl Fn(&SysctlRule) -> bool) -> RuleSet {
    rules.iter().enumerate().filter(|(_, rule)| holds(rule)).map(|(index, _)| index).collect()
}
