//! Whether the programs that the repository and the published crate carry are those of the sources.
//!
//! `programs/SOURCES` is written by `tools/programs.py`. Its lines are those of sha256sum(1), with paths from the workspace's folder,
//! and lines of Cargo.lock: the checksums of the crates that are compiled in. `tools/setup.sh` reads it as well.

use std::{
    fmt::Write as _,
    fs::{read, read_to_string},
    path::Path,
};

use sha2::{Digest as _, Sha256};

/// Whether the object files in a folder were compiled from the sources in a workspace. In a published crate, which has no workspace,
/// they are the only ones.
pub fn are_current(programs: &Path, workspace: &Path) -> bool {
    let Ok(sources) = read_to_string(programs.join("SOURCES")) else { return false };
    if !workspace.join("launcher-ebpf").exists() {
        return true;
    }
    let lock = read_to_string(workspace.join("Cargo.lock")).unwrap_or_default();
    sources.lines().all(|line| match line.split_once("  ") {
        Some((digest, path)) => read(workspace.join(path)).is_ok_and(|content| hex(&Sha256::digest(content)) == digest),
        None => lock.lines().any(|locked| locked == line),
    })
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}
