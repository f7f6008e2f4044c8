//! What the kernel under the tests is expected to lack. A test of something that it lacks checks that a policy which needs
//! it is refused, and says why; it never just passes.

use std::{env, process::Command, sync::LazyLock};

use crate::guard_run;

/// Where `make test-kernels` declares it, from tests/kernels.toml: words, separated by spaces.
const DECLARATION: &str = "GUARD_KERNEL_LACKS";

/// Something that not all kernels have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// The hooks `connect_unix` and `sendmsg_unix`.
    ConnectUnix,
    /// Programs of BPF LSM on a cgroup, which are called.
    BpfLsm,
    /// Scopes of Landlock: signals and abstract Unix sockets.
    LandlockScopes,
    /// Landlock's right to reach Unix sockets with paths.
    LandlockUnix,
}

impl Feature {
    /// The feature's word in the declaration, and what `guard-run doctor` calls it.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::ConnectUnix => ("connect_unix", "rules on Unix sockets, all alike, by address"),
            Self::BpfLsm => ("bpf_lsm", "rules on Unix sockets, path by path"),
            Self::LandlockScopes => ("landlock_scopes", "keeping a command inside"),
            Self::LandlockUnix => ("landlock_unix", "rules on Unix sockets, the command's own alone"),
        }
    }
}

/// Whether this kernel is expected to lack something: by the declaration, or, where nothing is declared because it is
/// whatever kernel a developer has, by what `guard-run doctor` says. Kernels of which more is known are in
/// tests/kernels.toml, so that nothing can go missing there unnoticed.
///
/// # Panics
///
/// When neither can be found out.
#[must_use]
pub fn lacks(feature: Feature) -> bool {
    static DOCTOR: LazyLock<String> = LazyLock::new(|| {
        let output = Command::new(guard_run()).arg("doctor").output().expect("guard-run doctor can be run");
        String::from_utf8(output.stdout).expect("doctor writes text")
    });
    let (word, what) = feature.names();
    if let Ok(declared) = env::var(DECLARATION) {
        return declared.split_whitespace().any(|lacking| lacking == word);
    }
    let line = DOCTOR.lines().find(|line| line.contains(what));
    !line.unwrap_or_else(|| panic!("guard-run doctor does not speak of {what:?}:\n{}", *DOCTOR)).starts_with("ok ")
}

/// Whether it is declared what this kernel lacks, so that it has all else.
#[must_use]
pub fn is_declared() -> bool {
    env::var_os(DECLARATION).is_some()
}

/// The release of this kernel.
///
/// # Panics
///
/// When /proc is not mounted.
#[must_use]
pub fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted").trim().to_owned()
}
