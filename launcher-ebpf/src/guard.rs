//! The programs that guard a cgroup, one per hook: each hands its context to its noun's module.
#![no_std]
#![no_main]
#![allow(missing_docs)] // aya's macros make functions of their own that have none

use aya_ebpf::{
    macros::{cgroup_device, cgroup_sock_addr, cgroup_sysctl, lsm_cgroup},
    programs::{DeviceContext, LsmContext, SockAddrContext, SysctlContext},
};
use launcher_ebpf::{device, net, sysctl, unix};

/// `BPF_CGROUP_INET4_CONNECT`
#[cgroup_sock_addr(connect4)]
pub fn guard_connect4(ctx: SockAddrContext) -> i32 {
    net::connect4(&ctx)
}

/// `BPF_CGROUP_INET6_CONNECT`
#[cgroup_sock_addr(connect6)]
pub fn guard_connect6(ctx: SockAddrContext) -> i32 {
    net::connect6(&ctx)
}

/// `BPF_CGROUP_UNIX_CONNECT`, for which aya has no macro; the launcher tells the kernel where it is attached.
#[cgroup_sock_addr(connect4)]
pub fn guard_unix_conn(ctx: SockAddrContext) -> i32 {
    unix::connect(&ctx)
}

/// `BPF_CGROUP_UNIX_SENDMSG`, likewise.
#[cgroup_sock_addr(sendmsg4)]
pub fn guard_unix_send(ctx: SockAddrContext) -> i32 {
    unix::sendmsg(&ctx)
}

/// `BPF_LSM_CGROUP`
#[lsm_cgroup(hook = "unix_stream_connect")]
pub fn guard_unix_lsmc(ctx: LsmContext) -> i32 {
    unix::peer::stream_connect(&ctx)
}

/// `BPF_LSM_CGROUP`
#[lsm_cgroup(hook = "unix_may_send")]
pub fn guard_unix_lsms(ctx: LsmContext) -> i32 {
    unix::peer::may_send(&ctx)
}

/// `BPF_CGROUP_DEVICE`
#[cgroup_device]
pub fn guard_device(ctx: DeviceContext) -> i32 {
    device::device(&ctx)
}

/// `BPF_CGROUP_SYSCTL`
#[cgroup_sysctl]
pub fn guard_sysctl(ctx: SysctlContext) -> i32 {
    sysctl::sysctl(&ctx)
}
