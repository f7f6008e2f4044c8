//! Calls for which the kernel asks for a capability that a root command doesn't keep: as far as users miss it.

use std::{fs, path::Path};

use caps::Capability::{
    self, CAP_LINUX_IMMUTABLE, CAP_MKNOD, CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_BOOT,
    CAP_SYS_MODULE, CAP_SYS_NICE, CAP_SYS_PACCT, CAP_SYS_PTRACE, CAP_SYS_RESOURCE, CAP_SYS_TIME, CAP_SYS_TTY_CONFIG,
    CAP_SYSLOG, CAP_WAKE_ALARM,
};
use nix::errno::Errno;
use policy::ProcessSection;

use super::{
    call::{Is, Look, Rule, What, Whom, Word, Words},
    capability,
};

/// Calls that take a capability whatever their arguments: by number, by name, and which capabilities will do.
const ALWAYS: [(libc::c_long, &str, &[Capability]); 14] = [
    (libc::SYS_sethostname, "sethostname", &[CAP_SYS_ADMIN]),
    (libc::SYS_setdomainname, "setdomainname", &[CAP_SYS_ADMIN]),
    (libc::SYS_swapon, "swapon", &[CAP_SYS_ADMIN]),
    (libc::SYS_swapoff, "swapoff", &[CAP_SYS_ADMIN]),
    (libc::SYS_settimeofday, "settimeofday", &[CAP_SYS_TIME]),
    (libc::SYS_clock_settime, "clock_settime", &[CAP_SYS_TIME]),
    (libc::SYS_reboot, "reboot", &[CAP_SYS_BOOT]),
    (libc::SYS_kexec_load, "kexec_load", &[CAP_SYS_BOOT]),
    (libc::SYS_kexec_file_load, "kexec_file_load", &[CAP_SYS_BOOT]),
    (libc::SYS_init_module, "init_module", &[CAP_SYS_MODULE]),
    (libc::SYS_finit_module, "finit_module", &[CAP_SYS_MODULE]),
    (libc::SYS_delete_module, "delete_module", &[CAP_SYS_MODULE]),
    (libc::SYS_acct, "acct", &[CAP_SYS_PACCT]),
    (libc::SYS_vhangup, "vhangup", &[CAP_SYS_TTY_CONFIG]),
];

/// Calls that change how a process is scheduled, which is their first argument, and may be another user's.
const SCHEDULING: [(libc::c_long, &str); 4] = [
    (libc::SYS_sched_setscheduler, "sched_setscheduler"),
    (libc::SYS_sched_setparam, "sched_setparam"),
    (libc::SYS_sched_setattr, "sched_setattr"),
    (libc::SYS_sched_setaffinity, "sched_setaffinity"),
];

/// Requests by which ifconfig(8), route(8), arp(8) and brctl(8) change the network (include/uapi/linux/sockios.h).
const NETWORK: [u32; 26] = [
    0x890b, // SIOCADDRT
    0x890c, // SIOCDELRT
    0x8914, // SIOCSIFFLAGS
    0x8916, // SIOCSIFADDR
    0x8918, // SIOCSIFDSTADDR
    0x891a, // SIOCSIFBRDADDR
    0x891c, // SIOCSIFNETMASK
    0x891e, // SIOCSIFMETRIC
    0x8922, // SIOCSIFMTU
    0x8923, // SIOCSIFNAME
    0x8924, // SIOCSIFHWADDR
    0x8931, // SIOCADDMULTI
    0x8932, // SIOCDELMULTI
    0x8934, // SIOCSIFPFLAGS
    0x8936, // SIOCDIFADDR
    0x8937, // SIOCSIFHWBROADCAST
    0x8943, // SIOCSIFTXQLEN
    0x8953, // SIOCDARP
    0x8955, // SIOCSARP
    0x8971, // SIOCSIFMAP
    0x89a0, // SIOCBRADDBR
    0x89a1, // SIOCBRDELBR
    0x89a2, // SIOCBRADDIF
    0x89a3, // SIOCBRDELIF
    0x89f1, // SIOCADDTUNNEL
    0x89f2, // SIOCDELTUNNEL
];

/// `FS_IOC_SETFLAGS`, and those of its flags that keep files from being changed (include/uapi/linux/fs.h): append only, and immutable.
const KEEPING: (u32, u64) = (0x4008_6602, 0x30);

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

/// Options of which only these values take no capability: their level and number.
const VALUES: [(libc::c_int, libc::c_int, &[u64]); 3] = [
    (libc::SOL_SOCKET, libc::SO_PRIORITY, &[0, 1, 2, 3, 4, 5, 6]),
    (libc::IPPROTO_IP, libc::IP_TRANSPARENT, &[0]),
    (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, &[0]),
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
    rules_where(section, capability::can_be_had)
}

/// What is to be looked at where root can have these capabilities. What takes others is refused without the guard, too.
fn rules_where(section: &ProcessSection, can_be_had: impl Fn(Capability) -> bool) -> Vec<Rule> {
    let is_wanting = |rule: &Rule| {
        let takes = rule.what.takes();
        takes.iter().any(|capability| can_be_had(*capability))
            && !takes.iter().any(|capability| capability::is_kept(section, *capability))
    };
    let all = [
        always(),
        of_processes(),
        of_limits(),
        of_memory(),
        of_clocks(),
        of_files(),
        of_sockets(),
        of_devices(),
        of_kernel(),
        of_events(),
    ];
    all.into_iter().flatten().filter(is_wanting).collect()
}

/// A call that fails with `EPERM` for want of one of these capabilities.
fn takes(number: libc::c_long, name: &'static str, capabilities: &'static [Capability]) -> Rule {
    Rule::new(number, name, What::Look(Look::Capability(capabilities, Errno::EPERM)))
}

fn always() -> Vec<Rule> {
    ALWAYS.map(|(number, name, capabilities)| takes(number, name, capabilities)).into()
}

/// Changing how processes are scheduled that may be another user's.
fn schedules(number: libc::c_long, name: &'static str, whom: Whom) -> Rule {
    Rule::new(number, name, What::Look(Look::Scheduling(whom)))
}

fn of_processes() -> Vec<Rule> {
    // PRIO_PROCESS, PRIO_PGRP and PRIO_USER (include/uapi/linux/resource.h).
    let prefers = |which, whom| {
        Rule::new(libc::SYS_setpriority, "setpriority", What::Look(Look::Nice(whom))).when(0, Is::Eq(which))
    };
    let mut rules = vec![
        prefers(0, Whom::Number(1)),
        prefers(1, Whom::Group(1)),
        prefers(2, Whom::User(1)),
        // IOPRIO_WHO_PROCESS, _PGRP and _USER (include/linux/ioprio.h).
        schedules(libc::SYS_ioprio_set, "ioprio_set", Whom::Number(1)).when(0, Is::Eq(1)),
        schedules(libc::SYS_ioprio_set, "ioprio_set", Whom::Group(1)).when(0, Is::Eq(2)),
        schedules(libc::SYS_ioprio_set, "ioprio_set", Whom::User(1)).when(0, Is::Eq(3)),
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
    rules.extend(SCHEDULING.map(|(number, name)| schedules(number, name, Whom::Number(0)).when(0, Is::Ne(0))));
    rules
}

/// How much is left of what processes may have at the most.
fn of_limits() -> Vec<Rule> {
    let raise = |number, name, resource| Rule::new(number, name, What::Look(Look::HardLimit(resource)));
    let mut rules = vec![
        raise(libc::SYS_setrlimit, "setrlimit", 0),
        raise(libc::SYS_prlimit64, "prlimit64", 1).when(0, Is::Eq(0)).when(2, Is::Pointer),
    ];
    if let Some(most) = tunable("fs/pipe-max-size") {
        let pipe = takes(libc::SYS_fcntl, "fcntl", &[CAP_SYS_RESOURCE]);
        rules.push(pipe.when(1, Is::Eq(libc::F_SETPIPE_SZ.cast_unsigned())).when(2, Is::Gt(most.cast_unsigned())));
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
    rules.extend(VALUES.map(|(level, option, fine)| {
        let setting = takes(libc::SYS_setsockopt, "setsockopt", &[CAP_NET_RAW, CAP_NET_ADMIN]);
        let setting = setting.when(1, Is::Eq(level.cast_unsigned())).when(2, Is::Eq(option.cast_unsigned()));
        setting.reading(Word { argument: 3, offset: 0, mask: u32::MAX.into(), is: Words::Not(fine) })
    }));
    rules
}

fn of_devices() -> Vec<Rule> {
    let request = |capabilities, number| takes(libc::SYS_ioctl, "ioctl", capabilities).when(1, Is::Eq(number));
    let (keep, flags) = KEEPING;
    let keeping = request(&[CAP_LINUX_IMMUTABLE], keep);
    let mut rules = vec![keeping.reading(Word { argument: 2, offset: 0, mask: flags, is: Words::Not(&[0]) })];
    rules.extend(NETWORK.map(|number| request(&[CAP_NET_ADMIN], number)));
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
            rules_where(&section, |_| true).iter().filter(|rule| rule.number == number).count()
        };
        assert_eq!(number(&[], libc::SYS_setsockopt), 6);
        // Either of two will do.
        assert_eq!(number(&[CAP_NET_RAW], libc::SYS_setsockopt), 2);
        assert_eq!(number(&[CAP_NET_ADMIN], libc::SYS_setsockopt), 0);
        // The real-time class takes either of two, and processes of others one of these.
        assert_eq!((number(&[], libc::SYS_ioprio_set), number(&[CAP_SYS_ADMIN], libc::SYS_ioprio_set)), (4, 3));
        assert_eq!(number(&[CAP_SYS_NICE], libc::SYS_ioprio_set), 0);
        assert_eq!((number(&[], libc::SYS_mlock), number(&[CAP_IPC_LOCK], libc::SYS_mlock)), (1, 0));
        assert_eq!((number(&[], libc::SYS_setpriority), number(&[CAP_SYS_NICE], libc::SYS_setpriority)), (3, 0));
    }

    #[test]
    fn nothing_is_looked_at_for_want_of_what_nobody_has() {
        let section = ProcessSection::default();
        let lacking = rules_where(&section, |capability| capability != CAP_SYS_RESOURCE);
        assert!(!lacking.iter().any(|rule| rule.number == libc::SYS_prlimit64));
        assert!(rules_where(&section, |_| true).iter().any(|rule| rule.number == libc::SYS_prlimit64));
        assert_eq!(rules_where(&section, |_| false), []);
    }
}
