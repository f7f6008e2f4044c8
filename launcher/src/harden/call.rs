//! What the filter says about a system call, so that it can be asked twice: by the kernel, and, where guard-run answers a call, by
//! guard-run.

use std::env::consts::ARCH;

use caps::Capability;
use enforce::sys::notify::Call;
use nix::errno::Errno;
use policy::{Architecture, Part, SocketFamily};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use serde_json::{Map, Value, json};

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Is {
    /// Equal.
    Eq(u32),
    /// Not.
    Ne(u32),
    /// More than.
    Gt(u32),
    /// At the most.
    Le(u32),
    /// Having these bits, of those of the first number.
    Masked(u32, u32),
    /// Not equal, where all 64 bits count: a pointer.
    Pointer,
}

/// A condition on an argument. But for pointers, the kernel looks at the lower half of it alone: all of these are ints, or flags of
/// which the upper half is refused or ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition(pub(super) u8, pub(super) Is);

impl Condition {
    fn compile(self) -> Result<SeccompCondition, BackendError> {
        let Self(argument, is) = self;
        let (operator, value) = match is {
            Is::Eq(value) => (SeccompCmpOp::Eq, value),
            Is::Ne(value) => (SeccompCmpOp::Ne, value),
            Is::Gt(value) => (SeccompCmpOp::Gt, value),
            Is::Le(value) => (SeccompCmpOp::Le, value),
            Is::Masked(mask, value) => (SeccompCmpOp::MaskedEq(mask.into()), value),
            Is::Pointer => return SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0),
        };
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into())
    }

    fn holds(self, call: &Call) -> bool {
        let Self(argument, is) = self;
        let argument = usize::from(argument);
        let low = call.int(argument).cast_unsigned();
        match is {
            Is::Eq(value) => low == value,
            Is::Ne(value) => low != value,
            Is::Gt(value) => low > value,
            Is::Le(value) => low <= value,
            Is::Masked(mask, value) => low & mask == value & mask,
            Is::Pointer => call.arguments[argument] != 0,
        }
    }
}

/// What is to be done about a call for which all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) number: libc::c_long,
    /// What it is called.
    pub(super) name: &'static str,
    pub(super) conditions: Vec<Condition>,
    /// What has to be in the caller's memory as well, where the call is looked at.
    pub(super) word: Option<Word>,
    pub(super) what: What,
}

/// What is to be done about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The call fails with this error, and the remedy is what would allow it.
    Refuse(Errno, Remedy),
    /// The call asks whether a process is there. guard-run answers that, since Landlock doesn't.
    Presence,
    /// The kernel makes it, or refuses it for something that keeps the command inside; this is looked at, to know which.
    Look(Look),
}

/// By what the kernel may refuse a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Landlock's scope for signals: these processes get one.
    Signal(Whom),
    /// Landlock's domain: this process is traced, or read.
    Trace(Whom, Errno),
    /// What covers a socket, or Landlock's scope for abstract ones: the argument of this number is the peer's address, and its length follows.
    Peer(usize),
    /// The want of a capability: of the first of these, which is to be named, and of all others that would do.
    Capability(&'static [Capability], Errno),
    /// The want of the capability to prefer these to others.
    Nice(Whom),
    /// The want of the capability to change how processes of another user are scheduled: these.
    Scheduling(Whom),
    /// The want of the capability to raise a hard limit: that of the argument of this number, to what the next one points to.
    HardLimit(usize),
    /// The want of the capability to lock more memory than the limit: as many bytes as the argument of this number says, or all that there is.
    Lock(Option<usize>),
    /// Flags in memory, which name namespaces (clone3).
    Namespaces,
}

/// How a call names a process, or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// By the number of the process, or of a thread of it, which is the argument of this number.
    Number(usize),
    /// By a descriptor of it (pidfd_open(2)), which is the argument of this number.
    Descriptor(usize),
    /// By the number of a process group, which the argument of this number is, or is the negative of. 0 is the caller's own.
    Group(usize),
    /// By a user's number, which is the argument of this number. 0 is the caller.
    User(usize),
}

impl What {
    /// The capabilities of which one has to be there for the call to succeed, where it is about these.
    pub(super) const fn takes(&self) -> &'static [Capability] {
        match self {
            Self::Look(Look::Capability(capabilities, _)) => capabilities,
            Self::Look(Look::Nice(_) | Look::Scheduling(_)) => &[Capability::CAP_SYS_NICE],
            Self::Look(Look::HardLimit(_)) => &[Capability::CAP_SYS_RESOURCE],
            Self::Look(Look::Lock(_)) => &[Capability::CAP_IPC_LOCK],
            _ => &[],
        }
    }
}

/// A condition on eight bytes of the caller's memory. No filter sees them, so it is for calls that are looked at alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// The number of the argument that points there.
    pub(super) argument: usize,
    /// How many bytes behind that they begin.
    pub(super) offset: u64,
    /// The bits that are of interest.
    pub(super) mask: u64,
    /// How these are compared.
    pub(super) is: Words,
}

/// How bits are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// Equal to one of these.
    Of(&'static [u64]),
    /// Equal to none of these.
    Not(&'static [u64]),
}

impl Word {
    /// Whether the condition holds for these bytes.
    pub(super) fn holds(&self, bytes: [u8; 8]) -> bool {
        let bits = u64::from_ne_bytes(bytes) & self.mask;
        match self.is {
            Words::Of(values) => values.contains(&bits),
            Words::Not(values) => !values.contains(&bits),
        }
    }
}

impl Rule {
    /// A rule on a call, whatever its arguments.
    pub(super) fn new(number: libc::c_long, name: &'static str, what: What) -> Self {
        Self { number, name, conditions: Vec::new(), word: None, what }
    }

    /// This rule, but only for calls of which a condition on an argument holds as well.
    pub(super) fn when(mut self, argument: u8, is: Is) -> Self {
        self.conditions.push(Condition(argument, is));
        self
    }

    /// This rule, but only for calls with this in memory.
    pub(super) fn reading(self, word: Word) -> Self {
        Self { word: Some(word), ..self }
    }

    /// Whether it is about this call, as far as the kernel's filter can tell.
    pub(super) fn holds(&self, call: &Call) -> bool {
        !call.is_foreign && self.number == call.number && self.conditions.iter().all(|condition| condition.holds(call))
    }
}

/// What a policy has to name for a call to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remedy {
    parts: &'static [Part],
    capability: Option<Capability>,
    family: Option<SocketFamily>,
    architecture: Option<Architecture>,
    /// Whether it is not this section but the one on Unix sockets that does not allow it.
    unix: bool,
}

impl Remedy {
    const NONE: Self = Self { parts: &[], capability: None, family: None, architecture: None, unix: false };

    /// Parts: the one that the call is about, and those without which a policy can't name it.
    pub(super) const fn parts(parts: &'static [Part]) -> Self {
        Self { parts, ..Self::NONE }
    }

    /// A capability.
    pub(super) const fn capability(capability: Capability) -> Self {
        Self { capability: Some(capability), ..Self::NONE }
    }

    /// A family of sockets.
    pub(super) const fn family(family: SocketFamily) -> Self {
        Self { family: Some(family), ..Self::NONE }
    }

    /// An architecture.
    #[must_use]
    pub const fn architecture(architecture: Architecture) -> Self {
        Self { architecture: Some(architecture), ..Self::NONE }
    }

    /// Nothing of the process section: it is the section on Unix sockets that allows none but the command's own.
    pub(super) const fn unix() -> Self {
        Self { unix: true, ..Self::NONE }
    }

    /// With a capability as well, which a command that is root has to have.
    pub(super) const fn and(self, capability: Capability) -> Self {
        Self { capability: Some(capability), ..self }
    }

    /// In a word or two: `namespaces`, `CAP_NET_RAW`.
    #[must_use]
    pub fn short(&self) -> String {
        let word = self.parts.first().map(|part| json!(part)).or_else(|| self.family.map(|family| json!(family)));
        let word = word.or_else(|| self.architecture.map(|architecture| json!(architecture)));
        match (word, self.capability) {
            _ if self.unix => "unix".to_owned(),
            (Some(word), _) => word.as_str().unwrap_or_default().to_owned(),
            (None, Some(capability)) => capability.to_string(),
            (None, None) => String::new(),
        }
    }

    /// As it is written in a policy.
    #[must_use]
    pub fn text(&self) -> String {
        let mut section = Map::<String, Value>::new();
        if !self.parts.is_empty() {
            section.insert("allow".into(), json!(self.parts));
        }
        if let Some(capability) = self.capability {
            section.insert("capabilities".into(), json!([capability.to_string()]));
        }
        if let Some(family) = self.family {
            section.insert("families".into(), json!([family]));
        }
        if let Some(architecture) = self.architecture {
            section.insert("architectures".into(), json!([architecture]));
        }
        if self.unix {
            return "the unix section allows the command's own sockets alone; for rules on paths, the kernel needs BPF LSM".to_owned();
        }
        if section.is_empty() {
            return "no policy allows it; \"isolation\": \"cgroup-only\" would, and be no boundary".to_owned();
        }
        format!("to allow it: {{\"process\": {}}}", Value::from(section))
    }
}

/// A filter with one action for all that these rules are about, and one for all calls of other architectures.
pub(super) fn compile<'a>(
    rules: impl IntoIterator<Item = &'a Rule>,
    action: u32,
    foreign: u32,
) -> Result<BpfProgram, BackendError> {
    // A stand-in, since seccompiler doesn't know all actions.
    let stand_in = SeccompAction::Trap;
    let mut chains = std::collections::BTreeMap::<i64, Option<Vec<SeccompRule>>>::new();
    for Rule { number, conditions, .. } in rules {
        let chain = chains.entry(*number).or_insert_with(|| Some(Vec::new()));
        if conditions.is_empty() {
            // Whatever its arguments; no other rule matters any more.
            *chain = None;
        } else if let Some(chain) = chain {
            let conditions = conditions.iter().map(|condition| condition.compile()).collect::<Result<_, _>>()?;
            chain.push(SeccompRule::new(conditions)?);
        }
    }
    let chains = chains.into_iter().map(|(number, chain)| (number, chain.unwrap_or_default())).collect();
    let filter = SeccompFilter::new(chains, SeccompAction::Allow, stand_in.clone(), TargetArch::try_from(ARCH)?)?;
    let mut program: BpfProgram = filter.try_into()?;
    let stand_in = u32::from(stand_in);
    for instruction in &mut program {
        if instruction.code == RETURN && instruction.k == stand_in {
            instruction.k = action;
        } else if instruction.code == RETURN && instruction.k == libc::SECCOMP_RET_KILL_PROCESS {
            // The filter begins with a look at the architecture.
            instruction.k = foreign;
        }
    }
    Ok(program)
}

/// `BPF_RET | BPF_K` (include/uapi/linux/bpf_common.h).
const RETURN: u16 = 0x06;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_the_same_here_as_in_the_kernel() {
        let call = |arguments: [u64; 6]| Call { id: 0, thread: 0, number: 7, arguments, is_foreign: false };
        let table = [
            (Is::Eq(3), [3, 0x1_0000_0003], [2, 4]),
            (Is::Ne(3), [2, u64::MAX], [3, 0x7_0000_0003]),
            (Is::Gt(0), [1, 0xffff_ffff], [0, 0x1_0000_0000]),
            (Is::Le(3), [0, 3], [4, 0xffff_ffff]),
            (Is::Masked(0xf, 3), [3, 0x803], [2, 0x80f]),
            (Is::Pointer, [1, 0x1_0000_0000], [0, 0]),
        ];
        for (is, holding, others) in table {
            let rule = Rule::new(7, "seven", What::Presence).when(1, is);
            for value in holding {
                assert!(rule.holds(&call([9, value, 0, 0, 0, 0])), "{is:?} {value:#x}");
            }
            for value in others {
                assert!(!rule.holds(&call([9, value, 0, 0, 0, 0])), "{is:?} {value:#x}");
            }
        }
        let other = Call { number: 8, ..call([3; 6]) };
        assert!(!Rule::new(7, "seven", What::Presence).holds(&other));
    }

    #[test]
    fn a_word_in_memory_is_compared_by_its_bits() {
        let word = |is| Word { argument: 0, offset: 0, mask: 0xff, is };
        let holds = |is, value: u64| word(is).holds(value.to_ne_bytes());
        assert!(holds(Words::Of(&[1, 2]), 0x702) && !holds(Words::Of(&[1, 2]), 3));
        assert!(holds(Words::Not(&[0, 7]), 1) && !holds(Words::Not(&[0, 7]), 0x107));
    }

    #[test]
    fn a_remedy_is_what_to_write() {
        let mounting = Remedy::parts(&[Part::Namespaces]).and(Capability::CAP_SYS_ADMIN);
        let text = r#"to allow it: {"process": {"allow":["namespaces"],"capabilities":["CAP_SYS_ADMIN"]}}"#;
        assert_eq!((mounting.text().as_str(), mounting.short().as_str()), (text, "namespaces"));
        assert_eq!(Remedy::capability(Capability::CAP_SYS_NICE).short(), "CAP_SYS_NICE");
        assert_eq!(Remedy::family(SocketFamily::Vsock).short(), "vsock");
        let foreign = Remedy::architecture(Architecture::X86);
        let text = r#"to allow it: {"process": {"architectures":["x86"]}}"#;
        assert_eq!((foreign.text().as_str(), foreign.short().as_str()), (text, "x86"));
        assert!(Remedy::default().text().contains("no policy"));
    }
}
