//! The process section: the protections beside the rules, and which of them the policy disables.

use caps::Capability;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{error::did_you_mean, section::words};

/// The process section. Left out, it is the same as empty: everything is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSection {
    /// How much keeps the command inside.
    #[serde(default)]
    pub isolation: Isolation,
    /// The parts that the policy disables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Part>,
    /// The capabilities that the command keeps beside those that it keeps in any case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<KeptCapability>,
    /// The families of sockets that it may use beside those that it may use in any case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<SocketFamily>,
    /// The architectures beside the machine's own whose system calls it may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<Architecture>,
}

impl ProcessSection {
    /// Whether the policy disables this part.
    #[must_use]
    pub fn allows(&self, part: Part) -> bool {
        self.isolation == Isolation::CgroupOnly || self.allow.contains(&part)
    }

    /// Whether the command may configure the network, and so have packets go where no rule on the network is asked.
    #[must_use]
    pub fn configures_network(&self) -> bool {
        self.isolation == Isolation::CgroupOnly
            || self.capabilities.contains(&KeptCapability(Capability::CAP_NET_ADMIN))
    }

    /// What can't be meant.
    pub(super) fn check(&self) -> Result<(), String> {
        let named = !(self.allow.is_empty()
            && self.capabilities.is_empty()
            && self.families.is_empty()
            && self.architectures.is_empty());
        if self.isolation == Isolation::CgroupOnly && named {
            return Err("\"isolation\": \"cgroup-only\" already disables everything; \
                        leave out either it or what else is named here"
                .to_owned());
        }
        let others = [Part::Signals, Part::AbstractSockets];
        if self.allows(Part::Tracing) && !others.iter().all(|part| self.allows(*part)) {
            return Err("anybody who may trace processes outside can have them do anything: \
                        \"tracing\" can be allowed only together with \"signals\" and \"abstract-sockets\""
                .to_owned());
        }
        Ok(())
    }
}

/// The section, which says nothing contradictory.
pub(super) fn section<'de, D: Deserializer<'de>>(json: D) -> Result<ProcessSection, D::Error> {
    let section = ProcessSection::deserialize(json)?;
    section.check().map_err(de::Error::custom)?;
    Ok(section)
}

words! {
    /// How much keeps the command inside.
    #[derive(Default)]
    pub enum Isolation {
        /// All there is.
        #[default]
        Full = "full",
        /// The programs on the cgroup alone: no boundary, since a command can leave the cgroup. For finding errors.
        CgroupOnly = "cgroup-only",
    }
}

words! {
    /// What the command may not do, unless the policy names it.
    #[derive(PartialOrd, Ord)]
    pub enum Part {
        /// Gain privileges by executing set-uid programs and the like.
        Privileges = "privileges",
        /// Make or enter namespaces, and mount.
        Namespaces = "namespaces",
        /// bpf(2).
        Bpf = "bpf",
        /// `io_uring`, whose requests no filter of system calls sees.
        IoUring = "io_uring",
        /// The kernel's keyrings.
        Keys = "keys",
        /// Putting words into a terminal's input.
        Terminal = "terminal",
        /// Signals to processes outside.
        Signals = "signals",
        /// Abstract Unix sockets of processes outside.
        AbstractSockets = "abstract-sockets",
        /// Tracing and reading processes outside.
        Tracing = "tracing",
        /// System V shared memory and the like, and POSIX message queues, of processes outside.
        Ipc = "ipc",
        /// Writing files of /sys and those of /proc that are about the whole machine; debugfs, tracefs and bpffs.
        KernelFiles = "kernel-files",
        /// Writing the programs that the kernel starts by itself (modprobe, request-key, what takes core dumps), their
        /// configuration, and the modules of the running kernel.
        KernelHelpers = "kernel-helpers",
        /// Writing kernel tunables that no rule is about.
        Sysctls = "sysctls",
        /// Sockets of services that run commands for others.
        Delegation = "delegation",
        /// Making cgroups in its own, as a guard in a guard does.
        Cgroups = "cgroups",
        /// Sockets of the network's families as standard streams, for which no rule holds.
        InheritedSockets = "inherited-sockets",
    }
}

/// What the names of all capabilities begin with.
const PREFIX: &str = "CAP_";

/// A capability that the command keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeptCapability(pub Capability);

impl TryFrom<String> for KeptCapability {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            let mut known: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
            known.sort_unstable();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            // They are often written without it, as for containers.
            let whole = if text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX)) { "" } else { PREFIX };
            let hint = did_you_mean(&format!("{whole}{text}"), &known);
            format!("unknown capability \"{text}\"{hint} (known: those of capabilities(7))")
        })
    }
}

impl From<KeptCapability> for String {
    fn from(KeptCapability(capability): KeptCapability) -> Self {
        capability.to_string()
    }
}

words! {
    /// Families of sockets that can be named here (address_families(7)).
    #[derive(PartialOrd, Ord)]
    pub enum SocketFamily {
        /// Packets of a network device, past everything.
        Packet = "packet",
        /// The hypervisor, and other virtual machines.
        Vsock = "vsock",
        /// The kernel's cryptography.
        Alg = "alg",
        /// Bluetooth.
        Bluetooth = "bluetooth",
        /// Buses of vehicles and machines.
        Can = "can",
        /// Cluster interconnects.
        Tipc = "tipc",
        /// InfiniBand's reliable datagrams.
        Rds = "rds",
        /// TCP over RDMA.
        Smc = "smc",
        /// eXpress Data Path.
        Xdp = "xdp",
        /// Keys of IPsec.
        Key = "key",
        /// Netlink of every kind: without it only "route", "sock_diag", "kobject_uevent" and "generic".
        Netlink = "netlink",
    }
}

impl SocketFamily {
    /// The `AF_*` number.
    #[must_use]
    pub const fn number(self) -> libc::c_int {
        match self {
            Self::Packet => libc::AF_PACKET,
            Self::Vsock => libc::AF_VSOCK,
            Self::Alg => libc::AF_ALG,
            Self::Bluetooth => libc::AF_BLUETOOTH,
            Self::Can => libc::AF_CAN,
            Self::Tipc => libc::AF_TIPC,
            Self::Rds => libc::AF_RDS,
            // include/linux/socket.h; not in the libc crate.
            Self::Smc => 43,
            Self::Xdp => libc::AF_XDP,
            Self::Key => libc::AF_KEY,
            Self::Netlink => libc::AF_NETLINK,
        }
    }
}

words! {
    /// Architectures whose system calls a machine offers beside its own.
    #[derive(PartialOrd, Ord)]
    pub enum Architecture {
        /// 32-bit x86, on x86-64. No filter sees its system calls.
        X86 = "x86",
    }
}
