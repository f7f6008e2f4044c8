//! What the programs know of names: what the policy says, and what a socket has asked.

use super::Content;
use crate::{
    RuleSet,
    net::Address,
    record::{Key, NameSubject},
};

/// The most nameservers of a policy.
pub const NAMESERVERS: usize = 8;

/// The port at which nameservers are asked.
pub const PORT: u16 = 53;

/// The part of the compiled names that lives in the programs' read-only data.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// The nameservers; an address that no host has where there are less.
    pub nameservers: [Address; NAMESERVERS],
    /// How many bits of a name are looked at: as many as the longest in the policy has, and the NUL behind it.
    pub bits: u32,
    /// 1: every query passes, since the policy allows to send anything to a nameserver.
    pub any_query: u32,
    /// The rules whose names may lead to private addresses.
    pub private: RuleSet,
    /// The rules that allow only TLS connections to servers of their names.
    pub tls: RuleSet,
    /// The rules that there are. In the set of an address that was learnt, the other bits tell by which names.
    pub rules: RuleSet,
}

const _: () = assert!(size_of::<Table>() == 16 * NAMESERVERS + 8 + 96);

impl Table {
    /// The address of no nameserver.
    pub const NOBODY: Address = Address::v6([u32::MAX; 4]);

    /// No nameserver and no name: what the programs are compiled with.
    pub const NOTHING: Self = Self {
        nameservers: [Self::NOBODY; NAMESERVERS],
        bits: 0,
        any_query: 0,
        private: RuleSet::NONE,
        tls: RuleSet::NONE,
        rules: RuleSet::NONE,
    };

    /// All ones if a nameserver has this address, else 0.
    #[inline(always)]
    #[must_use]
    pub fn is_nameserver(&self, address: Address, is: impl Fn(u32, u32) -> u32) -> u32 {
        self.nameservers.iter().fold(0, |found, nameserver| found | is(nameserver.difference(address), 0))
    }

    /// Whether any rule is about TLS.
    #[inline(always)]
    #[must_use]
    pub fn asks_for_tls(&self) -> bool {
        self.tls.word(0) | self.tls.word(1) | self.tls.word(2) | self.tls.word(3) != 0
    }
}

/// Where the kernel says of a packet whose memory it is in: offsets in its structures, in bytes, by the kernel's BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketLayout {
    /// `struct sk_buff`, `head`: where its memory begins.
    pub head: u32,
    /// `struct sk_buff`, `end`: how many bytes from there the `struct skb_shared_info` is.
    pub end: u32,
    /// `struct skb_shared_info`, `flags`.
    pub flags: u32,
    /// Always 0.
    pub padding: u32,
}

const _: () = assert!(size_of::<PacketLayout>() == 16);

impl PacketLayout {
    /// What the programs are compiled with.
    pub const UNKNOWN: Self = Self { head: 0, end: 0, flags: 0, padding: 0 };
}

/// What may leave a TCP socket.
pub mod state {
    /// Anything.
    pub const OPEN: u32 = 0;
    /// First of all the name of a server, by TLS: only rules on that allow the connection.
    pub const WAITING: u32 = 1;
    /// Nothing any more.
    pub const REFUSED: u32 = 2;
    /// Queries: it is connected to a nameserver.
    pub const ASKS: u32 = 3;
}

/// A TCP socket of which what it sends is looked at. Kept with the socket; but for the numbers of queries, it is used by those who have the
/// socket's lock. All zeros for a new one.
#[repr(C)]
pub struct Held {
    /// What it has asked.
    pub asked: Asked,
    /// The rules that allow the connection.
    pub rules: [u64; 4],
    /// A value of [`state`].
    pub state: u32,
    /// 1: `first` is known.
    pub begun: u32,
    /// The number of the first byte of what it sends.
    pub first: u32,
    /// How many bytes there were of a message that was not all there.
    pub seen: u32,
    /// For how many milliseconds the program lets what it sends be without an answer (`TCP_USER_TIMEOUT`).
    pub patience: u32,
    /// The callbacks that were asked for because of this (`BPF_SOCK_OPS_*_CB_FLAG`).
    pub callbacks: u32,
    /// 1: `next` is known.
    pub answered: u32,
    /// The number of the byte with which the next message of the nameserver begins.
    pub next: u32,
    /// Where a name is read to, and a denial is put together.
    pub key: Key<NameSubject>,
}

const _: () = assert!(size_of::<Held>() == size_of::<Asked>() + 64 + size_of::<Key<NameSubject>>());

/// How many queries of a socket can wait for their answers.
const QUERIES: usize = 64;

/// What a socket has asked.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// 1: it may ask, and does nothing else from then on.
    pub asks: u32,
    /// How many queries it has sent.
    sent: u32,
    /// 1: one of them had the number 0, which stands for none below.
    zero: u32,
    /// Always 0.
    padding: u32,
    /// The numbers of the latest ones.
    ids: [u16; QUERIES],
}

const _: () = assert!(size_of::<Asked>() == 16 + 2 * QUERIES);

impl Asked {
    /// Nothing.
    pub const NOTHING: Self = Self { asks: 0, sent: 0, zero: 0, padding: 0, ids: [0; QUERIES] };

    /// Notes a query.
    #[inline(always)]
    pub fn note<C: Content>(&mut self, id: u16) {
        let place = self.sent;
        self.ids[C::opaque(place) as usize & (QUERIES - 1)] = id;
        self.sent = place.wrapping_add(1);
        self.zero |= C::is(id.into(), 0) & 1;
    }

    /// All ones if an answer is waited for by this number, else 0.
    #[inline(always)]
    #[must_use]
    pub fn waits<C: Content>(&self, id: u16) -> u32 {
        let id = u32::from(id);
        let none = C::is(id, 0);
        let found = self.ids.iter().fold(0, |found, asked| found | C::is(u32::from(*asked), id));
        found & !none | 0_u32.wrapping_sub(self.zero) & none
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::tests::Slice;

    #[test]
    fn only_what_was_asked_is_waited_for() {
        let mut asked = Asked::NOTHING;
        assert_eq!([0, 1, 7].map(|id| asked.waits::<Slice>(id)), [0; 3]);
        asked.note::<Slice>(7);
        assert_eq!([0, 1, 7].map(|id| asked.waits::<Slice>(id)), [0, 0, u32::MAX]);
        asked.note::<Slice>(0);
        assert_eq!([0, 1, 7].map(|id| asked.waits::<Slice>(id)), [u32::MAX, 0, u32::MAX]);
        (100..163).for_each(|id| asked.note::<Slice>(id));
        assert_eq!([7, 100, 162].map(|id| asked.waits::<Slice>(id)), [0, u32::MAX, u32::MAX], "64 at a time");
    }

    #[test]
    fn nameservers_are_found() {
        let mut table = Table::NOTHING;
        let is = crate::net::ones_if_equal;
        assert_eq!(table.is_nameserver(Address::LOOPBACK4, is), 0);
        table.nameservers[3] = Address::LOOPBACK4;
        assert_eq!(table.is_nameserver(Address::LOOPBACK4, is), u32::MAX);
        assert_eq!(table.is_nameserver(Address::LOOPBACK6, is), 0);
    }
}
