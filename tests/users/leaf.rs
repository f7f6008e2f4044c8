//! Leaves of ordinary users: where they are made, who reaps them, and what is in force there.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use support::{
    Run, Yard, become_user,
    bpf::{Beside, forbid_sysctls},
    entering, eventually, is_alive,
    ordinary::{ALICE, BOB, alice, alice_in, as_user, in_yard, line, policy},
};

/// Starts a daemon that reads what the policy forbids once there is a file `go` in $WHERE, and lives on itself.
const WITH_DAEMON: &str = r#"
    setsid --fork bash -c '
        echo daemon $$
        until [ -e "$WHERE/go" ]; do sleep 0.01; done
        cat /proc/sys/kernel/hostname > "$WHERE/read"
        echo $? > "$WHERE/report.new"; mv "$WHERE/report.new" "$WHERE/report"
        exec sleep 1000
    '
    echo command $$
    exec sleep 1000
"#;

/// A user's run whose guard-run the user kills. Only what the script leaves in the background survives.
struct Abandoned {
    run: Run,
    daemon: u32,
}

impl Abandoned {
    fn new(yard: &Yard, uid: u32) -> Self {
        let run = Run::shell(policy(), WITH_DAEMON, &[]).as_ordinary(uid).through(in_yard(yard, uid));
        let folder = run.folder().to_owned();
        let run = run.environment("WHERE", folder);
        let mut running = run.start();
        running.wait_for("daemon ");
        running.wait_for("command ");
        let stdout = running.stdout();
        let pid = |word: &str| stdout.lines().find_map(|line| line.strip_prefix(word)?.trim().parse().ok()).unwrap();
        let _ = as_user(uid, ["kill", "-9", &running.pid().to_string()]);
        assert_eq!(running.wait().code(), None, "users may kill what is theirs");
        eventually("the command is dead", || !is_alive(pid("command")));
        Self { run, daemon: pid("daemon") }
    }

    /// Has the daemon try what is forbidden; whether it could.
    fn is_free(&self) -> bool {
        fs::write(self.run.folder().join("go"), "").unwrap();
        let report = self.run.folder().join("report");
        eventually("the daemon has tried", || report.exists());
        fs::read_to_string(report).unwrap() != "1\n" || !fs::read(self.run.folder().join("read")).unwrap().is_empty()
    }
}

/// What `guard-run gc` says to a user.
fn gc(uid: u32) -> String {
    let run = Run::new(policy(), ["true"]).as_ordinary(uid);
    as_user(uid, [run.program().as_os_str(), "gc".as_ref()])
}

#[test]
fn after_kill_9_what_is_left_stays_guarded_until_its_user_or_root_reaps_it() {
    // Users of this test alone: gc is for all that are left of a user's.
    let (carol, dave) = (54_323, 54_324);
    let (carols, daves) = (Yard::new(), Yard::new());
    let (first, second) = (Abandoned::new(&carols, carol), Abandoned::new(&daves, dave));
    assert!(!first.is_free() && !second.is_free());
    let leaves = carols.leaves();
    assert_eq!((leaves.len(), daves.leaves().len()), (1, 1));
    let said = gc(dave);
    assert_eq!(said, format!("removed {}\n1 abandoned leaf removed\n", daves.path().join(said_leaf(&said)).display()));
    assert!(daves.leaves().is_empty() && !is_alive(second.daemon));
    assert_eq!((carols.leaves(), is_alive(first.daemon)), (leaves, true));
    let said = carols.gc();
    assert!(said.status.success() && carols.leaves().is_empty() && !is_alive(first.daemon), "{said:?}");
}

/// The name of the leaf that gc says it has removed.
fn said_leaf(said: &str) -> String {
    said.lines().next().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned()
}

#[test]
fn an_ordinary_run_removes_only_its_users_empty_leaves() {
    let yard = Yard::new();
    let orphan = |run: Run| {
        let mut running = run.start();
        running.wait_for("ready");
        running.signal(libc::SIGKILL);
        assert_eq!(running.wait().code(), None);
    };
    let script = "echo ready; exec sleep 1000";
    orphan(Run::shell(policy(), script, &[]).through(yard.wrapper()));
    orphan(alice_in(&yard, script));
    // None of these is one: by the names of three, of which two are services', and by the owner of the last.
    let others = ["guard-run.service", "guard-run.1.0", "guard-run.1.0.54321.service", "guard-run.1.0.54321"];
    for name in others {
        fs::create_dir(yard.path().join(name)).unwrap();
    }
    chown(yard.path().join(others[3]), Some(ALICE), None).unwrap();
    // The user is the last number of a leaf's name, and its owner is always root.
    let users = || {
        let leaves = yard.leaves().into_iter().filter(|leaf| !others.iter().any(|other| leaf.ends_with(other)));
        let user = |leaf: PathBuf| {
            assert_eq!(fs::metadata(&leaf).unwrap().uid(), 0);
            leaf.extension().unwrap().to_str().unwrap().parse().unwrap()
        };
        let mut users: Vec<u32> = leaves.map(user).collect();
        users.sort_unstable();
        users
    };
    eventually("both are empty", || yard.leaves().iter().all(|leaf| support::processes_in(leaf).is_empty()));
    assert_eq!(users(), [0, ALICE]);
    let _ = Run::new(policy(), ["true"]).as_ordinary(BOB).through(in_yard(&yard, BOB)).output().success();
    assert_eq!(users(), [0, ALICE]);
    let _ = alice_in(&yard, "true").output().success();
    assert_eq!(users(), [0]);
    let _ = Run::new(policy(), ["true"]).through(yard.wrapper()).output().success();
    assert!(users().is_empty());
    assert!(others.iter().all(|other| yard.path().join(other).exists()));
    assert!(yard.gc().status.success() && others.iter().all(|other| yard.path().join(other).exists()));
}

#[test]
fn two_users_at_once_are_each_guarded_and_see_nothing_of_each_other() {
    let yard = Yard::new();
    let runs = [ALICE, BOB].map(|uid| {
        let script = "echo ready; read; cat /proc/sys/kernel/hostname; echo $?";
        let (reader, writer) = std::io::pipe().unwrap();
        let run = Run::shell(policy(), script, &[]).as_ordinary(uid).through(in_yard(&yard, uid)).stdin(reader);
        let mut running = run.start();
        running.wait_for("ready");
        (run, running, writer)
    });
    for leaf in yard.leaves() {
        let leaf_of = fs::metadata(&leaf).unwrap();
        assert_eq!((leaf_of.mode() & 0o777, leaf_of.uid()), (0o711, 0));
        for user in [ALICE, BOB] {
            assert_eq!(as_user(user, ["ls".as_ref(), leaf.as_os_str()]), "");
            // Nobody can even lock it, as if it were abandoned.
            assert_eq!(as_user(user, ["flock".as_ref(), leaf.as_os_str(), "echo".as_ref(), "locked".as_ref()]), "");
        }
    }
    assert_eq!(yard.leaves().len(), 2);
    for (run, running, writer) in runs {
        drop(writer);
        let pid = running.pid();
        let output = running.wait().success();
        assert_eq!((output.stdout.as_str(), output.events().len()), ("ready\n1\n", 1));
        assert_eq!(output.log["user"]["uid"], fs::metadata(run.log()).unwrap().uid());
        support::assert_no_leaf(pid);
    }
}

/// Hands a cgroup on to Alice, with all of its files.
fn delegate(cgroup: &Path) {
    chown(cgroup, Some(ALICE), None).unwrap();
    for file in fs::read_dir(cgroup).unwrap().flatten() {
        chown(file.path(), Some(ALICE), None).unwrap();
    }
}

/// Who may write to the files of a cgroup can move processes from one cgroup in it to another: root's command out of a leaf, for example.
#[test]
fn roots_leaf_is_in_no_cgroup_of_an_ordinary_user() {
    let yard = Yard::new();
    let session = yard.path().join("session");
    let own = session.join("own");
    fs::create_dir_all(&own).unwrap();
    delegate(&session);
    let run = || Run::shell(policy(), "cat /proc/sys/kernel/hostname; true", &[]);
    // The second one is not handed on, but the cgroup that it is in.
    for cgroup in [&session, &own] {
        let output = run().through(entering(cgroup)).output().success();
        let leaf = Path::new(output.log["enforced"]["cgroup"].as_str().unwrap());
        assert_eq!((leaf.parent(), output.events().len()), (Some(yard.path()), 1), "{output:?}");
        let said = output.stderr.lines().find(|line| line.contains("which belongs to an ordinary user"));
        assert!(said.is_some(), "{output:?}");
    }
    // What is root's alone, and all around it, is taken.
    let output = run().through(yard.wrapper()).output().success();
    assert_eq!(Path::new(output.log["enforced"]["cgroup"].as_str().unwrap()).parent(), Some(yard.path()));
    assert!(!output.stderr.contains("belongs"), "{output:?}");
}

/// Who may write to the cgroup that a leaf is in can remove it, once it is empty. guard-run comes to its end all the same.
#[test]
fn a_leaf_that_its_user_removes_ends_the_run_as_ever() {
    let yard = Yard::new();
    delegate(yard.path());
    let (reader, writer) = std::io::pipe().unwrap();
    let script = "echo ready; read; cat /proc/sys/kernel/hostname; echo $?";
    let mut running = alice(script).through(in_yard(&yard, ALICE)).stdin(reader).start();
    running.wait_for("ready");
    let leaf = yard.leaves().pop().unwrap();
    running.signal(libc::SIGSTOP);
    drop(writer);
    eventually("the command has ended", || support::processes_in(&leaf).is_empty());
    let _ = as_user(ALICE, ["rmdir".as_ref(), leaf.as_os_str()]);
    assert!(!leaf.exists());
    running.signal(libc::SIGCONT);
    let output = running.wait().success();
    assert_eq!((output.stdout.as_str(), output.events().len()), ("ready\n1\n", 1));
}

/// Where a cgroup is delegated to a user, all of it is the user's but for leaves. Otherwise the user could put a set-user-ID program, started
/// outside, under a policy of the user's, or make a leaf impossible to remove, by cgroups in it that are nested too deep.
#[test]
fn a_leaf_in_a_delegated_cgroup_is_not_its_users() {
    let yard = Yard::new();
    let own = yard.path().join("own");
    fs::create_dir(&own).unwrap();
    delegate(yard.path());
    delegate(&own);
    let (reader, writer) = std::io::pipe().unwrap();
    let script = "echo ready; read; cat /proc/sys/kernel/hostname; echo $?";
    let run = alice(script).through(in_yard(&yard, ALICE)).stdin(reader);
    let mut running = run.start();
    running.wait_for("ready");
    let leaf = yard.leaves().into_iter().find(|leaf| *leaf != own).unwrap();
    let attempts = r#"
        echo 0 > "$0/cgroup.procs" && echo moved
        echo 0 > "$0/cgroup.freeze" && echo frozen
        mkdir "$0/below" && echo nested
        chmod 711 "$0" && echo changed
        echo done
    "#;
    let attempt = |cgroup: &Path| {
        let words =
            [in_yard(&yard, ALICE), ["sh", "-c", attempts].map(Into::into).into(), vec![cgroup.into()]].concat();
        let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(attempt(&own), "moved\nfrozen\nnested\nchanged\ndone\n");
    assert_eq!(attempt(&leaf), "done\n");
    drop(writer);
    let output = running.wait().success();
    assert_eq!((output.stdout.as_str(), output.events().len()), ("ready\n1\n", 1));
    assert!(!leaf.exists());
}

#[test]
fn a_leaf_is_made_nowhere_but_below_the_users_own_cgroup() {
    let (yard, other) = (Yard::new(), Yard::new());
    let folder = tempfile::tempdir().unwrap();
    // All that is to be seen of the hierarchy is another cgroup.
    let script = r#"
        echo $$ > "$0/cgroup.procs" && mount --bind "$1" "$2" && umount -l "$3" && shift 3 && exec "$@"
    "#;
    let mut words: Vec<std::ffi::OsString> = ["unshare", "--mount", "sh", "-c", script].map(Into::into).into();
    words.extend([yard.path(), other.path(), folder.path(), &support::cgroup2_mount()].map(Into::into));
    let run = Run::new(policy(), ["echo", "ran"]);
    // Root's goes there; that is what a container may look like.
    assert_eq!(run.through(words.clone()).output().success().stdout, "ran\n");
    words.extend(become_user(ALICE));
    let output = alice("echo ran").through(words).output().exits(125);
    assert!(output.stdout.is_empty() && line(&output).contains("not this process's own cgroup"), "{output:?}");
    assert!(yard.leaves().is_empty() && other.leaves().is_empty());
}

/// A program on an ancestor cgroup that was attached with `BPF_F_ALLOW_OVERRIDE` is not asked any more once there is another on a cgroup
/// below: without a check, any policy with a `sysctls` section would take an administrator's off the user.
#[test]
fn no_program_further_up_is_put_out_of_force() {
    for (beside, refused) in [(Beside::Joins, false), (Beside::Yields, true)] {
        let yard = Yard::new();
        forbid_sysctls(yard.path(), beside);
        let run = alice("cat /proc/sys/kernel/ostype; true").through(in_yard(&yard, ALICE));
        assert_eq!(run.bare().success().stdout, "", "{beside:?}: the control is forbidden it");
        let output = run.output();
        assert_eq!((output.code(), output.stdout.as_str()), (Some(if refused { 125 } else { 0 }), ""), "{output:?}");
        assert_eq!(output.stderr.contains("would put out of force"), refused, "{output:?}");
    }
}
