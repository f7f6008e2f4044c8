//! Files that guard-run reads although nobody has named them on its command line: by these, nobody else than its user and root may have
//! a say in what a command may do.
//!
//! A path is walked from the root folder on, one folder after the other, each by the descriptor of the one above it. Anybody who could write
//! the file, or put another one in its place, must be root or the user that this process is. Links are followed where nobody else could
//! have made or changed them.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs::{File, Metadata},
    io,
    os::{
        fd::AsFd,
        unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, openat, readlinkat},
    sys::stat::Mode,
};

use crate::ownership::{is_ours, is_ours_alone, keeps_ours};

/// How many links a path may lead through, as in the kernel (`MAXSYMLINKS`, include/linux/namei.h).
const MAX_LINKS: usize = 40;

/// Why a file isn't used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file, or a folder on the way to it, can't be opened.
    #[error("{}", path.display())]
    File {
        /// The file, or a folder on the way to it.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// Where it leads depends on the working folder, which may be somebody else's.
    #[error("{}: not an absolute path", .0.display())]
    NotAbsolute(PathBuf),
    /// Somebody else could have written it, or put it there.
    #[error("{}: others could have written this (owner {owner}, mode {mode:o}): {}", path.display(), what_to_do(*owner))]
    Foreign {
        /// The file, a link, or a folder on the way.
        path: PathBuf,
        /// The file's owner.
        owner: u32,
        /// The file's permissions.
        mode: u32,
    },
    /// The path leads to a folder, a device or a pipe.
    #[error("{}: not a regular file", .0.display())]
    NotAFile(PathBuf),
}

fn what_to_do(owner: u32) -> &'static str {
    if is_ours(owner) { "chmod go-w" } else { "it must belong to root or to who runs guard-run" }
}

/// Opens a regular file for reading that nobody but root and this process's user could have written, or put where it is.
///
/// # Errors
///
/// When it isn't there, or somebody else could have.
pub fn open(path: &Path) -> Result<File, TrustError> {
    if !path.is_absolute() {
        return Err(TrustError::NotAbsolute(path.to_owned()));
    }
    let mut rest: VecDeque<OsString> = names(path);
    let mut seen = PathBuf::from("/");
    let mut folder = open_root(&seen)?;
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        seen.push(&name);
        let entry = open_at(&folder, &name, OFlag::O_PATH, &seen)?;
        let found = entry.metadata().map_err(on(&seen))?;
        if found.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(on(&seen)(Errno::ELOOP.into()));
            }
            // In a folder that others may write to, one of theirs is refused here; one of ours they can't change.
            if !is_ours(found.uid()) {
                return Err(foreign(&seen, &found));
            }
            let leads_to = PathBuf::from(readlinkat(&entry, "").map_err(|error| on(&seen)(error.into()))?);
            if leads_to.is_absolute() {
                seen = PathBuf::from("/");
                folder = open_root(&seen)?;
            } else {
                seen.pop();
            }
            for name in names(&leads_to).into_iter().rev() {
                rest.push_front(name);
            }
        } else if rest.is_empty() {
            // A pipe must not keep anybody waiting.
            let file = open_at(&folder, &name, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY, &seen)?;
            let found = file.metadata().map_err(on(&seen))?;
            if !found.is_file() {
                return Err(TrustError::NotAFile(seen));
            }
            return if is_ours_alone(&found) { Ok(file) } else { Err(foreign(&seen, &found)) };
        } else if !found.is_dir() {
            return Err(on(&seen)(Errno::ENOTDIR.into()));
        } else if !keeps_ours(&found) {
            return Err(foreign(&seen, &found));
        } else {
            folder = entry;
        }
    }
    Err(TrustError::NotAFile(seen))
}

/// What a path consists of, but for what leads nowhere.
fn names(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from_vec(b"..".to_vec())),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.collect()
}

fn open_root(path: &Path) -> Result<File, TrustError> {
    open_at(AT_FDCWD, path.as_os_str(), OFlag::O_PATH | OFlag::O_DIRECTORY, path)
}

/// Opens the entry of a folder, and no link there.
fn open_at(folder: impl AsFd, name: &OsStr, flags: OFlag, path: &Path) -> Result<File, TrustError> {
    let opened = openat(folder, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
    opened.map(File::from).map_err(|error| on(path)(error.into()))
}

fn foreign(path: &Path, metadata: &Metadata) -> TrustError {
    TrustError::Foreign { path: path.to_owned(), owner: metadata.uid(), mode: metadata.mode() & 0o7777 }
}

fn on(path: &Path) -> impl FnOnce(io::Error) -> TrustError + '_ {
    move |source| TrustError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn refusal(path: &Path) -> String {
        open(path).unwrap_err().to_string()
    }

    #[test]
    fn what_others_could_have_written_is_refused() {
        // Below /tmp, in which others may write, but remove nothing.
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let (inner, file) = (folder.join("inner"), folder.join("inner/file"));
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "text").unwrap();
        for (of_file, of_folder, good) in [
            (0o600, 0o700, true),
            (0o644, 0o755, true),
            (0o664, 0o755, false),
            (0o646, 0o755, false),
            (0o644, 0o775, false),
            (0o644, 0o757, false),
            (0o644, 0o1777, true),
        ] {
            mode(&file, of_file);
            mode(&inner, of_folder);
            assert_eq!(open(&file).is_ok(), good, "{of_file:o} {of_folder:o}");
            assert!(good || refusal(&file).contains("others could have written"), "{}", refusal(&file));
        }
        mode(&inner, 0o755);
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&file, Some(4242), None).unwrap();
            assert!(refusal(&file).contains("owner 4242"), "{}", refusal(&file));
            std::os::unix::fs::chown(&file, Some(0), None).unwrap();
            std::os::unix::fs::chown(&inner, Some(4242), None).unwrap();
            assert!(refusal(&file).contains("inner: others"), "{}", refusal(&file));
        }
    }

    #[test]
    fn our_links_are_followed_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        fs::create_dir(folder.join("real")).unwrap();
        fs::write(folder.join("real/file"), "text").unwrap();
        mode(&folder.join("real/file"), 0o644);
        symlink("real", folder.join("relative")).unwrap();
        symlink(folder.join("real/file"), folder.join("real/absolute")).unwrap();
        symlink("round", folder.join("round")).unwrap();
        for path in ["real/file", "relative/file", "relative/absolute", "real/../real/file", "./real//file"] {
            assert!(open(&folder.join(path)).is_ok(), "{path}: {}", refusal(&folder.join(path)));
        }
        assert!(matches!(open(&folder.join("round")), Err(TrustError::File { .. })));
        assert!(matches!(open(&folder.join("real")), Err(TrustError::NotAFile(_))));
        assert!(matches!(open(&folder.join("real/file/x")), Err(TrustError::File { .. })));
        assert!(matches!(open(Path::new("real/file")), Err(TrustError::NotAbsolute(_))));
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::lchown(folder.join("relative"), Some(4242), None).unwrap();
            assert!(refusal(&folder.join("relative/file")).contains("relative: others"));
        }
    }
}
