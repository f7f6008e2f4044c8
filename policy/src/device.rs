//! Rules of the devices section.

use common::device::{self, MAX_MAJOR, MAX_MINOR};
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    Action, Rule,
    error::unexpanded,
    section::{is_reported, number, present, reason, reported, words},
};

/// A rule on device nodes, in the form of the OCI runtime specification. What is `None` holds for all.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "Keys")]
pub struct DeviceRule {
    /// What happens to the requests that match.
    pub action: Action,
    /// Whether what it denies is reported.
    #[serde(skip_serializing_if = "is_reported")]
    pub report: bool,
    /// The node that stands for the type and the numbers, until the policy is resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<NodePath>,
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
    /// Whether the rule says that itself, and doesn't mean all that can be done for saying nothing of it.
    #[serde(skip)]
    pub names_access: bool,
    /// Why it is there, for anybody who meets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    action: Action,
    #[serde(default = "reported")]
    report: bool,
    #[serde(default, deserialize_with = "present")]
    path: Option<NodePath>,
    #[serde(rename = "type", default, deserialize_with = "present")]
    kind: Option<DeviceType>,
    #[serde(default, deserialize_with = "major")]
    major: Option<u32>,
    #[serde(default, deserialize_with = "minor")]
    minor: Option<u32>,
    #[serde(default, deserialize_with = "present")]
    access: Option<Access>,
    #[serde(default, deserialize_with = "reason")]
    reason: Option<String>,
}

impl TryFrom<Keys> for DeviceRule {
    type Error = &'static str;

    fn try_from(keys: Keys) -> Result<Self, &'static str> {
        let Keys { action, report, path, kind, major, minor, access, reason } = keys;
        if path.is_some() && (kind.is_some() || major.is_some() || minor.is_some()) {
            return Err(
                "\"path\" says which device is meant; leave out either \"path\" or \"type\", \"major\" and \"minor\"",
            );
        }
        Ok(Self {
            action,
            report,
            path,
            kind: kind.unwrap_or_default(),
            major,
            minor,
            access: access.unwrap_or_default(),
            names_access: access.is_some(),
            reason,
        })
    }
}

impl DeviceRule {
    /// Makes the rule one on this device alone.
    pub(super) fn set(&mut self, node: Node) {
        self.kind = match node.kind {
            device::Type::Block => DeviceType::Block,
            device::Type::Char => DeviceType::Char,
        };
        (self.major, self.minor) = (Some(node.major), Some(node.minor));
    }
}

/// The absolute path of a device node.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(super) struct NodePath(pub(super) String);

impl TryFrom<String> for NodePath {
    type Error = String;

    fn try_from(path: String) -> Result<Self, String> {
        if path.starts_with('/') {
            Ok(Self(path))
        } else if let Some(hint) = unexpanded(&path) {
            Err(format!("device path \"{path}\": {hint}"))
        } else {
            Err(format!("device path \"{path}\" must begin with a slash, such as \"/dev/null\""))
        }
    }
}

/// The device that a node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// The device's type.
    pub kind: device::Type,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl Rule for DeviceRule {
    fn action(&self) -> Action {
        self.action
    }

    fn reports(&self) -> bool {
        self.report
    }

    fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
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
