//! The filter of system calls (seccomp): what no hook, capability or namespace keeps a command from.

use std::collections::BTreeMap;

use caps::Capability;
use enforce::sys::confine::{X32, has_x32};
use nix::errno::Errno;
use policy::{Part, ProcessSection, SocketFamily};
use seccompiler::{BackendError, BpfProgram};

use super::call::{Is, Remedy, Rule, What, compile};

/// How the kernel's namespaces are called in clone(2) and unshare(2). The first is the one that makes the others belong to it.
pub(super) const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// A namespace only in unshare(2): in clone(2), the bit belongs to a signal's number (`CSIGNAL`, include/uapi/linux/sched.h).
pub(super) const NEWTIME: libc::c_int = 0x80;

/// Mounting, in all its forms, and entering namespaces.
const MOUNTING: [(libc::c_long, &str); 12] = [
    (libc::SYS_mount, "mount"),
    (libc::SYS_umount2, "umount2"),
    (libc::SYS_pivot_root, "pivot_root"),
    (libc::SYS_move_mount, "move_mount"),
    (libc::SYS_open_tree, "open_tree"),
    // Not in the libc crate (Linux 6.15).
    (467, "open_tree_attr"),
    (libc::SYS_fsopen, "fsopen"),
    (libc::SYS_fsconfig, "fsconfig"),
    (libc::SYS_fsmount, "fsmount"),
    (libc::SYS_fspick, "fspick"),
    (libc::SYS_mount_setattr, "mount_setattr"),
    (libc::SYS_setns, "setns"),
];

const KEYS: [(libc::c_long, &str); 3] =
    [(libc::SYS_keyctl, "keyctl"), (libc::SYS_add_key, "add_key"), (libc::SYS_request_key, "request_key")];

/// The first makes what the others work on.
const IO_URING: [(libc::c_long, &str); 3] = [
    (libc::SYS_io_uring_setup, "io_uring_setup"),
    (libc::SYS_io_uring_enter, "io_uring_enter"),
    (libc::SYS_io_uring_register, "io_uring_register"),
];

/// Both put words where a terminal's reader takes them for typed: TIOCSTI one by one, TIOCLINUX by selecting and pasting.
const TYPING: [u64; 2] = [libc::TIOCSTI, libc::TIOCLINUX];

/// By these requests, a process has packets of its own making go out and come in without a socket, so that no rule on the network holds
/// for them. The kernel asks for `CAP_NET_ADMIN` only where a device is made: to one that is there already, its owner attaches, and, on
/// most kernels, anybody if it has none (`tun_not_capable`).
const PACKETS: [u64; 3] = [
    // TUNSETIFF (include/uapi/linux/if_tun.h): a network device whose packets are what the process writes.
    0x4004_54ca,
    // TIOCSETD: what a terminal's bytes are, packets among it (PPP, SLIP, multiplexed modems). The kernel loads the module, and some of
    // them ask for no capability.
    0x5423,
    // VHOST_SET_OWNER (include/uapi/linux/vhost.h): the beginning of every use of a device that the kernel serves in the place of a
    // hypervisor, such as the other end of vsock sockets, or a network card.
    0xaf01,
];

/// Families of sockets that everything needs, and that the policy's sections judge.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Kinds of netlink sockets by which an ordinary program asks about the network and devices. Changing them by these takes
/// `CAP_NET_ADMIN`.
const NETLINK: [libc::c_int; 4] =
    [libc::NETLINK_ROUTE, libc::NETLINK_SOCK_DIAG, libc::NETLINK_KOBJECT_UEVENT, libc::NETLINK_GENERIC];

/// The type by which programs of the last century ask for packet sockets, in the family inet (include/linux/net.h).
const SOCK_PACKET: libc::c_int = 10;
/// The part of a socket's type that is not flags (`SOCK_TYPE_MASK`, include/linux/net.h).
const SOCK_TYPE_MASK: u32 = 0xf;

/// The highest number that a process can have: numbers are ints, and those below 0 stand for groups.
const MAX_PID: u32 = 0x7fff_ffff;

/// More system calls than x32 has of its own, which begin at 512.
const X32_CALLS: i64 = 560;

/// What the filters do.
#[derive(Clone, Debug, Default)]
pub(super) struct Filters {
    /// Filters that refuse by themselves: one for each error.
    pub(super) plain: Vec<BpfProgram>,
    /// The one of the calls that are left to guard-run, with what is to be done about them. Only one filter of a process can have such.
    pub(super) asking: Option<(BpfProgram, Vec<Rule>)>,
    /// Filters that refuse by themselves where no filter can leave calls to guard-run.
    pub(super) otherwise: Vec<BpfProgram>,
}

impl Filters {
    /// The filters for a policy. What is refused gets the error that programs know to deal with: `ENOSYS` where they have another way to the
    /// same end, `EAFNOSUPPORT` for a socket of a family that there isn't, and `EPERM` for the rest.
    pub(super) fn new(section: &ProcessSection) -> Result<Self, BackendError> {
        let rules = refused(section);
        let question = presence(section);
        let asking = question.map(|rule| Ok((notifying([&rule], foreign(section))?, vec![rule]))).transpose()?;
        Ok(Self { plain: plain(section, &rules)?, asking, otherwise: Vec::new() })
    }

    /// The filters for `--diagnose`: they leave what is refused to guard-run, which refuses and counts it.
    pub(super) fn diagnosing(section: &ProcessSection, looked_at: Vec<Rule>) -> Result<Self, BackendError> {
        let rules = refused(section);
        let otherwise = plain(section, &rules)?;
        // Every new thread of programs that fall back to clone(2) would be told of. Of x32, nothing more is known than that it is that.
        let is_silent = |rule: &Rule| rule.number == libc::SYS_clone3 || rule.number & X32 != 0;
        let (mut silent, told): (Vec<Rule>, Vec<Rule>) = rules.into_iter().partition(is_silent);
        // Anybody who had a listener as well could say to the kernel that calls are to go on which guard-run is asked about: of several
        // filters that leave a call to a listener, the newest is asked (seccomp_run_filters, kernel/seccomp.c). While guard-run lives,
        // the kernel itself refuses a second listener, with this error.
        let second = What::Refuse(Errno::EBUSY, Remedy::default());
        let flag = int(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
        silent.push(Rule::new(libc::SYS_seccomp, "seccomp", second).when(1, Is::Masked(flag, flag)));
        let rules: Vec<Rule> = told.into_iter().chain(looked_at).collect();
        let asking = Some((notifying(&rules, foreign(section))?, rules));
        Ok(Self { plain: plain(section, &silent)?, asking, otherwise })
    }

    /// The one by which guard-run is told of all that would be refused, and which refuses nothing.
    pub(super) fn auditing(section: &ProcessSection, looked_at: Vec<Rule>) -> Result<Self, BackendError> {
        let is_of_ring = |rule: &Rule| IO_URING.iter().skip(1).any(|(number, _)| rule.number == *number);
        let is_told = |rule: &Rule| rule.number != libc::SYS_clone3 && rule.number & X32 == 0 && !is_of_ring(rule);
        let rules: Vec<Rule> = refused(section).into_iter().filter(is_told).chain(looked_at).collect();
        let foreign = if section.architectures.is_empty() { libc::SECCOMP_RET_USER_NOTIF } else { foreign(section) };
        Ok(Self { asking: Some((notifying(&rules, foreign)?, rules)), ..Self::default() })
    }
}

/// The filters that refuse by themselves: one for each error.
fn plain(section: &ProcessSection, rules: &[Rule]) -> Result<Vec<BpfProgram>, BackendError> {
    let mut by_error = BTreeMap::<i32, Vec<&Rule>>::new();
    for rule in rules {
        if let What::Refuse(error, _) = rule.what {
            by_error.entry(error as i32).or_default().push(rule);
        }
    }
    let filters = by_error.into_iter();
    filters
        .map(|(error, rules)| compile(rules, libc::SECCOMP_RET_ERRNO | error.cast_unsigned(), foreign(section)))
        .collect()
}

fn notifying<'a>(rules: impl IntoIterator<Item = &'a Rule>, foreign: u32) -> Result<BpfProgram, BackendError> {
    compile(rules, libc::SECCOMP_RET_USER_NOTIF, foreign)
}

/// What becomes of calls of another architecture, about which no filter knows anything.
fn foreign(section: &ProcessSection) -> u32 {
    if section.architectures.is_empty() { libc::SECCOMP_RET_KILL_PROCESS } else { libc::SECCOMP_RET_ALLOW }
}

/// The question whether one process is there, by its number: kill(pid, 0) (presence.rs). `None` where the kernel answers it.
pub(super) fn presence(section: &ProcessSection) -> Option<Rule> {
    let one = Rule::new(libc::SYS_kill, "kill", What::Presence).when(0, Is::Gt(0)).when(0, Is::Le(MAX_PID));
    (!section.allows(Part::Signals)).then(|| one.when(1, Is::Eq(0)))
}

fn refused(section: &ProcessSection) -> Vec<Rule> {
    [not_permitted(section), not_implemented(section), not_supported(section)].concat()
}

fn not_permitted(section: &ProcessSection) -> Vec<Rule> {
    let refuse = |remedy| What::Refuse(Errno::EPERM, remedy);
    let mut rules = Vec::new();
    if !section.allows(Part::Bpf) {
        let remedy = Remedy::parts(&[Part::Bpf]).and(Capability::CAP_BPF);
        rules.push(Rule::new(libc::SYS_bpf, "bpf", refuse(remedy)));
    }
    if !section.allows(Part::Namespaces) {
        let own = Remedy::parts(&[Part::Namespaces]);
        let mounting = refuse(own.and(Capability::CAP_SYS_ADMIN));
        rules.extend(MOUNTING.map(|(number, name)| Rule::new(number, name, mounting)));
        // It finds files past all folders, those that are hidden, too.
        let by_handle = refuse(own.and(Capability::CAP_DAC_READ_SEARCH));
        rules.push(Rule::new(libc::SYS_open_by_handle_at, "open_by_handle_at", by_handle));
        rules.extend(NAMESPACES.map(|namespace| making(libc::SYS_clone, "clone", namespace)));
        let unshared = NAMESPACES.into_iter().chain([NEWTIME]);
        rules.extend(unshared.map(|namespace| making(libc::SYS_unshare, "unshare", namespace)));
    }
    if !section.allows(Part::Keys) {
        rules.extend(KEYS.map(|(number, name)| Rule::new(number, name, refuse(Remedy::parts(&[Part::Keys])))));
    }
    let mut requests = |requests: &[u64], remedy| {
        let request = Rule::new(libc::SYS_ioctl, "ioctl", refuse(remedy));
        rules.extend(requests.iter().map(|number| request.clone().when(1, Is::Eq(int(*number)))));
    };
    if !section.allows(Part::Terminal) {
        requests(&TYPING, Remedy::parts(&[Part::Terminal]));
    }
    if !section.configures_network() {
        requests(&PACKETS, Remedy::capability(Capability::CAP_NET_ADMIN));
    }
    if !section.allows(Part::Signals) {
        // The kernel lets root, and processes of the same user, set each other's limits, and Landlock doesn't ask: RLIMIT_CPU
        // kills, and RLIMIT_FSIZE would keep guard-run from writing the log.
        let limits = Rule::new(libc::SYS_prlimit64, "prlimit64", refuse(Remedy::parts(&[Part::Signals])));
        rules.push(limits.when(0, Is::Ne(0)).when(2, Is::Pointer));
    }
    // With another number, every call would be past these rules. Kernels that have this are rare, so it may cost.
    if has_x32() {
        rules.extend((0..X32_CALLS).map(|call| Rule::new(X32 | call, "x32", refuse(Remedy::default()))));
    }
    rules
}

/// Making a namespace, which is refused.
fn making(number: libc::c_long, name: &'static str, namespace: libc::c_int) -> Rule {
    let bit = namespace.cast_unsigned();
    Rule::new(number, name, What::Refuse(Errno::EPERM, of_namespace(namespace))).when(0, Is::Masked(bit, bit))
}

/// What allows to make a namespace. Of a call that makes several, a user namespace is the first to be looked for: the others belong to it then, and
/// take no capability outside of it (`ksys_unshare` and `copy_process`, kernel/fork.c).
pub(super) fn of_namespace(namespace: libc::c_int) -> Remedy {
    let own = Remedy::parts(&[Part::Namespaces]);
    if namespace == libc::CLONE_NEWUSER { own } else { own.and(Capability::CAP_SYS_ADMIN) }
}

fn not_implemented(section: &ProcessSection) -> Vec<Rule> {
    let refuse = |remedy| What::Refuse(Errno::ENOSYS, remedy);
    let mut rules = Vec::new();
    if !section.allows(Part::Namespaces) {
        // Its flags are in memory, where no filter sees them. The C library falls back to clone(2).
        rules.push(Rule::new(libc::SYS_clone3, "clone3", refuse(Remedy::parts(&[Part::Namespaces]))));
    }
    if !section.allows(Part::IoUring) {
        rules.extend(IO_URING.map(|(number, name)| Rule::new(number, name, refuse(Remedy::parts(&[Part::IoUring])))));
    }
    rules
}

fn not_supported(section: &ProcessSection) -> Vec<Rule> {
    let refuse = |remedy| What::Refuse(Errno::EAFNOSUPPORT, remedy);
    let calls = [(libc::SYS_socket, "socket"), (libc::SYS_socketpair, "socketpair")];
    let others = |rule: Rule, argument, known: &[libc::c_int]| {
        known.iter().fold(rule, |rule, number| rule.when(argument, Is::Ne(number.cast_unsigned())))
    };
    let mut rules = Vec::new();
    for (number, name) in calls {
        // Each that a policy can name, so that it can be said which to name; and all that there is beside these.
        let nameable = SocketFamily::ALL.iter().copied().filter(|family| *family != SocketFamily::Netlink);
        for family in nameable.clone().filter(|family| !section.families.contains(family)) {
            let remedy = match family {
                SocketFamily::Packet | SocketFamily::Xdp => Remedy::family(family).and(Capability::CAP_NET_RAW),
                SocketFamily::Key => Remedy::family(family).and(Capability::CAP_NET_ADMIN),
                _ => Remedy::family(family),
            };
            rules.push(Rule::new(number, name, refuse(remedy)).when(0, Is::Eq(family.number().cast_unsigned())));
        }
        let known: Vec<libc::c_int> = FAMILIES.into_iter().chain(nameable.map(SocketFamily::number)).collect();
        rules.push(others(Rule::new(number, name, refuse(Remedy::default())), 0, &known));
        if !section.families.contains(&SocketFamily::Packet) {
            let remedy = Remedy::family(SocketFamily::Packet).and(Capability::CAP_NET_RAW);
            let kind = Is::Masked(SOCK_TYPE_MASK, SOCK_PACKET.cast_unsigned());
            rules.push(Rule::new(number, name, refuse(remedy)).when(1, kind));
        }
        if !section.families.contains(&SocketFamily::Netlink) {
            let netlink = Rule::new(number, name, refuse(Remedy::family(SocketFamily::Netlink)));
            rules.push(others(netlink.when(0, Is::Eq(libc::AF_NETLINK.cast_unsigned())), 2, &NETLINK));
        }
    }
    rules
}

/// A constant of an argument that is an int, which the libc crate has wider.
fn int(constant: u64) -> u32 {
    u32::try_from(constant).expect("it is an int's")
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::{Architecture, KeptCapability};

    fn killing(filters: &Filters) -> usize {
        let asking = filters.asking.iter().map(|(program, _)| program);
        let all = filters.plain.iter().chain(asking).flatten();
        all.filter(|instruction| instruction.k == libc::SECCOMP_RET_KILL_PROCESS).count()
    }

    #[test]
    fn every_filter_ends_a_process_of_another_architecture_unless_that_is_named() {
        assert_eq!(killing(&Filters::new(&ProcessSection::default()).expect("filters")), 4);
        let section = ProcessSection { architectures: vec![Architecture::X86], ..ProcessSection::default() };
        assert_eq!(killing(&Filters::new(&section).expect("filters")), 0);
    }

    #[test]
    fn in_audit_mode_no_filter_ends_a_process() {
        assert_eq!(killing(&Filters::auditing(&ProcessSection::default(), Vec::new()).expect("filters")), 0);
    }

    #[test]
    fn what_is_allowed_by_name_is_in_no_filter() {
        let capabilities = vec![KeptCapability(Capability::CAP_NET_ADMIN)];
        let section = ProcessSection { allow: Part::ALL.to_vec(), capabilities, ..ProcessSection::default() };
        assert!(not_implemented(&section).is_empty() && presence(&section).is_none());
        assert_eq!(not_permitted(&section).len(), if has_x32() { 560 } else { 0 });
        let rules = not_implemented(&ProcessSection::default());
        assert!(rules.iter().any(|rule| rule.number == libc::SYS_clone3));
    }

    #[test]
    fn all_that_is_refused_is_so_whoever_is_told() {
        let section = ProcessSection::default();
        let filters = Filters::diagnosing(&section, Vec::new()).expect("filters");
        let (_, told) = filters.asking.expect("some are told of");
        let silent = |rule: &Rule| rule.number == libc::SYS_clone3 || rule.number & X32 != 0;
        assert!(refused(&section).iter().all(|rule| silent(rule) || told.contains(rule)));
        assert_eq!(filters.otherwise, Filters::new(&section).expect("filters").plain);
        // One more for the second listener, and nothing for what is told of.
        assert_eq!(filters.plain.len(), if has_x32() { 3 } else { 2 });
    }

    #[test]
    fn requests_are_refused_one_by_one_each_with_what_allows_it() {
        let remedies = |section: &ProcessSection| -> Vec<Remedy> {
            let of = |rule: Rule| match rule.what {
                What::Refuse(_, remedy) if rule.number == libc::SYS_ioctl => Some(remedy),
                _ => None,
            };
            not_permitted(section).into_iter().filter_map(of).collect()
        };
        let typing = vec![Remedy::parts(&[Part::Terminal]); TYPING.len()];
        let packets = vec![Remedy::capability(Capability::CAP_NET_ADMIN); PACKETS.len()];
        let (terminal, network) = (vec![Part::Terminal], vec![KeptCapability(Capability::CAP_NET_ADMIN)]);
        assert_eq!(remedies(&ProcessSection::default()), [&*typing, &*packets].concat());
        let section = ProcessSection { allow: terminal.clone(), ..ProcessSection::default() };
        assert_eq!(remedies(&section), packets);
        let section = ProcessSection { capabilities: network.clone(), ..ProcessSection::default() };
        assert_eq!(remedies(&section), typing);
        let section = ProcessSection { allow: terminal, capabilities: network, ..ProcessSection::default() };
        assert_eq!(remedies(&section), []);
    }
}
