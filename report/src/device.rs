//! Device denials.

use std::fmt;

use common::{device, record::DeviceSubject};
use policy::access_letters;
use serde::{Deserialize, Serialize};

use crate::{Names, Recorded, Subject, Word};

/// A device.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Device {
    /// The device's usual node, where the kernel knows one. Not necessarily the one that was opened.
    pub path: Option<String>,
    /// `b` or `c`.
    #[serde(rename = "type")]
    pub kind: Word,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// What was asked for: some of `r`, `w` and `m`.
    pub access: String,
}

impl Device {
    /// Which one it is.
    #[must_use]
    pub fn name(&self) -> String {
        let Self { path, kind, major, minor, .. } = self;
        match path {
            Some(path) => format!("{path} ({kind} {major}:{minor})"),
            None => format!("{kind} {major}:{minor}"),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), self.access)
    }
}

impl Recorded for DeviceSubject {
    const SECTION: &'static str = "devices";

    fn op(&self) -> &'static str {
        "device"
    }

    fn describe(&self, names: &impl Names) -> Subject {
        let (kind, class) = if self.kind == device::Type::Block as u32 { ("b", "block") } else { ("c", "char") };
        let name = names.device(class, self.major, self.minor);
        Subject::Device(Device {
            path: name.map(|name| format!("/dev/{name}")),
            kind: kind.into(),
            major: self.major,
            minor: self.minor,
            access: access_letters(self.access),
        })
    }
}
