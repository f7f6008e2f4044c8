//! A classifier that drives `decide()` in the kernel, for the tests: BPF_PROG_TEST_RUN can't run the programs that
//! guard, but it can run this one, with the same tables. Never shipped.
#![no_std]
#![no_main]
#![allow(missing_docs)] // aya's macros make functions of their own that have none

use aya_ebpf::{helpers::bpf_skb_load_bytes, macros::classifier, programs::TcContext};
use common::{
    Decision,
    device::Request as DeviceRequest,
    net::{self, Address, Op},
    record::Hook,
    socket,
    sockopt::Request as SockoptRequest,
    sysctl::{Access, NAME_LEN, Name},
    unix::{Kind, Peer},
};
use launcher_ebpf::{
    device::{DEVICE_RULES, DEVICE_VERDICTS},
    net::{KernelTables, NET_TABLE, protocol_of, subject as net_subject},
    record::Draft,
    rodata::filled,
    socket::{SOCKET_RULES, SOCKET_TABLE},
};

/// What each judge returns when its packet is no request.
const NO_REQUEST: i32 = -1;

/// The verdict as the classifier's return value: bit 16 is "allow", the rest the rule.
#[inline(always)]
fn encode(decision: Option<Decision>) -> i32 {
    decision.map_or(NO_REQUEST, |decision| i32::from(decision.rule) | i32::from(decision.allow) << 16)
}

/// Packet: 14 bytes unused, address (16), port (2, host order), IPPROTO number (1), operation (1), own (1).
#[classifier]
pub fn judge_net(ctx: TcContext) -> i32 {
    let (Ok(address), Ok(port)) = (ctx.load(14), ctx.load(30)) else { return NO_REQUEST };
    let Ok([protocol, op, own]) = ctx.load::<[u8; 3]>(32) else { return NO_REQUEST };
    let protocol = protocol_of(u32::from(protocol));
    let Some(op) = Op::ALL.get(usize::from(op)) else { return NO_REQUEST };
    let request = net::Request { op: *op, protocol, address: Address::v6(address), port, own: u32::from(own) };
    let mut draft = Draft::new(Hook::Connect4, net_subject(&request, 0));
    encode(net::decide(filled(&NET_TABLE), &KernelTables::of(draft.key()), &request))
}

/// Packet: 14 bytes unused, then type, access, major and minor (4 each, host order).
#[classifier]
pub fn judge_device(ctx: TcContext) -> i32 {
    let (Ok(kind), Ok(access), Ok(major), Ok(minor)) = (ctx.load(14), ctx.load(18), ctx.load(22), ctx.load(26)) else {
        return NO_REQUEST;
    };
    let request = DeviceRequest { kind, access, major, minor };
    encode(Some(common::device::decide(filled(&DEVICE_VERDICTS), filled(&DEVICE_RULES), &request)))
}

/// Packet: 14 bytes unused, then family, type and protocol (4 each, host order).
#[classifier]
pub fn judge_socket(ctx: TcContext) -> i32 {
    let (Ok(family), Ok(kind), Ok(protocol)) = (ctx.load(14), ctx.load(18), ctx.load(22)) else {
        return NO_REQUEST;
    };
    let request = socket::Request { family, kind, protocol, padding: 0 };
    encode(Some(socket::decide(filled(&SOCKET_TABLE), filled(&SOCKET_RULES), &request)))
}

/// Packet: 14 bytes unused, access (1), then the name, filled up with NULs.
#[classifier]
pub fn judge_sysctl(ctx: TcContext) -> i32 {
    let Ok(access) = ctx.load::<u8>(14) else { return NO_REQUEST };
    let mut name: Name = [0; NAME_LEN];
    // SAFETY: the buffer is as long as is said. (`TcContext::load_bytes` asks for as much as there is, in which the
    // verifier sees a length that may be 0; `load` makes copies that don't fit the stack.)
    let failed = unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), 15, name.as_mut_ptr().cast(), NAME_LEN as u32) };
    if failed != 0 {
        return NO_REQUEST;
    }
    encode(launcher_ebpf::sysctl::decide(&name, Access::from_write(u32::from(access))))
}

/// Packet: 14 bytes unused, then level, option and access (4 each, host order).
#[classifier]
pub fn judge_sockopt(ctx: TcContext) -> i32 {
    let (Ok(level), Ok(option), Ok(access)) = (ctx.load(14), ctx.load(18), ctx.load(22)) else {
        return NO_REQUEST;
    };
    encode(Some(launcher_ebpf::sockopt::decide(&SockoptRequest { level, option, access })))
}

/// Packet: 14 bytes unused, kind (1), length (2, host order), own (1), then the name, filled up with NULs.
#[classifier]
pub fn judge_unix(ctx: TcContext) -> i32 {
    let (Ok(kind), Ok(length), Ok(own)) = (ctx.load::<u8>(14), ctx.load::<u16>(15), ctx.load::<u8>(17)) else {
        return NO_REQUEST;
    };
    let mut name: common::unix::Name = [0; common::unix::NAME_LEN];
    // SAFETY: as above.
    let failed = unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), 18, name.as_mut_ptr().cast(), name.len() as u32) };
    if failed != 0 {
        return NO_REQUEST;
    }
    let peer =
        Peer { kind: Kind::from_number(u32::from(kind)), length: u32::from(length), name: &name, own: own.into() };
    encode(launcher_ebpf::unix::decide(&peer))
}

/// Packet: 14 bytes unused, then a DNS message. Returns the number of the first rule that has the name that it asks for.
#[cfg(feature = "names")]
#[classifier]
pub fn judge_name(ctx: TcContext) -> i32 {
    launcher_ebpf::name::query::first_rule(ctx.skb.skb, 14).unwrap_or(NO_REQUEST)
}
