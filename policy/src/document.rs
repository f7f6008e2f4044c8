//! The policy file as text: reading it, identifying it, parsing it.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use sha2::{Digest as _, Sha256};

use super::{Files, Machine, NoFiles, Policy, PolicyError, Resolved, include::Reader, strict::Strict};

/// More than any policy needs (100,000 networks are 2 MiB), and little enough to read `/dev/zero` to its end.
const MAX_LEN: u64 = 64 << 20;

/// A policy file's content, and where it came from.
#[derive(Clone, Debug)]
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

    /// Parses the text of a policy that includes nothing.
    ///
    /// # Errors
    ///
    /// Those of [`Document::parse_with`]; including something is one.
    pub fn parse(&self) -> Result<Policy, PolicyError> {
        self.parse_with(&NoFiles)
    }

    /// Parses the text, and that of what it includes.
    ///
    /// # Errors
    ///
    /// When it isn't a valid policy; the error names the file, the JSON path and, where it helps, what to write.
    pub fn parse_with(&self, files: &impl Files) -> Result<Policy, PolicyError> {
        Reader::new(files).policy(self)
    }

    /// Parses the text, with what it includes and its sets still to be put in place.
    pub(super) fn parse_alone(&self) -> Result<Policy, PolicyError> {
        if self.text.trim_ascii().is_empty() {
            let why = "nothing is in it; a policy begins as {\"version\": 1}, and `guard-run init FILE` writes one";
            return Err(PolicyError::at(self, "top level".to_owned(), why));
        }
        let mut json = serde_json::Deserializer::from_slice(&self.text);
        let policy = serde_path_to_error::deserialize(Strict(&mut json)).map_err(|error| {
            self.is_log().unwrap_or_else(|| PolicyError::invalid(&self.path, error.path(), error.inner()))
        })?;
        json.end().map_err(|error| PolicyError::syntax(&self.path, &error))?;
        Ok(policy)
    }

    /// What to say of a log in a policy's place. `None` if it is none.
    fn is_log(&self) -> Option<PolicyError> {
        let keys = self.keys();
        let has = |key: &&str| keys.iter().any(|known| known == key);
        let why = "this is a log of guard-run, and no policy; `guard-run why` says what it tells";
        let is_log = ["schema", "policy", "events"].iter().all(has);
        is_log.then(|| PolicyError::at(self, "top level".to_owned(), why))
    }

    /// Parses the text, and looks up what depends on the machine.
    ///
    /// # Errors
    ///
    /// Parses and resolves: [`Document::parse`], then [`Policy::resolve`].
    pub fn resolve(&self, machine: &impl Machine) -> Result<Resolved, PolicyError> {
        self.parse()?.resolve(self, machine)
    }

    /// The keys of the policy, as they are written.
    pub(super) fn keys(&self) -> Vec<String> {
        serde_json::from_slice::<HashMap<String, &RawValue>>(&self.text).unwrap_or_default().into_keys().collect()
    }

    /// The members of the policy's process section, as they are written.
    #[must_use]
    pub fn process_members(&self) -> Vec<String> {
        #[derive(Default, Deserialize)]
        struct Sections {
            process: Option<serde_json::Map<String, Value>>,
        }
        let Sections { process } = serde_json::from_slice(&self.text).unwrap_or_default();
        process.into_iter().flatten().map(|(name, _)| name).collect()
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The line, from 1, in which the value at a JSON pointer (RFC 6901) begins. `None` where there is no such value.
    #[must_use]
    pub fn line_of(&self, pointer: &str) -> Option<usize> {
        let text = str::from_utf8(&self.text).ok()?;
        let offset = self.written_at(pointer)?.as_ptr().addr() - text.as_ptr().addr();
        Some(1 + text[..offset].matches('\n').count())
    }

    /// The value at a JSON pointer (RFC 6901), as it is written. `None` where there is no such value.
    #[must_use]
    pub fn written_at(&self, pointer: &str) -> Option<&str> {
        let text = str::from_utf8(&self.text).ok()?;
        let mut value: &RawValue = serde_json::from_str(text).ok()?;
        for step in pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            value = match step.parse::<usize>() {
                Ok(index) if value.get().starts_with('[') => {
                    serde_json::from_str::<Vec<&RawValue>>(value.get()).ok()?.get(index).copied()?
                }
                _ => serde_json::from_str::<HashMap<Cow<str>, &RawValue>>(value.get()).ok()?.remove(&*step)?,
            };
        }
        Some(value.get())
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
