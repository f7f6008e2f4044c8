//! From a policy to the tables that `decide()` looks things up in: the very tables that go into the kernel. Pure.

mod automaton;
mod device;
mod net;
mod sysctl;
mod unix;

use common::{ABI_VERSION, Config, record::Hook};

pub use automaton::MAX_STATES;
pub use device::DeviceTables;
pub use net::NetTables;
pub use sysctl::SysctlTables;
pub use unix::UnixTables;

use crate::policy::{Mode, Policy};

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
    /// Too many paths.
    #[error(
        "/unix/rules: these paths need more than {MAX_STATES} states to be told apart; \
         use fewer paths, or fewer wildcards in the middle of them"
    )]
    TooManyPaths,
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
            unix: policy.unix.as_ref().map(UnixTables::compile).transpose()?,
            devices: policy.devices.as_ref().map(DeviceTables::compile),
            sysctls: policy.sysctls.as_ref().map(SysctlTables::compile).transpose()?,
        })
    }

    /// The hooks at which this policy is enforced, on a kernel that has all of them.
    #[must_use]
    pub fn hooks(&self) -> Vec<Hook> {
        let mut hooks = Vec::new();
        if self.network.is_some() {
            hooks.extend([Hook::Connect4, Hook::Connect6]);
        }
        if let Some(unix) = &self.unix {
            hooks.extend(unix.hooks());
        }
        if self.devices.is_some() {
            hooks.push(Hook::Device);
        }
        if self.sysctls.is_some() {
            hooks.push(Hook::Sysctl);
        }
        hooks
    }

    /// The hooks at which it can be enforced on a kernel that lacks some of those, if there are others.
    #[must_use]
    pub fn other_hooks(&self) -> Option<Vec<Hook>> {
        let unix = self.unix.as_ref()?;
        let (first, others) = (unix.hooks(), unix.other_hooks()?);
        let other = |hook: Hook| first.iter().position(|one| *one == hook).map_or(hook, |index| others[index]);
        Some(self.hooks().into_iter().map(other).collect())
    }
}
