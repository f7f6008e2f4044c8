//! What would allow a request: patches of the policy, the narrowest first.

use common::{Decision, net};
use json_patch::Patch;
use policy::Machine;
use report::Event;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    Guard, Request,
    asked::{Asked, LedTo, Source},
    extent, hardening,
    nearest::{Nearest, nearest},
    patch,
    property::denied_by,
    request::Peer,
    rule::{self, Keys},
};

/// A way to have something allowed.
#[derive(Clone, Debug, Serialize)]
pub struct Way {
    /// The change to the policy (RFC 6902).
    pub patch: Patch,
    /// Under which condition it helps, for people. `None`: under any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<&'static str>,
    /// What it takes for granted that no log tells, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assumes: Option<String>,
    /// What it grants beyond this request, for people.
    pub beyond: String,
    /// How many other requests it grants, as far as they can be counted: 2^64 - 1 for more than that.
    pub further: Option<u64>,
}

/// The ways to have a request allowed that a policy denies. Each was tried: the tables of the policy with the patch allow it.
///
/// # Errors
///
/// When no rule can: why, for people.
pub(crate) fn all(
    guard: &Guard,
    asked: &Asked,
    denied: Decision,
    machine: &impl Machine,
) -> Result<Vec<Way>, &'static str> {
    let request = &asked.request;
    let exact = rule::exact(guard, asked)?;
    let section = request.section();
    let before = denied_by(guard, asked, denied);
    let mut ways = Vec::new();
    if let Some(nearest) = nearest(guard, asked, denied) {
        ways.extend(widened(guard, request, &nearest, &exact));
    }
    let inserted = |rule: Keys| patch::of(patch::insert(guard, section, before, vec![rule]));
    let way = |rule: &Keys, beyond: &str, further| Way {
        patch: inserted(rule.clone()),
        when: None,
        assumes: assumption(asked),
        beyond: beyond.to_owned(),
        further,
    };
    ways.push(match request {
        Request::Peer(peer) if peer.request().op == net::Op::RECEIVE && peer.protocol != ICMP => {
            way(&exact, "whatever port the peer has, which is one by chance", Some(u16::MAX.into()))
        }
        Request::Name(_) => way(&exact, "to connect to the name's addresses at that port", None),
        _ if asked.is_by_chance => {
            way(&exact, "every port of the command's own servers, of which this one is by chance", None)
        }
        Request::Unix { .. } => way(&exact, "nothing; connecting and sending are one", Some(0)),
        _ => way(&exact, "nothing", Some(0)),
    });
    if exact.contains_key("ports") && matches!(request, Request::Peer(peer) if peer.request().op != net::Op::BIND) {
        let mut all_ports = exact.clone();
        all_ports.remove("ports");
        ways.push(way(&all_ports, "every other port of that host", Some(u16::MAX.into())));
    }
    ways.retain(|way| allows(guard, asked, way, machine));
    if let Request::Peer(peer) = request {
        ways.extend(own_server(guard, peer, &exact, &inserted, machine));
        ways.extend(other_server(guard, peer, asked, &inserted, machine));
    }
    // What changes an existing rule comes before what adds one, where both grant as much.
    ways.sort_by_key(|way| way.further.unwrap_or(u64::MAX));
    if ways.is_empty() {
        return Err(HOPELESS);
    }
    Ok(ways)
}

/// What to say of a request that is denied whatever rule names it, for people.
pub(crate) const HOPELESS: &str = "no rule that names it would allow it";

const ICMP: u32 = common::socket::protocol::ICMP;

/// The nearest rule with the one property that the request misses.
fn widened(guard: &Guard, request: &Request, nearest: &Nearest, exact: &Keys) -> Option<Way> {
    let [missed] = &nearest.missed[..] else { return None };
    let (section, number) = (request.section(), nearest.rule);
    let known = guard.rule(section, number)?.get(missed.key)?;
    // What the request is, in the words of a rule; the peer's port of what is received is in no rule of its own.
    let value = match (exact.get(missed.key), request) {
        (Some(Value::Array(values)), _) => values.first()?.clone(),
        (Some(value), _) => value.clone(),
        (None, Request::Peer(peer)) if missed.key == "ports" => rule::port(peer.port),
        (None, _) => return None,
    };
    let (operations, added) = match known {
        Value::Array(_) => (patch::extend(section, number, missed.key, [value.clone()]), value),
        Value::String(letters) if missed.key == "access" => {
            let both = united(section, letters, value.as_str()?)?;
            (patch::replace(section, number, missed.key, &both), value)
        }
        // One type, one device: another one is another rule.
        _ => return None,
    };
    let (beyond, further) = extent::beyond(guard, request, number, missed.key, &added);
    Some(Way { patch: patch::of(operations), when: None, assumes: None, beyond, further })
}

/// Two accesses in one word. `None` where both are all, and so no word: those of socket options.
fn united(section: &str, one: &str, other: &str) -> Option<Value> {
    if section == "sockopts" {
        return None;
    }
    let letters: String = "rwm".chars().filter(|letter| one.contains(*letter) || other.contains(*letter)).collect();
    Some(letters.into())
}

/// The way for peers on loopback that may be the command's own servers.
fn own_server(
    guard: &Guard,
    peer: &Peer,
    exact: &Keys,
    inserted: &impl Fn(Keys) -> Patch,
    machine: &impl Machine,
) -> Option<Way> {
    let request = peer.request();
    let is_loopback = request.address.is_loopback(net::ones_if_equal);
    if peer.own || !is_loopback || [net::Op::BIND, net::Op::RECEIVE].contains(&request.op) {
        return None;
    }
    let mut rule = exact.clone();
    rule.insert("hosts".to_owned(), json!(["sandbox"]));
    let way = Way {
        patch: inserted(rule),
        when: Some("if a server that the command itself has started is there"),
        assumes: None,
        beyond: "that port of the command's own servers at any loopback address, and nothing of others".to_owned(),
        further: None,
    };
    let own = Asked::alone(Request::Peer(Peer { own: true, ..*peer }));
    allows(guard, &own, &way, machine).then_some(way)
}

/// The way for peers on loopback that were taken for the command's own, where they are not.
fn other_server(
    guard: &Guard,
    peer: &Peer,
    asked: &Asked,
    inserted: &impl Fn(Keys) -> Patch,
    machine: &impl Machine,
) -> Option<Way> {
    let other = Asked::alone(Request::Peer(Peer { own: false, ..*peer }));
    let way = Way {
        patch: inserted(rule::exact(guard, &other).ok().filter(|_| asked.own.is_some())?),
        when: Some("if the peer is no socket of the command's own"),
        assumes: None,
        beyond: "nothing".to_owned(),
        further: None,
    };
    allows(guard, &other, &way, machine).then_some(way)
}

/// What a rule for a request takes for granted that no log tells, for people.
pub(crate) fn assumption(asked: &Asked) -> Option<String> {
    let LedTo { protocol, port, .. } = rule::ASSUMED;
    match &asked.request {
        Request::Name(name) if asked.led_to.is_none() => {
            Some(format!("port {port} by {} for {name}: nothing has connected to it yet", protocol.to_uppercase()))
        }
        Request::Peer(peer) if asked.is_next => {
            let names = asked.names().collect::<Vec<_>>().join(", ");
            Some(format!("that {} was found by {names}, for which the process had asked before", peer.address))
        }
        Request::Peer(peer) if asked.own.is_some() && peer.request().op == net::Op::RECEIVE => {
            let port = peer.local_port.unwrap_or_default();
            Some(format!("that who connects to its port {port} from this host is the command itself"))
        }
        Request::Peer(peer) if asked.own == Some(Source::Policy) => {
            Some(format!("that the server at port {} of this host is the command's own, which may bind it", peer.port))
        }
        _ => None,
    }
}

/// Whether a policy with a patch allows what was asked for.
fn allows(guard: &Guard, asked: &Asked, way: &Way, machine: &impl Machine) -> bool {
    patch::applied(guard, &way.patch, machine).is_ok_and(|patched| asked.is_allowed(&patched.tables))
}

/// The way to have something allowed that no rule is about, if a policy can allow it at all.
pub(crate) fn past_hardening(guard: &Guard, event: &Event, machine: &impl Machine) -> Vec<Way> {
    let Some(wanted) = hardening::wanted(event) else { return Vec::new() };
    let way = Way {
        patch: patch::of(patch::loosen(guard, &wanted)),
        when: None,
        assumes: None,
        beyond: "all that the part keeps the command from; it could get out by it".to_owned(),
        further: None,
    };
    let is_policy = patch::applied(guard, &way.patch, machine).is_ok();
    if is_policy { vec![way] } else { Vec::new() }
}
