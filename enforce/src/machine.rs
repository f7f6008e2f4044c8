//! What a policy may ask of the machine that guard-run runs on.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use common::device;
use policy::{DeviceNode, Machine};

/// The machine that guard-run runs on, seen with the rights that are in effect.
#[derive(Clone, Copy, Debug)]
pub struct ThisMachine;

impl Machine for ThisMachine {
    fn device(&self, path: &Path) -> Result<DeviceNode, String> {
        device_at(path).map_err(|error| {
            let reason = error.to_string();
            reason.split(" (os error").next().unwrap_or_default().to_owned()
        })
    }
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
