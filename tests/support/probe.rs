//! Many attempts at once, by a small program whose source is in tests/probes: what the guard denies must fail with
//! EPERM, and everything else must go exactly as without the guard.

use std::ffi::OsStr;

use serde_json::Value;

use crate::{
    run::{PYTHON, Run, cgroup_only},
    running::Output,
};

/// Attempts of one kind, and what is expected of each under a policy. How an attempt is written says the source of the
/// program that makes it.
pub struct Probe {
    program: &'static str,
    arguments: Vec<String>,
    wrapper: Vec<String>,
    environment: Vec<(String, String)>,
    attempts: Vec<(String, bool)>,
    audited: u64,
    besides: u64,
}

impl Probe {
    fn new(program: &'static str) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            wrapper: Vec::new(),
            environment: Vec::new(),
            attempts: Vec::new(),
            audited: 0,
            besides: 0,
        }
    }

    /// Attempts to connect (tests/probes/network.py).
    #[must_use]
    pub fn network() -> Self {
        Self::new(concat!(include_str!("../probes/uring.py"), include_str!("../probes/network.py")))
    }

    /// Attempts to bind sockets (tests/probes/bind.py).
    #[must_use]
    pub fn bind() -> Self {
        Self::new(concat!(include_str!("../probes/uring.py"), include_str!("../probes/bind.py")))
    }

    /// Attempts to send datagrams (tests/probes/send.py).
    #[must_use]
    pub fn send() -> Self {
        Self::new(concat!(include_str!("../probes/uring.py"), include_str!("../probes/send.py")))
    }

    /// Attempts to ask a nameserver, and to connect to what it answers (tests/probes/name.py): the one of
    /// tests/probes/nameserver.py, at that address, which the addresses of its names lead to as well.
    #[must_use]
    pub fn name(nameserver: &str) -> Self {
        const UP: &str = "ip link set lo up; for net in 10.0.0.0/8 203.0.0.0/8; do ip route add local $net dev lo; done; \
                          ip -6 addr add 2001:db8::1 dev lo; ip -6 addr add 2001:db8::7 dev lo; ip -6 addr add fd00::53 dev lo; \
                          ip -6 route add local fd00::/8 dev lo; ip link add v0 type veth peer name v1; \
                          ip link set v0 up; ip link set v1 up; ip addr add 192.0.2.1/24 dev v0; exec \"$@\"";
        Self::new(concat!(include_str!("../probes/dns.py"), include_str!("../probes/name.py")))
            .environment("NS", nameserver)
            .through(&[
                "unshare",
                "--net",
                "sh",
                "-c",
                UP,
                "sh",
                PYTHON,
                "-c",
                include_str!("../probes/nameserver.py"),
                nameserver,
            ])
    }

    /// Attempts to make sockets and send packets by them (tests/probes/packet.py).
    #[must_use]
    pub fn packet() -> Self {
        Self::new(include_str!("../probes/packet.py"))
    }

    /// Attempts to have the kernel go elsewhere than where the hooks looked (tests/probes/straight.py).
    #[must_use]
    pub fn straight() -> Self {
        Self::new(include_str!("../probes/straight.py"))
    }

    /// Attempts to use device nodes (tests/probes/device.py).
    #[must_use]
    pub fn device() -> Self {
        Self::new(include_str!("../probes/device.py"))
    }

    /// Attempts to use kernel tunables (tests/probes/sysctl.py).
    #[must_use]
    pub fn sysctl() -> Self {
        Self::new(include_str!("../probes/sysctl.py"))
    }

    /// Attempts to read and set socket options (tests/probes/sockopt.py).
    #[must_use]
    pub fn sockopt() -> Self {
        Self::new(include_str!("../probes/sockopt.py"))
    }

    /// Attempts to reach Unix sockets (tests/probes/unix.py).
    #[must_use]
    pub fn unix() -> Self {
        Self::new(include_str!("../probes/unix.py"))
    }

    /// Adds an argument that is no attempt.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Runs it all by a wrapper ([`Run::through`]).
    #[must_use]
    pub fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
        self
    }

    /// Runs its wrapper by another one.
    #[must_use]
    pub fn within<A: AsRef<OsStr>>(mut self, wrapper: &[A]) -> Self {
        let outer = wrapper.iter().map(|word| word.as_ref().to_string_lossy().into_owned());
        self.wrapper.splice(0..0, outer);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds attempts that must be denied.
    #[must_use]
    pub fn denied<A: Into<String>>(mut self, attempts: impl IntoIterator<Item = A>) -> Self {
        self.attempts.extend(attempts.into_iter().map(|attempt| (attempt.into(), true)));
        self
    }

    /// Adds attempts that must go on.
    #[must_use]
    pub fn allowed<A: Into<String>>(mut self, attempts: impl IntoIterator<Item = A>) -> Self {
        self.attempts.extend(attempts.into_iter().map(|attempt| (attempt.into(), false)));
        self
    }

    /// Says how many of the attempts that go on must be recorded as audited.
    #[must_use]
    pub fn audited(mut self, count: u64) -> Self {
        self.audited = count;
        self
    }

    /// Says how many denials must be recorded that no attempt shows.
    #[must_use]
    pub fn besides(mut self, count: u64) -> Self {
        self.besides = count;
        self
    }

    /// The run that makes the attempts under the policy's programs alone.
    #[must_use]
    pub fn run(&self, policy: &Value) -> Run {
        let attempts = self.attempts.iter().map(|(attempt, _)| attempt);
        let arguments: Vec<&str> = self.arguments.iter().chain(attempts).map(String::as_str).collect();
        let run = Run::python(cgroup_only(policy), self.program, &arguments).through(&self.wrapper);
        self.environment.iter().fold(run, |run, (name, value)| run.environment(name, value))
    }

    /// Makes the attempts without the guard.
    ///
    /// # Panics
    ///
    /// When the program fails.
    #[must_use]
    pub fn run_bare(&self, policy: &Value) -> Output {
        self.run(policy).bare().success()
    }

    /// Makes the attempts under the policy's programs alone.
    ///
    /// # Panics
    ///
    /// When the program fails.
    #[must_use]
    pub fn run_guarded(&self, policy: &Value) -> Output {
        self.run(policy).output().success()
    }

    /// Makes the attempts without the guard, where none may fail with EPERM, and under it: under its programs alone, so that
    /// nothing else can be why an attempt fails.
    ///
    /// # Panics
    ///
    /// When one does not go as expected, or the log does not count exactly the denials that are expected.
    #[must_use]
    pub fn check(&self, policy: &Value) -> Output {
        let (bare, guarded) = (self.run_bare(policy), self.run_guarded(policy));
        let (controls, results): (Vec<&str>, Vec<&str>) =
            (bare.stdout.lines().collect(), guarded.stdout.lines().collect());
        assert_eq!((controls.len(), results.len()), (self.attempts.len(), self.attempts.len()), "{guarded:#?}");
        for (((attempt, denied), control), result) in self.attempts.iter().zip(controls).zip(results) {
            assert!(!control.ends_with(": EPERM"), "the control proves nothing: {control}");
            if *denied {
                assert_eq!(result, format!("{attempt}: EPERM"), "should have been denied by {policy}");
            } else {
                assert_eq!(result, control, "should have been allowed by {policy}");
            }
        }
        let denied = self.attempts.iter().map(|(_, denied)| u64::from(*denied)).sum::<u64>() + self.besides;
        let events: u64 = guarded.events().iter().filter_map(|event| event["count"].as_u64()).sum();
        let counted = (guarded.sum("denied"), guarded.sum("audited"), events);
        assert_eq!(counted, (denied, self.audited, denied + self.audited), "{:#}", guarded.log);
        guarded
    }
}
