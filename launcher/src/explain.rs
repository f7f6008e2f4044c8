//! `guard-run explain`: what a policy decides on a request, and by which rule, through the same tables and the same
//! `decide()` as in the kernel.

use std::{
    ffi::OsStr,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::Path,
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use common::{
    Decision,
    decision::DEFAULT,
    device,
    net::{self, Address},
    socket, sockopt,
    sysctl::{self, NAME_LEN},
    unix,
};
use enforce::{exit, machine::ThisMachine};
use policy::{
    DeviceAccess, DeviceNode, Family, HostName, Machine as _, Mode, SocketProtocol, SocketType, canonical_name,
    compile::Tables, parse_sockopt, shared_space,
};
use report::{Cause, text::OneLine};
use serde::de::DeserializeOwned;

use crate::{
    chosen::{Compiled, choose},
    hindrance::{Hindrance, hindrance},
    linked,
};

/// A request to be judged.
#[derive(Clone, Debug, Subcommand)]
pub enum Request {
    /// Connect to a peer, e.g. "connect tcp 10.0.0.1:443", "connect tcp api.example.org:443" or "connect udp [::1]:53"
    Connect(Peer),
    /// Take an address and port of this host's, e.g. "bind tcp 0.0.0.0:8080"; port 0 lets the kernel choose
    Bind(Peer),
    /// Send a datagram from a socket that isn't connected, e.g. "send udp 10.0.0.1:53"
    Send(Peer),
    /// Accept a connection or receive a datagram, e.g. "receive tcp 10.0.0.1:40000", the address being the peer's
    Receive(Received),
    /// Ask a nameserver for a host name, e.g. "resolve api.example.org"
    Resolve {
        /// The name
        name: String,
    },
    /// Make a socket, e.g. "socket inet raw icmp"
    Socket {
        /// inet or inet6
        family: String,
        /// stream, dgram, raw or seqpacket
        #[arg(value_name = "TYPE")]
        kind: String,
        /// tcp, udp, icmp and the like, or a number
        protocol: String,
    },
    /// Connect or send to a Unix socket, e.g. "unix connect /run/docker.sock" or "unix send @name"
    Unix {
        /// connect or send
        operation: UnixOperation,
        /// The socket's path, @ and an abstract name, or "unnamed"
        peer: String,
        /// The socket is one that a process of the same sandbox has made
        #[arg(long)]
        sandbox: bool,
    },
    /// Use a device, e.g. "device /dev/null r" or "device c 1:3 rw"
    #[command(override_usage = "guard-run explain POLICY device PATH ACCESS\n       \
                                guard-run explain POLICY device b|c MAJOR:MINOR ACCESS")]
    Device {
        /// A device node, or a type and two numbers; then some of r, w and m
        #[arg(num_args = 2..=3, required = true, value_name = "DEVICE")]
        words: Vec<String>,
    },
    /// Use a kernel tunable, e.g. "sysctl kernel.hostname r"
    Sysctl {
        /// Its name, in either notation
        name: String,
        /// r or w
        access: SysctlAccess,
    },
    /// Use a socket option, e.g. "sockopt set IPPROTO_TCP TCP_NODELAY"
    Sockopt {
        /// get or set
        access: SockoptAccess,
        /// The level's name or number
        level: String,
        /// The option's name or number
        option: String,
    },
}

/// A network request but for what is to be done.
#[derive(Clone, Debug, Args)]
pub struct Peer {
    /// By which protocol
    protocol: Protocol,
    /// The peer's address, or a host name of the policy, and its port; for bind, the socket's own
    #[arg(value_name = "ADDRESS:PORT", value_parser = end)]
    end: End,
    /// The peer is a socket that a process of the same sandbox has made
    #[arg(long)]
    sandbox: bool,
}

/// Where something goes, or comes from.
#[derive(Clone, Debug)]
pub enum End {
    /// An address and a port.
    Address(SocketAddr),
    /// Whatever address a name has, and a port.
    Name(HostName, u16),
}

/// What is received.
#[derive(Clone, Debug, Args)]
pub struct Received {
    #[command(flatten)]
    peer: Peer,
    /// The port of this host's at which it arrives
    #[arg(long, value_name = "PORT")]
    local_port: Option<u16>,
}

/// Protocols of requests.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// ICMP and `ICMPv6`
    Icmp,
}

impl Protocol {
    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }

    const fn meant(self) -> net::Protocol {
        match self {
            Self::Tcp => net::Protocol::TCP,
            Self::Udp => net::Protocol::UDP,
            Self::Icmp => net::Protocol::ICMP,
        }
    }
}

/// What is done to Unix sockets.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum UnixOperation {
    /// connect(2)
    Connect,
    /// Sending a datagram
    Send,
}

/// Accesses of sysctl requests.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum SysctlAccess {
    /// Read
    R,
    /// Write
    W,
}

/// Accesses of sockopt requests.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum SockoptAccess {
    /// Read it
    Get,
    /// Change it
    Set,
}

/// Says on standard output what a policy decides on a request. The exit status tells, too: [`exit::OK`] for allowed,
/// [`exit::NO`] for denied.
///
/// # Errors
///
/// When the policy or the request isn't valid.
pub fn explain(word: &OsStr, request: &Request) -> anyhow::Result<u8> {
    let Compiled { policy, tables, .. } = choose(Some(word))?.compile()?;
    let (request, leads_to) = request.really();
    let (section, what, decision) = judge(&tables, &request)?;
    let what = OneLine(what + &leads_to);
    let by_rules = match decision {
        None => format!("allowed, since the policy has no section \"{section}\""),
        Some(Decision { allow, rule }) => {
            let verdict = if allow { "allowed" } else { "denied" };
            let audit = if policy.mode == Mode::Audit && !allow { " (audit mode: only recorded)" } else { "" };
            let unreported =
                policy.unreported().iter().any(|(name, rules)| *name == section && rules.contains(rule.into()));
            let silent = if unreported { " (counted, but not reported)" } else { "" };
            let remark = remark(&tables, &request, Decision { allow, rule });
            let remark = remark.map(|remark| format!(" ({remark})")).unwrap_or_default();
            format!("{verdict} by {}{remark}{audit}{silent}", Cause::new(section, rule).rule)
        }
    };
    let allowed = decision.is_none_or(|decision| decision.allow);
    // What keeps the command inside refuses, too.
    match hindrance(&policy, &request)?.filter(|_| allowed) {
        Some(Hindrance::Refused(why)) => {
            println!("{what}: denied by /process: {why} (by its rules: {by_rules})");
            return Ok(exit::NO);
        }
        Some(Hindrance::Partly(why)) => println!("{what}: {by_rules}, but {why}"),
        None => println!("{what}: {by_rules}"),
    }
    Ok(if allowed { exit::OK } else { exit::NO })
}

impl Request {
    /// The request that the kernel would make of it on this machine, and what to say about that: a Unix socket is known by the path that
    /// links lead to.
    fn really(&self) -> (Self, String) {
        if let Self::Unix { operation, peer, sandbox } = self
            && peer.starts_with('/')
            && let Some(real) = linked::real(Path::new(peer)).to_str().filter(|real| real != peer)
        {
            let (operation, sandbox) = (*operation, *sandbox);
            return (Self::Unix { operation, peer: real.to_owned(), sandbox }, format!(" (by {peer})"));
        }
        (self.clone(), String::new())
    }
}

/// Parses an address or a name with a port.
fn end(text: &str) -> Result<End, String> {
    if let Ok(address) = text.parse() {
        return Ok(End::Address(address));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        let example = if text.parse::<IpAddr>().is_ok() { text } else { "10.0.0.1" };
        return Err(format!("write an address and a port, such as {example}:443"));
    };
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        let other = host.parse::<Ipv6Addr>().map(|host| format!(", or [{host}]:{port}")).unwrap_or_default();
        return Err(format!("put an IPv6 address in brackets, and the port behind them: [{address}]:443{other}"));
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare.parse::<IpAddr>().is_ok() && port.parse::<u16>().is_err() {
        return Err(format!("\"{port}\" is no port; write a number from 0 to 65535"));
    }
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        return Err(format!("put an IPv6 address in brackets: [{address}]:{port}"));
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Err(format!("rules are on addresses; write 127.0.0.1:{port} or [::1]:{port}"));
    }
    let port = port.parse().map_err(|_| format!("\"{port}\" is no port; write a number from 0 to 65535"))?;
    let name: HostName = host.parse()?;
    if name.is_wildcard() {
        return Err(format!("\"{name}\" stands for many names; write one of them"));
    }
    Ok(End::Name(name, port))
}

/// Judges a request: by which section, what it is in a few words, and the decision if there is that section.
///
/// # Errors
///
/// When the request names nothing that could be asked for.
pub fn judge(tables: &Tables, request: &Request) -> anyhow::Result<(&'static str, String, Option<Decision>)> {
    match request {
        Request::Connect(peer) => judge_peer(tables, net::Op::CONNECT, peer, None),
        Request::Bind(peer) => judge_peer(tables, net::Op::BIND, peer, None),
        Request::Send(peer) => judge_peer(tables, net::Op::SEND, peer, None),
        Request::Receive(received) => judge_received(tables, received),
        Request::Resolve { name } => {
            let Some(network) = &tables.network else { return Ok(("network", format!("resolve {name}"), None)) };
            let names = network.names.as_ref().context(
                "the policy has no host names, so a nameserver is a peer like any other: ask for \"send udp ADDRESS:53\"",
            )?;
            let host = name.parse::<HostName>().map_err(anyhow::Error::msg)?;
            Ok(("network", format!("resolve {name}"), Some(names.decide(host.name()))))
        }
        Request::Socket { family, kind, protocol } => {
            let request = socket::Request {
                family: word::<Family>(family)?.number(),
                kind: word::<SocketType>(kind)?.number(),
                protocol: match protocol.parse() {
                    Ok(number) => number,
                    Err(_) => protocol.parse::<SocketProtocol>().map_err(anyhow::Error::msg)?.number(),
                },
                padding: 0,
            };
            let decision = tables.sockets.as_ref().map(|sockets| sockets.decide(&request));
            Ok(("sockets", format!("socket {family} {kind} {protocol}"), decision))
        }
        Request::Unix { operation, peer, sandbox } => {
            let operation = match operation {
                UnixOperation::Connect => "connect",
                UnixOperation::Send => "send",
            };
            let (kind, name) = parse_socket(peer)?;
            let length = u32::try_from(peer.len()).expect("a name that fits");
            let peer_of = unix::Peer { kind, length, name: &name, own: (*sandbox).into() };
            let decision = tables.unix.as_ref().map(|unix| unix.decide(&peer_of));
            Ok(("unix", format!("unix {operation} {peer}"), decision))
        }
        Request::Device { words } => {
            let (request, what) = parse_device(words)?;
            let decision = tables.devices.as_ref().map(|devices| devices.decide(&request));
            Ok(("devices", format!("device {what}"), decision))
        }
        Request::Sysctl { name, access } => {
            let (letter, access) = match access {
                SysctlAccess::R => ("r", sysctl::Access::READ),
                SysctlAccess::W => ("w", sysctl::Access::WRITE),
            };
            let name = canonical_name(name.strip_prefix("/proc/sys/").unwrap_or(name));
            let mut bytes = [0; NAME_LEN];
            let room = bytes.get_mut(..name.len()).filter(|_| name.len() < NAME_LEN);
            room.context("a sysctl name that long can't be judged and is denied")?.copy_from_slice(name.as_bytes());
            let decision = tables.sysctls.as_ref().map(|sysctls| sysctls.decide(&bytes, access));
            Ok(("sysctls", format!("sysctl {name} {letter}"), decision))
        }
        Request::Sockopt { access, level, option } => {
            let (word, access) = match access {
                SockoptAccess::Get => ("get", sockopt::access::GET),
                SockoptAccess::Set => ("set", sockopt::access::SET),
            };
            let (level, option) = parse_sockopt(level, option).map_err(anyhow::Error::msg)?;
            let request = sockopt::Request { level: level.0, option: option.number, access };
            let decision = tables.sockopts.as_ref().map(|sockopts| sockopts.decide(&request));
            Ok(("sockopts", format!("sockopt {word} {level} {option} (advisory)"), decision))
        }
    }
}

fn judge_received(tables: &Tables, received: &Received) -> anyhow::Result<(&'static str, String, Option<Decision>)> {
    let Received { peer, local_port } = received;
    if local_port.is_none() && tables.network.as_ref().is_some_and(|network| !network.local_ports.is_empty()) {
        anyhow::bail!(
            "rules of this policy tell ports of this host's apart; say at which it arrives, with --local-port"
        );
    }
    judge_peer(tables, net::Op::RECEIVE, peer, *local_port)
}

fn judge_peer(
    tables: &Tables,
    op: net::Op,
    peer: &Peer,
    local_port: Option<u16>,
) -> anyhow::Result<(&'static str, String, Option<Decision>)> {
    let (name, protocol) = (peer.protocol.name(), peer.protocol.meant());
    let peers = match &peer.end {
        End::Address(address) => *address,
        End::Name(host, port) => {
            let what = format!("{} {name} {host}:{port}", op.name());
            return Ok(("network", what, judge_host(tables, op, protocol, host, *port)?));
        }
    };
    let named = shared_space(peers.ip());
    let address = match op {
        net::Op::BIND | net::Op::RECEIVE => named,
        _ => net::effective_destination(named, Address::UNSPECIFIED6, net::ones_if_equal),
    };
    let own = peer.sandbox || op == net::Op::BIND;
    let request = net::Request { op, protocol, address, port: peers.port(), own: u32::from(own) };
    let decision = tables.network.as_ref().map(|network| match local_port {
        Some(port) => network.decide_received(&request, port),
        None => network.decide(&request),
    });
    let at = local_port.map_or_else(String::new, |port| format!(" at port {port}"));
    Ok(("network", format!("{} {name} {peers}{at}", op.name()), decision))
}

/// Judges a request to whatever address a name has.
fn judge_host(
    tables: &Tables,
    op: net::Op,
    protocol: net::Protocol,
    host: &HostName,
    port: u16,
) -> anyhow::Result<Option<Decision>> {
    anyhow::ensure!(
        [net::Op::CONNECT, net::Op::SEND].contains(&op),
        "rules on {} are on addresses; write the one that is meant",
        op.name()
    );
    let Some(network) = &tables.network else { return Ok(None) };
    let names = network.names.as_ref().with_context(|| {
        format!(
            "\"{host}\" is no address; rules are on addresses, so write the one that is meant (getent ahosts {host})"
        )
    })?;
    // Without an address, there is nothing to connect to.
    let resolved = names.decide(host.name());
    if !resolved.allow {
        return Ok(Some(resolved));
    }
    let request = net::Request { op, protocol, address: Address::UNSPECIFIED6, port, own: 0 };
    Ok(Some(network.decide_by_name(&request, host.name()).decision))
}

/// What is to be said of a decision on a request to a host by its name.
fn remark(tables: &Tables, request: &Request, decision: Decision) -> Option<String> {
    let (Request::Connect(Peer { end: End::Name(host, port), protocol, .. })
    | Request::Send(Peer { end: End::Name(host, port), protocol, .. })) = request
    else {
        return None;
    };
    let network = tables.network.as_ref()?;
    let names = network.names.as_ref()?;
    if !names.decide(host.name()).allow {
        return Some("nameservers can't be asked for that name".to_owned());
    }
    let op = if matches!(request, Request::Connect(_)) { net::Op::CONNECT } else { net::Op::SEND };
    let protocol = protocol.meant();
    let request = net::Request { op, protocol, address: Address::UNSPECIFIED6, port: *port, own: 0 };
    if let Some(rule) = network.decide_by_name(&request, host.name()).otherwise {
        return Some(format!("but {} is about some addresses that it may have", Cause::new("network", rule).rule));
    }
    (!decision.allow && decision.rule == DEFAULT).then(|| names.found_by(host.name())?.reason)?
}

/// A word of the policy language.
fn word<T: DeserializeOwned>(text: &str) -> anyhow::Result<T> {
    serde_json::from_value(text.into()).map_err(anyhow::Error::from)
}

/// A Unix socket from its name.
fn parse_socket(text: &str) -> anyhow::Result<(unix::Kind, unix::Name)> {
    let kind = match text.as_bytes() {
        b"unnamed" => unix::Kind::UNNAMED,
        [b'/', ..] => unix::Kind::PATH,
        [b'@', ..] => unix::Kind::ABSTRACT,
        _ => anyhow::bail!("write a socket's absolute path, @ and an abstract name, or \"unnamed\", not \"{text}\""),
    };
    let mut name = [0; unix::NAME_LEN];
    let room = name.get_mut(..text.len()).filter(|_| text.len() < unix::NAME_LEN);
    room.context("a socket path that long can't be judged and is denied")?.copy_from_slice(text.as_bytes());
    Ok((kind, name))
}

/// A device request from its words: `PATH ACCESS` or `TYPE MAJOR:MINOR ACCESS`.
///
/// # Errors
///
/// When they name none.
pub(crate) fn parse_device(words: &[String]) -> anyhow::Result<(device::Request, String)> {
    let (kind, major, minor, access) = match words {
        [path, access] => {
            let node = ThisMachine.device(Path::new(path)).map_err(anyhow::Error::msg);
            let DeviceNode { kind, major, minor } = node.with_context(|| path.clone())?;
            (kind, major, minor, access)
        }
        [kind, numbers, access] => {
            let kind = match kind.as_str() {
                "b" => device::Type::Block,
                "c" => device::Type::Char,
                other => anyhow::bail!("\"{other}\" is no type of device; write b or c"),
            };
            let parse = |text: &str, max: u32| text.parse().ok().filter(|number| *number <= max);
            let numbers = numbers
                .split_once(':')
                .and_then(|(major, minor)| Some((parse(major, device::MAX_MAJOR)?, parse(minor, device::MAX_MINOR)?)));
            let (major, minor) = numbers.context("write a device's numbers as MAJOR:MINOR, e.g. 1:3")?;
            (kind, major, minor, access)
        }
        _ => anyhow::bail!("write PATH ACCESS, or TYPE MAJOR:MINOR ACCESS"),
    };
    let access = DeviceAccess::try_from(access.clone()).map_err(anyhow::Error::msg)?.bits();
    Ok((device::Request { kind: kind as u32, access, major, minor }, words.join(" ")))
}
