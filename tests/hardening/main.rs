//! What keeps a command inside beside the programs on its cgroup.

mod covered;
mod diagnose;
mod harden;
mod interlock;
mod needs;
mod nested;
mod proc;
mod silent;
