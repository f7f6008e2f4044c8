//! `guard-run` for ordinary users, by capabilities of its file: it works, and nobody gets more by it than they had.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use support::{
    Run, Yard, become_user, cgroup_of, file_capabilities, give_capabilities,
    kernel::{Feature, lacks},
    ordinary::{ALICE, SECRET, alice, alice_in, as_user, in_yard, line, policy},
};

#[test]
fn an_ordinary_user_runs_a_command_under_a_policy_and_owns_the_log() {
    let yard = Yard::new();
    // It waits for its denial to be noticed, so that it can be looked at.
    let script = format!("read -r _ <{SECRET}; echo $?; until [ -s $EVENTS ]; do sleep 0.01; done");
    let run = alice_in(&yard, &script);
    let events = run.folder().join("events.jsonl");
    let run = run.environment("EVENTS", &events).flags(["--events".as_ref(), events.as_os_str()]);
    let output = run.output().success();
    assert_eq!(output.stdout, "1\n");
    assert!(output.stderr.contains("denied 1: sysctl kernel/hostname r"), "{output:?}");
    let [event] = output.events() else { panic!("{:#}", output.log) };
    assert_eq!((&event["process"]["uid"], &event["process"]["comm"]), (&json!(ALICE), &json!("bash")));
    // What /proc tells of the command's processes is found out, too.
    assert_eq!(event["process"]["argv"], json!(["bash", "-c", script, "bash"]));
    assert!(event["process"]["exe"].as_str().unwrap().ends_with("bash"), "{event:#}");
    assert_eq!(output.log["user"], json!({"uid": ALICE, "gid": ALICE, "name": null}));
    let log = fs::metadata(run.log()).unwrap();
    assert_eq!((log.uid(), log.gid(), log.mode() & 0o7777), (ALICE, ALICE, 0o600));
    assert_eq!(Path::new(output.log["enforced"]["cgroup"].as_str().unwrap()).parent(), Some(yard.path()));
    assert!(yard.leaves().is_empty());
}

#[test]
fn the_command_has_no_capabilities_and_can_gain_nothing() {
    let run = alice("grep -E '^(Cap|NoNewPrivs|Uid|Gid|Groups)' /proc/self/status");
    let expected = "Uid:\t54321\t54321\t54321\t54321\nGid:\t54321\t54321\t54321\t54321\nGroups:\t \n\
                    CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
                    CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n";
    assert_eq!(run.output().success().stdout, expected);
    assert!(run.bare().success().stdout.contains("NoNewPrivs:\t0"), "the control can gain something");
    // Nor does it have what its user has been given.
    let ambient = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"].map(Into::into).into_iter();
    let ambient = ambient.chain(["--inh-caps=+net_raw", "--ambient-caps=+net_raw"].map(Into::into));
    let run = run.through(ambient.collect::<Vec<std::ffi::OsString>>());
    assert!(run.bare().success().stdout.contains("CapAmb:\t0000000000002000"));
    assert_eq!(run.output().success().stdout, expected);
}

#[test]
fn a_set_user_id_program_gains_nothing_inside() {
    let run = alice(r#""$0" -u"#);
    let program = run.folder().join("id");
    fs::copy("/usr/bin/id", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let run = Run::new(policy(), [program.to_str().unwrap(), "-u"]).as_ordinary(ALICE);
    assert_eq!(run.bare().success().stdout, "0\n");
    assert_eq!(run.output().success().stdout, "54321\n");
}

#[test]
fn guard_run_inside_gains_nothing_and_says_why() {
    let run = alice("true");
    let (program, policy) = (run.program().to_str().unwrap(), run.policy());
    let nested = [program, "--policy", policy.to_str().unwrap(), "--log", "-", "--", "echo", "ran"];
    let inside = Run::new(self::policy(), nested).as_ordinary(ALICE);
    assert_eq!(inside.bare().success().stdout, "ran\n");
    let output = inside.output().exits(125);
    assert!(output.stdout.is_empty() && output.stderr.contains("no_new_privs is set"), "{output:?}");
}

#[test]
fn without_capabilities_of_its_file_it_says_what_to_type() {
    let run = alice("echo ran");
    let needed = file_capabilities();
    let typed = format!("sudo setcap {needed} {}", run.program().display());
    // None, and one too few.
    let (first, rest) = needed.split_once(',').unwrap();
    for (given, missing) in [("=", needed.strip_suffix("=p").unwrap()), (rest, first)] {
        give_capabilities(run.program(), given);
        let output = run.output().exits(125);
        let missing = missing.replace(',', ", ");
        assert!(output.stdout.is_empty() && line(&output).contains(&format!("or {missing}: run")), "{output:?}");
        assert!(line(&output).ends_with(&typed), "{output:?}");
        let doctor = as_user(ALICE, [run.program().as_os_str(), "doctor".as_ref()]);
        assert!(doctor.contains("MISSING") && doctor.contains(&typed), "{doctor}");
    }
    // In effect, or inheritable, too, as somebody might set them by mistake: no harm done.
    give_capabilities(run.program(), &needed.replace("=p", "=eip"));
    assert_eq!(run.output().success().stdout, "ran\n");
}

#[test]
fn doctor_finds_for_ordinary_users_what_it_finds_for_root() {
    let run = alice("true");
    let home = run.folder().join("home");
    let arguments = ["env", &format!("HOME={}", home.display()), run.program().to_str().unwrap(), "doctor"];
    let said = as_user(ALICE, arguments);
    // After the lines on this kernel and on who asks.
    let findings = |said: &str| {
        // Where the guards of containers are is only root's matter, and the folder for logs is each one's own.
        // To be a nameserver takes root.
        let others = ["guards of containers stay", "a folder for logs (", "rules on host names"];
        let common = |line: &&str| !others.iter().any(|other| line.contains(other));
        let lines = said
            .lines()
            .skip(2)
            .filter(|line| ["ok", "no", "MISSING"].iter().any(|word| line.starts_with(word)))
            .filter(common);
        lines.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let root = Command::new(run.program()).arg("doctor").output().unwrap();
    let root = findings(&String::from_utf8(root.stdout).unwrap());
    assert!(said.lines().nth(1).is_some_and(|line| line.starts_with("ok ")) && root.len() > 8, "{said}");
    assert_eq!(findings(&said), root);
}

#[test]
fn a_set_user_id_guard_run_refuses_to_do_anything() {
    for mode in [0o4755, 0o2755] {
        let run = alice("echo ran");
        chown(run.program(), Some(0), Some(0)).unwrap();
        fs::set_permissions(run.program(), fs::Permissions::from_mode(mode)).unwrap();
        let output = run.output().exits(125);
        assert!(output.stdout.is_empty() && line(&output).contains("must not be set-user-ID"), "{output:?}");
        let output = run.subcommand("check", &[]).exits(125);
        assert!(output.stdout.is_empty() && line(&output).contains("must not be set-user-ID"), "{output:?}");
    }
}

#[test]
fn a_policy_that_the_user_cant_read_is_refused() {
    let run = alice("echo ran");
    fs::set_permissions(run.policy(), fs::Permissions::from_mode(0o600)).unwrap();
    for output in [run.output().exits(125), run.subcommand("check", &[]).exits(125)] {
        assert!(output.stdout.is_empty() && line(&output).ends_with("Permission denied (os error 13)"), "{output:?}");
    }
    chown(run.policy(), Some(ALICE), None).unwrap();
    assert_eq!(run.output().success().stdout, "ran\n");
}

/// Where only root, or only a process with the capabilities that guard-run has, may write.
#[test]
fn a_log_goes_only_where_the_user_may_write() {
    let roots = tempfile::tempdir().unwrap();
    let target = roots.path().join("target");
    fs::write(&target, "root's").unwrap();
    let run = alice("echo ran").without_log();
    let link = run.folder().join("link");
    symlink(&target, &link).unwrap();
    // The second folder can be read, but not written.
    let open = tempfile::tempdir().unwrap();
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let forwarding = "/proc/sys/net/ipv4/ip_forward";
    let before = fs::read(forwarding).unwrap();
    let own = cgroup_of(std::process::id()).unwrap();
    let paths: Vec<PathBuf> = vec![
        roots.path().join("log.json"),
        open.path().join("log.json"),
        target.clone(),
        link,
        // CAP_NET_ADMIN would be enough to write it.
        forwarding.into(),
        own.join("cgroup.procs"),
        // Its own memory.
        "/proc/self/mem".into(),
        "/proc/self/oom_score_adj".into(),
        "/dev/mem".into(),
    ];
    for option in ["--log", "--events"] {
        for path in &paths {
            let path = path.to_str().unwrap();
            let run = Run::new(policy(), ["echo", "ran"]).with_program(run.program()).through(become_user(ALICE));
            let output = run.without_log().flags([option, path]).output();
            assert_eq!((output.code(), output.stdout.as_str()), (Some(125), ""), "{option} {path}: {output:?}");
        }
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "root's");
    assert_eq!(fs::read(forwarding).unwrap(), before);
    assert_eq!(fs::read_dir(roots.path()).unwrap().count(), 1);
    assert_eq!(run.flags(["--log", "-"]).output().success().stdout, "ran\n");
}

#[test]
fn without_an_option_the_log_is_private_in_the_users_own_folder() {
    for (variable, below) in [("HOME", ".local/state/guard-run"), ("XDG_STATE_HOME", "guard-run")] {
        let run = alice("cat /proc/sys/kernel/hostname").without_log();
        let home = run.folder().join("home");
        fs::create_dir(&home).unwrap();
        chown(&home, Some(ALICE), Some(ALICE)).unwrap();
        let run = run.environment("HOME", "/nonexistent").environment(variable, &home);
        let output = run.output().exits(1);
        let folder = home.join(below);
        let [log] = &fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()[..] else {
            panic!("not one log")
        };
        assert!(output.stderr.contains(&format!("log: {}", log.display())), "{output:?}");
        for (path, mode) in [(log.as_path(), 0o600), (&folder, 0o700)] {
            let found = fs::metadata(path).unwrap();
            assert_eq!((found.uid(), found.mode() & 0o777), (ALICE, mode), "{}", path.display());
        }
    }
    // A place where the user may not write, one that is relative and so none, and no place.
    for (variable, place) in [("HOME", "/root"), ("HOME", "home"), ("HOME", "")] {
        let run = alice("echo ran").without_log().environment("XDG_STATE_HOME", "").environment(variable, place);
        let output = run.output().exits(125);
        assert!(output.stdout.is_empty() && line(&output).contains("--log"), "{output:?}");
    }
}

#[test]
fn the_command_has_the_environment_that_guard_run_was_started_with() {
    // The C library takes all of these out of the environment of a program with capabilities.
    let variables =
        ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "TMPDIR", "MALLOC_TRACE", "GLIBC_TUNABLES", "LOCPATH"];
    let mut run = Run::new(policy(), ["env", "-0"]).as_ordinary(ALICE);
    for variable in variables.into_iter().chain(["GCONV_PATH", "TZDIR", "HOSTALIASES", "OTHER"]) {
        run = run.environment(variable, "/nonexistent/none");
    }
    let (bare, guarded) = (run.bare().success(), run.output().success());
    assert!(bare.stdout.contains("\0LD_PRELOAD=/nonexistent/none\0"), "{bare:?}");
    // But for what guard-run adds.
    let kept = guarded.stdout.split_inclusive('\0').filter(|variable| !variable.starts_with("GUARD_RUN_DENIALS="));
    assert_eq!(kept.collect::<String>(), bare.stdout);
}

#[test]
fn only_root_runs_commands_as_somebody_else() {
    for user in ["root", "0:0", "nobody", "54322:54322", "54321:0", "54322:54321"] {
        let output = alice("echo ran").flags(["--user", user]).output().exits(125);
        assert!(output.stdout.is_empty() && line(&output).contains("only root"), "{user}: {output:?}");
    }
    assert_eq!(alice("id -u").flags(["--user", "54321:54321"]).output().success().stdout, "54321\n");
    // Groups that the user has can't be left either.
    let keeps = ["setpriv", "--reuid=54321", "--regid=54321", "--groups=54321,54399"];
    let run = alice("id -G").through(keeps);
    assert_eq!(run.output().success().stdout, "54321 54399\n");
    let output = run.flags(["--user", "54321:54321"]).output().exits(125);
    assert!(line(&output).contains("only root"), "{output:?}");
}

#[test]
fn whatever_the_user_takes_from_guard_run_the_command_never_runs_unguarded() {
    let mut run = Run::new(policy(), ["cat", SECRET]).as_ordinary(ALICE);
    let (mut refused, mut denied) = (0, 0);
    let descriptors = (3..32).map(|limit| format!("--nofile={limit}"));
    let memory = (1..40).map(|limit| format!("--as={}", limit * 250_000));
    let others = ["--fsize=0", "--nproc=0", "--nproc=1", "--stack=8192", "--memlock=0", "--core=0"].map(String::from);
    for limit in descriptors.chain(memory).chain(others) {
        run = run.through(become_user(ALICE).into_iter().chain(["prlimit".into(), limit.clone().into()]));
        let output = run.output();
        assert_eq!(output.stdout, "", "{limit}: {output:?}");
        match output.code() {
            Some(1) => denied += 1,
            _ => refused += 1,
        }
    }
    assert!(refused > 5 && denied > 5, "refused {refused}, denied {denied}");
}

#[test]
fn neither_a_umask_nor_closed_streams_disturb_it() {
    for wrapper in ["umask 0777; exec \"$@\"", "exec \"$@\" <&-", "exec \"$@\" 2>&-", "exec \"$@\" <&- 2>&-"] {
        let words = become_user(ALICE).into_iter().chain(["sh", "-c", wrapper, "sh"].map(Into::into));
        let run = alice("cat /proc/sys/kernel/hostname; echo $?").through(words.collect::<Vec<_>>());
        let output = run.output().success();
        assert_eq!((output.stdout.as_str(), output.events().len()), ("1\n", 1), "{wrapper}");
    }
}

/// The kernel gives capabilities there, too, but they count for nothing outside.
#[test]
fn in_a_user_namespace_it_gains_nothing() {
    for namespace in ["-U", "-Ur", "-Urm", "-UrC"] {
        let words = become_user(ALICE).into_iter().chain(["unshare".into(), namespace.into()]);
        let output = alice("echo ran").through(words.collect::<Vec<_>>()).output().exits(125);
        assert!(output.stdout.is_empty() && output.stderr.contains("in a user namespace"), "{output:?}");
    }
}

#[test]
fn no_policy_lets_an_ordinary_users_command_gain_privileges() {
    let parts = json!(["privileges", "namespaces", "bpf", "io_uring", "keys", "kernel-files", "delegation", "ipc"]);
    for process in [json!({"isolation": "cgroup-only"}), json!({"allow": parts, "capabilities": ["CAP_NET_ADMIN"]})] {
        let policy = json!({"version": 1, "process": process});
        let script = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status | cut -f2 | uniq";
        let output = Run::shell(policy, script, &[]).as_ordinary(ALICE).output().success();
        assert_eq!(output.stdout, "0000000000000000\n1\n", "{process}");
        // And that is what the log says.
        let hardening = &output.log["enforced"]["hardening"];
        let has = |list: &str| hardening[list].as_array().unwrap().contains(&json!("privileges"));
        assert_eq!((has("parts"), has("loosened"), &hardening["capabilities"]), (true, false, &json!([])), "{process}");
    }
    let output = Run::new(json!({"version": 1, "mode": "audit"}), ["grep", "NoNewPrivs", "/proc/self/status"]);
    assert_eq!(output.as_ordinary(ALICE).output().success().stdout, "NoNewPrivs:\t1\n");
}

#[test]
fn the_command_is_kept_from_its_users_processes_outside() {
    let mut outside = Run::shell(policy(), "echo ready; exec sleep 1000", &[]).through(become_user(ALICE)).start_bare();
    outside.wait_for("ready");
    let pid = outside.pid().to_string();
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/probes/look.py");
    let run = Run::python(policy(), &fs::read_to_string(program).unwrap(), &[&pid]).as_ordinary(ALICE);
    assert!(run.bare().success().stdout.starts_with("attach\n"));
    let output = run.output().success();
    assert!(!["attach", "seize", "mem"].iter().any(|way| output.stdout.lines().any(|line| line == *way)), "{output:?}");
    let run = Run::shell(policy(), r#"kill -CONT "$1" && echo reached"#, &[&pid]).as_ordinary(ALICE);
    assert_eq!(run.bare().success().stdout, "reached\n");
    // Where the kernel can't prevent it, the policy has said so.
    assert_eq!(run.output().stdout, if lacks(Feature::LandlockScopes) { "reached\n" } else { "" });
    // Nor can it get out of its cgroup, be the cgroup its user's own.
    let yard = Yard::new();
    for file in ["", "cgroup.procs"] {
        chown(yard.path().join(file), Some(ALICE), None).unwrap();
    }
    let script = r#"sh -c 'echo $$ > "$0/cgroup.procs" && grep ^0:: /proc/self/cgroup' "$1""#;
    let run = Run::shell(policy(), script, &[yard.path().to_str().unwrap()]).as_ordinary(ALICE);
    let run = run.through(in_yard(&yard, ALICE));
    assert!(run.bare().success().stdout.contains(yard.path().file_name().unwrap().to_str().unwrap()));
    assert_eq!(run.output().exits(2).stdout, "");
}

/// The command can't get there either.
#[test]
fn mounts_that_the_user_cant_reach_are_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let script = r#"mkdir "$0/sys" && mount -t sysfs none "$0/sys" && exec "$@""#;
    let words = ["unshare", "--mount", "sh", "-c", script].map(std::ffi::OsString::from);
    let words = words.into_iter().chain([folder.path().into()]).chain(become_user(ALICE));
    let run =
        Run::shell(policy(), r#"ls "$1"; touch /sys/kernel/mm/x"#, &[folder.path().join("sys").to_str().unwrap()]);
    let output = run.as_ordinary(ALICE).through(words.collect::<Vec<_>>()).output().exits(1);
    assert!(
        output.stderr.contains("Permission denied") && output.stderr.contains("Read-only file system"),
        "{output:?}"
    );
}
