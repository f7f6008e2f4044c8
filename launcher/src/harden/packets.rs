//! Device nodes by which packets leave and arrive without a socket, so that no rule on the network is asked: root may open them, and some
//! of them everybody. Where the policy has rules on the network, the command doesn't see them. What a filter of system calls can tell
//! apart, such as attaching to a TUN device, is refused there instead.

use std::{fs, io, path::Path};

use super::place::Place;

/// Where device nodes are.
const DEVICES: &str = "/dev";

/// Folders of devices: network cards with queues of a process's own (RDMA), those that a process serves for the kernel (VDUSE), and disks
/// that are reached by Ethernet frames (AoE).
const FOLDERS: [&str; 3] = ["infiniband", "vduse", "etherd"];

/// Single nodes: by this one, the kernel connects to a host for anybody who writes there.
const NODES: [&str; 1] = ["nvme-fabrics"];

/// What begins the name of a network device's own node (macvtap, ipvtap): the device's number follows.
const TAP: &str = "tap";

/// What is to be hidden.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hidden {
    /// Folders, with all that is or will be in them.
    pub folders: Vec<Place>,
    /// Nodes.
    pub nodes: Vec<Place>,
}

/// Looks which of them this machine has now.
///
/// # Errors
///
/// When there are device nodes, and they can't be listed.
pub(super) fn find() -> io::Result<Hidden> {
    look(Path::new(DEVICES))
}

fn look(devices: &Path) -> io::Result<Hidden> {
    let there = |names: &[&str]| -> Vec<Place> {
        names.iter().map(|name| devices.join(name)).filter(|path| path.exists()).map(Place::from).collect()
    };
    let mut hidden = Hidden { folders: there(&FOLDERS), nodes: there(&NODES) };
    let entries = match fs::read_dir(devices) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(hidden),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if is_tap(&path) {
            hidden.nodes.push(path.into());
        }
    }
    Ok(hidden)
}

fn is_tap(path: &Path) -> bool {
    let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(TAP));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_and_carries_packets_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let devices = folder.path();
        assert_eq!(look(devices).expect("it is ours"), Hidden::default());
        assert_eq!(look(&devices.join("none")).expect("nothing"), Hidden::default());
        fs::create_dir(devices.join("infiniband")).expect("it is ours");
        for name in ["null", "tap", "tap12", "tape0", "tap1x", "nvme-fabrics", "nvme0"] {
            fs::write(devices.join(name), "").expect("it is ours");
        }
        let mut hidden = look(devices).expect("it is ours");
        hidden.nodes.sort_unstable();
        let places = |names: &[&str]| -> Vec<Place> { names.iter().map(|name| devices.join(name).into()).collect() };
        assert_eq!(hidden, Hidden { folders: places(&["infiniband"]), nodes: places(&["nvme-fabrics", "tap12"]) });
    }
}
