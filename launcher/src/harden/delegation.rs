//! Sockets of services that do things for whoever asks: asking one of them to run a command outside is the oldest way out. They
//! are covered, so that nobody answers there, unless a rule of the unix section allows them by name.

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::{ffi::OsStrExt as _, fs::FileTypeExt as _},
    path::{Path, PathBuf},
};

use common::unix;

use crate::{
    compile::UnixTables,
    policy::{Action, Section, UnixRule},
};

/// Where services of the system listen that run commands, start processes or containers, or have it done. `*` is any name.
const SYSTEM: [&str; 21] = [
    // D-Bus: systemd, polkit, package managers …
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
    "/run/systemd/io.systemd.*",
    "/run/systemd/machine/io.systemd.*",
    // Containers and virtual machines.
    "/run/docker.sock",
    "/run/docker/*.sock",
    "/run/podman/podman.sock",
    "/run/containerd/*.sock",
    "/run/crio/crio.sock",
    "/run/buildkit/buildkitd.sock",
    "/run/lxd.socket",
    "/var/lib/lxd/unix.socket",
    "/var/lib/incus/unix.socket",
    "/var/snap/lxd/common/lxd/unix.socket",
    "/run/libvirt/*",
    "/run/snapd.socket",
    "/run/snapd-snap.socket",
    // Terminals of others: tmux, screen.
    "/tmp/tmux-*/*",
    "/run/tmux/*/*",
    "/run/screen/*/*",
    // Build and configuration services.
    "/nix/var/nix/daemon-socket/socket",
];

/// Where those of a user do, below /run/user/UID.
const USER: [&str; 9] = [
    "bus",
    "dbus-1/*",
    "systemd/private",
    "systemd/io.systemd.*",
    "docker.sock",
    "podman/podman.sock",
    "buildkit/buildkitd.sock",
    "emacs/*",
    "vscode-*.sock",
];

/// Variables that name such a socket, and what comes before its path in them.
const VARIABLES: [(&str, &str); 5] = [
    ("DBUS_SESSION_BUS_ADDRESS", "unix:path="),
    ("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="),
    ("DOCKER_HOST", "unix://"),
    ("CONTAINER_HOST", "unix://"),
    ("TMUX", ""),
];

/// Where to look.
pub struct Doors {
    /// Below this folder, for tests; `/` otherwise.
    root: PathBuf,
    /// Paths that the environment names.
    named: Vec<PathBuf>,
}

impl Doors {
    /// Those of this machine, and of this process's environment.
    #[must_use]
    pub fn host() -> Self {
        let named = VARIABLES.iter().filter_map(|(name, prefix)| {
            let value = env::var(name).ok()?;
            // What follows a path: other properties, or other addresses.
            value.strip_prefix(prefix)?.split([',', ';']).next().map(PathBuf::from)
        });
        Self { root: "/".into(), named: named.collect() }
    }
}

/// The sockets that are there, by their real paths, but for those that a rule of the policy's unix section allows.
#[must_use]
pub fn delegation_sockets(doors: &Doors, unix: Option<&Section<UnixRule>>) -> Vec<PathBuf> {
    let system = SYSTEM.iter().flat_map(|pattern| matching(&doors.root, pattern));
    let users = matching(&doors.root, "/run/user/*");
    let users = users.iter().flat_map(|folder| USER.iter().flat_map(|pattern| matching(folder, pattern)));
    let found = system.chain(users).chain(doors.named.iter().cloned());
    let sockets = found.filter(|path| path.metadata().is_ok_and(|file| file.file_type().is_socket()));
    let real: BTreeSet<PathBuf> = sockets.filter_map(|path| path.canonicalize().ok()).collect();
    // Were all others denied, what is allowed is so by a rule.
    let rules = unix.map(|section| Section { default: Action::Deny, rules: section.rules.clone() });
    let allowed = rules.and_then(|rules| UnixTables::compile(&rules).ok());
    real.into_iter().filter(|path| !allowed.as_ref().is_some_and(|rules| allows(rules, path))).collect()
}

/// The files below a folder whose path is like a pattern.
fn matching(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        found = match part.split_once('*') {
            None => found.into_iter().map(|path| path.join(part)).collect(),
            Some((start, end)) => found.iter().flat_map(|folder| entries(folder, start, end)).collect(),
        };
    }
    found
}

fn entries(folder: &Path, start: &str, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let is_like = |name: &[u8]| name.strip_prefix(start.as_bytes()).is_some_and(|rest| rest.ends_with(end.as_bytes()));
    entries.filter(|entry| is_like(entry.file_name().as_bytes())).map(|entry| entry.path()).collect()
}

fn allows(rules: &UnixTables, path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    let mut name = [0; unix::NAME_LEN];
    let (Some(room), Ok(length)) = (name.get_mut(..bytes.len()), u32::try_from(bytes.len())) else { return false };
    room.copy_from_slice(bytes);
    rules.decide(&unix::Peer { kind: unix::Kind::PATH, length, name: &name }).allow
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::policy::Document;

    #[test]
    fn sockets_are_found_where_they_are_and_files_of_other_kinds_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("its path");
        for name in ["run/docker", "run/user/7/podman", "tmp/tmux-7", "var"] {
            fs::create_dir_all(root.join(name)).expect("a folder");
        }
        // In the order of their paths.
        let sockets = ["run/docker/x.sock", "run/docker.sock", "run/user/7/podman/podman.sock", "tmp/tmux-7/default"];
        let listeners: Vec<_> = sockets.iter().map(|name| UnixListener::bind(root.join(name)).expect(name)).collect();
        fs::write(root.join("run/docker/y.sock"), "").expect("a file");
        std::os::unix::fs::symlink("/run", root.join("var/run")).expect("a link");
        let doors = Doors { root: root.clone(), named: vec![root.join("run/docker.sock"), root.join("missing")] };
        let found = delegation_sockets(&doors, None);
        assert_eq!(found, sockets.map(|name| root.join(name)));
        drop(listeners);

        let policy = format!(
            r#"{{"version": 1, "unix": {{"default": "allow", "rules": [{{"action": "allow", "paths": ["{}/run/docker.sock"]}}]}}}}"#,
            root.display()
        );
        let policy = Document::new(Path::new("test"), policy.into()).parse().expect("a policy");
        let found = delegation_sockets(&doors, policy.unix.as_ref());
        assert_eq!(found, [0, 2, 3].map(|index| sockets[index]).iter().map(|name| root.join(name)).collect::<Vec<_>>());
    }
}
