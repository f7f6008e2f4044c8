//! Clients that others wrote, of servers at Unix sockets. A network section has no say there; where they try the network
//! instead, it has.

use std::{ffi::OsStr, fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::{Value, json};
use support::{Daemon, Output, Run, denials, denied, fresh_address, works};
use tempfile::TempDir;

/// A policy under which nobody may be connected to over the network.
fn no_network() -> Value {
    json!({"version": 1, "network": {"default": "allow", "rules": [{"action": "deny", "ops": ["connect"]}]}})
}

/// The event of a TCP connection that it denies.
fn event(address: &str, port: u16) -> Value {
    let network = json!({"address": address, "port": port, "protocol": "tcp", "host": null});
    json!({"op": "connect", "verdict": "denied", "network": network, "rule": "/network/rules/0", "count": 1})
}

/// An SSH server for each connection to what socat listens at, with keys in a folder that are thrown away with it.
pub fn ssh_server(folder: &Path, listen: &str, ready: impl Fn() -> bool) -> Daemon {
    let path = |name: &str| folder.join(name).display().to_string();
    for key in ["host", "user"] {
        let _ = Run::new("", ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &path(key)]).bare().success();
    }
    let lines = [
        format!("HostKey {}", path("host")),
        format!("AuthorizedKeysFile {}", path("user.pub")),
        "StrictModes no\nUsePAM no\nPidFile none\nLogLevel ERROR\n".to_owned(),
    ];
    fs::write(folder.join("sshd_config"), lines.join("\n")).unwrap();
    // It insists on an empty folder of this name, which is there only while the system's own server runs.
    let script = "mount -t tmpfs none /run && mkdir /run/sshd && exec socat \"$1\" EXEC:\"$2\"";
    let server = format!("/usr/sbin/sshd -i -e -f {}", path("sshd_config"));
    let command = ["unshare", "--mount", "sh", "-c", script, "sh", listen, &server];
    Daemon::start(command, |_| ready())
}

/// A client that trusts any server and uses that key only.
pub fn ssh(folder: &Path, arguments: &[&str]) -> Vec<String> {
    let key = folder.join("user").display().to_string();
    let options =
        ["UserKnownHostsFile=/dev/null", "StrictHostKeyChecking=no", "LogLevel=ERROR", "BatchMode=yes", "User=root"];
    let mut command = vec!["ssh".to_owned(), "-F".to_owned(), "none".to_owned(), "-i".to_owned(), key];
    command.extend(options.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]));
    command.extend(arguments.iter().map(ToString::to_string));
    command
}

#[test]
fn ssh_needs_no_network_where_it_goes_through_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let _server = ssh_server(folder.path(), &format!("UNIX-LISTEN:{},fork", socket.display()), || socket.exists());
    let proxy = format!("ProxyCommand=socat - UNIX-CONNECT:{}", folder.path().join("socket").display());
    let command = ssh(folder.path(), &["-o", &proxy, "server", "echo hello; id -u"]);
    assert_eq!(works(&no_network(), &command).stdout, "hello\n0\n");

    let address = fresh_address();
    let command = ssh(folder.path(), &[&address, "true"]);
    let message = format!("ssh: connect to host {address} port 22: Operation not permitted");
    let _ = denied(&no_network(), command, 255, &message, &[event(&address, 22)]);
}

/// A bus of its own: at the Unix socket `bus` in a folder, and at port 7000 of an address.
fn bus(folder: &TempDir, address: &str) -> Daemon {
    // The bus gives up root's rights to look into folders of others.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let configuration = format!(
        r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={}/bus</listen>
  <listen>tcp:host={address},bind={address},port=7000,family=ipv4</listen>
  <auth>EXTERNAL</auth>
  <auth>ANONYMOUS</auth>
  <allow_anonymous/>
  <policy context="default">
    <allow user="*"/>
    <allow send_type="method_call"/>
    <allow send_type="method_return"/>
    <allow receive_type="method_return"/>
    <allow receive_type="signal"/>
  </policy>
</busconfig>"#,
        folder.path().display()
    );
    let file = folder.path().join("bus.conf");
    fs::write(&file, configuration).unwrap();
    let command = ["dbus-daemon", "--nofork", "--print-address", "--config-file", file.to_str().unwrap()];
    // It prints its addresses when it listens.
    Daemon::start(command, |running| running.stdout().ends_with('\n'))
}

/// Asks a bus whether the name of the bus has an owner.
fn dbus_send(bus: &str) -> [String; 6] {
    let name = "org.freedesktop.DBus";
    ["dbus-send", "--print-reply=literal", &format!("--bus={bus}"), &format!("--dest={name}"), "/", ""]
        .map(|word| if word.is_empty() { format!("{name}.GetId") } else { word.to_owned() })
}

#[test]
fn dbus_send_reaches_a_bus_by_the_kind_of_socket_that_it_may_use() {
    let (folder, address) = (tempfile::tempdir().unwrap(), fresh_address());
    let _server = bus(&folder, &address);
    let unix = format!("unix:path={}/bus", folder.path().display());
    let tcp = format!("tcp:host={address},port=7000,family=ipv4");
    let id = works(&no_network(), dbus_send(&unix)).stdout;
    assert!(!id.trim().is_empty());
    let policy = json!({"version": 1, "network": {"default": "allow", "rules": [
        {"action": "allow", "ops": ["connect"], "protocols": ["tcp"], "hosts": [address], "ports": [7000]},
        {"action": "deny", "ops": ["connect"]}
    ]}});
    assert_eq!(works(&policy, dbus_send(&tcp)).stdout, id);
    let message = format!("Failed to connect to socket \"{address}\" port 7000: Operation not permitted");
    let _ = denied(&no_network(), dbus_send(&tcp), 1, &message, &[event(&address, 7000)]);
}

/// A policy under which no Unix socket may be connected to.
fn no_unix() -> Value {
    json!({"version": 1, "unix": {"default": "deny"}})
}

/// Runs a command under it. It must end with an exit status and message of its own, and be denied connecting to these
/// sockets only, once each.
fn denied_unix<A: AsRef<OsStr>>(
    command: impl IntoIterator<Item = A>,
    code: i32,
    message: &str,
    paths: &[&str],
) -> Output {
    let output = Run::new(no_unix(), command).output().exits(code);
    assert!(output.stderr.contains(message), "no {message:?}: {output:#?}");
    let mut events = denials(&output);
    // The C library asks for a name service cache, whether there is one or not. Where guard-run judges by real paths,
    // there is nothing to judge if there isn't.
    events.retain(|event| !event["unix"]["path"].as_str().is_some_and(|path| path.ends_with("/nscd/socket")));
    let expected = paths.iter().map(|path| {
        let unix = json!({"path": path, "operation": "connect"});
        json!({"op": "unix", "verdict": "denied", "unix": unix, "rule": "default", "count": 1})
    });
    assert_eq!(events, expected.collect::<Vec<_>>());
    output
}

#[test]
fn socat_relays_unix_sockets_where_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let path = socket.to_str().unwrap();
    // It answers with what it is told, and ends the connection.
    let listen = format!("UNIX-LISTEN:{path},fork");
    let _server = Daemon::start(["socat", &listen, "EXEC:head -n 1"], |_| socket.exists());
    let connect = format!("UNIX-CONNECT:{path}");
    let command = ["bash", "-c", "echo hello | socat -t 30 - \"$1\"", "bash", &connect];
    let allowed = json!({"version": 1, "unix": {"default": "allow"}});
    assert_eq!(works(&allowed, command).stdout, "hello\n");
    let message = format!("AF=1 \"{path}\"");
    let output = denied_unix(["socat", "-u", &connect, "-"], 1, &message, &[path]);
    assert!(output.stderr.contains("Operation not permitted"), "{output:#?}");
}

#[test]
fn ssh_cannot_use_a_unix_socket_where_none_may_be_connected_to() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let _server = ssh_server(folder.path(), &format!("UNIX-LISTEN:{},fork", socket.display()), || socket.exists());
    let socket = folder.path().join("socket").display().to_string();
    let proxy = format!("ProxyCommand=socat - UNIX-CONNECT:{socket}");
    let command = ssh(folder.path(), &["-o", &proxy, "server", "echo hello"]);
    let allowed = json!({"version": 1, "unix": {"default": "allow"}});
    assert_eq!(works(&allowed, &command).stdout, "hello\n");
    // The error is that of the proxy command; ssh finds its connection closed.
    let output = denied_unix(command, 255, "Connection closed by", &[&socket]);
    assert!(output.stderr.contains("Operation not permitted"), "{output:#?}");
}

#[test]
fn dbus_send_cannot_reach_a_bus_where_no_unix_socket_may_be_connected_to() {
    let (folder, address) = (tempfile::tempdir().unwrap(), fresh_address());
    let _server = bus(&folder, &address);
    let path = format!("{}/bus", folder.path().display());
    let (unix, tcp) = (format!("unix:path={path}"), format!("tcp:host={address},port=7000,family=ipv4"));
    let allowed = json!({"version": 1, "unix": {"default": "allow"}});
    let id = works(&allowed, dbus_send(&unix)).stdout;
    assert_eq!(denied_unix(dbus_send(&tcp), 0, "", &[]).stdout, id);
    let message = format!("Failed to connect to socket {path}: Operation not permitted");
    let _ = denied_unix(dbus_send(&unix), 1, &message, &[&path]);
}
