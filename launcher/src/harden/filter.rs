//! The filter of system calls (seccomp): what no hook, capability or namespace keeps a command from.

use std::{collections::BTreeMap, env::consts::ARCH};

use enforce::sys::confine::{X32, has_x32};
use policy::{Part, ProcessSection, SocketFamily};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Rules by the number of the system call they are about: none at all means whatever its arguments.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// How the kernel's namespaces are called in clone(2) and unshare(2).
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// A namespace only in unshare(2): in clone(2), the bit belongs to a signal's number (`CSIGNAL`, include/uapi/linux/sched.h).
const NEWTIME: libc::c_int = 0x80;

/// Mounting, in all its forms, and entering namespaces.
const MOUNTING: [libc::c_long; 13] = [
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    // open_tree_attr, which the libc crate does not have (Linux 6.15).
    467,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    // It finds files past all folders, those that are hidden, too.
    libc::SYS_open_by_handle_at,
];

const KEYS: [libc::c_long; 3] = [libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key];

const IO_URING: [libc::c_long; 3] = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

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
const SOCK_TYPE_MASK: u64 = 0xf;

/// The highest number that a process can have: numbers are ints, and those below 0 stand for groups.
const MAX_PID: u64 = 0x7fff_ffff;

/// More system calls than x32 has of its own, which begin at 512.
const X32_CALLS: i64 = 560;

/// The filters for a policy: one for each error that a refused call gets. What is refused gets the error that programs know to
/// deal with: `ENOSYS` where they have another way to the same end, `EAFNOSUPPORT` for a socket of a family that there
/// isn't, and `EPERM` for the rest.
pub(super) fn filters(section: &ProcessSection) -> Result<Vec<BpfProgram>, BackendError> {
    let refused = [
        (not_permitted(section)?, libc::EPERM),
        (not_implemented(section), libc::ENOSYS),
        (not_supported(section)?, libc::EAFNOSUPPORT),
    ];
    let filters = refused.into_iter().filter(|(rules, _)| !rules.is_empty());
    filters.map(|(rules, error)| compile(section, rules, error)).collect()
}

/// The filter of the calls that are left to guard-run; `None` where there are none. Only one filter of a process can have such.
pub(super) fn asking(section: &ProcessSection) -> Result<Option<BpfProgram>, BackendError> {
    if section.allows(Part::Signals) {
        return Ok(None);
    }
    // Of a process by its number: kill(pid, 0) asks whether it is there (presence.rs).
    let one =
        [condition(0, SeccompCmpOp::Gt, 0), condition(0, SeccompCmpOp::Le, MAX_PID), condition(1, SeccompCmpOp::Eq, 0)];
    let rules = Rules::from([(libc::SYS_kill, vec![rule(one)?])]);
    let mut program = compile(section, rules, libc::ENOSYS)?;
    let refusal = u32::from(SeccompAction::Errno(libc::ENOSYS.cast_unsigned()));
    // seccompiler doesn't know this action.
    program.iter_mut().filter(|instruction| instruction.k == refusal).for_each(|instruction| {
        instruction.k = libc::SECCOMP_RET_USER_NOTIF;
    });
    Ok(Some(program))
}

fn not_permitted(section: &ProcessSection) -> Result<Rules, BackendError> {
    let mut rules = Rules::new();
    if !section.allows(Part::Bpf) {
        rules.insert(libc::SYS_bpf, Vec::new());
    }
    if !section.allows(Part::Namespaces) {
        rules.extend(MOUNTING.map(|call| (call, Vec::new())));
        let flag = |flag: &libc::c_int| {
            let flag = u64::from(flag.cast_unsigned());
            rule([condition(0, SeccompCmpOp::MaskedEq(flag), flag)])
        };
        rules.insert(libc::SYS_clone, NAMESPACES.iter().map(flag).collect::<Result<_, _>>()?);
        rules.insert(libc::SYS_unshare, NAMESPACES.iter().chain([&NEWTIME]).map(flag).collect::<Result<_, _>>()?);
    }
    if !section.allows(Part::Keys) {
        rules.extend(KEYS.map(|call| (call, Vec::new())));
    }
    let typing: &[u64] = if section.allows(Part::Terminal) { &[] } else { &TYPING };
    let packets: &[u64] = if section.configures_network() { &[] } else { &PACKETS };
    let requests: Vec<&u64> = typing.iter().chain(packets).collect();
    // No request at all would mean all of them.
    if !requests.is_empty() {
        let request = |request: &u64| rule([condition(1, SeccompCmpOp::Eq, *request)]);
        rules.insert(libc::SYS_ioctl, requests.into_iter().map(request).collect::<Result<_, _>>()?);
    }
    if !section.allows(Part::Signals) {
        // The kernel lets root, and processes of the same user, set each other's limits, and Landlock doesn't ask: RLIMIT_CPU
        // kills, and RLIMIT_FSIZE would keep guard-run from writing the log.
        let of_another = condition(0, SeccompCmpOp::Ne, 0);
        let new_limit = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0);
        rules.insert(libc::SYS_prlimit64, vec![rule([of_another, new_limit])?]);
    }
    // With another number, every call would be past these rules. Kernels that have this are rare, so it may cost.
    if has_x32() {
        rules.extend((0..X32_CALLS).map(|call| (X32 | call, Vec::new())));
    }
    Ok(rules)
}

fn not_implemented(section: &ProcessSection) -> Rules {
    let mut rules = Rules::new();
    if !section.allows(Part::Namespaces) {
        // Its flags are in memory, where no filter sees them. The C library falls back to clone(2).
        rules.insert(libc::SYS_clone3, Vec::new());
    }
    if !section.allows(Part::IoUring) {
        rules.extend(IO_URING.map(|call| (call, Vec::new())));
    }
    rules
}

fn not_supported(section: &ProcessSection) -> Result<Rules, BackendError> {
    let named = section.families.iter().map(|family| family.number());
    let families: Vec<libc::c_int> = FAMILIES.into_iter().chain(named).collect();
    let other = |argument, known: &[libc::c_int]| {
        known.iter().map(|number| condition(argument, SeccompCmpOp::Ne, number.cast_unsigned().into())).collect()
    };
    let mut refused = vec![rule::<Vec<_>>(other(0, &families))?];
    if !section.families.contains(&SocketFamily::Packet) {
        let kind = u64::from(SOCK_PACKET.cast_unsigned());
        refused.push(rule([condition(1, SeccompCmpOp::MaskedEq(SOCK_TYPE_MASK), kind)])?);
    }
    if !section.families.contains(&SocketFamily::Netlink) {
        let netlink = condition(0, SeccompCmpOp::Eq, u64::from(libc::AF_NETLINK.cast_unsigned()));
        refused.push(rule(std::iter::once(netlink).chain(other(2, &NETLINK)))?);
    }
    Ok(Rules::from([(libc::SYS_socket, refused.clone()), (libc::SYS_socketpair, refused)]))
}

/// A condition on an argument, of which the kernel looks at the lower half alone: all of these are ints, or flags of
/// which the upper half is refused or ignored.
fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

/// A rule that holds where all conditions do.
fn rule<C: IntoIterator<Item = Result<SeccompCondition, BackendError>>>(
    conditions: C,
) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)
}

fn compile(section: &ProcessSection, rules: Rules, error: libc::c_int) -> Result<BpfProgram, BackendError> {
    let refusal = SeccompAction::Errno(error.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, TargetArch::try_from(ARCH)?)?;
    let mut program: BpfProgram = filter.try_into()?;
    if !section.architectures.is_empty() {
        let kill = program.iter_mut().find(|instruction| instruction.k == libc::SECCOMP_RET_KILL_PROCESS);
        kill.expect("the filter begins with a look at the architecture").k = libc::SECCOMP_RET_ALLOW;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::{Architecture, KeptCapability};

    fn killing(section: &ProcessSection) -> usize {
        let filters = filters(section).expect("filters");
        filters.iter().flatten().filter(|instruction| instruction.k == libc::SECCOMP_RET_KILL_PROCESS).count()
    }

    #[test]
    fn every_filter_ends_a_process_of_another_architecture_unless_that_is_named() {
        assert_eq!(killing(&ProcessSection::default()), 3);
        let section = ProcessSection { architectures: vec![Architecture::X86], ..ProcessSection::default() };
        assert_eq!(killing(&section), 0);
    }

    #[test]
    fn what_is_allowed_by_name_is_in_no_filter() {
        let capabilities = vec![KeptCapability(caps::Capability::CAP_NET_ADMIN)];
        let section = ProcessSection { allow: Part::ALL.to_vec(), capabilities, ..ProcessSection::default() };
        assert!(not_implemented(&section).is_empty());
        assert_eq!(not_permitted(&section).expect("rules").len(), if has_x32() { 560 } else { 0 });
        assert!(not_implemented(&ProcessSection::default()).contains_key(&libc::SYS_clone3));
    }
    #[test]
    fn requests_are_refused_one_by_one() {
        let refused =
            |section: &ProcessSection| not_permitted(section).expect("rules").get(&libc::SYS_ioctl).map(Vec::len);
        let network = vec![KeptCapability(caps::Capability::CAP_NET_ADMIN)];
        let terminal = vec![Part::Terminal];
        assert_eq!(refused(&ProcessSection::default()), Some(TYPING.len() + PACKETS.len()));
        let section = ProcessSection { allow: terminal.clone(), ..ProcessSection::default() };
        assert_eq!(refused(&section), Some(PACKETS.len()));
        let section = ProcessSection { capabilities: network.clone(), ..ProcessSection::default() };
        assert_eq!(refused(&section), Some(TYPING.len()));
        let section = ProcessSection { allow: terminal, capabilities: network, ..ProcessSection::default() };
        assert_eq!(refused(&section), None);
    }
}
