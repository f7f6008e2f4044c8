//! What tools need is learnt from a run of each: under that policy nothing is denied to it, and to another one something is.

use std::{fs, path::Path};

use support::{Daemon, Run, Transport, fresh_address, is_bound};

use crate::{
    clients_unix::{ssh, ssh_server},
    learn::{learns, rules},
};

/// A copy of a folder of tests/tools, and its path.
fn copy(tool: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(tool).display().to_string();
    let _ = Run::shell("", "cp -r tools/\"$1\" \"$2\"", &[tool, &path]).bare().success();
    (folder, path)
}

/// Serves a folder at port 8000 of an address.
fn serve(folder: &str, address: &str) -> Daemon {
    let command = [support::PYTHON, "-m", "http.server", "--bind", address, "--directory", folder, "8000"];
    Daemon::start(command, |_| is_bound(Transport::Tcp, address, 8000))
}

#[test]
fn git_clones_over_ssh_and_what_others_learnt_is_not_enough() {
    let (folder, address) = (tempfile::tempdir().unwrap(), fresh_address());
    let path = folder.path().to_str().unwrap();
    let _ = Run::shell("", "git init -q --bare \"$1/a.git\"", &[path]).bare().success();
    let listen = format!("TCP-LISTEN:2222,bind={address},reuseaddr,fork");
    let _server = ssh_server(folder.path(), &listen, || is_bound(Transport::Tcp, &address, 2222));
    let client = ssh(folder.path(), &["-p", "2222"]).join(" ");
    let script = "rm -rf \"$1/clone\"; GIT_SSH_COMMAND=\"$3\" git clone -q \"$2\" \"$1/clone\"";
    let clone = ["bash", "-c", script, "bash", path, &format!("{address}:{path}/a.git"), &client];
    let policy = learns(&clone);
    assert!(rules(&policy).iter().all(|rule| rule.contains(&address) && rule.contains("2222")), "{policy}");
    let program =
        "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname(), 5)";
    let others = learns(&[support::PYTHON, "-c", program]);
    let output = Run::new(others.to_string(), clone).output();
    assert!(output.code() != Some(0) && output.denied() > 0, "{output:#?}");
}

#[test]
fn go_runs_tests_with_sockets() {
    let (_folder, path) = copy("go");
    let script = "cd \"$1\" && export GO111MODULE=on GOPROXY=off GOFLAGS=-mod=mod GOTOOLCHAIN=local GOTELEMETRY=off \
                  GOCACHE=$1/cache GOPATH=$1/path && go test -count=1 .";
    let policy = learns(&["bash", "-c", script, "bash", &path]);
    assert!(rules(&policy).iter().any(|rule| rule.contains("sandbox")), "{policy}");
}

#[test]
fn java_serves_itself() {
    let (_folder, path) = copy("java");
    let _ = Run::shell("", "cd \"$1\" && javac -d classes Main.java", &[&path]).bare().success();
    let policy = learns(&["java", "-cp", &format!("{path}/classes"), "Main"]);
    assert!(rules(&policy).iter().any(|rule| rule.contains("sandbox")), "{policy}");
}

#[test]
fn npm_installs_from_a_registry() {
    let ((_folder, path), address) = (copy("npm"), fresh_address());
    let make = "cd \"$1\" && mkdir registry project && npm pack --silent --pack-destination registry ./hello && \
                echo '{\"name\": \"project\", \"version\": \"1.0.0\"}' >project/package.json";
    let _ = Run::shell("", make, &[&path]).bare().success();
    let registry = format!("http://{address}:8000/registry");
    let package = serde_json::json!({"name": "hello", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {"name": "hello",
        "version": "1.0.0", "dist": {"tarball": format!("{registry}/hello-1.0.0.tgz")}}}});
    fs::write(Path::new(&path).join("registry/hello"), package.to_string()).unwrap();
    let _server = serve(&path, &address);
    let install = "cd \"$1/project\" && rm -rf node_modules package-lock.json ../cache && export npm_config_cache=$1/cache \
                   npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false npm_config_fetch_retries=0 && \
                   npm install --silent --registry \"$2\" hello";
    let policy = learns(&["bash", "-c", install, "bash", &path, &registry]);
    assert_eq!(rules(&policy).len(), 1, "{policy}");
    assert!(rules(&policy)[0].contains(&address), "{policy}");
}

#[test]
fn redis_answers_by_tcp_and_by_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let address = fresh_address();
    // It says on standard output when it takes connections.
    let script = "set -e; coproc redis-server --port 6379 --bind \"$2\" --save '' --dir \"$1\" --unixsocket \"$1/socket\"
        while read -r line <&\"${COPROC[0]}\"; do case $line in *'accept connections at'*) break ;; esac; done
        redis-cli -h \"$2\" set key value; redis-cli -s \"$1/socket\" get key; redis-cli -h \"$2\" shutdown nosave; wait";
    let policy = learns(&["bash", "-c", script, "bash", path, &address]);
    assert!(policy["unix"].is_null() || policy["unix"].to_string().contains("/socket"), "{policy}");
    assert!(rules(&policy).iter().any(|rule| rule.contains("6379")), "{policy}");
}

#[test]
fn pytest_runs_in_two_processes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let tests = "import socket, pytest
@pytest.mark.parametrize('number', range(4))
def test_server(number):
    with socket.create_server(('127.0.0.1', 0)) as server, socket.create_connection(server.getsockname(), 5) as client:
        server.accept()[0].sendall(b'x')
        assert client.recv(1) == b'x'
";
    fs::write(folder.path().join("test_server.py"), tests).unwrap();
    let policy = learns(&["/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", path]);
    assert!(rules(&policy).iter().any(|rule| rule.contains("sandbox")), "{policy}");
}

#[test]
fn chromium_shows_a_page() {
    let (folder, address) = (tempfile::tempdir().unwrap(), fresh_address());
    let path = folder.path().to_str().unwrap();
    fs::write(folder.path().join("page.html"), "<p>hello</p>").unwrap();
    let _server = serve(path, &address);
    let script = "rm -rf \"$1/profile\"; chromium --headless --no-sandbox --disable-gpu --disable-background-networking \
                  --no-first-run --user-data-dir=\"$1/profile\" --dump-dom \"$2\" | grep hello";
    let policy = learns(&["bash", "-c", script, "bash", path, &format!("http://{address}:8000/page.html")]);
    assert!(rules(&policy).iter().any(|rule| rule.contains(&address)), "{policy}");
}
