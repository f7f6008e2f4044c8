//! A log is read back as what was written: nothing in it is lost, and nothing is added.

use report::{CommandRun, ContainerRun, Guarded, Log, Subject};
use serde_json::Value;

const COMMAND: &str = include_str!("logs/command.json");
const CONTAINER: &str = include_str!("logs/container.json");

fn read_back<G: Guarded + std::fmt::Debug>(text: &str) -> Log<G> {
    let log: Log<G> = serde_json::from_str(text).unwrap();
    let written = serde_json::to_value(&log).unwrap();
    assert_eq!(written, serde_json::from_str::<Value>(text).unwrap());
    log
}

#[test]
fn a_commands_log() {
    let log = read_back::<CommandRun>(COMMAND);
    let is_there = |kind: fn(&Subject) -> bool| log.events.iter().any(|event| kind(&event.subject));
    assert!(is_there(|subject| matches!(subject, Subject::Network(_))));
    assert!(is_there(|subject| matches!(subject, Subject::Unix(_))));
    assert!(is_there(|subject| matches!(subject, Subject::Device(_))));
    assert!(is_there(|subject| matches!(subject, Subject::Sysctl(_))));
    assert!(is_there(|subject| matches!(subject, Subject::Sockopt(_))));
    assert!(is_there(|subject| matches!(subject, Subject::Call(_))));
    assert_eq!(log.enforced.measures.hardening.observed.map(|observed| observed.refused), Some(1));
    assert_eq!(log.flows.unwrap().len(), 1);
}

#[test]
fn a_containers_log() {
    let log = read_back::<ContainerRun>(CONTAINER);
    assert_eq!(log.guarded.container.id, "c1");
    assert!(log.enforced.measures.accepted_capabilities.contains("CAP_NET_RAW"));
}

#[test]
fn what_a_log_lacks_is_an_error() {
    let mut log: Value = serde_json::from_str(COMMAND).unwrap();
    log["events"][0].as_object_mut().unwrap().remove("count");
    let error = serde_json::from_value::<Log<CommandRun>>(log).unwrap_err().to_string();
    assert!(error.contains("count"), "{error}");
}
