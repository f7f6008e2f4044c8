//! Sysctl denials.

use std::fmt;

use common::{record::SysctlSubject, sysctl::Access};
use serde::Serialize;

use super::{Recorded, Subject};

/// A tunable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sysctl {
    /// Its name below /proc/sys; empty where it was too long to be judged.
    pub name: String,
    /// `r` or `w`.
    pub access: &'static str,
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.access)
    }
}

impl Recorded for SysctlSubject {
    const SECTION: &'static str = "sysctls";

    fn op(&self) -> &'static str {
        "sysctl"
    }

    fn describe(&self) -> Subject {
        let name = self.name.split(|byte| *byte == 0).next().unwrap_or_default();
        let access = if self.access == Access::READ.index() as u64 { "r" } else { "w" };
        Subject::Sysctl(Sysctl { name: String::from_utf8_lossy(name).into_owned(), access })
    }
}
