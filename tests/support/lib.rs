//! What the tests share: running `guard-run` and looking at what it left ([`Run`]), many attempts at once ([`Probe`]),
//! servers on loopback addresses ([`TcpServer`], [`UdpServer`], [`Daemon`] for those of others), and the cgroup v2 hierarchy ([`cgroup2_mount`],
//! [`leaves_of`]).
//!
//! A test that can't run fails. Tests run at the same time as others, also of other programs, so each looks only at its
//! own leaf, files and ports; and each waits for events ([`eventually`]), never for some time to pass.

pub mod bpf;
pub mod cache;
mod cgroup;
mod client;
pub mod container;
mod daemon;
pub mod kernel;
pub mod ordinary;
mod probe;
mod run;
mod running;
mod server;
mod task;
pub mod terminal;
pub mod unix;
mod yard;

use std::{
    thread,
    time::{Duration, Instant},
};

pub use cache::Cache;
pub use cgroup::{assert_no_leaf, cgroup2_mount, kill_leaves, leaves_of};
pub use client::{denials, denied, works};
pub use daemon::{Daemon, Transport, fresh_address, is_bound, nginx};
pub use ordinary::{become_user, file_capabilities, give_capabilities};
pub use probe::Probe;
pub use run::{LIMIT, PYTHON, PolicyText, Run, cgroup_only, guard_run};
pub use running::{Output, Running};
pub use server::{TcpServer, UdpServer};
pub use task::Task;
pub use yard::{Yard, cgroup_of, entering, is_alive, is_stopped, processes_in, processes_with_argument, status_of};

/// Waits until something holds, by looking again and again.
///
/// # Panics
///
/// When it doesn't within [`LIMIT`]; `what` says then what was waited for.
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    assert!(eventually_within(LIMIT, holds), "waited {LIMIT:?} in vain until {what}");
}

/// Waits until something holds, by looking again and again, at the most for so long. Whether it does.
#[must_use]
pub fn eventually_within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
