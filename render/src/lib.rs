//! What guard-run's logs say, for people and tools: text, Markdown, HTML, JUnit, SARIF and JSON.
//!
//! Logs become one [`Summary`], which each format shows in its own way. This crate opens no file: whoever calls hands over logs and
//! policies, and writes what comes out.
#![forbid(unsafe_code)]

mod gather;
mod github;
mod gitlab;
mod html;
mod junit;
mod markdown;
mod place;
mod run;
mod sarif;
mod summary;
mod text;
mod timeline;
mod words;

pub use gather::{GatherError, Gathered};
pub use github::annotations;
pub use gitlab::code_quality;
pub use html::html;
pub use junit::{JunitError, junit, junit_with};
pub use markdown::markdown;
pub use place::Root;
pub use run::{Guarding, Run};
pub use sarif::sarif;
pub use summary::{
    Denial, DenialCount, Destination, Flow, PolicyPart, Refusal, RulePart, Summary, TestCount, TestPart,
};
pub use timeline::Timeline;
