//! The folder in the bpf file system that programs are kept in: whose it must be, what may become of it, and how much is there.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::Path,
    process::Command,
};

use serde_json::json;
use support::{
    Output, Run, Spares, TcpServer, Yard,
    bpf::program_exists,
    eventually,
    spares::{have_one_in_common, programs, without},
};

const STORM: &str = env!("CARGO_BIN_EXE_storm");

/// How many there may be.
const MOST: usize = 32;

/// Gives each the other's name.
fn exchange(one: &Path, other: &Path) {
    let aside = one.with_file_name("aside");
    fs::rename(one, &aside).unwrap();
    fs::rename(other, one).unwrap();
    fs::rename(aside, other).unwrap();
}

#[test]
fn programs_of_another_policy_that_were_put_there_are_not_taken() {
    let (spares, server) = (Spares::new(), TcpServer::start("127.0.0.1"));
    let strict = spares.connecting(STORM, &without(server.port()), &server);
    let _ = strict.output().success();
    let mut audit = without(server.port());
    audit["mode"] = json!("audit");
    let lax = programs(&spares.connecting(STORM, &audit, &server).output().success());
    spares.settle();
    let [one, other] = &spares.all()[..] else { panic!("{:?}", spares.all()) };
    exchange(&one.join("kept"), &other.join("kept"));
    let output = spares.alone(&strict);
    assert!(output.stdout.contains("denied") && !have_one_in_common(&programs(&output), &lax), "{output:?}");
    assert_eq!(server.accepted(), 1, "the control is the one in mode \"audit\"");
}

#[test]
fn a_spare_that_is_not_whole_is_made_anew() {
    let (spares, server) = (Spares::new(), TcpServer::start("127.0.0.1"));
    let run = spares.connecting(STORM, &without(server.port()), &server);
    let mut ids = programs(&run.output().success());
    let spoilt: [&dyn Fn(&Path); 7] = [
        &|spare| fs::remove_file(spare.join("kept/connect4")).unwrap(),
        &|spare| fs::remove_file(spare.join("kept/NEWS")).unwrap(),
        &|spare| fs::remove_file(spare.join("kept/NET_TALLIES")).unwrap(),
        &|spare| exchange(&spare.join("kept/connect4"), &spare.join("kept/sysctl")),
        &|spare| exchange(&spare.join("kept/NET_TALLIES"), &spare.join("kept/SOCKET_TALLIES")),
        // As a guard-run that was killed leaves it.
        &|spare| fs::rename(spare.join("kept"), spare.join("unfinished")).unwrap(),
        &|spare| fs::remove_dir_all(spare.join("kept")).unwrap(),
    ];
    for spoil in spoilt {
        spares.settle();
        spoil(&spares.all()[0]);
        let output = spares.alone(&run);
        assert!(output.denied() == 1 && !have_one_in_common(&programs(&output), &ids), "{output:?}");
        ids = programs(&output);
        assert_eq!(spares.reusing(&run, &ids).denied(), 1);
    }
    assert!(server.accepted() == 0 && spares.all().len() == 1);
}

#[test]
fn nothing_is_kept_where_others_could_put_something_in_its_place() {
    let server = TcpServer::start("127.0.0.1");
    let spoilt: [&dyn Fn(&Spares); 4] = [
        &|spares| chown(spares.folder(), Some(65534), Some(65534)).unwrap(),
        &|spares| fs::set_permissions(spares.folder(), fs::Permissions::from_mode(0o777)).unwrap(),
        &|spares| fs::set_permissions(spares.mount(), fs::Permissions::from_mode(0o777)).unwrap(),
        &|spares| {
            fs::rename(spares.folder(), spares.mount().join("elsewhere")).unwrap();
            symlink("/sys/fs/bpf/elsewhere", spares.folder()).unwrap();
        },
    ];
    for spoil in spoilt {
        let spares = Spares::new();
        let run = spares.connecting(STORM, &without(server.port()), &server);
        let kept = programs(&run.output().success());
        let _ = spares.reusing(&run, &kept);
        spoil(&spares);
        let (before, ids) = (spares.all(), programs(&spares.alone(&run)));
        let again = programs(&spares.alone(&run));
        assert!(!have_one_in_common(&ids, &kept) && !have_one_in_common(&ids, &again));
        assert_eq!(spares.all(), before);
    }
    assert_eq!(server.accepted(), 0);
}

#[test]
fn gc_removes_what_nobody_has() {
    let (spares, server, yard) = (Spares::new(), TcpServer::start("127.0.0.1"), Yard::new());
    let policy = without(server.port());
    let (reader, mut writer) = std::io::pipe().unwrap();
    let script = r#"echo waiting; read -r _; "$0" tcp "$1""#;
    let long = Run::new(&policy, ["bash", "-c", script, STORM, &server.port().to_string()]);
    let mut long = long.stdin(reader).through([yard.wrapper(), spares.wrapper()].concat()).start();
    long.wait_for("waiting");
    let idle = spares.connecting(STORM, &policy, &server).output().success();
    eventually("one of two is free", || spares.all().len() == 2 && spares.free().len() == 1);
    let gc = || {
        let said = yard.gc_through(&spares.wrapper());
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout).unwrap()
    };
    let said = gc();
    assert!(said.contains("1 spare removed"), "{said}");
    assert_eq!(spares.all().len(), 1);
    eventually("its programs are gone", || {
        !programs(&idle).iter().any(|id| program_exists(u32::try_from(*id).unwrap()))
    });
    writeln!(writer, "go on").unwrap();
    assert_eq!(long.wait().success().denied(), 1);
    spares.settle();
    let said = gc();
    assert!(said.contains("1 spare removed") && spares.all().is_empty(), "{said}");
}

#[test]
fn there_is_a_bound() {
    let (spares, server) = (Spares::new(), TcpServer::start("127.0.0.1"));
    let policy = without(server.port());
    let _ = spares.connecting(STORM, &policy, &server).output().success();
    let [oldest] = &spares.all()[..] else { panic!("{:?}", spares.all()) };
    (1..MOST).for_each(|number| fs::create_dir(spares.folder().join(format!("another-{number}"))).unwrap());
    spares.settle();
    let other = json!({"version": 1, "network": {"default": "deny"}});
    let _ = spares.connecting(STORM, &other, &server).output().success();
    assert!(spares.all().len() == MOST && !oldest.exists(), "{:?}", spares.all());
}

#[test]
fn there_are_no_more_than_may_be_though_all_are_in_use() {
    let (spares, server) = (Spares::new(), TcpServer::start("127.0.0.1"));
    let policy = without(server.port());
    let _ = spares.connecting(STORM, &policy, &server).output().success();
    (1..MOST).for_each(|number| fs::create_dir(spares.folder().join(format!("another-{number}"))).unwrap());
    let all = spares.all();
    let locked: Vec<_> = all.iter().map(|folder| File::open(folder).unwrap()).collect();
    for folder in &locked {
        folder.lock().unwrap();
    }
    let other = json!({"version": 1, "network": {"default": "deny"}});
    let ids = programs(&spares.connecting(STORM, &other, &server).output().success());
    assert_eq!(spares.all(), all);
    drop(locked);
    let output = spares.alone(&spares.connecting(STORM, &other, &server));
    assert!(!have_one_in_common(&programs(&output), &ids) && spares.all().len() == MOST, "{output:?}");
}

#[test]
fn what_is_kept_goes_into_the_folder_that_was_locked() {
    let (spares, server) = (Spares::new(), TcpServer::start("127.0.0.1"));
    let policy = without(server.port());
    let late = spares.connecting(STORM, &policy, &server);
    // It waits for somebody to read its log, when it has its spare and before it keeps anything there.
    assert!(Command::new("mkfifo").arg(late.log()).status().unwrap().success());
    let started = late.start();
    eventually("it has its spare", || spares.all().iter().any(|spare| spare.join("leaf").exists()));
    fs::remove_dir_all(spares.folder()).unwrap();
    let run = spares.connecting(STORM, &policy, &server);
    let ids = programs(&run.output().success());
    let log = fs::read(late.log()).unwrap();
    fs::remove_file(late.log()).unwrap();
    let late = Output { log: serde_json::from_slice(&log).unwrap(), ..started.wait().success() };
    assert!(late.denied() == 1 && !have_one_in_common(&programs(&late), &ids));
    let _ = spares.reusing(&run, &ids);
}
