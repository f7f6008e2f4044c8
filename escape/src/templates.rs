//! Generates policies: templates as people write them, each with choices left to chance, and now and then any rules at all.

use std::net::IpAddr;

use crate::{
    address::{
        ALLOWED4, ALLOWED6, BOUND, CHOSEN_DENIED, DENIED4, DENIED6, LOOPBACK4, LOOPBACK6, OWN, PUBLIC4, PUBLIC6, SERVED,
    },
    options::READ,
    policy::{Hosts, Op, Policy, Protocol, Rule},
    random::Random,
    unix,
};

const LOOPBACK: Hosts = Hosts::Named("loopback");

fn host(ip: IpAddr) -> Hosts {
    Hosts::Network(ip, if ip.is_ipv4() { 32 } else { 128 })
}

fn rule(allow: bool, ops: &[Op], hosts: &[Hosts], ports: &[u16]) -> Rule {
    let ports = ports.iter().map(|port| (*port, *port)).collect();
    Rule { allow, ops: ops.to_vec(), protocols: Vec::new(), hosts: hosts.to_vec(), ports }
}

/// The peer that is allowed, by both families.
fn allowed() -> [Hosts; 4] {
    [host(ALLOWED4), host(ALLOWED6), host(PUBLIC4), host(PUBLIC6)]
}

fn denied(random: &mut Random) -> Vec<Hosts> {
    match random.below(3) {
        0 => vec![host(DENIED4), host(DENIED6)],
        1 => vec![Hosts::Network([10, 77, 2, 0].into(), 24), Hosts::Network([0xfd77, 2, 0, 0, 0, 0, 0, 0].into(), 32)],
        _ => vec![host(DENIED4), host(DENIED6), LOOPBACK],
    }
}

/// The operations that a rule on peers is about.
fn outward(random: &mut Random) -> Vec<Op> {
    random.weighted(&[
        (3, vec![Op::Connect, Op::Send]),
        (2, Vec::new()),
        (1, vec![Op::Connect]),
        (1, vec![Op::Send]),
        (1, vec![Op::Connect, Op::Send, Op::Receive]),
    ])
}

/// What a server in the sandbox needs where the default is to deny.
fn serving(random: &mut Random, rules: &mut Vec<Rule>) {
    let bound = match random.below(4) {
        0 => return,
        1 => rule(true, &[Op::Bind], &[], &[]),
        2 => rule(true, &[Op::Bind], &[], &[BOUND[0], BOUND[1], 0]),
        _ => rule(true, &[Op::Bind], &[], &[BOUND[0]]),
    };
    rules.push(bound);
    let from = match random.below(4) {
        0 => rule(true, &[Op::Receive], &[], &[]),
        1 => rule(true, &[Op::Receive], &allowed(), &[SERVED[0]]),
        _ => rule(true, &[Op::Receive], &allowed(), &[]),
    };
    rules.push(from);
}

/// Any rule.
fn any_rule(random: &mut Random) -> Rule {
    let ops = random.weighted(&[
        (2, Vec::new()),
        (2, vec![Op::Connect]),
        (2, vec![Op::Bind]),
        (2, vec![Op::Send]),
        (2, vec![Op::Receive]),
        (3, vec![Op::Connect, Op::Send]),
        (1, Op::ALL.to_vec()),
    ]);
    let protocols = random.weighted(&[(4, Vec::new()), (1, vec![Protocol::Tcp]), (1, vec![Protocol::Udp])]);
    let mut hosts = Vec::new();
    for _ in 0..random.below(3) {
        let any = [
            LOOPBACK,
            Hosts::Named("private"),
            Hosts::Named("any"),
            Hosts::Named("multicast"),
            Hosts::Named("link-local"),
            Hosts::Sandbox,
            host(ALLOWED4),
            host(ALLOWED6),
            host(DENIED4),
            host(DENIED6),
            host(OWN[0]),
            host(OWN[2]),
            host(LOOPBACK4),
            Hosts::Network([10, 77, 0, 0].into(), 16),
        ];
        let one = random.one(&any);
        if !hosts.contains(&one) {
            hosts.push(one);
        }
    }
    let ports = random.weighted(&[
        (4, Vec::new()),
        (1, vec![(SERVED[0], SERVED[0])]),
        (1, vec![(SERVED[1], SERVED[1])]),
        (1, vec![(5000, 5050)]),
        (1, vec![(BOUND[2], BOUND[2]), CHOSEN_DENIED]),
        (1, vec![(0, 0)]),
    ]);
    Rule { allow: random.percent(45), ops, protocols, hosts, ports }
}

fn network(random: &mut Random) -> (bool, Vec<Rule>) {
    let mut rules = Vec::new();
    match random.below(13) {
        // Only one peer, or one port of it.
        0 | 1 => {
            let ports: &[u16] = if random.percent(50) { &SERVED[..1] } else { &[] };
            let ops = outward(random);
            rules.push(rule(true, &ops, &allowed(), ports));
            serving(random, &mut rules);
            (false, rules)
        }
        // All but some.
        2 => {
            let ops = outward(random);
            let hosts = denied(random);
            rules.push(rule(false, &ops, &hosts, &[]));
            (true, rules)
        }
        // What examples/no-private-networks.json says.
        3 => {
            let inside = ["loopback", "private", "link-local", "multicast"].map(Hosts::Named);
            rules.push(rule(true, &[], &inside[..2], &[53]));
            rules.push(rule(false, &[Op::Connect, Op::Send], &inside, &[]));
            (true, rules)
        }
        // All but a port.
        4 => {
            let mut one = rule(false, &[Op::Connect, Op::Send], &[], &SERVED[1..2]);
            one.protocols = random.one(&[Vec::new(), vec![Protocol::Tcp], vec![Protocol::Udp]]);
            rules.push(one);
            (true, rules)
        }
        // Not these ports of its own.
        5 => {
            let mut one = rule(false, &[Op::Bind], &[], &[BOUND[2]]);
            one.ports.push(CHOSEN_DENIED);
            rules.push(one);
            (true, rules)
        }
        // From these peers alone.
        6 => {
            let ports: &[u16] = if random.percent(50) { &SERVED[..1] } else { &[] };
            rules.push(rule(true, &[Op::Receive], &allowed(), ports));
            rules.push(rule(false, &[Op::Receive], &[], &[]));
            (true, rules)
        }
        // What it has made itself.
        7 => {
            rules.push(rule(true, &[], &[Hosts::Sandbox], &[]));
            if random.percent(50) {
                rules.push(rule(true, &outward(random), &allowed(), &[]));
            }
            (false, rules)
        }
        // This host.
        8 => {
            rules.push(rule(true, &[], &[LOOPBACK], &[]));
            (false, rules)
        }
        // Of each host another port.
        9 | 10 => {
            for ip in [ALLOWED4, ALLOWED6, PUBLIC4, PUBLIC6, DENIED4, DENIED6, LOOPBACK4, LOOPBACK6] {
                let ports: &[u16] = match random.below(6) {
                    0 => continue,
                    1 => &[],
                    2 => &SERVED[1..2],
                    3 => &SERVED[1..],
                    _ => &SERVED[..1],
                };
                rules.push(rule(true, &[Op::Connect, Op::Send, Op::Receive], &[host(ip)], ports));
            }
            serving(random, &mut rules);
            (false, rules)
        }
        // Not this host.
        11 => {
            rules.push(rule(false, &[Op::Connect, Op::Send], &[LOOPBACK, host(OWN[0]), host(OWN[2])], &[]));
            (true, rules)
        }
        _ => {
            (0..=random.below(5)).for_each(|_| rules.push(any_rule(random)));
            (random.percent(50), rules)
        }
    }
}

/// A policy by a seed.
pub fn policy(seed: u64) -> Policy {
    let mut random = Random::new(seed);
    let (allow, rules) = network(&mut random);
    let mut policy = Policy { allow, rules, ..Policy::default() };
    if random.percent(15) {
        policy.sockets = random.one(&[vec!["udplite"], vec!["icmp", "icmpv6"], vec!["raw"], vec!["raw", "udplite"]]);
        policy.raw = policy.sockets.contains(&"raw") || random.percent(20);
    }
    if random.percent(30) {
        policy.device = Some(random.one(&[3, 5]));
        policy.sysctl = Some(random.one(&["kernel/hostname", "kernel/ostype"]));
    }
    if random.percent(20) {
        policy.writable = Some("net/ipv4/ip_default_ttl");
    }
    if random.percent(30) {
        policy.option = Some(random.one(&READ[..2]));
    }
    policy.flows = random.percent(15);
    if random.percent(40) {
        policy.unix = Some(unix::Section::any(&mut random));
    }
    // Routes of IPv4's packets take this, and what can be done without it is tried by all the others.
    policy.raw |= random.percent(10);
    policy
}
