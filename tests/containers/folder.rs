//! The folder in the bpf file system that guards are kept in: whose it must be, and who may wait for whom.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use support::{
    container::{Cgroups, Engine, Machine, Root, guarded},
    guard_run,
};

const RUNC: Engine = (Root::Own, Cgroups::Pure, "runc");

/// The folder of all containers.
const FOLDER: &str = "/sys/fs/bpf/guard-run";

/// A machine, and the flags that have a container guarded by a policy that denies nothing.
fn machine() -> (Machine, [String; 2]) {
    let machine = Machine::new(RUNC);
    let policy = machine.write("policy.json", r#"{"version": 1, "devices": {"default": "allow"}}"#);
    let flags = guarded(&policy, &machine.folder().join("log.json"));
    (machine, flags)
}

/// Makes the folder by a script, and expects nothing to be done with it.
fn assert_refused(user: &[&str], script: &str) {
    let (machine, [policy, log]) = machine();
    let precious = machine.folder().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "").unwrap();
    let script = script.replace("PRECIOUS", precious.to_str().unwrap());
    let _ = machine.run("setpriv", &[user, &["sh", "-euc", &script]].concat()).good();
    let said = machine.gc();
    assert!(said.code == Some(125) && said.stderr.contains("is not root's alone"), "{said:?}");
    let said = machine.container(&[&policy, &log, "--name=c1"], &["/bin/touch", "/started"]);
    assert!(said.code != Some(0) && said.stderr.contains("is not root's alone"), "{said:?}");
    assert!(!machine.rootfs().join("started").exists());
    assert!(precious.join("file").exists(), "what a link leads to was removed");
}

#[test]
fn nothing_is_kept_or_removed_where_others_than_root_can_write() {
    // As anybody who mounts a bpf file system without saying otherwise lets everybody do.
    assert_refused(
        &["--reuid=65534", "--regid=65534", "--clear-groups"],
        &format!("mkdir {FOLDER}; ln -s PRECIOUS {FOLDER}/x~; ln -s PRECIOUS {FOLDER}/y"),
    );
    assert_refused(&["--"], &format!("mkdir -m 777 {FOLDER}"));
    assert_refused(&["--"], &format!("ln -s PRECIOUS {FOLDER}"));
}

#[test]
fn links_in_the_folder_lead_nowhere() {
    let (machine, _) = machine();
    let precious = machine.folder().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "").unwrap();
    let script = format!("mkdir {FOLDER}; ln -s {0} {FOLDER}/x~", precious.display());
    let _ = machine.run("sh", &["-euc", &script]).good();
    let _ = machine.gc();
    assert!(precious.join("file").exists(), "what a link leads to was removed");
}

#[test]
fn a_container_waits_for_whoever_took_its_new_folder_for_an_abandoned_one() {
    let (machine, [policy, log]) = machine();
    let rootfs = machine.rootfs();
    let words = ["create", "--name=c1", "--pids-limit=0", "--network=none", &policy, &log, "--rootfs"];
    let _ = machine.podman(&[&words[..], &[rootfs.to_str().unwrap(), "/bin/true"]].concat()).good();
    let folder = format!("{FOLDER}/{}~", machine.id("c1"));
    let script =
        format!("mkdir -m 700 {FOLDER} {folder}; exec flock {folder} -c 'echo locked; sleep 0.5; rmdir {folder}'");
    let mut other = machine.command("sh", &["-euc", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(other.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n");
    let _ = machine.podman(&["start", "--attach", "c1"]).good();
    assert!(other.wait().unwrap().success());
    let _ = machine.podman(&["rm", "c1"]).good();
    assert_eq!(machine.log("log.json")["enforced"]["exec"], true);
    assert!(machine.pins().is_empty(), "{:?}", machine.pins());
}

#[test]
fn doctor_says_where_guards_would_go_with_a_mount_namespace_and_which_engine_trusts_images() {
    let (machine, _) = machine();
    // The first process of a pid namespace; the machine's own can't be looked at by every root.
    let doctor = |script: &str| {
        let first = format!("{script} {} doctor; exit 0", guard_run().display());
        machine.run("unshare", &["--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", &first]).good().stdout
    };
    let line = "the machine's first process sees the bpf file system";
    let said = doctor("");
    assert!(said.contains(&format!("ok       {line}")), "{said}");
    assert!(said.contains("no       podman version 4.") && said.contains("the annotations of their images"), "{said}");
    let said = doctor("unshare --mount sh -c 'mount -t bpf bpf /sys/fs/bpf; \"$0\" \"$1\"'");
    assert!(
        said.contains(&format!("no       {line}"))
            && said.contains("records of containers go with the mount namespace"),
        "{said}"
    );
}

#[test]
fn a_container_that_has_lost_one_link_is_not_taken_for_ended_where_its_cgroup_is_not_seen() {
    let (machine, [_, log]) = machine();
    let rule = r#"{"action": "deny", "names": ["kernel/hostname"]}"#;
    let text = format!(
        r#"{{"version": 1, "devices": {{"default": "allow", "rules": [{{"action": "deny", "type": "c", "major": 1, "minor": 7}}]}},
            "sysctls": {{"default": "allow", "rules": [{rule}]}}}}"#
    );
    let policy = format!("--annotation=io.guard-run.policy={}", machine.write("two.json", &text).display());
    let _ = machine.container(&[&policy, &log, "--detach", "--name=c1"], &["/bin/sleep", "1000"]).good();
    let link = format!("{FOLDER}/{}/WITNESS", machine.id("c1"));
    let _ = machine.run("bpftool", &["link", "detach", "pinned", &link]).good();
    let script = format!("mount -t tmpfs tmpfs /sys/fs/cgroup; exec {} gc", machine.hook().display());
    let said = machine.run("unshare", &["--mount", "sh", "-euc", &script]).good();
    assert_eq!(said.stdout, "0 abandoned containers concluded\n");
    let said = machine.exec("c1", "/bin/cat /proc/sys/kernel/hostname");
    assert!(said.stderr.contains("Operation not permitted"), "{said:?}");
}
