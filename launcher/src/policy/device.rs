//! Rules of the devices section.

use common::device::{self, MAX_MAJOR, MAX_MINOR};
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    Action, Rule,
    section::{number, words},
};

/// A rule on device nodes, in the form of the OCI runtime specification. What is `None` holds for all.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRule {
    /// What happens to the requests that match.
    pub action: Action,
    /// Block or character devices.
    #[serde(rename = "type", default, skip_serializing_if = "is_all")]
    pub kind: DeviceType,
    /// Major number.
    #[serde(default, deserialize_with = "major", skip_serializing_if = "Option::is_none")]
    pub major: Option<u32>,
    /// Minor number.
    #[serde(default, deserialize_with = "minor", skip_serializing_if = "Option::is_none")]
    pub minor: Option<u32>,
    /// What is done to the device.
    #[serde(default)]
    pub access: Access,
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
