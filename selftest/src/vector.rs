//! Ways out: what each of them does, under which policy, and what stops it.

use policy::Part;
use serde::Serialize;

use crate::{
    attempt::{Outcome, Scene},
    handed::Handed,
};

/// What an attempt does.
pub type Attempt = fn(&Scene) -> Outcome;

/// A way out.
#[derive(Clone, Copy, Debug)]
pub struct Vector {
    /// The vector's name in its family.
    pub name: &'static str,
    /// What it does, in a line.
    pub shows: &'static str,
    pub policy: &'static str,
    pub attempt: Attempt,
    pub control: Control,
    pub evidence: Evidence,
    pub layer: Layer,
    pub part: Option<Part>,
    pub handed: Option<Handed>,
    pub outsider: bool,
    pub restarts: bool,
    pub comes: Comes,
    pub caller: Caller,
    pub place: Place,
    pub raw: bool,
}

impl Vector {
    pub const fn new(name: &'static str, shows: &'static str, policy: &'static str, attempt: Attempt) -> Self {
        Self {
            name,
            shows,
            policy,
            attempt,
            control: Control::Bare,
            evidence: Evidence::Heard,
            layer: Layer::Hook,
            part: None,
            handed: None,
            outsider: false,
            restarts: false,
            comes: Comes::Nothing,
            caller: Caller::Root,
            place: Place::Here,
            raw: false,
        }
    }

    pub const fn under(mut self, policy: &'static str) -> Self {
        self.policy = policy;
        self
    }

    pub const fn control(mut self, control: Control) -> Self {
        self.control = control;
        self
    }

    pub const fn seen_by(mut self, evidence: Evidence) -> Self {
        self.evidence = evidence;
        self
    }

    pub const fn stopped_by(mut self, layer: Layer) -> Self {
        self.layer = layer;
        self
    }

    /// Declares that the vector is a way out where the policy allows this part.
    pub const fn unless(mut self, part: Part) -> Self {
        self.part = Some(part);
        self
    }

    pub const fn handed(mut self, handed: Handed) -> Self {
        self.handed = Some(handed);
        self
    }

    /// The service that [`crate::server::BUS`] is begins anew while the attempt runs.
    pub const fn restarting(mut self) -> Self {
        self.restarts = true;
        self
    }

    /// Somebody outside knocks all the time, at the port that the scene calls served.
    pub const fn knocked_at(mut self) -> Self {
        self.comes = Comes::Knocks;
        self
    }

    /// The attempt is an ordinary user's.
    pub const fn by_user(mut self) -> Self {
        self.caller = Caller::User;
        self
    }

    /// Somebody outside says the secret all the time, in ICMP errors for the port that the scene calls served.
    pub const fn told_by_errors(mut self) -> Self {
        self.comes = Comes::Errors;
        self
    }

    /// Somebody outside takes the port of the peer of the socket at the port that the scene calls served, and says the secret from there.
    pub const fn inherited(mut self) -> Self {
        self.comes = Comes::Heir;
        self
    }

    /// Somebody outside asks that port for connections all the time, and says the secret by that.
    pub const fn called(mut self) -> Self {
        self.comes = Comes::Caller;
        self
    }

    /// The vector is made in the network namespace of a [`crate::wire::Wire`].
    pub const fn on_the_wire(mut self) -> Self {
        self.place = Place::Wire;
        self
    }

    /// The command keeps the capability for raw sockets, and the policy allows these.
    pub const fn with_raw_sockets(mut self) -> Self {
        self.raw = true;
        self
    }

    pub const fn with_outsider(mut self) -> Self {
        self.outsider = true;
        self
    }
}

/// What the attempt is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// A process like any other.
    Bare,
    /// One in a cgroup with the policy's programs on it, and no other measure: where it is about doing away with these.
    Guard,
    /// One whose parent stands in for the launcher.
    StandIn,
}

/// What comes to the port that the scene calls served, all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comes {
    /// Nothing.
    Nothing,
    /// Somebody knocks, by UDP and TCP.
    Knocks,
    /// The secret, in ICMP errors.
    Errors,
    /// The secret, from the port of the peer, when that has gone.
    Heir,
    /// The secret, in packets that ask for a connection.
    Caller,
}

/// Who makes an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Root.
    Root,
    /// An ordinary user.
    User,
}

/// Where an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the self-test's own network namespace.
    Here,
    /// In that of a [`crate::wire::Wire`].
    Wire,
}

/// How it is seen that an attempt got out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Somebody outside has heard from it.
    Heard,
    /// The attempt knows the secret.
    Told,
    /// The attempt knows the value of the tunable that is hidden.
    Tunable,
    /// The memory of the process outside is changed.
    Changed,
    /// The process outside has ended.
    Killed,
    /// The attempt's own word: bytes of a device were read, or the kernel let it have something.
    Word,
}

/// What stops an attempt. Denials by hooks are in the log; the others are named by the vectors, with the error seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// A program of the guard's.
    Hook,
    /// The filter on system calls.
    Seccomp,
    /// Capabilities that were dropped.
    Capabilities,
    /// Landlock's scopes.
    Landlock,
    /// The command's own mounts.
    Mounts,
    /// The command's own IPC namespace.
    IpcNamespace,
    /// Executing a program gives no privileges.
    NoNewPrivs,
    /// Descriptors are not passed on.
    Closed,
}

impl Layer {
    pub fn name(self) -> &'static str {
        match self {
            Self::Hook => "guard",
            Self::Seccomp => "seccomp",
            Self::Capabilities => "capabilities",
            Self::Landlock => "landlock",
            Self::Mounts => "mounts",
            Self::IpcNamespace => "ipc namespace",
            Self::NoNewPrivs => "no_new_privs",
            Self::Closed => "closed descriptors",
        }
    }
}
