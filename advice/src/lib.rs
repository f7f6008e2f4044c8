//! What guard-run advises: from what logs say and policies mean to what to write.
//!
//! Nothing here opens a file or needs a right: anybody who calls hands over readers and documents.
#![forbid(unsafe_code)]

mod asked;
mod compare;
mod denials;
mod extent;
mod guard;
mod hardening;
mod judge;
mod layout;
mod learn;
mod merge;
mod nearest;
mod patch;
mod property;
mod read;
mod replay;
mod request;
mod rule;
mod suggest;
mod tidy;
mod why;

pub use compare::{Comparison, Difference, Extent, Network, Side, TooManyNames, compare, hidden};
pub use denials::Denials;
pub use guard::{Guard, GuardError};
pub use judge::{Judge, Judgement};
pub use learn::{Learner, Learnt, UnixSockets, trial};
pub use patch::PatchError;
pub use read::{DROPPED, Enforced, Head, ReadError, Record, read, read_from};
pub use replay::{Change, Replay, Replayed, Told};
pub use request::{Peer, Request};
pub use suggest::{SuggestError, Suggestion, Widen, policy_of, suggest};
pub use tidy::{Idle, Tidied, Usage, Why, tidy};
pub use why::{Denial, Explained, NearestRule, Report, Way, Who, Written, of_host, of_request};

#[cfg(test)]
#[path = "../../policy/tests/generate/mod.rs"]
mod generate;
#[cfg(test)]
#[path = "../../policy/tests/oracle/mod.rs"]
mod oracle;
#[cfg(test)]
mod tests;
