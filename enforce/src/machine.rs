//! What a policy may ask of the machine that guard-run runs on.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use common::device;
use policy::{DeviceNode, Machine, Surroundings};

/// The machine that guard-run runs on, seen with the rights that are in effect.
#[derive(Clone, Copy, Debug)]
pub struct ThisMachine;

impl Machine for ThisMachine {
    fn device(&self, path: &Path) -> Result<DeviceNode, String> {
        device_at(path).map_err(|error| reason(&error))
    }

    fn surroundings(&self) -> Result<Surroundings, String> {
        Ok(Surroundings::parse(&read("/etc/resolv.conf")?, &read("/etc/hosts")?))
    }

    fn real_path(&self, path: &Path) -> PathBuf {
        real_path(path)
    }
}

/// The path of what a path leads to. What is not there, or can't be looked at, is what it says.
#[must_use]
pub fn real_path(path: &Path) -> PathBuf {
    let real = |known: &Path| -> io::Result<PathBuf> {
        let rest = path.strip_prefix(known).map_err(io::Error::other)?;
        let real = known.canonicalize()?;
        Ok(if rest.as_os_str().is_empty() { real } else { real.join(rest) })
    };
    path.ancestors().find_map(|known| real(known).ok()).unwrap_or_else(|| path.to_owned())
}

/// A file of the resolver's, which has nothing to say if it isn't there.
fn read(path: &str) -> Result<String, String> {
    match fs::read(path) {
        Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(format!("{path}, which says how they are resolved, can't be read: {}", reason(&error))),
    }
}

/// An error without its number.
fn reason(error: &io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_owned()
}

fn device_at(path: &Path) -> io::Result<DeviceNode> {
    let metadata = fs::metadata(path)?;
    let kind = if metadata.file_type().is_block_device() {
        device::Type::Block
    } else if metadata.file_type().is_char_device() {
        device::Type::Char
    } else {
        return Err(io::Error::other("no device node"));
    };
    let number = metadata.rdev();
    // Both fit: the kernel has 12 and 20 bits for them.
    Ok(DeviceNode { kind, major: libc::major(number), minor: libc::minor(number) })
}
