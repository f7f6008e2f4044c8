//! Where the real runtime and the hook are.

use std::{
    env,
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

use crate::settings::FILE;

/// What a name that chooses a runtime begins with; the runtime's own name follows.
const PREFIX: &[u8] = b"guard-runtime-";

/// The runtimes that are looked for when the name chooses none.
const RUNTIMES: [&str; 3] = ["runc", "crun", "youki"];

/// The annotation by which crun and youki have something else than the kernel execute a container's program.
pub const HANDLER: &str = "run.oci.handler";

/// Those that do so in the container's own process. Others are virtual machines (krun), or not known.
const HANDLERS: [&str; 8] = ["wasm", "wasmedge", "wasmer", "wasmtime", "wamr", "spin", "mono", "dotnet"];

/// Where to look after PATH, which some engines leave out of a runtime's environment.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The hook's name. It is in the same folder as this program.
const HOOK: &str = "guard-hook";

/// Why one wasn't found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// There is no such runtime.
    #[error("found no {0} in PATH; install one")]
    NoRuntime(String),
    /// There is no hook.
    #[error("{}: {source}; it belongs into the same folder as guard-runtime", path.display())]
    NoHook {
        /// Where it should be.
        path: PathBuf,
        /// What there is instead.
        source: io::Error,
    },
    /// Nobody has said that this runtime's containers are in cgroups of this kernel's.
    #[error(
        "{} is not known to run its containers' processes in their cgroups, on this kernel, and to call hooks (virtual machines and \
         gVisor don't): a guard would hold nothing. Known are {}; root can add others in {FILE} (\"runtimes\")",
        .0.display(), RUNTIMES.join(", ")
    )]
    Unknown(PathBuf),
    /// The kernel doesn't say which file this program is.
    #[error("/proc/self/exe: {0}")]
    Own(#[from] io::Error),
}

/// The real runtime. Called as `guard-runtime-NAME`, it is NAME; otherwise the first one that there is. The name is all that
/// every engine lets one choose: containerd and CRI-O know a path and no arguments.
pub fn runtime(own_name: &Path) -> Result<PathBuf, FindError> {
    let own = env::current_exe()?.canonicalize()?;
    let chosen = own_name.file_name().and_then(|name| name.as_bytes().strip_prefix(PREFIX));
    let names = match chosen {
        Some(name) => vec![Path::new(OsStr::from_bytes(name))],
        None => RUNTIMES.map(Path::new).to_vec(),
    };
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).chain(FOLDERS.map(PathBuf::from)).collect();
    let candidates = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    // A runtime's name may be a link to this program.
    let other = |file: &PathBuf| file.canonicalize().is_ok_and(|file| file != own && file.is_file());
    let usable = |file: &PathBuf| file.is_absolute() && access(file, AccessFlags::X_OK).is_ok() && other(file);
    candidates.into_iter().find(usable).ok_or_else(|| {
        FindError::NoRuntime(names.iter().map(|name| name.display().to_string()).collect::<Vec<_>>().join(", "))
    })
}

/// Sees that containers of a runtime can be guarded: it is one that has been tried, or one of `more`, which root has named.
pub fn check(runtime: &Path, more: &[String]) -> Result<(), FindError> {
    let name = runtime.file_name().unwrap_or_default();
    if RUNTIMES.iter().any(|known| name == *known) || more.iter().any(|known| name == known.as_str()) {
        return Ok(());
    }
    Err(FindError::Unknown(runtime.to_owned()))
}

/// Sees that a container can be guarded for which an annotation ([`HANDLER`]) names this.
///
/// # Errors
///
/// When that is none that is known, nor one of `more`.
pub fn check_handler(handler: Option<&str>, more: &[String]) -> Result<(), FindError> {
    handler.filter(|handler| !HANDLERS.contains(handler)).map_or(Ok(()), |handler| check(Path::new(handler), more))
}

/// The hook, by its absolute path, as config.json wants it.
pub fn hook() -> Result<PathBuf, FindError> {
    let path = env::current_exe()?.canonicalize()?.with_file_name(HOOK);
    match access(&path, AccessFlags::X_OK) {
        Ok(()) => Ok(path),
        Err(source) => Err(FindError::NoHook { path, source: source.into() }),
    }
}
