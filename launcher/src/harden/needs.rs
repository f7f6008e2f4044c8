//! What a policy allows, and what its command can't do all the same, since the kernel asks for a capability that a root command doesn't
//! keep, or for another part.

use caps::Capability;
use common::{
    device::{self, access},
    socket::protocol,
};
use policy::{Action, Isolation, Part, Policy, SocketFamily, SocketPattern, SocketType};

use super::capability;

/// For people: what is allowed in vain, and what to add.
#[must_use]
pub fn unmet(policy: &Policy) -> Vec<String> {
    let section = &policy.process;
    if section.isolation == Isolation::CgroupOnly {
        return Vec::new();
    }
    let mut notes = Vec::new();
    let mut needs = |is_allowed: bool, place: String, what: &str, capability: Capability| {
        if is_allowed && !capability::is_kept(section, capability) {
            notes.push(format!(
                "{place} allows to {what}, which takes {capability}; for a command of root's, add it: \
                 \"process\": {{\"capabilities\": [\"{capability}\"]}}"
            ));
        }
    };
    let names = |part| section.allow.contains(&part);
    let allow = || "/process/allow".to_owned();
    let mounting = "make namespaces and mount outside of a user namespace of its own (bwrap as root does)";
    needs(names(Part::Namespaces), allow(), mounting, Capability::CAP_SYS_ADMIN);
    needs(names(Part::Bpf), allow(), "use bpf(2)", Capability::CAP_BPF);
    let packet = section.families.contains(&SocketFamily::Packet);
    needs(packet, "/process/families".to_owned(), "make packet sockets", Capability::CAP_NET_RAW);
    for (index, rule) in policy.devices.iter().flat_map(|section| section.rules.iter().enumerate()) {
        // All accesses are what a rule is about that says nothing of them.
        let bits = rule.access.bits();
        let makes = rule.action == Action::Allow && bits & access::MKNOD != 0 && bits != access::ALL;
        needs(makes, format!("/devices/rules/{index}"), "make device nodes", Capability::CAP_MKNOD);
        let node = (rule.kind.only(), rule.major, rule.minor);
        for (minor, major, what, capability) in ASKING {
            let names = node == (Some(device::Type::Char), Some(major), Some(minor));
            needs(names && rule.action == Action::Allow, format!("/devices/rules/{index}"), what, capability);
        }
    }
    for (index, rule) in policy.sockets.iter().flat_map(|section| section.rules.iter().enumerate()) {
        let whole_packets = rule.protocol.is_some_and(|named| named.number() == protocol::RAW);
        let names_raw = rule.kind == Some(SocketType::Raw) || rule.kind.is_none() && whole_packets;
        let raw = rule.action == Action::Allow && names_raw;
        needs(raw, format!("/sockets/rules/{index}"), "make raw sockets", Capability::CAP_NET_RAW);
    }
    if section.allows(Part::Delegation) && super::has_names(policy) {
        notes.push(
            "/process/allow lets systemd-resolved, nscd and avahi be asked for any name; of what they answer, nothing is learnt for the rules on \
             host names"
                .to_owned(),
        );
    }
    for (index, rule) in policy.unix.iter().flat_map(|section| section.rules.iter().enumerate()) {
        let is_abstract =
            |pattern: &SocketPattern| matches!(pattern, SocketPattern::Named(glob) if glob.as_str().starts_with('@'));
        let allows = rule.action == Action::Allow && rule.paths.iter().flatten().any(is_abstract);
        if allows && !section.allows(Part::AbstractSockets) {
            notes.push(format!(
                "/unix/rules/{index} allows abstract sockets, of which the command reaches none but its own; for those of others, add it: \
                 \"process\": {{\"allow\": [\"abstract-sockets\"]}}"
            ));
        }
    }
    notes
}

/// Character devices that take more than the right to open them: minor and major number, what they are for, and what that takes.
const ASKING: [(u32, u32, &str, Capability); 3] = [
    (1, 1, "use the machine's memory (/dev/mem)", Capability::CAP_SYS_RAWIO),
    (4, 1, "use its ports (/dev/port)", Capability::CAP_SYS_RAWIO),
    (200, 10, "make network devices (/dev/net/tun)", Capability::CAP_NET_ADMIN),
];
