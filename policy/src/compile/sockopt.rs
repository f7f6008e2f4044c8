//! Compiling the sockopts section.

use common::{
    Decision, MAX_RULES,
    decision::Verdicts,
    record::Hook,
    sockopt::{self, Request, Rule, Rules, Table, access},
};

use super::{NetTables, SocketTables};
use crate::{Action, Section, SockoptRule};

/// The compiled sockopts section.
#[derive(Debug)]
pub struct SockoptTables {
    /// What goes into read-only data, but for the rules.
    pub table: Table,
    /// The rules themselves, filled up with some that are never looked at.
    pub rules: Box<Rules>,
    /// The accesses of which any can be denied, as bits of [`access`].
    denied: u32,
}

impl SockoptTables {
    /// Compiles the section. `None` where nothing is to be asked about socket options.
    pub(super) fn compile(
        section: Option<&Section<SockoptRule>>,
        network: Option<&NetTables>,
        sockets: Option<&SocketTables>,
    ) -> Option<Self> {
        let keep_port_range = network.is_some_and(|network| network.binds_by_port);
        let keep_receivers = network.is_some_and(NetTables::asks_for_own);
        let keep_groups = network.map_or(0, NetTables::keeps_groups);
        let keep_errors = network.is_some_and(|network| network.judges_errors);
        let keep_headers = sockets.is_some_and(SocketTables::keeps_headers);
        let note_broadcast = network.is_some_and(|network| network.table.keeps_copies());
        let keep_routes = network.is_some_and(|network| network.table.tells_peers_apart());
        // Where broadcasts are noted, routes are kept off.
        let keeps = keep_port_range || keep_receivers || keep_groups != 0 || keep_errors || keep_headers || keep_routes;
        if section.is_none() && !keeps {
            return None;
        }
        let given: &[SockoptRule] = section.map_or(&[], |section| &section.rules);
        let mut rules = Box::new([Rule::NONE; MAX_RULES]);
        let mut denied = if keeps { access::SET } else { 0 };
        if section.is_some_and(|section| section.default == Action::Deny) {
            denied = access::ALL;
        }
        for (compiled, rule) in rules.iter_mut().zip(given) {
            *compiled = Rule::new(rule.level(), rule.option(), rule.accesses());
            if rule.action == Action::Deny {
                denied |= rule.accesses();
            }
        }
        let verdicts = section.map_or_else(|| Verdicts::new(true, []), Section::verdicts);
        let table = Table {
            verdicts,
            keep_port_range: u32::from(keep_port_range),
            keep_receivers: u32::from(keep_receivers),
            keep_groups,
            keep_errors: u32::from(keep_errors),
            keep_headers: u32::from(keep_headers),
            note_broadcast: u32::from(note_broadcast),
            keep_routes: u32::from(keep_routes),
            padding: 0,
        };
        Some(Self { table, rules, denied })
    }

    /// The hooks that are needed: a program that could only allow would be in the way of every such call for nothing.
    pub(super) fn hooks(&self) -> impl Iterator<Item = Hook> + use<> {
        let denied = self.denied;
        let hooks = [(access::GET, Hook::Getsockopt), (access::SET, Hook::Setsockopt)];
        hooks.into_iter().filter(move |(access, _)| denied & access != 0).map(|(_, hook)| hook)
    }

    /// Judges a request, as the kernel would.
    #[must_use]
    pub fn decide(&self, request: &Request) -> Decision {
        sockopt::decide(&self.table, &self.rules, request)
    }
}
