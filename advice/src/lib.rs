//! What guard-run advises: from what logs say and policies mean to what to write.
//!
//! Nothing here opens a file or needs a right: whoever calls hands over readers and documents.
#![forbid(unsafe_code)]

mod read;
mod request;

pub use read::{Head, ReadError, Record, read, read_from};
pub use request::{Peer, Request};
