//! Where a denial is shown: at the line of the policy that decides.

use std::path::Path;

use crate::{Denial, Summary};

/// Where the files are that a tool of CI shows: what it takes paths to be below.
#[derive(Clone, Copy, Debug, Default)]
pub struct Root<'a>(pub Option<&'a Path>);

impl Root<'_> {
    /// A path as seen from there; another one as it is.
    #[must_use]
    pub fn relative(self, path: &str) -> String {
        let below = self.0.and_then(|root| Path::new(path).strip_prefix(root).ok());
        let path = below.and_then(Path::to_str).filter(|below| !below.is_empty()).unwrap_or(path);
        path.strip_prefix("./").unwrap_or(path).to_owned()
    }
}

impl Summary {
    /// The policy's file and line of a denial: the first line where the line is not known. `None` where nobody knows the file.
    pub(crate) fn place(&self, denial: &Denial, root: Root) -> Option<(String, usize)> {
        let path = self.policies.get(denial.policy)?.path.as_deref()?;
        Some((root.relative(path), denial.line().unwrap_or(1)))
    }

    /// The tests during which something was denied, in words, the first ones of many.
    pub(crate) fn tests_of(&self, denial: &Denial) -> String {
        const SHOWN: usize = 3;
        let tests = denial.tests.iter().take(SHOWN).map(|known| self.tests[known.test].test.to_string());
        let mut tests = tests.collect::<Vec<_>>().join(", ");
        if denial.tests.len() > SHOWN {
            tests = format!("{tests} and {} more", denial.tests.len() - SHOWN);
        }
        tests
    }
}
