//! How fast data flows once a connection is allowed.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    os::fd::AsFd as _,
    thread,
};

use anyhow::{Context as _, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    policies,
    report::{Figure, Goal},
    setup::{Setup, pin_peer},
    side::Side,
    stats::{median, ratio},
    worker::{BLOCK, Operation, Task},
};

const ROUNDS: usize = 5;
/// How often the sides take turns in a round. Often, since a busy machine changes from one moment to the next.
const TURNS: usize = 20;
const MILLISECONDS: u32 = 80;
const BLOCKS_PER_GIB: f64 = ((1 << 30) / BLOCK) as f64;

pub fn measure(setup: &Setup) -> anyhow::Result<Vec<Figure>> {
    let policies = [policies::rules(setup, 1)?, policies::back_stop(setup)?];
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        // The guards are attached while "bare" is measured, too: what they switch on in the kernel is a test whether this
        // cgroup has such a program, which is nothing beside the data.
        let mut sides = vec![Side::bare(setup)?];
        for policy in &policies {
            sides.push(Side::guarded(setup, policy)?);
        }
        for turn in 0..TURNS {
            // Who is first changes, in case that matters.
            for place in 0..sides.len() {
                let side = (place + turn) % sides.len();
                rates[side].push(stream(&mut sides[side])?);
            }
        }
    }
    let [bare, guarded, back_stop] = &rates;
    Ok(vec![
        Figure::new("TCP stream, bare", median(bare), "GiB/s"),
        Figure::new("TCP stream, 1 rule", median(guarded), "GiB/s"),
        Figure::new("TCP stream, egress back-stop", median(back_stop), "GiB/s"),
        Figure::new("1 rule / bare", ratio(guarded, bare), "").with_goal(Goal::AtLeast(0.99)),
        Figure::new("egress back-stop / bare", ratio(back_stop, bare), "").with_goal(Goal::AtLeast(0.95)),
    ])
}

/// GiB per second from a worker to a thread here.
fn stream(side: &mut Side) -> anyhow::Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let operation = Operation::Stream { port: listener.local_addr()?.port(), milliseconds: MILLISECONDS };
    let receiver = thread::spawn(move || receive(&listener));
    let per_block = side.measure(&Task { operation, repeat: 1, batches: 1 })?;
    receiver.join().expect("it does not panic")?;
    Ok(1e9 / per_block / BLOCKS_PER_GIB)
}

fn receive(listener: &TcpListener) -> anyhow::Result<()> {
    pin_peer()?;
    let connecting = poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], PollTimeout::from(10_000_u16))?;
    ensure!(connecting == 1, "the worker did not connect");
    let (mut socket, _) = listener.accept()?;
    let mut buffer = vec![0; 1 << 18];
    while socket.read(&mut buffer)? > 0 {}
    socket.write_all(&[0]).context("acknowledging")
}
