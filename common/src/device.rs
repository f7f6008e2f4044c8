//! Device requests: who opens or makes which device node.

use crate::{
    Decision, MAX_RULES,
    decision::{DEFAULT, Verdicts},
};

/// Largest major number: `dev_t` has 12 bits for it (include/linux/kdev_t.h).
pub const MAX_MAJOR: u32 = (1 << 12) - 1;
/// Largest minor number: `dev_t` has 20 bits for it.
pub const MAX_MINOR: u32 = (1 << 20) - 1;

/// Kinds of device, with the kernel's numbers (`BPF_DEVCG_DEV_*`, include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Type {
    /// Block device, `b`.
    Block = 1,
    /// Character device, `c`.
    Char = 2,
}

/// Ways to use a device, as bits with the kernel's numbers (`BPF_DEVCG_ACC_*`).
pub mod access {
    /// Make a node for it, `m`.
    pub const MKNOD: u32 = 1;
    /// Open it for reading, `r`.
    pub const READ: u32 = 2;
    /// Open it for writing, `w`.
    pub const WRITE: u32 = 4;
    /// All of them.
    pub const ALL: u32 = MKNOD | READ | WRITE;
}

/// One request to be judged.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The device's type, a [`Type`] in the kernel's number. A number, since the kernel decides what it hands over.
    pub kind: u32,
    /// What is asked for, bits of [`access`].
    pub access: u32,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

const _: () = assert!(size_of::<Request>() == 16);

/// One compiled rule: it matches a device when `(key ^ value) & mask == 0`.
///
/// Bit-fields of a device's key: minor 0–19, major 20–31, type 32–33. The mask has the bits of what the rule names. The
/// value has, beside these, the accesses that the rule is about from bit 40 on, outside any mask.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    value: u64,
    mask: u64,
}

const _: () = assert!(size_of::<Rule>() == 16);

const MAJOR_SHIFT: u32 = 20;
const TYPE_SHIFT: u32 = 32;
const ACCESS_SHIFT: u32 = 40;

impl Rule {
    /// A rule about no access, which never matches.
    pub const NONE: Self = Self { value: 0, mask: 0 };

    /// A rule on the devices that have all of the properties given (`None`: any), for each access in `access`.
    #[must_use]
    pub fn new(kind: Option<Type>, major: Option<u32>, minor: Option<u32>, access: u32) -> Self {
        let mut rule = Self { value: u64::from(access) << ACCESS_SHIFT, mask: 0 };
        if let Some(kind) = kind {
            rule.value |= u64::from(kind as u8) << TYPE_SHIFT;
            rule.mask |= 3 << TYPE_SHIFT;
        }
        if let Some(major) = major {
            rule.value |= u64::from(major) << MAJOR_SHIFT;
            rule.mask |= u64::from(MAX_MAJOR) << MAJOR_SHIFT;
        }
        if let Some(minor) = minor {
            rule.value |= u64::from(minor);
            rule.mask |= u64::from(MAX_MINOR);
        }
        rule
    }

    /// The accesses to a device that the rule is about.
    #[inline(always)]
    fn accesses(self, key: u64) -> u32 {
        if (key ^ self.value) & self.mask == 0 { (self.value >> ACCESS_SHIFT) as u32 } else { 0 }
    }
}

/// The rules of the compiled devices section; those from [`Verdicts::count`] on are never looked at.
pub type Rules = [Rule; MAX_RULES];

/// Judges a device request. Each access is judged by itself: the first rule about it decides. A request for several is
/// denied if any of them is.
#[inline(always)]
#[must_use]
pub fn decide(verdicts: &Verdicts, rules: &Rules, request: &Request) -> Decision {
    let device = u64::from(request.minor & MAX_MINOR)
        | u64::from(request.major & MAX_MAJOR) << MAJOR_SHIFT
        | u64::from(request.kind & 3) << TYPE_SHIFT;
    let mut undecided = request.access;
    // A request for no access at all (access(2) with F_OK) asks for nothing that could be denied.
    let mut decision = Decision { allow: true, rule: DEFAULT };
    for (index, rule) in (0_u16..).zip(rules) {
        if u32::from(index) >= verdicts.count() || undecided == 0 {
            break;
        }
        let decided = rule.accesses(device) & undecided;
        if decided != 0 {
            undecided &= !decided;
            decision = verdicts.of_rule(index);
            if !decision.allow {
                return decision;
            }
        }
    }
    if undecided != 0 { verdicts.of_default() } else { decision }
}
