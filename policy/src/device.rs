//! Rules of the devices section.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use common::device::{self, MAX_MAJOR, MAX_MINOR};
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    Action, Rule,
    section::{number, present, words},
};

/// A rule on device nodes, in the form of the OCI runtime specification. What is `None` holds for all.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "Keys")]
pub struct DeviceRule {
    /// What happens to the requests that match.
    pub action: Action,
    /// Block or character devices.
    #[serde(rename = "type", skip_serializing_if = "is_all")]
    pub kind: DeviceType,
    /// Major number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major: Option<u32>,
    /// Minor number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor: Option<u32>,
    /// What is done to the device.
    pub access: Access,
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    action: Action,
    #[serde(default, deserialize_with = "present")]
    path: Option<Node>,
    #[serde(rename = "type", default, deserialize_with = "present")]
    kind: Option<DeviceType>,
    #[serde(default, deserialize_with = "major")]
    major: Option<u32>,
    #[serde(default, deserialize_with = "minor")]
    minor: Option<u32>,
    #[serde(default)]
    access: Access,
}

impl TryFrom<Keys> for DeviceRule {
    type Error = &'static str;

    fn try_from(keys: Keys) -> Result<Self, &'static str> {
        let Keys { action, path, kind, major, minor, access } = keys;
        let Some(Node { kind: kind_of_node, major: major_of_node, minor: minor_of_node }) = path else {
            return Ok(Self { action, kind: kind.unwrap_or_default(), major, minor, access });
        };
        if kind.is_some() || major.is_some() || minor.is_some() {
            return Err(
                "\"path\" says which device is meant; leave out either \"path\" or \"type\", \"major\" and \"minor\"",
            );
        }
        let kind = match kind_of_node {
            device::Type::Block => DeviceType::Block,
            device::Type::Char => DeviceType::Char,
        };
        Ok(Self { action, kind, major: Some(major_of_node), minor: Some(minor_of_node), access })
    }
}

/// The device that a node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Node {
    /// Its type.
    pub kind: device::Type,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl Node {
    /// The device of the node at a path, or of the one that a symbolic link there leads to.
    ///
    /// # Errors
    ///
    /// When there is no file, or one that is no device node.
    pub fn at(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let kind = if metadata.file_type().is_block_device() {
            device::Type::Block
        } else if metadata.file_type().is_char_device() {
            device::Type::Char
        } else {
            return Err(io::Error::other("no device node"));
        };
        let number = metadata.rdev();
        // Both fit: the kernel has 12 and 20 bits for them.
        Ok(Self { kind, major: libc::major(number), minor: libc::minor(number) })
    }
}

impl TryFrom<String> for Node {
    type Error = String;

    fn try_from(path: String) -> Result<Self, String> {
        if !path.starts_with('/') {
            return Err(format!("device path \"{path}\" must begin with a slash, such as \"/dev/null\""));
        }
        Self::at(Path::new(&path)).map_err(|error| {
            let reason = error.to_string();
            let reason = reason.split(" (os error").next().unwrap_or_default();
            format!(
                "device path \"{path}\": {reason}; write the path of a device node that is there, or \"type\", \"major\" and \
                 \"minor\""
            )
        })
    }
}

impl Rule for DeviceRule {
    fn action(&self) -> Action {
        self.action
    }
}

words! {
    /// Types of device, as rules name them.
    #[derive(Default)]
    pub enum DeviceType {
        /// Both types.
        #[default]
        All = "a",
        /// Block devices.
        Block = "b",
        /// Character devices.
        Char = "c",
    }
}

// serde hands over a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_all(kind: &DeviceType) -> bool {
    *kind == DeviceType::All
}

impl DeviceType {
    /// The one type that is meant, if it is one.
    #[must_use]
    pub const fn only(self) -> Option<device::Type> {
        match self {
            Self::All => None,
            Self::Block => Some(device::Type::Block),
            Self::Char => Some(device::Type::Char),
        }
    }
}

/// Ways to use a device: some of `r`, `w` and `m`, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Access(u32);

impl Access {
    /// The bits of [`device::access`].
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl Default for Access {
    fn default() -> Self {
        Self(device::access::ALL)
    }
}

/// The letter of each access, in the order in which they are written.
const LETTERS: [(char, u32); 3] =
    [('r', device::access::READ), ('w', device::access::WRITE), ('m', device::access::MKNOD)];

/// Accesses as letters.
#[must_use]
pub fn letters(bits: u32) -> String {
    LETTERS.iter().filter(|(_, bit)| bits & bit != 0).map(|(letter, _)| letter).collect()
}

impl TryFrom<String> for Access {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("device access \"{text}\" must be some of r, w and m, each at most once");
        let mut bits = 0;
        for letter in text.chars() {
            let (_, bit) = LETTERS.iter().find(|(known, _)| *known == letter).ok_or_else(wrong)?;
            if bits & bit != 0 {
                return Err(wrong());
            }
            bits |= bit;
        }
        if bits == 0 { Err(wrong()) } else { Ok(Self(bits)) }
    }
}

impl From<Access> for String {
    fn from(access: Access) -> Self {
        letters(access.bits())
    }
}

fn major<'de, D: Deserializer<'de>>(json: D) -> Result<Option<u32>, D::Error> {
    number(json, MAX_MAJOR, "major number").map(Some)
}

fn minor<'de, D: Deserializer<'de>>(json: D) -> Result<Option<u32>, D::Error> {
    number(json, MAX_MINOR, "minor number").map(Some)
}
