//! From the start of a command to its end, and what is left of it.

mod bare;
mod cache;
mod cache_folder;
mod crash;
mod hosts;
mod idle;
mod kill;
mod lifecycle;
mod limits;
mod signals;
mod terminal;
