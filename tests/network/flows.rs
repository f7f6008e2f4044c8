//! What a command reaches is in the log, if that was asked for, counted exactly.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use serde_json::{Value, json};
use support::{
    Output, Run, TcpServer, UdpServer, Yard,
    bpf::{map_exists, maps_of, program_exists, programs_on},
    cgroup_of, cgroup_only, eventually, processes_with_argument,
};
use tempfile::NamedTempFile;

const PROBE: &str = include_str!("../probes/flow.py");

/// The hooks at which flows are counted, by their numbers in `enum bpf_attach_type`.
const HOOKS: [(&str, u32); 4] = [("ingress", 0), ("egress", 1), ("sock_create", 2), ("sock_ops", 3)];

fn policy() -> Value {
    json!({"version": 1, "record": "flows"})
}

fn flows(output: &Output) -> &Vec<Value> {
    output.log["flows"].as_array().unwrap_or_else(|| panic!("no flows: {:#}", output.log))
}

/// The flows of a port, by direction. There must be only one of each.
fn flows_of(output: &Output, port: u64) -> BTreeMap<&str, &Value> {
    let mut found = BTreeMap::new();
    for flow in flows(output).iter().filter(|flow| flow["network"]["port"] == port) {
        let twice = found.insert(flow["direction"].as_str().unwrap(), flow);
        assert!(twice.is_none(), "{:#?}", output.log["flows"]);
    }
    found
}

/// Checks that the flows are those that the probe has said in its output.
fn check(output: &Output, ways: &[&str]) {
    assert_eq!(output.log["flows_lost"], 0);
    let said: Vec<Value> = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(said.iter().map(|said| &said["way"]).collect::<Vec<_>>(), ways);
    for said in said {
        let (way, expected) = (&said["way"], said["flows"].as_object().unwrap());
        let found = flows_of(output, said["port"].as_u64().unwrap());
        assert!(found.keys().eq(expected.keys()), "{way}: {found:#?}");
        for (direction, expected) in expected {
            let flow = found[direction.as_str()];
            for (key, value) in expected.as_object().unwrap() {
                let found = if key == "pid" { &flow["process"]["pid"] } else { &flow[key] };
                assert_eq!(found, value, "{way}, {direction}, {key}: {flow:#}");
            }
        }
    }
}

fn reach(ways: &[&str]) -> Output {
    let output = Run::python(cgroup_only(&policy()), PROBE, ways).output().success();
    check(&output, ways);
    output
}

#[test]
fn bytes_of_tcp_connections_are_exact_however_they_end() {
    let _ = reach(&[
        "nothing",
        "nothing_server_first",
        "one_byte",
        "bulk",
        "half_closed",
        "half_closed_both",
        "half_closed_then_reset",
        "half_closed_then_closed",
        "reset_by_client",
        "reset_by_server",
        "unread",
        "queued",
        "queued_answer",
        "self_connected",
    ]);
}

#[test]
fn what_is_refused_is_no_flow_and_many_connections_to_a_peer_are_one() {
    let _ = reach(&["refused", "many", "reconnected", "handed_on"]);
}

#[test]
fn ipv6_mapped_and_dual_stack_are_counted_alike_and_ipv4_is_shown_as_such() {
    let output = reach(&["one_byte6", "one_byte_mapped", "one_byte_dual_stack", "bulk6"]);
    let addresses = flows(&output).iter().map(|flow| flow["network"]["address"].as_str().unwrap());
    let addresses: Vec<&str> = addresses.collect();
    assert_eq!(addresses, ["::1", "::1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "::1", "::1"]);
}

#[test]
fn an_mptcp_socket_that_falls_back_is_counted_exactly_and_one_that_does_not_by_its_subflows() {
    let _ = reach(&["mptcp_client", "mptcp_server"]);
    let output = Run::python(policy(), PROBE, &["mptcp"]).output().success();
    let said: Value = serde_json::from_str(&output.stdout).unwrap();
    let found = flows_of(&output, said["port"].as_u64().unwrap());
    for (flow, way) in [(found["outgoing"], "sent"), (found["incoming"], "received")] {
        assert_eq!((&flow["network"]["protocol"], &flow["connections"]), (&json!("tcp"), &json!(1)));
        assert_eq!(flow["process"]["pid"], said["flows"]["outgoing"]["pid"], "not the kernel's");
        // MPTCP may send the same data again as new data of the subflow.
        assert!(flow["bytes"][way].as_u64().unwrap() >= 1, "{flow:#}");
    }
}

#[test]
fn data_that_comes_with_the_syn_is_counted() {
    let script =
        r#"ip link set lo up && echo 3 > /proc/sys/net/ipv4/tcp_fastopen && exec /usr/bin/python3 -c "$1" fast_open"#;
    let run = Run::new(cgroup_only(&policy()), ["unshare", "--net", "bash", "-c", script, "bash", PROBE]);
    check(&run.output().success(), &["fast_open"]);
}

#[test]
fn datagrams_are_counted_one_by_one_however_they_are_sent() {
    let _ = reach(&[
        "udp",
        "udp_connected",
        "udp6",
        "udp_mapped",
        "udp_options",
        "udp6_extensions",
        "udp_corked",
        "udp_segmented",
        "udp_segmented_together",
        "udp6_segmented",
        "udp_refused",
    ]);
}

#[test]
fn a_multicast_datagram_that_is_looped_back_too_was_sent_once() {
    let script = r#"ip link add veth0 type veth peer name veth1 && ip addr add 10.9.0.1/24 dev veth0 &&
        ip link set veth0 up && ip link set veth1 up && exec /usr/bin/python3 -c "$1" udp_multicast"#;
    let run = Run::new(cgroup_only(&policy()), ["unshare", "--net", "bash", "-c", script, "bash", PROBE]);
    check(&run.output().success(), &["udp_multicast"]);
}

#[test]
fn peers_outside_are_shown_with_the_process_and_its_details() {
    let (tcp, udp) = (TcpServer::start("127.0.0.1"), UdpServer::start("127.0.0.1"));
    let script = r"exec 3<>/dev/tcp/127.0.0.1/$1; printf 'GET\r\n\r\n' >&3; cat <&3 >/dev/null; exec 3>&-
        exec 4<>/dev/udp/127.0.0.1/$2; echo -n datagram >&4; read -r -N 8 -u 4; echo $$
        # A denial comes after the flows in guard-run's queue: once it is written, the process has been looked at.
        (: <>/dev/udp/127.0.0.1/9) 2>/dev/null; until test -s $3; do :; done";
    let mut policy = policy();
    policy["network"] = json!({"default": "allow", "rules": [{"action": "deny", "ports": [9]}]});
    let live = NamedTempFile::new().unwrap();
    let live = live.path().to_str().unwrap();
    let ports = [tcp.port(), udp.port()].map(|port| port.to_string());
    let run = Run::shell(policy, script, &[&ports[0], &ports[1], live]).flags(["--events", live]);
    let output = run.output().success();
    let [connection, datagrams] = &flows(&output)[..] else { panic!("{:#?}", output.log["flows"]) };
    let pid: u64 = output.stdout.trim().parse().unwrap();
    for (flow, protocol) in [(connection, "tcp"), (datagrams, "udp")] {
        assert_eq!((&flow["direction"], &flow["network"]["protocol"]), (&json!("outgoing"), &json!(protocol)));
        let process = &flow["process"];
        assert_eq!((&process["pid"], &process["comm"]), (&json!(pid), &json!("bash")));
        assert!(process["exe"].as_str().unwrap().ends_with("/bash") && process["argv"][0] == "bash", "{process:#}");
        assert!(
            flow["first"].as_str() <= flow["last"].as_str() && output.log["started"].as_str() < flow["first"].as_str()
        );
    }
    let answer = "HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n".len();
    assert_eq!(connection["bytes"], json!({"sent": 7, "received": answer}));
    assert!(connection["duration"].as_f64().unwrap() > 0.0);
    assert_eq!(datagrams["bytes"], json!({"sent": 8, "received": 8}));
}

#[test]
fn clients_outside_are_incoming_flows_of_the_port_that_they_connect_to() {
    let program = "import socket\nl = socket.create_server(('127.0.0.1', 0)); print(l.getsockname()[1], flush=True)\n\
                   for _ in range(3):\n    c = l.accept()[0]; c.recv(100); c.sendall(b'bye'); c.close()\n";
    let mut running = Run::python(policy(), program, &[]).start();
    running.wait_for("\n");
    let port: u16 = running.stdout().trim().parse().unwrap();
    for _ in 0..3 {
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.write_all(b"hello").unwrap();
        assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 3);
    }
    let output = running.wait().success();
    let found = flows_of(&output, port.into());
    assert_eq!(found.len(), 1);
    let (connections, bytes) = (&found["incoming"]["connections"], &found["incoming"]["bytes"]);
    assert_eq!((connections, bytes), (&json!(3), &json!({"sent": 9, "received": 15})));
}

#[test]
fn a_connection_that_outlasts_the_command_is_open_and_what_was_acknowledged_is_counted() {
    // It never accepts, so it takes what its buffer holds, and no more.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let program = "import fcntl, socket, struct, sys, time\n\
                   s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); s.setblocking(False); sent = 0\n\
                   try:\n    while True: sent += s.send(bytes(65536))\n\
                   except BlockingIOError: time.sleep(0.3)\n\
                   print(sent - struct.unpack('i', fcntl.ioctl(s, 0x5411, bytes(4)))[0])\n";
    let output = Run::python(policy(), program, &[&port.to_string()]).output().success();
    let flow = flows_of(&output, port.into())["outgoing"];
    assert_eq!((&flow["connections"], &flow["open"], &flow["duration"]), (&json!(1), &json!(1), &json!(0.0)));
    let acknowledged: u64 = output.stdout.trim().parse().unwrap();
    assert_eq!(flow["bytes"], json!({"sent": acknowledged, "received": 0}));
}

#[test]
fn a_killed_command_leaves_exact_flows() {
    let server = TcpServer::start("127.0.0.1");
    let script = r"exec 3<>/dev/tcp/127.0.0.1/$1; printf 'GET\r\n\r\n' >&3; read -r line <&3; kill -9 $$";
    let output = Run::shell(policy(), script, &[&server.port().to_string()]).output().exits(137);
    let flow = flows_of(&output, server.port().into())["outgoing"];
    assert_eq!((&flow["connections"], &flow["open"], &flow["bytes"]["sent"]), (&json!(1), &json!(0), &json!(7)));
}

#[test]
fn more_peers_than_there_is_room_for_are_counted_and_called_lost() {
    let program = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                   for port in list(range(1000, 6000)) + [1000]: s.sendto(b'x', ('127.9.9.9', port))\n";
    let output = Run::python(policy(), program, &[]).output().success();
    let lost = output.log["flows_lost"].as_u64().unwrap();
    let sent: u64 = flows(&output).iter().map(|flow| flow["datagrams"]["sent"].as_u64().unwrap()).sum();
    assert_eq!(sent + lost, 5001);
    // The kernel hands room out to its CPUs in advance, so not every last place can be had.
    let kept = flows(&output).len();
    assert!(kept <= 4096 && kept > 4096 - 512, "{kept} flows");
    assert_eq!(flows_of(&output, 1000)["outgoing"]["datagrams"]["sent"], 2);
    let said = format!("guard-run: {lost} connections and datagrams are in no flow");
    assert!(output.stderr.contains(&said), "{}", output.stderr);
}

#[test]
fn what_is_denied_is_an_event_and_no_flow() {
    let (tcp, udp) = (TcpServer::start("127.0.0.1"), UdpServer::start("127.0.0.1"));
    let mut policy = policy();
    let ports = [tcp.port(), udp.port()];
    policy["network"] = json!({"default": "allow", "rules": [{"action": "deny", "ports": ports}]});
    let script = r": <>/dev/tcp/127.0.0.1/$1; : <>/dev/udp/127.0.0.1/$2; :";
    let words = ports.map(|port| port.to_string());
    let output = Run::shell(policy, script, &[&words[0], &words[1]]).output().success();
    assert_eq!((output.denied(), output.events().len(), flows(&output).len()), (2, 2, 0), "{:#}", output.log);
}

#[test]
fn the_flag_and_the_policy_mean_the_same_and_without_them_nothing_is_loaded() {
    let names = |output: &Output| -> Vec<String> {
        let hooks = output.log["enforced"]["hooks"].as_array().unwrap();
        hooks.iter().map(|hook| hook["hook"].as_str().unwrap().to_owned()).collect()
    };
    let counting = ["sock_create", "sock_ops", "ingress", "egress"];
    let flag = Run::new(cgroup_only(&json!({"version": 1})), ["true"]).flags(["--flows"]).output().success();
    let key = Run::new(cgroup_only(&policy()), ["true"]).output().success();
    for output in [flag, key] {
        assert_eq!((names(&output), &output.log["flows"]), (counting.map(str::to_owned).into(), &json!([])));
    }
    let denials = json!({"version": 1, "record": "denials"});
    for off in [json!({"version": 1}), denials] {
        let output = Run::new(cgroup_only(&off), ["true"]).output().success();
        assert!(names(&output).is_empty());
        assert!(output.log.get("flows").is_none() && output.log.get("flows_lost").is_none());
    }
}

#[test]
fn kill_9_of_guard_run_leaves_nothing_after_gc() {
    let yard = Yard::new();
    let program = "import socket, time\ns = socket.create_server(('127.0.0.1', 0))\nprint('ready', flush=True)\n\
                   time.sleep(1000)\n";
    let mark = format!("flows-{}", std::process::id());
    let mut running = Run::python(policy(), program, &[&mark]).flags(["--fresh"]).through(yard.wrapper()).start();
    running.wait_for("ready");
    // guard-run has the argument, too; the command is in the leaf.
    let leaves = yard.leaves();
    let [leaf] = &leaves[..] else { panic!("{leaves:?}") };
    let command =
        processes_with_argument(&mark).into_iter().find(|pid| cgroup_of(*pid).as_ref() == Some(leaf)).unwrap();
    let programs: Vec<u32> = HOOKS.iter().flat_map(|hook| programs_on(leaf, *hook).unwrap()).collect();
    assert_eq!(programs.len(), HOOKS.len());
    let maps: Vec<u32> = programs.iter().flat_map(|program| maps_of(*program)).collect();
    running.signal(libc::SIGKILL);
    let _ = running.wait();
    eventually("the command is dead", || !support::is_alive(command));
    assert!(yard.gc().status.success());
    assert!(yard.leaves().is_empty());
    eventually("the programs are gone", || !programs.iter().any(|program| program_exists(*program)));
    eventually("the maps are gone", || !maps.iter().any(|map| map_exists(*map)));
}
