//! What is constant from one address or port to before another: how tables divide addresses and ports, and which parts two of them
//! tell apart alike.

use std::{collections::HashMap, hash::Hash};

use common::{RuleSet, net::PortInterval};
use policy::Prefix;

/// Numbers from the first to the last, both included: addresses in the space that IPv4 and IPv6 share, or ports.
pub type Range = (u128, u128);

/// Values that hold from a number to before the next one, in ascending order.
pub type Steps = Vec<(u128, RuleSet)>;

/// The last address of a network.
pub fn last_of(network: Prefix) -> u128 {
    network.bits() | u128::MAX.checked_shr(network.length().into()).unwrap_or(0)
}

/// The rules of each address, from a table of networks in which each has the rules of those around it.
pub fn of_hosts(hosts: &[(Prefix, RuleSet)]) -> Steps {
    let mut steps: Steps = vec![(0, RuleSet::NONE)];
    // The networks that are not over yet, the innermost last.
    let mut open: Vec<(u128, RuleSet)> = Vec::new();
    let close = |open: &mut Vec<(u128, RuleSet)>, steps: &mut Steps, before: Option<u128>| {
        while let Some((last, _)) = open.pop_if(|(last, _)| before.is_none_or(|first| *last < first)) {
            let around = open.last().map_or(RuleSet::NONE, |(_, rules)| *rules);
            if let Some(after) = last.checked_add(1) {
                put(steps, after, around);
            }
        }
    };
    for (network, rules) in hosts {
        close(&mut open, &mut steps, Some(network.bits()));
        put(&mut steps, network.bits(), *rules);
        open.push((last_of(*network), *rules));
    }
    close(&mut open, &mut steps, None);
    steps
}

/// Adds a step; of two at one number, the later one holds.
fn put(steps: &mut Steps, first: u128, rules: RuleSet) {
    steps.pop_if(|(last, _)| *last == first);
    steps.push((first, rules));
}

/// The rules of each port.
pub fn of_ports(intervals: &[PortInterval]) -> Steps {
    let there = intervals.iter().filter(|interval| *interval != &PortInterval::BEHIND);
    let steps: Steps = there.map(|interval| (interval.first.into(), interval.rules)).collect();
    if steps.is_empty() { vec![(0, RuleSet::NONE)] } else { steps }
}

fn at(steps: &Steps, number: u128) -> RuleSet {
    let after = steps.partition_point(|(first, _)| *first <= number);
    after.checked_sub(1).map_or(RuleSet::NONE, |index| steps[index].1)
}

/// Divides the numbers up to `last` where either of two tables does, or one of the `edges` is: ranges and the rules of each side there.
pub fn divide(a: &Steps, b: &Steps, edges: &[u128], last: u128) -> Vec<(Range, [RuleSet; 2])> {
    let mut firsts: Vec<u128> = a.iter().chain(b).map(|(first, _)| *first).chain(edges.iter().copied()).collect();
    firsts.push(0);
    firsts.retain(|first| *first <= last);
    firsts.sort_unstable();
    firsts.dedup();
    let ends = firsts.iter().skip(1).map(|next| next - 1).chain([last]);
    firsts.iter().zip(ends).map(|(first, end)| ((*first, end), [at(a, *first), at(b, *first)])).collect()
}

/// Puts together what nothing tells apart, in the order in which it is found first.
pub fn group<K: Copy + Eq + Hash>(parts: impl IntoIterator<Item = (Range, K)>) -> Vec<(K, Vec<Range>)> {
    let mut places: HashMap<K, usize> = HashMap::new();
    let mut groups: Vec<(K, Vec<Range>)> = Vec::new();
    for (range, key) in parts {
        let place = *places.entry(key).or_insert_with(|| {
            groups.push((key, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(range);
    }
    groups.into_iter().map(|(key, ranges)| (key, union(ranges))).collect()
}

/// Ranges in ascending order, of which no two touch each other.
pub fn union(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut joined: Vec<Range> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if *end >= first || *end + 1 == first => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(all: &[usize]) -> RuleSet {
        all.iter().copied().collect()
    }

    #[test]
    fn nested_networks_become_steps() {
        let network = |text: &str| text.parse::<Prefix>().unwrap();
        let hosts = [
            (Prefix::ALL_V6, rules(&[0])),
            (Prefix::ALL_V4, rules(&[1])),
            (network("10.0.0.0/8"), rules(&[1, 2])),
            (network("10.255.255.255"), rules(&[1, 2, 3])),
            (network("11.0.0.0"), rules(&[4])),
        ];
        let v4 = 0xffff_0000_0000;
        let expected = vec![
            (0, rules(&[0])),
            (v4, rules(&[1])),
            (v4 + 0x0a00_0000, rules(&[1, 2])),
            (v4 + 0x0aff_ffff, rules(&[1, 2, 3])),
            (v4 + 0x0b00_0000, rules(&[4])),
            (v4 + 0x0b00_0001, rules(&[1])),
            (v4 + 0x1_0000_0000, rules(&[0])),
        ];
        assert_eq!(of_hosts(&hosts), expected);
    }

    #[test]
    fn parts_are_divided_and_put_together() {
        let (a, b) = (vec![(0, rules(&[0])), (10, rules(&[1]))], vec![(0, rules(&[])), (20, rules(&[2]))]);
        let parts = divide(&a, &b, &[5, 99], 30);
        let ranges: Vec<Range> = parts.iter().map(|(range, _)| *range).collect();
        assert_eq!(ranges, [(0, 4), (5, 9), (10, 19), (20, 30)]);
        let groups = group(parts);
        assert_eq!(groups[0], ([rules(&[0]), rules(&[])], vec![(0, 9)]));
        assert_eq!(groups.len(), 3);
        assert_eq!(union(vec![(5, 6), (0, 2), (3, 3), (8, 9), (1, 2)]), [(0, 3), (5, 6), (8, 9)]);
    }
}
