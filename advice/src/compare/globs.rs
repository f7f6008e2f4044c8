//! Comparing Unix sockets and tunables: both policies' automata read the same name, one byte after the other, in all ways
//! that they tell apart.

use std::collections::{HashMap, VecDeque};

use common::{
    glob::Node,
    sysctl::{self, Access},
    unix::{self, Kind},
};

use super::{Extent, Found, Side, TooManyNames, Ways};

/// The most ways in which names are told apart.
const MAX_STATES: usize = 1 << 20;

/// The longest abstract name, with what stands for its first NUL.
const LONGEST_ABSTRACT: usize = 108;

/// The bytes of names, those first that make good examples; a NUL ends a name.
fn bytes() -> impl Iterator<Item = u8> {
    let good = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let fair = |byte: &u8| byte.is_ascii_graphic();
    let rank = move |byte: &u8| {
        if good(byte) {
            0
        } else if fair(byte) {
            1
        } else {
            2
        }
    };
    let mut all: Vec<u8> = (b'x'..=b'z').chain(1..b'x').chain(b'{'..=255).collect();
    all.sort_by_key(rank);
    all.into_iter()
}

/// A state of an automaton, or of what else reads names.
type At = u32;

/// What reads a name byte by byte, beginning at 0.
trait Reader {
    fn next(&self, at: At, byte: u8) -> At;
}

/// States in which names are read at the same time.
type States<const N: usize> = [At; N];

/// A name for each way in which the readers take names that begin with `begun`, the shortest of it, up to a length in bytes; and at
/// the end `begun` itself.
fn names<const N: usize>(
    readers: [&dyn Reader; N],
    begun: &[u8],
    longest: usize,
    section: &'static str,
) -> Result<Vec<Vec<u8>>, TooManyNames> {
    let next = |states: States<N>, byte: u8| -> States<N> {
        std::array::from_fn(|reader| readers[reader].next(states[reader], byte))
    };
    let start = begun.iter().fold([0; N], |states, byte| next(states, *byte));
    let bytes: Vec<u8> = bytes().collect();
    // For each of the states, those from which they were found first, and by which byte.
    let mut found: HashMap<States<N>, (Option<States<N>>, u8)> = HashMap::new();
    let mut queue = VecDeque::from([(None, begun.len())]);
    let mut all = Vec::new();
    while let Some((from, length)) = queue.pop_front() {
        if from.is_some() {
            let mut name = Vec::with_capacity(length);
            let mut at = from;
            while let Some((before, byte)) = at.and_then(|states| found.get(&states)) {
                name.push(*byte);
                at = *before;
            }
            name.extend(begun.iter().rev());
            name.reverse();
            all.push(name);
        }
        if length == longest {
            continue;
        }
        for byte in &bytes {
            let states = next(from.unwrap_or(start), *byte);
            if found.contains_key(&states) {
                continue;
            }
            if found.len() == MAX_STATES {
                return Err(TooManyNames { section, limit: MAX_STATES });
            }
            found.insert(states, (from, *byte));
            queue.push_back((Some(states), length + 1));
        }
    }
    all.push(begun.to_vec());
    Ok(all)
}

/// An automaton, or one that tells nothing apart.
struct Automaton<'a>(Option<&'a [Node]>);

impl Reader for Automaton<'_> {
    fn next(&self, at: At, byte: u8) -> At {
        self.0.map_or(0, |nodes| nodes[at as usize].next[usize::from(byte)].into())
    }
}

/// Names that have an entry of their own, byte by byte. The state 1 is that of all others.
struct Exact(HashMap<(At, u8), At>);

impl Exact {
    fn new<'a>(names: impl Iterator<Item = &'a [u8]>) -> Self {
        let (mut next, mut count) = (HashMap::new(), 2);
        for name in names {
            let mut at = 0;
            for byte in name.iter().take_while(|byte| **byte != 0) {
                at = *next.entry((at, *byte)).or_insert_with(|| {
                    count += 1;
                    count - 1
                });
            }
        }
        Self(next)
    }
}

impl Reader for Exact {
    fn next(&self, at: At, byte: u8) -> At {
        *self.0.get(&(at, byte)).unwrap_or(&1)
    }
}

/// A name as it is shown: bytes that are no text are escaped.
fn shown(name: &[u8]) -> String {
    name.utf8_chunks().map(|chunk| chunk.valid().to_owned() + &chunk.invalid().escape_ascii().to_string()).collect()
}

/// Compares the unix sections.
pub fn unix(a: Side, b: Side, found: &mut Found) -> Result<(), TooManyNames> {
    let tables = [a, b].map(|side| side.tables.unix.as_ref());
    let asks_for_own = tables.iter().flatten().any(|side| side.table.by_own != 0);
    for (kind, words, begun, longest) in [
        (Kind::PATH, ["path", "sandbox path"], &b"/"[..], unix::NAME_LEN - 1),
        (Kind::ABSTRACT, ["abstract", "sandbox abstract"], &b"@"[..], LONGEST_ABSTRACT),
        (Kind::UNNAMED, ["unnamed", "sandbox unnamed"], &b""[..], 0),
    ] {
        let [one, other] = tables.map(|side| {
            let side = side.filter(|side| side.table.steps != 0 && side.table.by_name[kind.index()] != 0);
            Automaton(side.map(|side| &side.states[..]))
        });
        let names = names([&one, &other], begun, longest, "unix")?;
        for (own, word) in (0..).zip(words).take(if asks_for_own { 2 } else { 1 }) {
            let mut told: Vec<Ways> = Vec::new();
            for name in &names {
                let mut padded = [0; unix::NAME_LEN];
                padded[..name.len()].copy_from_slice(name);
                let length = u32::try_from(name.len()).expect("names are short");
                let peer = unix::Peer { kind, length, name: &padded, own };
                let decisions = tables.map(|side| side.map(|side| side.decide(&peer)));
                let Some(ways) = found.judge("unix", decisions).filter(|ways| !told.contains(ways)) else { continue };
                told.push(ways);
                let example = if kind == Kind::UNNAMED { "unnamed".to_owned() } else { shown(name) };
                let flag = if own == 0 { "" } else { " --sandbox" };
                found.add("unix", ways, Extent::Unix { names: word }, format!("unix connect {example}{flag}"));
            }
        }
    }
    Ok(())
}

/// Compares the sysctls sections.
pub fn sysctls(a: Side, b: Side, found: &mut Found) -> Result<(), TooManyNames> {
    let tables = [a, b].map(|side| side.tables.sysctls.as_ref());
    let [one, other] = tables.map(|side| {
        let side = side.filter(|side| side.table.steps != 0);
        Automaton(side.map(|side| &side.states[..]))
    });
    let exact = Exact::new(tables.iter().flatten().flat_map(|side| side.names.keys().map(|name| &name[..])));
    let mut all = names([&one, &other, &exact], b"", sysctl::NAME_LEN - 1, "sysctls")?;
    // There is no tunable without a name.
    all.pop();
    for (access, word) in [(Access::READ, "r"), (Access::WRITE, "w")] {
        let mut told: Vec<Ways> = Vec::new();
        for name in &all {
            let mut padded = [0; sysctl::NAME_LEN];
            padded[..name.len()].copy_from_slice(name);
            let decisions = tables.map(|side| side.map(|side| side.decide(&padded, access)));
            let Some(ways) = found.judge("sysctls", decisions).filter(|ways| !told.contains(ways)) else { continue };
            told.push(ways);
            found.add("sysctls", ways, Extent::Sysctls { access: word }, format!("sysctl {} {word}", shown(name)));
        }
    }
    Ok(())
}
