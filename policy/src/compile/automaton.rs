//! Building the automaton that recognises all globs of a section at once.

use std::collections::{BTreeSet, HashMap};

use common::{
    RuleSet,
    glob::{Node, START, State},
};

use crate::{Glob, Token};

/// The most states that an automaton can have (2 MiB of kernel memory).
pub const MAX_STATES: usize = 4096;

/// The globs need more than [`MAX_STATES`] states.
#[derive(Debug)]
pub(super) struct TooManyStates;

/// How far a glob has been read: all positions of all globs are numbered through.
type Position = usize;

/// Globs, their positions numbered through: a position stands before its token; the one before `None` is a glob's end.
#[derive(Default)]
pub(super) struct Globs {
    tokens: Vec<Option<Token>>,
    rules: Vec<usize>,
    starts: Vec<Position>,
}

/// An automaton, as `decide()` wants it.
#[derive(Debug, Default)]
pub(super) struct Automaton {
    /// The states: none, or a power of two of them.
    pub states: Vec<Node>,
    /// How many bytes it has to read until no further one matters; 0 where there are no globs.
    pub steps: u32,
}

impl Automaton {
    /// What keeps a state's number in bounds.
    pub(super) fn state_mask(&self) -> u32 {
        u32::try_from(self.states.len().saturating_sub(1)).expect("MAX_STATES fits")
    }
}

impl Globs {
    pub(super) fn add(&mut self, rule: usize, glob: &Glob) {
        self.starts.push(self.tokens.len());
        self.tokens.extend(glob.tokens().map(Some));
        self.tokens.push(None);
        self.rules.resize(self.tokens.len(), rule);
    }

    /// The automaton for names of less than `name_len` bytes, filled up with NULs.
    pub(super) fn automaton(&self, name_len: usize) -> Result<Automaton, TooManyStates> {
        if self.starts.is_empty() {
            return Ok(Automaton::default());
        }
        let mut states = self.states()?;
        // None are needed for "*" alone, but 0 would mean that there is no automaton.
        let steps = steps_of(&states, name_len).max(1);
        // A power of two, so that the kernel side can keep a state's number in bounds with a mask.
        states.resize(states.len().next_power_of_two(), Node::UNREACHED);
        Ok(Automaton { states, steps: u32::try_from(steps).expect("names are short") })
    }

    /// The bytes that the globs name, some of them more than once.
    fn bytes(&self) -> impl Iterator<Item = u8> + '_ {
        self.tokens.iter().filter_map(|token| match token {
            Some(Token::Byte(byte)) => Some(*byte),
            _ => None,
        })
    }

    /// The rules of the globs whose end is among these positions.
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

    /// The subset construction: each state is a set of positions in the globs.
    fn states(&self) -> Result<Vec<Node>, TooManyStates> {
        // Bytes that no glob names all lead the same way; 0xff, which is in no rule, stands for them.
        let mut named: Vec<u8> = self.bytes().collect();
        named.sort_unstable();
        named.dedup();
        let mut start = BTreeSet::new();
        for position in &self.starts {
            self.reach(*position, &mut start);
        }
        let mut numbers: HashMap<BTreeSet<Position>, State> = HashMap::from([(start.clone(), START)]);
        let mut positions_of = vec![start];
        let mut states: Vec<Node> = Vec::new();
        while let Some(positions) = positions_of.get(states.len()).cloned() {
            let mut number_after = |byte: u8| {
                let reached = self.step(&positions, byte);
                if let Some(number) = numbers.get(&reached) {
                    return Ok(*number);
                }
                if positions_of.len() == MAX_STATES {
                    return Err(TooManyStates);
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
            states.push(Node { next, accepted: self.ended(&positions) });
        }
        Ok(states)
    }
}

/// How many bytes have to be read until the state can't change any more, `name_len` if there is no such number.
fn steps_of(states: &[Node], name_len: usize) -> usize {
    // Where the bytes lead from each state, but for a NUL, which is no step: few places, found once.
    let next = |node: &Node| {
        let mut next = node.next[1..].to_vec();
        next.sort_unstable();
        next.dedup();
        next
    };
    let next: Vec<Vec<State>> = states.iter().map(next).collect();
    let mut reached = BTreeSet::from([START]);
    for steps in 0..name_len {
        // A state that only leads to itself is final.
        reached.retain(|state| next[usize::from(*state)] != [*state]);
        if reached.is_empty() {
            return steps;
        }
        reached = reached.iter().flat_map(|state| &next[usize::from(*state)]).copied().collect();
    }
    name_len
}
