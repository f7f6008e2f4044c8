//! Capabilities by which a container gets past its policy, whatever programs there are on its cgroup.

use std::collections::BTreeSet;

use anyhow::ensure;
use policy::{KeptCapability, Mode, Resolved, compile::Tables};

use crate::config::Config;

/// A capability, and what it is good for against a guard.
struct Evading {
    name: &'static str,
    /// Whether it counts also where it holds only for the container's own network, as in a user namespace.
    by_network: bool,
    how: &'static str,
}

const EVADING: [Evading; 5] = [
    Evading { name: "CAP_NET_RAW", by_network: true, how: "sends packets past every hook (packet sockets)" },
    Evading { name: "CAP_NET_ADMIN", by_network: true, how: "makes network devices whose packets no hook sees" },
    Evading { name: "CAP_BPF", by_network: false, how: "loads programs of its own that change verdicts" },
    Evading { name: "CAP_SYS_ADMIN", by_network: false, how: "detaches the guard's programs" },
    Evading { name: "CAP_SYS_MODULE", by_network: false, how: "loads code into the kernel" },
];

/// Which namespaces of a container are not the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Apart {
    /// Whether it has a user namespace of its own: then its capabilities hold only for what belongs to that namespace.
    pub users: bool,
    /// Whether it has a network namespace of its own.
    pub network: bool,
}

impl Apart {
    /// As a container's configuration has it.
    #[must_use]
    pub fn by(config: &Config) -> Self {
        let has = |kind: &str| config.namespaces.contains(kind);
        Self { users: has("user"), network: has("network") }
    }
}

/// The capabilities of a container by which it could evade its policy, sorted. Whether its filter of system calls (seccomp) stops that is not
/// looked at: a filter's author knows, and can have the policy accept the capability.
#[must_use]
pub fn evading(config: &Config, policy: &Resolved, apart: Apart) -> BTreeSet<&'static str> {
    let held = |name: &str| config.capabilities.as_ref().is_none_or(|held| held.contains(name));
    let counts = |one: &Evading| !apart.users || (one.by_network && apart.network);
    let names: Vec<&Evading> = EVADING.iter().filter(|one| held(one.name) && counts(one)).collect();
    if names.is_empty() {
        return BTreeSet::new();
    }
    let Ok(tables) = Tables::compile(policy) else {
        // What enforces it will say why.
        return BTreeSet::new();
    };
    let open = tables.unrestricted();
    let restricted = |section: &&str| !open.contains(section);
    let anything = ["network", "unix", "devices", "sysctls", "sockets"].iter().any(restricted);
    let matters = |one: &&Evading| if one.by_network { restricted(&"network") } else { anything };
    names.into_iter().filter(matters).map(|one| one.name).collect()
}

/// Sees that a policy that is to be enforced accepts them. Those that it accepts, for the log.
///
/// # Errors
///
/// When it doesn't.
pub fn require_acceptance(evading: &BTreeSet<&'static str>, config: &Config, policy: &Resolved) -> anyhow::Result<()> {
    let accepted = |name: &str| policy.process.capabilities.iter().any(|KeptCapability(kept)| kept.to_string() == name);
    let refused: Vec<&Evading> =
        EVADING.iter().filter(|one| evading.contains(one.name) && !accepted(one.name)).collect();
    if policy.mode == Mode::Audit || refused.is_empty() {
        return Ok(());
    }
    ensure!(
        config.capabilities.is_some(),
        "config.json says nothing of capabilities (/process/capabilities), which some runtimes take for all of them; \
         write those that the container needs there"
    );
    let why: Vec<String> = refused.iter().map(|one| format!("{} {}", one.name, one.how)).collect();
    let drop: Vec<String> =
        refused.iter().map(|one| format!("--cap-drop {}", one.name.trim_start_matches("CAP_"))).collect();
    let quoted: Vec<String> = refused.iter().map(|one| format!("\"{}\"", one.name)).collect();
    anyhow::bail!(
        "the container has capabilities by which it could evade its policy: {}. Take them away (podman and docker: {}; not \
         --privileged; Kubernetes: securityContext.capabilities.drop), or accept them in the policy: \
         \"process\": {{\"capabilities\": [{}]}}",
        why.join(", "),
        drop.join(" "),
        quoted.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use enforce::machine::ThisMachine;
    use policy::Document;

    use super::*;

    fn policy(text: &str) -> Resolved {
        Document::new(Path::new("test"), text.into()).resolve(&ThisMachine).unwrap()
    }

    fn config(capabilities: &[&str]) -> Config {
        let capabilities = Some(capabilities.iter().map(|name| (*name).to_owned()).collect());
        Config { capabilities, ..Config::default() }
    }

    const NETWORK: &str = r#"{"version": 1, "network": {"default": "deny"}}"#;
    const DEVICES: &str = r#"{"version": 1, "devices": {"default": "deny"}}"#;
    const NOTHING: &str = r#"{"version": 1, "network": {"default": "allow"}, "devices": {"default": "allow"}}"#;
    const HOST: Apart = Apart { users: false, network: false };
    const OWN: Apart = Apart { users: false, network: true };
    const USERS: Apart = Apart { users: true, network: true };
    const USERS_ON_HOST: Apart = Apart { users: true, network: false };

    #[test]
    fn a_capability_counts_where_it_holds_and_where_the_policy_denies() {
        let all = ["CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_KILL"];
        for (text, apart, expected) in [
            (NETWORK, HOST, &["CAP_NET_RAW", "CAP_SYS_ADMIN"][..]),
            (NETWORK, OWN, &["CAP_NET_RAW", "CAP_SYS_ADMIN"]),
            (NETWORK, USERS, &["CAP_NET_RAW"]),
            (NETWORK, USERS_ON_HOST, &[]),
            (DEVICES, OWN, &["CAP_SYS_ADMIN"]),
            (DEVICES, USERS, &[]),
            (NOTHING, HOST, &[]),
        ] {
            let found = evading(&config(&all), &policy(text), apart);
            assert_eq!(found.into_iter().collect::<Vec<_>>(), expected, "{text} {apart:?}");
        }
        assert!(evading(&config(&["CAP_KILL", "CAP_SYS_PTRACE"]), &policy(NETWORK), HOST).is_empty());
        assert_eq!(evading(&Config::default(), &policy(NETWORK), HOST).len(), EVADING.len(), "nothing said is all");
    }

    #[test]
    fn a_policy_that_is_enforced_has_to_accept_them() {
        let config = config(&["CAP_NET_RAW", "CAP_NET_ADMIN"]);
        let evading = evading(&config, &policy(NETWORK), HOST);
        let required =
            |text: &str| require_acceptance(&evading, &config, &policy(text)).map_err(|error| error.to_string());
        let error = required(NETWORK).unwrap_err();
        assert!(error.contains("--cap-drop NET_RAW --cap-drop NET_ADMIN"), "{error}");
        let one = r#"{"version": 1, "network": {"default": "deny"}, "process": {"capabilities": ["CAP_NET_RAW"]}}"#;
        let error = required(one).unwrap_err();
        assert!(error.contains("CAP_NET_ADMIN") && !error.contains("NET_RAW"), "{error}");
        assert_eq!(required(&one.replace("\"CAP_NET_RAW\"", "\"CAP_NET_RAW\", \"CAP_NET_ADMIN\"")), Ok(()));
        assert_eq!(required(&NETWORK.replacen('{', "{\"mode\": \"audit\", ", 1)), Ok(()));
    }
}
