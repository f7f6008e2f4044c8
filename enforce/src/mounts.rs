//! What is mounted where.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read as _},
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// The mounts of this process's namespace.
pub const MOUNTINFO: &str = "/proc/self/mountinfo";

/// What the types begin with of file systems that another process or machine answers for.
const ANSWERED_FOR: [&str; 12] =
    ["9p", "afs", "autofs", "ceph", "cifs", "coda", "fuse", "gfs2", "lustre", "nfs", "ocfs2", "smb"];

/// More bytes than most machines' lists of mounts have.
const ENOUGH: usize = 16 << 10;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its number, as /proc/PID/fdinfo has it.
    pub id: u32,
    /// The part of the file system that is mounted.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// The type of the file system.
    pub kind: String,
    /// The file system's own options, with commas between them; of cgroups of version 1, these are the controllers.
    pub options: String,
}

impl Mount {
    /// All mounts of this process's namespace, in the order in which the kernel lists them.
    ///
    /// # Errors
    ///
    /// When /proc doesn't tell.
    pub fn all() -> io::Result<Vec<Self>> {
        // The kernel puts the whole list together anew for every piece that is read.
        let mut text = Vec::with_capacity(ENOUGH);
        let mut list = fs::File::open(MOUNTINFO).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                io::Error::new(error.kind(), "nothing is there; mount the proc file system: mount -t proc proc /proc")
            }
            _ => error,
        })?;
        list.read_to_end(&mut text)?;
        Ok(Self::parse(&text))
    }

    /// Reads a mountinfo file (proc_pid_mountinfo(5)). No library is used: procfs 0.18 does not undo the escapes in mount points,
    /// and gives up on the whole file over one line that it does not understand.
    #[must_use]
    pub fn parse(text: &[u8]) -> Vec<Self> {
        text.split(|byte| *byte == b'\n').filter_map(Self::parse_line).collect()
    }

    fn parse_line(line: &[u8]) -> Option<Self> {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        // The optional fields end with a lone hyphen, which the type of the file system follows.
        let end = fields.iter().position(|field| *field == b"-").filter(|end| *end >= 6)?;
        let kind = String::from_utf8_lossy(fields.get(end + 1)?).into_owned();
        // Between the two is what is mounted.
        let options = String::from_utf8_lossy(fields.get(end + 3).unwrap_or(&&b""[..])).into_owned();
        let id = std::str::from_utf8(fields[0]).ok()?.parse().ok()?;
        Some(Self { id, root: unescape(fields[3]), point: unescape(fields[4]), kind, options })
    }

    /// Whether it may never answer: somebody else, who may hang, answers for it.
    #[must_use]
    pub fn may_be_silent(&self) -> bool {
        self.kind == "virtiofs" || ANSWERED_FOR.iter().any(|start| self.kind.starts_with(start))
    }

    /// Whether it is at a path or below.
    #[must_use]
    pub fn is_in(&self, path: &Path) -> bool {
        self.point.starts_with(path)
    }
}

/// A path of mountinfo, in which some bytes are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let escaped = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        path.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() { &rest[4..] } else { after };
    }
    PathBuf::from(OsString::from_vec(path))
}
