//! The programs that the kernel starts by itself, outside and with all rights, when a process asks for something: for a kind of
//! socket whose module is not loaded, a key, or by crashing. `call_usermodehelper` starts them in the namespaces of process 1, so
//! nothing that holds for the command holds for them. A root command must not say what they do, and what they are.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use enforce::privilege;
use nix::sys::utsname::uname;

use super::place::Place;

/// Where modprobe(8) finds what to do for a module (modprobe.d(5)): an `install` line is a command.
const MODPROBE: [&str; 5] =
    ["/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"];

/// Where the modules of each kernel are, in a folder of its release.
const MODULES: [&str; 2] = ["/lib/modules", "/usr/lib/modules"];

/// What finds a key that a process asks for, also without a system call of its own: by a file on NFS (`call_sbin_request_key`).
const REQUEST_KEY: &str = "/sbin/request-key";

/// Which program it runs for which key (request-key.conf(5)).
const KEYS: [&str; 2] = ["/etc/request-key.d", "/etc/request-key.conf"];

/// The programs and what they are told by, to be made read-only. Who is not root can't write any of it.
pub(super) fn places() -> Vec<Place> {
    if !privilege::is_root() {
        return Vec::new();
    }
    let mut places = Vec::new();
    let loader = tunable("modprobe").and_then(|path| program(&path));
    let release = uname().map(|kernel| kernel.release().to_owned()).unwrap_or_default();
    let [modules, others] = MODULES.map(|folder| Path::new(folder).join(&release));
    for folder in MODPROBE.iter().map(PathBuf::from).chain([modules]) {
        // A folder that is missing is made, or else the command could make it. Where no module is loaded, nobody reads it.
        places.extend(if loader.is_some() { made(&folder) } else { existing(&folder) });
    }
    places.extend(existing(&others));
    places.extend(KEYS.iter().filter_map(|path| existing(Path::new(path))));
    places.extend(loader);
    places.extend(program(REQUEST_KEY));
    places.extend(tunable("core_pattern").as_deref().and_then(dump_handler).and_then(program));
    places.sort_unstable();
    places.dedup();
    places.into_iter().map(Place::from).collect()
}

/// What a file of /proc/sys/kernel says. `None` where this kernel has none of that name.
fn tunable(name: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).ok()?;
    Some(text.trim_end().to_owned())
}

/// The program that is given what a crashed process leaves (core(5)).
fn dump_handler(pattern: &str) -> Option<&str> {
    pattern.strip_prefix('|')?.split_whitespace().next()
}

fn program(path: &str) -> Option<PathBuf> {
    existing(Path::new(path)).filter(|path| path.is_file())
}

/// The real path, by which two names of one folder are found to be the same. Most are not there, which takes one system call to find
/// out, and not one for each folder on the way.
fn existing(path: &Path) -> Option<PathBuf> {
    path.exists().then(|| path.canonicalize().ok()).flatten()
}

/// The real path of a folder, which is made if it is missing. `None` where nobody can make it. Where it could not be made for
/// another reason, mounting it fails, and with it the run.
fn made(path: &Path) -> Option<PathBuf> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
    let is_impossible = made.is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem);
    existing(path).or_else(|| (!is_impossible).then(|| path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_for_dumps_is_the_first_word_after_a_bar() {
        let table = [
            ("|/usr/lib/systemd/systemd-coredump %P %u", Some("/usr/lib/systemd/systemd-coredump")),
            ("|/bin/handler", Some("/bin/handler")),
            ("core.%p", None),
            ("|", None),
        ];
        for (pattern, expected) in table {
            assert_eq!(dump_handler(pattern), expected, "{pattern}");
        }
    }
}
