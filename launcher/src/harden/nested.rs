//! A guard in a guard: what the outer one has to leave to its command, so that the command can be a guard-run as well.

use std::path::Path;

use caps::{CapSet, Capability};
use enforce::mounts::Mount;
use nix::sys::statvfs::{FsFlags, statvfs};
use policy::Part;
use serde_json::json;

/// The parts of the outer policy that the inner guard-run needs: it makes a cgroup, loads programs, and makes namespaces.
const PARTS: [Part; 3] = [Part::Namespaces, Part::Bpf, Part::Cgroups];

/// The capabilities that it needs.
const CAPABILITIES: [Capability; 4] =
    [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON, Capability::CAP_SYS_ADMIN];

/// This process is in another guard, which has not left it what it needs.
#[derive(Debug, thiserror::Error)]
#[error(
    "this is inside another guard-run, whose policy would have to say \"process\": {{\"allow\": {}, \"capabilities\": {}}} for one in \
     it; by these, a command that is no guard-run can get out of the outer one",
    json!(PARTS),
    json!(CAPABILITIES.map(|capability| capability.to_string()))
)]
pub struct Nested;

/// Makes sure that this process is in no guard that has not left it what it needs, as far as that is to be seen: the cgroup file system is
/// mounted here.
///
/// # Errors
///
/// When it is.
pub fn check(mounts: &[Mount], cgroups: &Path) -> Result<(), Nested> {
    let is_read_only = statvfs(cgroups).is_ok_and(|system| system.flags().contains(FsFlags::ST_RDONLY));
    let permitted = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let has_all = CAPABILITIES.iter().all(|capability| permitted.contains(capability));
    if is_inside(mounts) && (is_read_only || !has_all) { Err(Nested) } else { Ok(()) }
}

/// Whether this process is in a guard: its guard-run's files in /proc are mounted read-only, one process's alone (view.rs).
fn is_inside(mounts: &[Mount]) -> bool {
    mounts.iter().any(|mount| {
        let number = mount.root.file_name().and_then(|name| name.to_str()).filter(|_| mount.kind == "proc");
        let is_process = |number: &str| number.bytes().all(|byte| byte.is_ascii_digit());
        number.is_some_and(|number| {
            is_process(number) && mount.point.ends_with(number) && mount.root.components().count() == 2
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_told_by_its_own_files_in_proc() {
        let inside = |text: &[u8]| is_inside(&Mount::parse(text));
        assert!(inside(b"40 20 0:5 /4711 /proc/4711 ro - proc proc rw\n"));
        assert!(!inside(b"20 1 0:5 / /proc rw - proc proc rw\n41 20 0:5 /sys /proc/sys ro - proc proc rw\n"));
        assert!(!inside(b"40 20 0:5 /4711 /mnt ro - proc proc rw\n40 20 8:1 /4711 /proc/4711 ro - ext4 /dev/vda rw\n"));
    }

    #[test]
    fn what_is_missing_is_said_as_it_is_written() {
        let text = Nested.to_string();
        assert!(
            text.contains(r#""process": {"allow": ["namespaces","bpf","cgroups"], "capabilities": ["CAP_BPF","#),
            "{text}"
        );
    }
}
