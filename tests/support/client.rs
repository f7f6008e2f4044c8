//! Programs of others under a policy: what must go on as without it, and what must fail with the program's own error.

use std::ffi::OsStr;

use serde_json::Value;

use crate::{run::Run, running::Output};

/// Runs a command without the guard and under a policy that allows all it does. Both come out alike, and nothing is
/// recorded.
///
/// # Panics
///
/// When they don't, or it fails.
pub fn works<A: AsRef<OsStr>>(policy: &Value, command: impl IntoIterator<Item = A>) -> Output {
    let run = Run::new(policy, command);
    let (bare, guarded) = (run.bare().success(), run.output().success());
    assert_eq!((&guarded.stdout, &guarded.stderr), (&bare.stdout, &bare.stderr), "under {policy}");
    assert_eq!((guarded.denied(), denials(&guarded)), (0, Vec::new()), "under {policy}");
    guarded
}

/// Runs a command under a policy that denies something it needs. It ends with its own exit status and message, and the
/// log has these events ([`denials`]) only.
///
/// # Panics
///
/// When that isn't so.
pub fn denied<A: AsRef<OsStr>>(
    policy: &Value,
    command: impl IntoIterator<Item = A>,
    code: i32,
    message: &str,
    events: &[Value],
) -> Output {
    let output = Run::new(policy, command).output().exits(code);
    assert!(output.stdout.contains(message) || output.stderr.contains(message), "no {message:?}: {output:#?}");
    assert_eq!(denials(&output), events, "under {policy}");
    output
}

/// The events of a log without the times and the process, which differ from run to run, and the hook, which is the kernel's business.
///
/// # Panics
///
/// When there is no log.
#[must_use]
pub fn denials(output: &Output) -> Vec<Value> {
    let mut events = output.events().to_vec();
    for event in events.iter_mut().filter_map(Value::as_object_mut) {
        for key in ["time", "first", "last", "process", "hook"] {
            event.remove(key);
        }
    }
    events
}
