//! Files that a policy includes: nobody may have a say in a policy by them who hasn't by the file that includes them.

use std::{
    collections::BTreeSet,
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use policy::{Document, Files};

/// Permission bits by which a file's group, and all others, could write to it.
const BY_GROUP: u32 = 0o020;
const BY_OTHERS: u32 = 0o002;

/// Files, opened in one way.
pub struct Included<O>(pub O);

impl<O: Fn(&Path) -> Result<File, String>> Files for Included<O> {
    fn real(&self, path: &Path) -> Result<PathBuf, String> {
        fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn read(&self, path: &Path, including: &Path) -> Result<Document, String> {
        let Self(open) = self;
        let file = open(path)?;
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let found = file.metadata().map_err(failed)?;
        if !found.is_file() {
            return Err(format!("{}: not a regular file", path.display()));
        }
        let mut writers = Writers::default();
        for place in including.ancestors() {
            writers.add(&fs::metadata(place).map_err(|error| format!("{}: {error}", place.display()))?);
        }
        let folders = path.ancestors().skip(1);
        let folders = folders.map(|folder| Ok((folder, fs::metadata(folder)?))).collect::<io::Result<Vec<_>>>();
        for (place, found) in folders.map_err(failed)?.into_iter().chain([(path, found)]) {
            if !writers.include(&found) {
                let (at, owner) = (place.display(), fs::metadata(including).map_or(0, |found| found.uid()));
                let remedy = if found.uid() == 0 || writers.users.contains(&found.uid()) {
                    format!("chmod go-w {at}")
                } else {
                    format!("chown {owner} {at}")
                };
                return Err(format!(
                    "{at}: others could write this (owner {}, mode {:o}) who can't write {}, which includes it; take that from them: {remedy}",
                    found.uid(),
                    found.mode() & 0o7777,
                    including.display()
                ));
            }
        }
        Document::of_file(path, file).map_err(|error| {
            let reason = std::error::Error::source(&error).map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{error}{reason}")
        })
    }
}

/// Opens a regular file for reading, and waits for nothing.
///
/// # Errors
///
/// When it can't be opened.
pub fn open(path: &Path) -> Result<File, String> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW;
    File::options().read(true).custom_flags(flags).open(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Who may write to a file, or put another one in its place. Rights by an access control list count as the group's.
#[derive(Debug, Default)]
struct Writers {
    users: BTreeSet<u32>,
    groups: BTreeSet<u32>,
    anybody: bool,
}

impl Writers {
    /// Adds those of a file, or of a folder on the way to it.
    fn add(&mut self, found: &Metadata) {
        self.users.insert(found.uid());
        if Self::by_group(found) {
            self.groups.insert(found.gid());
        }
        self.anybody |= Self::by_others(found);
    }

    /// Whether all who may write to this are among them. Root may write everything.
    fn include(&self, found: &Metadata) -> bool {
        self.anybody
            || (found.uid() == 0 || self.users.contains(&found.uid()))
                && (!Self::by_group(found) || self.groups.contains(&found.gid()))
                && !Self::by_others(found)
    }

    fn by_group(found: &Metadata) -> bool {
        found.mode() & BY_GROUP != 0 && !keeps(found)
    }

    fn by_others(found: &Metadata) -> bool {
        found.mode() & BY_OTHERS != 0 && !keeps(found)
    }
}

/// Whether it is a folder in which each removes only what is theirs, such as /tmp.
fn keeps(found: &Metadata) -> bool {
    found.is_dir() && found.mode() & libc::S_ISVTX != 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    /// A folder with a policy that includes another one.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new(include: &str) -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            fs::write(place.at("p.json"), format!(r#"{{"version": 1, "include": ["{include}"]}}"#)).unwrap();
            fs::write(place.at("team.json"), r#"{"version": 1, "network": {"default": "deny"}}"#).unwrap();
            for name in ["p.json", "team.json"] {
                fs::set_permissions(place.at(name), fs::Permissions::from_mode(0o644)).unwrap();
            }
            place
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn read(&self) -> Result<policy::Policy, String> {
            let document = Document::read(&self.at("p.json")).unwrap();
            document.parse_with(&Included(open)).map_err(|error| error.to_string())
        }
    }

    #[test]
    fn files_are_found_beside_the_one_that_includes_them() {
        let place = Place::new("team.json");
        assert!(place.read().unwrap().network.is_some());
        fs::create_dir(place.at("inner")).unwrap();
        fs::rename(place.at("team.json"), place.at("inner/team.json")).unwrap();
        assert!(place.read().unwrap_err().contains("/include/0 (line 1)"));
        fs::write(place.at("p.json"), r#"{"version": 1, "include": ["inner/../inner/team.json"]}"#).unwrap();
        assert!(place.read().unwrap().network.is_some());
    }

    #[test]
    fn what_others_could_have_written_is_refused() {
        let mode = |path: PathBuf, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let place = Place::new("team.json");
        for (own, included, good) in [
            (0o644, 0o600, true),
            (0o644, 0o664, false),
            (0o664, 0o664, true),
            (0o664, 0o646, false),
            (0o646, 0o666, true),
        ] {
            mode(place.at("p.json"), own);
            mode(place.at("team.json"), included);
            let read = place.read();
            assert_eq!(read.is_ok(), good, "{own:o} {included:o}: {read:?}");
            assert!(good || read.unwrap_err().contains("others could write this"));
        }
        mode(place.at("p.json"), 0o644);
        mode(place.at("team.json"), 0o644);
        if nix::unistd::geteuid().is_root() {
            chown(place.at("team.json"), Some(4242), None).unwrap();
            assert!(place.read().unwrap_err().contains("owner 4242"));
            // Anybody who may write one may write the other.
            chown(place.at("p.json"), Some(4242), None).unwrap();
            assert!(place.read().is_ok());
            chown(place.at("team.json"), Some(0), None).unwrap();
            assert!(place.read().is_ok(), "root's");
        }
    }

    #[test]
    fn links_lead_to_files_by_their_own_names_and_other_things_are_refused() {
        let place = Place::new("link.json");
        symlink("team.json", place.at("link.json")).unwrap();
        let policy = place.read().unwrap();
        assert!(policy.included[0].path().ends_with("team.json"));
        // One that leads to where others may write.
        let other = tempfile::tempdir().unwrap();
        fs::set_permissions(other.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::copy(place.at("team.json"), other.path().join("team.json")).unwrap();
        fs::write(
            place.at("p.json"),
            format!(r#"{{"version": 1, "include": ["{}/team.json"]}}"#, other.path().display()),
        )
        .unwrap();
        assert!(place.read().unwrap_err().contains("others could write this"));
        nix::unistd::mkfifo(&place.at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (name, why) in [("fifo", "not a regular file"), ("p.json", "includes this file"), ("none", "No such file")]
        {
            fs::write(place.at("p.json"), format!(r#"{{"version": 1, "include": ["{name}"]}}"#)).unwrap();
            let error = place.read().unwrap_err();
            assert!(error.contains(why), "{name}: {error}");
        }
    }
}
