//! The command line of runc, crun and youki, as far as it says which bundle a container is made of, and where errors go.
//!
//! runc parses it with urfave/cli, crun with argp, youki with clap. All three take `--name value` and `--name=value`, and
//! `-b value`. What they understand differently (`-bundle` is `--bundle` for runc and `-b undle` for crun), or abbreviate, is
//! refused: engines write none of it.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

/// The options before the subcommand that have a value, of all three runtimes.
const GLOBAL_VALUES: [&str; 9] =
    ["--log", "-l", "--log-format", "--log-level", "--root", "-r", "--criu", "--rootless", "--cgroup-manager"];

/// Global options of the runtimes that have no value.
const GLOBAL_FLAGS: [&str; 11] =
    ["--debug", "--systemd-cgroup", "-s", "--version", "-v", "-V", "--help", "-h", "-?", "--usage", "--"];

/// The options of `create`, `run` and `restore` that have a value.
const VALUES: [&str; 17] = [
    "--bundle",
    "-b",
    "--config",
    "-f",
    "--console-socket",
    "-c",
    "--pid-file",
    "-p",
    "--pidfd-socket",
    "--preserve-fds",
    "--image-path",
    "--work-path",
    "--parent-path",
    "--manage-cgroups-mode",
    "--empty-ns",
    "--lsm-profile",
    "--lsm-mount-context",
];

/// What the file that describes a container is called in a bundle.
const CONFIG: &str = "config.json";

/// Why it can't be told which bundle is meant.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ArgumentsError {
    /// An option before the subcommand, so that it isn't certain what the subcommand is.
    #[error("unknown option {0:?}: whether the next argument is its value can't be told; write OPTION=VALUE")]
    Unknown(OsString),
    /// Understood differently by different runtimes.
    #[error("{0:?} can be understood in more than one way; write --bundle DIR or --config FILE")]
    Ambiguous(OsString),
}

/// What the engine wants to be told of errors, beside standard error.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The file that they are appended to.
    pub file: Option<PathBuf>,
    /// Whether as JSON.
    pub json: bool,
}

/// A container that is to be made.
#[derive(Debug, PartialEq, Eq)]
pub struct Order {
    /// The file that describes it.
    pub config: PathBuf,
    /// Whether that is the bundle's own.
    pub bundled: bool,
    /// Whether from a checkpoint.
    pub restores: bool,
}

/// A runtime's command line.
#[derive(Debug)]
pub struct CommandLine<'a> {
    /// Where errors go.
    pub log: Log,
    /// An option before the subcommand that isn't known.
    unknown: Option<&'a OsStr>,
    /// The subcommand and its arguments.
    rest: &'a [OsString],
}

impl<'a> CommandLine<'a> {
    /// Reads what is before the subcommand. `arguments` are those after the program's name.
    pub fn parse(arguments: &'a [OsString]) -> Self {
        let mut parsed = Self { log: Log::default(), unknown: None, rest: arguments };
        while let Some((argument, rest)) = parsed.rest.split_first() {
            if !argument.as_bytes().starts_with(b"-") {
                break;
            }
            parsed.rest = rest;
            let (name, mut value) = split(argument);
            if value.is_none() && known(&GLOBAL_VALUES, name) {
                value = rest.first().map(OsString::as_os_str);
                parsed.rest = rest.get(1..).unwrap_or_default();
            } else if value.is_none() && !known(&GLOBAL_FLAGS, name) {
                parsed.unknown = Some(argument);
            }
            match (name.to_str(), value) {
                (Some("--log" | "-l"), Some(value)) => parsed.log.file = log_file(value),
                (Some("--log-format"), Some(value)) => parsed.log.json = value == "json",
                _ => {}
            }
        }
        parsed
    }

    /// Which container it makes, if any.
    ///
    /// # Errors
    ///
    /// When it may make one, and which isn't certain.
    pub fn order(&self) -> Result<Option<Order>, ArgumentsError> {
        let makes = |argument: &OsString| argument == "create" || argument == "run" || argument == "restore";
        if let Some(unknown) = self.unknown {
            // Its value may have been taken for the subcommand.
            let unclear = self.rest.iter().any(makes);
            return if unclear { Err(ArgumentsError::Unknown(unknown.into())) } else { Ok(None) };
        }
        match self.rest {
            [subcommand, rest @ ..] if makes(subcommand) => {
                let (config, bundled) = config(rest)?;
                Ok(Some(Order { config, bundled, restores: subcommand == "restore" }))
            }
            _ => Ok(None),
        }
    }
}

/// The file that describes the container, from the arguments of a subcommand that makes one, and whether it is the bundle's own.
fn config(arguments: &[OsString]) -> Result<(PathBuf, bool), ArgumentsError> {
    let (mut bundle, mut config) = (Path::new("."), OsStr::new(CONFIG));
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            break;
        }
        let (name, mut value) = split(argument);
        if ambiguous(argument) {
            return Err(ArgumentsError::Ambiguous(argument.clone()));
        }
        if value.is_none() && known(&VALUES, name) {
            value = rest.next().map(OsString::as_os_str);
        }
        match (name.to_str(), value) {
            (Some("--bundle" | "-b"), Some(value)) => bundle = Path::new(value),
            (Some("--config" | "-f"), Some(value)) => config = value,
            _ => {}
        }
    }
    // As crun has it: the usual name is in the bundle, any other one is where the caller is.
    Ok(if config == CONFIG { (bundle.join(CONFIG), true) } else { (config.into(), false) })
}

/// Whether an option may be another spelling of one that says where the bundle is: an abbreviation, a long name after a
/// single hyphen, or a value that follows at once.
fn ambiguous(argument: &OsStr) -> bool {
    let (name, _) = split(argument);
    let name = name.as_bytes();
    match name.strip_prefix(b"--") {
        Some(long) => {
            !long.is_empty()
                && long != b"bundle"
                && long != b"config"
                && (b"bundle".starts_with(long) || b"config".starts_with(long))
        }
        None => {
            (name.len() > 2 && name.starts_with(b"-"))
                || (argument.len() > 2
                    && (argument.as_bytes().starts_with(b"-b") || argument.as_bytes().starts_with(b"-f")))
        }
    }
}

/// Divides `--name=value`.
fn split(argument: &OsStr) -> (&OsStr, Option<&OsStr>) {
    let bytes = argument.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(end) if bytes.starts_with(b"-") => {
            (OsStr::from_bytes(&bytes[..end]), Some(OsStr::from_bytes(&bytes[end + 1..])))
        }
        _ => (argument, None),
    }
}

fn known(names: &[&str], name: &OsStr) -> bool {
    names.iter().any(|known| name == *known)
}

/// The file that `--log` names. crun also knows `file:PATH`, and logs that aren't files.
fn log_file(value: &OsStr) -> Option<PathBuf> {
    let bytes = value.as_bytes();
    if bytes.is_empty() || bytes.starts_with(b"journald:") || bytes.starts_with(b"syslog:") {
        return None;
    }
    Some(OsStr::from_bytes(bytes.strip_prefix(b"file:").unwrap_or(bytes)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn order(line: &str) -> Result<Option<Order>, ArgumentsError> {
        CommandLine::parse(&words(line)).order()
    }

    #[test]
    fn the_bundle_is_found_in_what_engines_write() {
        let table = [
            // containerd's shim
            (
                "--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json --systemd-cgroup create --bundle /b \
                 --pid-file /b/init.pid --console-socket /tmp/pty.sock id",
                "/b/config.json",
            ),
            // conmon, for podman and CRI-O
            ("--cgroup-manager cgroupfs create --bundle /b --pid-file /b/pidfile id", "/b/config.json"),
            (
                "--root=/run/runc --systemd-cgroup create --bundle /b --pid-file /b/pidfile --no-pivot id",
                "/b/config.json",
            ),
            // people
            ("run id", "./config.json"),
            ("run -b b id", "b/config.json"),
            ("run --bundle=b id", "b/config.json"),
            ("--debug run -d --bundle b --keep id", "b/config.json"),
            ("--rootless true run -b b id", "b/config.json"),
            ("--log-level debug run -b b id", "b/config.json"),
            ("-r /run/youki -l /log -s create -c /sock -p /pid -b b id", "b/config.json"),
            ("run id -b b", "b/config.json"),
            ("run --config other.json -b b id", "other.json"),
            ("run -f config.json -b b id", "b/config.json"),
            // An id that is also the name of a subcommand; values that look like options or subcommands.
            ("create -b b create", "b/config.json"),
            ("--root run create --pid-file -b -b b id", "b/config.json"),
            // What isn't known yet, where it can't hide a bundle.
            ("--new-option=1 create -b b --another-one x --third id", "b/config.json"),
            ("create -b a --bundle b id", "b/config.json"),
        ];
        for (line, config) in table {
            let bundled = config.ends_with("config.json");
            assert_eq!(order(line), Ok(Some(Order { config: config.into(), bundled, restores: false })), "{line}");
        }
        let restored = Order { config: "b/config.json".into(), bundled: true, restores: true };
        assert_eq!(order("restore --image-path -b --bundle b id"), Ok(Some(restored)));
    }

    #[test]
    fn other_subcommands_are_the_runtimes_own() {
        for line in [
            "",
            "--version",
            "features",
            "--root create state id",
            "delete --force create-x",
            "start create",
            "exec -b -x create ls",
            "--unknown list",
            "update -bundle",
        ] {
            assert_eq!(order(line), Ok(None), "{line}");
        }
    }

    #[test]
    fn what_can_be_understood_in_two_ways_is_refused() {
        for (line, option) in [
            ("create -bundle b id", "-bundle"),
            ("create -bDIR id", "-bDIR"),
            ("create -b=DIR id", "-b=DIR"),
            ("create -fFILE id", "-fFILE"),
            ("create --bun b id", "--bun"),
            ("create --bun=b id", "--bun=b"),
            ("create --conf=b id", "--conf=b"),
            ("create -db b id", "-db"),
        ] {
            assert_eq!(order(line), Err(ArgumentsError::Ambiguous(option.into())), "{line}");
        }
        for line in ["--new create -b b id", "--new value run id", "--new --debug x restore id", "-x create id"] {
            let option = line.split(' ').next().unwrap();
            assert_eq!(order(line), Err(ArgumentsError::Unknown(option.into())), "{line}");
        }
    }

    #[test]
    fn errors_go_where_the_engine_looks_for_them() {
        let log = |line: &str| CommandLine::parse(&words(line)).log;
        let file = |path: &str, json| Log { file: Some(path.into()), json };
        assert_eq!(log("create id"), Log::default());
        assert_eq!(log("--log /l --log-format json create --log /other id"), file("/l", true));
        assert_eq!(log("--log-format=json --log=/l create id"), file("/l", true));
        assert_eq!(log("--log-format text --log file:/l create id"), file("/l", false));
        assert_eq!(log("--log journald:x --log-format json create id"), Log { file: None, json: true });
        assert_eq!(log("--log"), Log::default());
    }
}
