//! Comparing the network sections: addresses, ports and names that neither policy tells apart are judged once for each operation and
//! protocol, and what differs alike is put together again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use common::{
    Decision, MAX_RULES, RuleSet,
    decision::NO_QUERY,
    name::{PORT, address},
    net::{self, Address, Lookup, Op, Protocol, Request, Table, ones_if_equal},
    ruleset::WORDS,
};
use policy::{
    Prefix,
    compile::{IMPLIED, NameTables, NetTables},
    shared_space,
};

use super::{
    Decisions, Extent, Found, Side, Ways,
    show::{self, Hosts},
    steps::{Range, divide, group, last_of, of_hosts, of_ports, union},
};

/// What the two tables say of an address, and what else makes a difference there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    rules: [RuleSet; 2],
    /// Whether it is a nameserver's of A, and of B.
    serves: [bool; 2],
    /// Whether sockets of the sandbox itself may be there.
    loopback: bool,
    /// Whether names never lead there, and whether only "private" ones do.
    never: bool,
    near: bool,
}

/// What the tables say of a host name, and of those that none of their entries tells from it.
#[derive(Clone)]
struct Name {
    /// As people write it; a wildcard stands for all below it that have no entry of their own.
    shown: String,
    /// One that is meant.
    example: String,
    rules: [RuleSet; 2],
}

/// A peer, but for its port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Peer {
    /// An address of a group.
    Address(usize),
    /// A socket of the sandbox's own at one of them.
    Own(usize),
    /// An address that one of a group of names led to.
    Name(usize),
    /// There, TLS connections that say the name.
    Tls(usize),
    /// There, all other connections.
    Other(usize),
}

/// Ports of the peer and of this host's, by the numbers of their groups.
type Ports = BTreeSet<(usize, usize)>;

/// Groups of ports, each with groups of this host's ports: all combinations.
type Products = Vec<(Vec<usize>, Vec<usize>)>;

/// Requests that differ alike.
type Cells = BTreeMap<(Ways, usize, usize), BTreeMap<Peer, Ports>>;

/// Everything that the tables tell apart.
struct Universe<'a> {
    tables: [Option<&'a NetTables>; 2],
    /// Addresses to bind.
    own_addresses: Vec<(Place, Vec<Range>)>,
    /// Addresses of peers.
    addresses: Vec<(Place, Vec<Range>)>,
    ports: Vec<([RuleSet; 2], Vec<Range>)>,
    local_ports: Vec<([RuleSet; 2], Vec<Range>)>,
    /// Names, put together where the rules are the same.
    names: Vec<Vec<Name>>,
}

/// Compares the network sections.
pub fn compare(a: Side, b: Side, found: &mut Found) {
    let tables = [a, b].map(|side| side.tables.network.as_ref());
    if tables.iter().all(Option::is_none) {
        return;
    }
    let universe = Universe::new(tables);
    universe.queries(found);
    let mut cells = Cells::new();
    for op in Op::ALL {
        universe.judge(op, &mut cells, found);
    }
    universe.tell(cells, found);
}

impl<'a> Universe<'a> {
    fn new(tables: [Option<&'a NetTables>; 2]) -> Self {
        let steps = |of: &dyn Fn(&NetTables) -> super::steps::Steps| {
            tables.map(|side| side.map_or_else(|| vec![(0, RuleSet::NONE)], of))
        };
        let [ports_a, ports_b] = steps(&|side| of_ports(&side.ports));
        let [local_a, local_b] = steps(&|side| of_ports(&side.local_ports));
        let last = u16::MAX.into();
        let has_names = tables.iter().flatten().any(|side| side.names.is_some());
        let nameserver = if has_names { vec![PORT.into(), u128::from(PORT) + 1] } else { vec![] };
        let ports = divide(&ports_a, &ports_b, &nameserver, last);
        let ports = ports.into_iter().map(|(range, rules)| (range, (rules, contains(range, PORT.into()) && has_names)));
        Self {
            tables,
            own_addresses: places(tables, true),
            addresses: places(tables, false),
            ports: group(ports).into_iter().map(|((rules, _), ranges)| (rules, ranges)).collect(),
            local_ports: group(divide(&local_a, &local_b, &[], last)),
            names: names(tables),
        }
    }

    /// Judges every kind of request for an operation, and notes those on which the decisions differ.
    fn judge(&self, op: Op, cells: &mut Cells, found: &mut Found) {
        let addresses = if op == Op::BIND { &self.own_addresses } else { &self.addresses };
        let asks_for_own = op != Op::BIND && self.tables.iter().flatten().any(|side| side.asks_for_own());
        let local_ports = if op == Op::RECEIVE { self.local_ports.len() } else { 1 };
        let by_port: Vec<Vec<usize>> = (0..self.ports.len()).map(|port| self.names_at(port)).collect();
        for protocol in Protocol::ALL {
            for (number, (place, ranges)) in addresses.iter().enumerate() {
                for (port, groups) in by_port.iter().enumerate() {
                    for local in 0..local_ports {
                        let at = At { op, protocol, place, address: ranges[0].0, port, local };
                        let ways = found.judge("network", self.decide(&at, op == Op::BIND, None));
                        let mut note = |ways: Option<Ways>, peer| {
                            if let Some(ways) = ways {
                                let peers = cells.entry((ways, op.index(), protocol.index())).or_default();
                                peers.entry(peer).or_default().insert((port, local));
                            }
                        };
                        note(ways, Peer::Address(number));
                        if asks_for_own && place.loopback {
                            note(found.judge("network", self.decide(&at, true, None)), Peer::Own(number));
                        }
                        if place.never || ![Op::CONNECT, Op::SEND].contains(&op) {
                            continue;
                        }
                        for name in groups.iter().copied() {
                            let group = &self.names[name];
                            let mut by_name =
                                |by_tls| found.judge("network", self.decide(&at, false, Some((&group[0], by_tls))));
                            let (named, other) = (by_name(true), by_name(false));
                            // What holds for the address, too, is told there.
                            let new = |told: Option<Ways>| {
                                told.filter(|told| Some(told.wider) != ways.map(|ways| ways.wider))
                            };
                            if named == other {
                                note(new(named), Peer::Name(name));
                            } else {
                                note(new(named), Peer::Tls(name));
                                note(new(other), Peer::Other(name));
                            }
                        }
                    }
                }
            }
        }
    }

    /// What is decided of a request, perhaps to an address that a name led to, and then of a TLS connection that says this name or of
    /// any other.
    fn decide(&self, at: &At, own: bool, name: Option<(&Name, bool)>) -> Decisions {
        let decide = |side: usize| {
            let tables = self.tables[side]?;
            if let (Some(names), true) = (&tables.names, at.place.serves[side] && self.is_nameservers(at)) {
                match at.protocol {
                    Protocol::UDP | Protocol::TCP if names.table.any_query == 0 => {
                        return Some(Decision::fail_closed(NO_QUERY));
                    }
                    Protocol::UDP | Protocol::TCP => return Some(Decision { allow: true, rule: IMPLIED }),
                    _ => {}
                }
            }
            let by_name = name.zip(tables.names.as_ref()).map(|((name, by_tls), NameTables { table, .. })| {
                let counts = |rule: usize| {
                    (!at.place.near || table.private.contains(rule)) && (by_tls || !table.tls.contains(rule))
                };
                (0..MAX_RULES).filter(|rule| name.rules[side].contains(*rule) && counts(*rule)).collect()
            });
            let lookup = Rules {
                host: at.place.rules[side],
                name: by_name.unwrap_or(RuleSet::NONE),
                port: self.ports[at.port].0[side],
                local: self.local_ports[at.local].0[side],
            };
            let (address, port) = (Address::from_bits(at.address), 0);
            let request = Request { op: at.op, protocol: at.protocol, address, port, own: own.into() };
            let table = &tables.table;
            let decision = if at.op == Op::RECEIVE {
                net::decide_received(table, &lookup, &request, 0)
            } else {
                net::decide(table, &lookup, &request)
            };
            Some(tables.told(decision.expect("nothing is missing")))
        };
        [decide(0), decide(1)]
    }

    /// The groups of names that make a difference at a group of ports: on any other, a rule that has the name isn't about the port, and
    /// what is decided is what is decided on the address alone.
    fn names_at(&self, port: usize) -> Vec<usize> {
        let (rules, _) = &self.ports[port];
        let matters = |names: &Name| {
            let at = |side: usize, word| names.rules[side].word(word) & rules[side].word(word) != 0;
            self.tables.iter().enumerate().any(|(side, tables)| match tables {
                Some(tables) if tables.ports.is_empty() => names.rules[side] != RuleSet::NONE,
                _ => (0..WORDS).any(|word| at(side, word)),
            })
        };
        (0..self.names.len()).filter(|group| matters(&self.names[*group][0])).collect()
    }

    /// Whether a request is one to the port of nameservers.
    fn is_nameservers(&self, at: &At) -> bool {
        let ranges = &self.ports[at.port].1;
        [Op::CONNECT, Op::SEND].contains(&at.op) && ranges.iter().any(|range| contains(*range, PORT.into()))
    }

    /// Compares the names that may be asked for. Where a policy has no names, that is what it lets through to the other's nameservers.
    fn queries(&self, found: &mut Found) {
        let servers: Vec<Address> = self
            .tables
            .iter()
            .flatten()
            .filter_map(|side| side.names.as_ref())
            .flat_map(|names| names.nameservers().map(shared_space))
            .collect();
        let mut by_ways: BTreeMap<Ways, Vec<&Name>> = BTreeMap::new();
        for name in self.names.iter().flatten() {
            let decide = |side: usize| {
                let tables = self.tables[side]?;
                if let Some(names) = &tables.names {
                    return Some(names.decide(&name.example));
                }
                let ask = |address: &Address| {
                    let request =
                        Request { op: Op::SEND, protocol: Protocol::UDP, address: *address, port: PORT, own: 0 };
                    tables.decide(&request)
                };
                let mut decisions = servers.iter().map(ask);
                let first = decisions.next()?;
                Some(decisions.find(|decision| decision.allow).filter(|_| !first.allow).unwrap_or(first))
            };
            if let Some(ways) = found.judge("network", [decide(0), decide(1)]) {
                by_ways.entry(ways).or_default().push(name);
            }
        }
        for (ways, names) in by_ways {
            let hosts = names.iter().map(|name| name.shown.clone()).collect();
            let (ops, protocols) = (vec!["resolve"], vec![]);
            let extent = super::Network { ops, protocols, hosts, ports: vec![], local_ports: vec![] };
            found.add("network", ways, Extent::Network(extent), format!("resolve {}", names[0].example));
        }
    }

    /// Puts together what differs alike, and adds it to what was found.
    fn tell(&self, cells: Cells, found: &mut Found) {
        type Alike = (Ways, Hosts, Vec<Range>, Vec<Range>);
        // By whom and where to, the protocols of each operation.
        let mut alike: BTreeMap<Alike, BTreeMap<usize, BTreeSet<usize>>> = BTreeMap::new();
        for ((ways, op, protocol), peers) in cells {
            let mut by_ports: HashMap<Products, Vec<Peer>> = HashMap::new();
            for (peer, ports) in peers {
                by_ports.entry(products(&ports)).or_default().push(peer);
            }
            for (products, peers) in by_ports {
                let hosts = self.hosts(op == Op::BIND.index(), &peers);
                for (ports, local) in products {
                    let ports = union(ports.iter().flat_map(|port| self.ports[*port].1.iter().copied()).collect());
                    let local =
                        union(local.iter().flat_map(|port| self.local_ports[*port].1.iter().copied()).collect());
                    let local = if local == show::ALL_PORTS { vec![] } else { local };
                    let by_op = alike.entry((ways, hosts.clone(), ports, local)).or_default();
                    by_op.entry(op).or_default().insert(protocol);
                }
            }
        }
        for ((ways, hosts, ports, local_ports), by_op) in alike {
            let mut by_protocols: BTreeMap<BTreeSet<usize>, Vec<usize>> = BTreeMap::new();
            for (op, protocols) in by_op {
                by_protocols.entry(protocols).or_default().push(op);
            }
            for (protocols, ops) in by_protocols {
                let rows =
                    show::Rows { ops: &ops, protocols: &protocols, hosts: &hosts, ports: &ports, local: &local_ports };
                found.add("network", ways, Extent::Network(rows.extent()), rows.example());
            }
        }
    }

    /// Peers as what is listed of them. Where sockets of the sandbox's own are judged as all others at an address, they are not listed by
    /// themselves.
    fn hosts(&self, binds: bool, peers: &[Peer]) -> Hosts {
        let addresses = if binds { &self.own_addresses } else { &self.addresses };
        let mut hosts = Hosts::default();
        for peer in peers {
            match peer {
                Peer::Address(number) => {
                    let apart = !binds && addresses[*number].0.loopback && !peers.contains(&Peer::Own(*number));
                    let list = if apart { &mut hosts.others } else { &mut hosts.ranges };
                    list.extend(&addresses[*number].1);
                }
                Peer::Own(number) if peers.contains(&Peer::Address(*number)) => {}
                Peer::Own(number) => hosts.own.extend(&addresses[*number].1),
                Peer::Name(number) | Peer::Tls(number) | Peer::Other(number) => {
                    let end = match peer {
                        Peer::Tls(_) => " by TLS",
                        Peer::Other(_) => " but by TLS",
                        _ => "",
                    };
                    let names = self.names[*number].iter();
                    hosts.names.extend(names.map(|name| (name.shown.clone() + end, name.example.clone())));
                }
            }
        }
        Hosts { ranges: union(hosts.ranges), own: union(hosts.own), others: union(hosts.others), names: hosts.names }
    }
}

/// A kind of requests that nothing tells apart.
struct At<'a> {
    op: Op,
    protocol: Protocol,
    place: &'a Place,
    /// An address of the place.
    address: u128,
    /// The group of the port.
    port: usize,
    /// The group of this host's port.
    local: usize,
}

/// The tables' answers for one of their parts.
struct Rules {
    host: RuleSet,
    name: RuleSet,
    port: RuleSet,
    local: RuleSet,
}

impl Lookup for Rules {
    fn by_host(&self, _: &Address) -> Option<&RuleSet> {
        Some(&self.host)
    }

    fn by_name(&self, _: Op, _: &Address) -> Option<&RuleSet> {
        Some(&self.name)
    }

    fn by_port(&self, _: &Table, _: u16) -> Option<&RuleSet> {
        Some(&self.port)
    }

    fn by_chosen_port(&self) -> Option<&RuleSet> {
        Some(&self.port)
    }

    fn by_local_port(&self, _: &Table, _: u16) -> Option<&RuleSet> {
        Some(&self.local)
    }
}

fn contains((first, last): Range, number: u128) -> bool {
    (first..=last).contains(&number)
}

/// Pairs as products: groups of ports that have the same ports of this host's.
fn products(pairs: &Ports) -> Products {
    let mut by_port: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (port, local) in pairs {
        by_port.entry(*port).or_default().push(*local);
    }
    let mut by_local: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    for (port, local) in by_port {
        by_local.entry(local).or_default().push(port);
    }
    by_local.into_iter().map(|(local, ports)| (ports, local)).collect()
}

/// The addresses that stand for no single one. A peer is never there: a hook writes what is meant into the system call.
const UNSPECIFIED: [u128; 2] = [0, Prefix::ALL_V4.bits()];

/// Groups of addresses that neither table tells apart: to bind, or those of peers.
fn places(tables: [Option<&NetTables>; 2], binds: bool) -> Vec<(Place, Vec<Range>)> {
    let [a, b] = tables.map(|side| side.map_or_else(Vec::new, |side| of_hosts(&side.hosts)));
    let servers = tables.map(|side| {
        let names = side.and_then(|side| side.names.as_ref());
        names
            .map_or_else(Vec::new, |names| names.nameservers().map(|address| shared_space(address).to_bits()).collect())
    });
    let asks_for_own = tables.iter().flatten().any(|side| side.asks_for_own());
    let has_names = servers.iter().any(|servers| !servers.is_empty());
    let mut edges = Vec::new();
    if asks_for_own {
        edges.extend(LOOPBACK.iter().flat_map(|(first, last)| [*first, last + 1]));
    }
    if has_names {
        servers.iter().flatten().for_each(|address| edges.extend([*address, address.saturating_add(1)]));
        edges.extend(near().into_iter().flat_map(|(first, last)| [first, last.saturating_add(1)]));
    }
    let mut parts: Vec<(Range, Place)> = divide(&a, &b, &edges, u128::MAX)
        .into_iter()
        .map(|(range, rules)| {
            let first = Address::from_bits(range.0);
            let nearness = address::nearness(first, ones_if_equal);
            let place = Place {
                rules,
                serves: [0, 1].map(|side: usize| servers[side].contains(&range.0)),
                loopback: asks_for_own && LOOPBACK.iter().any(|loopback| contains(*loopback, range.0)),
                never: has_names && nearness.never != 0,
                near: has_names && nearness.private != 0,
            };
            (range, place)
        })
        .collect();
    if !binds {
        for index in (0..parts.len()).rev() {
            let ((first, last), _) = parts[index];
            if first == last && UNSPECIFIED.contains(&first) {
                // As those behind it, but rather not as a single one: ::1 and :: are no network that anybody means.
                let behind = parts[index + 1..].iter().find(|((first, last), _)| first < last);
                parts[index].1 = behind.map_or(parts[index].1, |(_, place)| *place);
            }
        }
    }
    group(parts)
}

/// Loopback addresses.
pub const LOOPBACK: [Range; 2] = [(1, 1), (0xffff_7f00_0000, 0xffff_7fff_ffff)];

/// Networks of which names lead to none, or only "private" ones do. (Those that stand for IPv4's by translation are left out.)
fn near() -> Vec<Range> {
    let v4 = Prefix::ALL_V4.bits();
    let word = |word: u32| u128::from(word);
    let networks = address::NO_HOST.iter().chain(address::PRIVATE);
    let networks = networks.map(|(first, length)| (v4 + word(*first), v4 + word(first | u32::MAX >> length)));
    let metadata4 = address::METADATA4.iter().map(|address| (v4 + word(*address), v4 + word(*address)));
    let metadata6 = address::METADATA6.iter().map(|words| {
        let bits = words.iter().fold(0, |bits, part| bits << 32 | word(*part));
        (bits, bits)
    });
    let v6 = [
        "::/96",
        "::1",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
        "ff00::/8",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
    ];
    let v6 = v6.iter().map(|text| {
        let network: Prefix = text.parse().expect("a network");
        (network.bits(), last_of(network))
    });
    networks.chain(metadata4).chain(metadata6).chain(v6).collect()
}

/// Groups of names that neither table tells apart, and at the end one for all that neither has.
fn names(tables: [Option<&NetTables>; 2]) -> Vec<Vec<Name>> {
    let sides = tables.map(|side| side.and_then(|side| side.names.as_ref()));
    if sides.iter().all(Option::is_none) {
        return Vec::new();
    }
    let known: BTreeSet<&[u8]> =
        sides.iter().flatten().flat_map(|side| side.names.iter().map(|(name, _)| name.bytes())).collect();
    let rules_of = |name: &str| sides.map(|side| side.map_or(RuleSet::NONE, |side| side.rules(name)));
    let text = |bytes: &[u8]| bytes.iter().rev().map(|byte| char::from(*byte)).collect::<String>();
    let taken: HashSet<String> = known.iter().map(|entry| text(entry).trim_matches(['.', '\0']).to_owned()).collect();
    let mut groups: Vec<Vec<Name>> = Vec::new();
    let mut places: HashMap<[RuleSet; 2], usize> = HashMap::new();
    let mut add = |shown: String, example: String| {
        let rules = rules_of(&example);
        let place = *places.entry(rules).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[place].push(Name { shown, example, rules });
    };
    // One below a name that has no entry of its own, nor one above it that is below that name.
    let below = |end: &str| {
        let labels = (0_u64..).map(|number| if number == 0 { "x".to_owned() } else { format!("x{number}") });
        let mut names = labels.map(|label| format!("{label}{end}"));
        names.find(|name| !taken.contains(name)).expect("there are more labels than entries")
    };
    for entry in &known {
        let end = text(entry);
        match end.strip_prefix('\0') {
            Some(name) => add(name.to_owned(), name.to_owned()),
            None => add(format!("*{end}"), below(&end)),
        }
    }
    add("any other name".to_owned(), below(".invalid"));
    groups
}
