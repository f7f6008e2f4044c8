//! Socket options: who reads or changes which option of a socket.

use crate::{
    Decision, MAX_RULES,
    decision::{OWN_HEADERS, PORT_RANGE, RECEIVER_CHOICE, Verdicts},
};

/// Ways to use an option, as bits.
pub mod access {
    /// getsockopt(2).
    pub const GET: u32 = 1;
    /// setsockopt(2).
    pub const SET: u32 = 2;
    /// Both.
    pub const ALL: u32 = GET | SET;
}

/// One request to be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The level that the option belongs to: `SOL_SOCKET`, or a protocol's number. The value is the caller's, checked by nobody.
    pub level: i32,
    /// The option's number at that level.
    pub option: i32,
    /// One bit of [`access`].
    pub access: u32,
}

/// One compiled rule: it matches an option when `(key ^ value) & mask == 0`, for the accesses that it is about.
///
/// An option's key has the option's number in bits 0–31 and the level in bits 32–63.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    value: u64,
    mask: u64,
    /// Bits of [`access`].
    accesses: u32,
    /// Always 0.
    padding: u32,
}

const _: () = assert!(size_of::<Rule>() == 24);

const LEVEL_SHIFT: u32 = 32;

impl Rule {
    /// A rule about no access, which never matches.
    pub const NONE: Self = Self { value: 0, mask: 0, accesses: 0, padding: 0 };

    /// A rule on the options that have all of the properties given (`None`: any), for each access in `accesses`.
    #[must_use]
    pub fn new(level: Option<i32>, option: Option<i32>, accesses: u32) -> Self {
        let (level_mask, level) = level.map_or((0, 0), |level| (u32::MAX, level));
        let (option_mask, option) = option.map_or((0, 0), |option| (u32::MAX, option));
        let mask = u64::from(level_mask) << LEVEL_SHIFT | u64::from(option_mask);
        Self { value: key(level, option), mask, accesses, padding: 0 }
    }
}

#[inline(always)]
fn key(level: i32, option: i32) -> u64 {
    u64::from(level.cast_unsigned()) << LEVEL_SHIFT | u64::from(option.cast_unsigned())
}

/// The rules of the compiled sockopts section; those from [`Verdicts::count`] on are never looked at.
pub type Rules = [Rule; MAX_RULES];

/// `IPPROTO_IP`, `IP_LOCAL_PORT_RANGE` (include/uapi/linux/in.h): from which ports the kernel chooses for a socket that is
/// not bound, be it IPv4's or IPv6's.
const LOCAL_PORT_RANGE: (i32, i32) = (0, 51);
/// `SOL_SOCKET`, `SO_ATTACH_REUSEPORT_CBPF` and `SO_ATTACH_REUSEPORT_EBPF` (include/uapi/asm-generic/socket.h).
const ATTACH_REUSEPORT: [(i32, i32); 2] = [(1, 51), (1, 52)];

/// `IP_FREEBIND` and `IPV6_FREEBIND` (include/uapi/linux/in.h, in6.h), with their levels.
const FREE_BIND: [(i32, i32); 2] = [(0, 15), (41, 78)];
/// `SOL_SOCKET`, `SO_BROADCAST` (include/uapi/asm-generic/socket.h).
const BROADCAST: (i32, i32) = (1, 6);
/// `IPPROTO_IP`, `IP_HDRINCL` (include/uapi/linux/in.h), and `IPPROTO_IPV6`, `IPV6_HDRINCL` (include/uapi/linux/in6.h).
const INCLUDE_HEADER: [(i32, i32); 2] = [(0, 3), (41, 36)];
/// `IPPROTO_IP`, `IP_RECVERR` (include/uapi/linux/in.h), and `IPPROTO_IPV6`, `IPV6_RECVERR` (include/uapi/linux/in6.h): what others
/// say in ICMP errors is kept for the socket, with the text that they quote.
const RECEIVE_ERRORS: [(i32, i32); 2] = [(0, 11), (41, 25)];

/// Routes that a socket gives its packets. They can take them even later: the kernel keeps a socket's route when such an option is taken off
/// again.
pub mod route {
    use crate::packet::{OPTION_WORDS, names_route4};

    /// `IPPROTO_IP`, with `IP_OPTIONS` and `IP_TRANSPARENT` (include/uapi/linux/in.h).
    const IP: u32 = 0;
    const OPTIONS4: u32 = 4;
    const TRANSPARENT4: u32 = 19;
    /// `IPPROTO_IPV6`, with `IPV6_2292PKTOPTIONS`, `IPV6_RTHDR`, `IPV6_FLOWLABEL_MGR` and `IPV6_TRANSPARENT` (include/uapi/linux/in6.h).
    const IPV6: u32 = 41;
    const PACKET_OPTIONS6: u32 = 6;
    const ROUTING_HEADER6: u32 = 57;
    const FLOW_LABEL6: u32 = 32;
    const TRANSPARENT6: u32 = 75;
    /// How many bytes a `struct in6_flowlabel_req` has. Options stand behind it.
    const FLOW_LABEL_REQUEST: u32 = 32;
    /// How many bytes of options an IPv4 header has room for.
    const ROOM4: u32 = 40;

    /// All ones if setting an option to a value of this length, of which `words` are the first 40 bytes, gives packets a route, or any source; else 0.
    /// The latter matters only where it is no stream (all ones in `stream`). `is` is as for [`crate::net::effective_destination`].
    #[inline(always)]
    #[must_use]
    pub fn is_given(
        (level, option): (i32, i32),
        length: u32,
        stream: u32,
        words: &[u64; OPTION_WORDS],
        is: impl Fn(u32, u32) -> u32 + Copy,
    ) -> u32 {
        let longer = |than: u32| 0_u32.wrapping_sub(than.wrapping_sub(length) >> 31);
        let options4 = is_options4((level, option), is) & (longer(ROOM4) | names_route4(words, is));
        let (level, option) = (level.cast_unsigned(), option.cast_unsigned());
        let header = (is(option, PACKET_OPTIONS6) | is(option, ROUTING_HEADER6)) & longer(0);
        let label = is(option, FLOW_LABEL6) & longer(FLOW_LABEL_REQUEST);
        let transparent = is(level, IP) & is(option, TRANSPARENT4) | is(level, IPV6) & is(option, TRANSPARENT6);
        options4 | is(level, IPV6) & (header | label) | transparent & !stream
    }

    /// All ones if an option has IPv4's options for its value, else 0.
    #[inline(always)]
    #[must_use]
    pub fn is_options4((level, option): (i32, i32), is: impl Fn(u32, u32) -> u32) -> u32 {
        is(level.cast_unsigned(), IP) & is(option.cast_unsigned(), OPTIONS4)
    }
}

/// Joining groups of receivers, of which the kernel sends reports to the routers of the network (RFC 3376, RFC 3810).
pub mod group {
    use crate::net::Address;

    /// Groups of IPv4.
    pub const V4: u32 = 1;
    /// Groups of IPv6.
    pub const V6: u32 = 2;
    /// Where IPv4's reports go.
    pub const ROUTERS4: Address = Address::v4(0xe000_0016_u32.to_be());
    /// Where IPv6's reports go.
    pub const ROUTERS6: Address = Address::from_bits(0xff02 << 112 | 0x16);

    /// The levels, `IPPROTO_IP` and `IPPROTO_IPV6`.
    const LEVELS: [u32; 2] = [0, 41];
    /// The loopback device, in every network namespace.
    const LOOPBACK_DEVICE: u32 = 1;

    /// Options of a level as bits.
    const fn options(numbers: &[u32]) -> u64 {
        let (mut all, mut index) = (0, 0);
        while index < numbers.len() {
            all |= 1 << numbers[index];
            index += 1;
        }
        all
    }

    /// `IP_ADD_MEMBERSHIP`, and those with sources: `IP_UNBLOCK_SOURCE`, `IP_BLOCK_SOURCE`, `IP_ADD_SOURCE_MEMBERSHIP`, `IP_MSFILTER`
    /// (include/uapi/linux/in.h).
    const ADD4: u32 = 35;
    const SOURCES_OF_IPV4: [u32; 4] = [37, 38, 39, 41];
    /// `IPV6_ADD_MEMBERSHIP` (include/uapi/linux/in6.h).
    const ADD6: u32 = 20;
    /// `MCAST_JOIN_GROUP`, and those with sources: `MCAST_BLOCK_SOURCE`, `MCAST_UNBLOCK_SOURCE`, `MCAST_JOIN_SOURCE_GROUP`, `MCAST_MSFILTER`,
    /// at both levels (include/uapi/linux/in.h).
    const JOIN: u32 = 42;
    const SOURCES_OF_BOTH: [u32; 4] = [43, 44, 46, 48];

    const OLD: [u64; 2] = [options(&SOURCES_OF_IPV4) | options(&[ADD4]), options(&[ADD6])];
    const PLAIN: [u64; 2] = [options(&[ADD4, JOIN]), options(&[ADD6, JOIN])];
    const ALL: [u64; 2] =
        [OLD[0] | options(&[JOIN]) | options(&SOURCES_OF_BOTH), OLD[1] | options(&[JOIN]) | options(&SOURCES_OF_BOTH)];

    /// What an option says about membership in groups. Leaving is nothing: there is no report of it but for a group that was joined.
    #[derive(Clone, Copy, Debug)]
    pub struct Membership {
        /// All ones if the socket joins a group, or chooses its sources; else 0.
        pub joins: u32,
        /// All ones if it joins one with all its sources, else 0.
        pub is_plain: u32,
        /// All ones if the value is one of the older structures, which begin with the group; else 0.
        is_old: u32,
        /// All ones if it is `IP_ADD_MEMBERSHIP`, which may name a device; else 0.
        may_name_device: u32,
        v4: u32,
    }

    impl Membership {
        /// What setting this option of this level says, if it is about one of these versions of IP. `is` is as for
        /// [`crate::net::effective_destination`].
        #[inline(always)]
        #[must_use]
        #[allow(clippy::cast_possible_truncation)] // a bit
        pub fn of(level: i32, option: i32, versions: u32, is: impl Fn(u32, u32) -> u32) -> Self {
            let (level, option) = (level.cast_unsigned(), option.cast_unsigned());
            let [v4, v6] = LEVELS.map(|number| is(level, number) & is(option >> 6, 0));
            let long = |mask: u32| u64::from(mask) << 32 | u64::from(mask);
            let has = |[of4, of6]: [u64; 2]| {
                let options = of4 & long(v4) | of6 & long(v6);
                0_u32.wrapping_sub((options >> (option & 63)) as u32 & 1)
            };
            let about = v4 & 0_u32.wrapping_sub(versions & 1) | v6 & 0_u32.wrapping_sub(versions >> 1 & 1);
            let may_name_device = v4 & is(option, ADD4);
            Self { joins: has(ALL) & about, is_plain: has(PLAIN), is_old: has(OLD), may_name_device, v4 }
        }

        /// All ones if the value, of `length` bytes, says that it is about the loopback device; else 0. Nobody hears of that.
        #[inline(always)]
        #[must_use]
        pub fn is_on_loopback(&self, value: &[u32; 8], length: u32, is: impl Fn(u32, u32) -> u32) -> u32 {
            let [first, second, third, _, fifth, ..] = *value;
            // `struct ip_mreqn` has 12 bytes; of a shorter value the kernel reads no device.
            let is_long = !0_u32.wrapping_sub(length.wrapping_sub(12) >> 31);
            let device = third & self.may_name_device & is_long;
            let by_address = is(device, 0) & is(u32::from_be(second) >> 24, 127);
            let old4 = is(device, LOOPBACK_DEVICE) | by_address;
            let old6 = is(fifth, LOOPBACK_DEVICE);
            self.is_old & (self.v4 & old4 | !self.v4 & old6) | !self.is_old & is(first, LOOPBACK_DEVICE)
        }

        /// All ones if the value may be read as naming another group by the kernel's calls for 32-bit programs; else 0. These have the
        /// address where others have padding (`struct compat_group_req`, include/net/compat.h).
        #[inline(always)]
        #[must_use]
        pub fn is_ambiguous(&self, value: &[u32; 8], is: impl Fn(u32, u32) -> u32) -> u32 {
            !self.is_old & !is(value[1], 0)
        }

        /// The group that the value names.
        #[inline(always)]
        #[must_use]
        pub fn group(&self, value: &[u32; 8]) -> Address {
            let (old, [a, b, c, d, e, f, g, h]) = (self.is_old, *value);
            // The newer structures have a `sockaddr_storage` from byte 8 on.
            let v6 = Address::v6([a & old | e & !old, b & old | f & !old, c & old | g & !old, d & old | h & !old]);
            v6.or_v4(a & old | d & !old, self.v4)
        }
    }
}

/// The compiled sockopts section but for its rules, and what the network section adds to it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// What the rules say.
    pub verdicts: Verdicts,
    /// 1: nobody may say from which ports the kernel chooses, since bind(2) is restricted.
    pub keep_port_range: u32,
    /// 1: nobody may have a program choose among the sockets of a port, since a rule is about the sandbox's own, and a
    /// guard's search for the receiver does not ask such a program (`inet_lookup_reuseport` without a packet).
    pub keep_receivers: u32,
    /// The versions of IP ([`group`]) of which only those groups may be joined to which datagrams may be sent: the kernel tells
    /// the routers of the network, to whom the network section denies to send.
    pub keep_groups: u32,
    /// 1: nobody may have the kernel keep what others say in ICMP errors, since it asks no hook about them.
    pub keep_errors: u32,
    /// 1: nobody may send packets with an IP header of their own, which go to the neighbour of another address than they name.
    pub keep_headers: u32,
    /// 1: it is noted which sockets may broadcast.
    pub note_broadcast: u32,
    /// 1: nobody may give packets a route of their own, since rules tell hosts apart.
    pub keep_routes: u32,
    /// Always 0.
    pub padding: u32,
}

const _: () = assert!(size_of::<Table>() == 72);

impl Table {
    /// No rules, everything denied: what the programs are compiled with.
    pub const DENY_ALL: Self = Self {
        verdicts: Verdicts::DENY_ALL,
        keep_port_range: 1,
        keep_receivers: 1,
        keep_groups: group::V4 | group::V6,
        keep_errors: 1,
        keep_headers: 1,
        note_broadcast: 1,
        keep_routes: 1,
        padding: 0,
    };
}

/// All ones if it has the kernel keep what others say in ICMP errors, and that must have no effect; else 0. It is not refused: the C
/// library's resolver asks for it, and doesn't need it.
#[inline(always)]
#[must_use]
pub fn has_no_effect(table: &Table, request: &Request, is: impl Fn(u32, u32) -> u32) -> u32 {
    if table.keep_errors == 0 || request.access != access::SET {
        return 0;
    }
    let [v4, v6] = RECEIVE_ERRORS.map(|(level, option)| {
        let differs = request.level ^ level | request.option ^ option;
        is(differs.cast_unsigned(), 0)
    });
    v4 | v6
}

/// Whether it may allow a socket a source that is not this host's, or that this host shares with others, by bind(2) or a control message: whatever the value is.
#[inline(always)]
#[must_use]
pub fn may_free_source(table: &Table, request: &Request) -> bool {
    let named = key(request.level, request.option);
    let frees = FREE_BIND.iter().any(|(level, option)| named == key(*level, *option));
    table.keep_routes != 0 && request.access == access::SET && frees
}

/// Whether it may allow a socket to broadcast, where that is to be noted: whatever the value is, which is the caller's own memory.
#[inline(always)]
#[must_use]
pub fn may_broadcast(table: &Table, request: &Request) -> bool {
    let same = key(request.level, request.option) == key(BROADCAST.0, BROADCAST.1);
    table.note_broadcast != 0 && request.access == access::SET && same
}

/// Judges a request: the first rule that matches decides, else the default.
#[inline(always)]
#[must_use]
pub fn decide(table: &Table, rules: &Rules, request: &Request) -> Decision {
    let verdicts = &table.verdicts;
    let key = key(request.level, request.option);
    if table.keep_port_range != 0
        && request.access == access::SET
        && key == self::key(LOCAL_PORT_RANGE.0, LOCAL_PORT_RANGE.1)
    {
        return Decision::fail_closed(PORT_RANGE);
    }
    let attaches = || ATTACH_REUSEPORT.iter().any(|(level, option)| key == self::key(*level, *option));
    if table.keep_receivers != 0 && request.access == access::SET && attaches() {
        return Decision::fail_closed(RECEIVER_CHOICE);
    }
    let includes = || INCLUDE_HEADER.iter().any(|(level, option)| key == self::key(*level, *option));
    if table.keep_headers != 0 && request.access == access::SET && includes() {
        return Decision::fail_closed(OWN_HEADERS);
    }
    for (index, rule) in (0_u16..).zip(rules) {
        if u32::from(index) >= verdicts.count() {
            break;
        }
        // A program is for one access, so the verifier knows which rules it can pass by.
        if rule.accesses & request.access != 0 && (key ^ rule.value) & rule.mask == 0 {
            return verdicts.of_rule(index);
        }
    }
    verdicts.of_default()
}

#[cfg(test)]
mod tests {
    use super::group::*;
    use crate::net::{Address, ones_if_equal as is};

    #[test]
    fn options_by_which_packets_get_routes() {
        let (plain, loose, strict) = ([0x0101, 0, 0, 0, 0], [0x83 << 56, 0, 0, 0, 0], [0, 0, 0, 0, 0x89]);
        // Level, option, length, the value's first words, whether it is a stream's, whether there is a route.
        let table = [
            (0, 4, 0, plain, false, false),
            (0, 4, 40, plain, false, false),
            (0, 4, 41, plain, false, true),
            (0, 4, 8, loose, false, true),
            (0, 4, 40, strict, true, true),
            (1, 4, 40, strict, false, false),
            (41, 4, 40, strict, false, false),
            (41, 57, 24, plain, false, true),
            (41, 57, 24, plain, true, true),
            (41, 57, 0, plain, false, false),
            (41, 6, 1, plain, false, true),
            (41, 5, 4, plain, false, false),
            (41, 32, 32, plain, false, false),
            (41, 32, 33, plain, false, true),
            (0, 19, 4, plain, false, true),
            (0, 19, 4, plain, true, false),
            (41, 75, 4, plain, false, true),
            (41, 19, 4, plain, false, false),
        ];
        for (level, option, length, words, stream, expected) in table {
            let stream = if stream { u32::MAX } else { 0 };
            let given = super::route::is_given((level, option), length, stream, &words, is);
            assert_eq!(given, if expected { u32::MAX } else { 0 }, "{level} {option} {length}");
        }
    }

    #[test]
    fn options_by_which_groups_are_joined() {
        // Level, option, joins, with all sources.
        let table = [
            (0, 35, true, true),
            (0, 36, false, false),
            (0, 39, true, false),
            (0, 40, false, false),
            (0, 41, true, false),
            (0, 42, true, true),
            (0, 45, false, false),
            (0, 48, true, false),
            (0, 20, false, false),
            (0, 35 + 64, false, false),
            (0, -29, false, false),
            (41, 20, true, true),
            (41, 21, false, false),
            (41, 35, false, false),
            (41, 42, true, true),
            (41, 46, true, false),
            (1, 35, false, false),
        ];
        for (level, option, joins, is_plain) in table {
            let of = |versions| Membership::of(level, option, versions, is);
            assert_eq!(of(V4 | V6).joins != 0, joins, "{level} {option}");
            assert_eq!(of(V4).joins != 0, joins && level == 0, "{level} {option}");
            assert_eq!(of(V6).joins != 0, joins && level == 41, "{level} {option}");
            assert_eq!(of(0).joins, 0);
            assert!(!joins || (of(V4).is_plain != 0) == is_plain, "{level} {option}");
        }
    }

    #[test]
    fn what_the_value_says() {
        let (group4, group6) = (0xe000_00fb_u32.to_be(), [0xff02_0000_u32.to_be(), 0, 0, 0xfb_u32.to_be()]);
        let [a, b, c, d] = group6;
        let (loopback, other) = (0x7f00_0001_u32.to_be(), 0x0a00_0001_u32.to_be());
        // Level, option, value, its length, whether it is about the loopback device.
        let table = [
            (0, 35, [group4, loopback, 0, 0, 0, 0, 0, 0], 8, true),
            (0, 35, [group4, other, 0, 0, 0, 0, 0, 0], 8, false),
            (0, 35, [group4, 0, 0, 0, 0, 0, 0, 0], 8, false),
            (0, 35, [group4, other, 1, 0, 0, 0, 0, 0], 12, true),
            (0, 35, [group4, loopback, 2, 0, 0, 0, 0, 0], 12, false),
            (0, 35, [group4, other, 1, 0, 0, 0, 0, 0], 11, false),
            (0, 39, [group4, loopback, other, 0, 0, 0, 0, 0], 12, true),
            (0, 39, [group4, other, 1, 0, 0, 0, 0, 0], 12, false),
            (0, 42, [1, 0, 2, group4, 0, 0, 0, 0], 136, true),
            (0, 42, [2, 0, 2, group4, 0, 0, 0, 0], 136, false),
            (41, 20, [a, b, c, d, 1, 0, 0, 0], 20, true),
            (41, 20, [a, b, c, d, 0, 0, 0, 0], 20, false),
            (41, 42, [1, 0, 10, 0, a, b, c, d], 136, true),
            (41, 42, [0, 0, 10, 0, a, b, c, d], 136, false),
        ];
        for (level, option, value, length, on_loopback) in table {
            let membership = Membership::of(level, option, V4 | V6, is);
            let expected = if level == 0 { Address::v4(group4) } else { Address::v6(group6) };
            assert_eq!(membership.group(&value), expected, "{level} {option}");
            assert_eq!(membership.is_on_loopback(&value, length, is) != 0, on_loopback, "{level} {option} {value:x?}");
        }
    }
}
