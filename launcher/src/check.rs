//! `guard-run check`: validates a policy and prints what it means.

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::{compile::Tables, exit, policy::Policy};

/// A policy with all names resolved, and what follows from it.
#[derive(Serialize)]
struct Resolved<'a> {
    #[serde(flatten)]
    policy: &'a Policy,
    /// The hooks at which it will be enforced.
    hooks: Vec<&'static str>,
    /// The sections that it leaves out, which restrict nothing.
    unrestricted: Vec<&'static str>,
}

/// Validates a policy and prints it, resolved, on standard output.
///
/// # Errors
///
/// When it isn't valid.
pub fn check(path: &Path) -> anyhow::Result<u8> {
    let (policy, _) = Policy::read(path)?;
    let tables = Tables::compile(&policy).with_context(|| path.display().to_string())?;
    let hooks = tables.hooks().into_iter().map(common::record::Hook::name).collect();
    let resolved = Resolved { policy: &policy, hooks, unrestricted: tables.unrestricted() };
    println!("{}", serde_json::to_string_pretty(&resolved)?);
    Ok(exit::OK)
}
