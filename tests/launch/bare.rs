//! What a command finds is what it would find without guard-run.

use std::{fs, os::unix::fs::PermissionsExt as _};

use support::{Output, Run, bpf::EVERY_SECTION};

/// Runs a script with and without guard-run; the same comes out. Returns the bare one's output.
fn compare(script: &str, prepare: impl Fn(Run) -> Run) -> Output {
    let run = prepare(Run::shell(EVERY_SECTION, script, &["one", "", "th ree"]));
    let (guarded, bare) = (run.output(), run.bare());
    assert_eq!(guarded.stdout, bare.stdout);
    assert_eq!((guarded.stderr, guarded.status), (bare.stderr.clone(), bare.status));
    bare
}

#[test]
fn environment_arguments_and_folder() {
    let script =
        r#"env -0 | sort -z | tr '\0' '\n' | grep -v -e '^_=' -e '^GUARD_RUN_DENIALS='; pwd; printf '<%s>' "$0" "$@""#;
    let prepare = |run: Run| run.environment("ODD", "a=b \n\u{1}\t\"$(x)").environment("EMPTY", "");
    let bare = compare(script, |run| prepare(run).through(["env", "-C", "/usr/share", "OLDPWD=x"]));
    assert!(bare.stdout.contains("\n/usr/share\n<bash><one><><th ree>"), "{}", bare.stdout);
    assert!(bare.stdout.contains("EMPTY=\n") && bare.stdout.contains("ODD=a=b \n\u{1}\t\"$(x)\n"), "{}", bare.stdout);
}

#[test]
fn an_empty_environment() {
    let run = Run::new(EVERY_SECTION, ["/usr/bin/env"]).through(["env", "-i"]);
    // But for what guard-run adds.
    let guarded = run.output().success().stdout;
    assert!(guarded.starts_with("GUARD_RUN_DENIALS=/") && guarded.lines().count() == 1, "{guarded}");
    assert_eq!(run.bare().success().stdout, "");
}

#[test]
fn umask_limits_priority_and_session() {
    let status =
        "grep -e Umask -e Groups -e SigPnd -e SigBlk -e SigIgn -e SigCgt -e Cpus -e Speculation /proc/self/status";
    let script = format!("umask; ulimit -a; nice; {status}");
    let wrapper = ["bash", "-c", r#"umask 0135; ulimit -n 77 -c 0 -s 4096; exec nice -n 3 "$@""#, "bash"];
    let bare = compare(&script, |run| run.through(wrapper));
    assert!(bare.stdout.starts_with("0135\n") && bare.stdout.contains("SigBlk"), "{}", bare.stdout);
    // It is in the process group and session that guard-run was started in.
    let script = r#"read -r _ _ _ _ group session _ < /proc/$$/stat; read -r _ _ _ _ above is _ < /proc/$PPID/stat
                    [ "$group $session" = "$above $is" ]"#;
    let _ = Run::shell(EVERY_SECTION, script, &[]).output().success();
}

/// Lists the descriptors that the shell has, each with the name of what it is.
const DESCRIPTORS: &str = r#"
    for fd in /proc/$$/fd/*; do
        case $fd in */255) ;; *) echo "${fd##*/} $(readlink "$fd" | sed "s/[0-9]\+/N/g; s:/tmp/.*/:/tmp/:")" ;; esac
    done
"#;

#[test]
fn open_descriptors() {
    let wrapper = ["bash", "-c", r#"exec 5< /etc/passwd 7> /dev/zero 200< <(:); exec "$@""#, "bash"];
    let bare = compare(&format!("{DESCRIPTORS} read -r line <&5; echo \"$line\""), |run| {
        run.through(wrapper).flags(["--preserve-fds", "300"])
    });
    for expected in ["0 /dev/null\n", "5 /etc/passwd\n", "7 /dev/zero\n", "200 pipe:[N]\n", "root:"] {
        assert!(bare.stdout.contains(expected), "{expected:?} in {}", bare.stdout);
    }
}

#[test]
fn standard_streams_that_are_closed() {
    let script = r"for fd in 0 1 2; do if [ -e /proc/$$/fd/$fd ]; then echo $fd; fi; done";
    for (closed, open) in [("<&-", "1\n2\n"), ("2>&-", "0\n1\n"), ("<&- 2>&-", "1\n")] {
        let wrapper = ["bash", "-c", &format!("exec \"$@\" {closed}"), "bash"];
        assert_eq!(compare(script, |run| run.through(wrapper)).stdout, open);
    }
}

#[test]
fn standard_streams_are_the_commands() {
    let run = || {
        let (reader, mut writer) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut writer, b"over the pipe\n").unwrap();
        Run::shell(EVERY_SECTION, "cat; echo error >&2; exit 6", &[]).stdin(reader).flags(["--quiet"])
    };
    for output in [run().output(), run().bare()] {
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("over the pipe\n", "error\n"));
        assert_eq!(output.code(), Some(6));
    }
}

#[test]
fn the_command_is_named_as_it_was_called() {
    // A program that tells its first argument: the shell's $0 without a script.
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own-name");
    std::os::unix::fs::symlink("/bin/bash", &own).unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    for name in ["own-name", own.to_str().unwrap()] {
        let run = Run::new(EVERY_SECTION, [name, "-c", "echo $0; tr '\\0' ' ' < /proc/$$/cmdline"])
            .environment("PATH", &path);
        let (guarded, bare) = (run.output().success(), run.bare().success());
        assert_eq!(guarded.stdout, bare.stdout);
        assert!(bare.stdout.starts_with(&format!("{name}\n{name} -c ")), "{}", bare.stdout);
    }
}

#[test]
fn a_script_that_names_no_interpreter_is_run_by_the_shell() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    fs::write(&script, "echo \"$0|$1|$2|$#\"\nexit 8\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    for name in ["script", script.to_str().unwrap()] {
        let run = Run::new(EVERY_SECTION, [name, "a b", ""]).environment("PATH", &path);
        // Through a program that starts it as execvp(3) does.
        let output = run.output().exits(8);
        assert_eq!(output.stdout, format!("{}|a b||2\n", script.display()));
        assert_eq!(run.through(["env"]).bare().exits(8).stdout, output.stdout);
    }
}
