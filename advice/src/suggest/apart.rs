//! What is suggested, and what is for people to decide: what keeps the command inside is never undone by a suggestion.

use common::net::Address;
use policy::{Host, Prefix};
use report::{Event, Subject};

use crate::{
    Guard, Head, Request,
    asked::Asked,
    hardening,
    property::contains,
    rule::{self, Keys},
};

/// What an event tells of, and the rule that allows it.
///
/// # Errors
///
/// When that is not to be suggested: why, for people.
pub(crate) fn wanted(
    guard: &Guard,
    asked: Option<&Asked>,
    event: &Event,
    heads: &[Head],
) -> Result<(Asked, Keys), String> {
    let Some(asked) = asked else {
        let parts: Vec<String> =
            hardening::explanation(event).into_iter().map(|(part, why)| format!("{part} ({why})")).collect();
        return Err(if parts.is_empty() {
            "it is part of what keeps the command inside".to_owned()
        } else {
            format!("it is part of what keeps the command inside: {}", parts.join("; "))
        });
    };
    match &asked.request {
        Request::Sysctl { write: true, .. } => return Err("tunables change the whole machine".to_owned()),
        Request::Peer(peer) if is_metadata(peer.request().address) => {
            return Err("metadata services of clouds hand out credentials".to_owned());
        }
        Request::Unix { name, .. } => {
            if let Some(covered) = covered(&String::from_utf8_lossy(name), heads) {
                return Err(format!("{covered} is covered, since services there act for others, outside of the guard"));
            }
        }
        _ => {}
    }
    if event.cause.rule == "/process" {
        return Err("it is part of what keeps the command inside".to_owned());
    }
    if let (Subject::Network(_), "fail-closed") = (&event.subject, &*event.cause.rule) {
        return Err(event.cause.reason.as_deref().unwrap_or("it could not be judged").to_owned());
    }
    Ok((asked.clone(), rule::exact(guard, asked)?))
}

fn is_metadata(address: Address) -> bool {
    metadata().iter().any(|network| contains(*network, address))
}

/// The networks at which clouds serve credentials.
fn metadata() -> Vec<Prefix> {
    Host::try_from("metadata".to_owned()).map(|host| host.networks().to_vec()).unwrap_or_default()
}

/// What was covered of services and has this path. A folder has a slash at its end.
fn covered<'a>(path: &str, heads: &'a [Head]) -> Option<&'a str> {
    let all = heads.iter().filter_map(|head| head.hardening.as_ref()).flat_map(|hardening| &hardening.covered);
    let mut all = all.map(String::as_str);
    all.find(|covered| if covered.ends_with('/') { path.starts_with(covered) } else { path == *covered })
}

/// The network that a host is widened to: 256 addresses of IPv4, 2^64 of IPv6. `None` where that has metadata services in it, or the host
/// is no address.
pub(super) fn network_of(host: &str) -> Option<String> {
    let host: Prefix = host.parse().ok()?;
    let length = if Prefix::ALL_V4.covers(host) { 120 } else { 64 };
    let network = Prefix::around(host.bits(), length.min(host.length()));
    let has_metadata = metadata().iter().any(|metadata| network.covers(*metadata));
    (!has_metadata).then(|| network.to_string())
}
