//! Tests of a test suite, as far as they are known.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The test during which a process asked for something. What could not be found out is absent.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Test {
    /// The suite as its framework names it: a test binary, a package, a class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// The test's name in its suite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The file that the test is in, as the framework writes its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { suite, name, file } = self;
        let parts = [suite.as_deref().or(file.as_deref()), name.as_deref()];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}
