//! What containers go through under the guard: restarts, updates, engines that die, hooks that are called when nobody expects it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use support::{
    cgroup2_mount,
    container::{Cgroups, Engine, Machine, Root, Said, guarded},
    eventually, processes_in,
};

const CRUN: Engine = (Root::Newer, Cgroups::Pure, "crun");
const RUNC: Engine = (Root::Own, Cgroups::Pure, "runc");

/// A machine, and the flags that have a container guarded by a policy which denies /dev/full. The log is `log.json`.
fn machine(engine: Engine) -> (Machine, [String; 2]) {
    let machine = Machine::new(engine);
    let policy = json!({
        "version": 1,
        "devices": {"default": "allow", "rules": [{"action": "deny", "type": "c", "major": 1, "minor": 7}]}
    });
    let policy = machine.write("policy.json", &policy.to_string());
    let flags = guarded(&policy, &machine.folder().join("log.json"));
    // For the hook alone, without an engine.
    machine.write("config.json", r#"{"process": {"args": ["sleep"], "capabilities": {}}}"#);
    (machine, flags)
}

/// Starts a guarded container of this name, which does nothing. Its id.
fn start(machine: &Machine, flags: &[String; 2], name: &str) -> String {
    let name_flag = format!("--name={name}");
    let _ = machine.container(&[&flags[0], &flags[1], "--detach", &name_flag], &["/bin/sleep", "1000"]).good();
    machine.id(name)
}

fn assert_guarded(machine: &Machine, name: &str) {
    let said = machine.exec(name, "/bin/cat /dev/full");
    assert!(said.stderr.contains("Operation not permitted"), "{said:?}");
}

/// How often the device was denied, by the log.
fn denied(log: &Value) -> u64 {
    let counts = log["events"].as_array().unwrap().iter().map(|event| event["count"].as_u64().unwrap());
    counts.sum()
}

fn remove(machine: &Machine, name: &str) {
    let _ = machine.podman(&["rm", "--force", "--time=0", name]).good();
}

#[test]
fn a_container_that_is_restarted_is_guarded_again_and_each_run_has_its_log() {
    for engine in [CRUN, RUNC] {
        let (machine, [policy, _]) = machine(engine);
        let logs = machine.folder().join("logs");
        fs::create_dir(&logs).unwrap();
        start(&machine, &[policy, format!("--annotation=io.guard-run.log={}", logs.display())], "c1");
        assert_guarded(&machine, "c1");
        let _ = machine.podman(&["restart", "--time=0", "c1"]).good();
        assert_guarded(&machine, "c1");
        let _ = machine.podman(&["stop", "--time=0", "c1"]).good();
        let _ = machine.podman(&["start", "c1"]).good();
        assert_guarded(&machine, "c1");
        assert_guarded(&machine, "c1");
        remove(&machine, "c1");
        let mut logs: Vec<PathBuf> = fs::read_dir(logs).unwrap().map(|log| log.unwrap().path()).collect();
        logs.sort();
        let counts = logs.iter().map(|log| denied(&serde_json::from_slice(&fs::read(log).unwrap()).unwrap()));
        assert_eq!(counts.collect::<Vec<_>>(), [1, 1, 2], "{engine:?}");
        assert_eq!(machine.pins(), Vec::<String>::new());
    }
}

/// podman looks for hooks whenever it starts a container. Of flags of the first start, a restart of its own knows nothing.
#[test]
fn a_restart_by_podman_itself_is_guarded_where_containers_conf_names_the_hooks() {
    let (machine, flags) = machine(CRUN);
    let own = fs::read_to_string(machine.folder().join("containers.conf")).unwrap();
    let hooks = machine.hooks_dir();
    machine.write("containers.conf", &format!("{own}[engine]\nhooks_dir = [\"{}\"]\n", hooks.display()));
    let podman = |words: &[&str]| machine.run("podman", &[&["--runtime", machine.runtime()], words].concat());
    let rootfs = machine.rootfs();
    let run =
        ["run", "--detach", "--name=c1", "--restart=always", "--network=none", "--pids-limit=0", &flags[0], &flags[1]];
    let _ = podman(&[&run[..], &["--rootfs", rootfs.to_str().unwrap(), "/bin/sleep", "1000"]].concat()).good();
    let _ = machine.id("c1");
    let pid = || podman(&["inspect", "--format={{.State.Pid}}", "c1"]).good().stdout;
    let first = pid();
    assert_guarded(&machine, "c1");
    let _ = machine.run("sh", &["-c", &format!("kill -9 {}", first.trim())]).good();
    eventually("podman starts it again", || ![first.as_str(), "0\n"].contains(&pid().as_str()));
    assert_guarded(&machine, "c1");
    remove(&machine, "c1");
    assert_eq!(machine.pins(), Vec::<String>::new());
}

/// What an update of the container says, by the engine and, where that has no controllers to set limits with, by the runtime.
fn update(machine: &Machine, name: &str) -> [Said; 3] {
    let id = machine.id(name);
    let devices = json!({"devices": [
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 7, "access": "rwm"}
    ]});
    let (nothing, devices) = (machine.write("nothing.json", "{}"), machine.write("devices.json", &devices.to_string()));
    let by_runtime =
        |file: &Path| machine.run(machine.runtime(), &["update", "--resources", file.to_str().unwrap(), &id]);
    [machine.podman(&["update", "--cpus=0.5", name]), by_runtime(&nothing), by_runtime(&devices)]
}

#[test]
fn an_update_leaves_the_guard_and_the_guard_the_update() {
    for engine in [CRUN, RUNC] {
        let (machine, flags) = machine(engine);
        let _ = machine.container(&["--detach", "--name=bare"], &["/bin/sleep", "1000"]).good();
        start(&machine, &flags, "c1");
        let codes = |name: &str| update(&machine, name).map(|said| said.code);
        assert_eq!(codes("c1"), codes("bare"), "{engine:?}");
        assert_eq!(codes("c1")[1..], [Some(0), Some(0)], "{engine:?}");
        assert_guarded(&machine, "c1");
        remove(&machine, "c1");
        assert_eq!(denied(&machine.log("log.json")), 1, "{engine:?}");
    }
}

/// Starts a guarded container that opens the device once there is a file /go, then kills its engine.
fn orphan(machine: &Machine, flags: &[String; 2]) -> String {
    let script = "until [ -e /go ]; do /bin/sleep 0.05; done; /bin/cat /dev/full; /bin/touch /done; /bin/sleep 1000";
    let flags = [&flags[0], flags[1].as_str(), "--detach", "--name=c1"];
    let _ = machine.container(&flags, &["/bin/sh", "-c", script]).good();
    let conmon = machine.podman(&["inspect", "--format={{.State.ConmonPid}}", "c1"]).good().stdout;
    let _ = machine.run("sh", &["-c", "kill -9 \"$0\"", conmon.trim()]).good();
    machine.id("c1")
}

/// Ends a container whose engine is gone.
fn end(machine: &Machine, id: &str) {
    let cgroups = machine.cgroups(id);
    assert_eq!(cgroups.len(), 1);
    fs::write(cgroups[0].join("cgroup.kill"), "1").unwrap();
    eventually("the container has ended", || processes_in(&cgroups[0]).is_empty());
}

#[test]
fn a_container_whose_engine_is_killed_stays_guarded_and_gc_writes_its_log() {
    for engine in [CRUN, RUNC] {
        let (machine, flags) = machine(engine);
        let id = orphan(&machine, &flags);
        assert_eq!(machine.gc().good().stdout, "0 abandoned containers concluded\n", "it is alive");
        fs::write(machine.rootfs().join("go"), "").unwrap();
        eventually("the container has tried", || machine.rootfs().join("done").exists());
        end(&machine, &id);
        assert!(!machine.pins().is_empty() && !machine.folder().join("log.json").exists());
        assert_eq!(machine.gc().good().stdout, format!("concluded {id}\n1 abandoned container concluded\n"));
        assert_eq!(machine.pins(), Vec::<String>::new());
        let log = machine.log("log.json");
        assert_eq!((denied(&log), &log["container"]["id"]), (1, &json!(id)));
        // The engine finds out in the end, complains (its monitor is gone) and calls poststop once more.
        let _ = machine.podman(&["rm", "--force", "--time=0", "c1"]);
        assert_eq!(machine.log("log.json"), log);
    }
}

#[test]
fn what_a_killed_engine_left_behind_is_concluded_by_the_next_container() {
    for engine in [CRUN, RUNC] {
        let (machine, flags) = machine(engine);
        let id = orphan(&machine, &flags);
        end(&machine, &id);
        let log = flags[1].replace("log.json", "other.json");
        let _ = machine.container(&[&flags[0], &log, "--rm"], &["/bin/true"]).good();
        assert_eq!(machine.log("log.json")["container"]["id"], json!(id));
        assert_eq!(machine.pins(), Vec::<String>::new());
    }
}

/// podman does not call poststop for a container that its runtime has not come to starting.
#[test]
fn a_container_that_fails_to_start_after_all_is_concluded_by_the_next() {
    for engine in [CRUN, RUNC] {
        let (machine, flags) = machine(engine);
        let said = machine.container(&[&flags[0], &flags[1], "--rm"], &["/bin/absent"]);
        assert_eq!(said.code, Some(127), "{said:?}");
        let other = flags[1].replace("log.json", "other.json");
        let _ = machine.container(&[&flags[0], &other, "--rm"], &["/bin/true"]).good();
        assert_eq!(machine.pins(), Vec::<String>::new());
        assert_eq!(machine.log("log.json")["command"], json!(["/bin/absent"]));
    }
}

/// runc writes them in the container's process, once that is guarded.
#[test]
fn tunables_that_an_engine_sets_are_set() {
    for engine in [CRUN, RUNC] {
        let (machine, flags) = machine(engine);
        let flags = [&flags[0], flags[1].as_str(), "--rm", "--sysctl=net.ipv4.ip_unprivileged_port_start=77"];
        let said = machine.script(&flags, "/bin/cat /proc/sys/net/ipv4/ip_unprivileged_port_start").good();
        assert_eq!(said.stdout, "77\n", "{engine:?} {said:?}");
    }
}

#[test]
fn what_a_killed_hook_left_behind_is_removed() {
    let (machine, flags) = machine(RUNC);
    let made = machine.run("mkdir", &["-p", "/sys/fs/bpf/guard-run/left~", "/sys/fs/bpf/guard-run/behind~"]);
    let _ = made.good();
    assert_eq!(machine.gc().good().stdout, "0 abandoned containers concluded\n");
    assert_eq!(machine.pins(), Vec::<String>::new());
    let id = start(&machine, &flags, "c1");
    remove(&machine, "c1");
    // And where it is in the way of the very container.
    let _ = machine.run("mkdir", &[&format!("/sys/fs/bpf/guard-run/{id}~")]).good();
    let (_, again) = (start(&machine, &flags, "c1"), machine.pins());
    assert!(!again.is_empty());
    remove(&machine, "c1");
    assert_eq!(machine.pins(), Vec::<String>::new());
}

fn state(machine: &Machine, status: &str, id: &str, pid: Option<u32>, annotations: &[String; 2]) -> Value {
    let annotations = annotations.iter().map(|flag| {
        let (key, value) = flag.strip_prefix("--annotation=").unwrap().split_once('=').unwrap();
        (key.to_owned(), json!(value))
    });
    let mut state = json!({"ociVersion": "1.0.2", "id": id, "status": status, "bundle": machine.folder()});
    state["annotations"] = annotations.collect::<serde_json::Map<_, _>>().into();
    if let Some(pid) = pid {
        state["pid"] = json!(pid);
    }
    state
}

#[test]
fn poststop_frees_nobody_and_may_be_repeated() {
    let (machine, flags) = machine(RUNC);
    let id = start(&machine, &flags, "c1");
    let stopped = state(&machine, "stopped", &id, None, &flags);
    let said = machine.call_hook(&stopped);
    assert!(said.code == Some(125) && said.stderr.contains("still has processes"), "{said:?}");
    assert_guarded(&machine, "c1");
    remove(&machine, "c1");
    let log = machine.log("log.json");
    assert_eq!(denied(&log), 1);
    for _ in 0..2 {
        let said = machine.call_hook(&stopped).good();
        assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""));
    }
    assert_eq!(machine.log("log.json"), log);
}

/// A process that does nothing, and ends with this value.
struct Idle(Child);

impl Idle {
    /// One in a mount namespace of its own, as a container's.
    fn apart() -> Self {
        Self::new(Command::new("unshare").args(["--mount", "sleep", "1000"]))
    }

    /// One that this command becomes.
    fn new(command: &mut Command) -> Self {
        let idle = Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let name = format!("/proc/{}/comm", idle.0.id());
        eventually("it sleeps", || fs::read_to_string(&name).is_ok_and(|name| name == "sleep\n"));
        idle
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process in a cgroup of the test's own.
struct Sleeper {
    cgroup: PathBuf,
    processes: Vec<Idle>,
}

impl Sleeper {
    fn new(name: &str, count: usize) -> Self {
        let cgroup = cgroup2_mount().join(name);
        fs::create_dir(&cgroup).unwrap();
        let mut sleeper = Self { cgroup, processes: Vec::new() };
        for _ in 0..count {
            let idle = Idle::apart();
            fs::write(sleeper.cgroup.join("cgroup.procs"), idle.pid().to_string()).unwrap();
            sleeper.processes.push(idle);
        }
        sleeper
    }

    fn pid(&self) -> u32 {
        self.processes[0].pid()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.processes.clear();
        let _ = fs::remove_dir(&self.cgroup);
    }
}

#[test]
fn a_cgroup_that_is_not_the_containers_own_is_refused() {
    let (machine, flags) = machine(RUNC);
    let refused = |pid: u32, words: &str| {
        let said = machine.call_hook(&state(&machine, "creating", "c1", Some(pid), &flags));
        assert!(said.code == Some(125) && said.stderr.contains(words), "{said:?}");
        assert_eq!(machine.pins(), Vec::<String>::new());
    };
    let shared = Sleeper::new(&format!("oci-shared-{}", std::process::id()), 2);
    refused(shared.pid(), "has other processes in it than the container's");
    refused(Idle::apart().pid(), "no cgroup of its own");
    let keeper = machine.keeper().to_string();
    let beside = Idle::new(Command::new("nsenter").args(["--mount", "--target", &keeper, "sleep", "1000"]));
    refused(beside.pid(), "in no mount or pid namespace of its own");
    refused(1, "process 1 is the engine's or the machine's");
    refused(std::process::id(), "is the engine's or the machine's");
    refused(u32::MAX / 4, "there is no such file");
    let said = machine.call_hook(&state(&machine, "creating", "c1", None, &flags));
    assert!(said.code == Some(125) && said.stderr.contains("no process"), "{said:?}");
    // And one that is, under an id that is in use.
    let (own, other) = (format!("oci-own-{}", std::process::id()), format!("oci-other-{}", std::process::id()));
    let (own, other) = (Sleeper::new(&own, 1), Sleeper::new(&other, 1));
    let _ = machine.call_hook(&state(&machine, "creating", "a.b", Some(own.pid()), &flags)).good();
    assert!(machine.pins().contains(&"a%2Eb".to_owned()), "{:?}", machine.pins());
    let said = machine.call_hook(&state(&machine, "creating", "a.b", Some(other.pid()), &flags));
    assert!(said.code == Some(125) && said.stderr.contains("is still running"), "{said:?}");
    let cgroup = own.cgroup.clone();
    drop(own);
    let _ = machine.call_hook(&state(&machine, "stopped", "a.b", None, &flags)).good();
    assert_eq!(
        machine.log("log.json")["enforced"]["cgroup"].as_str().map(Path::new).and_then(Path::file_name),
        cgroup.file_name()
    );
    assert_eq!(machine.pins(), Vec::<String>::new());
}

#[test]
fn a_sub_cgroup_is_guarded_together_with_the_containers_own_above_it() {
    let (machine, flags) = machine(RUNC);
    let id = format!("oci-scope-{}", std::process::id());
    let scope = cgroup2_mount().join(format!("libpod-{id}.scope"));
    fs::create_dir(&scope).unwrap();
    let inner = Sleeper::new(&format!("libpod-{id}.scope/container"), 1);
    let _ = machine.call_hook(&state(&machine, "created", &id, Some(inner.pid()), &flags)).good();
    drop(inner);
    let _ = machine.call_hook(&state(&machine, "stopped", &id, None, &flags)).good();
    fs::remove_dir(&scope).unwrap();
    let cgroup = machine.log("log.json")["enforced"]["cgroup"].as_str().unwrap().to_owned();
    assert!(cgroup.ends_with(&format!("libpod-{id}.scope")), "{cgroup}");
}

#[test]
fn a_sub_cgroup_is_guarded_together_with_the_one_that_the_configuration_names() {
    let (machine, flags) = machine(RUNC);
    let name = format!("oci-named-{}", std::process::id());
    for path in [format!("/{name}"), format!("x.slice:oci-named:{}", std::process::id())] {
        let config = json!({"process": {"capabilities": {}}, "linux": {"cgroupsPath": path}});
        machine.write("config.json", &config.to_string());
        let own = if path.contains(':') { format!("{name}.scope") } else { name.clone() };
        let above = cgroup2_mount().join(&own);
        fs::create_dir(&above).unwrap();
        let inner = Sleeper::new(&format!("{own}/container"), 1);
        let _ = machine.call_hook(&state(&machine, "created", "c1", Some(inner.pid()), &flags)).good();
        drop(inner);
        let _ = machine.call_hook(&state(&machine, "stopped", "c1", None, &flags)).good();
        fs::remove_dir(&above).unwrap();
        let cgroup = machine.log("log.json")["enforced"]["cgroup"].as_str().unwrap().to_owned();
        assert!(cgroup.ends_with(&format!("/{own}")), "{path}: {cgroup}");
    }
}

#[test]
fn where_a_container_has_only_cgroups_of_version_1_it_gets_one_of_version_2() {
    if cgroup2_mount() == Path::new("/sys/fs/cgroup") {
        // No engine here makes such a container; a process that is in no cgroup of its own stays where it is.
        let (machine, flags) = machine((Root::Own, Cgroups::AsTheyAre, "runc"));
        let said = machine.call_hook(&state(&machine, "creating", "c1", Some(std::process::id()), &flags));
        assert!(said.code == Some(125), "{said:?}");
        return;
    }
    let (machine, flags) = machine((Root::Own, Cgroups::Apart, "runc"));
    let flags = [&flags[0], flags[1].as_str(), "--rm"];
    let said = machine.script(&flags, "/bin/cat /dev/full; /bin/cat /proc/self/cgroup").good();
    assert!(said.stderr.contains("Operation not permitted"), "{said:?}");
    let log = machine.log("log.json");
    let id = log["container"]["id"].as_str().unwrap();
    assert!(said.stdout.contains(&format!("0::/guard-hook.{id}")), "{said:?}");
    assert_eq!((denied(&log), &log["enforced"]["exec"]), (1, &json!(false)));
    assert_eq!(machine.cgroups(id), Vec::<PathBuf>::new());
    assert_eq!(machine.pins(), Vec::<String>::new());
    // One that an engine which was killed has left behind is not in the way.
    let _ = machine.container(&[flags[0], flags[1], "--detach", "--name=c1"], &["/bin/sleep", "1000"]).good();
    let id = machine.id("c1");
    let _ = machine.podman(&["kill", "c1"]).good();
    let _ = machine.podman(&["wait", "c1"]).good();
    let leaf = cgroup2_mount().join(format!("guard-hook.{id}"));
    let _ = fs::create_dir(&leaf);
    let _ = machine.podman(&["start", "c1"]).good();
    assert_eq!(processes_in(&leaf).len(), 1);
    remove(&machine, "c1");
    assert!(!leaf.exists());
    // And where it can't be kept, the process is not left in it.
    let _ = machine.run("umount", &["/sys/fs/bpf"]).good();
    let said = machine.container(&[flags[0], flags[1], "--name=c2"], &["/bin/true"]);
    assert!(said.stderr.contains("bpf file system"), "{said:?}");
    assert_eq!(machine.cgroups(&machine.id("c2")), Vec::<PathBuf>::new());
}

#[test]
fn without_an_annotation_for_it_the_log_goes_to_the_folder_of_logs() {
    let (machine, [policy, _]) = machine(CRUN);
    let _ = machine.container(&[&policy, "--rm", "--name=c1"], &["/bin/true"]).good();
    let logs = machine.run("find", &["/var/log/guard-run", "-name", "*.json"]).good().stdout;
    assert_eq!(logs.lines().count(), 1, "{logs}");
    let log: Value = serde_json::from_str(&machine.run("cat", &[logs.trim()]).good().stdout).unwrap();
    let id = log["container"]["id"].as_str().unwrap();
    assert!(logs.trim().ends_with(&format!("-{}.json", &id[..12])), "{logs}");
}
