//! Host names in rules.

mod udp;
