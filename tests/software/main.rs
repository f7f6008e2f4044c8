//! Programs that others wrote, under a guard as without it.

mod clients;
mod clients_unix;
mod documents;
mod learn;
mod learn_tools;
mod recipes;
mod servers;
mod servers_network;
mod suites;
mod tools;
mod tools_system;
