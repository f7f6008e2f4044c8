//! Servers that others wrote, run without a guard; where they can listen without being in each other's way, and whether
//! they do.

use std::{
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::id,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{Run, Running, Yard};

/// A server without a guard. It is killed with this value, and all that it has started.
pub struct Daemon {
    running: Running,
    _yard: Yard,
}

impl Daemon {
    /// Starts one, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// When it ends before, or never is.
    pub fn start<A: AsRef<OsStr>>(command: impl IntoIterator<Item = A>, ready: impl Fn(&Running) -> bool) -> Self {
        let yard = Yard::new();
        let mut running = Run::new("", command).through(yard.wrapper()).start_bare();
        running.wait_until("the server is ready", ready);
        Self { running, _yard: yard }
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.running.stdout()
    }
}

/// What a port belongs to.
#[derive(Clone, Copy)]
pub enum Transport {
    /// A TCP port, which somebody listens on.
    Tcp,
    /// A UDP port.
    Udp,
}

/// Whether somebody in this network namespace listens on an address (TCP), or is bound to it (UDP).
///
/// # Panics
///
/// When the address is not an IPv4 address.
#[must_use]
pub fn is_bound(transport: Transport, address: &str, port: u16) -> bool {
    let (file, state) = match transport {
        Transport::Tcp => ("/proc/net/tcp", "0A"),
        Transport::Udp => ("/proc/net/udp", "07"),
    };
    let address: Ipv4Addr = address.parse().expect("an IPv4 address");
    // The kernel prints the four bytes as the number that they are to this processor.
    let wanted = format!("{:08X}:{port:04X}", u32::from_ne_bytes(address.octets()));
    let table = fs::read_to_string(file).expect("/proc is mounted");
    table
        .lines()
        .map(str::split_whitespace)
        .any(|mut words| words.nth(1) == Some(&wanted) && words.nth(1) == Some(state))
}

/// A loopback address that nobody else uses: on it, every port is free.
#[must_use]
pub fn fresh_address() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    // Those of one process are far apart, so that other test programs, with ids near this one's, don't get the same. Nothing below
    // 127.128.0.0, since people use 127.0.0.1 and the like.
    let number = NUMBER.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x0057_1d35).wrapping_add(id());
    let [_, b, c, d] = number.to_be_bytes();
    Ipv4Addr::new(127, b | 0x80, c, d).to_string()
}

/// The command of an nginx at port 8080 of an address, with its configuration and files in a folder. It says `hello`, and
/// below /upstream/ what another server says.
///
/// # Panics
///
/// When the folder is not writable.
#[must_use]
pub fn nginx(folder: &Path, address: &str, upstream: Option<SocketAddr>) -> Vec<String> {
    let temporary: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {kind};\n")).concat();
    let proxy =
        upstream.map(|peer| format!("location /upstream/ {{ proxy_pass http://{peer}/; }}")).unwrap_or_default();
    let configuration = format!(
        "daemon off; worker_processes 2; pid pid; error_log stderr; user root; events {{}}
http {{
    access_log off;
    {temporary}
    server {{ listen {address}:8080; location / {{ return 200 \"hello\\n\"; }} {proxy} }}
}}"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration).expect("the folder is writable");
    let words = ["nginx", "-p", &folder.display().to_string(), "-e", "stderr", "-c", &file.display().to_string()];
    words.map(ToOwned::to_owned).to_vec()
}
