//! What a command needs is learnt from a run of it: under that policy it works, and nothing is denied to it.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use support::{Daemon, Output, Run, TcpServer, Transport, eventually, fresh_address, guard_run, is_bound, nginx};

/// Learns from a command, which has to succeed, and returns the policy.
fn learnt(folder: &Path, command: &[&str]) -> String {
    let policy = folder.join("learnt.json");
    let _ = fs::remove_file(&policy);
    let output = Command::new(guard_run()).args(["learn", "-o"]).arg(&policy).arg("--").args(command).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    fs::read_to_string(&policy).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Runs a command under a policy, and asserts that nothing is denied.
fn works(policy: &str, command: &[&str]) -> Output {
    let output = Run::new(policy, command).limit(std::time::Duration::from_secs(300)).output();
    assert_eq!((output.events(), output.denied()), (&[][..], 0), "{policy}\n{output:#?}");
    output.success()
}

/// Learns from a command, and runs it under what was learnt. Returns the policy.
pub fn learns(command: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let policy = learnt(folder.path(), command);
    works(&policy, command);
    serde_json::from_str(&policy).unwrap()
}

/// The rules of its network section, each as a text.
pub fn rules(policy: &Value) -> Vec<String> {
    policy["network"]["rules"].as_array().into_iter().flatten().map(ToString::to_string).collect()
}

fn curl(url: &str) -> [&str; 7] {
    ["curl", "-sS", "--noproxy", "*", "--max-time", "30", url]
}

#[test]
fn a_web_client_reaches_its_server_and_is_denied_another() {
    let (server, other) = (TcpServer::start("127.0.0.1"), TcpServer::start("127.0.0.1"));
    let (url, another) = (server.url(), other.url());
    let policy = learns(&curl(&url));
    assert_eq!(rules(&policy).len(), 1, "{policy}");
    let rule = &policy["network"]["rules"][0];
    assert_eq!(rule["hosts"], serde_json::json!(["127.0.0.1"]));
    assert_eq!(rule["ports"], serde_json::json!([server.port()]));
    assert_eq!(rule["ops"], serde_json::json!(["connect"]));
    // What was learnt from one is denied the other's.
    let output = Run::new(policy.to_string(), curl(&another)).output();
    assert!(output.code() != Some(0) && output.denied() == 1, "{output:#?}");
    assert_eq!(other.accepted(), 0);
}

#[test]
fn git_clones_from_a_web_server() {
    let (folder, address) = (tempfile::tempdir().unwrap(), fresh_address());
    let path = folder.path().to_str().unwrap();
    let make = "cd \"$1\" && git init -q --bare a.git && git -C a.git update-server-info";
    let _ = Run::shell("", make, &[path]).bare().success();
    let listen = ["-m", "http.server", "--bind", &address, "--directory", path, "8000"];
    let _server =
        Daemon::start([&[support::PYTHON][..], &listen].concat(), |_| is_bound(Transport::Tcp, &address, 8000));
    let clone = "rm -rf \"$1/clone\"; git clone -q \"$2\" \"$1/clone\"";
    let policy = learns(&["bash", "-c", clone, "bash", path, &format!("http://{address}:8000/a.git")]);
    assert!(rules(&policy).iter().all(|rule| rule.contains(&address) && rule.contains("8000")), "{policy}");
}

#[test]
fn pip_installs_from_an_index() {
    let (folder, address) = (tempfile::tempdir().unwrap(), fresh_address());
    let path = folder.path().to_str().unwrap();
    let make = "mkdir -p \"$1/simple/plain\" && cp -r tools/pip/plain \"$1/source\" && cd \"$1/source\" &&
        python3 setup.py -q bdist_wheel --dist-dir \"$1/simple/plain\"";
    let _ = Run::shell("", &make.replace("python3", support::PYTHON), &[path]).bare().success();
    let listen = ["-m", "http.server", "--bind", &address, "--directory", path, "8000"];
    let _server =
        Daemon::start([&[support::PYTHON][..], &listen].concat(), |_| is_bound(Transport::Tcp, &address, 8000));
    let install = "rm -rf \"$1/library\"; \"$3\" -m pip --isolated install -q --no-cache-dir --no-deps --index-url \"$2\" \
                   --target \"$1/library\" plain";
    let index = format!("http://{address}:8000/simple");
    learns(&["bash", "-c", install, "bash", path, &index, support::PYTHON]);
}

#[test]
fn cargo_runs_tests_with_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let _ = Run::shell("", "cp -r tools/cargo/. \"$1\"", &[path]).bare().success();
    let policy = learns(&["bash", "-c", "cd \"$1\" && cargo test -q --offline --locked", "bash", path]);
    assert!(rules(&policy).iter().any(|rule| rule.contains("sandbox")), "{policy}");
    assert!(rules(&policy).iter().any(|rule| rule.contains("ephemeral")), "{policy}");
}

#[test]
fn nginx_serves_those_outside() {
    let (folder, address) = (tempfile::tempdir().unwrap(), fresh_address());
    let command = nginx(folder.path(), &address, None);
    let url = format!("http://{address}:8080/");
    let policy = folder.path().join("learnt.json");
    let mut learning = Command::new(guard_run())
        .args(["learn", "-o"])
        .arg(&policy)
        .arg("--")
        .args(&command)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("it is bound", || is_bound(Transport::Tcp, &address, 8080));
    let _ = Run::new("", curl(&url)).bare().success();
    nix_term(learning.id());
    assert!(learning.wait().unwrap().success());
    let policy = fs::read_to_string(&policy).unwrap();
    let mut running = Run::new(policy.as_str(), &command).start();
    running.wait_until("it is bound", |_| is_bound(Transport::Tcp, &address, 8080));
    assert_eq!(Run::new("", curl(&url)).bare().success().stdout, "hello\n");
    running.signal(libc::SIGTERM);
    let output = running.wait().success();
    assert_eq!((output.events(), output.denied()), (&[][..], 0), "{policy}");
    // The control: another port is denied.
    let other = policy.replace("8080", "8081");
    let output = Run::new(other, &command).output();
    assert!(output.code() != Some(0) && output.denied() > 0, "{output:#?}");
}

fn nix_term(pid: u32) {
    assert!(Command::new("kill").arg(pid.to_string()).status().unwrap().success());
}

#[test]
fn postgresql_answers_psql() {
    let folder = tempfile::tempdir().unwrap();
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed: tools/setup.sh test");
    let bin = versions.map(|version| version.unwrap().path().join("bin")).max().expect("a version");
    let script = "chmod 755 \"$1\" && rm -rf \"$1/data\" && mkdir \"$1/data\" && chown postgres \"$1/data\" &&
        exec setpriv --reuid=postgres --regid=postgres --clear-groups bash -c '
            set -e; cd \"$1/data\"; export PATH=\"$2:$PATH\"
            initdb -D \"$1/data/d\" --no-sync -A trust >/dev/null
            pg_ctl -D \"$1/data/d\" -s -w -o \"-k $1/data -h 127.0.0.1 -p $3\" -l log start
            psql -h \"$1/data\" -p \"$3\" -Atc \"select 1\" postgres
            psql -h 127.0.0.1 -p \"$3\" -Atc \"select 2\" postgres
            pg_ctl -D \"$1/data/d\" -s -w -m fast stop' bash \"$1\" \"$2\" \"$3\"";
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let words = [folder.path().to_str().unwrap(), bin.to_str().unwrap(), &port];
    let policy = learns(&[&["bash", "-c", script, "bash"][..], &words].concat());
    let socket = format!(".s.PGSQL.{port}");
    assert!(policy["unix"].is_null() || policy["unix"].to_string().contains(&socket), "{policy}");
    assert!(rules(&policy).iter().any(|rule| rule.contains("sandbox")), "{policy}");
}

#[test]
fn node_serves_itself() {
    const PROGRAM: &str = "const http = require('http');
const server = http.createServer((request, response) => response.end('hello'));
server.listen(0, '127.0.0.1', () => http.get({port: server.address().port, host: '127.0.0.1'}, answer => {
  answer.pipe(process.stdout); answer.on('end', () => server.close()); }));";
    let policy = learns(&["node", "-e", PROGRAM]);
    assert_eq!(rules(&policy).len(), 2, "{policy}");
}

#[test]
fn make_and_a_pipeline_need_no_network() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Makefile"), "all: a b\na b:\n\t@echo $@ | tr ab xy\n").unwrap();
    let policy = learns(&["make", "-s", "-j2", "-C", folder.path().to_str().unwrap()]);
    assert_eq!(rules(&policy), [""; 0]);
    let policy = learns(&["bash", "-c", "head -c 100000 /dev/urandom | gzip | wc -c > /dev/null; : < /dev/zero"]);
    assert_eq!(rules(&policy), [""; 0]);
    // What was learnt from that is denied a client's connection.
    let server = TcpServer::start("127.0.0.1");
    let output = Run::new(policy.to_string(), curl(&server.url())).output();
    assert!(output.code() != Some(0) && output.denied() > 0, "{output:#?}");
    assert_eq!(server.accepted(), 0);
}

/// What is learnt from a command that fails is written, and the last line says that there may be more.
#[test]
fn a_command_that_fails_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let server = TcpServer::start("127.0.0.1");
    let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{}", server.port());
    for (number, (end, status, words)) in
        [("exit 3", 3, "the command exited with 3"), ("kill -INT $$", 130, "the command was ended by SIGINT")]
            .iter()
            .enumerate()
    {
        let policy = folder.path().join(format!("{number}.json"));
        let script = format!("{connect}; {end}");
        let output = Command::new(guard_run())
            .args(["learn", "-o"])
            .arg(&policy)
            .args(["--", "bash", "-c", &script])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(*status), "{said}");
        let last = said.lines().last().unwrap();
        assert!(last.contains(words) && last.contains(&format!("--update {}", policy.display())), "{said}");
        assert!(said.contains("1 rule on the network (1 host at 1 port)") && !said.contains(" 0 "), "{said}");
        assert!(fs::read_to_string(&policy).unwrap().contains(&server.port().to_string()));
    }
}

#[test]
fn what_was_learnt_replaces_nothing_and_several_runs_are_one_policy() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("learnt.json");
    let (count, script) = (folder.path().join("count"), folder.path().join("script"));
    let (one, other) = (TcpServer::start("127.0.0.1"), TcpServer::start("127.0.0.1"));
    let text = format!(
        "echo >> {0}; if [ $(wc -l < {0}) = 1 ]; then exec 3<>/dev/tcp/127.0.0.1/{1}; else exec 3<>/dev/tcp/127.0.0.1/{2}; fi",
        count.display(),
        one.port(),
        other.port()
    );
    fs::write(&script, text).unwrap();
    let learn = || {
        Command::new(guard_run())
            .args(["learn", "--runs", "2", "-o"])
            .arg(&policy)
            .args(["--", "bash"])
            .arg(&script)
            .output()
            .unwrap()
    };
    assert!(learn().status.success());
    let text = fs::read_to_string(&policy).unwrap();
    assert!(text.contains(&one.port().to_string()) && text.contains(&other.port().to_string()), "{text}");
    let refused = learn();
    assert_eq!(refused.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("it is there already"));
}

#[test]
fn what_takes_a_capability_beside_a_rule_is_learnt_with_it() {
    // The kernel's log is read by opening a device, which makes no event of a call.
    let policy = learns(&["sh", "-c", ": </dev/kmsg"]);
    let restricts = fs::read_to_string("/proc/sys/kernel/dmesg_restrict").is_ok_and(|text| text.trim() != "0");
    let expected = if restricts { json!({"capabilities": ["CAP_SYSLOG"]}) } else { Value::Null };
    assert_eq!(policy["process"], expected);
    // Each tunable is written what it is.
    let policy = learns(&["sh", "-c", "set -e; cd /proc/sys/kernel; cat ns_last_pid >ns_last_pid"]);
    assert_eq!(policy["process"], json!({"capabilities": ["CAP_CHECKPOINT_RESTORE"]}));
    // By this one, packets would get past the rules.
    let folder = tempfile::tempdir().unwrap();
    let write = ["sh", "-c", "set -e; cd /proc/sys/net/ipv4; cat ip_forward >ip_forward"];
    let file = folder.path().join("learnt.json");
    let output = Command::new(guard_run()).args(["learn", "-o"]).arg(&file).arg("--").args(write).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("left out: /sysctls/rules/0: a command can get out by \"CAP_NET_ADMIN\""), "{said}");
    let mut policy: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(policy["process"], Value::Null);
    policy["process"] = json!({"capabilities": ["CAP_NET_ADMIN"]});
    works(&policy.to_string(), &write);
}
