//! What an allowed operation costs, from no guard at all to the largest policies.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, accept, bind, getsockname, listen, socket},
    unistd::close,
};

use crate::{
    policies,
    report::{Figure, Goal},
    rounds::{BARE, NEIGHBOUR, Plan, Subject},
    setup::Setup,
    worker::Operation,
};

const ROUNDS: u32 = 25;
const BUDGET: Duration = Duration::from_secs(90);

const ONE_RULE: usize = 2;
const CIDRS: usize = 4;

pub fn measure(setup: &Setup) -> anyhow::Result<Vec<Figure>> {
    let guarded = vec![
        ("1 rule", policies::rules(setup, 1)?),
        ("256 rules", policies::rules(setup, policies::MOST_RULES)?),
        ("100,000 CIDRs", policies::cidrs(setup)?),
    ];
    let plan = Plan { guarded, rounds: ROUNDS, budget: BUDGET };
    let listener = Listener::new()?;
    // CIDRs are for the network.
    let (network, other) = (CIDRS + 1, CIDRS);
    let mut subjects = [
        Subject::new("UDP connect", Operation::UdpConnect { port: 9 }, 500, 30, network),
        Subject::new("TCP connect + close", Operation::TcpConnect { port: listener.port }, 20, 25, network),
        Subject::new("open + close /dev/zero", Operation::Open, 300, 30, other),
        Subject::new("open + read + close kernel/ostype", Operation::ReadSysctl, 100, 30, other),
    ];
    let mut figures = plan.measure(setup, &mut subjects, || listener.drain())?;
    figures.extend(conclusions(&subjects));
    Ok(figures)
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
