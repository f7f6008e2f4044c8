//! Host names in rules.

mod host;
mod tls;
mod udp;
