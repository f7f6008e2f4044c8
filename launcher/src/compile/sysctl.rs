//! Compiling the sysctls section: names become a table, and all names with wildcards one automaton.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use common::{
    Decision, RuleSet,
    sysctl::{self, ACCESSES, Access, Lookup, NAME_LEN, Name, Node, State, Table},
};

use super::CompileError;
use crate::policy::{Pattern, Section, SysctlRule, Token};

/// The most states that the automaton can have (2 MiB of kernel memory).
pub const MAX_STATES: usize = 4096;

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
    pub(super) fn compile(section: &Section<SysctlRule>) -> Result<Self, CompileError> {
        let rules = &section.rules;
        let any_name = indices(rules, |rule| rule.names.is_none());
        let mut names = BTreeMap::new();
        let mut patterns = Patterns::default();
        for (index, rule) in rules.iter().enumerate() {
            for pattern in rule.names.iter().flatten() {
                match pattern.exact() {
                    Some(name) => names.entry(terminated(name)).or_insert(any_name).insert(index),
                    None => patterns.add(index, pattern),
                }
            }
        }
        let (mut states, mut steps) = (Vec::new(), 0);
        if !patterns.starts.is_empty() {
            states = automaton(&patterns)?;
            // None are needed for "*" alone, but 0 would mean that there is no automaton.
            steps = steps_of(&states).max(1);
            // A power of two, so that the kernel side can keep a state's number in bounds with a mask.
            states.resize(states.len().next_power_of_two(), Node::UNREACHED);
        }
        let mut by_access = [RuleSet::NONE; ACCESSES];
        for access in [Access::READ, Access::WRITE] {
            by_access[access.index()] = indices(rules, |rule| rule.access.includes(access));
        }
        let table = Table {
            verdicts: section.verdicts(),
            by_exact_name: u32::from(!names.is_empty()),
            steps,
            state_mask: u32::try_from(states.len().saturating_sub(1)).expect("MAX_STATES fits"),
            padding: 0,
            by_access,
            any_name,
        };
        Ok(Self { table, names, states })
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

/// How far a pattern has been read: all positions of all patterns are numbered through.
type Position = usize;

/// Patterns, their positions numbered through: a position stands before its token; the one before `None` is a pattern's
/// end.
#[derive(Default)]
struct Patterns {
    tokens: Vec<Option<Token>>,
    rules: Vec<usize>,
    starts: Vec<Position>,
}

impl Patterns {
    fn add(&mut self, rule: usize, pattern: &Pattern) {
        self.starts.push(self.tokens.len());
        self.tokens.extend(pattern.tokens().map(Some));
        self.tokens.push(None);
        self.rules.resize(self.tokens.len(), rule);
    }

    /// The bytes that the patterns name, some of them more than once.
    fn bytes(&self) -> impl Iterator<Item = u8> + '_ {
        self.tokens.iter().filter_map(|token| match token {
            Some(Token::Byte(byte)) => Some(*byte),
            _ => None,
        })
    }

    /// The rules of the patterns whose end is among these positions.
    fn ended(&self, positions: &BTreeSet<Position>) -> RuleSet {
        let ends = positions.iter().filter(|position| self.tokens[**position].is_none());
        ends.map(|position| self.rules[*position]).collect()
    }

    /// Adds a position, and those that are reached from it without reading a byte.
    fn reach(&self, mut position: Position, reached: &mut BTreeSet<Position>) {
        reached.insert(position);
        while self.tokens[position] == Some(Token::AnyRun) {
            position += 1;
            reached.insert(position);
        }
    }

    /// The positions after reading a byte.
    fn step(&self, positions: &BTreeSet<Position>, byte: u8) -> BTreeSet<Position> {
        let mut reached = BTreeSet::new();
        for position in positions {
            match self.tokens[*position] {
                Some(Token::AnyRun) => self.reach(*position, &mut reached),
                Some(Token::AnyByte) => self.reach(position + 1, &mut reached),
                Some(Token::Byte(expected)) if expected == byte => self.reach(position + 1, &mut reached),
                Some(Token::Byte(_)) | None => {}
            }
        }
        reached
    }
}

/// Builds the automaton that recognises all patterns at once, by the subset construction: each of its states is a set of
/// positions in the patterns.
fn automaton(patterns: &Patterns) -> Result<Vec<Node>, CompileError> {
    // Bytes that no pattern names all lead the same way; 0xff, which is in no name, stands for them.
    let mut named: Vec<u8> = patterns.bytes().collect();
    named.sort_unstable();
    named.dedup();
    let mut start = BTreeSet::new();
    for position in &patterns.starts {
        patterns.reach(*position, &mut start);
    }
    let mut numbers: HashMap<BTreeSet<Position>, State> = HashMap::from([(start.clone(), sysctl::START)]);
    let mut positions_of = vec![start];
    let mut states: Vec<Node> = Vec::new();
    while let Some(positions) = positions_of.get(states.len()).cloned() {
        let mut number_after = |byte: u8| {
            let reached = patterns.step(&positions, byte);
            if let Some(number) = numbers.get(&reached) {
                return Ok(*number);
            }
            if positions_of.len() == MAX_STATES {
                return Err(CompileError::TooManyNames);
            }
            let number = State::try_from(positions_of.len()).expect("MAX_STATES fits");
            numbers.insert(reached.clone(), number);
            positions_of.push(reached);
            Ok(number)
        };
        let mut next = [number_after(0xff)?; 256];
        for byte in &named {
            next[usize::from(*byte)] = number_after(*byte)?;
        }
        // The NULs after a name change nothing.
        next[0] = State::try_from(states.len()).expect("MAX_STATES fits");
        states.push(Node { next, accepted: patterns.ended(&positions) });
    }
    Ok(states)
}

/// How many bytes have to be read until the state can't change any more, [`NAME_LEN`] if there is no such number.
fn steps_of(states: &[Node]) -> u32 {
    // Where the bytes lead from each state, but for a NUL, which is no step: few places, found once.
    let next = |node: &Node| {
        let mut next = node.next[1..].to_vec();
        next.sort_unstable();
        next.dedup();
        next
    };
    let next: Vec<Vec<State>> = states.iter().map(next).collect();
    let mut reached = BTreeSet::from([sysctl::START]);
    for steps in 0..NAME_LEN {
        // A state that only leads to itself is final.
        reached.retain(|state| next[usize::from(*state)] != [*state]);
        if reached.is_empty() {
            return u32::try_from(steps).expect("NAME_LEN fits");
        }
        reached = reached.iter().flat_map(|state| &next[usize::from(*state)]).copied().collect();
    }
    u32::try_from(NAME_LEN).expect("a constant that fits")
}
