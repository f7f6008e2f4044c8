//! What is logged, where, and how it is shown.

mod file;
mod inside;
mod log;
mod output;
mod place;
mod shown;
mod suites;
mod unreported;
