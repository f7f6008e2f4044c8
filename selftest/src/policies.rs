//! The sections of the policies that the vectors are tried under. `PORT` and `SERVED` stand for ports that are free when the self-test
//! begins.

/// One port is forbidden, whatever is done with it.
pub const PORT: &str = r#""network": {"default": "allow", "rules": [{"action": "deny", "ports": [PORT]}]}"#;
/// PORT is forbidden on this host's loopback networks.
pub const PORT_ON_LOOPBACK: &str =
    r#""network": {"default": "allow", "rules": [{"action": "deny", "hosts": ["loopback"], "ports": [PORT]}]}"#;
/// PORT is forbidden at one address.
pub const PORT_AT_ONE_ADDRESS: &str =
    r#""network": {"default": "allow", "rules": [{"action": "deny", "hosts": ["127.0.0.1"], "ports": [PORT]}]}"#;
/// Nothing may be served but one port, which nobody wants.
pub const NOTHING_SERVED: &str = r#""network": {"default": "allow", "rules": [{"action": "allow", "ops": ["bind"], "ports": [9]}, {"action": "deny", "ops": ["bind"]}]}"#;
/// Nothing may come from this host.
pub const NOTHING_RECEIVED: &str =
    r#""network": {"default": "allow", "rules": [{"action": "deny", "ops": ["receive"], "hosts": ["loopback"]}]}"#;
/// Nothing may come from one address.
pub const CALLER_NOT_RECEIVED: &str =
    r#""network": {"default": "allow", "rules": [{"action": "deny", "ops": ["receive"], "hosts": ["127.0.0.2"]}]}"#;
/// Nobody may be reached, or heard, but the sandbox's own sockets.
pub const ONLY_OWN: &str = r#""network": {"default": "deny", "rules": [{"action": "allow", "hosts": ["sandbox"]}]}"#;
/// One port may not be served.
pub const PORT_SERVED: &str =
    r#""network": {"default": "allow", "rules": [{"action": "deny", "ops": ["bind"], "ports": [SERVED]}]}"#;
/// One port may be served at an address that this host does not have, and nowhere else.
pub const PORT_SERVED_NOWHERE: &str = r#""network": {"default": "allow", "rules": [{"action": "allow", "ops": ["bind"], "hosts": ["192.0.2.1"], "ports": [SERVED]}, {"action": "deny", "ops": ["bind"], "ports": [SERVED]}]}"#;
/// Nothing may go elsewhere than to this host, and so nobody may be told which groups are joined.
pub const NO_GROUPS: &str = r#""network": {"default": "deny", "rules": [{"action": "allow", "hosts": ["loopback"]}]}"#;
/// Nothing may go elsewhere but datagrams to two groups.
pub const GROUP_ALLOWED: &str = r#""network": {"default": "deny", "rules": [{"action": "allow", "protocols": ["udp"], "hosts": ["loopback", "239.1.2.3", "ff15::3"]}]}"#;
/// Nothing may come from this host but what TCP and UDP bring.
pub const NO_ERRORS: &str = r#""network": {"default": "allow", "rules": [{"action": "allow", "ops": ["receive"], "protocols": ["tcp", "udp"]}, {"action": "deny", "ops": ["receive"], "hosts": ["loopback"]}]}"#;
/// Nothing may go to one host at the other end of a network device.
pub const DENIED_HOST: &str =
    r#""network": {"default": "allow", "rules": [{"action": "deny", "hosts": ["10.9.0.3", "fd09::3"]}]}"#;
/// Nothing may go to a network device's own address.
pub const OWN_DEVICE: &str =
    r#""network": {"default": "allow", "rules": [{"action": "deny", "hosts": ["10.9.0.1"], "ports": [PORT]}]}"#;
/// Nothing is allowed on the network.
pub const NETWORK: &str = r#""network": {"default": "deny"}"#;
/// Names may be asked for and reached, which `nameserver` has. The sandbox's own sockets may be reached as well.
pub const NAMES: &str = r#""network": {"default": "deny", "nameservers": ["NAMESERVER"], "rules": [
    {"action": "allow", "ops": ["bind", "receive"]},
    {"action": "allow", "hosts": ["sandbox"]},
    {"action": "allow", "hosts": ["allowed.selftest.test"], "private": true, "ports": [PORT]},
    {"action": "allow", "hosts": ["elsewhere.selftest.test"], "private": true, "ports": [9]},
    {"action": "allow", "hosts": ["private.selftest.test"], "ports": [PORT]},
    {"action": "allow", "hosts": ["secure.selftest.test"], "private": true, "tls": true, "ports": [PORT]}]}"#;
/// No Unix socket is allowed.
pub const UNIX: &str = r#""unix": {"default": "deny"}"#;
/// /dev/zero is forbidden.
pub const DEVICES: &str =
    r#""devices": {"default": "allow", "rules": [{"action": "deny", "type": "c", "major": 1, "minor": 5}]}"#;
/// Block devices are.
pub const BLOCKS: &str = r#""devices": {"default": "allow", "rules": [{"action": "deny", "type": "b"}]}"#;
/// One tunable may not be read.
pub const SYSCTLS: &str = r#""sysctls": {"default": "allow", "rules": [{"action": "deny", "names": ["kernel/random/boot_id"], "access": "r"}]}"#;
/// Nothing is said: what is stopped is stopped for every command.
pub const NOTHING: &str = "";
