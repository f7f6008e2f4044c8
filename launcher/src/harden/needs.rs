//! What a policy allows, and what its command can't do all the same, since the kernel asks for a capability that a root command doesn't
//! keep, or for another part.

use std::collections::BTreeMap;

use caps::Capability::{
    self, CAP_BPF, CAP_CHECKPOINT_RESTORE, CAP_MKNOD, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN, CAP_SYS_MODULE,
    CAP_SYS_PTRACE, CAP_SYS_RAWIO, CAP_SYSLOG,
};
use common::{
    device::{self, access},
    socket::protocol,
    sockopt, sysctl,
};
use policy::{
    Action, DeviceRule, Glob, Isolation, Part, Policy, ProcessSection, Rule, Section, SocketFamily, SocketPattern,
    SocketRule, SocketType, SockoptRule, SysctlRule, UnixRule,
};

use super::{capability, privileged};

/// Parts of the process section that take a capability: what for.
const PARTS: [(Part, &str, Capability); 4] = [
    (
        Part::Namespaces,
        "make namespaces and mount outside of a user namespace of its own (bwrap as root does)",
        CAP_SYS_ADMIN,
    ),
    (Part::Bpf, "use bpf(2)", CAP_BPF),
    (Part::Tracing, "trace processes of root's", CAP_SYS_PTRACE),
    (
        Part::Terminal,
        "put words into a terminal that is not its own, or where dev.tty.legacy_tiocsti is 0",
        CAP_SYS_ADMIN,
    ),
];

/// Families whose sockets take a capability to make.
const FAMILIES: [(SocketFamily, &str, Capability); 3] = [
    (SocketFamily::Packet, "make packet sockets", CAP_NET_RAW),
    (SocketFamily::Xdp, "make XDP sockets", CAP_NET_RAW),
    (SocketFamily::Key, "make sockets for IPsec's keys", CAP_NET_ADMIN),
];

/// Character devices that take more than the right to open them: minor and major number, the accesses that do, what they are for, and what
/// that takes.
const ASKING: [(u32, u32, u32, &str, Capability); 4] = [
    (1, 1, access::ALL, "use the machine's memory (/dev/mem)", CAP_SYS_RAWIO),
    (4, 1, access::ALL, "use its ports (/dev/port)", CAP_SYS_RAWIO),
    (11, 1, access::READ, "read the kernel's log where kernel.dmesg_restrict is set (/dev/kmsg)", CAP_SYSLOG),
    (200, 10, access::ALL, "make network devices (/dev/net/tun)", CAP_NET_ADMIN),
];

/// Tunables of which the kernel asks for more than the rights of their files when they are written. `*` is a network device.
const TUNABLES: [(&str, Capability); 19] = [
    ("net/ipv4/ip_forward", CAP_NET_ADMIN),
    ("net/ipv4/conf/*/forwarding", CAP_NET_ADMIN),
    ("net/core/default_qdisc", CAP_NET_ADMIN),
    ("net/core/bpf_jit_enable", CAP_SYS_ADMIN),
    ("net/core/bpf_jit_harden", CAP_SYS_ADMIN),
    ("net/core/bpf_jit_kallsyms", CAP_SYS_ADMIN),
    ("net/core/bpf_jit_limit", CAP_SYS_ADMIN),
    ("kernel/bpf_stats_enabled", CAP_SYS_ADMIN),
    ("kernel/dmesg_restrict", CAP_SYS_ADMIN),
    ("kernel/kptr_restrict", CAP_SYS_ADMIN),
    ("kernel/ns_last_pid", CAP_CHECKPOINT_RESTORE),
    ("kernel/numa_balancing", CAP_SYS_ADMIN),
    ("kernel/seccomp/actions_logged", CAP_SYS_ADMIN),
    ("kernel/tainted", CAP_SYS_ADMIN),
    ("kernel/task_delayacct", CAP_SYS_ADMIN),
    ("kernel/unprivileged_bpf_disabled", CAP_SYS_ADMIN),
    ("kernel/usermodehelper/bset", CAP_SYS_MODULE),
    ("kernel/usermodehelper/inheritable", CAP_SYS_MODULE),
    ("vm/mmap_min_addr", CAP_SYS_RAWIO),
];

/// What is allowed in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// The place in the policy that allows it.
    pub place: String,
    /// The capability without which a root command can't do it, if it is one that is wanting.
    pub capability: Option<Capability>,
    /// For people: what is allowed in vain, and what to add.
    pub note: String,
}

/// What a policy allows in vain.
#[must_use]
pub fn unmet(policy: &Policy) -> Vec<Unmet> {
    if policy.process.isolation == Isolation::CgroupOnly {
        return Vec::new();
    }
    let mut notes = Notes { section: &policy.process, unmet: Vec::new() };
    notes.process();
    allowing(policy.devices.as_ref()).for_each(|(place, rule)| notes.device(place, rule));
    allowing(policy.sockets.as_ref()).for_each(|(place, rule)| notes.socket(place, rule));
    allowing(policy.sysctls.as_ref()).for_each(|(place, rule)| notes.sysctl(place, rule));
    allowing(policy.sockopts.as_ref()).for_each(|(place, rule)| notes.sockopt(place, rule));
    if notes.section.allows(Part::Delegation) && super::has_names(policy) {
        let says = "lets systemd-resolved, nscd and avahi be asked for any name; of what they answer, nothing is learnt for the rules on host names";
        notes.add("/process/allow".to_owned(), says);
    }
    allowing(policy.unix.as_ref()).for_each(|(place, rule)| notes.unix(place, rule));
    notes.unmet
}

/// The rules of a section that allow something, and the places where they stand in it.
fn allowing<R: Rule>(section: Option<&Section<R>>) -> impl Iterator<Item = (usize, &R)> {
    let rules = section.into_iter().flat_map(|section| section.rules.iter().enumerate());
    rules.filter(|(_, rule)| rule.action() == Action::Allow)
}

/// What is noted about a policy with this section.
struct Notes<'a> {
    section: &'a ProcessSection,
    unmet: Vec<Unmet>,
}

impl Notes<'_> {
    /// Notes what is allowed at a place and takes one of these capabilities, of which the first is named.
    fn needs(&mut self, place: &str, what: &str, capabilities: &[Capability]) {
        let is_kept = capabilities.iter().any(|capability| capability::is_kept(self.section, *capability));
        if let Some(capability) = capabilities.first().filter(|_| !is_kept) {
            let note = format!(
                "{place} allows to {what}, which takes {capability}; for a command of root's, add it: \
                 \"process\": {{\"capabilities\": [\"{capability}\"]}}"
            );
            self.unmet.push(Unmet { place: place.to_owned(), capability: Some(*capability), note });
        }
    }

    /// Notes what a place says that takes no capability.
    fn add(&mut self, place: String, says: &str) {
        let note = format!("{place} {says}");
        self.unmet.push(Unmet { place, capability: None, note });
    }

    fn process(&mut self) {
        let section = self.section;
        for (_, what, capability) in PARTS.iter().filter(|(part, ..)| section.allow.contains(part)) {
            self.needs("/process/allow", what, &[*capability]);
        }
        for (_, what, capability) in FAMILIES.iter().filter(|(family, ..)| section.families.contains(family)) {
            self.needs("/process/families", what, &[*capability]);
        }
    }

    fn device(&mut self, index: usize, rule: &DeviceRule) {
        let (place, bits) = (format!("/devices/rules/{index}"), rule.access.bits());
        // All accesses are what a rule is about that says nothing of them: nobody has asked for nodes.
        if bits & access::MKNOD != 0 && rule.names_access {
            self.needs(&place, "make device nodes", &[CAP_MKNOD]);
        }
        let node = (rule.kind.only(), rule.major, rule.minor);
        for (minor, major, asking, what, capability) in ASKING {
            if node == (Some(device::Type::Char), Some(major), Some(minor)) && bits & asking != 0 {
                self.needs(&place, what, &[capability]);
            }
        }
    }

    fn socket(&mut self, index: usize, rule: &SocketRule) {
        let whole_packets = rule.protocol.is_some_and(|named| named.number() == protocol::RAW);
        if rule.kind == Some(SocketType::Raw) || rule.kind.is_none() && whole_packets {
            self.needs(&format!("/sockets/rules/{index}"), "make raw sockets", &[CAP_NET_RAW]);
        }
    }

    fn sysctl(&mut self, index: usize, rule: &SysctlRule) {
        if !rule.access.includes(sysctl::Access::WRITE) {
            return;
        }
        let mut tunables = BTreeMap::<u8, (Capability, Vec<&str>)>::new();
        for (tunable, capability) in TUNABLES {
            if rule.names.iter().flatten().any(|pattern| names(pattern.glob(), tunable)) {
                tunables.entry(capability.index()).or_insert((capability, Vec::new())).1.push(tunable);
            }
        }
        for (capability, tunables) in tunables.into_values() {
            self.needs(&format!("/sysctls/rules/{index}"), &format!("write {}", tunables.join(", ")), &[capability]);
        }
    }

    fn sockopt(&mut self, index: usize, rule: &SockoptRule) {
        if rule.level() != Some(libc::SOL_SOCKET) || rule.accesses() & sockopt::access::SET == 0 {
            return;
        }
        for (option, name, capabilities) in privileged::OPTIONS {
            if rule.option() == Some(option) {
                self.needs(&format!("/sockopts/rules/{index}"), &format!("set {name}"), capabilities);
            }
        }
    }

    fn unix(&mut self, index: usize, rule: &UnixRule) {
        let is_abstract =
            |pattern: &SocketPattern| matches!(pattern, SocketPattern::Named(glob) if glob.as_str().starts_with('@'));
        if rule.paths.iter().flatten().any(is_abstract) && !self.section.allows(Part::AbstractSockets) {
            let says = "allows abstract sockets, of which the command reaches none but its own; for those of others, add it: \
                        \"process\": {\"allow\": [\"abstract-sockets\"]}";
            self.add(format!("/unix/rules/{index}"), says);
        }
    }
}

/// Whether a rule's name is about a tunable more than about all that there are in a folder.
fn names(glob: &Glob, tunable: &str) -> bool {
    let text = glob.as_str();
    let is_named = text.rsplit('/').next().is_some_and(|last| !last.chars().all(|c| "*?".contains(c)));
    let is_of_device = |(start, end): (&str, &str)| text.starts_with(start) && text.ends_with(end);
    is_named
        && (tunable.split_once('*').is_some_and(is_of_device) || glob.matches(tunable.replace('*', "all").as_bytes()))
}
