//! What keeps a command inside beside the rules: which part refused something, and why the part is there.

use policy::Part;
use report::Event;
use serde_json::Value;

/// Why a part is there, in a sentence.
pub(crate) const fn why(part: Part) -> &'static str {
    match part {
        Part::Privileges => {
            "a program with set-uid rights acts with more rights than the command, and can leave the guard for it"
        }
        Part::Namespaces => {
            "in namespaces and mounts of its own, a command has other files, devices and networks than the guard was made for"
        }
        Part::Bpf => "by bpf(2), programs can be taken off the cgroup, and others put there",
        Part::IoUring => "no filter of system calls sees what is asked for through io_uring",
        Part::Keys => "keyrings are shared with processes outside, which act on what is in them",
        Part::Terminal => "words put into a terminal's input are commands to the shell that reads it, outside",
        Part::Signals => "signals end or stop processes outside, guard-run's among them",
        Part::AbstractSockets => {
            "abstract sockets have no file rights, so anybody who serves there outside acts for anybody"
        }
        Part::Tracing => "who traces a process outside can have it do anything",
        Part::Ipc => "shared memory and queues are ways to processes outside that no rule sees",
        Part::KernelFiles => "files of /sys and /proc change the whole machine, or show what other processes do",
        Part::KernelHelpers => "the kernel starts these programs by itself, as root and outside of any guard",
        Part::Sysctls => "tunables change the whole machine",
        Part::Delegation => "services there run commands, processes or containers for who asks, outside of the guard",
        Part::Cgroups => "in cgroups of its own, a command could be where the guard's programs are not asked",
        Part::InheritedSockets => "for a socket that the command was handed, no rule holds",
    }
}

/// Why something is refused that a word of the process section allows, if that is known by its word.
pub(crate) fn of_word(key: &str, word: &str) -> Option<&'static str> {
    match key {
        "allow" => serde_json::from_value(word.into()).ok().map(why),
        "capabilities" => Some(CAPABILITY),
        "families" => Some(FAMILY),
        "architectures" => Some(ARCHITECTURE),
        _ => None,
    }
}

/// Why capabilities are dropped, and sockets of other families refused.
const CAPABILITY: &str = "a capability goes past the rights of files and processes, also outside; see capabilities(7)";
const FAMILY: &str = "no rule sees where such sockets send to";

/// Why programs of other architectures are ended.
const ARCHITECTURE: &str = "no filter knows what their system calls mean";

/// What the process section would have to say for something that it refuses. `None` where no policy allows it.
pub(crate) fn wanted(event: &Event) -> Option<Value> {
    let reason = event.cause.reason.as_deref()?;
    // As the log has it: a sentence, and what to write.
    let json: Value = serde_json::from_str(&reason[reason.find('{')?..]).ok()?;
    json.get("process").cloned()
}

/// Why what refused an event is there: the part, or the kind of right that it lacks.
pub(crate) fn explanation(event: &Event) -> Vec<(String, &'static str)> {
    if event.cause.rule != "/process" {
        return Vec::new();
    }
    if event.op == "sysctl" {
        return vec![("sysctls".to_owned(), why(Part::Sysctls))];
    }
    let Some(wanted) = wanted(event) else { return Vec::new() };
    let list = |key: &str| wanted.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let shown = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let parts = list("allow").into_iter().filter_map(|part| {
        let known: Part = serde_json::from_value(part.clone()).ok()?;
        Some((shown(&part), why(known)))
    });
    let capabilities = list("capabilities").into_iter().map(|one| (shown(&one), CAPABILITY));
    let families = list("families").into_iter().map(|one| (shown(&one), FAMILY));
    let architectures = list("architectures").into_iter().map(|one| (shown(&one), ARCHITECTURE));
    parts.chain(capabilities).chain(families).chain(architectures).collect()
}
