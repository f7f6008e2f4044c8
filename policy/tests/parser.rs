//! Of any bytes in a policy file, the parser gives a policy or an error of one line that names the file. fuzz/ has the same
//! without bounds.

mod generate;
mod oracle;

use std::path::Path;

use generate::Memory;
use policy::{Document, compile::Tables};
use proptest::{collection::vec, prelude::*, sample::Index};

/// Parses and compiles. Wrong is only an error that is hard to read.
fn read(text: Vec<u8>) -> Result<(), TestCaseError> {
    match Document::new(Path::new("folder/p.json"), text).resolve(&Memory) {
        Ok(policy) => {
            let _ = Tables::compile(&policy);
        }
        Err(error) => {
            let message = error.to_string();
            prop_assert!(message.starts_with("folder/p.json: "), "{:?} doesn't begin with the file's name", message);
            prop_assert!(!message.contains(char::is_control), "{:?} has more than one line, or worse", message);
        }
    }
    Ok(())
}

/// One change to the text of a policy.
#[derive(Clone, Debug)]
enum Change {
    Replace(Index, u8),
    Remove(Index),
    Insert(Index, Vec<u8>),
    Cut(Index),
    /// A piece of the text once more, at another place.
    Copy(Index, Index, usize),
}

impl Change {
    fn apply(&self, text: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        match self {
            Self::Replace(place, byte) => *place.get_mut(text) = *byte,
            Self::Remove(place) => drop(text.remove(place.index(text.len()))),
            Self::Insert(place, bytes) => {
                let place = place.index(text.len());
                text.splice(place..place, bytes.iter().copied());
            }
            Self::Cut(place) => text.truncate(place.index(text.len())),
            Self::Copy(from, to, length) => {
                let (from, to) = (from.index(text.len()), to.index(text.len()));
                let piece = text[from..text.len().min(from + length)].to_vec();
                text.splice(to..to, piece);
            }
        }
    }
}

/// Words that mean something in a policy, or nearly do.
const WORDS: [&str; 20] = [
    "null",
    "-1",
    "1e999",
    "4294967297",
    "99999",
    "\"80-20\"",
    "\"::/0\"",
    "\"*\"",
    "[]",
    "{}",
    "\"\\u0000\"",
    "\"\\n\"",
    "\"version\":",
    "\"unix\":",
    "\"ports\":",
    "\"a\\nb\":1,",
    "0.5",
    "\"10.0.0.1/8\"",
    "\u{2028}",
    "\"\\ud800\"",
];

fn change() -> impl Strategy<Value = Change> {
    let place = any::<Index>;
    prop_oneof![
        4 => (place(), any::<u8>()).prop_map(|(place, byte)| Change::Replace(place, byte)),
        2 => place().prop_map(Change::Remove),
        4 => (place(), prop::sample::select(&WORDS[..])).prop_map(|(place, word)| Change::Insert(place, word.into())),
        1 => place().prop_map(Change::Cut),
        2 => (place(), place(), 1..60_usize).prop_map(|(from, to, length)| Change::Copy(from, to, length)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_policy_or_an_error(text in vec(any::<u8>(), 0..200)) {
        read(text)?;
    }

    #[test]
    fn damaged_policies_are_policies_or_errors(policy in generate::small_policy(), changes in vec(change(), 1..4)) {
        let mut text = policy.to_string().into_bytes();
        for change in changes {
            change.apply(&mut text);
        }
        read(text)?;
    }

    /// A value of another kind, in any place of a policy.
    #[test]
    fn wrong_words_are_told(word in prop::sample::select(&WORDS[..]), place in 0..6_usize) {
        let text = [
            format!(r#"{{"version": {word}}}"#),
            format!(r#"{{"version": 1, "network": {word}}}"#),
            format!(r#"{{"version": 1, "network": {{"default": "deny", "rules": [{{"action": {word}}}]}}}}"#),
            format!(r#"{{"version": 1, "network": {{"default": "deny", "rules": [{{"action": "deny", "hosts": [{word}]}}]}}}}"#),
            format!(r#"{{"version": 1, "devices": {{"default": "deny", "rules": [{{"action": "deny", "major": {word}}}]}}}}"#),
            format!(r#"{{"version": 1, "sysctls": {{"default": "deny", "rules": [{{"action": "deny", "names": [{word}]}}]}}}}"#),
        ];
        read(text[place].clone().into_bytes())?;
    }
}

/// Deeper than any stack.
#[test]
fn nesting_ends_in_an_error() {
    for open in ["[", "{\"a\":"] {
        read(open.repeat(1_000_000).into_bytes()).unwrap();
        read(format!("{{\"version\": 1, \"network\": {}", open.repeat(100_000)).into_bytes()).unwrap();
    }
}
