//! The network namespaces of one small world: the program's host, with a device to each of two peers. They have no names, so
//! they go away with the fuzzer, however that ends.

use std::{
    fs::File,
    io::Write as _,
    os::fd::{AsFd, AsRawFd as _},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};

use crate::address::{CHOSEN, Host};

/// A network namespace.
pub struct Namespace(File);

impl Namespace {
    fn new() -> Result<Self> {
        let made = thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare")?;
            File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")
        });
        Ok(Self(made.join().expect("the thread doesn't panic")?))
    }

    /// Has the calling thread be in this namespace from now on.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn enter(&self) -> Result<()> {
        setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).context("setns")
    }

    /// Where ip(8) finds it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// The namespaces of a world.
pub struct Namespaces {
    /// The program's own host.
    pub own: Namespace,
    allowed: Namespace,
    denied: Namespace,
}

impl Namespaces {
    /// Makes the namespaces, their devices and addresses. Leaves the calling thread in the program's own.
    ///
    /// # Errors
    ///
    /// When ip(8) isn't there or the kernel refuses.
    pub fn new() -> Result<Self> {
        let all = Self { own: Namespace::new()?, allowed: Namespace::new()?, denied: Namespace::new()? };
        all.own.enter()?;
        ip(&format!(
            "link set lo up\n\
             link add allowed address 02:00:00:00:01:01 type veth peer name host address 02:00:00:00:01:02 netns {}\n\
             link add denied address 02:00:00:00:02:01 type veth peer name host address 02:00:00:00:02:02 netns {}\n",
            all.allowed.path(),
            all.denied.path(),
        ))?;
        tune(&["allowed", "denied"])?;
        ip(&[side("allowed", 1, 1, 2), side("denied", 2, 1, 2)].concat())?;
        ip("route add 203.0.113.0/24 dev allowed\n\
            neigh add 203.0.113.2 lladdr 02:00:00:00:01:02 dev allowed nud permanent\n\
            route add 2001:db8:1::/64 dev allowed\n\
            neigh add 2001:db8:1::2 lladdr 02:00:00:00:01:02 dev allowed nud permanent\n\
            route add default via 10.77.1.2 dev allowed\n\
            route add default via fd77:1::2 dev allowed metric 10\n\
            route add default via 10.77.2.2 dev denied metric 200\n\
            route add default via fd77:2::2 dev denied metric 200\n")?;
        for (namespace, network) in [(&all.allowed, 1), (&all.denied, 2)] {
            namespace.enter()?;
            ip("link set lo up\n")?;
            tune(&["host"])?;
            ip(&side("host", network, 2, 1))?;
            ip(&format!("route add default via 10.77.{network}.1\nroute add default via fd77:{network}::1\n"))?;
        }
        all.allowed.enter()?;
        ip("addr add 203.0.113.2/32 dev host\naddr add 2001:db8:1::2/128 dev host nodad\n")?;
        all.own.enter()?;
        Ok(all)
    }

    /// Where somebody is.
    pub fn of(&self, host: Host) -> &Namespace {
        match host {
            Host::Allowed => &self.allowed,
            Host::Denied => &self.denied,
            Host::Local => &self.own,
        }
    }
}

/// One end of a network: its addresses, and the other end's hardware address, so that nobody has to ask for it.
fn side(device: &str, network: u8, this: u8, other: u8) -> String {
    format!(
        "addr add 10.77.{network}.{this}/24 brd + dev {device}\n\
         addr add fd77:{network}::{this}/64 dev {device} nodad\n\
         link set {device} up\n\
         neigh add 10.77.{network}.{other} lladdr 02:00:00:00:0{network}:0{other} dev {device} nud permanent\n\
         neigh add fd77:{network}::{other} lladdr 02:00:00:00:0{network}:0{other} dev {device} nud permanent\n"
    )
}

fn ip(commands: &str) -> Result<()> {
    let mut child =
        Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().context("ip")?;
    child.stdin.take().expect("piped").write_all(commands.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("ip: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Tunables of the calling thread's namespace: every host acts on routes in packets, nobody waits, and the kernel chooses from
/// few ports.
fn tune(devices: &[&str]) -> Result<()> {
    let set = |name: &str, value: &str| {
        let path = Path::new("/proc/sys/net").join(name);
        // Not every kernel has all of them.
        if path.exists() { std::fs::write(&path, value).with_context(|| path.display().to_string()) } else { Ok(()) }
    };
    for device in ["all", "default", "lo"].iter().chain(devices) {
        for (name, value) in
            [("seg6_enabled", "1"), ("accept_source_route", "1"), ("accept_dad", "0"), ("accept_ra", "0")]
        {
            set(&format!("ipv6/conf/{device}/{name}"), value)?;
        }
        for (name, value) in [("accept_source_route", "1"), ("rp_filter", "0"), ("bc_forwarding", "0")] {
            set(&format!("ipv4/conf/{device}/{name}"), value)?;
        }
    }
    for (name, value) in [
        ("ipv4/ip_local_port_range", format!("{} {}", CHOSEN.0, CHOSEN.1).as_str()),
        ("ipv4/tcp_max_tw_buckets", "0"),
        ("ipv4/tcp_fin_timeout", "1"),
        ("ipv4/tcp_syn_retries", "1"),
        ("ipv4/tcp_synack_retries", "1"),
        ("ipv4/tcp_orphan_retries", "1"),
        // Data in the first packet, asked for or not, by clients and servers.
        ("ipv4/tcp_fastopen", "1543"),
        ("ipv4/ping_group_range", "0 2147483647"),
        ("ipv4/icmp_echo_ignore_broadcasts", "0"),
        ("ipv4/icmp_ratelimit", "0"),
    ] {
        set(name, value)?;
    }
    Ok(())
}
