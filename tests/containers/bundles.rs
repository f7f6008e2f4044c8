//! Bundles that somebody has written so that programs read different things in them: all that a real runtime starts of these is guarded.
//!
//! `GUARD_SEED` repeats a run; the seed is in the message of what fails.

use std::{
    env,
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use support::{
    container::{Cgroups, Engine, Machine, Root},
    guard_run,
};

const ENGINES: [Engine; 2] = [(Root::Own, Cgroups::Pure, "runc"), (Root::Newer, Cgroups::Pure, "crun")];

/// How many bundles are tried under each engine.
const BUNDLES: usize = 60;

/// A hook that notes that it was called, and how.
const RECORDER: &str = "#!/bin/sh\necho \"$*\" >>\"${0%/*}/called\"\n";

const POLICY: &str =
    r#"{"version": 1, "sysctls": {"default": "allow", "rules": [{"action": "deny", "names": ["kernel/x"]}]}}"#;

/// Numbers that look random, the same for a seed (xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Another spelling of a key, as JSON text.
fn spelling(random: &mut Random, key: &str) -> String {
    let at = random.below(key.len());
    let (before, rest) = key.split_at(at);
    let (letter, after) = rest.split_at(1);
    let other = match letter {
        "k" if random.below(2) == 0 => "\\u212a".to_owned(),
        "s" if random.below(2) == 0 => "\\u017f".to_owned(),
        _ if letter.chars().all(char::is_uppercase) => letter.to_lowercase(),
        _ => letter.to_uppercase(),
    };
    match random.below(6) {
        0 => key.to_owned(),
        1 => format!("{key}\\u0000"),
        2 => format!("{key}\\u0000x"),
        3 => key.to_uppercase(),
        _ => format!("{before}{other}{after}"),
    }
}

/// A member of an object: its key, and what follows.
type Member = (String, String);

fn object(members: &[Member]) -> String {
    let mut text = String::from("{");
    for (index, (key, value)) in members.iter().enumerate() {
        let _ = write!(text, "{}\"{key}\": {value}", if index == 0 { "" } else { ", " });
    }
    text + "}"
}

/// Adds a member at either end.
fn add(random: &mut Random, to: &mut Vec<Member>, key: String, value: &str) {
    let at = if random.below(2) == 0 { 0 } else { to.len() };
    to.insert(at, (key, value.to_owned()));
}

/// A configuration that asks for a guard, with some oddities.
fn config(random: &mut Random, id: &str, policy: &Path, hook: &Path) -> String {
    let member = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let hook = hook.display();
    let entries = [
        "[]".to_owned(),
        "null".to_owned(),
        "[{\"path\": \"/bin/true\"}]".to_owned(),
        format!(r#"[{{"path": "{hook}", "args": ["guard-hook", "createRuntime", "--help"]}}]"#),
        format!(r#"[{{"path": "{hook}", "args": ["guard-hook"], "Path": "/bin/true"}}]"#),
        format!(r#"[{{"path": "/bin/true", "PATH": "{hook}"}}]"#),
        format!(r#"[{{"path": "{hook}", "path": "/bin/true", "args": ["guard-hook"]}}]"#),
        format!(r#"[{{"path": "{hook}", "args": ["guard-hook", "createRuntime"], "env": ["A=b"]}}]"#),
    ];
    let values =
        ["null", "{}", "[]", r#"{"createRuntime": []}"#, r#"{"createruntime": null}"#, r#"{"createRuntime": null}"#];
    let mut annotations = vec![member("io.guard-run.policy", &format!("\"{}\"", policy.display()))];
    let mut hooks: Vec<Member> = Vec::new();
    let mut top = vec![
        member("ociVersion", "\"1.0.2\""),
        member(
            "process",
            r#"{"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/touch", "/started"], "env": [], "capabilities": {}}"#,
        ),
        member("root", r#"{"path": "rootfs"}"#),
        member("mounts", r#"[{"destination": "/proc", "type": "proc", "source": "proc"}]"#),
        member(
            "linux",
            &format!(
                r#"{{"cgroupsPath": "/{id}", "namespaces": [{{"type": "pid"}}, {{"type": "network"}}, {{"type": "mount"}}]}}"#
            ),
        ),
    ];
    for _ in 0..=random.below(2) {
        match random.below(6) {
            // What is harmless: a map's keys differ by case, and later versions may have members that are unknown now.
            0 => add(random, &mut annotations, "IO.guard-run.policy".to_owned(), "\"/x\""),
            1 => add(random, &mut top, "laterKey".to_owned(), "{\"Hooks\": null}"),
            2 => {
                let key = spelling(random, "io.guard-run.policy");
                let value = random.pick(&["\"\"", "null", "\"/x\""]);
                add(random, &mut annotations, key, value);
            }
            3 => {
                let key = spelling(random, "createRuntime");
                let entry = &entries[random.below(entries.len())];
                add(random, &mut hooks, key, entry);
            }
            _ => {
                let name = random.pick(&["hooks", "hooks", "annotations"]);
                let key = spelling(random, name);
                let value = random.pick(&values);
                add(random, &mut top, key, value);
            }
        }
    }
    let annotations_key = if random.below(8) == 0 { spelling(random, "annotations") } else { "annotations".to_owned() };
    let annotations = object(&annotations);
    add(random, &mut top, annotations_key, &annotations);
    if !hooks.is_empty() {
        let hooks = object(&hooks);
        add(random, &mut top, "hooks".to_owned(), &hooks);
    }
    object(&top)
}

fn install(from: &Path, to: &Path) {
    // Not by this process: see the tests of guard-runtime.
    assert!(Command::new("install").args(["-m", "755"]).args([from, to]).status().unwrap().success());
}

#[test]
fn whatever_a_runtime_starts_of_an_odd_bundle_is_guarded() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = env::var("GUARD_SEED").map_or(u64::from(now.subsec_nanos()) | 1 << 40, |seed| seed.parse().unwrap());
    for engine in ENGINES {
        let machine = Machine::new(engine);
        let folder = machine.folder().join("programs");
        fs::create_dir(&folder).unwrap();
        let runtime = folder.join(format!("guard-runtime-{}", engine.2));
        install(&guard_run().with_file_name("guard-runtime"), &runtime);
        let source = machine.write("recorder", RECORDER);
        fs::set_permissions(&source, fs::Permissions::from_mode(0o755)).unwrap();
        install(&source, &folder.join("guard-hook"));
        let policy = machine.write("policy.json", POLICY);
        let [called, started] = [folder.join("called"), machine.rootfs().join("started")];
        let mut random = Random(seed);
        let (mut bare, mut guarded) = (0, 0);
        for number in 0..BUNDLES {
            let id = format!("bundle-{}-{number}", std::process::id());
            let text = config(&mut random, &id, &policy, &folder.join("guard-hook"));
            let run = |program: &Path| {
                for file in [&called, &started] {
                    let _ = fs::remove_file(file);
                }
                machine.write("config.json", &text);
                let bundle = machine.folder().display().to_string();
                let said = machine.run(program, &["run", "--bundle", &bundle, &id]);
                // What failed half way through leaves something behind.
                let _ = machine.run(engine.2, &["delete", "--force", &id]);
                (started.exists(), fs::read_to_string(&called).unwrap_or_default(), said)
            };
            let (ran, ..) = run(&PathBuf::from(engine.2));
            bare += usize::from(ran);
            let (ran, calls, said) = run(&runtime);
            guarded += usize::from(ran);
            let is_guarded = calls.lines().any(|line| line == "createRuntime" || line.is_empty());
            assert!(!ran || is_guarded, "seed {seed}, {engine:?}: {text}\n{calls}{said:?}");
        }
        eprintln!("seed {seed}, {engine:?}: of {BUNDLES} bundles, {bare} start bare, {guarded} guarded");
        assert!(bare > BUNDLES / 3 && guarded > BUNDLES / 20, "seed {seed}, {engine:?}: {bare} {guarded}");
    }
}
