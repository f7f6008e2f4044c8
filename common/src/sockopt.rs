//! Socket options: who reads or changes which option of a socket.

use crate::{
    Decision, MAX_RULES,
    decision::{PORT_RANGE, RECEIVER_CHOICE, Verdicts},
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
    /// The level that the option belongs to: `SOL_SOCKET`, or a protocol's number. Whatever the caller gave.
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
}

const _: () = assert!(size_of::<Table>() == 48);

impl Table {
    /// No rules, everything denied: what the programs are compiled with.
    pub const DENY_ALL: Self = Self { verdicts: Verdicts::DENY_ALL, keep_port_range: 1, keep_receivers: 1 };
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
