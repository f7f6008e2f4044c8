//! What is run while the attacker replaces things.

use crate::{guarded::Starter, world::HOME};

/// A run of guard-run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub starter: Starter,
    /// Whether nothing that the attacker owns is named, so that the attacker must not be able to keep it from running.
    pub independent: bool,
    /// Whether the attacker has sockets where guard-run looks for those of services.
    pub sockets: bool,
    pub arguments: &'static [&'static str],
    pub environment: &'static [(&'static str, &'static str)],
    pub working: Option<&'static str>,
    pub stdin: Option<&'static str>,
    pub handed: Option<&'static str>,
}

const RUN: Run = Run {
    starter: Starter::Root,
    independent: false,
    sockets: false,
    arguments: &[],
    environment: &[],
    working: None,
    stdin: None,
    handed: None,
};

/// How many descriptors guarded commands are handed.
const PRESERVED: &str = "60";

/// Has a command of root's run as the attacker.
pub const AS_ATTACKER: &str = "--user=54321:54321";
/// The policy of root's runs.
pub const POLICY: &str = "--policy=/etc/guard-run/default-policy.json";
const LOG: &str = "--log=/run/w/out/log.json";

/// What is tried.
#[derive(Clone, Copy, Debug)]
pub enum Subject {
    /// guard-run, once.
    Run(Run),
    /// guard-hook: a container's createRuntime, with this annotation for its log, and what its end is told by, poststop or gc; then
    /// the next container of that id, whose log goes elsewhere.
    Container(&'static str, &'static str),
}

/// All that is tried, with a name for people.
pub const SUBJECTS: &[(&str, Subject)] = &[
    (
        "root runs a command beside the attacker's sockets",
        Subject::Run(Run { independent: true, sockets: true, arguments: &[POLICY, LOG], ..RUN }),
    ),
    (
        "root runs a command as the attacker beside the attacker's sockets",
        Subject::Run(Run { sockets: true, arguments: &[POLICY, LOG, AS_ATTACKER], ..RUN }),
    ),
    (
        "--log FILE in a folder of the attacker's",
        Subject::Run(Run { arguments: &[POLICY, "--log=/tmp/home/sub/log.json", AS_ATTACKER], ..RUN }),
    ),
    (
        "--log FILE, relative, in a folder of the attacker's",
        Subject::Run(Run { arguments: &[POLICY, "--log=sub/log.json"], working: Some(HOME), ..RUN }),
    ),
    (
        "--events FILE in a folder of the attacker's",
        Subject::Run(Run { arguments: &[POLICY, LOG, "--events=/tmp/home/sub/events.json", AS_ATTACKER], ..RUN }),
    ),
    (
        "--policy FILE in a folder of the attacker's",
        Subject::Run(Run { arguments: &["--policy=/tmp/home/sub/policy.json", LOG, AS_ATTACKER], ..RUN }),
    ),
    (
        "folders of the attacker's as standard input and by --preserve-fds",
        Subject::Run(Run {
            arguments: &[POLICY, LOG, "--preserve-fds", PRESERVED],
            stdin: Some("/tmp/home/dir"),
            handed: Some("/tmp/home/dir/inner"),
            ..RUN
        }),
    ),
    (
        "a working directory of the attacker's",
        Subject::Run(Run { arguments: &[POLICY, LOG, AS_ATTACKER], working: Some("/tmp/home/dir"), ..RUN }),
    ),
    (
        "sockets of the attacker's that the environment names",
        Subject::Run(Run {
            sockets: true,
            arguments: &[POLICY, LOG],
            environment: &[
                ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/tmp/home/bus"),
                ("TMUX", "/tmp/tmux-54321/default,1,0"),
            ],
            ..RUN
        }),
    ),
    (
        "the attacker runs a command beside the attacker's sockets",
        Subject::Run(Run { starter: Starter::Attacker, sockets: true, arguments: &[POLICY, "--log=-"], ..RUN }),
    ),
    (
        "the attacker runs a command, with a log and events",
        Subject::Run(Run {
            starter: Starter::Attacker,
            arguments: &[POLICY, "--log=/tmp/home/sub/log.json", "--events=/tmp/home/sub/events.json"],
            ..RUN
        }),
    ),
    (
        "the attacker runs a command, with a folder for logs and folders as descriptors",
        Subject::Run(Run {
            starter: Starter::Attacker,
            arguments: &["--policy=/tmp/home/sub/policy.json", "--preserve-fds", PRESERVED],
            environment: &[("XDG_STATE_HOME", "/tmp/home/sub")],
            stdin: Some("/tmp/home/dir"),
            handed: Some("/tmp/home/dir/inner"),
            ..RUN
        }),
    ),
    ("a container's log in a volume", Subject::Container("/run/w/volume/log.json", "poststop")),
    ("a container's log in a folder of a volume", Subject::Container("/run/w/volume/sub/log.json", "poststop")),
    (
        "a container's log in a folder of a volume, written by gc",
        Subject::Container("/run/w/volume/sub/log.json", "gc"),
    ),
    ("a container's logs in a folder of a volume", Subject::Container("/run/w/volume/sub", "poststop")),
];
