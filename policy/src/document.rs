//! The policy file as text: reading it, identifying it, parsing it.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::IgnoredAny};
use sha2::{Digest as _, Sha256};

use super::{Policy, PolicyError, strict::Strict};

/// More than any policy needs (100,000 networks are 2 MiB), and little enough to read `/dev/zero` to its end.
const MAX_LEN: u64 = 64 << 20;

/// A policy file's content, and where it came from.
#[derive(Debug)]
pub struct Document {
    path: PathBuf,
    text: Vec<u8>,
}

impl Document {
    /// Reads a policy file.
    ///
    /// # Errors
    ///
    /// When it can't be read or is larger than any policy.
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let file = File::open(path).map_err(|source| PolicyError::Unreadable { path: path.to_owned(), source })?;
        Self::of_file(path, file)
    }

    /// Reads a policy file that is open already, said to be at `path`.
    ///
    /// # Errors
    ///
    /// As [`Document::read`].
    pub fn of_file(path: &Path, file: File) -> Result<Self, PolicyError> {
        let unreadable = |source| PolicyError::Unreadable { path: path.to_owned(), source };
        let mut text = Vec::new();
        let read = file.take(MAX_LEN + 1).read_to_end(&mut text);
        if read.map_err(unreadable)? as u64 > MAX_LEN {
            return Err(PolicyError::TooLarge { path: path.to_owned(), limit: MAX_LEN });
        }
        Ok(Self::new(path, text))
    }

    /// A document with this text, said to come from `path`.
    #[must_use]
    pub fn new(path: &Path, text: Vec<u8>) -> Self {
        Self { path: path.to_owned(), text }
    }

    /// Parses the text.
    ///
    /// # Errors
    ///
    /// When it isn't a valid policy; the error names the file, the JSON path and, where it helps, what to write.
    pub fn parse(&self) -> Result<Policy, PolicyError> {
        let mut json = serde_json::Deserializer::from_slice(&self.text);
        let policy = serde_path_to_error::deserialize(Strict(&mut json))
            .map_err(|error| PolicyError::invalid(&self.path, error.path(), error.inner()))?;
        json.end().map_err(|error| PolicyError::syntax(&self.path, &error))?;
        Ok(policy)
    }

    /// Whether the policy has a process section, be it one that says the same as if it were left out.
    #[must_use]
    pub fn has_process_section(&self) -> bool {
        #[derive(Deserialize)]
        struct Sections {
            process: Option<IgnoredAny>,
        }
        serde_json::from_slice(&self.text).is_ok_and(|Sections { process }| process.is_some())
    }

    /// Where the document came from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of the text, in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        format!("{:x}", Sha256::digest(&self.text))
    }
}
