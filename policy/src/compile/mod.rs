//! From a policy to the tables that `decide()` looks things up in: the very tables that go into the kernel. Pure.

mod automaton;
mod device;
mod host;
mod name;
mod net;
mod socket;
mod sockopt;
mod sysctl;
mod unix;

use common::{
    ABI_VERSION, Config,
    net::Op,
    record::{Hook, Kind, Unreported},
};

/// The number that stands for a rule where something is allowed because rules have host names: what resolvers do. It is no number that the
/// kernel's side gives.
pub const IMPLIED: u16 = 0xfe00;

pub use automaton::MAX_STATES;
pub use device::DeviceTables;
pub use host::{FoundBy, Hosts};
pub use name::{NamePrefix, NameTables};
pub use net::{ByName, NetTables};
pub use socket::SocketTables;
pub use sockopt::SockoptTables;
pub use sysctl::SysctlTables;
pub use unix::{OwnAlone, UnixTables};

use crate::{Mode, Part, Recording, Resolved};

/// A compiled policy.
#[derive(Debug)]
pub struct Tables {
    /// What every program must know.
    pub config: Config,
    /// The network section, if there is one.
    pub network: Option<NetTables>,
    /// The unix section, if there is one.
    pub unix: Option<UnixTables>,
    /// The devices section, if there is one.
    pub devices: Option<DeviceTables>,
    /// The sysctls section, if there is one.
    pub sysctls: Option<SysctlTables>,
    /// The sockets section, if there is one or the network section asks for one.
    pub sockets: Option<SocketTables>,
    /// The sockopts section, if there is one or the network section asks for one.
    pub sockopts: Option<SockoptTables>,
    /// The rules whose denials are counted, and not recorded.
    pub unreported: Unreported,
    /// Whether what is reached is recorded, too.
    pub flows: bool,
}

/// Why a valid policy can't be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Too many names with wildcards that overlap.
    #[error(
        "/sysctls/rules: it would take more than {MAX_STATES} states to tell these names apart; \
         use fewer names with wildcards, or fewer wildcards in the middle of them"
    )]
    TooManyNames,
    /// Too many paths.
    #[error(
        "/unix/rules: it would take more than {MAX_STATES} states to tell these paths apart; \
         use fewer paths, or fewer wildcards in the middle of them"
    )]
    TooManyPaths,
    /// Nobody can be asked for names.
    #[error(
        "/network/rules: there are host names, but nobody to ask for them: write \"nameservers\" into the network section, \
         or a nameserver into /etc/resolv.conf"
    )]
    NoNameservers,
}

impl Tables {
    /// Compiles a policy, of which all that names depend on is in itself.
    ///
    /// # Errors
    ///
    /// When the rules need larger tables than the kernel side can have, or there is no nameserver for names in them.
    pub fn compile(policy: &Resolved) -> Result<Self, CompileError> {
        let flows = policy.record == Recording::Flows;
        let network =
            policy.network.as_ref().map(|section| NetTables::compile(section, policy.surroundings())).transpose()?;
        let sockets = SocketTables::compile(policy.sockets.as_ref(), network.as_ref(), flows);
        let sockopts = SockoptTables::compile(policy.sockopts.as_ref(), network.as_ref(), sockets.as_ref());
        Ok(Self {
            config: Config { abi: ABI_VERSION, audit: u32::from(policy.mode == Mode::Audit) },
            network,
            unix: policy.unix.as_ref().map(UnixTables::compile).transpose()?,
            devices: policy.devices.as_ref().map(DeviceTables::compile),
            sysctls: SysctlTables::compile(policy.sysctls.as_ref(), !policy.process.allows(Part::Sysctls))?,
            sockets,
            sockopts,
            unreported: unreported(policy),
            flows,
        })
    }

    /// What the policy says of devices, and nothing else. `None` where no device is denied.
    #[must_use]
    pub fn devices_alone(self) -> Option<Self> {
        let denies = self.config.audit == 0 && self.hooks().contains(&Hook::Device);
        let Self { config, devices, unreported, .. } = self;
        let (network, unix, sysctls, sockets, sockopts) = (None, None, None, None, None);
        denies.then_some(Self { config, network, unix, devices, sysctls, sockets, sockopts, unreported, flows: false })
    }

    /// The hooks at which this policy is enforced, on a kernel that has all of them, and flows counted if they are
    /// recorded.
    #[must_use]
    pub fn hooks(&self) -> Vec<Hook> {
        let mut hooks = Vec::new();
        if let Some(network) = &self.network {
            let by_op = [
                (Op::CONNECT, [Hook::Connect4, Hook::Connect6]),
                (Op::BIND, [Hook::Bind4, Hook::Bind6]),
                (Op::SEND, [Hook::Sendmsg4, Hook::Sendmsg6]),
            ];
            // Anybody who asks a nameserver connects or sends to it, whatever else is judged.
            let asks = |op: Op| network.names.is_some() && op != Op::BIND;
            // What a bind(2) names is what packets say of their source. Where one of both operations is free, it leads nobody to more.
            let both = network.table.judges(Op::CONNECT) && network.table.judges(Op::SEND);
            let binds = |op: Op| op == Op::BIND && network.table.tells_peers_apart() && both;
            let judged = |op: Op| network.table.judges(op) || asks(op) || binds(op);
            hooks.extend(by_op.iter().filter(|(op, _)| judged(*op)).flat_map(|(_, hooks)| hooks));
            if network.judges_packets() {
                hooks.push(Hook::Ingress);
            }
        }
        let own = self.network.as_ref().is_some_and(NetTables::asks_for_own);
        let leaves = self.network.as_ref().is_some_and(NetTables::looks_at_what_leaves);
        if leaves || self.sockets.as_ref().is_some_and(|sockets| sockets.table.packets != 0) {
            hooks.push(Hook::Egress);
        }
        if self.sockets.as_ref().is_some_and(SocketTables::is_needed) {
            hooks.push(Hook::SockCreate);
        }
        // MPTCP's listeners can be marked only there.
        if own || hooks.contains(&Hook::Ingress) {
            hooks.push(Hook::SockOps);
        }
        if let Some(unix) = self.unix.as_ref().filter(|unix| unix.restricts() && !unix.is_left_to_domain()) {
            hooks.extend(unix.hooks());
        }
        if self.devices.as_ref().is_some_and(|devices| devices.verdicts.can_deny()) {
            hooks.push(Hook::Device);
        }
        if self.sysctls.as_ref().is_some_and(|sysctls| sysctls.table.can_deny()) {
            hooks.push(Hook::Sysctl);
        }
        if let Some(sockopts) = &self.sockopts {
            hooks.extend(sockopts.hooks());
        }
        if self.flows {
            let counting = [Hook::SockCreate, Hook::SockOps, Hook::Ingress, Hook::Egress];
            hooks.extend(counting.into_iter().filter(|hook| !hooks.contains(hook)).collect::<Vec<_>>());
        }
        hooks
    }

    /// Whether every socket is marked with the process that makes it: where rules ask whose a socket is, packets are looked at, or
    /// flows are counted.
    #[must_use]
    pub fn marks_sockets(&self) -> bool {
        self.sockets.as_ref().is_some_and(|sockets| sockets.table.mark != 0)
    }

    /// Whether it is all the same what leaves, as long as it goes where it was judged to.
    #[must_use]
    pub fn asks_only_where_packets_go(&self) -> bool {
        let asks_more = |network: &NetTables| network.asks_for_own() || network.table.judges_udp_ports != 0;
        let packets = self.sockets.as_ref().is_some_and(|sockets| sockets.table.packets != 0);
        !self.flows && !packets && !self.network.as_ref().is_some_and(asks_more)
    }

    /// Whether nothing but who made it is asked of a socket.
    #[must_use]
    pub fn asks_only_who_made_a_socket(&self) -> bool {
        // Where there are names, packets are judged as well.
        self.asks_only_where_packets_go() && !self.network.as_ref().is_some_and(NetTables::judges_packets)
    }

    /// The names in the network section's rules, if there are any.
    #[must_use]
    pub fn names(&self) -> Option<&NameTables> {
        self.network.as_ref()?.names.as_ref()
    }

    /// The hooks at which it can be enforced on a kernel that lacks some of those, if there are others.
    #[must_use]
    pub fn other_hooks(&self) -> Option<Vec<Hook>> {
        let unix = self.unix.as_ref()?;
        let (first, others) = (unix.hooks(), unix.other_hooks()?);
        let other = |hook: Hook| first.iter().position(|one| *one == hook).map_or(hook, |index| others[index]);
        Some(self.hooks().into_iter().map(other).collect())
    }

    /// The sections that restrict nothing, since the policy leaves them out or they deny nothing.
    #[must_use]
    pub fn unrestricted(&self) -> Vec<&'static str> {
        let sections = [
            ("network", self.network.as_ref().is_some_and(|network| network.table.judged != 0)),
            ("unix", self.unix.as_ref().is_some_and(UnixTables::restricts)),
            ("devices", self.devices.as_ref().is_some_and(|devices| devices.verdicts.can_deny())),
            ("sysctls", self.sysctls.as_ref().is_some_and(|sysctls| sysctls.table.verdicts.can_deny())),
            ("sockets", self.sockets.as_ref().is_some_and(SocketTables::restricts)),
            ("sockopts", self.sockopts.as_ref().is_some_and(|sockopts| sockopts.table.verdicts.can_deny())),
        ];
        sections.iter().filter(|(_, restricts)| !restricts).map(|(name, _)| *name).collect()
    }
}

/// The rules of all sections whose denials are not recorded.
fn unreported(policy: &Resolved) -> Unreported {
    let [network, unix, devices, sysctls, sockets, sockopts] = policy.unreported().map(|(_, rules)| rules);
    let mut unreported = Unreported::NONE;
    for (kind, rules) in [
        (Kind::Net, network),
        (Kind::Name, network),
        (Kind::Unix, unix),
        (Kind::Device, devices),
        (Kind::Sysctl, sysctls),
        (Kind::Socket, sockets),
        (Kind::Sockopt, sockopts),
    ] {
        unreported.add(kind, &rules);
    }
    unreported
}
