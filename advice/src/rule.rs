//! The rule that allows one request and as little else as rules can say.

use common::{device, net, unix};
use policy::{Host, Level, LevelOption, SocketPattern, access_letters, display_address};
use serde_json::{Map, Value, json};

use crate::{
    Guard,
    asked::{Asked, LedTo},
    property::{FAMILIES, TYPES},
    request::{Peer, Request},
};

/// A rule in the making, by its keys.
pub(crate) type Keys = Map<String, Value>;

/// Whether a rule can have this as the name of a host: it is neither an address nor a word for networks, such as "any".
pub(crate) fn is_host_name(name: &str) -> bool {
    serde_json::from_value::<Host>(name.into()).is_ok_and(|host| matches!(host, Host::Name(_)))
}

/// Where a name is taken to lead to until something connects to it.
pub(crate) const ASSUMED: LedTo = LedTo { protocol: "tcp", port: 443, is_near: false };

/// The rule that allows what was asked for: what the request is, in the words of policies.
///
/// Ports that a kernel chose by chance are not in it: the peer's of what is received, and those of the command's own servers for which
/// nobody asked; and no port is of protocols that have none. A peer that was found by a name is meant by that, since the name's
/// addresses may be others tomorrow. Beside a rule that has a name with "tls", it has that, too.
///
/// # Errors
///
/// When no rule can say it: why, for people.
pub(crate) fn exact(guard: &Guard, asked: &Asked) -> Result<Keys, &'static str> {
    let request = &asked.request;
    let mut rule = match request {
        Request::Peer(peer) => {
            let mut rule = of_peer(peer)?;
            let names: Vec<&str> = asked.names().collect();
            if !names.is_empty() {
                rule.insert("hosts".to_owned(), json!(names));
                if asked.is_near() {
                    rule.insert("private".to_owned(), true.into());
                }
            }
            if asked.is_by_chance {
                rule.retain(|key, _| !["ports", "local_ports"].contains(&&**key));
            }
            rule
        }
        Request::Name(name) if !is_host_name(name) => return Err("no rule can have this name"),
        Request::Name(name) => {
            let led_to = asked.led_to.unwrap_or(ASSUMED);
            // By UDP, whether a socket is connected first is a library's whim.
            let ops: &[&str] = if led_to.protocol == "tcp" { &["connect"] } else { &["connect", "send"] };
            let mut rule =
                keys(json!({"ops": ops, "hosts": [name], "protocols": [led_to.protocol], "ports": [led_to.port]}));
            if led_to.is_near {
                rule.insert("private".to_owned(), true.into());
            }
            rule
        }
        Request::Unix { kind, name, .. } => keys(json!({"paths": [socket(*kind, name)?]})),
        Request::Device(request) => {
            let letter = if request.kind == device::Type::Block as u32 { "b" } else { "c" };
            let access = access_letters(request.access);
            keys(json!({"type": letter, "major": request.major, "minor": request.minor, "access": access}))
        }
        Request::Sysctl { name, write } => {
            if name.is_empty() || name.contains(['*', '?', '[', ']', '{', '}', '\\']) {
                return Err("no rule can name this tunable");
            }
            keys(json!({"names": [name], "access": if *write { "w" } else { "r" }}))
        }
        Request::Socket { family, kind, protocol } => {
            let word = |number: u32, words: &[(u32, &'static str)]| {
                words.iter().find(|(known, _)| *known == number).map(|(_, word)| *word)
            };
            let kind = word(*kind, &TYPES).ok_or("no rule can name sockets of this type")?;
            let protocol = policy::protocol_name(*protocol);
            let protocol = protocol.parse().map_or_else(|_| Value::from(&*protocol), |number: u32| Value::from(number));
            let mut rule = keys(json!({"type": kind, "protocol": protocol}));
            rule.extend(word(*family, &FAMILIES).map(|family| ("family".to_owned(), Value::from(family))));
            rule
        }
        Request::Sockopt { level, option, set } => {
            let numbered =
                |text: String| text.parse().map_or_else(|_| Value::from(&*text), |number: i32| Value::from(number));
            let level_name = numbered(Level(*level).to_string());
            let option = numbered(LevelOption { level: *level, number: *option }.to_string());
            keys(json!({"level": level_name, "option": option, "access": if *set { "set" } else { "get" }}))
        }
    };
    if is_beside_tls(guard, &rule) {
        rule.insert("tls".to_owned(), true.into());
    }
    rule.insert("action".to_owned(), "allow".into());
    Ok(rule)
}

/// Whether the policy wants to see in TLS that a server has one of the names that a rule has, and the rule can say so, too.
fn is_beside_tls(guard: &Guard, rule: &Keys) -> bool {
    let by_tcp = rule.get("protocols") == Some(&json!(["tcp"]));
    let hosts: Vec<&str> =
        rule.get("hosts").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let rules = guard.policy.network.iter().flat_map(|section| &section.rules);
    let mut known = rules.filter(|known| known.tls).flat_map(policy::NetRule::names);
    by_tcp && known.any(|known| hosts.iter().any(|host| is_host_name(host) && known.has(host)))
}

fn keys(value: Value) -> Keys {
    match value {
        Value::Object(keys) => keys,
        _ => Keys::new(),
    }
}

fn of_peer(peer: &Peer) -> Result<Keys, &'static str> {
    let request = peer.request();
    let protocol = match request.protocol {
        net::Protocol::TCP => "tcp",
        net::Protocol::UDP => "udp",
        net::Protocol::ICMP => "icmp",
        _ => return Err("no rule tells this protocol from others: \"protocols\": [\"any\"] would allow all of them"),
    };
    let host = if peer.own && request.op != net::Op::BIND {
        "sandbox".to_owned()
    } else {
        display_address(request.address).to_string()
    };
    let mut rule = keys(json!({"ops": [request.op.name()], "protocols": [protocol], "hosts": [host]}));
    if request.op == net::Op::RECEIVE {
        rule.extend(peer.local_port.map(|port| ("local_ports".to_owned(), json!([port]))));
    } else if request.protocol != net::Protocol::ICMP {
        rule.insert("ports".to_owned(), json!([port(peer.port)]));
    }
    Ok(rule)
}

/// A port as rules write it.
pub(crate) fn port(port: u16) -> Value {
    if port == net::EPHEMERAL { "ephemeral".into() } else { port.into() }
}

/// A socket's name as rules write it.
fn socket(kind: usize, name: &[u8]) -> Result<String, &'static str> {
    if kind == unix::Kind::UNNAMED.index() {
        return Ok("unnamed".to_owned());
    }
    let text = str::from_utf8(name).map_err(|_| "its name is no text, so no rule can have it")?;
    if text.contains(['*', '?', '[', ']', '{', '}', '\\', '\0']) {
        return Err(
            "no rule can have exactly this name, since a character in it is a wildcard or none that rules have",
        );
    }
    if !text.starts_with(['/', '@']) {
        return Err("the log has the path as it was spelled, and rules need the real one, from / on");
    }
    if SocketPattern::try_from(text.to_owned()).is_err() {
        return Err("no rule can have this path: a part of it is empty or a dot, or it is too long");
    }
    Ok(text.to_owned())
}
