//! `guard-run explain`: what a policy decides on a request, and by which rule, through the same tables and the same
//! `decide()` as in the kernel.

use std::{
    ffi::OsStr,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::Path,
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use common::{Decision, decision::DEFAULT, device, net, socket, sysctl::NAME_LEN, unix};
use enforce::{
    exit,
    machine::{ThisMachine, real_path},
};
use policy::{
    DeviceAccess, DeviceNode, Family, HostName, Machine as _, Mode, SocketProtocol, SocketType, canonical_name,
    compile::Tables, display_address, parse_sockopt, shared_space,
};
use report::{Cause, text::OneLine};
use serde::de::DeserializeOwned;

use crate::{
    chosen::choose,
    hindrance::{Hindrance, hindrance},
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
        /// The tunable's name, in either notation
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
    /// Any address that a name has, and a port.
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

    /// The protocol's number, `IPPROTO_*`.
    const fn number(self) -> u32 {
        match self {
            Self::Tcp => socket::protocol::TCP,
            Self::Udp => socket::protocol::UDP,
            Self::Icmp => socket::protocol::ICMP,
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
    let guard = choose(Some(word))?.compile()?.guard();
    let policy = &guard.policy;
    let (request, leads_to) = request.really();
    let (section, what, decision) = judge(&guard.tables, &request)?;
    let what = OneLine(what + &leads_to);
    let by_rules = match decision {
        None => format!("allowed, since the policy has no section \"{section}\""),
        Some(Decision { allow, rule }) => {
            let verdict = if allow { "allowed" } else { "denied" };
            let audit = if policy.mode == Mode::Audit && !allow { " (audit mode: only recorded)" } else { "" };
            let cause = Cause::new(section, rule).with(policy.reasons().of(section, rule));
            let implied = cause.reason.as_deref().filter(|_| cause.rule == "implied");
            let reason = cause.given().or(implied).map(|reason| format!(" ({reason})")).unwrap_or_default();
            let unreported =
                policy.unreported().iter().any(|(name, rules)| *name == section && rules.contains(rule.into()));
            let decision = Decision { allow, rule };
            let sorts = !allow && policy.mode != Mode::Audit && sorts(&guard.tables, &request, decision);
            let silent = if unreported {
                " (counted, but not reported)"
            } else if sorts {
                " (counted, but not reported: programs try it to sort addresses for TCP)"
            } else {
                ""
            };
            let remark = remark(&guard.tables, &request, decision);
            let remark = remark.map(|remark| format!(" ({remark})")).unwrap_or_default();
            format!("{verdict} by {}{remark}{audit}{silent}{reason}", cause.rule)
        }
    };
    let allowed = decision.is_none_or(|decision| decision.allow);
    // What keeps the command inside refuses, too.
    match hindrance(policy, &request)?.filter(|_| allowed) {
        Some(Hindrance::Refused(why)) => {
            println!("{what}: denied by /process: {why} (by its rules: {by_rules})");
            return Ok(exit::NO);
        }
        Some(Hindrance::Partly(why)) => println!("{what}: {by_rules}, but {why}"),
        None => println!("{what}: {by_rules}"),
    }
    if allowed {
        return Ok(exit::OK);
    }
    if let Some(asked) = request.parse()?.0 {
        // A denial as `guard-run why` explains it.
        print!("{}", advice::of_request(&guard, &asked, &ThisMachine));
    } else {
        let (peer, host) = by_name(&request)?;
        print!("{}", advice::of_host(&guard, peer, host.name(), &ThisMachine));
    }
    Ok(exit::NO)
}

impl Request {
    /// The request that the kernel would make of it on this machine, and what to say about that: a Unix socket is known by the path that
    /// links lead to.
    fn really(&self) -> (Self, String) {
        if let Self::Unix { operation, peer, sandbox } = self
            && peer.starts_with('/')
            && let Some(real) = real_path(Path::new(peer)).to_str().filter(|real| real != peer)
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
    if let Some(end) = of_url(text) {
        return Err(format!("this is a URL; write its host and port alone: {end}"));
    }
    if let Some(address) =
        text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).filter(|text| text.parse::<Ipv6Addr>().is_ok())
    {
        return Err(format!("write the port, too, such as [{address}]:443"));
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
        return Err(one_of_many(&name));
    }
    Ok(End::Name(name, port))
}

/// The host and the port of a URL, by its scheme where it says none. `None` for what isn't one.
fn of_url(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let end = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = match end.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => (host, port),
        _ => (end, if scheme.eq_ignore_ascii_case("http") { "80" } else { "443" }),
    };
    // Rules are on addresses, of which that name has two.
    let host = match host {
        "" => "HOST",
        host if host.eq_ignore_ascii_case("localhost") => "127.0.0.1",
        host => host,
    };
    Some(format!("{host}:{port}"))
}

/// What to write in place of a name with a star.
fn one_of_many(name: &HostName) -> String {
    format!("\"{name}\" stands for many names; write one of them")
}

/// Judges a request: by which section, what it is in a few words, and the decision if there is that section.
///
/// # Errors
///
/// When the request names nothing that could be asked for.
pub fn judge(tables: &Tables, request: &Request) -> anyhow::Result<(&'static str, String, Option<Decision>)> {
    let (asked, what) = request.parse()?;
    match (request, &tables.network) {
        (Request::Resolve { .. }, Some(network)) if network.names.is_none() => anyhow::bail!(
            "the policy has no host names, so a nameserver is a peer like any other: ask for \"send udp ADDRESS:53\""
        ),
        (Request::Receive(Received { local_port: None, .. }), Some(network)) if !network.local_ports.is_empty() => {
            anyhow::bail!(
                "rules of this policy tell ports of this host's apart; say at which it arrives, with --local-port"
            )
        }
        _ => {}
    }
    Ok(match asked {
        Some(asked) => (asked.section(), what, asked.judge(tables)),
        None => ("network", what, judge_host(tables, request)?),
    })
}

impl Request {
    /// What is asked for, and the same in a few words. It is `None` for a host by its name, which has any address: [`judge_host`].
    ///
    /// # Errors
    ///
    /// When it names nothing that could be asked for.
    fn parse(&self) -> anyhow::Result<(Option<advice::Request>, String)> {
        let (request, what) = match self {
            Self::Connect(peer) => return Ok(peer.asks(net::Op::CONNECT, None)),
            Self::Bind(peer) => return Ok(peer.asks(net::Op::BIND, None)),
            Self::Send(peer) => return Ok(peer.asks(net::Op::SEND, None)),
            Self::Receive(Received { peer, local_port }) => return Ok(peer.asks(net::Op::RECEIVE, *local_port)),
            Self::Resolve { name } => {
                let host = name.parse::<HostName>().map_err(anyhow::Error::msg)?;
                anyhow::ensure!(!host.is_wildcard(), "{}", one_of_many(&host));
                (advice::Request::Name(host.name().to_string()), format!("resolve {name}"))
            }
            Self::Socket { family, kind, protocol: named } => {
                let protocol = match named.parse() {
                    Ok(number) => number,
                    Err(_) => named.parse::<SocketProtocol>().map_err(anyhow::Error::msg)?.number(),
                };
                let (number, type_number) = (word::<Family>(family)?.number(), word::<SocketType>(kind)?.number());
                let request = advice::Request::Socket { family: number, kind: type_number, protocol };
                (request, format!("socket {family} {kind} {named}"))
            }
            Self::Unix { operation, peer, sandbox } => {
                let operation = match operation {
                    UnixOperation::Connect => "connect",
                    UnixOperation::Send => "send",
                };
                let kind = parse_socket(peer)?.index();
                let name = if kind == unix::Kind::UNNAMED.index() { Vec::new() } else { peer.clone().into_bytes() };
                (advice::Request::Unix { kind, name, own: *sandbox }, format!("unix {operation} {peer}"))
            }
            Self::Device { words } => {
                let (request, what) = parse_device(words)?;
                (advice::Request::Device(request), format!("device {what}"))
            }
            Self::Sysctl { name, access } => {
                let (letter, write) = match access {
                    SysctlAccess::R => ("r", false),
                    SysctlAccess::W => ("w", true),
                };
                let name = canonical_name(name.strip_prefix("/proc/sys/").unwrap_or(name));
                anyhow::ensure!(name.len() < NAME_LEN, "a sysctl name that long can't be judged and is denied");
                let what = format!("sysctl {name} {letter}");
                (advice::Request::Sysctl { name, write }, what)
            }
            Self::Sockopt { access, level, option } => {
                let (word, set) = match access {
                    SockoptAccess::Get => ("get", false),
                    SockoptAccess::Set => ("set", true),
                };
                let (level, option) = parse_sockopt(level, option).map_err(anyhow::Error::msg)?;
                let request = advice::Request::Sockopt { level: level.0, option: option.number, set };
                (request, format!("sockopt {word} {level} {option} (advisory)"))
            }
        };
        Ok((Some(request), what))
    }
}

impl Peer {
    fn asks(&self, op: net::Op, local_port: Option<u16>) -> (Option<advice::Request>, String) {
        let name = self.protocol.name();
        let peers = match &self.end {
            End::Address(address) => *address,
            End::Name(host, port) => return (None, format!("{} {name} {host}:{port}", op.name())),
        };
        let at = local_port.map_or_else(String::new, |port| format!(" at port {port}"));
        let what = format!("{} {name} {peers}{at}", op.name());
        let (address, port) = (peers.ip(), peers.port());
        let protocol = self.protocol.number();
        let peer = advice::Peer { op: op.index(), protocol, address, port, local_port, own: self.sandbox };
        (Some(advice::Request::Peer(peer)), what)
    }
}

/// A request to a host by its name, and the name: what `decide()` is asked of any address that it has.
fn by_name(request: &Request) -> anyhow::Result<(advice::Peer, &HostName)> {
    let (op, peer) = match request {
        Request::Connect(peer) => (net::Op::CONNECT, peer),
        Request::Send(peer) => (net::Op::SEND, peer),
        _ => anyhow::bail!("rules on bind and receive are on addresses; write the one that is meant"),
    };
    let End::Name(host, port) = &peer.end else { anyhow::bail!("this has an address") };
    let (op, protocol, address) = (op.index(), peer.protocol.number(), Ipv6Addr::UNSPECIFIED.into());
    Ok((advice::Peer { op, protocol, address, port: *port, local_port: None, own: false }, host))
}

/// Judges a request to any address that a name has.
fn judge_host(tables: &Tables, request: &Request) -> anyhow::Result<Option<Decision>> {
    let (request, host) = by_name(request)?;
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
    Ok(Some(network.decide_by_name(&request.request(), host.name()).decision))
}

/// Whether a connect(2) that is denied sorts addresses for TCP ([`net::sorts`]).
fn sorts(tables: &Tables, request: &Request, denied: Decision) -> bool {
    let Request::Connect(peer @ Peer { protocol: Protocol::Udp, .. }) = request else { return false };
    let may_stream = |end: End| {
        let stream = Request::Connect(Peer { protocol: Protocol::Tcp, end, ..peer.clone() });
        judge(tables, &stream).is_ok_and(|(.., decision)| decision.is_none_or(|decision| decision.allow))
    };
    let (address, port) = match &peer.end {
        End::Address(to) => (shared_space(to.ip()), to.port()),
        End::Name(_, port) => (net::Address::UNSPECIFIED4, *port),
    };
    net::sorts(denied, address, port, net::ones_if_equal, |address| match &peer.end {
        End::Address(_) => may_stream(End::Address((display_address(address), port).into())),
        End::Name(..) => may_stream(peer.end.clone()),
    })
}

/// What is to be said of a decision on a request to a host by its name.
fn remark(tables: &Tables, request: &Request, decision: Decision) -> Option<String> {
    let (request, host) = by_name(request).ok()?;
    let network = tables.network.as_ref()?;
    let names = network.names.as_ref()?;
    if !names.decide(host.name()).allow {
        return Some("nameservers can't be asked for that name".to_owned());
    }
    if let Some(rule) = network.decide_by_name(&request.request(), host.name()).otherwise {
        return Some(format!("but {} is about some addresses that it may have", Cause::new("network", rule).rule));
    }
    (!decision.allow && decision.rule == DEFAULT).then(|| names.found_by(host.name())?.reason)?
}

/// A word of the policy language.
fn word<T: DeserializeOwned>(text: &str) -> anyhow::Result<T> {
    serde_json::from_value(text.into()).map_err(anyhow::Error::from)
}

/// The kind of a Unix socket's name.
fn parse_socket(text: &str) -> anyhow::Result<unix::Kind> {
    anyhow::ensure!(text.len() < unix::NAME_LEN, "a socket path that long can't be judged and is denied");
    match text.as_bytes() {
        b"unnamed" => Ok(unix::Kind::UNNAMED),
        [b'/', ..] => Ok(unix::Kind::PATH),
        [b'@', ..] => Ok(unix::Kind::ABSTRACT),
        _ => anyhow::bail!("write a socket's absolute path, @ and an abstract name, or \"unnamed\", not \"{text}\""),
    }
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
