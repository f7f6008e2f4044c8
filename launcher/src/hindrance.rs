//! What keeps a command from something although the policy's rules allow it: how it is kept inside (the section `process`).

use caps::Capability;
use common::{device::access, socket::kind};
use policy::{Isolation, Mode, Part, Policy, SocketType};

use crate::{
    explain::{Request, parse_device},
    harden::{covered, is_kept},
};

/// What stands against something that rules allow.
#[derive(Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// The request is refused; the text says what to write to allow it.
    Refused(String),
    /// Some of what is asked for is refused.
    Partly(&'static str),
}

/// What stands against a request on this machine, if anything does.
///
/// # Errors
///
/// When this machine can't be looked at.
pub fn hindrance(policy: &Policy, request: &Request) -> anyhow::Result<Option<Hindrance>> {
    if policy.process.isolation == Isolation::CgroupOnly || policy.mode == Mode::Audit {
        return Ok(None);
    }
    let lacks = |capability: Capability, what: &str| {
        (!is_kept(&policy.process, capability)).then(|| {
            Hindrance::Refused(format!(
                "{what} takes {capability}, which a root command keeps only by \"process\": {{\"capabilities\": [\"{capability}\"]}}"
            ))
        })
    };
    match request {
        Request::Device { words } if parse_device(words)?.0.access & access::MKNOD != 0 => {
            Ok(lacks(Capability::CAP_MKNOD, "mknod(2)"))
        }
        Request::Socket { kind, .. } if is_raw(kind) => Ok(lacks(Capability::CAP_NET_RAW, "a raw socket")),
        Request::Unix { peer, .. } if peer.starts_with('/') => {
            let covered = covered(policy)?;
            let is_covered = |cover: &String| match cover.strip_suffix('/') {
                Some(folder) => peer.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')),
                None => cover == peer,
            };
            Ok(covered.iter().find(|cover| is_covered(cover)).map(|cover| {
                Hindrance::Refused(format!(
                    "{cover} is covered, since services there run commands for others; name its path in a rule of the section unix \
                     that allows it, or \"process\": {{\"allow\": [\"delegation\"]}}"
                ))
            }))
        }
        Request::Unix { peer, sandbox: false, .. }
            if peer.starts_with('@') && !policy.process.allows(Part::AbstractSockets) =>
        {
            Ok(Some(Hindrance::Partly(
                "only if the socket is of the command's own processes, or with \"process\": {\"allow\": [\"abstract-sockets\"]}",
            )))
        }
        _ => Ok(None),
    }
}

fn is_raw(kind: &str) -> bool {
    serde_json::from_value::<SocketType>(kind.into()).is_ok_and(|kind| kind.number() == kind::RAW)
}
