//! The programs that guard a cgroup, one per hook: each hands its context to its noun's module.
#![no_std]
#![no_main]
#![allow(missing_docs)] // aya's macros make functions of their own that have none

use aya_ebpf::{
    macros::{cgroup_device, cgroup_sock_addr, cgroup_sockopt, cgroup_sysctl},
    programs::{DeviceContext, SockAddrContext, SockoptContext, SysctlContext},
};
use launcher_ebpf::{device, net, sockopt, sysctl};

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

/// `BPF_CGROUP_GETSOCKOPT`
#[cgroup_sockopt(getsockopt)]
pub fn guard_getopt(ctx: SockoptContext) -> i32 {
    sockopt::getsockopt(&ctx)
}

/// `BPF_CGROUP_SETSOCKOPT`
#[cgroup_sockopt(setsockopt)]
pub fn guard_setopt(ctx: SockoptContext) -> i32 {
    sockopt::setsockopt(&ctx)
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
