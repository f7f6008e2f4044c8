//! `make dist`: what a release consists of is installed, works, and goes without a trace. It has the programs of the tests, without
//! their debug information.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
};

use support::container::newer_root;
use tempfile::TempDir;

use crate::{checkout, files, stripped};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `make dist` leaves in target/dist, made once for all tests here.
static RELEASE: LazyLock<PathBuf> = LazyLock::new(|| {
    let built = stripped();
    let output = Command::new("make")
        .current_dir(checkout())
        .args(["--no-print-directory", "--old-file=build", "--old-file=materials", "dist"])
        .env_remove("SUDO_USER")
        .arg(format!("RELEASE={}", built.path().display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    checkout().join("target/dist")
});

/// The file of a release that has these beginning and end.
pub fn part(beginning: &str, end: &str) -> PathBuf {
    let is_it = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with(beginning) && name.ends_with(end)
    };
    let entries = fs::read_dir(&*RELEASE).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<PathBuf> = entries.filter(is_it).collect();
    assert_eq!(found.len(), 1, "{beginning}…{end}: {found:?}");
    found.into_iter().next().unwrap()
}

/// The text that a program printed, which has to have succeeded.
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs an installed guard-run: it says which one it is, finds policies of its own by name, and guards.
fn works(program: &Path) {
    let version = said(&Command::new(program).arg("--version").output().unwrap());
    assert!(version.starts_with(&format!("guard-run {VERSION} ")), "{version}");
    let policies = said(&Command::new(program).arg("policies").output().unwrap());
    let prefix = program.parent().unwrap().parent().unwrap();
    let own = format!("({})", prefix.join("share/guard-run/policies/loopback-only.json").display());
    assert!(policies.lines().any(|line| line.starts_with("loopback-only ") && line.ends_with(&own)), "{policies}");
    let out = "import socket; socket.create_connection(('192.0.2.1', 9), 5)";
    let output =
        Command::new(program).args(["-p", "loopback-only", "--log", "-", "--", "python3", "-c", out]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("PermissionError") && errors.contains("192.0.2.1:9"), "{errors}");
}

/// A copy of the tar ball, its script and its sums.
fn copied() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in [part("guard-run-", "-linux.tar.gz"), part("install", ".sh"), part("SHA256SUMS", "")] {
        fs::copy(&name, folder.path().join(name.file_name().unwrap())).unwrap();
    }
    folder
}

/// Runs the install script by a shell, with programs of a search path.
fn install(shell: &str, path: &str, folder: &Path, arguments: &[&str]) -> Output {
    Command::new(shell).arg("install.sh").args(arguments).current_dir(folder).env("PATH", path).output().unwrap()
}

/// Where busybox's own programs are, by their names.
fn busybox() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let list = said(&Command::new("busybox").arg("--list").output().unwrap());
    for name in list.lines() {
        symlink("/bin/busybox", folder.path().join(name)).unwrap();
    }
    folder
}

#[test]
fn the_install_script_installs_and_removes_by_any_systems_programs() {
    let (release, busybox) = (copied(), busybox());
    let small = busybox.path().to_str().unwrap();
    for (shell, path) in [("/bin/sh", "/usr/bin:/bin"), (&*format!("{small}/sh"), small)] {
        let root = tempfile::tempdir().unwrap();
        let prefix = root.path().join("opt");
        let to = ["--prefix", prefix.to_str().unwrap()];
        let line = said(&install(shell, path, release.path(), &to));
        assert!(line.contains(&format!("{}/bin/guard-run doctor", prefix.display())), "{line}");
        works(&prefix.join("bin/guard-run"));
        let hook = fs::read_to_string(prefix.join("share/containers/oci/hooks.d/guard-run.json")).unwrap();
        assert!(hook.contains(&format!("\"{}/bin/guard-hook\"", prefix.display())), "{hook}");
        assert_eq!(fs::read_link(prefix.join("bin/guard-runtime-crun")).unwrap(), Path::new("guard-runtime"));
        // Again over what is there, as for an upgrade, also while it runs.
        let mut running = Command::new(prefix.join("bin/guard-run"))
            .args(["-p", "loopback-only", "--quiet", "--", "cat"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        said(&install(shell, path, release.path(), &to));
        drop(running.stdin.take());
        assert!(running.wait().unwrap().success());
        fs::write(prefix.join("share/doc/guard-run/of-mine"), "").unwrap();
        said(&install(shell, path, release.path(), &["--uninstall", "--prefix", to[1]]));
        let mut left = BTreeSet::new();
        files(root.path(), &mut left);
        assert_eq!(left, BTreeSet::from([prefix.join("share/doc/guard-run/of-mine")]));
        let again = install(shell, path, release.path(), &["--uninstall", "--prefix", to[1]]);
        assert_eq!(again.status.code(), Some(1), "{again:?}");
    }
}

#[test]
fn the_install_script_refuses_what_the_sums_dont_tell_of() {
    let release = copied();
    let prefix = release.path().join("prefix");
    let refused = |why: &str| {
        let output = install("/bin/sh", "/usr/bin:/bin", release.path(), &["--prefix", prefix.to_str().unwrap()]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && error.contains(why) && error.lines().count() == 1, "{output:?}");
        assert!(!prefix.exists());
    };
    let ball = release.path().join(part("guard-run-", "-linux.tar.gz").file_name().unwrap());
    let mut bytes = fs::read(&ball).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&ball, bytes).unwrap();
    refused("is not the one that SHA256SUMS tells of");
    fs::write(release.path().join("SHA256SUMS"), "").unwrap();
    refused("doesn't tell of");
    fs::remove_file(release.path().join("SHA256SUMS")).unwrap();
    refused("SHA256SUMS is not beside this script");
}

#[test]
fn the_wheel_is_installed_by_pip_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let venv = folder.path().join("venv");
    said(&Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&venv).output().unwrap());
    let mut before = BTreeSet::new();
    files(&venv, &mut before);
    let pip = |arguments: &[&str]| {
        let output =
            Command::new(venv.join("bin/pip")).args(["--disable-pip-version-check"]).args(arguments).output().unwrap();
        said(&output);
    };
    pip(&["install", "--no-index", part("guard_run-", ".whl").to_str().unwrap()]);
    works(&venv.join("bin/guard-run"));
    let selftest = Command::new(venv.join("bin/guard-run")).args(["selftest", "--list"]).output().unwrap();
    assert!(said(&selftest).contains("port/"), "the self-test comes with it");
    pip(&["uninstall", "--yes", "guard-run"]);
    let mut after = BTreeSet::new();
    files(&venv, &mut after);
    let left: Vec<&PathBuf> =
        after.difference(&before).filter(|file| !file.to_string_lossy().contains("__pycache__")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn packages_keep_what_root_has_given_the_program_and_leave_nothing() {
    for package in [part("guard-run_", ".deb"), part("guard-run-", ".rpm")] {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh"])
            .arg(checkout().join("tests/probes/packages.sh"))
            .args([Path::new(&newer_root()), folder.path(), &package])
            .output()
            .unwrap();
        let said = said(&output);
        let lines: Vec<&str> = said.lines().collect();
        let [version, owner, capabilities, owner_after, capabilities_after] = lines[..] else { panic!("{output:?}") };
        assert!(version.starts_with("guard-run "), "{version}");
        assert_eq!((owner, owner_after), ("0:100 750", "0:100 750"));
        assert!(capabilities.contains("cap_net_admin,cap_bpf"), "{capabilities}");
        assert_eq!(capabilities, capabilities_after);
    }
}
