//! Unix rules on paths hold for the socket, in both directions: no spelling of a forbidden socket looks allowed, and an
//! allowed socket stays allowed under a name that looks forbidden. Where the kernel has no BPF LSM, such rules are refused.

use std::fs;

use serde_json::{Value, json};
use support::{
    Output, Probe, Run, Yard, cgroup_only, eventually,
    kernel::{self, Feature},
    unix::{SPELLINGS, WAYS},
};
use tempfile::TempDir;

fn policy(default: &str, rules: &Value) -> Value {
    json!({"version": 1, "unix": {"default": default, "rules": rules}})
}

fn every_spelling(server: &str) -> Vec<String> {
    let spellings = |way| SPELLINGS.map(|spelling| format!("{way} {spelling} {server}"));
    WAYS.into_iter().flat_map(spellings).collect()
}

fn probe(folder: &TempDir) -> Probe {
    let probe = Probe::unix().argument(folder.path().to_str().unwrap()).argument("yes,no");
    probe.through(&["unshare", "--mount"])
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("guard").tempdir_in("/tmp").unwrap()
}

fn paths_of(output: &Output) -> Vec<&str> {
    output.events().iter().filter_map(|event| event["unix"]["path"].as_str()).collect()
}

/// Where the kernel has no BPF LSM, a policy that needs it is refused before anything starts, with the reason. True if it
/// was.
fn is_refused(policy: &Value) -> bool {
    if !kernel::lacks(Feature::BpfLsm) {
        return false;
    }
    let run = Run::shell(policy, "touch \"$STARTED\"", &[]);
    let marker = run.folder().join("started");
    let output = run.environment("STARTED", &marker).output().exits(125);
    let release = kernel::release();
    for word in ["unix_stream_connect", "BPF LSM", &release, "6.0", "CONFIG_BPF_LSM", "lsm=", "denied alike"] {
        assert!(output.stderr.contains(word), "{word} is missing: {}", output.stderr);
    }
    assert!(!marker.exists() && output.log.is_null(), "{output:?}");
    true
}

#[test]
fn only_one_path_is_allowed_and_no_spelling_makes_another_look_like_it() {
    let folder = folder();
    let allowed = format!("{}/yes.*", folder.path().display());
    let only_yes = policy("deny", &json!([{"action": "allow", "paths": [allowed]}]));
    if is_refused(&only_yes) {
        return;
    }
    let output = probe(&folder).denied(every_spelling("no")).allowed(every_spelling("yes")).check(&only_yes);
    for path in paths_of(&output) {
        assert!(
            ["stream", "seqpacket", "dgram"]
                .map(|kind| format!("{}/no.{kind}", folder.path().display()))
                .contains(&path.to_owned()),
            "{path}"
        );
    }
}

#[test]
fn only_one_path_is_denied_and_no_spelling_makes_it_look_like_another() {
    let folder = folder();
    let denied: Vec<String> =
        ["stream", "seqpacket", "dgram"].map(|kind| format!("{}/no.{kind}", folder.path().display())).into();
    let all_but_no = policy("allow", &json!([{"action": "deny", "paths": denied}]));
    if is_refused(&all_but_no) {
        return;
    }
    let output = probe(&folder).denied(every_spelling("no")).allowed(every_spelling("yes")).check(&all_but_no);
    assert!(output.events().iter().all(|event| event["rule"] == "/unix/rules/0"), "{:#}", output.log);
}

#[test]
fn a_server_is_known_by_its_own_path_and_not_by_how_it_wrote_it() {
    const PROGRAM: &str = "import os, socket, sys
how, folder = sys.argv[1:]
os.makedirs(folder + '/real', exist_ok=True)
if not os.path.lexists(folder + '/link'): os.symlink('real', folder + '/link')
for file in os.listdir(folder + '/real'): os.unlink(folder + '/real/' + file)
s = socket.socket(socket.AF_UNIX)
if how == 'relative':
    os.chdir(folder + '/real')
    s.bind('x')
elif how == 'link':
    s.bind(folder + '/link/x')
elif how == 'renamed':
    s.bind(folder + '/real/y')
    os.rename(folder + '/real/y', folder + '/real/x')
elif how == 'chroot':
    if os.fork() == 0:
        os.chroot(folder)
        s.bind('/real/x')
        os._exit(0)
    os.wait()
s.listen()
socket.socket(socket.AF_UNIX).connect(folder + '/real/x')";
    let folder = folder();
    let real = format!("{}/real/x", folder.path().display());
    let (only_x, all_but_x) = (
        policy("deny", &json!([{"action": "allow", "paths": [real]}])),
        policy("allow", &json!([{"action": "deny", "paths": [real]}])),
    );
    if is_refused(&only_x) {
        return;
    }
    for how in ["relative", "link", "renamed", "chroot"] {
        let run = |policy| Run::python(policy, PROGRAM, &[how, folder.path().to_str().unwrap()]);
        let _ = run(&only_x).bare().success();
        let _ = run(&only_x).output().success();
        let output = run(&all_but_x).output().exits(1);
        assert_eq!(paths_of(&output), [real.as_str()], "{how}");
    }
}

#[test]
fn a_path_that_is_longer_than_can_be_judged_is_denied() {
    const PROGRAM: &str = "import os, socket, sys
os.chdir(sys.argv[1])
for i in range(int(sys.argv[2])):
    os.makedirs('d' * 30, exist_ok=True)
    os.chdir('d' * 30)
if os.path.exists('x'): os.unlink('x')
s = socket.socket(socket.AF_UNIX)
s.bind('x')
s.listen()
socket.socket(socket.AF_UNIX).connect('x')";
    let folder = folder();
    let policy = policy("allow", &json!([{"action": "deny", "paths": ["/run/docker.sock"]}]));
    if is_refused(&policy) {
        return;
    }
    let run = |depth: &str| Run::python(&policy, PROGRAM, &[folder.path().to_str().unwrap(), depth]);
    let _ = run("7").output().success();
    let _ = run("8").bare().success();
    let output = run("8").output().exits(1);
    let [event] = output.events() else { panic!("{:#}", output.log) };
    assert_eq!(event["rule"], "fail-closed");
    assert!(event["reason"].as_str().unwrap().contains("too long"), "{event:#}");
}

#[test]
fn a_mount_that_is_in_no_namespace_any_more_hides_nothing() {
    // What was at FOLDER/m/no is /no in the mount that was taken away.
    const PROGRAM: &str = "import os, socket, subprocess, sys
folder = sys.argv[1]
os.makedirs(folder + '/m', exist_ok=True)
subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', folder + '/m'], check=True)
s = socket.socket(socket.AF_UNIX)
s.bind(folder + '/m/no')
s.listen()
held = os.open(folder + '/m', os.O_PATH)
if sys.argv[2] == 'away': subprocess.run(['umount', '--lazy', folder + '/m'], check=True)
socket.socket(socket.AF_UNIX).connect(f'/proc/self/fd/{held}/no')";
    let folder = folder();
    let denied = format!("{}/m/no", folder.path().display());
    // Commands that may not mount never come here.
    let policy = cgroup_only(&policy("allow", &json!([{"action": "deny", "paths": [denied]}])));
    if is_refused(&policy) {
        return;
    }
    for (where_to, rule) in [("stays", "/unix/rules/0"), ("away", "fail-closed")] {
        let run = Run::python(&policy, PROGRAM, &[folder.path().to_str().unwrap(), where_to]);
        let run = run.through(["unshare", "--mount"]);
        let _ = run.bare().success();
        assert_eq!(run.output().exits(1).events()[0]["rule"], rule);
    }
}

#[test]
fn sockets_without_a_name_are_judged_where_a_rule_names_them() {
    let deny = policy("allow", &json!([{"action": "deny", "paths": ["unnamed"]}]));
    if is_refused(&deny) {
        return;
    }
    let output = probe(&folder())
        .denied(["dgram pair -"])
        // Once connected, these are asked about nothing any more.
        .allowed(["stream pair -", "seqpacket pair -", "stream path yes", "dgram path yes"])
        .check(&deny);
    assert_eq!(output.events()[0]["unix"], json!({"path": "unnamed", "operation": "send"}));
    let allow = policy("deny", &json!([{"action": "deny", "paths": ["/run/x"]}, {"action": "deny", "paths": ["@*"]}]));
    let _ = probe(&folder()).denied(["dgram path yes"]).allowed(["dgram pair -"]).check(&allow);
}

#[test]
fn a_rule_on_a_symbolic_link_is_refused_with_the_path_that_is_meant() {
    let folder = folder();
    let path = |name: &str| format!("{}/{name}", folder.path().display());
    fs::create_dir(path("real")).unwrap();
    std::os::unix::fs::symlink("real", path("link")).unwrap();
    let rules = |name: &str| json!([{"action": "allow", "paths": ["/run/other", path(name)]}]);
    if is_refused(&policy("deny", &rules("real/x"))) {
        return;
    }
    let output = Run::new(policy("deny", &rules("link/x")), ["true"]).output().exits(125);
    for word in ["/unix/rules/0/paths/1", "symbolic link", &format!("write \"{}\"", path("real/x"))] {
        assert!(output.stderr.contains(word), "{word} is missing: {}", output.stderr);
    }
    for good in ["real/x", "real/*", "none/x", "l*k/x"] {
        let _ = Run::new(policy("deny", &rules(good)), ["true"]).output().success();
    }
}

#[test]
fn killing_guard_run_frees_nobody() {
    // A process that guard-run's end doesn't end, and that tries when there is a file to tell it.
    const PROGRAM: &str = "import os, socket, sys, time
folder = sys.argv[1]
servers = [socket.socket(socket.AF_UNIX) for name in ('yes', 'no')]
for server, name in zip(servers, ('yes', 'no')):
    server.bind(folder + '/' + name)
    server.listen()
if os.fork() == 0:
    os.setsid()
    print('ready', flush=True)
    while not os.path.exists(folder + '/go'): time.sleep(0.01)
    said = [str(socket.socket(socket.AF_UNIX).connect_ex(folder + '/' + name)) for name in ('yes', 'no')]
    with open(folder + '/said.new', 'w') as file: file.write(' '.join(said))
    os.rename(folder + '/said.new', folder + '/said')
    os._exit(0)
time.sleep(60)";
    let (folder, yard) = (folder(), Yard::new());
    let path = |name: &str| folder.path().join(name);
    let policy = policy("deny", &json!([{"action": "allow", "paths": [path("yes")]}]));
    if is_refused(&policy) {
        return;
    }
    let run = Run::python(&policy, PROGRAM, &[folder.path().to_str().unwrap()]).through(yard.wrapper());
    let mut running = run.start();
    running.wait_for("ready");
    running.signal(libc::SIGKILL);
    let _ = running.wait();
    fs::write(path("go"), "").unwrap();
    eventually("the process has tried", || path("said").exists());
    assert_eq!(fs::read_to_string(path("said")).unwrap(), "0 1", "allowed, and EPERM");
}
