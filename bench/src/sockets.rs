//! What an allowed operation on a socket costs, other than connecting.

use std::{net::UdpSocket, time::Duration};

use crate::{
    report::Figure,
    rounds::{NEIGHBOUR, Plan, Subject},
    setup::Setup,
    worker::Operation,
};

const ROUNDS: u32 = 15;
const BUDGET: Duration = Duration::from_secs(45);

/// The sides after those without a guard.
const EVERY_HOOK: usize = 2;
const SIDES: usize = 3;

pub fn measure(setup: &Setup) -> anyhow::Result<Vec<Figure>> {
    let guarded = vec![("every hook", setup.everything_allowed.clone())];
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
    figures.extend(subjects.iter().map(|subject| {
        let name = format!("{}: every hook − neighbour", subject.name());
        Figure::new(name, subject.added(EVERY_HOOK, NEIGHBOUR), "ns")
    }));
    Ok(figures)
}
