//! Compiling the sockets section, and what the network section adds to it.

use common::{
    Decision, MAX_RULES,
    decision::Verdicts,
    socket::{self, Request, Rule, Rules, Table, kind, protocol, unjudged},
};

use super::NetTables;
use crate::{Action, Family, Rule as _, Section, SocketProtocol, SocketRule, SocketType};

/// The compiled sockets section.
#[derive(Debug)]
pub struct SocketTables {
    /// What goes into read-only data, but for the rules.
    pub table: Table,
    /// The rules, filled up with some that are never looked at.
    pub rules: Box<Rules>,
}

impl SocketTables {
    /// Compiles the section. `None` where nothing is to be asked about sockets.
    pub(super) fn compile(
        section: Option<&Section<SocketRule>>,
        network: Option<&NetTables>,
        flows: bool,
    ) -> Option<Self> {
        let refused = network.map_or(0, NetTables::evasive_sockets);
        let given: &[SocketRule] = section.map_or(&[], |section| &section.rules);
        let packets = given.iter().any(|rule| rule.action() == Action::Allow && may_make(rule, refused));
        // Packets are put down to the process that made their socket, and so are flows.
        let mark = flows
            || packets
            || network.is_some_and(|network| network.looks_at_what_leaves() || network.judges_packets());
        let verdicts = section.map_or_else(|| Verdicts::new(true, []), Section::verdicts);
        if section.is_none() && refused == 0 && !mark {
            return None;
        }
        let mut rules = Box::new([Rule::NONE; MAX_RULES]);
        for (compiled, rule) in rules.iter_mut().zip(given) {
            let (family, kind) = (rule.family.map(Family::number), rule.kind.map(SocketType::number));
            *compiled = Rule::new(family, kind, rule.protocol.map(SocketProtocol::number));
        }
        let naming = given.iter().enumerate().filter(|(_, rule)| rule.names_a_kind()).map(|(index, _)| index);
        let table = Table {
            verdicts,
            refused,
            mark: u32::from(mark),
            packets: u32::from(packets),
            padding: 0,
            naming: naming.collect(),
            naming_headers: given
                .iter()
                .enumerate()
                .filter(|(_, rule)| names_headers(rule))
                .map(|(index, _)| index)
                .collect(),
        };
        Some(Self { table, rules })
    }

    /// Whether packets may not come with an IP header of their own, although there may be sockets whose packets could.
    #[must_use]
    pub fn keeps_headers(&self) -> bool {
        let allows = (0..MAX_RULES).any(|rule| {
            self.table.naming_headers.contains(rule)
                && self.table.verdicts.of_rule(u16::try_from(rule).expect("there are fewer")).allow
        });
        self.table.packets != 0 && self.table.refused & unjudged::HEADERS != 0 && !allows
    }

    /// Whether any socket can be refused.
    #[must_use]
    pub fn restricts(&self) -> bool {
        self.table.verdicts.can_deny() || self.table.refused != 0
    }

    /// Whether anything is to be done when a socket is made.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.restricts() || self.table.mark != 0
    }

    /// Judges a request, as the kernel would.
    #[must_use]
    pub fn decide(&self, request: &Request) -> Decision {
        socket::decide(&self.table, &self.rules, request)
    }
}

/// Whether a rule names the protocol of sockets whose packets come with an IP header.
fn names_headers(rule: &SocketRule) -> bool {
    rule.protocol.is_some_and(|named| named.number() == protocol::RAW)
}

/// Whether a rule that names a kind of socket may match one of these kinds ([`socket::unjudged`]).
fn may_make(rule: &SocketRule, kinds: u32) -> bool {
    // One of each kind that there is.
    const TYPES: [u32; 4] = [kind::STREAM, kind::DGRAM, kind::RAW, kind::SEQPACKET];
    const PROTOCOLS: [u32; 5] = [protocol::TCP, protocol::UDP, protocol::ICMP, protocol::ICMPV6, protocol::UDPLITE];
    let types = rule.kind.map_or_else(|| TYPES.to_vec(), |kind| vec![kind.number()]);
    let protocols = rule.protocol.map_or_else(|| PROTOCOLS.to_vec(), |protocol| vec![protocol.number()]);
    let all = types.iter().flat_map(|kind| protocols.iter().map(move |protocol| (*kind, *protocol)));
    let mut requests = all.map(|(kind, protocol)| Request { family: socket::INET, kind, protocol, padding: 0 });
    rule.names_a_kind() && requests.any(|request| request.unjudged() & kinds != 0)
}
