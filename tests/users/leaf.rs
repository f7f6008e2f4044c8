//! Leaves of ordinary users: where they are made, who reaps them, and what is in force there.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, chown},
};

use support::{
    Run, Yard, become_user,
    bpf::{Beside, forbid_sysctls},
    eventually, is_alive,
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
    // Neither is one, by its name: one is a service's.
    for name in ["guard-run.service", "guard-run.1"] {
        fs::create_dir(yard.path().join(name)).unwrap();
        chown(yard.path().join(name), Some(ALICE), None).unwrap();
    }
    let owners = || {
        let leaves = yard.leaves().into_iter().filter(|leaf| !leaf.ends_with("guard-run.service"));
        let mut owners: Vec<u32> = leaves.map(|leaf| fs::metadata(leaf).unwrap().uid()).collect();
        owners.sort_unstable();
        owners
    };
    eventually("both are empty", || yard.leaves().iter().all(|leaf| support::processes_in(leaf).is_empty()));
    assert_eq!(owners(), [0, ALICE, ALICE]);
    let _ = Run::new(policy(), ["true"]).as_ordinary(BOB).through(in_yard(&yard, BOB)).output().success();
    assert_eq!(owners(), [0, ALICE, ALICE]);
    let _ = alice_in(&yard, "true").output().success();
    assert_eq!(owners(), [0, ALICE]);
    let _ = Run::new(policy(), ["true"]).through(yard.wrapper()).output().success();
    assert_eq!(owners(), [ALICE]);
    assert!(yard.path().join("guard-run.service").exists());
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
        assert_eq!(leaf_of.mode() & 0o777, 0o700);
        let other = if leaf_of.uid() == ALICE { BOB } else { ALICE };
        assert!(!as_user(leaf_of.uid(), ["ls".as_ref(), leaf.as_os_str()]).is_empty());
        // Nobody else can even lock it, as if it were abandoned.
        assert_eq!(as_user(other, ["ls".as_ref(), leaf.as_os_str()]), "");
        assert_eq!(as_user(other, ["flock".as_ref(), leaf.as_os_str(), "echo".as_ref(), "locked".as_ref()]), "");
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
