//! Ways to the kernel's tunables: to a value that the policy hides (`kernel/random/boot_id`), and to writing what has the
//! kernel start a program outside. Nothing is changed: what is written is what is there, and what is made is empty and removed.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{SpliceFFlags, splice},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        memfd::{MFdFlags, memfd_create},
        sendfile::sendfile,
        uio::readv,
        utsname::uname,
        wait::waitpid,
    },
    unistd::pipe,
};
use policy::Part;

use crate::sys::{exit_now, fork, mount_nowhere, read_aio};

use super::{
    attempt::{At as _, Outcome, Stop, open_and_read, own_mounts, read},
    object::FORMATS,
    policies::{NOTHING, SYSCTLS},
    vector::{Evidence, Layer, Vector},
};

/// The tunable whose value is hidden. It is another one after each boot.
pub const HIDDEN: &str = "/proc/sys/kernel/random/boot_id";

const fn vector(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, SYSCTLS, attempt).seen_by(Evidence::Tunable).stopped_by(Layer::Hook)
}

const fn written(name: &'static str, shows: &'static str, attempt: super::vector::Attempt) -> Vector {
    Vector::new(name, shows, NOTHING, attempt).seen_by(Evidence::Word).stopped_by(Layer::Hook)
}

/// The vectors.
pub const VECTORS: &[Vector] = &[
    vector("read", "reads it", |_| open_and_read(HIDDEN.as_ref())),
    vector("pread", "reads it from an offset", |_| {
        let mut bytes = [0; 64];
        let length = File::open(HIDDEN).at("open")?.read_at(&mut bytes, 0).at("pread")?;
        Ok(bytes[..length].to_vec())
    }),
    vector("readv", "reads it into pieces", |_| {
        let (mut first, mut second) = ([0; 8], [0; 56]);
        let mut pieces = [std::io::IoSliceMut::new(&mut first), std::io::IoSliceMut::new(&mut second)];
        readv(File::open(HIDDEN).at("open")?, &mut pieces).at("readv")?;
        Ok([&first[..], &second].concat())
    }),
    vector("splice", "moves it into a pipe", |_| {
        let (reader, writer) = pipe().at("pipe")?;
        splice(File::open(HIDDEN).at("open")?, None, &writer, None, 64, SpliceFFlags::empty()).at("splice")?;
        read(&reader)
    }),
    vector("sendfile", "moves it into a file", |_| {
        let memory = File::from(memfd_create(c"selftest", MFdFlags::MFD_CLOEXEC).at("memfd_create")?);
        sendfile(&memory, File::open(HIDDEN).at("open")?, None, 64).at("sendfile")?;
        let mut bytes = [0; 64];
        let length = memory.read_at(&mut bytes, 0).at("pread")?;
        Ok(bytes[..length].to_vec())
    }),
    vector("aio", "reads it asynchronously (io_submit)", |_| {
        let mut bytes = [0; 64];
        let length = read_aio(&File::open(HIDDEN).at("open")?, &mut bytes).at("io_submit")?;
        Ok(bytes[..length].to_vec())
    }),
    vector("reopen", "reads it by a descriptor of its path (O_PATH)", |_| {
        let path = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(HIDDEN).at("open")?;
        open_and_read(format!("/proc/self/fd/{}", path.as_raw_fd()).as_ref())
    }),
    vector("bind-mount", "mounts it elsewhere", |s| {
        own_mounts(s)?;
        let at = s.work().join("file");
        File::create(&at).at("create")?;
        mount(Some(HIDDEN), &at, None::<&str>, MsFlags::MS_BIND, None::<&str>).at("mount")?;
        open_and_read(&at)
    })
    .stopped_by(Layer::Seccomp),
    vector("second-procfs", "mounts another procfs", |s| {
        own_mounts(s)?;
        mount(Some("none"), &s.work(), Some("proc"), MsFlags::empty(), None::<&str>).at("mount")?;
        open_and_read(&hidden_in(&s.work()))
    })
    .stopped_by(Layer::Seccomp),
    vector("procfs-nowhere", "mounts another procfs, but nowhere (fsmount)", |_| {
        let root = mount_nowhere(c"proc").at("fsopen")?;
        open_and_read(&hidden_in(format!("/proc/self/fd/{}", root.as_raw_fd()).as_ref()))
    })
    .stopped_by(Layer::Seccomp),
    vector("pid-namespace", "mounts a procfs of a pid namespace of its own", |s| {
        own_mounts(s)?;
        unshare(CloneFlags::CLONE_NEWPID).at("unshare")?;
        match fork(0).at("fork")? {
            None => {
                mount(Some("none"), &s.work(), Some("proc"), MsFlags::empty(), None::<&str>).at("mount")?;
                open_and_read(&hidden_in(&s.work()))
            }
            Some(child) => {
                let _ = waitpid(child, None);
                exit_now(0)
            }
        }
    })
    .stopped_by(Layer::Seccomp),
    vector("root-of-other", "by the root folder of a process outside", |s| {
        open_and_read(format!("/proc/{}/root{HIDDEN}", s.outsider()?.pid).as_ref())
    })
    .with_outsider()
    .stopped_by(Layer::Landlock),
    vector("system-call", "by another program that reads it", |_| {
        let output = std::process::Command::new("/bin/cat").arg(HIDDEN).output().at("execve cat")?;
        if output.status.success() { Ok(output.stdout) } else { Err(Stop::because("cat failed")) }
    }),
    written("core-pattern", "names the program that the kernel starts for core dumps", |_| {
        keep("/proc/sys/kernel/core_pattern")
    }),
    written("core-pattern-second-procfs", "the same in another procfs", |s| {
        own_mounts(s)?;
        mount(Some("none"), &s.work(), Some("proc"), MsFlags::empty(), None::<&str>).at("mount")?;
        keep(s.work().join("sys/kernel/core_pattern"))
    })
    .stopped_by(Layer::Seccomp),
    written("core-pattern-splice", "the same from a pipe (splice)", |_| {
        let value = fs::read("/proc/sys/kernel/core_pattern").at("read")?;
        let (reader, writer) = pipe().at("pipe")?;
        nix::unistd::write(&writer, &value).at("write to the pipe")?;
        let file = OpenOptions::new().write(true).open("/proc/sys/kernel/core_pattern").at("open")?;
        splice(&reader, None, &file, None, value.len(), SpliceFFlags::empty()).at("splice").map(|_| Vec::new())
    }),
    written("modprobe", "names the program that the kernel starts to load modules", |_| {
        keep("/proc/sys/kernel/modprobe")
    }),
    written("forwarding", "has the kernel forward packets (as it does or does not)", |_| {
        keep("/proc/sys/net/ipv4/ip_forward")
    }),
    written("host-name", "sets the host's name (to what it is)", |_| keep("/proc/sys/kernel/hostname")),
    written("sysrq", "presses a key of the kernel's own (h: help)", |_| {
        let file = OpenOptions::new().write(true).open("/proc/sysrq-trigger").at("open")?;
        (&file).write_all(b"h").at("write").map(|()| Vec::new())
    })
    .stopped_by(Layer::Mounts),
    written("interrupts", "says which processors handle an interrupt (as they do)", |_| {
        let folders = fs::read_dir("/proc/irq").at("reading /proc/irq")?.filter_map(Result::ok);
        let mut last = Err(Stop::because("no interrupt that can be moved"));
        for folder in folders.filter(|entry| entry.path().is_dir()) {
            last = keep(folder.path().join("smp_affinity"));
            if last.is_ok() {
                break;
            }
        }
        last
    })
    .stopped_by(Layer::Mounts),
    written("sysfs", "writes a setting of the kernel in /sys (what is there)", |_| keep_choice(SETTING))
        .stopped_by(Layer::Mounts),
    written("second-sysfs", "the same in another sysfs", |s| {
        own_mounts(s)?;
        mount(Some("none"), &s.work(), Some("sysfs"), MsFlags::empty(), None::<&str>).at("mount")?;
        keep_choice(s.work().join("kernel/mm/transparent_hugepage/enabled"))
    })
    .stopped_by(Layer::Seccomp),
    written("scsi", "has the kernel add and remove disks (/proc/scsi/scsi; in words that it does not know)", |_| {
        refused(&OpenOptions::new().write(true).open("/proc/scsi/scsi").at("open")?)
    })
    .stopped_by(Layer::Mounts),
    written("module-rules", "says what is done in a module's place (modprobe.d)", |_| {
        one_of(MODPROBE, |folder| make_file(&folder))
    })
    .stopped_by(Layer::Mounts)
    .unless(Part::KernelHelpers),
    written("modules", "puts a file among the running kernel's modules", |_| {
        let release = uname().at("uname")?.release().to_owned();
        one_of(["/lib/modules", "/usr/lib/modules"], |folder| make_file(&folder.join(&release)))
    })
    .stopped_by(Layer::Mounts)
    .unless(Part::KernelHelpers),
    written("key-rules", "says which program finds keys for the kernel (request-key.conf)", |_| {
        one_of(["/etc/request-key.d"], |folder| make_file(&folder)).or_else(|_| keep("/etc/request-key.conf"))
    })
    .stopped_by(Layer::Mounts)
    .unless(Part::KernelHelpers),
    written("module-loader", "changes the program that the kernel starts to load modules", |_| {
        let path = fs::read_to_string("/proc/sys/kernel/modprobe").at("read")?;
        changeable(path.trim_end())
    })
    .stopped_by(Layer::Mounts)
    .unless(Part::KernelHelpers),
    written("key-finder", "changes the program that the kernel starts to find keys", |_| {
        changeable("/sbin/request-key")
    })
    .stopped_by(Layer::Mounts)
    .unless(Part::KernelHelpers),
    written("kernel-memory", "reads the kernel's memory (/proc/kcore)", |_| open_and_read("/proc/kcore".as_ref()))
        .stopped_by(Layer::Capabilities),
    written("binary-formats", "names the program that the kernel starts for a kind of file", |_| {
        // An entry that the kernel refuses for its form: that it has read it is enough.
        let register = Path::new(FORMATS).join("register");
        let file = OpenOptions::new().write(true).open(register).at("open")?;
        refused(&file)
    })
    .stopped_by(Layer::Mounts),
    written("binary-formats-anew", "the same in a file system mounted anew", |s| {
        own_mounts(s)?;
        mount(Some("none"), &s.work(), Some("binfmt_misc"), MsFlags::empty(), None::<&str>).at("mount")?;
        let register = s.work().join("register");
        refused(&OpenOptions::new().write(true).open(register).at("open")?)
    })
    .stopped_by(Layer::Seccomp),
    written("release-agent", "names the program that the kernel starts for an empty cgroup of version 1", |_| {
        let mounts = fs::read_to_string("/proc/self/mounts").at("reading its mounts")?;
        let folders = mounts.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (folder, kind) = (words.nth(1)?, words.next()?);
            (kind == "cgroup").then(|| Path::new(folder).join("release_agent"))
        });
        let agent = folders.into_iter().find(|path| path.exists());
        let agent = agent.ok_or_else(|| Stop::because("no hierarchy of version 1 with a release agent"))?;
        keep(agent)
    })
    .stopped_by(Layer::Mounts),
];

const SETTING: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Where modprobe(8) looks for what to do.
const MODPROBE: [&str; 5] =
    ["/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"];

/// Tries all of these until one works. What is not there doesn't count, unless nothing is.
fn one_of<const N: usize>(places: [&'static str; N], attempt: impl Fn(PathBuf) -> Outcome) -> Outcome {
    let mut last = Err(Stop::because("none of these is there"));
    for place in places.into_iter().map(PathBuf::from).filter(|place| place.exists()) {
        last = attempt(place);
        if last.is_ok() {
            break;
        }
    }
    last
}

/// Makes an empty file in a folder, of a name that nobody looks for, and removes it.
fn make_file(folder: &Path) -> Outcome {
    let path = folder.join(format!("guard-selftest-{}", std::process::id()));
    File::create_new(&path).at("open")?;
    fs::remove_file(&path).at("unlink").map(|()| Vec::new())
}

/// Whether a program's file can be opened for writing.
fn changeable(program: &str) -> Outcome {
    let file = fs::canonicalize(program).at("finding the program")?;
    OpenOptions::new().write(true).open(file).at("open").map(|_| Vec::new())
}

/// Whether the kernel has read what was written, and refused it for its form.
fn refused(mut file: &File) -> Outcome {
    match file.write_all(b"no entry") {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Vec::new()),
        other => other.at("write").map(|()| Vec::new()),
    }
}

fn hidden_in(procfs: &Path) -> PathBuf {
    procfs.join(HIDDEN.trim_start_matches("/proc/"))
}

/// Writes to a file what it holds.
fn keep(path: impl AsRef<Path>) -> Outcome {
    let value = fs::read(&path).at("read")?;
    OpenOptions::new().write(true).open(path).at("open")?.write_all(&value).at("write").map(|()| Vec::new())
}

/// Writes to a file the choice that it shows in brackets among all choices.
fn keep_choice(path: impl AsRef<Path>) -> Outcome {
    let choices = fs::read_to_string(&path).at("read")?;
    let made = choices.split(['[', ']']).nth(1).ok_or_else(|| Stop::because("no choice is made"))?.to_owned();
    OpenOptions::new().write(true).open(path).at("open")?.write_all(made.as_bytes()).at("write").map(|()| Vec::new())
}

/// Whether these are the first bytes of the hidden value; asked outside.
#[must_use]
pub fn is_hidden_value(told: &[u8]) -> bool {
    fs::read(HIDDEN).is_ok_and(|value| told.len() >= 32 && told.starts_with(&value[..32.min(value.len())]))
}
