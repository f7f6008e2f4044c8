//! guard-run for ordinary users, by capabilities of its file.

mod leaf;
mod process;
mod unprivileged;
