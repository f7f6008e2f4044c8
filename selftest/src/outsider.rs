//! [`Role::Outsider`]: a process outside, for attempts on it. It holds what is worth taking, and does nothing.

use std::{
    env,
    fs::{File, OpenOptions},
    hint::black_box,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;

use crate::{outside::hierarchy, sys::socket::socket};

use super::{OK, Role, attempt::Outsider};

/// The environment variable with the secret.
const SECRET: &str = "GUARD_SELFTEST_SECRET";

/// How much memory there is at the secret.
const ROOM: usize = 4096;

/// Is the process outside. It ends when nobody holds its standard input any more.
///
/// # Errors
///
/// When it can't have what it should hold.
pub fn be() -> anyhow::Result<u8> {
    let mut secret = env::var(SECRET).context(SECRET)?.into_bytes();
    let socket = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    let device = File::open("/dev/zero")?;
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(&secret)?;
    // Room for anybody who writes something longer there.
    secret.resize(ROOM, 0);
    let hierarchy = hierarchy()?;
    env::set_current_dir(&hierarchy)?;
    let procs = OpenOptions::new().write(true).open(hierarchy.join("cgroup.procs"))?;
    let own = Outsider {
        pid: std::process::id().cast_signed(),
        secret: secret.as_ptr() as u64,
        socket: socket.as_raw_fd(),
        device: device.as_raw_fd(),
        pipe: reader.as_raw_fd(),
        procs: procs.as_raw_fd(),
    };
    println!("{}", serde_json::to_string(&own)?);
    io::stdin().read_to_end(&mut Vec::new())?;
    black_box(&secret);
    Ok(OK)
}

/// Such a process, seen from the self-test. It is killed with this value.
pub struct Outside {
    /// What it holds.
    pub told: Outsider,
    child: Child,
}

impl Outside {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// When it can't be started.
    pub fn start(secret: &str) -> anyhow::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.args(Role::Outsider.arguments()).env(SECRET, secret).process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line)?;
        let told = serde_json::from_str(&line);
        let outside = Self { told: told.unwrap_or(NOTHING), child };
        anyhow::ensure!(outside.told.pid > 0, "a process for the attempts could not be started");
        Ok(outside)
    }

    /// Whether it has been ended.
    pub fn has_ended(&mut self) -> bool {
        // A signal that was sent has arrived, but its effect takes the process a moment.
        (0..50).any(|_| {
            let ended = !matches!(self.child.try_wait(), Ok(None));
            if !ended {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            ended
        })
    }

    /// Whether its memory has these bytes where the secret was.
    #[must_use]
    pub fn holds(&self, bytes: &[u8]) -> bool {
        use std::os::unix::fs::FileExt as _;
        let mut found = vec![0; bytes.len()];
        let memory = File::open(format!("/proc/{}/mem", self.told.pid));
        memory.and_then(|memory| memory.read_exact_at(&mut found, self.told.secret)).is_ok() && found == bytes
    }
}

const NOTHING: Outsider = Outsider { pid: 0, secret: 0, socket: -1, device: -1, pipe: -1, procs: -1 };

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
