//! The outcome of judging one request.

use crate::{RuleSet, ruleset::WORDS};

/// No rule matched: the section's default decided.
pub const DEFAULT: u16 = 0xffff;
/// Denied because the kernel gave a name that is longer than its noun's `NAME_LEN`.
pub const NAME_TOO_LONG: u16 = 0xfffe;
/// Denied because it could not be found out whose socket a Unix peer is: the kernel's structures were not as expected, or
/// the peer's file is in no mounted file system any more.
pub const NAME_UNKNOWN: u16 = 0xffe0;

/// Denied because no hook judges what such a socket sends, and the network section denies some of it.
pub const UNJUDGED_SOCKET: u16 = 0xfffd;
/// Denied because the packet can't be parsed, or not all of it is there.
pub const UNPARSED_PACKET: u16 = 0xfffc;

/// Denied because the option lets the kernel choose ports that the network section may not allow to bind.
pub const PORT_RANGE: u16 = 0xfffb;
/// Denied because the option has a program choose who of those that share a port receives what is sent there.
pub const RECEIVER_CHOICE: u16 = 0xfffa;

/// Denied because what such a socket sends goes to the neighbour of an address that no hook sees, whatever the packet says.
pub const OWN_HEADERS: u16 = 0xfff4;

/// Denied because IPv4 hands this host's own sockets a copy of what goes to a group or as a broadcast, which no hook sees.
pub const UNSEEN_COPY: u16 = 0xffeb;

/// Denied because the option gives a socket's packets a route of their own, which the kernel can keep when it is taken off again.
pub const OWN_ROUTE: u16 = 0xffea;

/// Denied because the packet stays on this host, comes from another address than it goes to, and what goes to loopback at that port is denied.
pub const STAYS_HERE: u16 = 0xffe9;

/// Denied because joining a group sends a report to all routers of the network, to whom the network section denies to send.
pub const GROUP_REPORT: u16 = 0xfff5;

/// Denied because the packet is for a loopback address and leaves by a device to other hosts.
pub const LOOPBACK_LEAVES: u16 = 0xfff8;
/// Denied because the packet is of another version of IP than the address of its socket's peer.
pub const OTHER_VERSION: u16 = 0xfff6;
/// Denied because the socket listens at a port that it may not have.
pub const NOT_SERVED: u16 = 0xfff7;

/// Denied because what a socket sends to a nameserver is no query for a host name, or more than that.
pub const NO_QUERY: u16 = 0xfff2;
/// Denied because a packet comes from the address and port of a nameserver, but from inside.
pub const FORGED_ANSWER: u16 = 0xfff1;
/// Denied because the connection is for another server than those whose names allow it.
pub const OTHER_SERVER: u16 = 0xfff0;
/// Denied because a connection that only names allow does not begin with a TLS ClientHello that says one.
pub const NO_SERVER_NAME: u16 = 0xffef;
/// An answer that is not believed: it says that a name is on this host, in a private network or the like, or where clouds serve metadata.
pub const NEAR_ANSWER: u16 = 0xffed;
/// An answer that is not learnt, there being no room for more addresses.
pub const NO_ROOM_TO_LEARN: u16 = 0xffec;
/// Denied because the answer could tell how to keep secret which server a TLS connection is for.
pub const SECRET_NAME: u16 = 0xffee;

/// Denied because no rule allows to write this tunable, and the policy doesn't allow writing without a rule.
pub const TUNABLE_WRITE: u16 = 0xfff9;

/// The verdict on a request, and what decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may go on.
    pub allow: bool,
    /// The index of the rule that decided, or [`DEFAULT`], or a fail-closed reason.
    pub rule: u16,
}

impl Decision {
    /// Nothing in the policy is about this request.
    pub const NOT_CONCERNED: Self = Self { allow: true, rule: DEFAULT };

    /// A denial for which no rule is responsible: something that could not be judged is denied.
    #[inline(always)]
    #[must_use]
    pub const fn fail_closed(reason: u16) -> Self {
        Self { allow: false, rule: reason }
    }
}

/// What the rules of a section say once it is known which of them match.
///
/// In the programs' read-only data, so the verifier knows it all and drops what this policy can't reach.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdicts {
    /// 1: what no rule matches is allowed.
    default_allows: u32,
    /// How many rules there are.
    count: u32,
    /// The rules whose action is "allow".
    allow: RuleSet,
}

const _: () = assert!(size_of::<Verdicts>() == 40);

impl Verdicts {
    /// No rules, everything denied: what the programs are compiled with.
    pub const DENY_ALL: Self = Self { default_allows: 0, count: 0, allow: RuleSet::NONE };

    /// No rules, everything allowed.
    pub const ALLOW_ALL: Self = Self { default_allows: 1, ..Self::DENY_ALL };

    /// The verdicts of a section with this default, and for each rule whether it allows. At most
    /// [`crate::MAX_RULES`] of these, or it panics.
    pub fn new(default_allows: bool, rules_allow: impl IntoIterator<Item = bool>) -> Self {
        let mut verdicts = Self { default_allows: default_allows.into(), ..Self::DENY_ALL };
        for allows in rules_allow {
            if allows {
                verdicts.allow.insert(verdicts.count as usize);
            }
            verdicts.count += 1;
        }
        verdicts
    }

    /// How many rules there are.
    #[inline(always)]
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether anything at all can be denied.
    #[must_use]
    pub fn can_deny(&self) -> bool {
        self.default_allows == 0 || (0..self.count as usize).any(|rule| !self.allow.contains(rule))
    }

    /// The decision of one rule.
    #[inline(always)]
    #[must_use]
    pub fn of_rule(&self, rule: u16) -> Decision {
        Decision { allow: self.allow.contains(rule as usize), rule }
    }

    /// The decision where no rule matches.
    #[inline(always)]
    #[must_use]
    pub fn of_default(&self) -> Decision {
        Decision { allow: self.default_allows != 0, rule: DEFAULT }
    }

    /// The rules that allow what these match: those before the first that denies. And all ones if nothing denies it and the default
    /// allows it, else 0. `matching` is as for [`Verdicts::of_first`].
    #[inline(always)]
    #[must_use]
    pub fn allowing(&self, matching: impl Fn(usize) -> u64) -> ([u64; WORDS], u64) {
        let (mut rules, mut undenied, mut first) = ([0; WORDS], u64::MAX, 0);
        for (index, rules) in rules.iter_mut().enumerate() {
            if first >= self.count {
                break;
            }
            let word = matching(index);
            let denying = word & !self.allow.word(index);
            // The bits below the lowest one; all of them if there is none.
            let before = (denying & denying.wrapping_neg()).wrapping_sub(1);
            *rules = word & before & undenied;
            undenied = if denying == 0 { undenied } else { 0 };
            first += 64;
        }
        (rules, if self.default_allows == 0 { 0 } else { undenied })
    }

    /// The decision of the first matching rule, or the default. `matching` gives the word of that index of the set of
    /// rules that match; it is asked for no more words than there are rules for.
    #[inline(always)]
    #[must_use]
    pub fn of_first(&self, matching: impl Fn(usize) -> u64) -> Decision {
        let mut first: u16 = 0;
        for index in 0..WORDS {
            if u32::from(first) >= self.count {
                break;
            }
            let word = matching(index);
            if word != 0 {
                // By its bit: so the rule's number is not needed unless the request is denied.
                let bit = word & word.wrapping_neg();
                // At most 63, so the cast loses nothing.
                #[allow(clippy::cast_possible_truncation)]
                let rule = first + word.trailing_zeros() as u16;
                return Decision { allow: self.allow.word(index) & bit != 0, rule };
            }
            first += 64;
        }
        self.of_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_RULES;

    #[test]
    fn the_first_matching_rule_wins_then_the_default() {
        // Every other rule allows.
        let verdicts = Verdicts::new(true, (0..MAX_RULES).map(|rule| rule % 2 == 0));
        for rule in 0..MAX_RULES {
            let matching: RuleSet = (rule..MAX_RULES).collect();
            let decision = verdicts.of_first(|index| matching.word(index));
            assert_eq!((usize::from(decision.rule), decision.allow), (rule, rule % 2 == 0));
        }
        assert_eq!(verdicts.of_first(|_| 0), Decision { allow: true, rule: DEFAULT });
        assert_eq!(Verdicts::DENY_ALL.of_first(|_| u64::MAX), Decision { allow: false, rule: DEFAULT });
    }

    #[test]
    fn what_allows_comes_before_what_denies() {
        let allows = |rule: usize| rule % 70 != 69;
        for default in [false, true] {
            let verdicts = Verdicts::new(default, (0..MAX_RULES).map(allows));
            for matching in
                [vec![], vec![0], vec![1, 69], vec![69, 70], vec![3, 68, 70, 138], vec![200, 209, 255], vec![255]]
            {
                let set: RuleSet = matching.iter().copied().collect();
                let expected: RuleSet = matching.iter().copied().take_while(|rule| allows(*rule)).collect();
                let undenied = if default && matching.iter().all(|rule| allows(*rule)) { u64::MAX } else { 0 };
                let (rules, by_default) = verdicts.allowing(|index| set.word(index));
                assert_eq!(
                    (rules, by_default),
                    ([0, 1, 2, 3].map(|index| expected.word(index)), undenied),
                    "{matching:?}"
                );
            }
        }
    }
}
