//! The guard for containers: what an OCI runtime calls when it makes one and when it has removed it.
#![forbid(unsafe_code)]

pub mod annotations;
