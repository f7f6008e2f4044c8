//! Ways to spell a Unix socket outside.

use std::{
    env, fs,
    fs::OpenOptions,
    os::{
        fd::AsRawFd as _,
        unix::fs::{OpenOptionsExt as _, symlink},
    },
    path::Path,
};

use nix::{
    mount::{MsFlags, mount},
    sys::socket::SockType,
    unistd::{chdir, chroot},
};

use crate::sys::socket::{connect, send_message, send_to};

use super::{
    attempt::{At as _, Outcome, Scene, abstract_address, own_mounts, path_address, unix},
    policies::UNIX,
    server::{DATAGRAMS, SEQUENCE, STREAM, datagrams_name, long_name, stream_name},
    vector::{Layer, Vector},
};

const fn vector(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, UNIX, attempt).stopped_by(Layer::Hook)
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    vector("stream", "connects to a path", |s| stream(s, &s.folder.join(STREAM))),
    vector("sequence", "connects to a path (SOCK_SEQPACKET)", |s| {
        s.tell_by(&unix(SockType::SeqPacket)?, &path_address(&s.folder.join(SEQUENCE)))
    }),
    vector("datagram", "sends a datagram to a path", |s| {
        let to = path_address(&s.folder.join(DATAGRAMS));
        send_to(&unix(SockType::Datagram)?, s.token.as_bytes(), 0, &to).at("sendto").map(|()| Vec::new())
    }),
    vector("datagram-connected", "connects a datagram socket to a path", |s| {
        s.tell_by(&unix(SockType::Datagram)?, &path_address(&s.folder.join(DATAGRAMS)))
    }),
    vector("datagram-message", "sends a datagram to a path (sendmsg)", |s| {
        let to = path_address(&s.folder.join(DATAGRAMS));
        send_message(&unix(SockType::Datagram)?, s.token.as_bytes(), &to, &[]).at("sendmsg").map(|()| Vec::new())
    }),
    vector("abstract", "connects to an abstract name", |s| {
        s.tell_by(&unix(SockType::Stream)?, &abstract_address(&stream_name(s.key)))
    }),
    vector("abstract-datagram", "sends a datagram to an abstract name", |s| {
        let to = abstract_address(&datagrams_name(s.key));
        send_to(&unix(SockType::Datagram)?, s.token.as_bytes(), 0, &to).at("sendto").map(|()| Vec::new())
    }),
    vector("relative", "connects to a relative path", |s| {
        chdir(&s.folder).at("chdir")?;
        stream(s, Path::new(STREAM))
    }),
    vector("dots", "connects to a path with dots in it", |s| stream(s, &s.folder.join("work/..").join(STREAM))),
    vector("link", "connects by a symbolic link", |s| {
        let link = s.work().join("link");
        symlink(s.folder.join(STREAM), &link).at("symlink")?;
        stream(s, &link)
    }),
    vector("hard-link", "connects by a hard link", |s| {
        let link = s.work().join("hard");
        fs::hard_link(s.folder.join(STREAM), &link).at("link")?;
        stream(s, &link)
    }),
    vector("descriptor", "connects by a descriptor of the folder (/proc/self/fd)", |s| {
        let folder = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&s.folder).at("open")?;
        stream(s, Path::new(&format!("/proc/self/fd/{}/{STREAM}", folder.as_raw_fd())))
    }),
    vector("socket-descriptor", "connects by a descriptor of the socket's file (O_PATH)", |s| {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(s.folder.join(STREAM)).at("open")?;
        stream(s, Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))
    }),
    vector("longest", "connects to a path that fills the address, without an end", |s| {
        chdir(&s.folder).at("chdir")?;
        stream(s, Path::new(&long_name()))
    }),
    vector("root", "connects after a change of root", |s| {
        chroot(&s.folder).at("chroot")?;
        env::set_current_dir("/").at("chdir")?;
        stream(s, &Path::new("/").join(STREAM))
    }),
    vector("bind-mount", "connects by a mount of the socket elsewhere", |s| {
        own_mounts(s)?;
        let at = s.work().join("file");
        fs::write(&at, "").at("create")?;
        mount(Some(&s.folder.join(STREAM)), &at, None::<&str>, MsFlags::MS_BIND, None::<&str>).at("mount")?;
        stream(s, &at)
    })
    .stopped_by(Layer::Seccomp),
    vector("root-of-other", "connects by the root folder of a process outside", |s| {
        let root = format!("/proc/{}/root", s.outsider()?.pid);
        let folder = s.folder.strip_prefix("/").unwrap_or(&s.folder);
        // The path of the folder may be too long behind that: by a descriptor of it.
        let folder =
            OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(Path::new(&root).join(folder)).at("open")?;
        stream(s, Path::new(&format!("/proc/self/fd/{}/{STREAM}", folder.as_raw_fd())))
    })
    .with_outsider()
    .stopped_by(Layer::Landlock),
    vector("autobound", "connects from a name that the kernel chooses", |s| {
        let socket = unix(SockType::Datagram)?;
        crate::sys::socket::bind(&socket, &1_u16.to_ne_bytes()).at("bind")?;
        connect(&socket, &abstract_address(&datagrams_name(s.key))).at("connect")?;
        s.send(&socket)
    }),
];

fn stream(scene: &Scene, path: &Path) -> Outcome {
    scene.tell_by(&unix(SockType::Stream)?, &path_address(path))
}
