//! Things outside that are no processes: objects of the kernel that processes can share, a disk, a device node, mounts.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    mqueue::{MQ_OFlag, MqAttr, mq_open, mq_send, mq_unlink},
    sys::stat::{Mode, SFlag, makedev, mknod},
};

use crate::sys::{configure_loop, free_loop, ipc};

/// Where the kernel is told of kinds of files.
pub const FORMATS: &str = "/proc/sys/fs/binfmt_misc";
/// A node of /dev/zero's device.
pub const NODE: &str = "node";
/// The value of the semaphore.
pub const SEMAPHORE: i32 = 4711;

/// The POSIX message queue.
#[must_use]
pub fn queue_name(key: i32) -> String {
    format!("/guard-selftest-{key}")
}

/// The key in the user's keyring.
#[must_use]
pub fn key_name(key: i32) -> CString {
    CString::new(format!("guard-selftest-{key}")).expect("no NUL in it")
}

/// Objects of the kernel that processes can share, with a secret in them. They go away with this value.
#[derive(Default)]
pub struct Shared {
    memory: Option<i32>,
    queue: Option<i32>,
    semaphore: Option<i32>,
    posix: Option<String>,
    key: Option<i64>,
}

impl Shared {
    /// Makes those that this kernel has. What can't be made is missed by the attempts.
    #[must_use]
    pub fn new(key: i32, secret: &str) -> Self {
        let queue = ipc::make_queue(key, secret.as_bytes()).ok();
        let name = queue_name(key);
        let attributes = MqAttr::new(0, 4, 64, 0);
        let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_RDWR | MQ_OFlag::O_NONBLOCK;
        let posix = mq_open(name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR, Some(&attributes)).ok();
        // One for the control, and one for the guarded attempt.
        for _ in 0..2 {
            let _ = posix.as_ref().map(|queue| mq_send(queue, secret.as_bytes(), 1));
        }
        Self {
            memory: ipc::make_shared_memory(key, secret.as_bytes()).ok(),
            queue,
            semaphore: ipc::make_semaphore(key, SEMAPHORE).ok(),
            posix: posix.map(|_| name),
            key: ipc::add_key(&key_name(key), secret.as_bytes()).ok(),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.memory.into_iter().for_each(ipc::remove_shared_memory);
        self.queue.into_iter().for_each(ipc::remove_queue);
        self.semaphore.into_iter().for_each(ipc::remove_semaphore);
        if let Some(name) = &self.posix {
            let _ = mq_unlink(name.as_str());
        }
        self.key.into_iter().for_each(ipc::remove_key);
    }
}

/// A block device with a file behind it, which goes away with this value.
pub struct Disk {
    _device: File,
    /// The device's node.
    pub path: PathBuf,
}

impl Disk {
    /// Makes one, in a folder.
    ///
    /// # Errors
    ///
    /// Where there are no loop devices.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let file = folder.join("image");
        std::fs::write(&file, [7; 4096])?;
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        let file = File::open(file)?;
        let attempt = || {
            let path = PathBuf::from(format!("/dev/loop{}", free_loop(&control)?));
            let device = File::open(&path)?;
            configure_loop(&device, &file)?;
            Ok(Self { _device: device, path })
        };
        // Somebody else may have taken the free one in the meantime.
        (0..10).find_map(|_| attempt().ok()).map_or_else(attempt, Ok)
    }
}

/// The file system of POSIX message queues, mounted in a folder of its own: not in the self-test's, whose content is removed
/// at the end, since these are everybody's queues.
pub struct Queues {
    /// The folder.
    pub folder: PathBuf,
}

impl Queues {
    /// Mounts it, where a kernel has it.
    ///
    /// # Errors
    ///
    /// When there can be no folder for it.
    pub fn new() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("guard-selftest-queues-").tempdir()?.keep();
        let _ = mount(Some("none"), &folder, Some("mqueue"), MsFlags::empty(), None::<&str>);
        Ok(Self { folder })
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        let _ = umount2(&self.folder, MntFlags::MNT_DETACH);
        // Only if it is empty.
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// Mounts the file system by which the kernel is told what to execute for kinds of files, where it usually is and is not yet.
pub fn mount_formats() {
    if !Path::new(FORMATS).join("register").exists() {
        let _ = mount(Some("none"), FORMATS, Some("binfmt_misc"), MsFlags::empty(), None::<&str>);
    }
}

/// Makes the node of /dev/zero's device. Where the file system can't have it, the attempts miss it.
pub fn make_node(folder: &Path) {
    let _ = mknod(&folder.join(NODE), SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(1, 5));
}
