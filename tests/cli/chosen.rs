//! Which policy a command runs under that is given none, or only its name.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use serde_json::{Value, json};
use support::{
    Output, Run,
    ordinary::{ALICE, BOB},
};

/// Denies connections to this host, and says so by its port in which it is: so policies can be told by what they deny.
fn denying(port: u16) -> Value {
    let rules = json!([{"action": "deny", "ops": ["connect"], "hosts": ["127.0.0.1"], "ports": [port]}]);
    json!({"version": 1, "description": format!("denies {port}"), "network": {"default": "allow", "rules": rules}})
}

const CONNECT: &str = "for port in 11 12 13 14; do { : <>/dev/tcp/127.0.0.1/$port; } 2>/dev/null; done; true";

fn write(path: &Path, policy: &Value) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, policy.to_string()).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
}

/// A machine that has these folders: root's home, /etc/guard-run, /usr/share/guard-run, and a home of Alice's.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        for name in ["root", "etc", "share", "alice"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, policy: &Value) {
        write(&self.path(name), policy);
    }

    /// Gives all below a folder to a user.
    fn give(&self, name: &str, uid: u32) {
        let mut paths = vec![self.path(name)];
        while let Some(path) = paths.pop() {
            chown(&path, Some(uid), Some(uid)).unwrap();
            if path.is_dir() {
                paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
    }

    /// Connects to each port there, with these words instead of `--policy FILE`, by this wrapper. guard-run says all that it can.
    fn run(&self, words: &[&str], wrapper: &[&str], environment: &[(&str, &str)]) -> Output {
        self.run_command(&["bash", "-c", CONNECT], &[words, &["-v"]].concat(), wrapper, environment)
    }

    /// Runs a command there, with these words instead of `--policy FILE`, by this wrapper.
    fn run_command(&self, command: &[&str], words: &[&str], wrapper: &[&str], environment: &[(&str, &str)]) -> Output {
        let script = "mkdir -p /usr/share/guard-run && mount --bind \"$0/root\" /root && mkdir -p /etc/guard-run && \
                      mount --bind \"$0/etc\" /etc/guard-run && mount --bind \"$0/share\" /usr/share/guard-run && \
                      cd \"$0\" && exec \"$@\"";
        let folder = self.0.path().to_str().unwrap();
        let run = Run::new(json!({}), command).for_everyone();
        support::give_capabilities(run.program(), &support::file_capabilities());
        let mut all = vec!["unshare", "--mount", "sh", "-c", script, folder];
        all.extend(wrapper);
        // Not by the word `--policy` that the run has by itself.
        let drop_policy = "program=$1; shift 3; exec \"$program\" \"$@\"";
        all.extend(["bash", "-c", drop_policy, "bash"]);
        let mut run = run.through(all).flags(words.iter().copied());
        chown(run.folder(), Some(ALICE), Some(ALICE)).unwrap();
        for (name, value) in environment {
            run = run.environment(name, value);
        }
        run.output()
    }
}

/// The port that was denied, by the log; and the last line names the policy.
fn denied(output: Output, path: &str) -> u64 {
    let output = output.success();
    let [event] = output.events() else { panic!("{output:?}") };
    let line = output.stderr.lines().last().unwrap();
    assert!(line.contains(&format!("; policy: {path}; log: ")), "{line}");
    assert_eq!(output.log["policy"]["path"], path);
    event["network"]["port"].as_u64().unwrap()
}

fn refused(output: Output, words: &str) {
    let output = output.exits(125);
    assert!(output.stderr.contains(words) && output.stderr.lines().count() == 1, "{output:?}");
    assert_eq!(output.log, Value::Null);
}

/// What becomes of a command of Alice's.
fn as_alice() -> [String; 4] {
    ["setpriv".into(), "--clear-groups".into(), format!("--reuid={ALICE}"), format!("--regid={ALICE}")]
}

#[test]
fn a_command_without_a_policy_has_the_first_that_is_there() {
    let machine = Machine::new();
    let alice = as_alice();
    let alice: Vec<&str> = alice.iter().map(String::as_str).collect();
    let home = machine.path("alice");
    let home = home.to_str().unwrap();
    let theirs = format!("{home}/.config/guard-run/policy.json");
    // A file in the working folder is nobody's choice.
    machine.write("policy.json", &denying(14));
    refused(machine.run(&[], &[], &[]), "no policy: name one");
    refused(machine.run(&[], &alice, &[("HOME", home)]), &format!("guard-run init (to {theirs})"));
    machine.write("etc/default-policy.json", &denying(11));
    assert_eq!(denied(machine.run(&[], &[], &[]), "/etc/guard-run/default-policy.json"), 11);
    assert_eq!(denied(machine.run(&[], &alice, &[("HOME", home)]), "/etc/guard-run/default-policy.json"), 11);
    machine.write("root/.config/guard-run/policy.json", &denying(12));
    machine.write("alice/.config/guard-run/policy.json", &denying(13));
    machine.give("alice", ALICE);
    assert_eq!(denied(machine.run(&[], &alice, &[("HOME", home)]), &theirs), 13);
    let configuration = format!("{home}/.config");
    let output = machine.run(&[], &alice, &[("HOME", "/nowhere"), ("XDG_CONFIG_HOME", &configuration)]);
    assert_eq!(denied(output, &theirs), 13);
    // As sudo -E has it: root's own all the same.
    for variables in [[("HOME", home), ("X", "")], [("XDG_CONFIG_HOME", configuration.as_str()), ("HOME", home)]] {
        assert_eq!(denied(machine.run(&[], &[], &variables), "/root/.config/guard-run/policy.json"), 12);
    }
    machine.write("named/other.json", &denying(14));
    let named = machine.path("named/other.json");
    let named = named.to_str().unwrap();
    for wrapper in [&[][..], &alice] {
        assert_eq!(denied(machine.run(&[], wrapper, &[("HOME", home), ("GUARD_RUN_POLICY", named)]), named), 14);
    }
    for relative in ["named/other.json", "./policy.json", "policy.json"] {
        refused(machine.run(&[], &[], &[("GUARD_RUN_POLICY", relative)]), "write an absolute path, or a policy's name");
    }
    // What is named on the command line comes first, and is the user's own choice.
    let output =
        machine.run(&["--policy", "policy.json"], &alice, &[("HOME", home), ("GUARD_RUN_POLICY", named)]).success();
    assert_eq!(output.events()[0]["network"]["port"], 14);
    assert!(!output.stderr.contains("; policy: "), "{output:?}");
}

/// Also where nothing was denied, the last line of a command that failed says which policy it ran under.
#[test]
fn the_last_line_of_a_failure_names_the_policy() {
    let machine = Machine::new();
    machine.write("root/.config/guard-run/policy.json", &json!({"version": 1}));
    let output = machine.run_command(&["false"], &[], &[], &[]).exits(1);
    let expected = "no rule denied anything; policy: /root/.config/guard-run/policy.json; whether";
    assert!(output.stderr.contains(expected) && output.stderr.lines().count() == 1, "{output:?}");
}

#[test]
fn what_others_could_have_written_is_no_policy_and_nothing_comes_in_its_place() {
    let machine = Machine::new();
    let alice = as_alice();
    let alice: Vec<&str> = alice.iter().map(String::as_str).collect();
    let home = machine.path("alice");
    let home = home.to_str().unwrap();
    machine.write("etc/default-policy.json", &denying(11));
    machine.write("alice/.config/guard-run/policy.json", &denying(13));
    let theirs = machine.path("alice/.config/guard-run/policy.json");
    let run = || machine.run(&[], &alice, &[("HOME", home)]);
    for (owner, mode, good) in
        [(ALICE, 0o600, true), (0, 0o644, true), (ALICE, 0o664, false), (ALICE, 0o646, false), (BOB, 0o644, false)]
    {
        machine.give("alice", ALICE);
        chown(&theirs, Some(owner), Some(ALICE)).unwrap();
        fs::set_permissions(&theirs, Permissions::from_mode(mode)).unwrap();
        if good {
            assert_eq!(denied(run(), theirs.to_str().unwrap()), 13, "{owner} {mode:o}");
        } else {
            refused(run(), "others could have written this");
        }
    }
    // A folder on the way; a link of somebody else's; a home of somebody else's, as after su(1); a file that only root may read.
    machine.give("alice", ALICE);
    fs::set_permissions(&theirs, Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(machine.path("alice/.config"), Permissions::from_mode(0o777)).unwrap();
    refused(run(), ".config: others could have written this");
    fs::set_permissions(machine.path("alice/.config"), Permissions::from_mode(0o755)).unwrap();
    machine.give("alice", BOB);
    refused(run(), "others could have written this");
    machine.give("alice", 0);
    fs::set_permissions(&theirs, Permissions::from_mode(0o600)).unwrap();
    refused(run(), "Permission denied");
    // Root doesn't take what Alice could have written, whoever says so.
    machine.give("alice", ALICE);
    refused(machine.run(&[], &[], &[("GUARD_RUN_POLICY", theirs.to_str().unwrap())]), "others could have written this");
    machine.give("etc", ALICE);
    refused(machine.run(&[], &[], &[]), "others could have written this");
}

#[test]
fn policies_are_known_by_names_and_the_users_own_come_first() {
    let machine = Machine::new();
    let alice = as_alice();
    let alice: Vec<&str> = alice.iter().map(String::as_str).collect();
    let home = machine.path("alice");
    let home = home.to_str().unwrap();
    let run = |word: &str| machine.run(&["-p", word], &alice, &[("HOME", home)]);
    // The working folder's are files, not names.
    machine.write("web", &denying(14));
    refused(run("web"), "no policy is named \"web\"; the file of that name here is ./web; looked in");
    machine.write("share/policies/web.json", &denying(11));
    assert_eq!(denied(run("web"), "/usr/share/guard-run/policies/web.json"), 11);
    machine.write("etc/policies/web.json", &denying(12));
    assert_eq!(denied(run("web"), "/etc/guard-run/policies/web.json"), 12);
    assert_eq!(
        denied(
            machine.run(&[], &alice, &[("HOME", home), ("GUARD_RUN_POLICY", "web")]),
            "/etc/guard-run/policies/web.json"
        ),
        12
    );
    refused(run("wep"), "did you mean \"web\"?");
    refused(run("../web"), "../web");
    machine.write("alice/.config/guard-run/web.json", &denying(13));
    let theirs = format!("{home}/.config/guard-run/web.json");
    // Not Alice's yet: it is root's, which will do, too.
    assert_eq!(denied(run("web"), &theirs), 13);
    machine.give("alice", BOB);
    refused(run("web"), "others could have written this");
    machine.give("alice", ALICE);
    assert_eq!(denied(run("web"), &theirs), 13);
    assert_eq!(denied(machine.run(&["-p", "web"], &[], &[("HOME", home)]), "/etc/guard-run/policies/web.json"), 12);
}

#[test]
fn policies_lists_them_with_what_they_are_for() {
    let machine = Machine::new();
    machine.write("share/policies/loopback-only.json", &denying(11));
    machine.write("share/policies/other.json", &json!({"version": 1}));
    machine.write("etc/policies/loopback-only.json", &denying(12));
    machine.write("etc/policies/broken.json", &json!({"version": 2}));
    machine.write("etc/default-policy.json", &json!({"version": 1}));
    let script = "mount --bind \"$0/root\" /root && mkdir -p /etc/guard-run /usr/share/guard-run && mount --bind \"$0/etc\" /etc/guard-run && \
                  mount --bind \"$0/share\" /usr/share/guard-run && exec \"$1\" policies";
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script, machine.0.path().to_str().unwrap()])
        .arg(support::guard_run())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let [broken, loopback, other, without] = lines[..] else { panic!("{said}") };
    assert!(
        broken.starts_with("broken ")
            && broken.contains("can't be used: /etc/guard-run/policies/broken.json: /version"),
        "{said}"
    );
    assert_eq!(loopback, "loopback-only  denies 12 (/etc/guard-run/policies/loopback-only.json)");
    assert_eq!(other, "other          no description (/usr/share/guard-run/policies/other.json)");
    assert_eq!(without, "Without --policy: /etc/guard-run/default-policy.json");
}

/// No file can have such a name, whichever folders there are.
#[test]
fn a_name_that_is_too_long_is_refused_as_that() {
    let machine = Machine::new();
    for (length, expected) in
        [(250, "no policy is named"), (251, "a policy's name of 251 bytes"), (5000, "of 5000 bytes")]
    {
        let name = "a".repeat(length);
        let output = machine.run(&["--policy", &name], &[], &[]);
        refused(output, expected);
        refused(machine.run(&[], &[], &[("GUARD_RUN_POLICY", &name)]), expected);
    }
}
