//! From a policy to the tables that `decide()` looks things up in: the very tables that go into the kernel. Pure.

mod device;
mod net;
mod socket;
mod sockopt;
mod sysctl;

use common::{ABI_VERSION, Config, net::Op, record::Hook};

pub use device::DeviceTables;
pub use net::NetTables;
pub use socket::SocketTables;
pub use sockopt::SockoptTables;
pub use sysctl::{MAX_STATES, SysctlTables};

use crate::policy::{Mode, Policy};

/// A compiled policy.
#[derive(Debug)]
pub struct Tables {
    /// What every program must know.
    pub config: Config,
    /// The network section, if there is one.
    pub network: Option<NetTables>,
    /// The devices section, if there is one.
    pub devices: Option<DeviceTables>,
    /// The sysctls section, if there is one.
    pub sysctls: Option<SysctlTables>,
    /// The sockets section, if there is one or the network section asks for one.
    pub sockets: Option<SocketTables>,
    /// The sockopts section, if there is one or the network section asks for one.
    pub sockopts: Option<SockoptTables>,
}

/// Why a valid policy can't be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Too many names with wildcards that overlap.
    #[error(
        "/sysctls/rules: these names need more than {MAX_STATES} states to be told apart; \
         use fewer wildcards in the middle of names"
    )]
    TooManyNames,
}

impl Tables {
    /// Compiles a policy.
    ///
    /// # Errors
    ///
    /// When the rules need larger tables than the kernel side can have.
    pub fn compile(policy: &Policy) -> Result<Self, CompileError> {
        let network = policy.network.as_ref().map(NetTables::compile);
        let sockets = SocketTables::compile(policy.sockets.as_ref(), network.as_ref());
        let sockopts = SockoptTables::compile(policy.sockopts.as_ref(), network.as_ref());
        Ok(Self {
            config: Config { abi: ABI_VERSION, audit: u32::from(policy.mode == Mode::Audit) },
            network,
            devices: policy.devices.as_ref().map(DeviceTables::compile),
            sysctls: policy.sysctls.as_ref().map(SysctlTables::compile).transpose()?,
            sockets,
            sockopts,
        })
    }

    /// The hooks at which this policy has to be enforced.
    #[must_use]
    pub fn hooks(&self) -> Vec<Hook> {
        let mut hooks = Vec::new();
        if let Some(network) = &self.network {
            let by_op = [
                (Op::CONNECT, [Hook::Connect4, Hook::Connect6]),
                (Op::BIND, [Hook::Bind4, Hook::Bind6]),
                (Op::SEND, [Hook::Sendmsg4, Hook::Sendmsg6]),
            ];
            hooks.extend(by_op.iter().filter(|(op, _)| network.table.judges(*op)).flat_map(|(_, hooks)| hooks));
            if network.judges_packets() {
                hooks.push(Hook::Ingress);
            }
        }
        let own = self.network.as_ref().is_some_and(NetTables::asks_for_own);
        if own || self.sockets.as_ref().is_some_and(|sockets| sockets.packets) {
            hooks.push(Hook::Egress);
        }
        if self.sockets.as_ref().is_some_and(SocketTables::is_needed) {
            hooks.push(Hook::SockCreate);
        }
        // MPTCP's listeners can be marked only there.
        if own || hooks.contains(&Hook::Ingress) {
            hooks.push(Hook::SockOps);
        }
        if self.devices.as_ref().is_some_and(|devices| devices.verdicts.can_deny()) {
            hooks.push(Hook::Device);
        }
        if self.sysctls.as_ref().is_some_and(|sysctls| sysctls.table.verdicts.can_deny()) {
            hooks.push(Hook::Sysctl);
        }
        if let Some(sockopts) = &self.sockopts {
            hooks.extend(sockopts.hooks());
        }
        hooks
    }

    /// The sections that restrict nothing, since the policy leaves them out or they deny nothing.
    #[must_use]
    pub fn unrestricted(&self) -> Vec<&'static str> {
        let sections = [
            ("network", self.network.as_ref().is_some_and(|network| network.table.judged != 0)),
            ("devices", self.devices.as_ref().is_some_and(|devices| devices.verdicts.can_deny())),
            ("sysctls", self.sysctls.as_ref().is_some_and(|sysctls| sysctls.table.verdicts.can_deny())),
            ("sockets", self.sockets.as_ref().is_some_and(SocketTables::restricts)),
            ("sockopts", self.sockopts.as_ref().is_some_and(|sockopts| sockopts.table.verdicts.can_deny())),
        ];
        sections.iter().filter(|(_, restricts)| !restricts).map(|(name, _)| *name).collect()
    }
}
