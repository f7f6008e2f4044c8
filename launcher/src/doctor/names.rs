//! What `doctor` says about host names: whether rules on them hold here, tried with a nameserver of its own, and which services would be
//! asked for names in place of a nameserver.

use std::{
    fs, io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::Context as _;
use enforce::{
    attach::Attached,
    cgroup::{Hierarchy, Leaf},
    load::Loaded,
    privilege,
    sys::process::{Side, exit_now},
};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, connect, recv, send, setsockopt, socket,
            sockopt::ReceiveTimeout,
        },
        time::{TimeVal, TimeValLike as _},
        wait::{WaitStatus, waitpid},
    },
};
use policy::compile::Tables;

use super::{Findings, parse};
use crate::harden::RESOLVERS;

/// Where the nameserver is, on loopback, where nobody else's is.
const NAMESERVER: Ipv4Addr = Ipv4Addr::new(127, 71, 82, 53);

/// The port of nameservers.
const PORT: u16 = common::name::PORT;

/// A policy with one name.
const POLICY: &str = r#"{"version": 1, "network": {"default": "deny", "nameservers": ["127.71.82.53"],
    "rules": [{"action": "allow", "hosts": ["doctor.guard-run.test"]}]}}"#;

/// What it says the name has for an address, and another one: they are for documentation (RFC 5737), so nobody is asked.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// How long to wait for a query, or an answer.
const PATIENCE: i64 = 5;

/// What can be wrong, by the status of the process that tries it, from 1 on.
const WRONG: [&str; 5] = [
    "a name that no rule has can be asked for",
    "the name that a rule has can't be asked for",
    "there is no answer",
    "the address in the answer can't be connected to",
    "an address that was in no answer can be connected to",
];

/// What the C library's configuration says about names.
const SWITCH: &str = "/etc/nsswitch.conf";

/// Looks at everything that host names need.
pub(super) fn look(findings: &mut Findings, hierarchy: &Hierarchy) {
    let why = tried(hierarchy).err().map(|error| format!("{error:#}"));
    findings
        .add_optional("rules on host names (tried with a nameserver; only policies with such rules need them)", why);
    let sockets = RESOLVERS.map(|(service, folder, pattern)| (service, sockets(folder, pattern)));
    let mut is_there = false;
    for (service, socket) in
        sockets.iter().flat_map(|(service, sockets)| sockets.iter().map(move |socket| (service, socket)))
    {
        is_there = true;
        findings.add_optional(
            format!(
                "{service} at {socket}: covered under rules on host names, so that programs ask a nameserver instead"
            ),
            None,
        );
    }
    if is_there {
        let text = fs::read_to_string(SWITCH).unwrap_or_default();
        let missing = (!asks_nameservers(&text))
            .then(|| format!("{SWITCH} has no \"dns\" for hosts, which commands need then; write: hosts: files dns"));
        findings.add_optional("the C library asks nameservers where no such service answers", missing);
    }
}

/// The sockets in a folder whose names are like a pattern, which may end with an asterisk.
fn sockets(folder: &str, pattern: &str) -> Vec<String> {
    let is_like = |name: &str| pattern.strip_suffix('*').map_or(name == pattern, |start| name.starts_with(start));
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_like(name));
    let mut sockets: Vec<String> = names.map(|name| format!("{folder}/{name}")).collect();
    sockets.sort();
    sockets
}

/// Whether a nsswitch.conf(5) has nameservers asked for hosts. Without a line on hosts, they are.
fn asks_nameservers(text: &str) -> bool {
    let mut lines = text.lines().filter_map(|line| line.split('#').next()?.trim().strip_prefix("hosts:"));
    lines.next_back().is_none_or(|services| services.split_ascii_whitespace().any(|word| word == "dns"))
}

/// Has a process in a cgroup of its own ask for names, and connect to addresses.
fn tried(hierarchy: &Hierarchy) -> anyhow::Result<()> {
    let nameserver = UdpSocket::bind((NAMESERVER, PORT)).with_context(|| {
        format!("can't be a nameserver, at port {PORT} of {NAMESERVER}; only root can, where nobody else is")
    })?;
    nameserver.set_read_timeout(Some(Duration::from_secs(PATIENCE.unsigned_abs())))?;
    let tables = Tables::compile(&parse(POLICY)?)?;
    // The leaf that doctor made before has taken its rights with it.
    let mut rights = privilege::begin()?;
    let loaded = Loaded::new(&tables, &mut rights)?;
    let mut attached = Attached::new(loaded, Leaf::create(hierarchy, rights)?)?;
    match attached.leaf.fork()? {
        Side::Child => exit_now(match ask() {
            Ok(()) => 0,
            Err(wrong) => wrong,
        }),
        Side::Parent { pid, .. } => {
            // Where no query comes, the process says so.
            let _ = answer(&nameserver);
            match waitpid(pid, None)? {
                WaitStatus::Exited(_, 0) => Ok(()),
                WaitStatus::Exited(_, wrong) => {
                    let wrong = usize::try_from(wrong - 1).ok().and_then(|wrong| WRONG.get(wrong));
                    anyhow::bail!("{}", wrong.copied().unwrap_or("the process failed"))
                }
                other => anyhow::bail!("the process ended: {other:?}"),
            }
        }
    }
}

/// What the process does. If something is wrong, what: a number of [`WRONG`], from 1 on.
fn ask() -> Result<(), i32> {
    let server = connected(NAMESERVER, PORT).map_err(|_| 2)?;
    let is_refused = |name: &str| send(server.as_raw_fd(), &query(name), MsgFlags::empty()) == Err(Errno::EPERM);
    if !is_refused("other.guard-run.test") {
        return Err(1);
    }
    if is_refused("doctor.guard-run.test") {
        return Err(2);
    }
    setsockopt(&server, ReceiveTimeout, &TimeVal::seconds(PATIENCE)).map_err(|_| 3)?;
    recv(server.as_raw_fd(), &mut [0; 512], MsgFlags::empty()).map_err(|_| 3)?;
    // Where there is no way to an address, the kernel says so after the programs have been asked.
    let is_denied = |address| connected(address, 9).is_err_and(|error| error == Errno::EPERM);
    if is_denied(ADDRESS) {
        return Err(4);
    }
    if is_denied(OTHER) { Ok(()) } else { Err(5) }
}

/// A UDP socket with a peer.
fn connected(address: Ipv4Addr, port: u16) -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let [a, b, c, d] = address.octets();
    connect(socket.as_raw_fd(), &SockaddrIn::new(a, b, c, d, port))?;
    Ok(socket)
}

/// A query for addresses of a name.
fn query(name: &str) -> Vec<u8> {
    let mut message = vec![0x47, 0x52, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("labels are short"));
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

/// Answers one query, whatever it is for.
fn answer(nameserver: &UdpSocket) -> io::Result<()> {
    let mut message = [0; 512];
    let (length, client) = nameserver.recv_from(&mut message)?;
    let mut message = message[..length].to_vec();
    if let Some(header) = message.get_mut(2..12) {
        // An answer, of one record.
        header.copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    }
    message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    message.extend_from_slice(&ADDRESS.octets());
    nameserver.send_to(&message, client).map(drop)
}

#[cfg(test)]
mod tests {
    use super::asks_nameservers;

    #[test]
    fn nsswitch_is_read() {
        let table = [
            ("", true),
            ("passwd: files\nhosts: files dns\n", true),
            ("hosts:\tmymachines resolve [!UNAVAIL=return] files myhostname dns\n", true),
            ("hosts: files resolve # dns\n", false),
            ("#hosts: files\n  hosts: files mdns4_minimal [NOTFOUND=return]\n", false),
        ];
        for (text, expected) in table {
            assert_eq!(asks_nameservers(text), expected, "{text}");
        }
    }
}
