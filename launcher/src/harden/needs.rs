//! What a policy allows, and what its command can't do all the same, since the kernel asks for a capability that a root command doesn't
//! keep, or for another part.

use caps::Capability;
use common::device::access;
use policy::{Action, Isolation, Part, Policy, SocketFamily, SocketType};

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
    }
    for (index, rule) in policy.sockets.iter().flat_map(|section| section.rules.iter().enumerate()) {
        let raw = rule.action == Action::Allow && rule.kind == Some(SocketType::Raw);
        needs(raw, format!("/sockets/rules/{index}"), "make raw sockets", Capability::CAP_NET_RAW);
    }
    if section.allows(Part::Delegation) && super::has_names(policy) {
        notes.push(
            "/process/allow lets systemd-resolved, nscd and avahi be asked for any name; of what they answer, nothing is learnt for the rules on \
             host names"
                .to_owned(),
        );
    }
    notes
}
