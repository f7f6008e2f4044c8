//! The policy that a container asks for, as far as it can be judged by itself: guard-runtime does that before there is a
//! container, since not every runtime shows what a hook says, and the hook once more, as it is what enforces it.

use std::{
    fs::OpenOptions,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context as _, ensure};
use launcher::{
    ownership::is_roots_alone,
    policy::{Document, Policy},
};

use crate::annotations::POLICY;

/// Reads a policy for containers.
///
/// # Errors
///
/// When it can't be read, somebody else than root could have written it, or it isn't one for containers.
pub fn read(path: &Path) -> anyhow::Result<(Document, Policy)> {
    let document = open(path).context(POLICY)?;
    let policy = document.parse()?;
    ensure!(
        !document.has_process_section(),
        "{}: /process: what else keeps a container inside is its engine's business (podman: --cap-drop, --security-opt …); \
         leave the section out of policies for containers",
        path.display()
    );
    Ok((document, policy))
}

/// Reads a policy file that nobody but root could have written.
fn open(path: &Path) -> anyhow::Result<Document> {
    // A pipe must not keep the container waiting.
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.with_context(|| path.display().to_string())?;
    let metadata = file.metadata().with_context(|| path.display().to_string())?;
    ensure!(metadata.is_file(), "{}: not a regular file", path.display());
    ensure!(
        is_roots_alone(&metadata),
        "{}: others than root can write it (owner {}, mode {:o}), and whoever writes the policy decides what the container \
         may do; chown root, chmod go-w",
        path.display(),
        metadata.uid(),
        metadata.mode() & 0o7777
    );
    Ok(Document::of_file(path, file)?)
}
