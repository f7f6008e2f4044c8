//! A terminal with an interactive shell on it, and somebody who types.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command},
    ptr,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Instant,
};

use crate::run::LIMIT;

/// Ctrl-C.
pub const INTERRUPT: &str = "\x03";
/// Ctrl-Z.
pub const SUSPEND: &str = "\x1a";

/// What the shell prints when it waits for a command.
pub const PROMPT: &str = "shell> ";

/// A pseudoterminal with bash on it, which has job control. It echoes nothing, so all that is seen was printed by a
/// program. The shell and its jobs are hung up with this value.
pub struct Terminal {
    shell: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// What was printed and not yet expected.
    unseen: String,
}

impl Terminal {
    /// Opens one of 24 rows and 80 columns.
    ///
    /// # Panics
    ///
    /// When there is none to be had.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it starts a process")]
    pub fn new() -> Self {
        let (master, slave) = open().expect("a pseudoterminal");
        let stream = || slave.try_clone().expect("a descriptor");
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc", "--noediting", "-i"]).env("PS1", PROMPT).env("TERM", "xterm");
        command.env("LC_ALL", "C").stdin(stream()).stdout(stream()).stderr(stream());
        // SAFETY: between fork and exec, only system calls: a session of its own, with the terminal as its terminal, and
        // no signal ignored because the tests' own caller ignores it (`nohup`, a shell's `&`).
        unsafe {
            command.pre_exec(|| {
                for signal in 1..32 {
                    libc::signal(signal, libc::SIG_DFL);
                }
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let shell = command.spawn().expect("bash is there");
        drop(slave);
        let mut printed = master.try_clone().expect("a descriptor");
        let (send, screen) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = printed.read(&mut buffer) {
                if length == 0 || send.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut terminal = Self { shell, keyboard: master, screen, unseen: String::new() };
        terminal.expect(PROMPT);
        terminal
    }

    /// Types.
    ///
    /// # Panics
    ///
    /// When nobody takes it.
    pub fn keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal is open");
    }

    /// Types a line.
    ///
    /// # Panics
    ///
    /// When nobody takes it.
    pub fn line(&mut self, line: &str) {
        self.keys(&format!("{line}\n"));
    }

    /// Waits until `text` is printed after all that was expected before. Returns what was printed in between.
    ///
    /// # Panics
    ///
    /// When it isn't.
    pub fn expect(&mut self, text: &str) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.unseen.find(text) {
                let rest = self.unseen.split_off(at + text.len());
                let mut before = std::mem::replace(&mut self.unseen, rest);
                before.truncate(at);
                return before;
            }
            match self.screen.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(printed) => self.unseen.push_str(&String::from_utf8_lossy(&printed)),
                Err(RecvTimeoutError::Timeout) => panic!("waited in vain for {text:?}; there was {:?}", self.unseen),
                Err(RecvTimeoutError::Disconnected) => panic!("hung up before {text:?}; there was {:?}", self.unseen),
            }
        }
    }

    /// Changes the size of the window.
    ///
    /// # Panics
    ///
    /// When that can't be done.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: reads the structure.
        let result = unsafe { libc::ioctl(self.keyboard.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let session = self.shell.id().cast_signed();
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        // The kernel hangs up the foreground job only, and a test that fails may leave others.
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // SAFETY: takes numbers only. The session's number is not given away while there is a process in it.
            unsafe {
                if libc::getsid(pid) == session {
                    libc::kill(pid, libc::SIGHUP);
                    libc::kill(pid, libc::SIGCONT);
                }
            }
        }
    }
}

/// A pseudoterminal: the side of who types, and that of the programs.
fn open() -> io::Result<(File, OwnedFd)> {
    let (mut master, mut slave) = (-1, -1);
    let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call fills in two descriptors, which are then ours alone; the others change the modes of the second.
    unsafe {
        if libc::openpty(&raw mut master, &raw mut slave, ptr::null_mut(), ptr::null(), &raw const size) < 0 {
            return Err(io::Error::last_os_error());
        }
        let (master, slave) = (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave));
        for fd in [&master, &slave] {
            libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC);
        }
        let mut modes: libc::termios = std::mem::zeroed();
        if libc::tcgetattr(slave.as_raw_fd(), &raw mut modes) < 0 {
            return Err(io::Error::last_os_error());
        }
        modes.c_lflag &= !libc::ECHO;
        if libc::tcsetattr(slave.as_raw_fd(), libc::TCSANOW, &raw const modes) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((master.into(), slave))
    }
}
