//! Sets of rules of one section, as bits.

/// The most rules that one section can have.
pub const MAX_RULES: usize = 256;

/// How many words a [`RuleSet`] has.
pub const WORDS: usize = MAX_RULES / 64;

/// A set of the rules of one section: bit `i` stands for the section's rule `i`.
///
/// Every property of a request (its peer, its port, its operation …) is looked up to the set of rules which that
/// property satisfies; the intersection of these sets is the set of rules that match, and its lowest bit is the first
/// matching rule. So the cost of a decision does not depend on how many rules there are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RuleSet([u64; WORDS]);

const _: () = assert!(size_of::<RuleSet>() == 32);

impl RuleSet {
    /// No rule.
    pub const NONE: Self = Self([0; WORDS]);
    /// Every rule that there can be.
    pub const ALL: Self = Self([u64::MAX; WORDS]);

    /// Adds `rule`. Rules that can't exist (≥ [`MAX_RULES`]) are a caller's bug and panic.
    pub fn insert(&mut self, rule: usize) {
        self.0[rule / 64] |= 1 << (rule % 64);
    }

    /// Whether `rule` is in the set. A number that no rule can have is in no set.
    #[inline(always)]
    #[must_use]
    pub fn contains(&self, rule: usize) -> bool {
        // `get` rather than an index: no panic path may be left for the verifier.
        self.0.get(rule / 64).is_some_and(|word| word >> (rule % 64) & 1 == 1)
    }

    /// The rules from `64 * index` to `64 * index + 63`, as bits. No rules where the index is out of range.
    #[inline(always)]
    #[must_use]
    pub fn word(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }

    /// The rules that are in either set.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        Self([a | e, b | f, c | g, d | h])
    }
}

impl FromIterator<usize> for RuleSet {
    fn from_iter<I: IntoIterator<Item = usize>>(rules: I) -> Self {
        let mut set = Self::NONE;
        for rule in rules {
            set.insert(rule);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_into_it() {
        for rule in 0..MAX_RULES {
            let set = RuleSet::from_iter([rule]);
            assert!((0..=MAX_RULES).all(|other| set.contains(other) == (other == rule)), "{rule}");
            assert!((0..=WORDS).all(|index| (set.word(index) != 0) == (index == rule / 64)), "{rule}");
        }
        let even: RuleSet = (0..MAX_RULES).step_by(2).collect();
        let odd: RuleSet = (1..MAX_RULES).step_by(2).collect();
        assert_eq!(even.or(&odd), RuleSet::ALL);
    }
}
