//! From a policy to the tables that `decide()` looks things up in: the very tables that go into the kernel. Pure.

mod automaton;
mod device;
mod net;
mod sysctl;

use common::{ABI_VERSION, Config, record::Hook};

pub use automaton::MAX_STATES;
pub use device::DeviceTables;
pub use net::NetTables;
pub use sysctl::SysctlTables;

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
        Ok(Self {
            config: Config { abi: ABI_VERSION, audit: u32::from(policy.mode == Mode::Audit) },
            network: policy.network.as_ref().map(NetTables::compile),
            devices: policy.devices.as_ref().map(DeviceTables::compile),
            sysctls: policy.sysctls.as_ref().map(SysctlTables::compile).transpose()?,
        })
    }

    /// The hooks at which this policy has to be enforced.
    #[must_use]
    pub fn hooks(&self) -> Vec<Hook> {
        let mut hooks = Vec::new();
        if self.network.is_some() {
            hooks.extend([Hook::Connect4, Hook::Connect6]);
        }
        if self.devices.is_some() {
            hooks.push(Hook::Device);
        }
        if self.sysctls.is_some() {
            hooks.push(Hook::Sysctl);
        }
        hooks
    }
}
