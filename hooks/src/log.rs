//! Where a container's log goes. The folder is looked up twice, when the container is made and after its end; meanwhile the
//! container may have been able to write to it, by a volume. So it is noted which folder it is, and no link is followed.

use std::{
    ffi::{OsStr, OsString},
    fs::{DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, renameat},
    sys::stat::{Mode, SFlag, fstatat},
    unistd::{UnlinkatFlags, unlinkat},
};
use report::LOG_FOLDER;
use serde::{Deserialize, Serialize};

use crate::{
    annotations::LOG,
    cli::tell,
    settings::Settings,
    trusted::{Whose, open_folder},
};

/// How many digits of an id are enough in the name of a log.
const SHORT_ID: usize = 12;

/// How many names are tried for a file that is being written.
const ATTEMPTS: u32 = 100;

/// A file that a log goes to.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct LogFile {
    /// The log's folder.
    folder: PathBuf,
    /// The folder's device.
    device: u64,
    /// The folder's inode.
    inode: u64,
    /// The log's name there. What has this name is replaced, unless it is a folder.
    name: PathBuf,
}

impl LogFile {
    /// The file for a container: the one that is asked for, or a new one in the folder that is. Where that can't be written, which
    /// an earlier run of the container may have brought about, it is one in the usual folder: the log must not keep a container
    /// from starting again.
    ///
    /// # Errors
    ///
    /// When the usual folder isn't there and can't be made.
    pub fn choose(settings: &Settings, wanted: Option<&Path>, started: Timestamp, id: &str) -> anyhow::Result<Self> {
        // The usual folder is there, also for who asks for a file in it.
        let usual = Self::usual(started, id)?;
        let Some(path) = wanted else { return Ok(usual) };
        Self::asked_for(settings, path, started, id).or_else(|error| {
            tell(&format!("{LOG}: {error:#}; the log goes to {}", usual.path().display()));
            Ok(usual)
        })
    }

    fn asked_for(settings: &Settings, path: &Path, started: Timestamp, id: &str) -> anyhow::Result<Self> {
        let in_it = |folder: &Path| Self::new(folder.to_owned(), default_name(started, id).into());
        let log = match (path.parent(), path.file_name()) {
            (Some(folder), Some(name)) if !settings.is_log_folder(path) => {
                let is_folder = is_folder(&open_folder(folder, Whose::Anybodys)?, name);
                if is_folder { in_it(path)? } else { Self::new(folder.to_owned(), name.into())? }
            }
            _ => in_it(path)?,
        };
        let (folder, name) = (log.open()?, log.path());
        let (made, _) = create(&folder).with_context(|| format!("can't write {}", name.display()))?;
        unlinkat(&folder, &*made, UnlinkatFlags::NoRemoveDir)?;
        Ok(log)
    }

    /// A new file in the folder for logs for which nobody has said where they go. The folder is made if need be.
    ///
    /// # Errors
    ///
    /// When it isn't there and can't be made.
    pub fn usual(started: Timestamp, id: &str) -> anyhow::Result<Self> {
        // Whatever the engine's umask is, nobody else writes there.
        DirBuilder::new().recursive(true).mode(0o755).create(LOG_FOLDER).context(LOG_FOLDER)?;
        Self::new(LOG_FOLDER.into(), default_name(started, id).into())
    }

    fn new(folder: PathBuf, name: PathBuf) -> anyhow::Result<Self> {
        let found = open_folder(&folder, Whose::Anybodys)?.metadata()?;
        Ok(Self { folder, device: found.dev(), inode: found.ino(), name })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// Writes a log: whole, or not at all.
    ///
    /// # Errors
    ///
    /// When the folder is another one than it was, or the log can't be written.
    pub fn write(&self, report: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec_pretty(report)?;
        text.push(b'\n');
        let folder = self.open()?;
        let (name, mut file) = create(&folder)?;
        let written = file.write_all(&text).and_then(|()| Ok(renameat(&folder, &*name, &folder, &self.name)?));
        if written.is_err() {
            // The first error is the one to tell.
            let _ = unlinkat(&folder, &*name, UnlinkatFlags::NoRemoveDir);
        }
        written.with_context(|| self.path().display().to_string())
    }

    /// The folder, if it is still the same one.
    fn open(&self) -> anyhow::Result<File> {
        let folder = open_folder(&self.folder, Whose::Anybodys)?;
        let found = folder.metadata()?;
        ensure!(
            (found.dev(), found.ino()) == (self.device, self.inode),
            "{}: not the folder that was there when the container was made",
            self.folder.display()
        );
        Ok(folder)
    }
}

fn default_name(started: Timestamp, id: &str) -> String {
    let id: String = id.chars().take(SHORT_ID).map(|c| if c == '/' { '_' } else { c }).collect();
    format!("{}-{id}.json", started.strftime("%Y%m%dT%H%M%S.%9fZ"))
}

fn is_folder(folder: &File, name: &OsStr) -> bool {
    let found = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    found.is_ok_and(|found| SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// Makes a new file, for its owner's eyes only, under a name that nobody has.
fn create(folder: &File) -> io::Result<(OsString, File)> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    for attempt in 0..ATTEMPTS {
        let name = OsString::from(format!(".guard-run-{}.{attempt}", std::process::id()));
        match openat(folder, &*name, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Err(Errno::EEXIST) => {}
            file => return Ok((name, file?.into())),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        (folder, path)
    }

    #[test]
    fn the_folder_must_be_the_one_that_was_noted() {
        let (_folder, path) = folder();
        let [logs, secret] = ["logs", "secret"].map(|name| path.join(name));
        fs::create_dir(&logs).unwrap();
        fs::create_dir(&secret).unwrap();
        let log = LogFile::new(logs.clone(), "x.json".into()).unwrap();
        log.write(&1).unwrap();
        assert_eq!(fs::read_to_string(logs.join("x.json")).unwrap(), "1\n");
        fs::rename(&logs, path.join("old")).unwrap();
        assert!(log.write(&2).is_err());
        symlink("secret", &logs).unwrap();
        assert!(format!("{:#}", log.write(&2).unwrap_err()).contains("symbolic link"));
        fs::remove_file(&logs).unwrap();
        fs::create_dir(&logs).unwrap();
        assert!(format!("{:#}", log.write(&2).unwrap_err()).contains("not the folder that was there"));
        for left in [&logs, &secret] {
            assert_eq!(fs::read_dir(left).unwrap().count(), 0, "{}", left.display());
        }
    }

    #[test]
    fn what_has_the_logs_name_is_replaced_and_not_followed() {
        let (_folder, path) = folder();
        fs::write(path.join("secret"), "secret").unwrap();
        let log = LogFile::new(path.clone(), "x.json".into()).unwrap();
        symlink("secret", path.join("x.json")).unwrap();
        log.write(&1).unwrap();
        assert_eq!(fs::read_to_string(path.join("secret")).unwrap(), "secret");
        assert!(fs::symlink_metadata(path.join("x.json")).unwrap().is_file());
        fs::remove_file(path.join("x.json")).unwrap();
        fs::create_dir(path.join("x.json")).unwrap();
        assert!(log.write(&2).is_err());
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2, "what is half written is removed");
    }
}
