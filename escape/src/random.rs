//! Random numbers from a seed: splitmix64, so that a seed means the same on every machine.

/// A source of numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A seed for a part, from the whole's seed and the part's number.
    pub fn part(seed: u64, number: u64) -> u64 {
        Self(seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93)).next()
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`, which is not 0.
    #[expect(clippy::cast_possible_truncation, reason = "below a usize")]
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Whether something happens that happens so many times out of a hundred.
    pub fn percent(&mut self, often: usize) -> bool {
        self.below(100) < often
    }

    /// Any of these values.
    pub fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// Any of these values, each as often as its weight says.
    pub fn weighted<T: Clone>(&mut self, of: &[(usize, T)]) -> T {
        let mut left = self.below(of.iter().map(|(weight, _)| weight).sum());
        for (weight, item) in of {
            if left < *weight {
                return item.clone();
            }
            left -= weight;
        }
        unreachable!("the number is below the sum of all weights")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_again() {
        let mut random = Random::new(1);
        assert_eq!([random.next(), random.next()], [0x910a_2dec_8902_5cc1, 0xbeeb_8da1_658e_ec67]);
        assert_ne!(Random::part(1, 0), Random::part(1, 1));
    }

    #[test]
    fn weights_are_kept() {
        let mut random = Random::new(7);
        let drawn: Vec<char> = (0..1000).map(|_| random.weighted(&[(1, 'a'), (0, 'b'), (9, 'c')])).collect();
        let count = |letter| drawn.iter().filter(|one| **one == letter).count();
        assert!(count('b') == 0 && (50..200).contains(&count('a')), "{}", count('a'));
    }
}
