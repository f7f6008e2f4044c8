//! Sections other than the network's: Unix sockets, devices, tunables, socket options.

mod device;
mod include;
mod sockopt;
mod sysctl;
mod unix;
mod unix_own;
mod unix_paths;
