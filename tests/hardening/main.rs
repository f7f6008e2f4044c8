//! What keeps a command inside beside the programs on its cgroup.

mod covered;
mod diagnose;
mod different;
mod harden;
mod interlock;
mod moved;
mod needs;
mod nested;
mod proc;
mod refusals;
mod silent;

/// Puts a folder of its own where services of the system have their sockets: one listens at /run/docker.sock, to which /run/link leads.
const OWN_RUN: [&str; 6] = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount -t tmpfs none /mnt && mkdir /mnt/run && mount --rbind /run /mnt/run && mount -t tmpfs none /run &&
for name in /mnt/run/*; do ln -s $name /run/; done; rm -f /run/docker.sock; exec /usr/bin/python3 -c \"import os, socket, subprocess, sys
listener = socket.socket(socket.AF_UNIX); listener.bind('/run/docker.sock'); listener.listen()
os.symlink('/run/docker.sock', '/run/link')
sys.exit(subprocess.call(sys.argv[1:]))\" \"$@\"",
    "sh",
];
