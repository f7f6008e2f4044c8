//! What an allowed operation costs, from no guard at all to the largest policies.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::{
    sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, accept, bind, getsockname, listen, socket},
    unistd::close,
};

use crate::{
    cgroup::Leaf,
    policies, quiet,
    report::{Figure, Goal},
    setup::Setup,
    side::Side,
    stats::{difference, median, ratio},
    worker::{Operation, Task},
};

/// In each, every worker is a new process: how a process happens to lie in memory makes a difference of some percent.
const ROUNDS: u32 = 25;
/// On a machine that is too busy for all of them, the rounds end after this.
const BUDGET: Duration = Duration::from_secs(90);
/// How often the sides take turns in a round.
const TURNS: usize = 4;

/// The sides, in the order of their measurements.
const SIDES: [&str; 5] = ["bare", "unguarded neighbour", "1 rule", "256 rules", "100,000 CIDRs"];
const BARE: usize = 0;
const NEIGHBOUR: usize = 1;
const ONE_RULE: usize = 2;
const CIDRS: usize = 4;

/// An operation, and how many sides it is measured on: CIDRs are for the network.
struct Subject {
    name: &'static str,
    task: Task,
    sides: usize,
    /// For each side, one value per round.
    values: Vec<Vec<f64>>,
}

impl Subject {
    fn new(name: &'static str, operation: Operation, repeat: u32, batches: u32, sides: usize) -> Self {
        Self { name, task: Task { operation, repeat, batches }, sides, values: vec![Vec::new(); sides] }
    }

    fn figures(&self) -> impl Iterator<Item = Figure> + '_ {
        let sides = self.values.iter().zip(SIDES);
        sides.map(|(values, side)| Figure::new(format!("{}, {side}", self.name), median(values), "ns"))
    }

    fn added(&self, side: usize, to: usize) -> f64 {
        difference(&self.values[side], &self.values[to])
    }

    fn ratio(&self, side: usize, to: usize) -> f64 {
        ratio(&self.values[side], &self.values[to])
    }
}

pub fn measure(setup: &Setup) -> anyhow::Result<Vec<Figure>> {
    let policies = [policies::rules(setup, 1)?, policies::rules(setup, policies::MOST_RULES)?, policies::cidrs(setup)?];
    let listener = Listener::new()?;
    let mut subjects = [
        Subject::new("UDP connect", Operation::UdpConnect { port: 9 }, 500, 30, SIDES.len()),
        Subject::new("TCP connect + close", Operation::TcpConnect { port: listener.port }, 20, 25, SIDES.len()),
        Subject::new("open + close /dev/zero", Operation::Open, 300, 30, SIDES.len() - 1),
        Subject::new("open + read + close kernel/ostype", Operation::ReadSysctl, 100, 30, SIDES.len() - 1),
    ];
    let (mut rounds, mut disturbed) = (0_u32, 0_u32);
    let start = Instant::now();
    while rounds < ROUNDS && start.elapsed() < BUDGET {
        let quiet = quiet::wait()?;
        let bare = turns(&mut [Side::bare(setup)?], &subjects, &listener)?;
        if !quiet || !quiet::is_quiet()? {
            disturbed += 1;
            continue;
        }
        // All of these guards are attached at the same time, and elsewhere for the neighbour.
        let leaf = Leaf::create()?;
        let mut sides = vec![Side::neighbour(setup, &leaf)?];
        for policy in &policies {
            sides.push(Side::guarded(setup, policy)?);
        }
        let others = turns(&mut sides, &subjects, &listener)?;
        for (subject, values) in subjects.iter_mut().zip(bare.iter().zip(others)) {
            let (bare, others) = values;
            let sides = bare.iter().chain(&others).take(subject.sides);
            subject.values.iter_mut().zip(sides).for_each(|(all, new)| all.push(*new));
        }
        rounds += 1;
    }
    ensure!(rounds > 0, "nothing is bare: others on this machine had guards attached all the time");
    let mut figures: Vec<Figure> = subjects.iter().flat_map(Subject::figures).collect();
    figures.extend(conclusions(&subjects));
    figures.push(Figure::new("rounds", rounds.into(), ""));
    figures.push(Figure::new("rounds given up: others had guards attached", disturbed.into(), ""));
    Ok(figures)
}

/// Lets the sides take turns. For each subject, one value per side.
fn turns(sides: &mut [Side], subjects: &[Subject], listener: &Listener) -> anyhow::Result<Vec<Vec<f64>>> {
    let mut values = vec![vec![Vec::new(); sides.len()]; subjects.len()];
    // The first turn warms up.
    for turn in 0..=TURNS {
        for (subject, values) in subjects.iter().zip(&mut values) {
            let mut order: Vec<usize> = (0..sides.len()).collect();
            if turn % 2 == 1 {
                order.reverse();
            }
            for side in order {
                let value = sides[side].measure(&subject.task)?;
                listener.drain()?;
                if turn > 0 {
                    values[side].push(value);
                }
            }
        }
    }
    Ok(values.iter().map(|sides| sides.iter().map(|values| median(values)).collect()).collect())
}

fn conclusions(subjects: &[Subject; 4]) -> [Figure; 8] {
    let [udp, tcp, open, sysctl] = subjects;
    let one_rule = udp.added(ONE_RULE, NEIGHBOUR);
    let cidrs = udp.added(CIDRS, NEIGHBOUR);
    let three_percent = Goal::AtMost(1.03);
    [
        Figure::new("UDP connect: 1 rule − neighbour", one_rule, "ns").with_goal(Goal::AtMost(60.0)),
        Figure::new("UDP connect: 100,000 CIDRs − neighbour", cidrs, "ns"),
        Figure::new("UDP connect: that / the added cost of 1 rule", cidrs / one_rule, "").with_goal(Goal::AtMost(2.0)),
        Figure::new("TCP connect + close: 1 rule / bare", tcp.ratio(ONE_RULE, BARE), "").with_goal(three_percent),
        Figure::new("open + close: 1 rule / bare", open.ratio(ONE_RULE, BARE), "").with_goal(three_percent),
        Figure::new("open + close: 1 rule − neighbour", open.added(ONE_RULE, NEIGHBOUR), "ns"),
        Figure::new("open + close: neighbour − bare", open.added(NEIGHBOUR, BARE), "ns"),
        Figure::new("sysctl: 1 rule − neighbour", sysctl.added(ONE_RULE, NEIGHBOUR), "ns"),
    ]
}

/// A listener outside all guards. It takes connections when nobody is measuring: the kernel completes them without it.
struct Listener {
    socket: OwnedFd,
    port: u16,
}

impl Listener {
    fn new() -> anyhow::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
        bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)))?;
        // Room for all connections of a task.
        listen(&socket, Backlog::new(1024)?).context("listen")?;
        let port = getsockname::<SockaddrIn>(socket.as_raw_fd())?.port();
        Ok(Self { socket, port })
    }

    fn drain(&self) -> nix::Result<()> {
        loop {
            match accept(self.socket.as_raw_fd()) {
                Ok(connection) => close(connection)?,
                Err(nix::Error::EAGAIN) => return Ok(()),
                Err(nix::Error::ECONNABORTED) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
