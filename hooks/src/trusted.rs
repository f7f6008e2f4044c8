//! Files and folders that somebody else has named. They are opened from the root folder on, one folder after the other, each
//! by the descriptor of the one above it, and no symbolic link is followed: so nobody can put another one in its place between a
//! look at it and its use.

use std::{
    ffi::OsStr,
    fs::{File, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use enforce::ownership::{is_roots_alone, keeps_roots};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, openat},
    sys::stat::Mode,
};

/// Why a file or folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// The file, or a folder above it, can't be opened.
    #[error("{}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// Where it leads depends on more than itself.
    #[error("{}: write an absolute path without \"..\"", .0.display())]
    NotPlain(PathBuf),
    /// Others could let it lead elsewhere.
    #[error("{}: a symbolic link, which is not followed here; write where it leads", .0.display())]
    Link(PathBuf),
    /// Somebody else than root could have written it, or put it there.
    #[error("{}: others than root can write it (owner {owner}, mode {mode:o}); chown root, chmod go-w", path.display())]
    Foreign {
        /// The file or folder.
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

impl PathError {
    /// Whether there is nothing at the path.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Who may have put a folder where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Root alone: it, and all above it, are root's, and nobody else can put another in its place.
    Roots,
    /// Anybody.
    Anybodys,
}

/// Opens a folder (`O_PATH`) by its absolute path.
///
/// # Errors
///
/// When it isn't there, a link is on the way, or somebody else than root could have put it there although it should be root's.
pub fn open_folder(path: &Path, whose: Whose) -> Result<File, PathError> {
    if !path.is_absolute() {
        return Err(PathError::NotPlain(path.to_owned()));
    }
    let mut seen = PathBuf::from("/");
    let mut folder = open(AT_FDCWD, OsStr::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY, &seen)?;
    check(&folder, &seen, whose)?;
    for component in path.components() {
        match component {
            Component::RootDir => {}
            Component::Normal(name) => {
                seen.push(name);
                let below = open(&folder, name, OFlag::O_PATH | OFlag::O_NOFOLLOW, &seen)?;
                let metadata = check(&below, &seen, whose)?;
                if !metadata.is_dir() {
                    return Err(PathError::File { path: seen, source: Errno::ENOTDIR.into() });
                }
                folder = below;
            }
            _ => return Err(PathError::NotPlain(path.to_owned())),
        }
    }
    Ok(folder)
}

/// Opens a regular file for reading that nobody but root could have written, or put where it is.
///
/// # Errors
///
/// When it isn't there, isn't root's alone, or a link is on the way.
pub fn open_roots_file(path: &Path) -> Result<File, PathError> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(PathError::NotPlain(path.to_owned()));
    };
    let folder = open_folder(folder, Whose::Roots)?;
    // A pipe must not keep anybody waiting.
    let file = open(&folder, name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK, path)?;
    let metadata = file.metadata().map_err(on(path))?;
    if !metadata.is_file() {
        return Err(PathError::NotAFile(path.to_owned()));
    }
    if is_roots_alone(&metadata) { Ok(file) } else { Err(foreign(path, &metadata)) }
}

/// Opens the entry of a folder.
fn open(folder: impl std::os::fd::AsFd, name: &OsStr, flags: OFlag, path: &Path) -> Result<File, PathError> {
    match openat(folder, name, flags | OFlag::O_CLOEXEC, Mode::empty()) {
        Err(Errno::ELOOP) => Err(PathError::Link(path.to_owned())),
        opened => opened.map(File::from).map_err(|error| on(path)(error.into())),
    }
}

/// Looks at what was opened.
fn check(opened: &File, path: &Path, whose: Whose) -> Result<Metadata, PathError> {
    let metadata = opened.metadata().map_err(on(path))?;
    if metadata.is_symlink() {
        return Err(PathError::Link(path.to_owned()));
    }
    if whose == Whose::Roots && !keeps_roots(&metadata) {
        return Err(foreign(path, &metadata));
    }
    Ok(metadata)
}

fn foreign(path: &Path, metadata: &Metadata) -> PathError {
    PathError::Foreign { path: path.to_owned(), owner: metadata.uid(), mode: metadata.mode() & 0o7777 }
}

fn on(path: &Path) -> impl FnOnce(io::Error) -> PathError + '_ {
    move |source| PathError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn no_link_is_followed_on_the_way_or_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        fs::create_dir(folder.join("real")).unwrap();
        fs::write(folder.join("real/file"), "text").unwrap();
        symlink("real", folder.join("link")).unwrap();
        symlink("file", folder.join("real/link")).unwrap();
        assert!(open_folder(&folder.join("real"), Whose::Anybodys).is_ok());
        for link in ["link", "link/file", "real/link"] {
            let error = open_folder(&folder.join(link), Whose::Anybodys).unwrap_err();
            assert!(matches!(error, PathError::Link(_)), "{link}: {error}");
        }
        for odd in ["real/../real", "real/file/.."] {
            let error = open_folder(&folder.join(odd), Whose::Anybodys).unwrap_err();
            assert!(matches!(error, PathError::NotPlain(_) | PathError::File { .. }), "{odd}: {error}");
        }
        assert!(matches!(open_folder(Path::new("etc"), Whose::Anybodys), Err(PathError::NotPlain(_))));
        assert!(open_folder(&folder.join("absent"), Whose::Anybodys).unwrap_err().is_absent());
        let error = open_roots_file(&folder.join("real/link")).unwrap_err();
        // Where root doesn't run the tests, the folder is nobody's to trust.
        assert!(matches!(error, PathError::Link(_) | PathError::Foreign { .. }), "{error}");
    }
}
