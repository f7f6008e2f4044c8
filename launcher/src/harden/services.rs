//! Where services have their sockets that run commands for anybody who asks, start processes or containers, or have it done. A new
//! service is a line here; [`delegation`](super::delegation) finds what of it is there.

/// Where services of the system listen that run commands, start processes or containers, or have it done: a folder, and what is
/// below it. `*` is any name.
pub(super) const SYSTEM: [(&str, &[&str]); 4] = [
    (
        "/run",
        &[
            // D-Bus: systemd, polkit, package managers …
            "dbus/system_bus_socket",
            "systemd/private",
            "systemd/io.systemd.*",
            "systemd/machine/io.systemd.*",
            // Its rules run programs.
            "udev/control",
            "udev/io.systemd.*",
            // Containers and virtual machines.
            "docker.sock",
            "docker/*.sock",
            "docker/containerd/*.sock",
            "podman/podman.sock",
            "containerd/*.sock",
            "containerd/containerd.sock.ttrpc",
            // The shims', one for each container: they execute programs in it.
            "containerd/s/*",
            "k3s/containerd/*.sock",
            "k3s/containerd/containerd.sock.ttrpc",
            "cri-dockerd.sock",
            "crio/crio.sock",
            "buildkit/buildkitd.sock",
            "lxd.socket",
            "libvirt/*",
            "snapd.socket",
            "snapd-snap.socket",
            // PHP's process manager runs any script that it is named: Debian's and Fedora's folders, and others' files.
            "php*/*.sock",
            "php*.sock",
        ],
    ),
    ("/var/lib", &["lxd/unix.socket", "incus/unix.socket"]),
    ("/var/snap", &["lxd/common/lxd/unix.socket", "microk8s/common/run/containerd.sock"]),
    // Builds are run by it.
    ("/nix/var/nix", &["daemon-socket/socket"]),
];

/// Services that are asked for host names in place of a nameserver: their names, folders, and their sockets there. What they answer is
/// learnt by nobody, and they ask nameservers for anything.
pub(crate) const RESOLVERS: [(&str, &str, &str); 3] = [
    ("systemd-resolved", "/run/systemd/resolve", "io.systemd.*"),
    ("nscd", "/run/nscd", "socket"),
    ("avahi", "/run/avahi-daemon", "socket"),
];

/// Where those of a user do, below /run/user/UID or what XDG_RUNTIME_DIR names.
pub(super) const USER: [&str; 17] = [
    "bus",
    "dbus-1/*",
    "systemd/private",
    "systemd/io.systemd.*",
    "docker.sock",
    "podman/podman.sock",
    "buildkit/buildkitd.sock",
    "libvirt/*",
    // Editors.
    "emacs/*",
    "vscode-*.sock",
    "nvim.*",
    // Window managers start programs.
    "sway-ipc.*",
    "i3/ipc-socket.*",
    "hypr/*/.socket.sock",
    // gpg-agent executes the program that its configuration names as pinentry, and reads that anew when it is asked. Its
    // restricted sockets and the one for SSH do no more than use keys, like an SSH agent's, and are not covered.
    "gnupg/S.gpg-agent",
    "gnupg/d.*/S.gpg-agent",
    "tmux-*/*",
];

/// How the folders of users are told apart.
#[derive(Clone, Copy)]
pub(super) enum By {
    /// As 1000.
    Number,
    /// As root.
    Name,
}

/// Where users have folders of their own beside each other: the folder for all, what their names begin with, what comes then,
/// and where in them the sockets are.
pub(super) const SHARED: [(&str, &str, By, &str); 5] = [
    ("/tmp", "tmux-", By::Number, "*"),
    ("/tmp", "emacs", By::Number, "*"),
    // Without a XDG_RUNTIME_DIR.
    ("/tmp", "nvim.", By::Name, "*/nvim.*"),
    ("/run/tmux", "", By::Number, "*"),
    ("/run/screen", "S-", By::Name, "*"),
];

/// Where the first user makes a folder, in /tmp: Hyprland's before 2024.
pub(super) const FIRST: (&str, &str) = ("/tmp", "hypr/*/.socket.sock");

/// The folders of users' sessions, by number. Only root makes them.
pub(super) const RUNTIME: &str = "/run/user";

/// Variables that name such a socket, and what comes before its path in them.
pub(super) const VARIABLES: [(&str, &str); 10] = [
    ("DBUS_SESSION_BUS_ADDRESS", "unix:path="),
    ("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="),
    ("DOCKER_HOST", "unix://"),
    ("CONTAINER_HOST", "unix://"),
    ("TMUX", ""),
    ("NVIM", ""),
    ("NVIM_LISTEN_ADDRESS", ""),
    ("SWAYSOCK", ""),
    ("I3SOCK", ""),
    ("VSCODE_IPC_HOOK_CLI", ""),
];

/// Variables that name a folder, and where in it such a socket is.
pub(super) const FOLDERS: [(&str, &[&str]); 3] =
    [("XDG_RUNTIME_DIR", &USER), ("GNUPGHOME", &[GPG_AGENT]), ("HOME", HOME)];

/// gpg-agent's socket, in GnuPG's folder.
pub(super) const GPG_AGENT: &str = "S.gpg-agent";

/// Where in a user's home, for lack of a folder of the session's.
pub(super) const HOME: &[&str] = &[".gnupg/S.gpg-agent"];
