//! What `doctor` says about containers: which engines and runtimes there are, whether they know the guard, and what to type
//! if they don't. A machine without engines lacks nothing.

use std::{
    env, fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use enforce::{
    bpffs::{self, MOUNT},
    cgroup::{CgroupError, Hierarchy},
    privilege,
};
use nix::unistd::{AccessFlags, access};

use super::Findings;

/// Where programs are that root's PATH may lack.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(5);

/// What follows from annotations that come from images.
const IMAGES_ANNOTATIONS: &str = "it gives containers the annotations of their images (before 4.5.1, unless your distribution has mended that): an \
     image can ask for any policy and log that /etc/guard-run/hook.json allows, so allow no folders that others write to";

/// The runtimes that guard-runtime stands in for.
const RUNTIMES: [&str; 3] = ["runc", "crun", "youki"];

/// Where podman and CRI-O look for hooks unless they are told otherwise.
const HOOKS_FOLDER: &str = "/usr/share/containers/oci/hooks.d";

/// The configuration that tells podman otherwise, in the order in which the later one wins.
const CONTAINERS_CONF: [&str; 2] = ["/usr/share/containers/containers.conf", "/etc/containers/containers.conf"];
const CONTAINERS_CONF_FOLDER: &str = "/etc/containers/containers.conf.d";

/// The file that names our hook.
const HOOK_FILE: &str = "guard-run.json";

/// An engine that reads no hooks.d, but can be told of runtimes.
struct Engine {
    /// The engine's program.
    name: &'static str,
    /// The engine's configuration.
    file: &'static str,
    /// What to write there.
    entry: fn(&Path) -> String,
}

const ENGINES: [Engine; 2] = [
    Engine { name: "dockerd", file: "/etc/docker/daemon.json", entry: docker_entry },
    Engine { name: "containerd", file: "/etc/containerd/config.toml", entry: containerd_entry },
];

fn docker_entry(runtime: &Path) -> String {
    format!(
        "add to it, and restart Docker: {{\"runtimes\": {{\"guard\": {{\"path\": \"{}\"}}}}}}\n         then: docker run --runtime guard --cap-drop NET_RAW \
         --annotation io.guard-run.policy=/etc/guard-run/POLICY.json IMAGE",
        runtime.display()
    )
}

fn containerd_entry(runtime: &Path) -> String {
    format!(
        "with ctr or nerdctl, no entry is needed: ctr run --runc-binary {} …; for Kubernetes, see \
        examples/containers/containerd.toml",
        runtime.display()
    )
}

/// Looks for all of it.
pub fn look(findings: &mut Findings) {
    findings.add_optional(format!("cgroup layout: {}", layout()), None);
    let engines: Vec<(&str, PathBuf)> =
        ["podman", "crio"].into_iter().chain(ENGINES.map(|engine| engine.name)).filter_map(found).collect();
    let runtimes: Vec<(&str, PathBuf)> = RUNTIMES.into_iter().filter_map(found).collect();
    if engines.is_empty() && runtimes.is_empty() {
        findings.add_optional("container engines: none here, so there is nothing to set up for them", None);
        return;
    }
    for (name, program) in engines.iter().chain(&runtimes) {
        let said = version(name, program);
        let fault = (*name == "podman" && takes_images_annotations(&said)).then(|| IMAGES_ANNOTATIONS.into());
        findings.add_optional(said, fault);
    }
    // Only root's engines have guarded containers.
    if bpffs::is_mounted() && privilege::is_root() {
        let what =
            format!("the machine's first process sees the bpf file system at {MOUNT}, so records of containers stay");
        findings.add_optional(what, not_the_machines());
    }
    let has = |name: &str| engines.iter().any(|(engine, _)| *engine == name);
    if has("podman") || has("crio") {
        let folders = hooks_folders();
        let what = format!("the guard's hook for podman and CRI-O, in {}", folders.join(" or "));
        findings.add_optional(what, hook_file(&folders));
    }
    let runtime = found("guard-runtime").map_or_else(|| beside("guard-runtime"), |(_, path)| path);
    for engine in ENGINES.into_iter().filter(|engine| has(engine.name)) {
        let known = fs::read_to_string(engine.file).is_ok_and(|text| text.contains("guard-runtime"));
        let what = format!("guard-runtime for {}, in {}", engine.name, engine.file);
        findings.add_optional(what, (!known).then(|| (engine.entry)(&runtime)));
    }
}

/// A program by its name, if there is one.
fn found(name: &'static str) -> Option<(&'static str, PathBuf)> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
    let usable = |file: &PathBuf| file.is_file() && access(file, AccessFlags::X_OK).is_ok();
    folders.map(|folder| folder.join(name)).find(usable).map(|file| (name, file))
}

/// Whether a podman gives containers the annotations of their images, by what it says of its version: before 4.5.1, which has
/// <https://github.com/containers/podman/pull/18542>. A distribution may have mended an older one.
fn takes_images_annotations(said: &str) -> bool {
    let number = said.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    let mut parts =
        number.unwrap_or_default().split(['.', '-', '+', '~']).map(|part| part.parse::<u32>().unwrap_or_default());
    let version: [u32; 3] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    version < [4, 5, 1]
}

/// Why what is at the place for bpf file systems is not what the machine's first process sees there: the engine, or anybody who asks,
/// has a mount namespace with one of its own, with which the records in it go.
fn not_the_machines() -> Option<String> {
    let device = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let of_first = Path::new("/proc/1/root").join(MOUNT.trim_start_matches('/'));
    match (device(Path::new(MOUNT)), device(&of_first)) {
        (Ok(ours), Ok(first)) if ours == first => None,
        (_, Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            Some(format!("not known: {}: {error}", of_first.display()))
        }
        _ => Some(format!(
            "it sees another, or none: records of containers go with the mount namespace that has this one, and so do rules on \
             devices if these are updated afterwards; mount it for the whole machine, before engines start: mount -t bpf bpf {MOUNT} -o mode=700"
        )),
    }
}

/// What a program says of its version: the first line, which names the program in all that we look for.
fn version(name: &str, program: &Path) -> String {
    match ask(program) {
        Ok(text) => match text.lines().next() {
            Some(line) if line.contains(name) => format!("{line} ({})", program.display()),
            Some(line) => format!("{name} {line} ({})", program.display()),
            None => format!("{name} ({})", program.display()),
        },
        Err(error) => format!("{name} ({}), which doesn't say its version: {error}", program.display()),
    }
}

fn ask(program: &Path) -> io::Result<String> {
    let mut child = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let end = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(Duration::from_millis(2));
    }
    io::read_to_string(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?)
}

/// How the cgroup hierarchies are laid out.
fn layout() -> String {
    match Hierarchy::find() {
        Ok(hierarchy) if hierarchy.mount == Path::new("/sys/fs/cgroup") => "v2 alone".into(),
        Ok(hierarchy) => format!(
            "v2 beside v1 controllers (hybrid), at {}; crun refuses such hosts, runc works",
            hierarchy.mount.display()
        ),
        Err(CgroupError::NoCgroup2 | CgroupError::OnlyVersion1) => {
            "v1 alone; boot with systemd.unified_cgroup_hierarchy=1, or: mount -t cgroup2 none /sys/fs/cgroup/unified"
                .into()
        }
        Err(error) => error.to_string(),
    }
}

/// The folders that podman reads hooks from.
fn hooks_folders() -> Vec<String> {
    let mut files: Vec<PathBuf> = CONTAINERS_CONF.map(PathBuf::from).to_vec();
    let mut more: Vec<PathBuf> =
        fs::read_dir(CONTAINERS_CONF_FOLDER).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    more.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
    more.sort();
    files.append(&mut more);
    let told = files.iter().filter_map(|file| hooks_dir(&fs::read_to_string(file).ok()?)).next_back();
    told.unwrap_or_else(|| vec![HOOKS_FOLDER.into()])
}

/// What a containers.conf says for `hooks_dir`: a list of strings (TOML), perhaps over several lines.
fn hooks_dir(text: &str) -> Option<Vec<String>> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let rest = lines.skip_while(|line| !line.trim_start().starts_with("hooks_dir")).collect::<Vec<_>>().join(" ");
    let list = rest.split_once('[')?.1.split_once(']')?.0;
    Some(list.split(['"', '\'']).skip(1).step_by(2).map(str::to_owned).collect())
}

/// Whether one of the folders has the file that names our hook; if not, what to type.
fn hook_file(folders: &[String]) -> Option<String> {
    let has = |folder: &String| Path::new(folder).join(HOOK_FILE).is_file();
    if folders.iter().any(has) {
        return None;
    }
    let installed = beside("../share/containers/oci/hooks.d").join(HOOK_FILE);
    let folder = folders.last().map_or(HOOKS_FOLDER, String::as_str);
    Some(match installed.canonicalize() {
        Ok(file) => format!("type: mkdir -p {folder} && ln -s {} {folder}/", file.display()),
        Err(_) => "guard-run isn't installed; type: make install PREFIX=/usr".into(),
    })
}

/// A file in this program's own folder.
fn beside(name: &str) -> PathBuf {
    let own = env::current_exe().and_then(|own| own.canonicalize()).unwrap_or_default();
    if own.as_os_str().as_bytes().is_empty() { name.into() } else { own.with_file_name(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hooks_folders_are_read_as_podman_reads_them() {
        let table = [
            ("", None),
            ("#hooks_dir = [\n#  \"/x\",\n#]\nruntime = \"crun\"\nvolumes = []\n", None),
            ("[engine]\nhooks_dir = [\"/a\", \"/b\"]\n", Some(vec!["/a", "/b"])),
            (
                "[engine]\n  hooks_dir=[\n  \"/a\", # one\n # \"/no\",\n  '/b',\n]\nx = [\"/c\"]\n",
                Some(vec!["/a", "/b"]),
            ),
            ("hooks_dir = []", Some(vec![])),
        ];
        for (text, folders) in table {
            let folders: Option<Vec<String>> = folders.map(|folders| folders.into_iter().map(String::from).collect());
            assert_eq!(hooks_dir(text), folders, "{text}");
        }
    }

    #[test]
    fn podmans_that_take_annotations_from_images_are_known() {
        for said in ["podman version 4.3.1 (/usr/bin/podman)", "podman version 3.4.4", "podman version 4.5.0", "podman"]
        {
            assert!(takes_images_annotations(said), "{said}");
        }
        for said in ["podman version 4.5.1", "podman version 4.10.0-rc1", "podman version 5.4.2 (/usr/bin/podman)"] {
            assert!(!takes_images_annotations(said), "{said}");
        }
    }

    #[test]
    fn a_version_names_its_program() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("odd");
        fs::write(&program, "#!/bin/sh\necho 'version 1'\necho more\n").unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(version("odd", &program), format!("odd version 1 ({})", program.display()));
        let missing = folder.path().join("missing");
        assert!(version("missing", &missing).contains("doesn't say its version: No such file"));
    }
}
