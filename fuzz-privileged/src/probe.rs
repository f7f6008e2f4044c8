//! What the guarded command is: it says what it sees.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::world::FORBIDDEN;

/// The first word of this program's arguments when it is the guarded command. The folder to look at follows.
pub const ROLE: &str = "probe";

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Device and inode.
    pub file: (u64, u64),
    /// Type and permissions.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// When it was changed last, its name or permissions included: seconds and nanoseconds.
    pub changed: (i64, i64),
    /// A hash of what is in it; none where there is nothing to be read, or it can't be.
    pub content: Option<u64>,
}

/// What is seen from where a process is. An error is its number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    /// The files below a folder.
    pub files: BTreeMap<PathBuf, Result<Seen, i32>>,
    /// What the process's descriptors stand for: device and inode. -1 is the working directory.
    pub descriptors: BTreeMap<i32, (u64, u64)>,
    /// Capability sets and no_new_privs, as /proc/self/status has them.
    pub rights: BTreeMap<String, String>,
    /// Whether [`FORBIDDEN`] can be read.
    pub reads_forbidden: bool,
}

/// The names of the capability sets in /proc/self/status.
pub const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

/// The name of no_new_privs there.
pub const NO_NEW_PRIVILEGES: &str = "NoNewPrivs";

/// Prints what it sees below a folder, and its descriptors.
///
/// # Errors
///
/// When there is nobody to read it.
pub fn probe(folder: &Path) -> anyhow::Result<()> {
    let mut files = BTreeMap::new();
    look(folder, &mut files);
    let sight =
        Sight { files, descriptors: descriptors(), rights: rights(), reads_forbidden: fs::read(FORBIDDEN).is_ok() };
    println!("{}", serde_json::to_string(&sight)?);
    Ok(())
}

fn rights() -> BTreeMap<String, String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines = status.lines().filter_map(|line| line.split_once(":\t"));
    let wanted = lines.filter(|(name, _)| SETS.contains(name) || *name == NO_NEW_PRIVILEGES);
    wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

impl Sight {
    /// Reads what [`probe`] has printed.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
}

/// The number of the working directory among descriptors.
pub const WORKING: i32 = -1;

fn descriptors() -> BTreeMap<i32, (u64, u64)> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // The folder itself was among them.
    let paths = numbers.into_iter().map(|number| (number, format!("/proc/self/fd/{number}")));
    let paths = paths.chain([(WORKING, "/proc/self/cwd".to_owned())]);
    let files = paths.filter_map(|(number, path)| {
        let file = fs::metadata(path).ok()?;
        Some((number, (file.dev(), file.ino())))
    });
    files.collect()
}

/// Adds what can be seen below a folder, itself among it. Links are not followed.
pub fn look(path: &Path, files: &mut BTreeMap<PathBuf, Result<Seen, i32>>) {
    let seen = see(path).map_err(|error| error.raw_os_error().unwrap_or_default());
    let is_folder = seen.as_ref().is_ok_and(|seen| seen.mode & libc::S_IFMT == libc::S_IFDIR);
    files.insert(path.to_owned(), seen);
    if is_folder {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for entry in entries {
            look(&entry, files);
        }
    }
}

/// What is known of one file.
///
/// # Errors
///
/// As stat(2).
pub fn see(path: &Path) -> io::Result<Seen> {
    let metadata = path.symlink_metadata()?;
    let kind = metadata.file_type();
    let content = if kind.is_file() {
        content(path).ok()
    } else if kind.is_symlink() {
        fs::read_link(path).ok().map(|to| hash(to.as_os_str().as_encoded_bytes()))
    } else if kind.is_char_device() || kind.is_block_device() {
        Some(metadata.rdev())
    } else {
        None
    };
    Ok(Seen {
        file: (metadata.dev(), metadata.ino()),
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        content,
    })
}

fn content(path: &Path) -> io::Result<u64> {
    let mut text = Vec::new();
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?
        .read_to_end(&mut text)?;
    Ok(hash(&text))
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
