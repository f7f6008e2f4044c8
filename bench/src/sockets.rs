//! What an allowed operation on a socket costs, other than connecting.

use std::{net::UdpSocket, time::Duration};

use crate::{
    policies,
    report::Figure,
    rounds::{NEIGHBOUR, Plan, Subject},
    setup::Setup,
    worker::Operation,
};

const ROUNDS: u32 = 15;
const BUDGET: Duration = Duration::from_secs(45);

/// The sides after those without a guard.
const ONE_RULE: usize = 2;
const EVERY_HOOK: usize = 3;
const SIDES: usize = 4;

pub fn measure(setup: &Setup) -> anyhow::Result<Vec<Figure>> {
    let guarded = vec![("1 rule", policies::socket_rules(setup, 1)?), ("every hook", setup.everything_allowed.clone())];
    let plan = Plan { guarded, rounds: ROUNDS, budget: BUDGET };
    // Nobody else has it meanwhile, or nearly so: the kernel goes through the others first.
    let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut subjects = [
        Subject::new("UDP socket + bind + close", Operation::Bind { port }, 200, 30, SIDES),
        Subject::new("sendto + recv", Operation::SendTo, 200, 30, SIDES),
        Subject::new("Unix connect + accept + close", Operation::UnixConnect, 100, 30, SIDES),
        Subject::new("setsockopt", Operation::SetSockOpt, 500, 30, SIDES),
        Subject::new("TCP connect + accept + close", Operation::Accept, 20, 30, SIDES),
    ];
    let mut figures = plan.measure(setup, &mut subjects, || Ok(()))?;
    for (name, side) in [("1 rule", ONE_RULE), ("every hook", EVERY_HOOK)] {
        figures.extend(subjects.iter().map(|subject| {
            let name = format!("{}: {name} − neighbour", subject.name());
            Figure::new(name, subject.added(side, NEIGHBOUR), "ns")
        }));
    }
    Ok(figures)
}
