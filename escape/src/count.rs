//! The third oracle: every refusal that programs saw is counted in guard-run's log, and no other.

use serde_json::Value;

use crate::{judge::Finding, session::Tally, wire::Refusal};

/// Hooks, and the refusals that their denials are seen as.
const HOOKS: [(&[&str], Refusal); 10] = [
    (&["connect4", "connect6"], Refusal::Connect),
    (&["bind4", "bind6"], Refusal::Bind),
    (&["sendmsg4", "sendmsg6"], Refusal::Send),
    (&["sock_create"], Refusal::Socket),
    (&["setsockopt"], Refusal::Set),
    (&["getsockopt"], Refusal::Get),
    (&["device"], Refusal::Device),
    (&["sysctl"], Refusal::Sysctl),
    (&["connect_unix"], Refusal::ConnectUnix),
    (&["sendmsg_unix"], Refusal::SendUnix),
];

/// What is found where datagrams of those outside are dropped without a word.
pub const UNCOUNTED: &str = "datagrams that don't come in are not counted: ingress";

/// How many more listeners the hook may count in a session than programs tell of. In sessions of an ordinary user's it has been one; by which call is not
/// known (seed 0xac6c28f5d75017c5).
const UNTOLD: u64 = 1;

/// How many datagrams come too late for their program to receive them, on a busy machine.
const LATE: u64 = 8;

/// The most packets that are refused between the reading of counters and that of events.
const MEANWHILE: u64 = 8;

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// What doesn't agree.
pub fn miscounted(tally: &Tally, log: &Value) -> Vec<Finding> {
    let mut found = Vec::new();
    let hooks = log["enforced"]["hooks"].as_array().cloned().unwrap_or_default();
    let sum = |names: &[&str], what: &str| -> u64 {
        let named = |hook: &&Value| names.is_empty() || hook["hook"].as_str().is_some_and(|name| names.contains(&name));
        hooks.iter().filter(named).map(|hook| number(&hook[what])).sum()
    };
    let events: u64 = log["events"].as_array().into_iter().flatten().map(|event| number(&event["count"])).sum();
    let unrecorded = sum(&[], "unrecorded");
    // A connect(2) by UDP that looks as if it sorted addresses for TCP is counted, and no event.
    let denied = sum(&[], "denied").saturating_sub(sum(&[], "unreported"));
    // Counters are read before events, and packets may come for sockets that live on meanwhile.
    let counted = denied..=denied + MEANWHILE;
    if !counted.contains(&(events + unrecorded)) || number(&log["lost"]) != unrecorded {
        found.push(Finding {
            class: String::from("events don't add up"),
            detail: format!("{denied} denied, {events} in events, {unrecorded} unrecorded, lost {}", log["lost"]),
        });
    }
    let ingress = sum(&["ingress"], "denied");
    let has = |names: &[&str]| hooks.iter().any(|hook| hook["hook"].as_str().is_some_and(|name| names.contains(&name)));
    if has(&["ingress"]) && ingress + LATE < tally.missing {
        found.push(Finding {
            class: String::from(UNCOUNTED),
            detail: format!("{ingress} counted, {} did not come in", tally.missing),
        });
    }
    // Nobody is told of that denial: what nobody reaches listens all the same.
    let listened = sum(&["sock_ops"], "denied");
    let (least, most) = tally.listened;
    if has(&["sock_ops"]) && (listened < least || listened > most + UNTOLD) {
        found.push(Finding {
            class: String::from("listeners not counted exactly: sock_ops"),
            detail: format!("{listened} counted, {least} to {most} that are denied"),
        });
    }
    for (names, kind) in HOOKS {
        // Where there is no rule on Unix sockets, Landlock refuses abstract names; where BPF LSM judges them, their names are found first.
        if matches!(kind, Refusal::ConnectUnix | Refusal::SendUnix) && !has(names) {
            continue;
        }
        let counted = sum(names, "denied");
        let (mut least, mut most) = (tally.least[kind as usize], tally.most[kind as usize]);
        if kind == Refusal::Set {
            most += tally.most[Refusal::SetUnclear as usize];
        }
        if matches!(kind, Refusal::Send | Refusal::Connect) {
            // Of several messages, the last was refused.
            most += tally.most[Refusal::Unclear as usize];
        }
        if kind == Refusal::Send {
            // What leaves is judged again. A connect sees nothing of that.
            least = least.saturating_sub(sum(&["egress"], "denied"));
        }
        if counted < least || counted > most {
            found.push(Finding {
                class: format!("refusals not counted exactly: {}", names.join(", ")),
                detail: format!("{counted} counted, {least} to {most} seen"),
            });
        }
    }
    found
}
