//! Host names in rules.

mod clients;
mod host;
mod tls;
mod udp;
