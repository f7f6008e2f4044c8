//! Building the automaton that recognises all globs of a section at once.
//!
//! The globs become a tree of [`Place`]s first, in which those that begin alike have their beginnings in common. Then places after
//! which the same may follow become one, so that those that end alike have their ends in common. Only then are sets of places
//! made, which are the automaton's states: few, and each of a few places, for globs as people write them.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use common::{
    RuleSet,
    glob::{Node, START, State},
};

use crate::{Glob, Token};

/// The most states that an automaton can have (2 MiB of kernel memory).
pub const MAX_STATES: usize = 4096;

/// The most places in globs, before those are found that are alike. Where there are more, so are states.
const MAX_PLACES: usize = 1 << 17;

/// The most places that are looked at to find all states, each as often as that is. Globs with many `*` take exponential time
/// otherwise. It is a hundred times what an automaton of [`MAX_STATES`] ordinary states takes.
const MAX_WORK: usize = 1 << 23;

/// The globs need more than [`MAX_STATES`] states, or more time and memory than any that need fewer.
#[derive(Debug)]
pub(super) struct TooManyStates;

/// The number of a place.
type Position = u32;

/// How far globs have been read that begin with the same tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Place {
    /// Whether it comes after a `*`: every byte leads here again.
    loops: bool,
    /// The rules of which a glob ends here.
    ends: RuleSet,
    /// Where tokens lead. `*` leads on without reading a byte.
    next: Vec<(Token, Position)>,
}

/// Globs, as a tree of places.
pub(super) struct Globs {
    places: Vec<Place>,
    children: HashMap<(Position, Token), Position>,
    is_full: bool,
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

impl Default for Globs {
    fn default() -> Self {
        Self { places: vec![Place::default()], children: HashMap::new(), is_full: false }
    }
}

/// Where all globs begin.
const ROOT: Position = 0;

impl Globs {
    /// Adds a glob of a rule.
    pub(super) fn add(&mut self, rule: usize, glob: &Glob) {
        let mut place = ROOT;
        for token in glob.tokens() {
            // A second `*` right after the first adds nothing.
            if token == Token::AnyRun && self.place(place).loops {
                continue;
            }
            let Some(next) = self.child(place, token) else {
                self.is_full = true;
                return;
            };
            place = next;
        }
        self.places[place as usize].ends.insert(rule);
    }

    /// The place to which a token leads. `None` where there is no room for another one.
    fn child(&mut self, place: Position, token: Token) -> Option<Position> {
        if let Some(child) = self.children.get(&(place, token)) {
            return Some(*child);
        }
        let child = Position::try_from(self.places.len()).ok().filter(|_| self.places.len() < MAX_PLACES)?;
        self.places.push(Place { loops: token == Token::AnyRun, ..Place::default() });
        self.children.insert((place, token), child);
        Some(child)
    }

    fn place(&self, position: Position) -> &Place {
        &self.places[position as usize]
    }

    /// The automaton for names of less than `name_len` bytes, filled up with NULs.
    pub(super) fn automaton(mut self, name_len: usize) -> Result<Automaton, TooManyStates> {
        if self.is_full {
            return Err(TooManyStates);
        }
        if self.children.is_empty() && self.place(ROOT).ends == RuleSet::NONE {
            return Ok(Automaton::default());
        }
        self.merge();
        let mut states = self.states()?;
        // None are needed for "*" alone, but 0 would mean that there is no automaton.
        let steps = steps_of(&states, name_len).max(1);
        // A power of two, so that the kernel side can keep a state's number in bounds with a mask.
        states.resize(states.len().next_power_of_two(), Node::UNREACHED);
        Ok(Automaton { states, steps: u32::try_from(steps).expect("names are short") })
    }

    /// Finds where tokens lead from each place, and makes one place of those from which everything goes on alike.
    fn merge(&mut self) {
        for ((place, token), next) in self.children.drain() {
            self.places[place as usize].next.push((token, next));
        }
        let mut known: HashMap<Place, Position> = HashMap::new();
        let mut merged: Vec<Position> = vec![ROOT; self.places.len()];
        // What comes after a place has a higher number.
        for position in (0..self.places.len()).rev() {
            let mut place = std::mem::take(&mut self.places[position]);
            for (_, next) in &mut place.next {
                *next = merged[*next as usize];
            }
            place.next.sort_unstable();
            let number = Position::try_from(position).expect("MAX_PLACES fits");
            merged[position] = *known.entry(place).or_insert(number);
        }
        for (place, position) in known {
            self.places[position as usize] = place;
        }
    }

    /// Adds a place, and that which is reached from it without reading a byte.
    fn reach(&self, position: Position, reached: &mut Vec<Position>) {
        reached.push(position);
        // After a `*`, there is none.
        reached.extend(
            self.place(position).next.iter().filter(|(token, _)| *token == Token::AnyRun).map(|(_, next)| *next),
        );
    }

    /// The subset construction: each state is a set of places.
    fn states(&self) -> Result<Vec<Node>, TooManyStates> {
        let mut start = Vec::new();
        self.reach(ROOT, &mut start);
        let mut sets = Sets::default();
        sets.number(start)?;
        let mut states: Vec<Node> = Vec::new();
        let mut work = 0;
        while let Some(set) = sets.by_number.get(states.len()).cloned() {
            // What every byte leads to, and what some lead to beside that.
            let mut always = Vec::new();
            let mut by_byte: Vec<(u8, Vec<Position>)> = Vec::new();
            let mut slot = [None; 256];
            let mut accepted = RuleSet::NONE;
            for position in &*set {
                let place = self.place(*position);
                accepted = accepted.or(&place.ends);
                if place.loops {
                    always.push(*position);
                }
                work += 1 + place.next.len();
                for (token, next) in &place.next {
                    match token {
                        Token::AnyRun => {}
                        Token::AnyByte => self.reach(*next, &mut always),
                        Token::Byte(byte) => {
                            let slot = slot[usize::from(*byte)].get_or_insert_with(|| {
                                by_byte.push((*byte, Vec::new()));
                                by_byte.len() - 1
                            });
                            self.reach(*next, &mut by_byte[*slot].1);
                        }
                    }
                }
            }
            work += (1 + by_byte.len()) * always.len();
            if work > MAX_WORK {
                return Err(TooManyStates);
            }
            let mut next = [0; 256];
            for (byte, also) in by_byte {
                next[usize::from(byte)] = sets.number([&always[..], &also].concat())?;
            }
            let otherwise = sets.number(always)?;
            for (byte, next) in next.iter_mut().enumerate() {
                if slot[byte].is_none() {
                    *next = otherwise;
                }
            }
            // The NULs after a name change nothing.
            next[0] = State::try_from(states.len()).expect("MAX_STATES fits");
            states.push(Node { next, accepted });
        }
        Ok(states)
    }
}

/// Sets of places, numbered in the order in which they are found.
#[derive(Default)]
struct Sets {
    numbers: HashMap<Rc<[Position]>, State>,
    by_number: Vec<Rc<[Position]>>,
}

impl Sets {
    fn number(&mut self, mut set: Vec<Position>) -> Result<State, TooManyStates> {
        set.sort_unstable();
        set.dedup();
        if let Some(number) = self.numbers.get(&*set) {
            return Ok(*number);
        }
        if self.by_number.len() == MAX_STATES {
            return Err(TooManyStates);
        }
        let number = State::try_from(self.by_number.len()).expect("MAX_STATES fits");
        let set: Rc<[Position]> = set.into();
        self.by_number.push(Rc::clone(&set));
        self.numbers.insert(set, number);
        Ok(number)
    }
}

/// How many bytes have to be read until the state can't change any more, `name_len` if there is no such number: the longest way
/// to a state that leads to itself alone.
fn steps_of(states: &[Node], name_len: usize) -> usize {
    // Where the bytes lead from each state, but for a NUL, which is no step.
    let next = |number: usize| {
        let mut next = states[number].next[1..].to_vec();
        next.sort_unstable();
        next.dedup();
        let is_final = next.iter().all(|next| usize::from(*next) == number);
        if is_final { Vec::new() } else { next }
    };
    let next: Vec<Vec<State>> = (0..states.len()).map(next).collect();
    let mut before = vec![0_usize; states.len()];
    for number in next.iter().flatten() {
        before[usize::from(*number)] += 1;
    }
    let mut steps = vec![0; states.len()];
    // Where the first state is led to, this finds none.
    let mut ready = VecDeque::from_iter((before[usize::from(START)] == 0).then_some(START));
    let mut done = 0;
    while let Some(state) = ready.pop_front() {
        done += 1;
        for following in &next[usize::from(state)] {
            let (state, following) = (usize::from(state), usize::from(*following));
            steps[following] = steps[following].max(steps[state] + 1);
            before[following] -= 1;
            if before[following] == 0 {
                ready.push_back(State::try_from(following).expect("MAX_STATES fits"));
            }
        }
    }
    // What is left is led to by itself.
    if done == states.len() { steps.into_iter().max().unwrap_or(0).min(name_len) } else { name_len }
}
