//! `decide()` in the kernel, by way of the classifiers of launcher-ebpf/src/judge.rs.

use std::os::fd::{AsFd as _, OwnedFd};

use aya_obj::generated::bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS;
use common::{Decision, sysctl::NAME_LEN};
use enforce::{
    load::{Image, LoadError, MapImage, ProgramImage, Variable, contents, globals, unused},
    sys::bpf,
};
use policy::compile::Tables;

use crate::oracle::{Device, Net, Socket, Sockopt, Sysctl, Unix};

#[allow(clippy::unreadable_literal)] // written by the build script
static JUDGE: Image = include!(concat!(env!("OUT_DIR"), "/judge.rs"));

/// A judge ignores what it takes for the Ethernet header.
const HEADER: [u8; 14] = [0; 14];

/// The classifiers with the tables of one policy.
pub struct Judge {
    net: OwnedFd,
    device: OwnedFd,
    sysctl: OwnedFd,
    socket: OwnedFd,
    sockopt: OwnedFd,
    unix: OwnedFd,
}

impl Judge {
    pub fn of(tables: &Tables) -> Result<Self, LoadError> {
        Self::load(&globals(tables), unused(tables), tables)
    }

    /// The classifiers as they were compiled.
    pub fn unfilled(tables: &Tables) -> Result<Self, LoadError> {
        Self::load(&[], Vec::new(), tables)
    }

    fn load(globals: &[(&'static str, &[u8])], unused: Vec<&'static str>, tables: &Tables) -> Result<Self, LoadError> {
        let mut image = JUDGE.begin(globals, contents(tables), unused)?;
        let mut load = |name| image.prepare(name)?.load(BPF_PROG_TYPE_SCHED_CLS, None);
        Ok(Self {
            net: load("judge_net")?,
            device: load("judge_device")?,
            sysctl: load("judge_sysctl")?,
            socket: load("judge_socket")?,
            sockopt: load("judge_sockopt")?,
            unix: load("judge_unix")?,
        })
    }
}

/// A request that a judge can be asked about. `None` is its answer to what it could not judge.
pub trait Judged {
    fn judged_by(&self, judge: &Judge) -> Option<Decision>;
}

impl Judged for Net {
    fn judged_by(&self, judge: &Judge) -> Option<Decision> {
        let address = self.address.octets();
        run(&judge.net, &[&HEADER, &address, &self.port.to_ne_bytes(), &[self.protocol, self.op, self.own.into()]])
    }
}

impl Judged for Device {
    fn judged_by(&self, judge: &Judge) -> Option<Decision> {
        let [kind, access, major, minor] = [self.kind, self.access, self.major, self.minor].map(u32::to_ne_bytes);
        run(&judge.device, &[&HEADER, &kind, &access, &major, &minor])
    }
}

impl Judged for Socket {
    fn judged_by(&self, judge: &Judge) -> Option<Decision> {
        let [family, kind, protocol] = [self.family, self.kind, self.protocol].map(u32::to_ne_bytes);
        run(&judge.socket, &[&HEADER, &family, &kind, &protocol])
    }
}

impl Judged for Sysctl {
    fn judged_by(&self, judge: &Judge) -> Option<Decision> {
        let filler = vec![0; NAME_LEN - self.name.len()];
        run(&judge.sysctl, &[&HEADER, &[self.write.into()], &self.name, &filler])
    }
}

impl Judged for Sockopt {
    fn judged_by(&self, judge: &Judge) -> Option<Decision> {
        let access: u32 = if self.set { 2 } else { 1 };
        run(&judge.sockopt, &[&HEADER, &self.level.to_ne_bytes(), &self.option.to_ne_bytes(), &access.to_ne_bytes()])
    }
}

impl Judged for Unix {
    fn judged_by(&self, judge: &Judge) -> Option<Decision> {
        let kind = u8::try_from(self.kind.index()).unwrap();
        let (length, name) = self.padded();
        run(&judge.unix, &[&HEADER, &[kind], &length.to_ne_bytes(), &[self.own.into()], &name])
    }
}

/// The verdict is the classifier's return value: bit 16 is "allow", the rest the rule; all bits are set for no verdict.
fn run(program: &OwnedFd, packet: &[&[u8]]) -> Option<Decision> {
    let returned = bpf::test_run(program.as_fd(), &packet.concat()).expect("the kernel runs a classifier");
    let rule = u16::try_from(returned & 0xffff).unwrap();
    (returned != u32::MAX).then_some(Decision { allow: returned >> 16 == 1, rule })
}
