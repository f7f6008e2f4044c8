//! Containers, and what the log says of them alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::{Guarded, Word};

/// A container.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Container {
    /// The container's id, unique among the containers of one runtime.
    pub id: String,
    /// The folder of its configuration.
    pub bundle: PathBuf,
    /// What its engine and its user have noted about it.
    pub annotations: BTreeMap<String, String>,
}

/// A container that was guarded.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ContainerRun {
    /// The container's command, where its configuration says it.
    pub command: Option<Vec<String>>,
    /// The container.
    pub container: Container,
}

impl Guarded for ContainerRun {
    type Measures = ContainerMeasures;
}

/// What else kept a container inside, as far as a hook knows.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ContainerMeasures {
    /// Whether what the engine executed in the container after its start was guarded, too.
    pub exec: bool,
    /// Whose business capabilities, namespaces, seccomp and the like are.
    pub hardening: Word,
    /// Capabilities by which the container could evade its policy, and which that accepts, or does not enforce.
    pub accepted_capabilities: BTreeSet<String>,
    /// What the policy says of commands, and was not done for the container: JSON pointers.
    pub left_to_engine: Vec<String>,
}
