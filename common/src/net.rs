//! Network requests: who connects, binds, sends and receives, where.

use crate::{
    Decision, RuleSet,
    decision::{DEFAULT, Verdicts},
    ruleset::WORDS,
};

/// An address in the one space that IPv4 and IPv6 share: 128 bits, IPv4 as `::ffff:a.b.c.d`.
///
/// In memory these are the 16 octets in network order, held as four words, since a BPF program compares and copies
/// words four times as fast.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address([u32; 4]);

impl Address {
    /// 0.0.0.0.
    pub const UNSPECIFIED4: Self = Self::v4(0);
    /// `::`.
    pub const UNSPECIFIED6: Self = Self([0; 4]);
    /// 127.0.0.1.
    pub const LOOPBACK4: Self = Self::v4(0x7f00_0001_u32.to_be());
    /// `::1`.
    pub const LOOPBACK6: Self = Self([0, 0, 0, 1_u32.to_be()]);

    /// An IPv4 address, from the word that holds its four octets in network order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(word: u32) -> Self {
        Self([0, 0, 0xffff_u32.to_be(), word])
    }

    /// Returns the address unchanged if `zero` is 0. `zero` is put into the words that are 0 in an IPv4 address, so that the kernel's
    /// verifier doesn't know these as constants.
    #[inline(always)]
    #[must_use]
    pub const fn or(self, zero: u32) -> Self {
        let [a, b, c, d] = self.0;
        Self([a | zero, b | zero, c | zero, d])
    }

    /// The IPv4 address of that word if all bits of `mask` are set; `self` if none is.
    #[inline(always)]
    #[must_use]
    pub const fn or_v4(self, word: u32, mask: u32) -> Self {
        let [a, b, c, d] = self.0;
        Self([a & !mask, b & !mask, c & !mask | 0xffff_u32.to_be() & mask, d & !mask | word & mask])
    }

    /// An IPv6 address, mapped ones included, from the words that hold its octets in network order.
    #[inline(always)]
    #[must_use]
    pub const fn v6(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(self) -> bool {
        let [a, b, c, _] = self.0;
        a | b | (c ^ 0xffff_u32.to_be()) == 0
    }

    /// Whether this is an address of this host's loopback network for a single receiver: `::1`, or one of 127.0.0.0/8
    /// that doesn't end with 255. What is sent to 127.255.255.255, or the like where the network is divided, is received
    /// by all who listen there.
    #[inline(always)]
    #[must_use]
    pub fn is_loopback(self, is: impl Fn(u32, u32) -> u32) -> bool {
        let ([a, b, c, d], last) = (self.0, u32::from_be(self.0[3]));
        let v4 = is(a | b | (c ^ 0xffff_u32.to_be()) | (last >> 24 ^ 127), 0) & !is(last & 0xff, 0xff);
        v4 | is(a | b | c | (d ^ Self::LOOPBACK6.0[3]), 0) != 0
    }

    /// 127.0.0.1 if all bits of `v4` are set, `::1` if none is.
    #[inline(always)]
    #[must_use]
    pub const fn loopback(v4: u32) -> Self {
        Self::LOOPBACK6.or_v4(0x7f00_0001_u32.to_be(), v4)
    }

    /// All ones if this is an IPv4 address, else 0.
    #[inline(always)]
    #[must_use]
    pub fn v4_mask(self, is: impl Fn(u32, u32) -> u32) -> u32 {
        let [a, b, c, _] = self.0;
        is(a | b | (c ^ 0xffff_u32.to_be()), 0)
    }

    /// 0 if the addresses are the same, else some other number, without a branch.
    #[inline(always)]
    #[must_use]
    pub const fn difference(self, other: Self) -> u32 {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        a ^ e | b ^ f | c ^ g | d ^ h
    }

    /// The words that hold the octets in network order.
    #[inline(always)]
    #[must_use]
    pub const fn words(self) -> [u32; 4] {
        self.0
    }

    /// The address as a number, whose most significant bit is the first on the wire.
    #[must_use]
    pub fn to_bits(self) -> u128 {
        self.0.iter().fold(0, |bits, word| bits << 32 | u128::from(u32::from_be(*word)))
    }

    /// The address with these bits; the reverse of [`Address::to_bits`].
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // each cast takes the 32 bits that it is to take
    pub const fn from_bits(bits: u128) -> Self {
        Self([
            ((bits >> 96) as u32).to_be(),
            ((bits >> 64) as u32).to_be(),
            ((bits >> 32) as u32).to_be(),
            (bits as u32).to_be(),
        ])
    }
}

/// Where a connection to `destination` goes, from a socket that is bound to `bound` (unspecified if it is not).
///
/// Linux reads the unspecified address as "this host": 0.0.0.0 is the address that the socket sends from, or else 127.0.0.1
/// (`ip_route_output_key_hash_rcu`); `::` is `::1`, or 127.0.0.1 on a socket that is bound to a mapped address
/// (`tcp_v6_connect`, `__ip6_datagram_connect`). The mapped form `::ffff:0.0.0.0` takes IPv4's way. The hook sees the
/// address as it was written, so a rule on 127.0.0.1 would miss it.
///
/// A socket that is bound to a multicast address or to 255.255.255.255 receives there and sends from no address in
/// particular (`__inet_bind` leaves `inet_saddr` 0). Other things that no hook can see change what an unspecified address
/// means, such as a device that the socket sends by, or a bind(2) meanwhile. So this is not a guess at what the kernel will do:
/// the hook writes the address into the system call, and the kernel goes there.
///
/// `is` does what [`ones_if_equal`] does. In the kernel it is without a branch, after which the verifier would follow each
/// kind of address by itself.
#[inline(always)]
#[must_use]
pub fn effective_destination(destination: Address, bound: Address, is: impl Fn(u32, u32) -> u32) -> Address {
    let (v4, [a, b, c, d], [e, f, g, h]) = (0xffff_u32.to_be(), destination.0, bound.0);
    let bound_v4 = is(e | f | (g ^ v4), 0);
    let receives_only = is(u32::from_be(h) >> 28, 0xe) | is(h, u32::MAX);
    let unspecified4 = is(a | b | (c ^ v4) | d, 0);
    let unspecified6 = is(a | b | c | d, 0);
    // What is unspecified has zeros where something is set.
    let becomes_v4 = unspecified4 | unspecified6 & bound_v4;
    let last = d | h & bound_v4 & !receives_only & unspecified4;
    let loopback4 = Address::LOOPBACK4.0[3] & becomes_v4 & is(last, 0);
    let loopback6 = Address::LOOPBACK6.0[3] & unspecified6 & !bound_v4;
    Address([a, b, c | v4 & becomes_v4, last | loopback4 | loopback6])
}

/// All ones if a socket that is bound to `bound` has this address of the host's: it is the same, or unspecified; else 0.
#[inline(always)]
#[must_use]
pub fn includes(bound: Address, address: Address, is: impl Fn(u32, u32) -> u32) -> u32 {
    let [_, _, c, _] = bound.0;
    let any = is_unspecified(bound, &is) & (is(c, 0) | address.v4_mask(&is));
    any | is(bound.difference(address), 0)
}

/// All ones for `::` and for 0.0.0.0, else 0.
#[inline(always)]
#[must_use]
pub fn is_unspecified(address: Address, is: impl Fn(u32, u32) -> u32) -> u32 {
    let [a, b, c, d] = address.0;
    is(a | b | d, 0) & (is(c, 0) | is(c, 0xffff_u32.to_be()))
}

/// All ones for an address by which several are reached: a multicast address or 255.255.255.255; else 0. A socket that is bound to
/// one receives there, and sends from another address. (Those by which all of one network are reached can't be told from others.)
#[inline(always)]
#[must_use]
pub fn is_for_several(address: Address, is: impl Fn(u32, u32) -> u32) -> u32 {
    let ([a, _, _, d], v4) = (address.0, address.v4_mask(&is));
    v4 & (is(u32::from_be(d) >> 28, 0xe) | is(d, u32::MAX)) | !v4 & is(u32::from_be(a) >> 24, 0xff)
}

/// All ones if the numbers are the same, else 0.
#[must_use]
pub const fn ones_if_equal(one: u32, other: u32) -> u32 {
    if one == other { u32::MAX } else { 0 }
}

/// Where something comes from that is sent to a loopback address, of IPv4 if all bits of `v4` are set, else (none is) of
/// IPv6. The socket is bound to `bound4` or `bound6`; one that is bound to no address sends from the usual one. `is` is as
/// for [`effective_destination`].
#[inline(always)]
#[must_use]
pub fn loopback_source(v4: u32, bound4: u32, bound6: [u32; 4], is: impl Fn(u32, u32) -> u32) -> Address {
    let (v4_prefix, [a, b, c, d]) = (0xffff_u32.to_be(), bound6);
    let unspecified6 = is(a | b | c | d, 0) | is(a | b | (c ^ v4_prefix) | d, 0);
    let last4 = bound4 | Address::LOOPBACK4.0[3] & is(bound4, 0);
    let last6 = d | Address::LOOPBACK6.0[3] & unspecified6;
    Address([a & !v4, b & !v4, c & !unspecified6 & !v4 | v4_prefix & v4, last6 & !v4 | last4 & v4])
}

/// What a process wants to do with the network. A number, for the reason that [`Protocol`] is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op(u8);

/// How many [`Op`]s there are; a power of two.
pub const OPS: usize = 4;

impl Op {
    /// connect(2), and all else that makes the kernel choose a peer for a socket. Address and port are the peer's.
    pub const CONNECT: Self = Self(0);
    /// bind(2). Address and port are the socket's own; port 0 lets the kernel choose.
    pub const BIND: Self = Self(1);
    /// Sending a datagram to a peer that is named with it. Address and port are the peer's.
    pub const SEND: Self = Self(2);
    /// Accepting a connection, or receiving a datagram on a socket that is connected to nobody. Address and port are
    /// the peer's.
    pub const RECEIVE: Self = Self(3);
    /// Every operation, in the order of its number.
    pub const ALL: [Self; OPS] = [Self::CONNECT, Self::BIND, Self::SEND, Self::RECEIVE];

    /// The operation of a packet that a socket sends which no address hook judges: a connection, or a datagram.
    #[inline(always)]
    #[must_use]
    pub const fn of_sent(protocol: Protocol) -> Self {
        // By their numbers: TCP is 1, and SEND 2 where CONNECT is 0.
        let is_tcp = (protocol.0 & 1) & !(protocol.0 >> 1);
        Self(Self::SEND.0 * (1 - is_tcp))
    }

    /// [`Op::CONNECT`] where all bits of `mask` are set, else `self`, which is the same where none is.
    #[inline(always)]
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // all bits of a mask are the same
    pub const fn or_connect(self, mask: u32) -> Self {
        Self(self.0 & !(mask as u8) | Self::CONNECT.0 & mask as u8)
    }

    /// The operation as an index below [`OPS`].
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize & (OPS - 1)
    }

    /// The operation's name in policies and in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        ["connect", "bind", "send", "receive"][self.index()]
    }
}

/// A transport protocol, as far as rules tell them apart. A number rather than an enum: were there a branch for each,
/// the kernel's verifier would follow all that comes after once for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol(u8);

/// How many values [`Protocol::index`] has; a power of two.
pub const PROTOCOLS: usize = 4;

impl Protocol {
    /// Anything else: only rules that hold for any protocol match it.
    pub const OTHER: Self = Self(0);
    /// TCP, and MPTCP, which is TCP on the wire.
    pub const TCP: Self = Self(1);
    /// UDP.
    pub const UDP: Self = Self(2);
    /// ICMP and ICMPv6.
    pub const ICMP: Self = Self(3);

    /// Every protocol that rules tell apart.
    pub const ALL: [Self; PROTOCOLS] = [Self::OTHER, Self::TCP, Self::UDP, Self::ICMP];

    /// From an `IPPROTO_*` number (include/uapi/linux/in.h).
    #[inline(always)]
    #[must_use]
    pub fn from_ipproto(number: u32) -> Self {
        // The only numbers beyond a byte are IPPROTO_MPTCP, which is 0x100 + IPPROTO_TCP, and IPPROTO_SMC, 0x100.
        static PROTOCOLS: [Protocol; 256] = {
            let mut protocols = [Protocol::OTHER; 256];
            protocols[6] = Protocol::TCP;
            protocols[17] = Protocol::UDP;
            protocols[1] = Protocol::ICMP;
            protocols[58] = Protocol::ICMP;
            protocols
        };
        PROTOCOLS[(number & 0xff) as usize]
    }

    /// The protocol as an index below [`PROTOCOLS`].
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize & (PROTOCOLS - 1)
    }
}

/// One request to be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub op: Op,
    /// By which protocol.
    pub protocol: Protocol,
    /// The peer, after [`effective_destination`]; for [`Op::BIND`], the socket's own address.
    pub address: Address,
    /// The peer's port, in host byte order.
    pub port: u16,
    /// 1 if the peer is a socket of this very sandbox, which `"hosts": ["sandbox"]` means; else 0. A number, as
    /// [`Protocol`] is one. For [`Op::BIND`] always 1: a socket's own address is the sandbox's.
    pub own: u32,
}

/// The part of the compiled network section that lives in the programs' read-only data.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// What the rules say.
    pub verdicts: Verdicts,
    /// 1: some rule names hosts, so the host table must be asked.
    pub by_host: u32,
    /// The number of port intervals, a power of two; 0 where no rule names ports.
    pub port_intervals: u32,
    /// The operations of which any can be denied, as bits: `1 << op`. The others needn't be judged.
    pub judged: u32,
    /// 1: some rule's hosts include the sandbox's own sockets, so it must be found out who receives.
    pub by_own: u32,
    /// The rules whose hosts include the sandbox's own sockets.
    pub own: RuleSet,
    /// What the rules say of a UDP port that nobody asked for: only those that deny bind(2) and name ports deny it.
    pub udp_ports: Verdicts,
    /// 1: some rule denies UDP ports by number, so ports that nobody asked for have to be judged.
    pub judges_udp_ports: u32,
    /// The number of intervals of the sockets' own ports, a power of two; 0 where no rule names such ports.
    pub local_intervals: u32,
    /// The rules on sending datagrams by UDP, but for those that deny it at some ports only.
    pub groups: RuleSet,
    /// The rules that hold for an operation by a protocol: `by_kind[op][protocol]`.
    pub by_kind: [[RuleSet; PROTOCOLS]; OPS],
}

const _: () = assert!(size_of::<Table>() == 168 + 32 * OPS * PROTOCOLS);

impl Table {
    /// No rules, everything denied: what the programs are compiled with.
    pub const DENY_ALL: Self = Self {
        verdicts: Verdicts::DENY_ALL,
        by_host: 0,
        port_intervals: 0,
        judged: u32::MAX,
        by_own: 0,
        own: RuleSet::NONE,
        udp_ports: Verdicts::DENY_ALL,
        judges_udp_ports: 0,
        local_intervals: 0,
        groups: RuleSet::NONE,
        by_kind: [[RuleSet::NONE; PROTOCOLS]; OPS],
    };

    /// No rules, everything allowed.
    pub const ALLOW_ALL: Self = Self { verdicts: Verdicts::ALLOW_ALL, judged: 0, ..Self::DENY_ALL };

    /// Whether any request for this operation can be denied.
    #[inline(always)]
    #[must_use]
    pub const fn judges(&self, op: Op) -> bool {
        self.judged >> op.index() & 1 == 1
    }

    /// Whether some peers can be denied and others not. Where rules ask for no hosts, it is all the same by which route a packet
    /// goes, and to whom: its port and protocol stay what they are.
    #[inline(always)]
    #[must_use]
    pub const fn tells_peers_apart(&self) -> bool {
        self.by_host != 0 && (self.judges(Op::CONNECT) || self.judges(Op::SEND))
    }

    /// Whether a copy that the kernel hands this host's own sockets could come to a peer that can be denied. Where one of both operations is
    /// free, that peer can be reached by it anyway.
    #[inline(always)]
    #[must_use]
    pub const fn keeps_copies(&self) -> bool {
        self.by_host != 0 && self.judges(Op::CONNECT) && self.judges(Op::SEND)
    }

    /// Which of the port intervals a port is in, as [`find_interval`] has it.
    #[inline(always)]
    pub fn find_interval(&self, reached: impl Fn(u32) -> u32) -> u32 {
        find_interval(self.port_intervals, reached)
    }
}

/// Which of so many intervals, a power of two, a port is in. `reached` gives 1 if the interval of that index begins at the port or
/// before it, else 0. The result is below the number of intervals, and so is every argument of `reached`.
#[inline(always)]
pub fn find_interval(intervals: u32, reached: impl Fn(u32) -> u32) -> u32 {
    let mask = intervals.wrapping_sub(1);
    let mut found = 0;
    let mut step = intervals / 2;
    // A binary search without a branch on what was read, each of which would double the verifier's work.
    while step != 0 {
        let probe = (found + step) & mask;
        found += step * reached(probe);
        step /= 2;
    }
    found & mask
}

/// Ports from `first` to before the next interval's `first`, which no rule tells apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortInterval {
    /// The first port.
    pub first: u32,
    /// Always 0.
    pub padding: u32,
    /// The rules whose ports include these.
    pub rules: RuleSet,
}

const _: () = assert!(size_of::<PortInterval>() == 40);

impl PortInterval {
    /// An interval behind all ports, to fill up with.
    pub const BEHIND: Self = Self { first: 1 << 16, padding: 0, rules: RuleSet::NONE };
}

/// The parts of the compiled network section that are looked up by value.
pub trait Lookup {
    /// The rules whose hosts include `address`: those of the longest prefix that covers it, which holds its parents'
    /// bits too. `None` can't happen with complete tables.
    fn by_host(&self, address: &Address) -> Option<&RuleSet>;
    /// The rules with names for which an address was learnt. No rule has names unless a lookup says otherwise.
    #[inline(always)]
    fn by_name(&self, _: Op, _: &Address) -> Option<&RuleSet> {
        None
    }
    /// The rules whose ports include `port`, found with [`Table::find_interval`]. `None` can't happen with complete
    /// tables.
    fn by_port(&self, table: &Table, port: u16) -> Option<&RuleSet>;
    /// The rules whose ports include [`EPHEMERAL`]: those of the first interval, since it is the first port. `None` can't
    /// happen with complete tables.
    fn by_chosen_port(&self) -> Option<&RuleSet>;
    /// The rules whose own ports include `port`, found with [`find_interval`] in [`Table::local_intervals`]. `None` can't happen with
    /// complete tables.
    fn by_local_port(&self, table: &Table, port: u16) -> Option<&RuleSet>;
}

/// Judges a network request. `None`, which must be treated as a denial, can't happen with complete tables.
#[inline(always)]
#[must_use]
pub fn decide(table: &Table, lookup: &impl Lookup, request: &Request) -> Option<Decision> {
    let by_port = by_port(table, lookup, request.port)?;
    decide_by_port(table, lookup, request, &table.verdicts, |index| word(by_port, index))
}

/// Judges what a socket receives at a port of this host's.
#[inline(always)]
#[must_use]
pub fn decide_received(table: &Table, lookup: &impl Lookup, request: &Request, local_port: u16) -> Option<Decision> {
    let by_port = by_port(table, lookup, request.port)?;
    let by_local = if table.local_intervals != 0 { Some(lookup.by_local_port(table, local_port)?) } else { None };
    decide_by_port(table, lookup, request, &table.verdicts, |index| word(by_port, index) & word(by_local, index))
}

/// Judges a TCP socket that listens at an address and port. The port is one that bind(2) named and that was judged then, if all
/// bits of `asked` are set; if none is, the kernel may have chosen it: listen(2) without bind(2) does that, from a range
/// that the socket can set (`IP_LOCAL_PORT_RANGE`). Then the port counts as itself and as one that the kernel chose, and the
/// first rule on either decides.
#[inline(always)]
#[must_use]
pub fn decide_listener(table: &Table, lookup: &impl Lookup, request: &Request, asked: u32) -> Option<Decision> {
    decide_own_port(table, lookup, request, &table.verdicts, asked)
}

/// Judges the port of a UDP socket that bind(2) did not name: sending makes the kernel choose one, and again until it is the one
/// that is denied. Every client has such a port, so the default doesn't count, nor do rules that deny bind(2) on all ports
/// ([`Table::udp_ports`]).
#[inline(always)]
#[must_use]
pub fn decide_udp_port(table: &Table, lookup: &impl Lookup, request: &Request) -> Option<Decision> {
    decide_own_port(table, lookup, request, &table.udp_ports, 0)
}

/// Whether datagrams may be sent to a group of receivers, at some port at least. `None`, which must be treated as a denial, can't happen
/// with complete tables.
#[inline(always)]
#[must_use]
pub fn decide_group(table: &Table, lookup: &impl Lookup, group: &Address) -> Option<Decision> {
    let by_host = if table.by_host != 0 { Some(lookup.by_host(group)?) } else { None };
    Some(table.verdicts.of_first(|index| table.groups.word(index) & word(by_host, index)))
}

#[inline(always)]
fn decide_own_port(
    table: &Table,
    lookup: &impl Lookup,
    request: &Request,
    verdicts: &Verdicts,
    asked: u32,
) -> Option<Decision> {
    let chosen = if table.port_intervals != 0 { Some(lookup.by_chosen_port()?) } else { None };
    let itself = by_port(table, lookup, request.port)?;
    let unasked = !(u64::from(asked) << 32 | u64::from(asked));
    let by_port = |index| word(itself, index) | word(chosen, index) & unasked;
    decide_by_port(table, lookup, request, verdicts, by_port)
}

/// Whether a denied connect(2) of a UDP socket sorts addresses for TCP, as far as anybody can tell: nothing can be sent to that port, or no rule is
/// about UDP there and TCP may connect.
///
/// getaddrinfo(3) connects a UDP socket to each address that it found, with the port that the program wants, or 0, sends nothing, and takes no harm
/// if that fails. `may_stream` says whether TCP may connect to an address at that port. The name "localhost" has two, and is looked up also where TCP
/// may connect to one of them.
#[inline(always)]
#[must_use]
pub fn sorts(
    denied: Decision,
    address: Address,
    port: u16,
    is: impl Fn(u32, u32) -> u32,
    mut may_stream: impl FnMut(Address) -> bool,
) -> bool {
    if port == 0 || denied.rule != DEFAULT {
        return port == 0;
    }
    let v4 = address.v4_mask(is);
    may_stream(address) || address.difference(Address::loopback(v4)) == 0 && may_stream(Address::loopback(!v4))
}

/// The port that bind(2) takes for "any that is free".
pub const EPHEMERAL: u16 = 0;

/// The rules on a port; `Some(None)`: no rule asks for it, so it excludes none.
#[inline(always)]
#[allow(clippy::option_option)] // the outer one is the failure
fn by_port<'a>(table: &Table, lookup: &'a impl Lookup, port: u16) -> Option<Option<&'a RuleSet>> {
    if table.port_intervals != 0 { lookup.by_port(table, port).map(Some) } else { Some(None) }
}

#[inline(always)]
fn word(rules: Option<&RuleSet>, index: usize) -> u64 {
    rules.map_or(u64::MAX, |rules| rules.word(index))
}

/// What is concluded from the rules that match a request.
trait Conclude {
    type Conclusion;

    /// Concludes. `matching` is as for [`Verdicts::of_first`].
    fn conclude(&self, matching: impl Fn(usize) -> u64) -> Self::Conclusion;
}

impl Conclude for Verdicts {
    type Conclusion = Decision;

    #[inline(always)]
    fn conclude(&self, matching: impl Fn(usize) -> u64) -> Decision {
        self.of_first(matching)
    }
}

/// Which rules allow a request.
struct Allowing<'a>(&'a Verdicts);

impl Conclude for Allowing<'_> {
    type Conclusion = ([u64; WORDS], u64);

    #[inline(always)]
    fn conclude(&self, matching: impl Fn(usize) -> u64) -> Self::Conclusion {
        self.0.allowing(matching)
    }
}

#[inline(always)]
fn decide_by_port<C: Conclude>(
    table: &Table,
    lookup: &impl Lookup,
    request: &Request,
    verdicts: &C,
    by_port: impl Fn(usize) -> u64,
) -> Option<C::Conclusion> {
    let by_kind = &table.by_kind[request.op.index()][request.protocol.index()];
    let by_host = if table.by_host != 0 { Some(lookup.by_host(&request.address)?) } else { None };
    let own = 0_u64.wrapping_sub(u64::from(request.own));
    let by_name = lookup.by_name(request.op, &request.address);
    let by_name = |index| by_name.map_or(0, |rules| rules.word(index));
    let by_host = |index| word(by_host, index) | by_name(index) | table.own.word(index) & own;
    Some(verdicts.conclude(|index| by_kind.word(index) & by_host(index) & by_port(index)))
}

/// The rules that allow a request, if all of them are among `some` and there are any. `None` if others do as well, or the default does.
#[inline(always)]
#[must_use]
pub fn allowed_only_by(table: &Table, lookup: &impl Lookup, request: &Request, some: &RuleSet) -> Option<[u64; WORDS]> {
    let by_port = by_port(table, lookup, request.port)?;
    let allowing = Allowing(&table.verdicts);
    let (rules, by_default) = decide_by_port(table, lookup, request, &allowing, |index| word(by_port, index))?;
    let (mut any, mut others) = (0, by_default);
    for (index, word) in rules.iter().enumerate() {
        any |= word;
        others |= word & !some.word(index);
    }
    if any != 0 && others == 0 { Some(rules) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unspecified_address_is_this_host() {
        let (zero4, zero6) = (Address::UNSPECIFIED4, Address::UNSPECIFIED6);
        let (loopback4, loopback6) = (Address::LOOPBACK4, Address::LOOPBACK6);
        let own = Address::from_bits(0xffff_0a00_0005);
        let table = [
            (zero4, zero4, loopback4),
            (zero4, zero6, loopback4),
            (zero4, own, own),
            (zero6, zero6, loopback6),
            (zero6, loopback6, loopback6),
            (zero6, loopback4, loopback4),
            (zero6, zero4, loopback4),
            (zero4, Address::from_bits(0xffff_ffff_ffff), loopback4),
            (zero4, Address::from_bits(0xffff_e000_0001), loopback4),
            (zero4, Address::from_bits(0xffff_f000_0001), Address::from_bits(0xffff_f000_0001)),
            (zero6, Address::from_bits(0xffff_e000_0001), loopback4),
            (own, zero4, own),
            (loopback6, zero6, loopback6),
        ];
        for (destination, bound, expected) in table {
            assert_eq!(
                effective_destination(destination, bound, ones_if_equal),
                expected,
                "{destination:?} from {bound:?}"
            );
        }
    }

    #[test]
    fn what_a_bound_socket_has() {
        let (one4, other4) = (Address::LOOPBACK4, Address::from_bits(0xffff_0a00_0001));
        let (one6, any4, any6) = (Address::LOOPBACK6, Address::UNSPECIFIED4, Address::UNSPECIFIED6);
        let table = [
            (one4, one4, true),
            (one4, other4, false),
            (any4, other4, true),
            (any4, one6, false),
            (any6, one6, true),
            (any6, other4, true),
            (one6, one6, true),
            (one6, one4, false),
        ];
        for (bound, address, expected) in table {
            assert_eq!(includes(bound, address, ones_if_equal) != 0, expected, "{bound:?} {address:?}");
        }
        for (bits, expected) in [
            (0xffff_e000_00fb, true),
            (0xffff_ffff_ffff, true),
            (0xffff_7f00_00ff, false),
            (0xff02 << 112 | 0xfb, true),
            (0xfe80 << 112 | 1, false),
            (0, false),
        ] {
            assert_eq!(is_for_several(Address::from_bits(bits), ones_if_equal) != 0, expected, "{bits:x}");
        }
    }

    #[test]
    fn loopback_addresses_have_a_single_receiver() {
        let table = [
            (0x7f00_0001, true),
            (0x7f00_0000, true),
            (0x7fff_fffe, true),
            (0x7fff_ffff, false),
            (0x7f00_00ff, false),
            (0x7eff_fffe, false),
            (0x8000_0001, false),
        ];
        for (address, expected) in table {
            assert_eq!(
                Address::from_bits(0xffff_0000_0000 | address).is_loopback(ones_if_equal),
                expected,
                "{address:x}"
            );
            assert!(!Address::from_bits(address).is_loopback(ones_if_equal), "not mapped");
        }
        assert!(Address::LOOPBACK6.is_loopback(ones_if_equal) && !Address::UNSPECIFIED6.is_loopback(ones_if_equal));
    }

    #[test]
    fn bits_and_words_agree() {
        assert_eq!(Address::LOOPBACK4.to_bits(), 0xffff_7f00_0001);
        assert_eq!(Address::LOOPBACK6.to_bits(), 1);
        let bits = 0x2001_0db8_0000_0001_0203_0405_0607_0809;
        assert_eq!(Address::from_bits(bits).to_bits(), bits);
    }

    #[test]
    fn tcp_packets_make_connections_and_others_are_datagrams() {
        for protocol in Protocol::ALL {
            let expected = if protocol == Protocol::TCP { Op::CONNECT } else { Op::SEND };
            assert_eq!(Op::of_sent(protocol), expected, "{protocol:?}");
        }
    }

    #[test]
    fn protocols_by_their_numbers() {
        let table = [
            (6, Protocol::TCP),
            (262, Protocol::TCP),
            (17, Protocol::UDP),
            (1, Protocol::ICMP),
            (58, Protocol::ICMP),
            (136, Protocol::OTHER),
            (256, Protocol::OTHER),
        ];
        for (number, protocol) in table {
            assert_eq!(Protocol::from_ipproto(number), protocol);
        }
    }
}
