//! What reaches the hook from somebody other than root: an image's annotations, what a container does in its volumes, capabilities that an
//! engine gives, calls that no runtime makes.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use support::{
    container::{Cgroups, Engine, Machine, Root, Said, guarded},
    eventually,
};

const CRUN: Engine = (Root::Newer, Cgroups::Pure, "crun");
const RUNC: Engine = (Root::Own, Cgroups::Pure, "runc");

/// Denies /dev/full.
const DEVICES: &str = r#"{"version": 1, "devices": {"default": "allow", "rules": [{"action": "deny", "type": "c", "major": 1, "minor": 7}]}}"#;

/// Denies a port.
const NETWORK: &str =
    r#"{"version": 1, "network": {"default": "allow", "rules": [{"action": "deny", "ports": [9090]}]}}"#;

fn policy_flag(policy: &Path) -> String {
    format!("--annotation=io.guard-run.policy={}", policy.display())
}

fn log_flag(log: &str) -> String {
    format!("--annotation=io.guard-run.log={log}")
}

/// Puts a file into an image's folder of blobs. What describes it.
fn blob(image: &Path, kind: &str, content: &Path) -> Value {
    let said = Command::new("sha256sum").arg(content).output().unwrap();
    let digest = String::from_utf8(said.stdout).unwrap()[..64].to_owned();
    fs::copy(content, image.join("blobs/sha256").join(&digest)).unwrap();
    let size = fs::metadata(content).unwrap().len();
    json!({
        "mediaType": format!("application/vnd.oci.image.{kind}"),
        "digest": format!("sha256:{digest}"),
        "size": size
    })
}

/// Makes an image (OCI layout) of busybox whose manifest has these annotations. Its name, by which podman knows it.
fn image(machine: &Machine, name: &str, annotations: &BTreeMap<&str, String>) -> String {
    let image = machine.folder().join(name);
    fs::create_dir_all(image.join("blobs/sha256")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, value: &Value| {
        let path = scratch.path().join(name);
        fs::write(&path, value.to_string()).unwrap();
        path
    };
    let layer = scratch.path().join("layer.tar");
    let packed = Command::new("tar").arg("-cf").arg(&layer).arg("-C").arg(machine.rootfs()).arg(".").status().unwrap();
    assert!(packed.success());
    let layer = blob(&image, "layer.v1.tar", &layer);
    let config = write(
        "config",
        &json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh", "-c", "echo it ran"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}
        }),
    );
    let config = blob(&image, "config.v1+json", &config);
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer], "annotations": annotations});
    let manifest = blob(&image, "manifest.v1+json", &write("manifest", &manifest));
    let mut manifest = manifest;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": format!("localhost/{name}:1")});
    fs::write(image.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string()).unwrap();
    fs::write(image.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    let archive = machine.folder().join(format!("{name}.tar"));
    assert!(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&image).arg(".").status().unwrap().success());
    let _ = machine.podman(&["load", "--quiet", "--input", archive.to_str().unwrap()]).good();
    format!("localhost/{name}:1")
}

#[test]
fn an_image_has_no_file_of_roots_read_or_replaced() {
    // podman 4.3.1 takes annotations from images.
    let machine = Machine::new(RUNC);
    let policy = machine.write("policy.json", DEVICES);
    let other = machine.run("sh", &["-c", &format!("cp {} /etc/other.json", policy.display())]);
    let _ = other.good();
    let run = |name: &str, policy: &str, log: &str| {
        let annotations =
            BTreeMap::from([("io.guard-run.policy", policy.to_owned()), ("io.guard-run.log", log.to_owned())]);
        let image = image(&machine, name, &annotations);
        machine.podman(&["run", "--rm", "--pids-limit=0", "--network=none", &image])
    };
    let good = policy.to_str().unwrap();
    let said = run("log", good, "/etc/ld.so.preload");
    assert!(
        said.code != Some(0) && said.stderr.contains("/etc/ld.so.preload is outside of /var/log/guard-run"),
        "{said:?}"
    );
    assert_eq!(machine.run("ls", &["/etc/ld.so.preload"]).code, Some(2), "root's file was made");
    let said = run("policy", "/etc/other.json", "/var/log/guard-run/x.json");
    assert!(said.code != Some(0) && said.stderr.contains("/etc/other.json is outside of"), "{said:?}");
    // The control: the annotations do come from the image, and say what they may.
    let said = run("both", good, "/var/log/guard-run/x.json").good();
    assert_eq!(said.stdout, "it ran\n");
    eventually("the log is written", || machine.run("cat", &["/var/log/guard-run/x.json"]).code == Some(0));
}

/// crun opens the file for what hooks say that an annotation names, and what they say has words of annotations in it.
#[test]
fn what_the_hook_says_of_an_annotation_is_written_to_no_file_of_roots() {
    let machine = Machine::new(CRUN);
    let policy = machine.write("policy.json", DEVICES);
    let words = "--annotation=io.guard-run.$(touch /etc/pwned)=x";
    let says = |file: &str| {
        let file = format!("--annotation=run.oci.hooks.stderr={file}");
        let said = machine.container(&["--rm", &policy_flag(&policy), words, &file], &["/bin/true"]);
        assert_ne!(said.code, Some(0), "{said:?}");
    };
    let log = machine.folder().join("hook.txt");
    says(log.to_str().unwrap());
    assert!(fs::read_to_string(&log).unwrap().contains("unknown annotation"), "the control: a folder for logs");
    symlink("/etc/profile.d/b.sh", machine.folder().join("link.txt")).unwrap();
    for (named, written) in [
        ("/etc/profile.d/a.sh".to_owned(), "/etc/profile.d/a.sh"),
        (machine.folder().join("link.txt").display().to_string(), "/etc/profile.d/b.sh"),
    ] {
        says(&named);
        // crun has made it.
        assert_eq!(machine.run("cat", &[written]).good().stdout, "", "{named}");
    }
}

#[test]
fn links_and_dots_lead_to_no_policy_and_no_log() {
    let machine = Machine::new(RUNC);
    let policy = machine.write("policy.json", DEVICES);
    let [real, link] = ["real", "link"].map(|name| machine.folder().join(name));
    fs::create_dir(&real).unwrap();
    symlink("real", &link).unwrap();
    symlink("policy.json", machine.folder().join("linked.json")).unwrap();
    fs::copy(&policy, real.join("policy.json")).unwrap();
    let run = |policy: &Path, log: &str, code: i32| {
        let said = machine.container(&["--rm", &policy_flag(policy), &log_flag(log)], &["/bin/true"]);
        assert_eq!(said.code, Some(code), "{} {log}: {said:?}", policy.display());
        said.stderr
    };
    let good = "/var/log/guard-run/x.json";
    for linked in [machine.folder().join("linked.json"), link.join("policy.json")] {
        assert!(run(&linked, good, 126).contains("a symbolic link"), "{}", linked.display());
    }
    let dots = machine.folder().join("real/../policy.json");
    assert!(run(&dots, good, 126).contains("write the path without \"..\""));
    assert!(run(&policy, "/var/log/guard-run/../x.json", 126).contains("write the path without \"..\""));
    run(&policy, link.join("x.json").to_str().unwrap(), 0);
    eventually("the log is in the usual folder", || {
        machine.run("sh", &["-c", "ls /var/log/guard-run/*.json"]).code == Some(0)
    });
    assert!(!real.join("x.json").exists(), "the link was followed");
    // A folder that somebody else could put another one in the place of.
    fs::set_permissions(&real, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    assert!(run(&real.join("policy.json"), good, 126).contains("others than root can write it"));
}

/// Calls the hook for a container that is asked for with these annotations, whose process is none: what is wrong with them is said first.
fn ask(machine: &Machine, annotations: &Value) -> Said {
    let state = json!({
        "ociVersion": "1.0.2", "id": "c1", "status": "creating", "bundle": machine.folder(), "pid": 1, "annotations": annotations
    });
    machine.call_hook(&state)
}

#[test]
fn a_default_policy_stays_unless_root_says_otherwise() {
    let machine = Machine::new(RUNC);
    machine.write("config.json", r#"{"process": {"capabilities": {}}}"#);
    let policy = machine.write("policy.json", DEVICES);
    let named = json!({"io.guard-run.policy": policy});
    let past = "is the engine's or the machine's";
    assert!(ask(&machine, &named).stderr.contains(past));
    assert!(ask(&machine, &json!({})).stderr.contains("no annotation io.guard-run.policy"));
    let default = format!("cp {} /etc/guard-run/default-policy.json", policy.display());
    let _ = machine.run("sh", &["-c", &default]).good();
    assert!(ask(&machine, &json!({})).stderr.contains(past), "there is a policy for all");
    let said = ask(&machine, &named);
    assert!(said.stderr.contains("would take the place of /etc/guard-run/default-policy.json"), "{said:?}");
    let replace = format!(
        r#"echo '{{"version": 1, "annotations": "replace", "policies": ["{}"]}}' >/etc/guard-run/hook.json"#,
        machine.folder().display()
    );
    let _ = machine.run("sh", &["-c", &replace]).good();
    assert!(ask(&machine, &named).stderr.contains(past));
    // The file itself has to be root's.
    let _ = machine.run("chmod", &["666", "/etc/guard-run/hook.json"]).good();
    let said = ask(&machine, &named);
    assert!(said.stderr.contains("/etc/guard-run/hook.json: others than root can write it"), "{said:?}");
}

/// An image's annotation could have crun start a virtual machine.
#[test]
fn what_would_run_in_a_virtual_machine_is_refused() {
    let machine = Machine::new(RUNC);
    machine.write("config.json", r#"{"process": {"capabilities": {}}}"#);
    let policy = machine.write("policy.json", DEVICES);
    for (handler, expected) in [("krun", "krun is not known to run"), ("wasm", "is the engine's or the machine's")] {
        let said = ask(&machine, &json!({"io.guard-run.policy": policy, "run.oci.handler": handler}));
        assert!(said.code == Some(125) && said.stderr.contains(expected), "{handler}: {said:?}");
    }
}

#[test]
fn what_is_wrong_in_roots_settings_is_refused() {
    let machine = Machine::new(RUNC);
    for (text, expected) in [
        (r#"{"version": 1, "log": []}"#, "/etc/guard-run/hook.json: unknown field `log`"),
        (r#"{"version": 2}"#, "/version: 2 is unknown"),
        ("[]", "expected an object"),
    ] {
        let _ = machine.run("sh", &["-c", &format!("echo '{text}' >/etc/guard-run/hook.json")]).good();
        let said = ask(&machine, &json!({"io.guard-run.policy": "/etc/guard-run/p.json"}));
        assert!(said.code == Some(125) && said.stderr.contains(expected), "{text}: {said:?}");
    }
    let schema: Value = serde_json::from_str(include_str!("../../schema/hook.schema.json")).unwrap();
    let schema = jsonschema::draft202012::new(&schema).unwrap();
    for (text, valid) in [
        (r#"{"version": 1}"#, true),
        (r#"{"version": 1, "policies": ["/a"], "logs": [], "annotations": "replace", "runtimes": ["x"]}"#, true),
        (r#"{"version": 1, "log": []}"#, false),
        (r#"{"version": 1, "logs": ["a"]}"#, false),
        (r#"{"version": 1, "annotations": "tighten"}"#, false),
    ] {
        assert_eq!(schema.is_valid(&serde_json::from_str(text).unwrap()), valid, "{text}");
    }
}

#[test]
fn a_rootless_engine_is_told_so() {
    let machine = Machine::new(RUNC);
    let policy = machine.write("policy.json", DEVICES);
    let state = json!({
        "ociVersion": "1.0.2", "id": "c1", "status": "creating", "bundle": "/", "pid": 1,
        "annotations": {"io.guard-run.policy": policy}
    });
    let state = machine.write("state.json", &state.to_string());
    let script = format!("exec {} <{}", machine.hook().display(), state.display());
    let said = machine.run("unshare", &["--user", "--map-root-user", "sh", "-c", &script]);
    assert!(said.code == Some(125) && said.stderr.contains("not the host's root"), "{said:?}");
}

/// A machine with a folder that a container may write to, in which its log is to be.
struct Volume {
    machine: Machine,
    folder: PathBuf,
    flags: [String; 3],
}

impl Volume {
    fn new(engine: Engine) -> Self {
        let machine = Machine::new(engine);
        let folder = machine.folder().join("volume");
        fs::create_dir_all(folder.join("logs")).unwrap();
        fs::create_dir(machine.folder().join("secret")).unwrap();
        let policy = machine.write("policy.json", DEVICES);
        let [policy, log] = guarded(&policy, &folder.join("logs/log.json"));
        let volume = format!("--volume={}:/volume", folder.display());
        Self { machine, folder, flags: [policy, log, volume] }
    }

    /// Runs a container that does this in the folder.
    fn run(&self, name: &str, script: &str) -> Said {
        let name = format!("--name={name}");
        let flags = [&self.flags[0], &self.flags[1], &self.flags[2], name.as_str()];
        let script = format!("B=/bin/busybox; cd /volume; {script}; $B cat /dev/full");
        self.machine.container(&flags, &["/bin/sh", "-c", &script])
    }

    /// Waits until so many logs are in the usual folder, and nothing is kept any more: podman cleans up after a container
    /// when the container's end has been seen.
    fn wait_for_usual(&self, count: usize) {
        let found = || self.machine.run("find", &["/var/log/guard-run", "-name", "*.json"]).stdout;
        eventually("the logs are in the usual folder", || {
            found().lines().count() == count && self.machine.pins().is_empty()
        });
    }
}

#[test]
fn a_container_puts_no_log_elsewhere_and_can_start_again() {
    for engine in [RUNC, CRUN] {
        let volume = Volume::new(engine);
        let secret = volume.machine.folder().join("secret");
        // A link in the folder's place.
        let _ = volume.run("c1", &format!("$B mv logs old; $B ln -s {} logs", secret.display()));
        volume.wait_for_usual(1);
        assert_eq!(fs::read_dir(&secret).unwrap().count(), 0, "{engine:?}");
        // Another folder in its place.
        fs::remove_file(volume.folder.join("logs")).unwrap();
        fs::rename(volume.folder.join("old"), volume.folder.join("logs")).unwrap();
        let _ = volume.run("c2", "$B mv logs old; $B mkdir logs");
        volume.wait_for_usual(2);
        assert_eq!(fs::read_dir(volume.folder.join("logs")).unwrap().count(), 0, "{engine:?}");
        // A link at the log's own name, which is replaced.
        fs::write(secret.join("file"), "secret").unwrap();
        let _ = volume.run("c3", &format!("$B ln -s {} logs/log.json", secret.join("file").display()));
        volume.wait_for_usual(2);
        assert_eq!(fs::read_to_string(secret.join("file")).unwrap(), "secret", "{engine:?}");
        let log = fs::symlink_metadata(volume.folder.join("logs/log.json")).unwrap();
        assert!(log.is_file(), "{engine:?}");
        fs::remove_file(volume.folder.join("logs/log.json")).unwrap();
        // A folder there.
        let _ = volume.run("c4", "$B mkdir -p logs/log.json");
        volume.wait_for_usual(3);
        for name in ["c1", "c2", "c3", "c4"] {
            // Its command comes from its first time.
            let said = volume.machine.podman(&["start", "--attach", name]);
            assert!(said.stderr.contains("/dev/full"), "{engine:?} {name}: {said:?}");
            assert!(said.stderr.contains("Operation not permitted"), "{engine:?} {name}: {said:?}");
        }
        eventually("all has been concluded", || volume.machine.pins().is_empty());
    }
}

#[test]
fn where_no_log_can_be_written_a_container_starts_again_and_gc_writes_it_later() {
    for engine in [RUNC, CRUN] {
        let volume = Volume::new(engine);
        let _ = volume.machine.run("mkdir", &["-p", "/var/log/guard-run"]).good();
        let _ = volume.machine.run("mount", &["-t", "tmpfs", "-o", "ro", "tmpfs", "/var/log/guard-run"]).good();
        let _ = volume.run("c1", "$B mkdir -p logs/log.json");
        let id = volume.machine.id("c1");
        assert!(volume.machine.pins().contains(&id), "{engine:?}: {:?}", volume.machine.pins());
        // Its log is where the folder is now; what could not be written waits.
        for count in 1..=3 {
            let said = volume.machine.podman(&["start", "--attach", "c1"]);
            assert!(said.stderr.contains("Operation not permitted"), "{engine:?}: {said:?}");
            eventually("the run has its log, and the first is kept", || {
                let (kept, logs) = (volume.machine.pins(), fs::read_dir(volume.folder.join("logs/log.json")));
                kept.contains(&format!("{id}+")) && !kept.contains(&id) && logs.unwrap().count() == count
            });
        }
        let _ = volume.machine.run("umount", &["/var/log/guard-run"]).good();
        assert_eq!(volume.machine.gc().good().stdout, format!("concluded {id}\n1 abandoned container concluded\n"));
        volume.wait_for_usual(1);
    }
}

/// What a policy accepts, or words about what is refused.
type Expected = Result<&'static [&'static str], &'static str>;

#[test]
fn capabilities_by_which_a_policy_is_evaded_are_refused_unless_it_accepts_them() {
    let accepting = |capabilities: &str| {
        NETWORK.replacen('{', &format!("{{\"process\": {{\"capabilities\": {capabilities}}}, "), 1)
    };
    let audit = NETWORK.replacen('{', "{\"mode\": \"audit\", ", 1);
    // Flags, the policy, and what is accepted by it; or what is refused.
    let table: [(&[&str], &str, Expected); 11] = [
        (&[], NETWORK, Ok(&[])),
        (&["--cap-add=NET_RAW"], NETWORK, Err("--cap-drop NET_RAW")),
        (&["--cap-add=NET_RAW"], DEVICES, Ok(&[])),
        (&["--cap-add=NET_RAW"], &accepting("[\"CAP_NET_RAW\"]"), Ok(&["CAP_NET_RAW"])),
        (&["--cap-add=NET_RAW", "--cap-add=NET_ADMIN"], &accepting("[\"CAP_NET_RAW\"]"), Err("--cap-drop NET_ADMIN;")),
        (&["--cap-add=NET_RAW"], &audit, Ok(&["CAP_NET_RAW"])),
        // Of an ordinary user inside, only the bounding set has it.
        (&["--cap-add=NET_RAW", "--user=1000"], NETWORK, Err("CAP_NET_RAW")),
        (&["--privileged"], DEVICES, Err("CAP_SYS_ADMIN")),
        // It holds only for what is the container's own.
        (&["--cap-add=SYS_ADMIN", "--uidmap=0:100000:65536"], DEVICES, Ok(&[])),
        (&["--cap-add=NET_RAW", "--uidmap=0:100000:65536"], NETWORK, Err("CAP_NET_RAW")),
        (
            &["--cap-add=NET_RAW", "--uidmap=0:100000:65536", "--network=host", "--dns=none", "--no-hosts"],
            NETWORK,
            Ok(&[]),
        ),
    ];
    for engine in [RUNC, CRUN] {
        let machine = Machine::new(engine);
        // Users of the container's own can't enter a folder of root's.
        for folder in [machine.folder(), &machine.rootfs()] {
            fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        for (flags, policy, expected) in table {
            let policy = machine.write("policy.json", policy);
            let [policy, log] = guarded(&policy, &machine.folder().join("log.json"));
            let flags = [&["--rm", &policy, &log], flags].concat();
            let said = machine.container(&flags, &["/bin/true"]);
            match expected {
                Ok(accepted) => {
                    assert_eq!(said.code, Some(0), "{engine:?} {flags:?}: {said:?}");
                    let log = machine.log("log.json");
                    assert_eq!(
                        log["enforced"]["accepted_capabilities"],
                        json!(accepted),
                        "{engine:?} {flags:?}: {log:#}"
                    );
                }
                Err(words) => {
                    assert_eq!(said.code, Some(126), "{engine:?} {flags:?}: {said:?}");
                    // crun throws away what hooks say.
                    assert!(engine == CRUN || said.stderr.contains(words), "{flags:?}: {said:?}");
                }
            }
        }
        assert_eq!(machine.pins(), Vec::<String>::new(), "{engine:?}");
    }
}

#[test]
fn a_call_that_is_repeated_leaves_no_moment_without_a_guard() {
    for engine in [RUNC, CRUN] {
        let machine = Machine::new(engine);
        let policy = machine.write("policy.json", DEVICES);
        let [policy, log] = guarded(&policy, &machine.folder().join("log.json"));
        // The shell itself opens the device, as often as it can.
        let script = "until [ -e /stop ]; do true </dev/full && echo out >>/out; echo x >>/tries; done 2>/dev/null";
        let said = machine.container(
            &["--detach", "--name=c1", &policy, &log],
            &["/bin/sh", "-c", &format!("{script}; /bin/sleep 1000")],
        );
        let _ = said.good();
        let id = machine.id("c1");
        let pid = machine.podman(&["inspect", "--format={{.State.Pid}}", "c1"]).good().stdout;
        let config = machine.podman(&["inspect", "--format={{.OCIConfigPath}}", "c1"]).good().stdout;
        let config = Path::new(config.trim());
        let text = machine.run("cat", &[config.to_str().unwrap()]).good().stdout;
        let text: Value = serde_json::from_str(&text).unwrap();
        let state = json!({
            "ociVersion": "1.0.2", "id": id, "status": "creating", "bundle": config.parent(),
            "pid": pid.trim().parse::<u32>().unwrap(), "annotations": text["annotations"]
        });
        for _ in 0..20 {
            let _ = machine.call_hook(&state).good();
        }
        fs::write(machine.rootfs().join("stop"), "").unwrap();
        let tries = fs::read_to_string(machine.rootfs().join("tries")).unwrap();
        assert!(tries.len() > 100, "{engine:?}");
        assert!(!machine.rootfs().join("out").exists(), "{engine:?}: the device was opened");
        let _ = machine.podman(&["rm", "--force", "--time=0", "c1"]).good();
        assert_eq!(machine.pins(), Vec::<String>::new(), "{engine:?}");
    }
}
