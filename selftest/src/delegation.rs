//! Having somebody outside do it, or sharing memory with somebody outside: by what is there for processes to meet. The
//! policy says nothing about any of it.

use std::{path::Path, time::Duration};

use nix::{
    mqueue::{MQ_OFlag, mq_open, mq_receive},
    sys::{socket::SockType, stat::Mode},
};
use policy::Part;

use crate::sys::{
    ipc::{read_key, read_queue, read_semaphore, read_shared_memory, request_key},
    socket::connect,
};

use super::{
    attempt::{At as _, Outcome, Stop, abstract_address, open_and_read, path_address, unix},
    object::{SEMAPHORE, key_name, queue_name},
    policies::{NOTHING, UNIX},
    server::{AGENT, BUS, BUS_FOLDER, EDITOR, RESTARTED, stream_name},
    vector::{Evidence, Layer, Vector},
};

const fn vector(name: &'static str, shows: &'static str, layer: Layer, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, NOTHING, attempt).seen_by(Evidence::Told).stopped_by(layer)
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    vector("shared-memory", "System V shared memory", Layer::IpcNamespace, |s| read_shared_memory(s.key).at("shmget")),
    vector("message-queue", "a System V message queue", Layer::IpcNamespace, |s| read_queue(s.key).at("msgget")),
    vector("semaphore", "a System V semaphore", Layer::IpcNamespace, |s| match read_semaphore(s.key).at("semget")? {
        SEMAPHORE => Ok(Vec::new()),
        _ => Err(Stop::because("not that semaphore")),
    })
    .seen_by(Evidence::Word),
    vector("posix-queue", "a POSIX message queue", Layer::IpcNamespace, |s| {
        let name = queue_name(s.key);
        let queue = mq_open(name.as_str(), MQ_OFlag::O_RDONLY | MQ_OFlag::O_NONBLOCK, Mode::empty(), None);
        let mut message = [0; 64];
        let length = mq_receive(&queue.at("mq_open")?, &mut message, &mut 0).at("mq_receive")?;
        Ok(message[..length].to_vec())
    }),
    vector("posix-queue-file", "the same by the file system in which it is", Layer::Mounts, |s| {
        open_and_read(&s.queues.join(queue_name(s.key).trim_start_matches('/')))
    })
    .seen_by(Evidence::Word),
    vector("key", "a key in the user's keyring", Layer::Seccomp, |s| read_key(&key_name(s.key)).at("keyctl")),
    vector("requested-key", "a key that the kernel looks for (request_key)", Layer::Seccomp, |s| {
        request_key(&key_name(s.key)).at("request_key").map(|_| Vec::new())
    })
    .seen_by(Evidence::Word),
    vector("abstract-socket", "an abstract Unix socket, which no file system hides", Layer::Landlock, |s| {
        s.tell_by(&unix(SockType::Stream)?, &abstract_address(&stream_name(s.key)))
    })
    .seen_by(Evidence::Heard)
    .unless(Part::AbstractSockets),
    vector(
        "session-bus",
        "a service that an environment variable names (DBUS_SESSION_BUS_ADDRESS)",
        Layer::Mounts,
        |s| s.tell_by(&unix(SockType::Stream)?, &path_address(&s.folder.join(BUS))),
    )
    .seen_by(Evidence::Heard),
    vector("editor", "an editor, which runs what it is told (NVIM)", Layer::Mounts, |s| {
        s.tell_by(&unix(SockType::Stream)?, &path_address(&s.folder.join(EDITOR)))
    })
    .seen_by(Evidence::Heard),
    vector("gpg-agent", "gpg-agent, which runs the program that its configuration names", Layer::Mounts, |s| {
        s.tell_by(&unix(SockType::Stream)?, &path_address(&s.folder.join(AGENT)))
    })
    .seen_by(Evidence::Heard),
    vector("session-bus-link", "a message bus by a hard link to its socket", Layer::Mounts, |s| {
        let link = s.folder.join("bus-link");
        std::fs::hard_link(s.folder.join(BUS), &link).at("link")?;
        let told = s.tell_by(&unix(SockType::Stream)?, &path_address(&link));
        let _ = std::fs::remove_file(link);
        told
    })
    .seen_by(Evidence::Heard),
    vector("session-bus-moved", "the same after moving the folder that it is in", Layer::Mounts, |s| {
        let moved = s.folder.join("moved");
        std::fs::rename(s.folder.join(BUS_FOLDER), &moved).at("rename")?;
        let name = Path::new(BUS).file_name().expect("it has a name");
        let told = s.tell_by(&unix(SockType::Stream)?, &path_address(&moved.join(name)));
        let _ = std::fs::rename(moved, s.folder.join(BUS_FOLDER));
        told
    })
    .seen_by(Evidence::Heard),
    // Its new socket is not covered: the promise is only that no Unix socket is reached where none may be.
    vector("session-bus-restarted", "the same after the service has begun anew", Layer::Hook, |s| {
        let new = s.folder.join(RESTARTED);
        for _ in 0..100 {
            if new.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        s.tell_by(&unix(SockType::Stream)?, &path_address(&s.folder.join(BUS)))
    })
    .seen_by(Evidence::Heard)
    .under(UNIX)
    .restarting(),
    vector(
        "service-socket",
        "the message bus, a container engine or another service that starts programs",
        Layer::Hook,
        |_| services(),
    )
    .seen_by(Evidence::Word),
];

/// Sockets of services that do what they are asked, and as whom they are asked to.
const SERVICES: [&str; 11] = [
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
    "/run/systemd/io.systemd.Manager",
    "/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/cri-dockerd.sock",
    "/run/crio/crio.sock",
    "/run/libvirt/libvirt-sock",
    "/run/snapd.socket",
];

/// Connects to the first that is there, and says nothing to it.
fn services() -> Outcome {
    let mut last = Err(Stop::because("none of these services runs here"));
    for path in SERVICES {
        match connect(&unix(SockType::Stream)?, &path_address(path.as_ref())).at("connect") {
            Ok(()) => return Ok(Vec::new()),
            Err(stop) if stop.errno.as_deref() == Some("ENOENT") => {}
            Err(stop) => last = Err(stop),
        }
    }
    last
}
