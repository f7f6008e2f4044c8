//! Bundles: config.json documents that guard-runtime, runc and crun could read differently. Where there is a default policy, every
//! container that starts must be guarded, or guard-runtime must have refused it.
//!
//! A document is changed in one to three ways, and guard-runtime is run with a runtime that notes what a runtime would read. Models
//! of the readers ([`readers`]) choose what the real runtimes are asked: they are the judges, by what a container can do.

mod changes;
mod readers;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Permissions},
    io::Read as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::Context as _;
use serde_json::{Value, json};

use self::{
    changes::{Change, Where, change},
    readers::Understood,
};
use crate::{
    finding::{Finding, Known, Violation, manners},
    guarded::own_program,
    json::Written,
    minimise::minimise,
    place::{self, Place},
    probe::Seen,
    session::{Session, found, note},
    world::{self, DEFAULT_POLICY, FORBIDDEN, OUT, OWN, PROGRAMS},
};

/// The name of the runtime that notes what it would read.
pub const READER: &str = "reader";

/// What guard-runtime exits with when it refuses.
const FAILURES: [i32; 1] = [1];

/// One document in so many is tried with the real runtimes whatever the models say.
const SAMPLE: usize = 60;

/// How many findings are enough.
const ENOUGH: usize = 24;

/// Fuzzes until the time is over.
///
/// # Errors
///
/// When the world around an attempt can't be made.
pub fn fuzz(session: &mut Session, place: &Place) -> anyhow::Result<()> {
    let mut random = session.random.clone();
    let mut bundles = Bundles::new(place)?;
    let (mut known, mut accepted, mut samples) = (Known::default(), 0_u32, 0_u32);
    // That the judges can tell a guarded container from one that isn't, in all of what follows.
    for runtime in RUNTIMES {
        let bare = bundles.really(runtime, &[], false)?;
        let guarded = bundles.really(runtime, &[], true)?;
        anyhow::ensure!(bare.0 == Some(true), "{}: no container without a guard: {:?}", runtime.name, bare.1);
        anyhow::ensure!(guarded.0 == Some(false), "{}: no container with a guard: {:?}", runtime.name, guarded.1);
    }
    let (output, read) = bundles.read(&[])?;
    anyhow::ensure!(read.is_some(), "a document that nothing is wrong with: {output:?}");
    let classes = |changes: &[Change]| -> BTreeSet<String> { changes.iter().map(Change::class).collect() };
    while !session.is_over() && known.count() < ENOUGH {
        let changes: Vec<Change> = (0..=random.below(3)).map(|_| change(&mut random, &bundles.hook)).collect();
        session.count();
        let (output, read) = bundles.read(&changes)?;
        let after = (session.elapsed(), session.attempts());
        for violation in manners(&output, false, "guard-runtime: ", &FAILURES) {
            if !known.has("guard-runtime", &violation.kind, &classes(&changes)) {
                known.add("guard-runtime", &violation.kind, classes(&changes));
                let way = changes.iter().map(ToString::to_string).collect();
                found(Finding { subject: "guard-runtime".into(), violation, way, after })?;
            }
        }
        let Some(read) = read else { continue };
        accepted += 1;
        for runtime in RUNTIMES {
            let chosen = (runtime.model)(&read).is_some_and(|understood| !understood.is_guarded(&bundles.hook));
            let at_random = random.once_in(SAMPLE) || changes.iter().any(Change::is_beyond_models);
            let reported = KINDS.iter().any(|kind| known.has(runtime.name, kind, &classes(&changes)));
            if reported || !chosen && !at_random {
                continue;
            }
            samples += 1;
            let Some(violation) = bundles.violation(runtime, &changes)? else { continue };
            if !chosen && violation.kind == UNGUARDED {
                note(&format!("the model of {} does not know this", runtime.name));
            }
            let (changes, violation) = minimise(&changes, violation, |fewer| bundles.violation(runtime, fewer))?;
            known.add(runtime.name, &violation.kind, classes(&changes));
            let way = changes.iter().map(ToString::to_string).collect();
            let subject = format!("guard-runtime with {}, in a bundle that it adds its hooks to", runtime.name);
            found(Finding { subject, violation, way, after })?;
        }
    }
    note(&format!("{accepted} documents were accepted, {samples} of them were tried with the real runtimes"));
    Ok(())
}

/// A real runtime, and the model of how it reads.
#[derive(Clone, Copy)]
struct Runtime {
    name: &'static str,
    model: fn(&[u8]) -> Option<Understood>,
}

const RUNTIMES: [Runtime; 2] =
    [Runtime { name: "runc", model: readers::go }, Runtime { name: "crun", model: readers::yajl }];

/// Tells whether the guard holds.
const UNGUARDED: &str = "unguarded";

/// The other kind of violation: what is not the container's was changed.
const OUTSIDE: &str = "outside";
const KINDS: [&str; 2] = [UNGUARDED, OUTSIDE];

const GUARDED: &str = "guarded";

/// Runs a runtime where cgroup2 is what it expects: crun refuses a host with version 1 beside it.
const PURE: &str = "mount --bind \"$1\" /sys/fs/cgroup && shift && exec \"$@\"";

struct Bundles<'a> {
    place: &'a Place,
    folder: PathBuf,
    hook: String,
    base: Written,
    before: BTreeMap<PathBuf, Result<Seen, i32>>,
    count: u64,
}

impl<'a> Bundles<'a> {
    fn new(place: &'a Place) -> anyhow::Result<Self> {
        let folder = Path::new(OWN).join("bundle");
        let bin = folder.join("rootfs/bin");
        for name in ["rootfs/bin", "rootfs/dev", "rootfs/proc"] {
            fs::create_dir_all(folder.join(name))?;
        }
        fs::copy("/bin/busybox", bin.join("busybox")).context("busybox-static is needed")?;
        for name in ["sh", "cat", "echo"] {
            symlink("busybox", bin.join(name))?;
        }
        // What guard-runtime becomes to note what it would read.
        fs::create_dir(Path::new(OWN).join("path"))?;
        symlink(own_program()?, Path::new(OWN).join("path").join(READER))?;
        for runtime in RUNTIMES.iter().map(|runtime| runtime.name).chain([READER]) {
            symlink(Path::new(PROGRAMS).join("guard-runtime"), program(runtime))?;
        }
        let program = folder.join("rootfs/foreign");
        fs::write(&program, by_foreign_call())?;
        fs::set_permissions(&program, Permissions::from_mode(0o755))?;
        policy()?;
        let script = format!(
            "if cat {FORBIDDEN} >/dev/null 2>&1; then echo {UNGUARDED}; exit; fi
            /foreign 2>/dev/null
            if [ $? = {ENDS} ]; then echo {UNGUARDED}; else echo {GUARDED}; fi"
        );
        let base = json!({
            "ociVersion": "1.0.2",
            "hostname": "x",
            "process": {
                "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/sh", "-c", script], "env": ["PATH=/bin"],
                "capabilities": {"bounding": [], "effective": [], "permitted": []}
            },
            "root": {"path": "rootfs"},
            "annotations": {"io.guard-run.policy": DEFAULT_POLICY},
            "hooks": {"poststart": []},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}
            ],
            "linux": {
                "cgroupsPath": format!("/{}/bundle", place.name()),
                "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]
            }
        });
        let hook = Path::new(PROGRAMS).join("guard-hook").display().to_string();
        let base = Written::new(&base);
        Ok(Self { place, folder, hook, base, before: world::snapshot(), count: 0 })
    }

    /// Writes the document with these changes.
    fn write(&self, changes: &[Change]) -> anyhow::Result<()> {
        let mut document = self.base.clone();
        let empty = Written::Object(Vec::new());
        for change in changes {
            let Change::Add { to, key, value, first, .. } = change else { continue };
            let place = match to {
                Where::Top => Some(&mut document),
                Where::Hooks => document.member("hooks", &empty),
                Where::CreateRuntime => document
                    .member("hooks", &empty)
                    .and_then(|hooks| hooks.member("createRuntime", &Written::List(Vec::new()))),
                Where::Annotations => document.member("annotations", &empty),
                Where::Linux => document.member("linux", &empty),
            };
            match place {
                Some(Written::Object(members)) => {
                    members.insert(if *first { 0 } else { members.len() }, (key.clone(), value.clone()));
                }
                Some(Written::List(list)) => list.insert(if *first { 0 } else { list.len() }, value.clone()),
                _ => {}
            }
        }
        let mut text = document.to_string().into_bytes();
        for change in changes {
            match change {
                Change::Add { .. } => {}
                Change::Before(more) => text.splice(..0, more.iter().copied()).for_each(drop),
                Change::After(more) => text.extend(*more),
                Change::Instead(old, new) => {
                    if let Some(begin) = text.windows(old.len()).position(|part| part == *old) {
                        text.splice(begin..begin + old.len(), new.iter().copied()).for_each(drop);
                    }
                }
            }
        }
        Ok(fs::write(self.folder.join("config.json"), text)?)
    }

    /// What guard-runtime says, and, unless it has refused, what a runtime would read.
    fn read(&self, changes: &[Change]) -> anyhow::Result<(Output, Option<Vec<u8>>)> {
        self.write(changes)?;
        let noted = Path::new(OUT).join(READER);
        world::remove(&noted)?;
        let mut command = Command::new("/usr/bin/timeout");
        command.args(["-s", "KILL", "10"]).arg(program(READER));
        command.args(["create", "--bundle"]).arg(&self.folder).arg("x").stdin(Stdio::null());
        let output = command.env_clear().env("PATH", Path::new(OWN).join("path")).output()?;
        Ok((output, fs::read(noted).ok()))
    }

    /// Runs a container. Whether it is unguarded; none if there was no container.
    fn really(
        &mut self,
        runtime: Runtime,
        changes: &[Change],
        by_guard: bool,
    ) -> anyhow::Result<(Option<bool>, Output)> {
        self.write(changes)?;
        self.count += 1;
        let id = format!("{}-b-{}", self.place.name(), self.count);
        let program = if by_guard { program(runtime.name) } else { PathBuf::from(runtime.name) };
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "30"]);
        if runtime.name == "crun" {
            command
                .args(["unshare", "--mount", "--propagation", "private", "sh", "-c", PURE, "sh"])
                .arg(&self.place.mount);
        }
        command.arg(program).args(["run", "--bundle"]).arg(&self.folder).arg(&id).stdin(Stdio::null());
        let output = command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let found = said.lines().find_map(|line| match line {
            UNGUARDED => Some(true),
            GUARDED => Some(false),
            _ => None,
        });
        // What was killed, or has refused after it had begun, may have left something.
        for folder in [self.place.base().join("bundle"), self.place.mount.join(&id)] {
            place::end(&folder);
        }
        world::remove(&Path::new("/run").join(runtime.name).join(&id))?;
        world::remove(Path::new("/sys/fs/bpf/guard-run"))?;
        Ok((found, output))
    }

    fn violation(&mut self, runtime: Runtime, changes: &[Change]) -> anyhow::Result<Option<Violation>> {
        let (unguarded, _) = self.really(runtime, changes, true)?;
        let differences = world::differences(&self.before, &world::snapshot());
        world::tidy()?;
        if !differences.is_empty() {
            world::victim()?;
            policy()?;
            self.before = world::snapshot();
            return Ok(Some(Violation::new(OUTSIDE, differences.join("; "))));
        }
        let what = format!(
            "the container has started, and reads {FORBIDDEN} or makes calls of another architecture, which the policy forbids"
        );
        Ok(if unguarded == Some(true) { Some(Violation::new(UNGUARDED, what)) } else { None })
    }
}

/// Has the default policy tell hosts apart as well, so that it judges socket options.
fn policy() -> anyhow::Result<()> {
    let mut policy: Value = serde_json::from_str(&fs::read_to_string(DEFAULT_POLICY)?)?;
    policy["network"] = json!({"default": "allow", "rules": [{"action": "deny", "hosts": ["192.0.2.1"]}]});
    Ok(fs::write(DEFAULT_POLICY, policy.to_string())?)
}

/// What [`by_foreign_call`] exits with.
const ENDS: u8 = 7;

/// A program that ends by a 32-bit call. Without that, it is ended by SIGSYS; on other machines than x86-64, it can't be executed.
fn by_foreign_call() -> Vec<u8> {
    const PLACE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    // mov $1, %eax; mov $ENDS, %ebx; int $0x80
    const CODE: [u8; 12] = [0xb8, 1, 0, 0, 0, 0xbb, ENDS, 0, 0, 0, 0xcd, 0x80];
    let size = HEADERS + CODE.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    file.extend([PLACE + HEADERS, 64, 0].map(u64::to_le_bytes).concat());
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    file.extend([0, PLACE, PLACE, size, size, 0x1000].map(u64::to_le_bytes).concat());
    file.extend(CODE);
    file
}

/// guard-runtime, by the name by which it becomes a runtime.
fn program(runtime: &str) -> PathBuf {
    Path::new(OWN).join(format!("guard-runtime-{runtime}"))
}

/// What the runtime does that guard-runtime becomes: notes the configuration that it is told to run.
///
/// # Errors
///
/// When there is none.
pub fn read_as_runtime(words: &[&str]) -> anyhow::Result<()> {
    let bundle =
        words.iter().position(|word| *word == "--bundle" || *word == "-b").and_then(|index| words.get(index + 1));
    let bundle = bundle.context("no --bundle")?;
    let mut text = Vec::new();
    File::open(Path::new(bundle).join("config.json"))?.read_to_end(&mut text)?;
    Ok(fs::write(Path::new(OUT).join(READER), text)?)
}
