//! What a program's process leaves behind in memory that its worker shares with it, also if it is killed.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{
    address::Host,
    sys,
    wire::{Listened, ProgramReport, REFUSALS, Received, Refusal},
};

const CALLS: usize = 0;
const FINISHED: usize = 1;
const RECEIVED: usize = 2;
const REFUSED: usize = 8;
const OUTCOMES: usize = 32;
/// How many calls of a program are told apart.
pub const MAX_CALLS: usize = 160;
const ITEMS: usize = OUTCOMES + MAX_CALLS;
/// How many different things that were received are kept.
const MAX_ITEMS: usize = 48;
const ITEM: usize = 6;
const LISTENED: usize = ITEMS + MAX_ITEMS * ITEM;
/// How many places to listen at are kept, each as address, port and how often; then how often there was no room for one.
const MAX_LISTENED: usize = 12;
const PLACE: usize = 4;
const ELSEWHERE: usize = LISTENED + MAX_LISTENED * PLACE;
const WORDS: usize = ELSEWHERE + 1;

/// Set in an outcome that is there.
const MADE: u64 = 1 << 40;

/// The memory.
#[derive(Clone, Copy)]
pub struct Memory(&'static [AtomicU64]);

impl Memory {
    /// New memory.
    ///
    /// # Errors
    ///
    /// The kernel's, when there is none.
    pub fn new() -> Result<Self, i32> {
        sys::shared_words(WORDS).map(Self)
    }

    /// Forgets everything.
    pub fn clear(self) {
        self.0.iter().for_each(|word| word.store(0, Relaxed));
    }

    /// Counts a system call.
    pub fn count(self) {
        self.0[CALLS].fetch_add(1, Relaxed);
    }

    /// Counts a refusal.
    pub fn refuse(self, kind: Refusal) {
        self.0[REFUSED + kind as usize].fetch_add(1, Relaxed);
    }

    /// Notes what the call of this number returned.
    pub fn outcome(self, number: usize, outcome: sys::Outcome) {
        let value = outcome.unwrap_or_else(|errno| -errno);
        if number < MAX_CALLS {
            self.0[OUTCOMES + number].store(MADE | u64::from(value.cast_unsigned()), Relaxed);
        }
    }

    /// Notes that the program came to its end.
    pub fn finish(self) {
        self.0[FINISHED].store(1, Relaxed);
    }

    /// Notes what was received, unless that was noted already.
    pub fn receive(self, received: &Received) {
        let words = encode(received);
        let count = usize::try_from(self.0[RECEIVED].load(Relaxed)).unwrap_or(0).min(MAX_ITEMS);
        let known = |index: &usize| (0..ITEM).all(|word| self.item(*index)[word].load(Relaxed) == words[word]);
        if count == MAX_ITEMS || (0..count).any(|index| known(&index)) {
            return;
        }
        let index = usize::try_from(self.0[RECEIVED].fetch_add(1, Relaxed)).unwrap_or(MAX_ITEMS);
        if index < MAX_ITEMS {
            self.item(index).iter().zip(words).for_each(|(to, word)| to.store(word, Relaxed));
        }
    }

    /// Notes that a TCP socket has begun to listen. Threads that do so at the same time take different places.
    pub fn listen(self, ip: IpAddr, port: u16) {
        let [high, low] = halves(ip);
        let port = u64::from(port) | MADE;
        for place in 0..MAX_LISTENED {
            let words = self.place(place);
            let new = words[2].compare_exchange(0, port, Relaxed, Relaxed);
            if new.is_ok() {
                words[0].store(high, Relaxed);
                words[1].store(low, Relaxed);
            }
            let same = [high, low, port] == [0, 1, 2].map(|word: usize| words[word].load(Relaxed));
            if new.is_ok() || same {
                words[3].fetch_add(1, Relaxed);
                return;
            }
        }
        self.listen_elsewhere();
    }

    /// Notes that a TCP socket has begun to listen, and nobody knows where.
    pub fn listen_elsewhere(self) {
        self.0[ELSEWHERE].fetch_add(1, Relaxed);
    }

    fn place(self, index: usize) -> &'static [AtomicU64] {
        &self.0[LISTENED + index * PLACE..][..PLACE]
    }

    fn item(self, index: usize) -> &'static [AtomicU64] {
        &self.0[ITEMS + index * ITEM..][..ITEM]
    }

    /// All of it, of a program with so many calls.
    pub fn report(self, calls: usize) -> ProgramReport {
        let word = |index: usize| self.0[index].load(Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is the outcome")]
        let outcome = |index| (word(OUTCOMES + index) != 0).then(|| (word(OUTCOMES + index) as u32).cast_signed());
        let mut refused = [0; REFUSALS];
        refused.iter_mut().enumerate().for_each(|(kind, count)| *count = word(REFUSED + kind));
        let items = usize::try_from(word(RECEIVED)).unwrap_or(0).min(MAX_ITEMS);
        ProgramReport {
            outcomes: (0..calls.min(MAX_CALLS)).map(outcome).collect(),
            calls: word(CALLS),
            refused,
            received: (0..items).map(|index| decode(self.item(index))).collect(),
            listened: (0..MAX_LISTENED)
                .map(|index| place(self.place(index)))
                .filter(|place| place.times != 0)
                .collect(),
            listened_elsewhere: word(ELSEWHERE),
            finished: word(FINISHED) != 0,
        }
    }
}

fn halves(ip: IpAddr) -> [u64; 2] {
    let bits = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    #[expect(clippy::cast_possible_truncation, reason = "each takes its half")]
    [(bits >> 64) as u64, bits as u64]
}

fn encode(received: &Received) -> [u64; ITEM] {
    let ([a, b], [c, d]) = (halves(received.local.0), halves(received.peer.0));
    let from = u64::from(received.from.map_or(0, Host::number));
    let ports = u64::from(received.local.1) << 16 | u64::from(received.peer.1);
    [a, b, c, d, ports, u64::from(received.accepted) << 8 | from]
}

fn ip([high, low]: [u64; 2]) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).to_canonical()
}

#[expect(clippy::cast_possible_truncation, reason = "each takes the bits that it is to take")]
fn place(words: &[AtomicU64]) -> Listened {
    let [high, low, port, times] = [0, 1, 2, 3].map(|index: usize| words[index].load(Relaxed));
    Listened { ip: ip([high, low]), port: port as u16, times }
}

#[expect(clippy::cast_possible_truncation, reason = "each takes the bits that it is to take")]
fn decode(words: &[AtomicU64]) -> Received {
    let word = |index: usize| words[index].load(Relaxed);
    let ip = |high, low| ip([word(high), word(low)]);
    Received {
        accepted: word(5) >> 8 != 0,
        local: (ip(0, 1), (word(4) >> 16) as u16),
        peer: (ip(2, 3), word(4) as u16),
        from: Host::from_number(word(5) as u8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_reported() {
        let memory = Memory::new().expect("memory");
        let received = Received {
            accepted: true,
            local: ("::1".parse().expect("address"), 6001),
            peer: ("10.77.2.2".parse().expect("address"), 65535),
            from: Some(Host::Denied),
        };
        memory.receive(&received);
        memory.receive(&received);
        memory.outcome(1, Err(libc::EPERM));
        memory.refuse(Refusal::Sysctl);
        let report = memory.report(2);
        assert_eq!(report.received, [received]);
        assert_eq!(report.outcomes, [None, Some(-libc::EPERM)]);
        assert_eq!(report.refused, [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
        memory.clear();
        assert_eq!(memory.report(2).outcomes, [None, None]);
    }

    #[test]
    fn places_to_listen_at_are_counted() {
        let memory = Memory::new().expect("memory");
        let here = "127.0.0.1".parse().expect("address");
        memory.listen(here, 6001);
        memory.listen(here, 6001);
        memory.listen(here, 0xffff);
        let listened = |port, times| Listened { ip: here, port, times };
        assert_eq!(memory.report(0).listened, [listened(6001, 2), listened(0xffff, 1)]);
        (0..12).for_each(|port| memory.listen(here, port));
        assert_eq!(memory.report(0).listened_elsewhere, 2);
    }
}
