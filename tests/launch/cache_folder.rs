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
    Cache, Output, Run, TcpServer, Yard,
    bpf::program_exists,
    cache::{have_one_in_common, programs, without},
    eventually,
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
    let (cache, server) = (Cache::new(), TcpServer::start("127.0.0.1"));
    let strict = cache.connecting(STORM, &without(server.port()), &server);
    let _ = strict.output().success();
    let mut audit = without(server.port());
    audit["mode"] = json!("audit");
    let lax = programs(&cache.connecting(STORM, &audit, &server).output().success());
    cache.settle();
    let [one, other] = &cache.all()[..] else { panic!("{:?}", cache.all()) };
    exchange(&one.join("kept"), &other.join("kept"));
    let output = cache.alone(&strict);
    assert!(output.stdout.contains("denied") && !have_one_in_common(&programs(&output), &lax), "{output:?}");
    assert_eq!(server.accepted(), 1, "the control is the one in mode \"audit\"");
}

#[test]
fn a_cache_entry_that_is_not_whole_is_made_anew() {
    let (cache, server) = (Cache::new(), TcpServer::start("127.0.0.1"));
    let run = cache.connecting(STORM, &without(server.port()), &server);
    let mut ids = programs(&run.output().success());
    let spoilt: [&dyn Fn(&Path); 7] = [
        &|entry| fs::remove_file(entry.join("kept/connect4")).unwrap(),
        &|entry| fs::remove_file(entry.join("kept/NEWS")).unwrap(),
        &|entry| fs::remove_file(entry.join("kept/NET_TALLIES")).unwrap(),
        &|entry| exchange(&entry.join("kept/connect4"), &entry.join("kept/sysctl")),
        &|entry| exchange(&entry.join("kept/NET_TALLIES"), &entry.join("kept/SOCKET_TALLIES")),
        // As a guard-run that was killed leaves it.
        &|entry| fs::rename(entry.join("kept"), entry.join("unfinished")).unwrap(),
        &|entry| fs::remove_dir_all(entry.join("kept")).unwrap(),
    ];
    for spoil in spoilt {
        cache.settle();
        spoil(&cache.all()[0]);
        let output = cache.alone(&run);
        assert!(output.denied() == 1 && !have_one_in_common(&programs(&output), &ids), "{output:?}");
        ids = programs(&output);
        assert_eq!(cache.reusing(&run, &ids).denied(), 1);
    }
    assert!(server.accepted() == 0 && cache.all().len() == 1);
}

#[test]
fn nothing_is_kept_where_others_could_put_something_in_its_place() {
    let server = TcpServer::start("127.0.0.1");
    let spoilt: [&dyn Fn(&Cache); 4] = [
        &|cache| chown(cache.folder(), Some(65534), Some(65534)).unwrap(),
        &|cache| fs::set_permissions(cache.folder(), fs::Permissions::from_mode(0o777)).unwrap(),
        &|cache| fs::set_permissions(cache.mount(), fs::Permissions::from_mode(0o777)).unwrap(),
        &|cache| {
            fs::rename(cache.folder(), cache.mount().join("elsewhere")).unwrap();
            symlink("/sys/fs/bpf/elsewhere", cache.folder()).unwrap();
        },
    ];
    for spoil in spoilt {
        let cache = Cache::new();
        let run = cache.connecting(STORM, &without(server.port()), &server);
        let kept = programs(&run.output().success());
        let _ = cache.reusing(&run, &kept);
        spoil(&cache);
        let (before, ids) = (cache.all(), programs(&cache.alone(&run)));
        let again = programs(&cache.alone(&run));
        assert!(!have_one_in_common(&ids, &kept) && !have_one_in_common(&ids, &again));
        assert_eq!(cache.all(), before);
    }
    assert_eq!(server.accepted(), 0);
}

#[test]
fn gc_removes_what_nobody_has() {
    let (cache, server, yard) = (Cache::new(), TcpServer::start("127.0.0.1"), Yard::new());
    let policy = without(server.port());
    let (reader, mut writer) = std::io::pipe().unwrap();
    let script = r#"echo waiting; read -r _; "$0" tcp "$1""#;
    let long = Run::new(&policy, ["bash", "-c", script, STORM, &server.port().to_string()]);
    let mut long = long.stdin(reader).through([yard.wrapper(), cache.wrapper()].concat()).start();
    long.wait_for("waiting");
    let idle = cache.connecting(STORM, &policy, &server).output().success();
    eventually("one of two is free", || cache.all().len() == 2 && cache.free().len() == 1);
    let gc = || {
        let said = yard.gc_through(&cache.wrapper());
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout).unwrap()
    };
    let said = gc();
    assert!(said.contains("1 cache entry removed"), "{said}");
    assert_eq!(cache.all().len(), 1);
    eventually("its programs are gone", || {
        !programs(&idle).iter().any(|id| program_exists(u32::try_from(*id).unwrap()))
    });
    writeln!(writer, "go on").unwrap();
    assert_eq!(long.wait().success().denied(), 1);
    cache.settle();
    let said = gc();
    assert!(said.contains("1 cache entry removed") && cache.all().is_empty(), "{said}");
}

#[test]
fn there_is_a_bound() {
    let (cache, server) = (Cache::new(), TcpServer::start("127.0.0.1"));
    let policy = without(server.port());
    let _ = cache.connecting(STORM, &policy, &server).output().success();
    let [oldest] = &cache.all()[..] else { panic!("{:?}", cache.all()) };
    (1..MOST).for_each(|number| fs::create_dir(cache.folder().join(format!("another-{number}"))).unwrap());
    cache.settle();
    let other = json!({"version": 1, "network": {"default": "deny"}});
    let _ = cache.connecting(STORM, &other, &server).output().success();
    assert!(cache.all().len() == MOST && !oldest.exists(), "{:?}", cache.all());
}

/// Denies so many networks, and those that begin with this number besides.
fn networks(count: u32, first: u8) -> serde_json::Value {
    // Not beside each other, or they would be one.
    let one = |number: u32| format!("10.{}.{}.{}/32", number >> 15 & 0xff, number >> 7 & 0xff, number << 1 & 0xff);
    let hosts: Vec<String> = (0..count).map(one).chain([format!("{first}.0.0.0/8")]).collect();
    let rules = json!([{"action": "deny", "hosts": hosts}]);
    json!({"version": 1, "network": {"default": "allow", "rules": rules}})
}

/// Policies with large tables: whoever writes them must not fill the kernel's memory.
#[test]
fn there_are_few_that_are_large() {
    let (cache, server) = (Cache::new(), TcpServer::start("127.0.0.1"));
    for first in 11..17 {
        let _ = cache.connecting(STORM, &networks(60_000, first), &server).output().success();
        cache.settle();
    }
    assert_eq!(cache.all().len(), 4, "{:?}", cache.all());
    // Others have their own room, and a policy that is larger still has none.
    let _ = cache.connecting(STORM, &without(server.port()), &server).output().success();
    assert_eq!(cache.all().len(), 5, "{:?}", cache.all());
    let all = cache.all();
    let _ = cache.connecting(STORM, &networks(1_000_000, 17), &server).output().success();
    assert_eq!(cache.all(), all);
}

#[test]
fn there_are_no_more_than_may_be_though_all_are_in_use() {
    let (cache, server) = (Cache::new(), TcpServer::start("127.0.0.1"));
    let policy = without(server.port());
    let _ = cache.connecting(STORM, &policy, &server).output().success();
    (1..MOST).for_each(|number| fs::create_dir(cache.folder().join(format!("another-{number}"))).unwrap());
    let all = cache.all();
    let locked: Vec<_> = all.iter().map(|folder| File::open(folder).unwrap()).collect();
    for folder in &locked {
        folder.lock().unwrap();
    }
    let other = json!({"version": 1, "network": {"default": "deny"}});
    let ids = programs(&cache.connecting(STORM, &other, &server).output().success());
    assert_eq!(cache.all(), all);
    drop(locked);
    let output = cache.alone(&cache.connecting(STORM, &other, &server));
    assert!(!have_one_in_common(&programs(&output), &ids) && cache.all().len() == MOST, "{output:?}");
}

#[test]
fn what_is_kept_goes_into_the_folder_that_was_locked() {
    let (cache, server) = (Cache::new(), TcpServer::start("127.0.0.1"));
    let policy = without(server.port());
    let late = cache.connecting(STORM, &policy, &server);
    // It waits for somebody to read its log, when it has its cache entry and before it keeps anything there.
    assert!(Command::new("mkfifo").arg(late.log()).status().unwrap().success());
    let started = late.start();
    eventually("it has its entry", || cache.all().iter().any(|entry| entry.join("leaf").exists()));
    fs::remove_dir_all(cache.folder()).unwrap();
    let run = cache.connecting(STORM, &policy, &server);
    let ids = programs(&run.output().success());
    let log = fs::read(late.log()).unwrap();
    fs::remove_file(late.log()).unwrap();
    let late = Output { log: serde_json::from_slice(&log).unwrap(), ..started.wait().success() };
    assert!(late.denied() == 1 && !have_one_in_common(&programs(&late), &ids));
    let _ = cache.reusing(&run, &ids);
}
