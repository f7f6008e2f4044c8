//! Paths that one process tells another.

use std::{
    ffi::OsString,
    ops::Deref,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A path with all of its bytes: in JSON, text is Unicode, and a path need not be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Vec<u8>", into = "Vec<u8>")]
pub(super) struct Place(PathBuf);

impl From<Vec<u8>> for Place {
    fn from(bytes: Vec<u8>) -> Self {
        Self(OsString::from_vec(bytes).into())
    }
}

impl From<Place> for Vec<u8> {
    fn from(Place(path): Place) -> Self {
        path.into_os_string().into_vec()
    }
}

impl From<PathBuf> for Place {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

impl Deref for Place {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_arrives_as_it_is() {
        let place = Place(OsString::from_vec(b"/a\n\xff\"".to_vec()).into());
        let told = serde_json::to_string(&place).unwrap();
        assert!(!told.contains('\n'), "it is one line");
        assert_eq!(serde_json::from_str::<Place>(&told).unwrap(), place);
    }
}
