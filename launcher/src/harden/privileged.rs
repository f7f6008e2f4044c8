//! Calls for which the kernel asks for a capability that a root command doesn't keep: as far as users miss it.

use std::{fs, path::Path};

use caps::Capability::{
    self, CAP_MKNOD, CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_BOOT, CAP_SYS_MODULE,
    CAP_SYS_NICE, CAP_SYS_PACCT, CAP_SYS_PTRACE, CAP_SYS_TIME, CAP_SYS_TTY_CONFIG, CAP_SYSLOG, CAP_WAKE_ALARM,
};
use nix::errno::Errno;
use policy::ProcessSection;

use super::{
    call::{Is, Look, Rule, What, Word, Words},
    capability,
};

/// Calls that take a capability whatever their arguments: by number, by name, and which capabilities will do.
const ALWAYS: [(libc::c_long, &str, &[Capability]); 12] = [
    (libc::SYS_sethostname, "sethostname", &[CAP_SYS_ADMIN]),
    (libc::SYS_setdomainname, "setdomainname", &[CAP_SYS_ADMIN]),
    (libc::SYS_swapon, "swapon", &[CAP_SYS_ADMIN]),
    (libc::SYS_swapoff, "swapoff", &[CAP_SYS_ADMIN]),
    (libc::SYS_settimeofday, "settimeofday", &[CAP_SYS_TIME]),
    (libc::SYS_clock_settime, "clock_settime", &[CAP_SYS_TIME]),
    (libc::SYS_reboot, "reboot", &[CAP_SYS_BOOT]),
    (libc::SYS_init_module, "init_module", &[CAP_SYS_MODULE]),
    (libc::SYS_finit_module, "finit_module", &[CAP_SYS_MODULE]),
    (libc::SYS_delete_module, "delete_module", &[CAP_SYS_MODULE]),
    (libc::SYS_acct, "acct", &[CAP_SYS_PACCT]),
    (libc::SYS_vhangup, "vhangup", &[CAP_SYS_TTY_CONFIG]),
];

/// Setting or removing an attribute of a file.
const ATTRIBUTES: [(libc::c_long, &str); 6] = [
    (libc::SYS_setxattr, "setxattr"),
    (libc::SYS_lsetxattr, "lsetxattr"),
    (libc::SYS_fsetxattr, "fsetxattr"),
    (libc::SYS_removexattr, "removexattr"),
    (libc::SYS_lremovexattr, "lremovexattr"),
    (libc::SYS_fremovexattr, "fremovexattr"),
];

/// How attributes begin that are for root alone (`xattr_permission`, fs/xattr.c).
const TRUSTED: u64 = u64::from_ne_bytes(*b"trusted.");

/// What a socket can be told by a process with a capability alone (`sk_setsockopt`, net/core/sock.c): options of the level `SOL_SOCKET`.
pub(super) const OPTIONS: [(libc::c_int, &str, &[Capability]); 3] = [
    (libc::SO_MARK, "SO_MARK", &[CAP_NET_RAW, CAP_NET_ADMIN]),
    (libc::SO_SNDBUFFORCE, "SO_SNDBUFFORCE", &[CAP_NET_ADMIN]),
    (libc::SO_RCVBUFFORCE, "SO_RCVBUFFORCE", &[CAP_NET_ADMIN]),
];

/// Groups of fanotify(7) that no ordinary user may make (`FANOTIFY_ADMIN_INIT_FLAGS`, include/linux/fanotify.h): these of those bits.
const WATCHING: [(u32, u32); 7] = [
    // Events that have descriptors, and no identifiers of files.
    (libc::FAN_REPORT_FID | libc::FAN_REPORT_DIR_FID | libc::FAN_REPORT_NAME | libc::FAN_REPORT_TARGET_FID, 0),
    (CLASSES, libc::FAN_CLASS_CONTENT),
    (CLASSES, libc::FAN_CLASS_PRE_CONTENT),
    (libc::FAN_UNLIMITED_QUEUE, libc::FAN_UNLIMITED_QUEUE),
    (libc::FAN_UNLIMITED_MARKS, libc::FAN_UNLIMITED_MARKS),
    (libc::FAN_REPORT_PIDFD, libc::FAN_REPORT_PIDFD),
    (libc::FAN_REPORT_TID, libc::FAN_REPORT_TID),
];

/// The bits by which fanotify(7) has classes of groups (`FANOTIFY_CLASS_BITS`, include/linux/fanotify.h).
const CLASSES: u32 = libc::FAN_CLASS_CONTENT | libc::FAN_CLASS_PRE_CONTENT;

/// Calls of the kernel's log that the kernel lets everybody make unless kernel.dmesg_restrict is set: `SYSLOG_ACTION_READ_ALL` and
/// `SYSLOG_ACTION_SIZE_BUFFER` (include/linux/syslog.h).
const READING: [u32; 2] = [3, 10];

/// The bits of an I/O priority that are its class, and the real-time one (include/uapi/linux/ioprio.h).
const IO_CLASS: (u32, u32) = (7 << 13, 1 << 13);

/// The modes of adjtimex(2) that change nothing: none, and `ADJ_OFFSET_SS_READ` (include/uapi/linux/timex.h).
const ASKING: [u64; 2] = [0, 0xa001];

/// `UFFD_USER_MODE_ONLY` (include/uapi/linux/userfaultfd.h).
const USER_MODE_ONLY: u32 = 1;

/// What is to be looked at, under a policy that keeps no more than it names.
pub(super) fn rules(section: &ProcessSection) -> Vec<Rule> {
    let is_wanting =
        |rule: &Rule| !rule.what.takes().iter().any(|capability| capability::is_kept(section, *capability));
    let all = [always(), of_processes(), of_memory(), of_clocks(), of_files(), of_sockets(), of_kernel(), of_events()];
    all.into_iter().flatten().filter(is_wanting).collect()
}

/// A call that fails with `EPERM` for want of one of these capabilities.
fn takes(number: libc::c_long, name: &'static str, capabilities: &'static [Capability]) -> Rule {
    Rule::new(number, name, What::Look(Look::Capability(capabilities, Errno::EPERM)))
}

fn always() -> Vec<Rule> {
    ALWAYS.map(|(number, name, capabilities)| takes(number, name, capabilities)).into()
}

fn of_processes() -> Vec<Rule> {
    let mut rules = vec![
        Rule::new(libc::SYS_setpriority, "setpriority", What::Look(Look::Nice)).when(0, Is::Eq(0)),
        takes(libc::SYS_ioprio_set, "ioprio_set", &[CAP_SYS_NICE, CAP_SYS_ADMIN])
            .when(2, Is::Masked(IO_CLASS.0, IO_CLASS.1)),
        // The policy is the second int of the structure (include/uapi/linux/sched/types.h).
        takes(libc::SYS_sched_setattr, "sched_setattr", &[CAP_SYS_NICE]).reading(Word {
            argument: 1,
            offset: 4,
            mask: u32::MAX.into(),
            is: Words::Of(&[1, 2, 6]),
        }),
    ];
    for policy in [libc::SCHED_FIFO, libc::SCHED_RR] {
        let real_time = takes(libc::SYS_sched_setscheduler, "sched_setscheduler", &[CAP_SYS_NICE]);
        rules.push(real_time.when(1, Is::Masked(7, policy.cast_unsigned())));
    }
    rules
}

fn of_memory() -> Vec<Rule> {
    let lock = |number, name, length| Rule::new(number, name, What::Look(Look::Lock(length)));
    let current = libc::MCL_CURRENT.cast_unsigned();
    let mut rules = vec![
        lock(libc::SYS_mlock, "mlock", Some(1)),
        lock(libc::SYS_mlock2, "mlock2", Some(1)),
        lock(libc::SYS_mlockall, "mlockall", None).when(0, Is::Masked(current, current)),
    ];
    if tunable("vm/unprivileged_userfaultfd") == Some(0) {
        let faults = takes(libc::SYS_userfaultfd, "userfaultfd", &[CAP_SYS_PTRACE]);
        rules.push(faults.when(0, Is::Masked(USER_MODE_ONLY, 0)));
    }
    rules
}

fn of_clocks() -> Vec<Rule> {
    let modes = |argument| Word { argument, offset: 0, mask: u32::MAX.into(), is: Words::Not(&ASKING) };
    let alarms = [libc::CLOCK_REALTIME_ALARM, libc::CLOCK_BOOTTIME_ALARM].map(|clock| {
        takes(libc::SYS_timerfd_create, "timerfd_create", &[CAP_WAKE_ALARM]).when(0, Is::Eq(clock.cast_unsigned()))
    });
    let adjusting = [
        takes(libc::SYS_adjtimex, "adjtimex", &[CAP_SYS_TIME]).reading(modes(0)),
        takes(libc::SYS_clock_adjtime, "clock_adjtime", &[CAP_SYS_TIME]).reading(modes(1)),
    ];
    alarms.into_iter().chain(adjusting).collect()
}

fn of_files() -> Vec<Rule> {
    let device = |rule: Rule, mode, kind: libc::mode_t| rule.when(mode, Is::Masked(libc::S_IFMT, kind));
    let mut rules = Vec::new();
    for kind in [libc::S_IFCHR, libc::S_IFBLK] {
        #[cfg(target_arch = "x86_64")]
        rules.push(device(takes(libc::SYS_mknod, "mknod", &[CAP_MKNOD]), 1, kind));
        rules.push(device(takes(libc::SYS_mknodat, "mknodat", &[CAP_MKNOD]), 2, kind));
    }
    let name = Word { argument: 1, offset: 0, mask: u64::MAX, is: Words::Of(&[TRUSTED]) };
    rules.extend(ATTRIBUTES.map(|(number, call)| takes(number, call, &[CAP_SYS_ADMIN]).reading(name)));
    rules
}

fn of_sockets() -> Vec<Rule> {
    let mut rules = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let raw = takes(libc::SYS_socket, "socket", &[CAP_NET_RAW]).when(0, Is::Eq(family.cast_unsigned()));
        rules.push(raw.when(1, Is::Masked(0xf, libc::SOCK_RAW.cast_unsigned())));
    }
    rules.extend(OPTIONS.map(|(option, _, capabilities)| {
        let setting = takes(libc::SYS_setsockopt, "setsockopt", capabilities);
        setting.when(1, Is::Eq(libc::SOL_SOCKET.cast_unsigned())).when(2, Is::Eq(option.cast_unsigned()))
    }));
    rules
}

fn of_kernel() -> Vec<Rule> {
    let log = takes(libc::SYS_syslog, "syslog", &[CAP_SYSLOG]);
    let log = READING.iter().filter(|_| !restricts_log()).fold(log, |rule, action| rule.when(0, Is::Ne(*action)));
    #[allow(unused_mut, reason = "the ports are x86's")]
    let mut rules = vec![log];
    #[cfg(target_arch = "x86_64")]
    rules.extend(
        [(libc::SYS_iopl, "iopl"), (libc::SYS_ioperm, "ioperm")]
            .map(|(number, name)| takes(number, name, &[Capability::CAP_SYS_RAWIO])),
    );
    rules
}

/// Watching the kernel's events: files that are accessed, and what perf(1) counts.
fn of_events() -> Vec<Rule> {
    let files = WATCHING.map(|(mask, bits)| {
        takes(libc::SYS_fanotify_init, "fanotify_init", &[CAP_SYS_ADMIN]).when(0, Is::Masked(mask, bits))
    });
    let counts = || {
        let look = Look::Capability(&[CAP_PERFMON, CAP_SYS_ADMIN], Errno::EACCES);
        Rule::new(libc::SYS_perf_event_open, "perf_event_open", What::Look(look))
    };
    // exclude_kernel, among the flags of the structure (include/uapi/linux/perf_event.h).
    let of_kernel = || counts().reading(Word { argument: 0, offset: 40, mask: 1 << 5, is: Words::Of(&[0]) });
    let of_all = || counts().when(1, Is::Eq(u32::MAX));
    let counts = match tunable("kernel/perf_event_paranoid").unwrap_or(2) {
        ..1 => vec![],
        1 => vec![of_all()],
        2 => vec![of_all(), of_kernel()],
        // Only kernels of distributions know more than two.
        3.. => vec![counts()],
    };
    files.into_iter().chain(counts).collect()
}

/// Whether the kernel keeps its log from those who lack `CAP_SYSLOG`.
pub(crate) fn restricts_log() -> bool {
    tunable("kernel/dmesg_restrict") != Some(0)
}

/// What a tunable of the kernel's is at the start. `None` where there is none, or it is no number.
fn tunable(name: &str) -> Option<i32> {
    fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use caps::Capability::CAP_IPC_LOCK;
    use policy::KeptCapability;

    use super::*;

    #[test]
    fn nothing_is_looked_at_for_want_of_what_is_kept() {
        let number = |capabilities: &[Capability], number| {
            let capabilities = capabilities.iter().copied().map(KeptCapability).collect();
            let section = ProcessSection { capabilities, ..ProcessSection::default() };
            rules(&section).iter().filter(|rule| rule.number == number).count()
        };
        assert_eq!(number(&[], libc::SYS_setsockopt), 3);
        // Either of two will do.
        assert_eq!(number(&[CAP_NET_RAW], libc::SYS_setsockopt), 2);
        assert_eq!(number(&[CAP_NET_ADMIN], libc::SYS_setsockopt), 0);
        assert_eq!(number(&[CAP_SYS_ADMIN], libc::SYS_ioprio_set), 0);
        assert_eq!((number(&[], libc::SYS_mlock), number(&[CAP_IPC_LOCK], libc::SYS_mlock)), (1, 0));
        assert_eq!((number(&[], libc::SYS_setpriority), number(&[CAP_SYS_NICE], libc::SYS_setpriority)), (1, 0));
    }
}
