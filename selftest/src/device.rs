//! Ways to a device that the policy forbids: /dev/zero, or any block device.

use std::{
    fs::{self, File, OpenOptions},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::PathBuf,
};

use nix::{
    mount::{MsFlags, mount},
    sys::stat::{Mode, SFlag, makedev, mknod},
};

use crate::sys::{configure_loop, free_loop, handle_of, mount_nowhere, open_by_handle, open_raw, openat2};

use super::{
    attempt::{At as _, Scene, Stop, c_string, open_and_read, own_mounts, read},
    object::NODE,
    policies::{BLOCKS, DEVICES},
    vector::{Evidence, Layer, Vector},
};

const ZERO: &str = "/dev/zero";

const fn vector(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, DEVICES, attempt).seen_by(Evidence::Word).stopped_by(Layer::Hook)
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    vector("open", "opens it", |_| open_and_read(ZERO.as_ref())),
    vector("openat2", "opens it (openat2)", |_| read(&openat2(c"/dev/zero", libc::O_RDONLY).at("openat2")?)),
    vector("spelling", "opens it by another spelling (/proc/self/root/dev/../dev/zero)", |_| {
        open_and_read("/proc/self/root/dev/../dev/zero".as_ref())
    }),
    vector("link", "opens it by a symbolic link", |s| {
        let link = s.work().join("link");
        std::os::unix::fs::symlink(ZERO, &link).at("symlink")?;
        open_and_read(&link)
    }),
    vector("path", "opens its path, and then that (O_PATH, /proc/self/fd)", |_| {
        let path = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(ZERO).at("open")?;
        open_and_read(format!("/proc/self/fd/{}", path.as_raw_fd()).as_ref())
    }),
    vector("ioctl-only", "opens it neither for reading nor for writing", |_| {
        let device = open_raw(c"/dev/zero", 3).at("open")?;
        let metadata = File::from(device).metadata().at("fstat")?;
        if metadata.file_type().is_char_device() { Ok(Vec::new()) } else { Err(Stop::because("not the device")) }
    }),
    vector("mknod", "makes a node of its own", |s| {
        let node = s.work().join("node");
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        mknod(&node, SFlag::S_IFCHR, mode, makedev(1, 5)).at("mknod")?;
        open_and_read(&node)
    }),
    vector("other-node", "opens a node that somebody else made", |s| open_and_read(&s.folder.join(NODE))),
    vector("hard-link", "opens a hard link to a node", |s| {
        let link = s.work().join("hard");
        fs::hard_link(s.folder.join(NODE), &link).at("link")?;
        open_and_read(&link)
    }),
    vector("bind-mount", "mounts it elsewhere", |s| {
        own_mounts(s)?;
        let at = s.work().join("file");
        File::create(&at).at("create")?;
        mount(Some(ZERO), &at, None::<&str>, MsFlags::MS_BIND, None::<&str>).at("mount")?;
        open_and_read(&at)
    })
    .stopped_by(Layer::Seccomp),
    vector("overlay", "mounts a file system over the one it is in", |s| {
        own_mounts(s)?;
        let work = s.work();
        mount(Some("none"), &work, Some("tmpfs"), MsFlags::empty(), None::<&str>).at("mount")?;
        for name in ["upper", "scratch", "merged"] {
            fs::create_dir(work.join(name)).at("mkdir")?;
        }
        let (folder, work) = (s.folder.display(), work.display());
        let options = format!("lowerdir={folder},upperdir={work}/upper,workdir={work}/scratch");
        let merged = s.work().join("merged");
        mount(Some("none"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str())).at("mount overlay")?;
        open_and_read(&merged.join(NODE))
    })
    .stopped_by(Layer::Seccomp),
    vector("devtmpfs", "mounts another /dev", |s| {
        own_mounts(s)?;
        mount(Some("none"), &s.work(), Some("devtmpfs"), MsFlags::empty(), None::<&str>).at("mount")?;
        open_and_read(&s.work().join("zero"))
    })
    .stopped_by(Layer::Seccomp),
    vector("devtmpfs-nowhere", "mounts another /dev, but nowhere (fsmount)", |_| {
        let root = mount_nowhere(c"devtmpfs").at("fsopen")?;
        open_and_read(format!("/proc/self/fd/{}/zero", root.as_raw_fd()).as_ref())
    })
    .stopped_by(Layer::Seccomp),
    vector("handle", "opens it by its file handle", |s| {
        let (kind, handle) = handle_of(&c_string(&s.folder.join(NODE))).at("name_to_handle_at")?;
        let mount = File::open(&s.folder).at("open")?;
        read(&open_by_handle(&mount, kind, &handle, libc::O_RDONLY).at("open_by_handle_at")?)
    })
    .stopped_by(Layer::Seccomp),
    vector("root-of-other", "by the root folder of a process outside", |s| {
        open_and_read(format!("/proc/{}/root{ZERO}", s.outsider()?.pid).as_ref())
    })
    .with_outsider()
    .stopped_by(Layer::Landlock),
    vector("file-of-other", "by an open file of a process outside (/proc/PID/fd)", |s| {
        let other = s.outsider()?;
        open_and_read(format!("/proc/{}/fd/{}", other.pid, other.device).as_ref())
    })
    .with_outsider()
    .stopped_by(Layer::Landlock),
    vector("disk", "reads a disk", |s| open_and_read(&disk(s)?)).under(BLOCKS),
    vector("disk-node", "reads a disk by a node of its own", |s| {
        let device = fs::metadata(disk(s)?).at("stat")?.rdev();
        let node = s.work().join("disk");
        mknod(&node, SFlag::S_IFBLK, Mode::S_IRUSR, device).at("mknod")?;
        open_and_read(&node)
    })
    .under(BLOCKS),
    vector("loop", "reads a file by a loop device of its own", |s| {
        let file = s.work().join("image");
        fs::write(&file, [7; 4096]).at("write")?;
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control").at("open")?;
        let number = free_loop(&control).at("LOOP_CTL_GET_FREE")?;
        let device = File::open(format!("/dev/loop{number}")).at("open the loop device")?;
        configure_loop(&device, &File::open(&file).at("open")?).at("LOOP_CONFIGURE")?;
        read(&device)
    })
    .under(BLOCKS),
];

/// A block device that was there before.
fn disk(scene: &Scene) -> Result<PathBuf, Stop> {
    scene.disk.clone().ok_or_else(|| Stop::because("no loop devices"))
}
