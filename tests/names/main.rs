//! Host names in rules.

mod host;
mod udp;
