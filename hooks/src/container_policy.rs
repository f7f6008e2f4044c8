//! The policy that a container asks for, as far as it can be judged by itself: guard-runtime does that before there is a
//! container, since not every runtime shows what a hook says, and the hook once more, as it is what enforces it.

use std::path::Path;

use anyhow::{Context as _, ensure};
use enforce::machine::ThisMachine;
use policy::{Document, Part, ProcessSection, Resolved};

use crate::{annotations::POLICY, trusted::open_roots_file};

/// Reads a policy for containers.
///
/// # Errors
///
/// When it can't be read, somebody else than root could have written it, or put it there, or it isn't one for containers.
pub fn read(path: &Path) -> anyhow::Result<(Document, Resolved)> {
    let file = open_roots_file(path).context(POLICY)?;
    let document = Document::of_file(path, file)?;
    let mut policy = document.parse()?;
    let accepting = ProcessSection { capabilities: policy.process.capabilities.clone(), ..ProcessSection::default() };
    ensure!(
        !document.has_process_section() || policy.process == accepting && !accepting.capabilities.is_empty(),
        "{}: /process: what else keeps a container inside is its engine's business (podman: --cap-drop, --security-opt …); \
         policies for containers can only accept \"capabilities\" there",
        path.display()
    );
    // Who may write tunables that no rule is about is the engine's business, too: runtimes write some in the container's
    // process, podman has one by default.
    policy.process.allow = vec![Part::Sysctls];
    let policy = policy.resolve(&document, &ThisMachine)?;
    Ok((document, policy))
}
