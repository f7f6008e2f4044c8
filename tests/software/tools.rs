//! Tools that install, build and fetch things. Unless a policy is about them, they go on as without the guard, to the last
//! file. tests/tools has what each of them works on.

use serde_json::json;
use support::{Daemon, Run, Task, Transport, fresh_address, guard_run, is_bound};

#[test]
fn apt_get_installs() {
    let address = fresh_address();
    let task = Task::new("apt").connecting_to(&address).argument(&address);
    let _server = task.serve(&address);
    let output = task.ignoring(&["/root/var/log/", "/root/var/cache/apt/"]).works();
    assert!(output.stdout.contains("\npostinst configure as root\n"), "{output:#?}");
    assert!(output.stdout.contains("\n-rwsr-xr-x root:root set-uid\n"), "{output:#?}");
    assert!(output.stdout.contains("\n-rw-rwSr-- games:games scores\n"), "{output:#?}");
}

#[test]
fn cargo_builds_and_tests() {
    // Times, and names of parts of libraries that rustc chooses at random.
    let ignored = ["/target/debug/.fingerprint/", "/target/debug/incremental/", "/target/.rustc_info.json", ".rlib"];
    let output = Task::new("cargo").connecting_to("loopback").ignoring(&ignored).works();
    assert!(output.stdout.contains("hello world, says rustc "), "{output:#?}");
    assert!(output.stdout.contains("test result: ok. 3 passed"), "{output:#?}");
}

#[test]
fn pip_installs_a_wheel_and_a_source_distribution() {
    let address = fresh_address();
    let task = Task::new("pip").connecting_to(&address).argument(&address);
    let _server = task.serve(&address);
    // Compiled modules and archives have times in them.
    let output = task.ignoring(&["/__pycache__/", ".tar.gz"]).works();
    assert!(output.stdout.contains("['hello one', 'hello two', 'hello three', 'hello four']"), "{output:#?}");
}

#[test]
fn npm_installs_a_package_and_runs_install_scripts() {
    let address = fresh_address();
    let task = Task::new("npm").connecting_to("loopback").argument(&address);
    let _server = task.serve(&address);
    let output = task.works();
    assert!(output.stdout.contains("\nhello world\na thread\na process\n"), "{output:#?}");
    assert!(output.stdout.contains("\nbuilt as 0\n"), "{output:#?}");
}

#[test]
fn git_clones_fetches_and_pushes() {
    let (address, repositories) = (fresh_address(), tempfile::tempdir().unwrap());
    let folder = repositories.path().to_str().unwrap();
    let [listen, base] = [format!("--listen={address}"), format!("--base-path={folder}")];
    let command = ["git", "daemon", "--reuseaddr", "--enable=receive-pack", &listen, &base];
    let _daemon = Daemon::start(command, |_| is_bound(Transport::Tcp, &address, 9418));
    let task = Task::new("git").connecting_to(&address).argument(folder).argument(&address);
    let _server = task.serve(&address);
    // An index has times and inodes in it.
    let output = task.ignoring(&["/.git/index"]).works();
    assert!(output.stdout.contains("1000 insertions"), "{output:#?}");
}

#[test]
fn make_shares_its_job_slots() {
    assert_eq!(Task::new("make").works().stdout, "all\n");
    assert_eq!(Task::new("make").script("client").works().stdout, "had +\ngot + back\n");
}

#[test]
fn make_shares_its_job_slots_with_a_guarded_make_if_it_is_handed_the_pipe() {
    const FOUR: &str = "one-a one-b two-a two-b";
    let run = Run::new(json!({"version": 1}), [""]);
    let (program, policy) = (guard_run(), run.policy());
    let warning = "warning: jobserver unavailable: using -j1.";
    for (flags, awaited, warnings) in [("", "", 2), ("--preserve-fds 2", FOUR, 0)] {
        let guard = format!("{} --policy {} {flags} --", program.display(), policy.display());
        let output = Task::new("make").script("outside").argument(guard).argument(awaited).bare().success();
        assert_eq!(output.stdout, "all\nended-one-a\nended-one-b\nended-two-a\nended-two-b\n");
        assert_eq!(output.stderr.matches(warning).count(), warnings, "{flags}: {output:#?}");
    }
}

#[test]
fn go_builds_tests_and_runs() {
    let output = Task::new("go").connecting_to("loopback").works();
    assert!(output.stdout.contains("hello /7]\na process\n"), "{output:#?}");
}

#[test]
fn java_compiles_and_runs() {
    let output = Task::new("java").connecting_to("loopback").works();
    assert!(output.stdout.contains("hello /7]\n"), "{output:#?}");
}
