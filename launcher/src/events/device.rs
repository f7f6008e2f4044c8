//! Device denials.

use std::{fmt, fs};

use common::{device, record::DeviceSubject};
use policy::access_letters;
use serde::Serialize;

use super::{Recorded, Subject};

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Its usual node, where the kernel knows one. Not necessarily the one that was opened.
    pub path: Option<String>,
    /// `b` or `c`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// What was asked for: some of `r`, `w` and `m`.
    pub access: String,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, kind, major, minor, access } = self;
        match path {
            Some(path) => write!(f, "{path} ({kind} {major}:{minor}) {access}"),
            None => write!(f, "{kind} {major}:{minor} {access}"),
        }
    }
}

impl Recorded for DeviceSubject {
    const SECTION: &'static str = "devices";

    fn op(&self) -> &'static str {
        "device"
    }

    fn describe(&self) -> Subject {
        let (kind, class) = if self.kind == device::Type::Block as u32 { ("b", "block") } else { ("c", "char") };
        // The kernel's own name for the device, below /dev (Documentation/admin-guide/sysfs-rules.rst).
        let properties = fs::read_to_string(format!("/sys/dev/{class}/{}:{}/uevent", self.major, self.minor));
        let properties = properties.unwrap_or_default();
        let name = properties.lines().find_map(|line| line.strip_prefix("DEVNAME="));
        Subject::Device(Device {
            path: name.map(|name| format!("/dev/{name}")),
            kind,
            major: self.major,
            minor: self.minor,
            access: access_letters(self.access),
        })
    }
}
