//! `make install` and `make uninstall`: everything is where a system looks for it, and works there. The programs are those
//! that the tests were built with.

mod release;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use support::guard_run;
use tempfile::TempDir;

const PREFIX: &str = "/opt/guard";

/// The checkout.
fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Calls make for a target, with everything built already.
fn make(target: &str, root: &Path) -> Output {
    let output = Command::new("make")
        .current_dir(checkout())
        .args(["--no-print-directory", "--old-file=build", target])
        .env_remove("SUDO_USER")
        .arg(format!("BUILT={}", guard_run().parent().unwrap().display()))
        .arg(format!("PREFIX={PREFIX}"))
        .arg(format!("DESTDIR={}", root.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

/// An installation in a folder of its own.
fn installed() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    make("install", root.path());
    root
}

/// All files below a folder, links too.
fn files(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), found);
        } else {
            found.insert(entry.path());
        }
    }
}

#[test]
fn everything_is_in_its_place_and_readable_for_all() {
    let root = installed();
    let prefix = root.path().join(&PREFIX[1..]);
    let mut found = BTreeSet::new();
    files(root.path(), &mut found);
    for name in [
        "bin/guard-run",
        "bin/guard-selftest",
        "bin/guard-hook",
        "bin/guard-runtime",
        "bin/guard-runtime-runc",
        "bin/guard-runtime-crun",
        "bin/guard-runtime-youki",
        "share/man/man1/guard-run.1",
        "share/man/man5/guard-run-policy.5",
        "share/man/man8/guard-runtime.8",
        "share/man/man8/guard-runtime-crun.8",
        "share/bash-completion/completions/guard-run",
        "share/zsh/site-functions/_guard-run",
        "share/fish/vendor_completions.d/guard-run.fish",
        "share/containers/oci/hooks.d/guard-run.json",
        "share/guard-run/schema/policy.schema.json",
        "share/guard-run/schema/log.schema.json",
        "share/guard-run/schema/suggest.schema.json",
        "share/guard-run/schema/why.schema.json",
        "share/guard-run/schema/hook.schema.json",
        "share/guard-run/policies/loopback-only.json",
        "share/guard-run/policies/agent.json",
        "share/doc/guard-run/README.md",
        "share/doc/guard-run/docs/tutorial.md",
        "share/doc/guard-run/docs/recipes/tests.md",
        "share/doc/guard-run/docs/pictures/denied.svg",
        "share/doc/guard-run/examples/tutorial.json",
        "share/doc/guard-run/examples/containers/README.md",
    ] {
        assert!(found.contains(&prefix.join(name)), "{name} is missing of {found:#?}");
    }
    let policies: Vec<&PathBuf> =
        found.iter().filter(|file| file.parent().is_some_and(|folder| folder.ends_with("policies"))).collect();
    for policy in policies {
        let text = fs::read(policy).unwrap();
        let json: Value = serde_json::from_slice(&text).unwrap();
        let schema = policy.parent().unwrap().join(json["$schema"].as_str().unwrap());
        assert!(json["description"].is_string() && schema.exists(), "{}", policy.display());
        assert!(!policy.ends_with("everything-allowed.json"), "it is no policy for anybody");
    }
    for file in found {
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o7777;
        let is_program = file.parent().unwrap().ends_with("bin") || file.extension() == Some("sh".as_ref());
        let expected = if is_program { 0o755 } else { 0o644 };
        assert_eq!(mode, expected, "{}", file.display());
        assert!(fs::metadata(&file).unwrap().len() > 0, "{} is empty", file.display());
    }
}

#[test]
fn what_is_installed_works() {
    let root = installed();
    let prefix = root.path().join(&PREFIX[1..]);
    for name in ["guard-run", "guard-selftest", "guard-hook"] {
        let output = Command::new(prefix.join("bin").join(name)).arg("--version").output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let version = said.strip_prefix(&format!("{name} {}", env!("CARGO_PKG_VERSION")));
        // guard-run goes on with which programs it has.
        let more = if name == "guard-run" { " (" } else { "\n" };
        assert!(version.is_some_and(|rest| rest.starts_with(more)), "{said}");
    }
    // Policies are found by name below the folder that the program is installed in, also if that is an unusual one.
    let known = Command::new(prefix.join("bin/guard-run")).arg("policies").output().unwrap();
    let known = String::from_utf8(known.stdout).unwrap();
    let loopback = known.lines().find(|line| line.starts_with("loopback-only ")).unwrap_or_default();
    assert!(loopback.contains(&*prefix.join("share/guard-run/policies").to_string_lossy()), "{known}");
    let policy = prefix.join("share/doc/guard-run/examples/tutorial.json");
    assert!(Command::new(prefix.join("bin/guard-run")).arg("check").arg(policy).output().unwrap().status.success());
    // The path in it is the one after installation, without DESTDIR.
    let hook: Value =
        serde_json::from_slice(&fs::read(prefix.join("share/containers/oci/hooks.d/guard-run.json")).unwrap()).unwrap();
    assert_eq!(hook["hook"]["path"], format!("{PREFIX}/bin/guard-hook"));
    assert_eq!(hook["version"], "1.0.0");
    for name in ["policy", "log", "hook", "suggest", "why"] {
        let file = prefix.join(format!("share/guard-run/schema/{name}.schema.json"));
        assert!(serde_json::from_slice::<Value>(&fs::read(file).unwrap()).unwrap()["$schema"].is_string());
    }
}

#[test]
fn man_pages_are_proper_ones() {
    let root = installed();
    let manuals = root.path().join(&PREFIX[1..]).join("share/man");
    let mut pages = BTreeSet::new();
    files(&manuals, &mut pages);
    for page in pages {
        let output = Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&page).output().unwrap();
        // A date would make each build different.
        let complaints = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaints: Vec<&str> = complaints.lines().filter(|line| !line.contains("missing date")).collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
        let output = Command::new("man").args(["--warnings", "-l"]).arg(&page).env("MANWIDTH", "120").output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let rendered = String::from_utf8_lossy(&output.stdout).into_owned();
        // guard-runtime-crun(8) is a link to guard-runtime(8), guard-selftest(1) to guard-run(1).
        let page = page.canonicalize().unwrap();
        let name = page.file_stem().unwrap().to_str().unwrap().to_uppercase();
        let title = rendered.lines().find(|line| !line.is_empty()).unwrap();
        assert!(name.starts_with(title.split('(').next().unwrap()), "{}: {title}", page.display());
        assert!(rendered.contains("SEE ALSO") && !rendered.contains("**"), "{rendered}");
        // A line break of the source that was none.
        assert!(!rendered.lines().any(|line| line.ends_with('\\')) && !rendered.contains("\\ "), "{rendered}");
    }
}

#[test]
fn completions_complete() {
    let root = installed();
    let script = root.path().join(&PREFIX[1..]).join("share/bash-completion/completions/guard-run");
    let complete = |words: &[&str]| {
        let program = ". \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
             set -- $(complete -p guard-run | sed 's/.*-F \\([^ ]*\\).*/\\1/') \"${COMP_WORDS[@]}\"; \
             \"$1\" guard-run \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"; echo \"${COMPREPLY[*]}\"";
        let output = Command::new("bash")
            .args(["-c", program, "bash"])
            .arg(&script)
            .arg("guard-run")
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    assert_eq!(complete(&["doc"]), "doctor");
    assert_eq!(complete(&["--fail"]), "--fail-on-deny");
    assert_eq!(complete(&["--wait", ""]), "tree child");
    assert!(Command::new("bash").arg("-n").arg(&script).status().unwrap().success());
}

#[test]
fn the_examples_for_engines_name_what_is_installed() {
    let mut examples = BTreeSet::new();
    files(&checkout().join("examples/containers"), &mut examples);
    for example in examples {
        let text = fs::read_to_string(&example).unwrap();
        if example.extension() == Some("json".as_ref()) {
            serde_json::from_str::<Value>(&text).unwrap();
        }
        for place in text.split("/usr/bin/guard-").skip(1) {
            let name = place.split(|c: char| !c.is_ascii_lowercase() && c != '-').next().unwrap();
            let names = ["runtime", "runtime-runc", "runtime-crun", "runtime-youki", "hook", "run"];
            assert!(names.contains(&name), "{}: guard-{name}", example.display());
        }
    }
}

/// Debug information would take minutes to compress.
fn stripped() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["guard-run", "guard-selftest", "guard-hook", "guard-runtime"] {
        let (from, to) = (guard_run().with_file_name(name), folder.path().join(name));
        assert!(Command::new("strip").arg("-o").arg(to).arg(from).status().unwrap().success());
    }
    folder
}

#[test]
fn the_debian_package_has_what_is_installed_and_goes_without_a_trace() {
    // lintian is part of making it.
    let package = release::part("guard-run_", ".deb");
    let root = tempfile::tempdir().unwrap();
    for folder in ["info", "updates"] {
        fs::create_dir_all(root.path().join("var/lib/dpkg").join(folder)).unwrap();
    }
    fs::write(root.path().join("var/lib/dpkg/status"), "").unwrap();
    let dpkg = |action: &str, what: &Path| {
        let output = Command::new("dpkg")
            .args(["--force-not-root", "--force-script-chrootless", "--log=/dev/stderr", "--root"])
            .args([root.path(), Path::new(action), what])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    dpkg("--install", &package);
    let usr = root.path().join("usr");
    for name in [
        "bin/guard-runtime-crun",
        "share/bash-completion/completions/guard-run",
        "share/zsh/vendor-completions/_guard-run",
        "share/man/man1/guard-run.1.gz",
        "share/man/man8/guard-runtime-crun.8.gz",
        "share/containers/oci/hooks.d/guard-run.json",
        "share/guard-run/schema/policy.schema.json",
        "share/doc/guard-run/copyright",
        "share/doc/guard-run/changelog.Debian.gz",
        "share/doc/guard-run/examples/containers/docker.json",
    ] {
        assert!(usr.join(name).exists(), "{name}");
    }
    for name in ["guard-run", "guard-selftest", "guard-hook"] {
        assert!(Command::new(usr.join("bin").join(name)).arg("--version").output().unwrap().status.success());
    }
    let hook = fs::read_to_string(usr.join("share/containers/oci/hooks.d/guard-run.json")).unwrap();
    assert!(hook.contains("\"/usr/bin/guard-hook\""), "{hook}");
    let logs = root.path().join("var/log/guard-run");
    fs::create_dir_all(&logs).unwrap();
    fs::write(logs.join("log.json"), "{}").unwrap();
    dpkg("--remove", Path::new("guard-run"));
    assert!(!usr.exists() || fs::read_dir(&usr).unwrap().next().is_none());
    assert!(logs.join("log.json").exists(), "logs go only when the package is purged");
    dpkg("--purge", Path::new("guard-run"));
    assert!(!logs.exists());
}

#[test]
fn nothing_is_left_after_uninstalling() {
    let root = installed();
    let foreign = root.path().join(&PREFIX[1..]).join("bin/another-program");
    fs::write(&foreign, "").unwrap();
    make("uninstall", root.path());
    let mut left = BTreeSet::new();
    files(root.path(), &mut left);
    assert_eq!(left, BTreeSet::from([foreign]));
}
